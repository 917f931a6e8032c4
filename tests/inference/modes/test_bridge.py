"""The bridge by itself, where the integral is known."""

import numpy as np
import pytest
from scipy import stats

from gmm_bayes.errors import InferenceError
from gmm_bayes.inference.modes.bridge import Normal, bridge, largest_constant

LOG_Z = 7.5


def one_answer(rng, weighted=False):
    """The integral of exp(LOG_Z) times a Student density, or of its product with a weight."""
    law = stats.t(5)
    draws = law.rvs((4, 250), random_state=rng)
    log_f = LOG_Z + law.logpdf(draws)
    weights = np.ones_like(draws)
    if weighted:
        # Drawn from f / (1 + tanh): the weights say so.
        draws = np.where(rng.random(draws.shape) < 0.25, -abs(draws), abs(draws))
        weights = np.where(draws < 0, 2.0, 2 / 3) * 7.0
        log_f = LOG_Z + law.logpdf(draws)
    normal = Normal(np.zeros(1), np.array([[1.2]]))
    proposals = normal.sample(rng, 1000)
    at_draws = log_f - normal.log_density(draws.reshape(-1, 1)).reshape(draws.shape)
    at_proposals = LOG_Z + law.logpdf(proposals[:, 0]) - normal.log_density(proposals)
    return bridge(at_draws, at_proposals, weights)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_error_is_the_spread_of_the_answers(weighted):
    rng = np.random.default_rng(int(weighted))
    found = [one_answer(rng, weighted) for _ in range(100)]
    scores = np.array([(b.log_constant - LOG_Z) / b.error for b in found])
    assert abs(scores.mean()) < 5 / np.sqrt(100)
    # The sd of 100 normal scores lies within 0.3 of one, give or take four of its own sds.
    assert scores.std() == pytest.approx(1, abs=0.3)
    assert max(b.error for b in found) < 0.05


def test_autocorrelated_draws_count_less():
    rng = np.random.default_rng(4)
    chain = np.zeros((4, 1000))
    for t in range(1, 1000):
        chain[:, t] = 0.95 * chain[:, t - 1] + np.sqrt(1 - 0.95**2) * rng.normal(size=4)
    normal = Normal(np.array([0.3]), np.array([[1.1]]))
    proposals = normal.sample(rng, 4000)

    def ratio(x):
        return stats.norm.logpdf(x) - normal.log_density(x.reshape(-1, 1)).reshape(x.shape)

    slow = bridge(ratio(chain), ratio(proposals[:, 0]), np.ones_like(chain))
    quick = bridge(ratio(rng.permuted(chain, axis=1)), ratio(proposals[:, 0]), np.ones_like(chain))
    assert slow.ess < quick.ess / 5
    assert slow.error > quick.error
    assert abs(slow.log_constant) < 5 * slow.error


def test_half_of_the_proposals_where_there_is_nothing():
    rng = np.random.default_rng(2)
    draws = abs(rng.normal(size=(2, 2000)))
    normal = Normal(np.zeros(1), np.eye(1))
    proposals = normal.sample(rng, 4000)[:, 0]
    at_proposals = np.where(proposals > 0, LOG_Z, -np.inf)
    found = bridge(np.full(draws.shape, LOG_Z), at_proposals, np.ones_like(draws))
    assert abs(found.log_constant - (LOG_Z - np.log(2))) < 5 * found.error
    assert found.error < 0.05


def test_normal_has_the_moments_of_its_points():
    rng = np.random.default_rng(3)
    points, weights = rng.normal(size=(4, 100, 3)), rng.random((4, 100))
    normal = Normal.fit(points, weights)
    flat = points.reshape(-1, 3)
    covariance = np.cov(flat.T, aweights=weights.ravel())
    np.testing.assert_allclose(normal.factor @ normal.factor.T, covariance)
    expected = stats.multivariate_normal(normal.loc, covariance).logpdf(flat)
    np.testing.assert_allclose(normal.log_density(flat), expected)


def test_what_cannot_be_bridged():
    message = "do not meet"
    with pytest.raises(InferenceError, match=message):
        bridge(np.zeros((2, 50)), np.full(100, -np.inf), np.ones((2, 50)))
    with pytest.raises(InferenceError, match=message):
        Normal.fit(np.zeros((2, 50, 3)), np.ones((2, 50)))


def test_a_covariance_bounds_the_integral():
    """Of a normal density closely; of two far apart from above; of few draws it says nothing."""
    rng = np.random.default_rng(6)
    factor = np.tril(rng.standard_normal((8, 8))) + 3 * np.eye(8)
    law = stats.multivariate_normal(np.arange(8.0), factor @ factor.T)
    bounds = []
    for _ in range(50):
        draws = law.rvs((4, 100), random_state=rng)
        bounds.append(largest_constant(draws, LOG_Z + law.logpdf(draws)))
    bounds = np.array(bounds) - LOG_Z
    # Two standard errors above it.
    assert (bounds > 0).mean() > 0.9
    assert bounds.mean() < 0.5
    # Of 80 draws a covariance has too small a determinant: by 0.3 nats of the bound here.
    few = law.rvs((200, 4, 20), random_state=rng)
    few_bounds = [largest_constant(draws, law.logpdf(draws)) for draws in few]
    assert 0.6 < np.mean(few_bounds) < 1
    apart = np.where(rng.random((4, 100, 1)) < 0.5, 20.0, -20.0)
    log_f = LOG_Z + np.logaddexp(law.logpdf(draws), law.logpdf(draws + 2 * apart)) - np.log(2)
    assert largest_constant(draws + apart * (rng.random((4, 100, 1)) < 0.5), log_f) > LOG_Z + 1
    assert largest_constant(draws[:1, :15], np.zeros((1, 15))) == np.inf
