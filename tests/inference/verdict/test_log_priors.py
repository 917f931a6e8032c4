"""The log prior of every site, against NumPyro's, and their sum against the potential's."""

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from made_up import far_apart, made_up_fit, shuffled

import gmm_bayes as gb
from gmm_bayes.inference.potential import ModelSpec, log_prior, space
from gmm_bayes.inference.verdict.log_priors import log_priors

K = 3


def with_priors(fit, seed=0):
    """The fit with a prior in which every number is another one."""
    rng = np.random.default_rng(seed)
    d = fit.n_features
    root = rng.standard_normal((d, d)) + 3 * np.eye(d)
    constants = fit.datatree["constant_data"].to_dataset()
    given = {
        "weight_concentration": rng.uniform(0.3, 3, K),
        "mean_loc": rng.standard_normal((K, d)),
        "mean_covariance": root @ root.T,
        "scale_scale": rng.uniform(0.2, 5, d),
        "correlation_concentration": np.asarray(1.7),
    }
    return fit.with_group(
        "constant_data", constants.assign({n: (constants[n].dims, v) for n, v in given.items()})
    )


def numpyro_terms(fit):
    """Each site's log density as NumPyro has it, summed over components."""
    prior = fit.priors
    draws = {str(n): v.transpose("chain", "draw", ...).values for n, v in fit.posterior.items()}
    scale = np.asarray(prior.scale_scale)
    if fit.covariance_type == "spherical":
        scale = np.sqrt(np.mean(scale**2))
    laws = {
        "weights": dist.Dirichlet(prior.weight_concentration),
        "means": dist.MultivariateNormal(prior.mean_loc, prior.mean_covariance),
        "scales": dist.HalfCauchy(scale),
    }
    if fit.covariance_type in ("full", "tied") and fit.n_features > 1:
        laws["correlation_cholesky"] = dist.LKJCholesky(
            fit.n_features, prior.correlation_concentration
        )
    density = jax.jit(lambda draws: {name: law.log_prob(draws[name]) for name, law in laws.items()})
    terms = {name: np.asarray(term) for name, term in density(draws).items()}
    return {n: t.reshape(*t.shape[:2], -1).sum(axis=2) for n, t in terms.items()}


@pytest.mark.parametrize("d", [1, 2, 4])
def test_each_site_is_numpyros(covariance_type, d):
    fit = with_priors(made_up_fit(far_apart(K, d), covariance_type=covariance_type, n_draws=20))
    ours = log_priors(fit)
    with jax.enable_x64(True):
        theirs = numpyro_terms(fit)
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-12, atol=1e-10, err_msg=name)


def test_the_sum_is_the_unconstrained_density_less_its_jacobian():
    """With one feature the Jacobian is short: of the sticks, and of the logs of the scales."""
    fit = with_priors(made_up_fit(far_apart(K, 1), n_draws=20))
    spec = ModelSpec(K, fit.covariance_type)
    here = space(spec, 1)
    prior = log_prior(fit.priors.arrays(K, 1), spec)
    total = sum(log_priors(fit).values())
    draws = {name: fit.posterior[name].values for name in ("weights", "means", "scales")}
    for place in np.ndindex(2, 20):
        sites = {name: value[place] for name, value in draws.items()}
        z = here.vector(sites)
        left = 1 - np.concatenate([[0], np.cumsum(sites["weights"])[:-1]])[:-1]
        ratios = sites["weights"][:-1] / left
        jacobian = np.log(ratios * (1 - ratios) * left).sum() + np.log(sites["scales"]).sum()
        assert here.log_density(z, prior) == pytest.approx(total[place] + jacobian, abs=1e-9)


def test_aligned_draws_keep_the_prior_of_the_component_they_were():
    """Alignment moves numbers; the density of a draw stays what it was when it was sampled."""
    mixed, _ = shuffled(with_priors(made_up_fit(far_apart(K, 2), n_draws=40, noise=0.05)))
    aligned = gb.align_labels(mixed)
    assert not np.array_equal(aligned.posterior["means"], mixed.posterior["means"])
    for name, value in log_priors(mixed).items():
        np.testing.assert_allclose(log_priors(aligned)[name], value, rtol=1e-12, err_msg=name)


def test_a_weight_too_small_for_a_number():
    fit = made_up_fit(far_apart(2, 1), n_draws=10)
    posterior = fit.posterior.copy(deep=True)
    posterior["weights"].values[0, 0] = [1.0, 0.0]
    assert np.isfinite(log_priors(fit.with_group("posterior", posterior))["weights"]).all()
