"""fit: the answers on real data, the same in every unit, and no compilation twice."""

import warnings

import jax
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from compilations import count_compilations
from numpyro.infer.util import potential_energy, unconstrain_fn

import gmm_bayes as gb
from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference.result.components import component_frame, component_text
from gmm_bayes.inference.sampling import nuts as samplers
from gmm_bayes.inference.sampling.drivers import nuts as chains

# Whether a run is long enough to be believed is asked where it matters, by `diagnose`.
pytestmark = pytest.mark.filterwarnings("ignore::gmm_bayes.errors.ConvergenceWarning")

SHORT = gb.NUTS(num_warmup=500, num_samples=1000)
SMALL = gb.NUTS(num_warmup=100, num_samples=50, num_chains=2)


def mcse(draws):
    """Monte-Carlo standard error of the mean, from the effective sample size."""
    ess = arviz_bridge.ess(draws.to_dataset(name="x"), "bulk")["x"]
    return draws.std(("chain", "draw")) / np.sqrt(ess)


def test_old_faithful(faithful_fit):
    diagnosis = gb.diagnose(faithful_fit)
    assert diagnosis.ok, diagnosis
    assert diagnosis.rhat < 1.01
    assert diagnosis.n_divergences == 0
    means = faithful_fit.posterior["means"].mean(("chain", "draw")).values
    np.testing.assert_allclose(means, [[2.04, 54.5], [4.29, 80.0]], rtol=0.01)
    weights = faithful_fit.posterior["weights"].mean(("chain", "draw")).values
    np.testing.assert_allclose(weights, [0.36, 0.64], atol=0.02)


def test_units_change_nothing_but_the_units(faithful, faithful_fit):
    scale = np.array([1000.0, 1e-6])
    other = gb.fit(faithful * scale, 2, sampler=SHORT, seed=1)
    np.testing.assert_allclose(
        gb.responsibilities(other), gb.responsibilities(faithful_fit), atol=0.02
    )
    ours, theirs = faithful_fit.posterior["means"], other.posterior["means"] / scale
    error = abs(ours.mean(("chain", "draw")) - theirs.mean(("chain", "draw")))
    assert (error < 5 * np.hypot(mcse(ours), mcse(theirs))).all()


def test_a_wide_component_takes_no_other_ones_number():
    """Its mean lies beyond the other's centre by chance, and says little of which one it is."""
    rng = np.random.default_rng(0)
    narrow = rng.normal([10, 0], 0.3, (30, 2))
    wide = rng.normal(0, 110, (20, 2))
    X = np.concatenate([narrow, wide - wide.mean(axis=0) + [35, 0]])
    priors = gb.Priors(5.0, [[-10.0, 0.0], [10.0, 0.0]], 1.0, 1.0)
    fit = gb.fit(X, 2, covariance_type="spherical", priors=priors, sampler=SMALL, seed=1)
    means = fit.posterior["means"].mean(("chain", "draw")).values
    assert np.linalg.norm(means[1] - [10, 0]) < 1
    # In the other order the wide one's mean would be at its rows' and not at its centre.
    assert np.linalg.norm(means[0] - [-10, 0]) < 5


def _potential_of_the_model(X, keywords):
    """NumPyro's, of sites: one program, where by operations hundreds would be compiled."""

    @jax.jit
    def potential(sites):
        z = unconstrain_fn(gb.gaussian_mixture, (X,), keywords, sites)
        return potential_energy(gb.gaussian_mixture, (X,), keywords, z)

    return potential


def test_lp_is_the_log_joint_of_the_model_in_the_users_units(faithful, covariance_type):
    """On columns of very different spread, so that a wrong shift between units shows."""
    X = faithful.to_numpy()[::4] * [1e-3, 1e3]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gb.errors.GMMBayesWarning)
        fit = gb.fit(X, 2, sampler=SMALL, seed=1, covariance_type=covariance_type)
    draw = fit.posterior.isel(chain=1, draw=17)
    keywords = {"n_components": 2, "covariance_type": covariance_type, "priors": fit.priors}
    with jax.enable_x64(True):
        names = ("weights", "means", "scales", "correlation_cholesky")
        sites = {name: draw[name].values for name in names if name in draw}
        expected = -float(_potential_of_the_model(X, keywords)(sites))
    stats = fit.sample_stats.isel(chain=1, draw=17)
    assert float(stats["lp"]) == pytest.approx(expected, rel=1e-10)
    rows = gb.log_likelihood(fit).isel(chain=1, draw=17).sum()
    assert float(stats["total_log_likelihood"]) == pytest.approx(float(rows), rel=1e-10)
    # Kinetic energy is positive, and about half the number of parameters on average.
    kinetic = fit.sample_stats["energy"] + fit.sample_stats["lp"]
    assert float(kinetic.min()) > 0
    assert float(kinetic.mean()) < fit.structure.n_parameters(2, 2)


def test_a_second_fit_of_the_same_shape_compiles_nothing(faithful, faithful_fit):
    X = faithful.to_numpy()[::-1] * 3 + 1
    longer = gb.NUTS(num_warmup=500, num_samples=1100, num_chains=2)
    gb.fit(X, 2, sampler=longer, seed=2)
    assert count_compilations(lambda: gb.fit(2 * X, 2, sampler=longer, seed=3)) == 0
    # The counter can count.
    assert count_compilations(lambda: jax.jit(lambda x: x * 3.25 + 1)(np.arange(7.0))) > 0


def test_a_first_fit_compiles_a_handful_of_programs():
    """The E-step, the gradient and the driver, and no eager storm around them."""
    # A shape that nothing else has, so that nothing is compiled before.
    X = gb.datasets.make_mixture(61, 2, 1, seed=5).X
    sampler = gb.NUTS(num_warmup=150, num_samples=200, num_chains=2, target_accept_prob=0.83)
    with pytest.warns(gb.errors.ConvergenceWarning):
        assert count_compilations(lambda: gb.fit(X, 2, sampler=sampler)) == 3


def test_threads_make_the_same_draws(faithful, monkeypatch):
    """Chains by themselves, in four threads and one after another."""
    monkeypatch.setattr(samplers, "cpu_cores", lambda: 4)
    fits = []
    for chain_method in ("parallel", "sequential"):
        sampler = gb.NUTS(num_warmup=500, num_samples=60, chain_method=chain_method)
        with pytest.warns(gb.errors.ConvergenceWarning):
            fits.append(gb.fit(faithful, 2, sampler=sampler, seed=1))
        assert fits[-1].chain_method == chain_method
    assert fits[0].posterior.identical(fits[1].posterior)


@pytest.mark.parametrize(
    ("num_chains", "cores", "size"),
    [(4, 2, 2), (4, 4, 1), (4, 1, 4), (3, 2, 1), (9, 2, 3), (2, 8, 1)],
)
def test_chains_are_dealt_to_cores_in_equal_groups(monkeypatch, num_chains, cores, size):
    monkeypatch.setattr(samplers, "cpu_cores", lambda: cores)
    sampler = gb.NUTS(num_chains=num_chains)
    assert sampler._group_size("parallel") == size
    assert sampler._group_size("vectorized") == num_chains
    assert sampler._group_size("sequential") == 1


def test_draws_do_not_depend_on_how_a_run_is_cut(faithful, faithful_fit, monkeypatch):
    """One draw a call gives the draws of calls as long as the clock allows."""
    monkeypatch.setattr(chains, "_SECONDS_PER_CALL", 1e-9)
    sampler = gb.NUTS(num_warmup=500, num_samples=20)
    fit = gb.fit(faithful, 2, sampler=sampler, seed=1)
    assert fit.posterior.identical(faithful_fit.posterior.isel(draw=slice(20)))


@pytest.mark.parametrize(
    ("setting", "method"),
    [({"chain_method": "vectorized"}, "vectorized"), ({"dense_mass": True}, "parallel")],
    ids=["vectorized", "dense"],
)
def test_other_settings_have_the_same_posterior(faithful, line_fit, setting, method):
    sampler = gb.NUTS(num_warmup=500, num_samples=1000, **setting)
    fit = gb.fit(faithful[["waiting"]], 2, sampler=sampler, seed=9)
    assert fit.chain_method == method
    for name in ("weights", "means", "scales"):
        ours, theirs = fit.posterior[name], line_fit.posterior[name]
        error = abs(ours.mean(("chain", "draw")) - theirs.mean(("chain", "draw")))
        assert (error < 5 * np.hypot(mcse(ours), mcse(theirs))).all(), name


def test_one_component_has_its_closed_form():
    """With K = 1 and much data the posterior is that of a normal sample."""
    X = 5 + 2 * np.random.default_rng(0).standard_normal((800, 1))
    fit = gb.fit(X, 1, sampler=SHORT, seed=0)
    mean = fit.posterior["means"].squeeze()
    sd = X.std() / np.sqrt(len(X))
    assert float(abs(mean.mean() - X.mean())) < 5 * float(mcse(mean)) + 0.01 * sd
    assert float(mean.std()) == pytest.approx(sd, rel=0.05)
    assert (fit.posterior["weights"] == 1).all()


def test_names_and_index_are_kept(faithful):
    frame = pd.DataFrame(
        {"a": faithful["eruptions"], "b": faithful["waiting"]},
    ).set_index(pd.Index([f"row{i}" for i in range(272)]))
    with pytest.warns(gb.errors.ConvergenceWarning):
        fit = gb.fit(frame, 2, sampler=gb.NUTS(num_warmup=500, num_samples=20), seed=1)
    assert fit.feature_names == ("a", "b")
    assert list(fit.posterior.coords["feature"].values) == ["a", "b"]
    assert list(gb.responsibilities(fit).coords["obs"].values[:2]) == ["row0", "row1"]


def test_the_same_seed_gives_the_same_draws(faithful):
    sampler = gb.NUTS(num_warmup=500, num_samples=20)
    with pytest.warns(gb.errors.ConvergenceWarning):
        fits = [gb.fit(faithful, 2, sampler=sampler, seed=s) for s in (7, 7, 8)]
    assert fits[0].posterior.identical(fits[1].posterior)
    assert not fits[0].posterior.equals(fits[2].posterior)


def test_a_start_can_be_given(faithful):
    start = gb.MixtureParameters.from_covariances(
        np.array([0.4, 0.6]),
        np.array([[4.3, 80.0], [2.0, 54.0]]),
        np.array([[[0.2, 0], [0, 40.0]], [[0.1, 0], [0, 30.0]]]),
    )
    with pytest.warns(gb.errors.ConvergenceWarning):
        fit = gb.fit(
            faithful, 2, sampler=gb.NUTS(num_warmup=500, num_samples=20), init=start, seed=1
        )
    # Numbered like the prior's centres, not like the start.
    assert fit.posterior["means"].mean(("chain", "draw"))[0, 1] < 60


def test_global_settings_are_left_alone(faithful_fit):
    assert not jax.config.jax_enable_x64
    assert faithful_fit.posterior["means"].dtype == np.float64


def test_the_record_says_what_it_is(faithful_fit):
    text = repr(faithful_fit)
    assert "272 rows, 2 columns (eruptions, waiting)" in text
    assert "2 components, full covariances" in text
    assert "believe it?: yes" in text
    lines = text.splitlines()
    posterior = faithful_fit.posterior
    weight, mean, sd = (
        posterior[name].isel(component=1) for name in ("weights", "means", "scales")
    )
    told = [
        f"{float(x.mean()):.{digits}f} +/- {float(x.std()):.{digits}f}"
        for x, digits in ((weight, 3), (mean.isel(feature=0), 3), (sd.isel(feature=0), 3))
    ]
    assert f"1          {told[0]}  eruptions  {told[1]}  {told[2]}" in lines
    shown = faithful_fit._repr_html_()
    assert "<table>" in shown
    assert all(f">{cell}</td>" in shown for cell in (*told, "eruptions", "waiting"))
    assert not faithful_fit.advice
    assert "advice" not in text
    assert set(faithful_fit.timings) == {"initialise", "compile", "sample"}
    assert faithful_fit.sampler == SHORT
    assert faithful_fit.versions["gmm_bayes"] == gb.__version__


def test_the_summary_is_the_frame_of_the_components(faithful_fit):
    frame = faithful_fit.summary()
    assert list(frame) == ["weight", "weight_sd", "mean", "mean_sd", "sd", "sd_sd"]
    assert list(frame.index.names) == ["component", "feature"]
    over = ("chain", "draw")
    for name, site in (("mean", "means"), ("sd", "scales")):
        draws = faithful_fit.posterior[site]
        np.testing.assert_allclose(frame[name].unstack("feature"), draws.mean(over))
        np.testing.assert_allclose(frame[f"{name}_sd"].unstack("feature"), draws.std(over))
    weights = faithful_fit.posterior["weights"]
    np.testing.assert_allclose(frame["weight"].xs("waiting", level=1), weights.mean(over))
    np.testing.assert_allclose(frame["weight_sd"].xs("eruptions", level=1), weights.std(over))


def made_up_posterior(n_features, scale_dims=("component", "feature"), scale=1.0):
    sizes = {"chain": 1, "draw": 4, "component": 2, "feature": n_features}
    coords = {"component": [0, 1], "feature": [f"column{d}" for d in range(n_features)]}

    def filled(*dims):
        dims = ("chain", "draw", *dims)
        return xr.DataArray(np.full([sizes[dim] for dim in dims], scale), dims=dims)

    sites = {"means": filled("component", "feature"), "scales": filled(*scale_dims)}
    return xr.Dataset({"weights": filled("component"), **sites}, coords)


@pytest.mark.parametrize("dims", [("component",), ("feature",), ("component", "feature")])
def test_every_structure_has_a_summary(dims):
    """Scales of all components, or of all columns, are said of each."""
    posterior = made_up_posterior(3, dims)
    size = [posterior.sizes[dim] for dim in dims]
    posterior["scales"] = (("chain", "draw", *dims), np.random.default_rng(0).random((1, 4, *size)))
    wanted = posterior["scales"].mean(("chain", "draw")).broadcast_like(posterior["means"][0, 0])
    found = component_frame(posterior)["sd"].unstack("feature")
    np.testing.assert_allclose(found, wanted.transpose("component", "feature"))


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e300])
def test_numbers_beyond_all_digits_are_printed(value):
    posterior = made_up_posterior(2)
    for site in ("means", "scales"):
        posterior[site][0, 1] = value
    lines = component_text(posterior).splitlines()
    assert len(lines) == 5
    assert max(map(len, lines)) < 100


def test_a_long_table_is_cut():
    lines = component_text(made_up_posterior(50)).splitlines()
    assert len(lines) == 61
    assert lines[-1] == "... 41 more lines; fit.summary() has all"


def test_a_saved_fit_is_the_same_fit(faithful_fit, tmp_path):
    path = faithful_fit.save(tmp_path / "posterior.nc")
    again = gb.load(path)
    assert again == faithful_fit
    assert again.priors == faithful_fit.priors
    assert [p.name for p in tmp_path.iterdir()] == ["posterior.nc"]
