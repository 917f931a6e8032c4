"""The flat potential against NumPyro's own, and the way there and back."""

import jax
import numpy as np
import pytest
from conftest import random_mixture
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import potential_energy, unconstrain_fn

import gmm_bayes as gb
from gmm_bayes.core import mixture
from gmm_bayes.core.likelihood import block_rows
from gmm_bayes.inference import potential as pot
from gmm_bayes.inference.potential import Data, ModelSpec
from gmm_bayes.inference.sampling.mode import value_and_gradient

pytestmark = pytest.mark.usefixtures("double")


SHAPES = [(1, 1), (3, 2), (2, 4)]


def priors_for(k, d):
    """Priors with nothing symmetric about them."""
    rng = np.random.default_rng(3)
    factor = np.tril(rng.uniform(0.2, 1, (d, d)))
    return gb.Priors(
        weight_concentration=rng.uniform(0.3, 2, k),
        mean_loc=rng.standard_normal((k, d)),
        mean_covariance=factor @ factor.T,
        scale_scale=rng.uniform(0.5, 2, d),
        correlation_concentration=1.7,
    )


def problem(covariance_type, k, d):
    parameters, _ = random_mixture(covariance_type, k, d)
    X = 3 * np.random.default_rng(0).standard_normal((20, d))
    spec = ModelSpec(k, covariance_type)
    prior = pot.log_prior(priors_for(k, d).arrays(k, d), spec)
    return parameters, X, jax.device_put(Data(block_rows(X), prior)), spec


@pytest.mark.parametrize(("k", "d"), SHAPES)
def test_it_is_numpyros_potential_and_can_go_back(covariance_type, k, d):
    """The closed forms against NumPyro's own transforms and distributions, constants included."""
    parameters, X, data, spec = problem(covariance_type, k, d)
    here = pot.space(spec, d)
    sites = pot.site_values(parameters, spec)
    z = here.vector(sites)
    back = here.sites(z)
    assert set(back) == set(sites)
    for name, value in sites.items():
        np.testing.assert_allclose(back[name], value, atol=1e-12)
    keywords = {
        "n_components": k,
        "covariance_type": covariance_type,
        "priors": priors_for(k, d),
    }

    # Traced, not run: eagerly NumPyro compiles a hundred tiny programs.
    @jax.jit
    def by_numpyro(sites):
        unconstrained = unconstrain_fn(gb.gaussian_mixture, (X,), keywords, sites)
        energy = potential_energy(gb.gaussian_mixture, (X,), keywords, unconstrained)
        return ravel_pytree(unconstrained)[0], energy

    theirs, expected = by_numpyro(sites)
    # The same numbers; NumPyro reads the correlations in another order.
    np.testing.assert_allclose(np.sort(theirs), np.sort(z), atol=1e-10)
    np.testing.assert_allclose(pot.potential(z, data, spec), expected, rtol=1e-10)


def test_numpy_and_jax_say_the_same_of_many_vectors(covariance_type):
    _, _, data, spec = problem(covariance_type, 3, 3)
    here = pot.space(spec, 3)
    z = np.random.default_rng(1).standard_normal((4, 5, here.dimension))
    host = jax.tree.map(np.asarray, data.prior)
    many = here.log_density(z, host)
    assert many.shape == (4, 5)
    np.testing.assert_allclose(many, here.log_density(jax.device_put(z), data.prior), rtol=1e-12)
    np.testing.assert_allclose(many[2, 1], here.log_density(z[2, 1], host), rtol=1e-12)
    for name, values in here.sites(z).items():
        np.testing.assert_allclose(values[2, 1], here.sites(z[2, 1])[name], rtol=1e-12)


def test_log_likelihood_is_the_sum_over_rows():
    parameters, X, data, spec = problem("full", 3, 2)
    here = pot.space(spec, 2)
    z = jax.device_put(here.vector(pot.site_values(parameters, spec)))
    expected = gb.GaussianMixture(*parameters).log_prob(X).sum()
    ours = -pot.potential(z, data, spec) - here.log_density(z, data.prior)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


@pytest.mark.parametrize(("k", "d"), SHAPES)
def test_gradient_is_that_of_finite_differences(covariance_type, k, d):
    parameters, _, data, spec = problem(covariance_type, k, d)
    z = pot.space(spec, d).vector(pot.site_values(parameters, spec))
    gradient = value_and_gradient(z, data, spec)[1]
    h = 1e-6
    for i in range(0, len(z), 5):
        step = np.zeros_like(z)
        step[i] = h
        difference = pot.potential(z + step, data, spec) - pot.potential(z - step, data, spec)
        np.testing.assert_allclose(gradient[i], difference / (2 * h), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_counts_follow_from_the_gradient(covariance_type, k):
    """The expected rows of each component, without another pass over the rows."""
    parameters, X, data, spec = problem(covariance_type, k, 2)
    here = pot.space(spec, 2)
    z = here.vector(pot.site_values(parameters, spec))
    gradient = -np.asarray(value_and_gradient(z, data, spec)[1])
    prior = jax.tree.map(np.asarray, data.prior)
    counts = here.counts(np.stack([gradient] * 2), np.stack([z] * 2), prior, len(X))
    expected = mixture.responsibilities(X, parameters).sum(axis=0)
    np.testing.assert_allclose(counts, [expected] * 2, atol=1e-9)


def test_an_extreme_vector_has_a_finite_density_and_gradient():
    """Warm-up goes far: a gradient that is not a number there would end the chain."""
    _, _, data, spec = problem("full", 3, 3)
    for size in (20.0, 200.0):
        z = size * np.where(np.arange(pot.space(spec, 3).dimension) % 2, 1.0, -1.0)
        here = pot.space(spec, 3)
        slope = jax.grad(here.log_density)(jax.device_put(z), data.prior)
        assert np.isfinite(slope).all()
        assert np.isfinite(here.sites(z)["weights"]).all()


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
            z = pot.space(spec, d).vector(pot.site_values(parameters, spec))
        values.append(float(pot.potential(z, data, spec)))
    np.testing.assert_allclose(values, values[0], rtol=1e-12)


def test_spherical_prior_scale_is_the_root_mean_square():
    _, _, _, spec = problem("spherical", 2, 2)
    prior = gb.Priors.fixed(np.ones((2, 2))).arrays(2, 2)
    scales = [
        pot.log_prior(prior._replace(scale_scale=np.array(values)), spec).log_scale
        for values in ([1.0, 7.0], [5.0, 5.0])
    ]
    np.testing.assert_allclose(np.exp(scales), 5.0)
