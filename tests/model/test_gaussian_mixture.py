"""The model function: its log joint against a plain NumPyro model, and its prior in closed form."""

import jax
import numpy as np
import pytest
from conftest import plain_model
from numpyro import handlers
from numpyro.infer import HMC, MCMC
from numpyro.infer.util import log_density
from scipy import stats

import gmm_bayes as gb
from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference.potential import ModelSpec, sample_prior

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize(("k", "d"), [(1, 1), (1, 2), (3, 1), (3, 2), (2, 4)])
def test_log_joint_is_that_of_a_plain_model(covariance_type, k, d):
    rng = np.random.default_rng(3)
    X = 2 * rng.standard_normal((25, d))
    A, s = rng.standard_normal((k, d)), 0.5 + rng.random(d)
    B = np.cov(rng.standard_normal((d, d + 3))).reshape(d, d)
    priors = gb.Priors(mean_loc=A, mean_covariance=B, scale_scale=s)
    options = {"n_components": k, "covariance_type": covariance_type, "priors": priors}

    # One program; operation by operation a hundred are compiled.
    @jax.jit
    def both(key):
        trace = handlers.trace(handlers.seed(gb.gaussian_mixture, key)).get_trace(X, **options)
        values = {
            name: site["value"]
            for name, site in trace.items()
            if site["type"] == "sample" and not site["is_observed"]
        }
        ours, _ = log_density(gb.gaussian_mixture, (X,), options, values)
        plain, _ = log_density(plain_model, (X, A, B, s, k, covariance_type), {}, values)
        return ours, plain

    ours, plain = both(jax.random.key(5))
    np.testing.assert_allclose(ours, plain, rtol=1e-8)


def test_any_numpyro_inference_can_use_it(faithful):
    X = faithful.to_numpy()
    # NUTS takes a minute to compile.
    kernel = HMC(gb.gaussian_mixture, trajectory_length=None, num_steps=4)
    mcmc = MCMC(kernel, num_warmup=20, num_samples=10, progress_bar=False)
    mcmc.run(jax.random.key(0), X, n_components=2, priors=gb.default_priors(X, 2))
    az = arviz_bridge.import_arviz()
    tree = az.from_numpyro(mcmc, log_likelihood=True)
    assert tree.posterior["means"].dims == ("chain", "draw", "component", "feature")
    assert tree.posterior["scales"].dims == ("chain", "draw", "component", "feature")
    assert tree.posterior["correlation_cholesky"].dims[2:] == ("component", "feature", "feature2")
    assert tree.posterior["weights"].dims == ("chain", "draw", "component")
    assert tree.observed_data["X"].dims == ("obs", "feature")
    assert tree.log_likelihood["X"].dims == ("chain", "draw", "obs")


def test_without_data_it_samples_rows():
    priors = gb.Priors.fixed(np.zeros((3, 2)))
    trace = handlers.trace(handlers.seed(gb.gaussian_mixture, jax.random.key(0))).get_trace(
        n_components=3, priors=priors, n_obs=7
    )
    assert trace["X"]["value"].shape == (7, 2)
    assert trace["covariances"]["value"].shape == (3, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"priors": gb.Priors.fixed([[0.0]])}, "n_obs must be given when X is None"),
        (
            {"n_obs": 3},
            "priors must have mean_loc and mean_covariance and scale_scale filled when the data",
        ),
        (
            {"n_obs": 3, "priors": gb.Priors.fixed([[0.0]]), "covariance_type": "ful"},
            "covariance_type must be one of full, tied, diag, spherical, got 'ful'; "
            "did you mean 'full'?",
        ),
    ],
)
def test_what_cannot_be_modelled_is_refused(arguments, message):
    with pytest.raises(ValueError) as error:
        gb.gaussian_mixture(n_components=1, **arguments)
    assert str(error.value).startswith(message)


def test_a_call_outside_an_inference_says_what_the_model_is_for():
    with pytest.raises(
        RuntimeError, match=r"NumPyro model .* MCMC\(NUTS\(gmm_bayes\.gaussian_mixture"
    ):
        gb.gaussian_mixture(np.arange(12.0).reshape(6, 2) ** 2, n_components=2)


def test_traced_data_need_filled_priors():
    def trace(X):
        handlers.seed(gb.gaussian_mixture, 0)(X, n_components=2)

    with pytest.raises(ValueError, match="absent or traced"):
        jax.eval_shape(trace, np.zeros((5, 2)))


@pytest.fixture(scope="module")
def prior_draws():
    """3 features, 4 components, one of each kind of hyperparameter."""
    priors = gb.Priors(
        mean_loc=np.arange(12.0).reshape(4, 3),
        mean_covariance=np.diag([1.0, 4.0, 9.0]),
        scale_scale=[0.5, 1.0, 2.0],
        correlation_concentration=3.0,
    )
    with jax.enable_x64(True):
        key = np.array([1, 2], dtype=np.uint32)
        draws = sample_prior(key, priors.arrays(4, 3), ModelSpec(4, "full"), n_obs=2, n_draws=4000)
        return {name: np.asarray(value) for name, value in draws.items()}


def test_prior_marginals_are_the_closed_forms(prior_draws):
    """Each a Kolmogorov-Smirnov test at 1e-4, on seeds that are fixed."""
    tril = prior_draws["correlation_cholesky"]
    correlation = tril @ tril.swapaxes(-1, -2)
    eta, d, k = 3.0, 3, 4
    beta = stats.beta(eta - 1 + d / 2, eta - 1 + d / 2)
    marginals = {
        "weight": (prior_draws["weights"][:, 1], stats.beta(0.5, 0.5 * (k - 1))),
        "mean": (prior_draws["means"][:, 2, 1], stats.norm(7, 2)),
        "scale": (prior_draws["scales"][:, 3, 2], stats.halfcauchy(scale=2)),
        "correlation": ((correlation[:, 0, 2, 0] + 1) / 2, beta),
    }
    for name, (draws, law) in marginals.items():
        assert stats.kstest(draws, law.cdf).pvalue > 1e-4, name


def test_prior_covariances_follow_from_the_sites(prior_draws):
    tril = prior_draws["scales"][..., None] * prior_draws["correlation_cholesky"]
    np.testing.assert_allclose(prior_draws["covariances"], tril @ tril.swapaxes(-1, -2))
