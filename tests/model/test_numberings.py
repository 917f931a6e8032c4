"""Sums over numberings, against every numbering by itself."""

import itertools

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.model.numberings import log_permanent, log_prior_ratios, numbering_weights
from gmm_bayes.model.priors import Priors


@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_permanent_by_brute_force(k):
    logs = np.random.default_rng(k).normal(scale=30, size=(20, k, k))
    rows = np.arange(k)
    every = [logs[:, rows, list(s)].sum(axis=1) for s in itertools.permutations(range(k))]
    np.testing.assert_allclose(log_permanent(logs), logsumexp(every, axis=0), rtol=1e-12)


def test_permanent_of_a_dozen_and_in_chunks():
    k = 12
    equal = np.full((3, k, k), -2.0)
    factorial = np.log(np.arange(1, k + 1)).sum()
    np.testing.assert_allclose(log_permanent(equal), k * -2.0 + factorial, rtol=1e-12)
    # More matrices than are held at once, of rank one: perm = K! prod a prod b.
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 2000, k))
    logs = a[:, :, None] + b[:, None, :]
    expected = factorial + a.sum(axis=1) + b.sum(axis=1)
    np.testing.assert_allclose(log_permanent(logs), expected, atol=1e-10)


def test_permanent_far_below_the_smallest_number():
    logs = np.array([[[-1e5, -2e5], [-3.0, -1e6]]])
    np.testing.assert_allclose(log_permanent(logs), [-200003.0])


def some_draws(n_draws=10, k=3, d=2):
    rng = np.random.default_rng(5)
    return MixtureParameters(
        rng.dirichlet(np.ones(k), n_draws),
        rng.normal(size=(n_draws, k, d)),
        np.tile(np.eye(d), (n_draws, k, 1, 1)),
    )


def test_ratios_are_those_of_the_prior():
    k, d = 3, 2
    draws = some_draws()
    prior = Priors.fixed(
        weight_concentration=[0.3, 1.0, 4.0],
        mean_loc=np.random.default_rng(6).normal(size=(k, d)),
        mean_covariance=[[2.0, 0.5], [0.5, 1.0]],
    )
    arrays = prior.arrays(k, d)
    logs = log_prior_ratios(draws, arrays)

    def log_density(weights, means):
        return stats.dirichlet(arrays.weight_concentration).logpdf(weights) + sum(
            stats.multivariate_normal(a, prior.mean_covariance).logpdf(m)
            for a, m in zip(arrays.mean_loc, means, strict=True)
        )

    for numbering in map(list, itertools.permutations(range(k))):
        # The component j of the draw gets the prior of component numbering[j].
        place = np.argsort(numbering)
        expected = [
            log_density(w[place], m[place]) - log_density(w, m)
            for w, m in zip(draws.weights, draws.means, strict=True)
        ]
        np.testing.assert_allclose(logs[:, range(k), numbering].sum(axis=1), expected, atol=1e-10)


def test_weights_stand_for_the_numberings_not_visited():
    logs = np.random.default_rng(7).normal(size=(200, 2, 2))
    every = log_permanent(logs)
    stayed = np.tile([1, 0], (200, 1))
    weights = numbering_weights(logs, every, stayed)
    expected = np.exp(every - logs[:, 0, 1] - logs[:, 1, 0])
    np.testing.assert_allclose(weights, expected / expected.mean())
    # A single stray draw is no visit; a tenth of the draws is.
    stayed[3] = [0, 1]
    np.testing.assert_allclose(numbering_weights(logs, every, stayed), weights)
    stayed[:20] = [0, 1]
    np.testing.assert_allclose(numbering_weights(logs, every, stayed), 1)


def test_components_that_move_among_themselves():
    """The first stays, the others change places: two of six numberings are as good as visited."""
    rng = np.random.default_rng(8)
    logs = rng.normal(size=(300, 3, 3))
    every = log_permanent(logs)
    came_from = np.where(rng.random((300, 1)) < 0.9, [2, 0, 1], [2, 1, 0])
    visited = logsumexp(
        [logs[:, range(3), numbering].sum(axis=1) for numbering in ([2, 0, 1], [2, 1, 0])], axis=0
    )
    expected = np.exp(every - visited)
    weights = numbering_weights(logs, every, came_from)
    np.testing.assert_allclose(weights, expected / expected.mean())
    # Each pair changes places somewhere along the chain: so does everything.
    came_from[::3] = [0, 2, 1]
    np.testing.assert_array_equal(numbering_weights(logs, every, came_from), 1)
