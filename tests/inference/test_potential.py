"""The flat potential against NumPyro's own, and the way there and back."""

import jax
import numpy as np
import pytest
from conftest import random_mixture
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import potential_energy, unconstrain_fn

import gmm_bayes as gb
from gmm_bayes.core.likelihood import block_rows
from gmm_bayes.inference import potential as pot
from gmm_bayes.inference.potential import Data, ModelSpec

pytestmark = pytest.mark.usefixtures("double")


def problem(covariance_type, k, d):
    parameters, _ = random_mixture(covariance_type, k, d)
    X = 3 * np.random.default_rng(0).standard_normal((20, d))
    spec = ModelSpec(k, covariance_type)
    prior = gb.Priors(mean_loc=np.ones((k, d))).arrays(k, d)
    return parameters, X, Data(block_rows(jax.device_put(X)), jax.device_put(prior)), spec


@pytest.mark.parametrize(("k", "d"), [(1, 1), (3, 2)])
def test_it_is_numpyros_potential_and_can_go_back(covariance_type, k, d):
    parameters, X, data, spec = problem(covariance_type, k, d)
    sites = pot.site_values(jax.device_put(parameters), spec)
    z = pot.unconstrain(sites, data, spec)
    back = pot.constrain(z, data, spec)
    assert set(back) == set(sites)
    for name, value in sites.items():
        np.testing.assert_allclose(back[name], value, atol=1e-12)
    keywords = {
        "n_components": k,
        "covariance_type": covariance_type,
        "priors": gb.Priors(mean_loc=np.ones((k, d))),
    }
    unconstrained = unconstrain_fn(gb.gaussian_mixture, (X,), keywords, sites)
    np.testing.assert_allclose(ravel_pytree(unconstrained)[0], z)
    expected = potential_energy(gb.gaussian_mixture, (X,), keywords, unconstrained)
    np.testing.assert_allclose(pot.potential(z, data, spec), expected, rtol=1e-12)


def test_log_likelihood_is_the_sum_over_rows():
    parameters, X, data, spec = problem("full", 3, 2)
    sites = pot.site_values(jax.device_put(parameters), spec)
    expected = gb.GaussianMixture(*parameters).log_prob(X).sum()
    np.testing.assert_allclose(pot.log_likelihood(sites, data, spec), expected, rtol=1e-12)


def test_gradient_is_that_of_finite_differences():
    parameters, _, data, spec = problem("full", 3, 2)
    z = np.asarray(pot.unconstrain(pot.site_values(jax.device_put(parameters), spec), data, spec))
    gradient = jax.grad(pot.potential)(z, data, spec)
    h = 1e-6
    for i in range(0, len(z), 5):
        step = np.zeros_like(z)
        step[i] = h
        difference = pot.potential(z + step, data, spec) - pot.potential(z - step, data, spec)
        np.testing.assert_allclose(gradient[i], difference / (2 * h), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("k", "d", "same"), [(3, 1, ("full", "diag", "spherical")), (1, 2, ("full", "tied"))]
)
def test_structures_that_coincide_have_one_density(k, d, same):
    """One feature has no correlations; one component shares with nobody."""
    z = None
    values = []
    for name in same:
        parameters, _, data, spec = problem("spherical" if d == 1 else "tied", k, d)
        spec = spec._replace(covariance_type=name)
        if z is None:
            z = pot.unconstrain(pot.site_values(jax.device_put(parameters), spec), data, spec)
        values.append(float(pot.potential(z, data, spec)))
    np.testing.assert_allclose(values, values[0], rtol=1e-12)


def test_spherical_prior_scale_is_the_root_mean_square():
    _, _, data, spec = problem("spherical", 2, 2)
    apart = data.prior._replace(scale_scale=np.array([1.0, 7.0]))
    together = data.prior._replace(scale_scale=np.array([5.0, 5.0]))
    z = np.zeros(7)
    np.testing.assert_allclose(
        pot.potential(z, data._replace(prior=apart), spec),
        pot.potential(z, data._replace(prior=together), spec),
    )
