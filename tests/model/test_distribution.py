"""The NumPyro distribution against NumPyro's own mixture."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from conftest import random_mixture

import gmm_bayes as gb

pytestmark = pytest.mark.usefixtures("double")


def numpyros(weights, means, scale_tril):
    return dist.MixtureSameFamily(
        dist.Categorical(probs=weights), dist.MultivariateNormal(means, scale_tril=scale_tril)
    )


@pytest.mark.parametrize(("k", "d"), [(1, 1), (1, 2), (3, 1), (4, 3)])
def test_log_prob_is_numpyros(covariance_type, k, d):
    parameters, _ = random_mixture(covariance_type, k, d)
    X = 3 * np.random.default_rng(0).standard_normal((30, d))
    ours = gb.GaussianMixture(*parameters)
    assert ours.batch_shape == ()
    assert ours.event_shape == (d,)
    assert ours.log_prob(X).shape == (30,)
    theirs = jax.jit(lambda p: numpyros(*p).log_prob(X))(parameters)
    np.testing.assert_allclose(ours.log_prob(X), theirs, rtol=1e-10)
    np.testing.assert_allclose(ours.log_prob(X[0]), ours.log_prob(X)[0])


def test_a_batch_of_mixtures():
    singles = [random_mixture("full", 3, 2, seed=s)[0] for s in range(5)]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *singles)
    batch = gb.GaussianMixture(*stacked)
    assert batch.batch_shape == (5,)
    X = np.random.default_rng(0).standard_normal((7, 5, 2))
    expected = np.stack(
        [gb.GaussianMixture(*p).log_prob(X[:, b]) for b, p in enumerate(singles)], axis=1
    )
    np.testing.assert_allclose(batch.log_prob(X), expected, rtol=1e-10)
    assert batch.sample(jax.random.key(0), (7,)).shape == (7, 5, 2)
    over_draws = jax.vmap(lambda *p: gb.GaussianMixture(*p).log_prob(X[:, 0]))(*stacked)
    np.testing.assert_allclose(over_draws[1], batch.log_prob(X[:, :1])[:, 1], rtol=1e-10)


def test_samples_have_the_right_moments():
    parameters, _ = random_mixture("full", 3, 2)
    n = 40_000
    X = np.asarray(gb.GaussianMixture(*parameters).sample(jax.random.key(1), (n,)))
    mean = parameters.weights @ parameters.means
    apart = parameters.means - mean
    covariance = np.einsum("k,kde->de", parameters.weights, parameters.covariances) + np.einsum(
        "k,kd,ke->de", parameters.weights, apart, apart
    )
    sd = np.sqrt(np.diag(covariance))
    assert (abs(X.mean(0) - mean) < 5 * sd / np.sqrt(n)).all()
    assert (abs(np.cov(X.T) - covariance) < 5 * np.outer(sd, sd) * np.sqrt(3 / n)).all()


def test_bad_parameters_are_refused_when_asked():
    parameters, _ = random_mixture("full", 3, 2)
    with pytest.raises(ValueError, match="invalid weights parameter"):
        gb.GaussianMixture(parameters.weights + 1, *parameters[1:], validate_args=True)
