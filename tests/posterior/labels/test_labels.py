"""Renumbered draws: the same whatever the numbering, the units and the empty components."""

import itertools

import numpy as np
import pytest

from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.model.matching import match_to_pivot, permuted

K, D = 4, 2


@pytest.fixture(scope="module")
def pivot():
    rng = np.random.default_rng(3)
    tril = np.tril(rng.normal(size=(K, D, D)))
    tril[:, range(D), range(D)] = rng.uniform(0.5, 2, (K, D))
    # Two components hold no rows and lie on top of those that do.
    weights = np.array([0.6, 0.4 - 2e-12, 1e-12, 1e-12])
    means = np.array([[0.0, 0.0], [8.0, -6.0], [0.3, 0.1], [8.0, -5.0]])
    return MixtureParameters(weights, means, tril)


def near(pivot, n_draws, size, seed=0):
    rng = np.random.default_rng(seed)
    weights, means, tril = (np.repeat(a[None], n_draws, axis=0) for a in pivot)
    means = means + size * rng.normal(size=means.shape)
    weights = weights * np.exp(size * rng.normal(size=weights.shape))
    weights /= weights.sum(axis=1, keepdims=True)
    tril = tril * np.exp(size * rng.normal(size=(n_draws, K, 1, 1)))
    return MixtureParameters(weights, means, tril)


def shuffled(draws, seed=1):
    rng = np.random.default_rng(seed)
    numbering = rng.permuted(np.tile(np.arange(K), (len(draws.weights), 1)), axis=1)
    return permuted(draws, numbering), numbering


def test_components_are_found_again(pivot):
    draws = near(pivot, 50, 0.05)
    mixed, numbering = shuffled(draws)
    found = match_to_pivot(mixed, pivot)
    np.testing.assert_array_equal(found, np.argsort(numbering, axis=1))
    for back, original in zip(permuted(mixed, found), draws, strict=True):
        np.testing.assert_array_equal(back, original)


def test_a_mixture_has_one_numbering(pivot):
    """Wild draws too, and those whose empty components have next to no weight."""
    draws = near(pivot, 40, 1.5)
    matched = sum(
        (match_to_pivot(permuted(draws, np.tile(s, (40, 1))), pivot) == np.arange(K)).all(axis=1)
        for s in itertools.permutations(range(K))
    )
    np.testing.assert_array_equal(matched, 1)


def test_units_do_not_matter(pivot):
    draws = shuffled(near(pivot, 30, 0.5))[0]
    units, shift = np.array([1e-6, 1e3]), np.array([1e2, -7.0])

    def moved(a):
        return MixtureParameters(a.weights, a.means * units + shift, a.scale_tril * units[:, None])

    np.testing.assert_array_equal(
        match_to_pivot(draws, pivot), match_to_pivot(moved(draws), moved(pivot))
    )


def test_a_draw_far_out_is_still_numbered(pivot):
    draws = near(pivot, 2, 0.05)
    draws.means[0, 1] = 1e200
    draws.scale_tril[1, 2] *= 1e-200
    for numbering in match_to_pivot(draws, pivot):
        assert sorted(numbering) == list(range(K))


def test_one_component():
    one = MixtureParameters(np.ones((5, 1)), np.zeros((5, 1, 3)), np.ones((5, 1, 3, 3)))
    first = MixtureParameters(*(a[0] for a in one))
    np.testing.assert_array_equal(match_to_pivot(one, first), np.zeros((5, 1)))
