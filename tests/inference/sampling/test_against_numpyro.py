"""The same posterior, sampled by plain NumPyro from a plain model."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from conftest import plain_model
from numpyro import handlers
from numpyro.infer import MCMC, NUTS
from numpyro.infer.util import constrain_fn, potential_energy, unconstrain_fn

import gmm_bayes as gb

# Whether a run is long enough to be believed is asked where it matters, by `diagnose`.
pytestmark = pytest.mark.filterwarnings("ignore::gmm_bayes.errors.ConvergenceWarning")


def by_plain_numpyro(ours, X, num_samples=1000):
    """Draws of the same posterior by NumPyro's own MCMC, two chains from our posterior mean."""
    priors = ours.priors
    data = (X, priors.mean_loc, priors.mean_covariance, jnp.asarray(priors.scale_scale))
    data += (ours.n_components, ours.covariance_type)
    start = {n: ours.posterior[n].values.mean((0, 1)) for n in ("weights", "means", "scales")}

    # In programs of our own: operation by operation NumPyro compiles hundreds.
    @jax.jit
    def begin(key):
        seeded = handlers.substitute(handlers.seed(plain_model, key), start)
        trace = handlers.trace(seeded).get_trace(*data)
        sites = {
            n: site["value"]
            for n, site in trace.items()
            if site["type"] == "sample" and not site["is_observed"]
        }
        return unconstrain_fn(plain_model, data, {}, sites)

    def potential(z):
        return potential_energy(plain_model, data, {}, z)

    kernel = NUTS(potential_fn=potential)
    mcmc = MCMC(
        kernel,
        num_warmup=500,
        num_samples=num_samples,
        num_chains=2,
        chain_method="sequential",
        progress_bar=False,
    )
    first, *keys = jax.random.split(jax.random.key(11), 3)
    mcmc.run(first, init_params=jax.vmap(begin)(jnp.stack(keys)))
    constrain = jax.vmap(jax.vmap(lambda z: constrain_fn(plain_model, data, {}, z)))
    draws = jax.jit(constrain)(mcmc.get_samples(group_by_chain=True))
    return jax.tree.map(np.asarray, draws)


@pytest.fixture(scope="module")
def both():
    """The textbook example: 500 rows, K = 8, by plain NumPyro and by us."""
    X = gb.datasets.make_blobs().X
    ours = gb.fit(X, 8, priors=gb.Priors.fixed(), seed=3)
    with jax.enable_x64(True):
        return ours, by_plain_numpyro(ours, X)


def moments(draws):
    """Mean, sd and the Monte-Carlo error of the mean, per parameter."""
    ess = numpyro.diagnostics.effective_sample_size(draws)
    assert np.nanmin(ess) > 400
    sd = draws.std((0, 1))
    return draws.mean((0, 1)), sd, sd / np.sqrt(ess), ess


def assert_same_posterior(ours, theirs):
    """Means within 5 Monte-Carlo errors, sds within 5 of theirs, for every free parameter."""
    for name, draws in theirs.items():
        free = draws.std((0, 1)) > 0
        mine = ours.posterior[name].values[:, :, free]
        mean, sd, error, ess = moments(mine)
        their_mean, their_sd, their_error, their_ess = moments(draws[:, :, free])
        assert (abs(mean - their_mean) < 5 * np.hypot(error, their_error)).all(), name
        # The relative error of a sd is 1 / sqrt(2 ess) for a normal, more for heavier tails.
        allowed = 5 * np.sqrt(1.5 / ess + 1.5 / their_ess)
        assert (abs(np.log(sd / their_sd)) < allowed).all(), name


def test_the_textbook_example(both):
    ours, theirs = both
    assert set(theirs) == {"weights", "means", "scales", "correlation_cholesky"}
    assert_same_posterior(ours, theirs)
    assert gb.diagnose(ours).ok


def test_the_comparison_can_fail(both):
    """A posterior that is off by a quarter of a sd is seen."""
    ours, theirs = both
    shifted = {**theirs, "means": theirs["means"] + 0.25 * theirs["means"].std((0, 1))}
    with pytest.raises(AssertionError, match="means"):
        assert_same_posterior(ours, shifted)
    wider = {
        **theirs,
        "scales": theirs["scales"] + 0.3 * (theirs["scales"] - theirs["scales"].mean((0, 1))),
    }
    with pytest.raises(AssertionError, match="scales"):
        assert_same_posterior(ours, wider)


@pytest.mark.slow
@pytest.mark.parametrize(
    "covariance_type",
    ["tied", "diag"],
)
def test_the_other_structures(faithful, covariance_type):
    sampler = gb.NUTS(num_warmup=500, num_samples=1000)
    X = faithful.to_numpy()
    ours = gb.fit(X, 2, covariance_type=covariance_type, sampler=sampler, seed=4)
    with jax.enable_x64(True):
        assert_same_posterior(ours, by_plain_numpyro(ours, X))


@pytest.mark.slow
@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
@pytest.mark.parametrize(
    ("load", "columns", "k"),
    [
        (gb.datasets.load_old_faithful, [0, 1], 2),
        (gb.datasets.load_iris, [0, 2, 3], 2),
        (gb.datasets.load_old_faithful, [1], 2),
    ],
    ids=["faithful", "iris", "waiting"],
)
def test_every_structure(load, columns, k, covariance_type):
    """The default priors, whose centres and scales follow the data, given to the plain model."""
    X = load().to_numpy()[:, columns]
    sampler = gb.NUTS(num_warmup=1000, num_samples=2000)
    ours = gb.fit(X, k, covariance_type=covariance_type, sampler=sampler, seed=4)
    with jax.enable_x64(True):
        theirs = by_plain_numpyro(ours, X, num_samples=2000)
    assert_same_posterior(ours, theirs)
