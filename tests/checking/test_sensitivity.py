"""Power-scaling, against closed forms, ArviZ's own table and a refit; and what the verdict says."""

from functools import partial

import numpy as np
import pytest
import xarray as xr
from made_up import COVARIANCE_STRUCTURES, as_fit, far_apart, made_up_fit, shuffled
from scipy import stats

import gmm_bayes as gb
from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference.verdict import diagnosis as diagnostics
from gmm_bayes.inference.verdict.log_priors import log_priors

SAMPLER = gb.NUTS(num_warmup=500, num_samples=1000)
NOTE = "power-scaling sensitivity"


def distance(x, p, q):
    """Cumulative Jensen-Shannon distance of two distribution functions on a grid (base 2)."""

    def one_way(x, p, q):
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(p > 0, p * np.log2(p / ((p + q) / 2)), 0.0)
        width = np.diff(x)
        over, correction = terms[:-1] @ width, (q - p)[:-1] @ width / (2 * np.log(2))
        return over + correction, p[:-1] @ width

    (forth, a), (back, b) = one_way(x, p, q), one_way(x, q, p)
    return np.sqrt((forth + back) / (a + b))


def both_ways(x, p, q):
    """The larger of the distances of a quantity and of minus it, as the index takes."""
    return max(distance(x, p, q), distance(-x[::-1], 1 - p[::-1], 1 - q[::-1]))


def slope(posterior_at, ends):
    """The index of a normal posterior whose mean and sd are known at every power of a factor.

    It is an integral from the smallest draw to the largest.
    """
    (m, s), parts = posterior_at(1.0), []
    x = np.linspace(*ends, 200_001)
    for power in (0.99, 1.01):
        moved = stats.norm(*posterior_at(power)).cdf(x)
        parts.append(both_ways(x, stats.norm(m, s).cdf(x), moved) / abs(np.log2(power)))
    return np.mean(parts)


def conjugate_fit(prior_mean, prior_variance, *, n_obs=25, n_draws=4000, seed=0):
    """One component of known scale, in closed form: the fit, and its posterior at any powers."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n_obs, 1))

    def posterior(prior_power=1.0, likelihood_power=1.0):
        precision = prior_power / prior_variance + likelihood_power * n_obs
        mean = prior_power * prior_mean / prior_variance + likelihood_power * X.sum()
        return mean / precision, precision**-0.5

    mean, sd = posterior()
    # Evenly spaced in probability: a sample without noise.
    even = stats.norm.ppf((np.arange(2 * n_draws) + 0.5) / (2 * n_draws))
    means = mean + sd * rng.permutation(even).reshape(2, n_draws, 1, 1)
    ones = np.ones((2, n_draws, 1))
    sites = {"weights": ones, "means": means, "scales": ones[..., None]}
    structure = COVARIANCE_STRUCTURES["diag"]
    centre = np.full((1, 1), prior_mean)
    fit = as_fit(X, sites, structure, prior_centres=centre, prior_variance=prior_variance)
    log_likelihood = stats.norm.logpdf(X[:, 0], means[..., 0]).sum(axis=-1)
    statistics = fit.sample_stats.assign(total_log_likelihood=(("chain", "draw"), log_likelihood))
    return fit.with_group("sample_stats", statistics), posterior


@pytest.mark.parametrize(
    ("prior_mean", "prior_variance", "diagnosis"),
    [
        (0.0, 100.0, ""),
        (0.1, 0.002, "strong prior or weak likelihood"),
        (3.0, 0.05, "prior-data conflict"),
    ],
)
def test_a_conjugate_posterior(prior_mean, prior_variance, diagnosis):
    fit, posterior = conjugate_fit(prior_mean, prior_variance)
    row = gb.prior_sensitivity(fit).table.loc["means[0, x0]"]
    ends = [float(end(fit.posterior["means"])) for end in (np.min, np.max)]
    by_prior = slope(lambda power: posterior(prior_power=power), ends)
    by_likelihood = slope(lambda power: posterior(likelihood_power=power), ends)
    assert row["prior"] == pytest.approx(by_prior, rel=0.05, abs=5e-4)
    assert row["means"] == pytest.approx(by_prior, rel=0.05, abs=5e-4)
    assert row["likelihood"] == pytest.approx(by_likelihood, rel=0.05, abs=5e-4)
    assert row["weights"] == row["scales"] == pytest.approx(0, abs=1e-9)
    assert row["diagnosis"] == diagnosis


@pytest.fixture(scope="module")
def tight(faithful):
    """The failure of priors in fixed units: data a hundred times larger pin the means."""
    return gb.fit(faithful * 100, 2, priors=gb.Priors.fixed(), sampler=SAMPLER, seed=1)


def prior_notes(fit):
    return [note for note in gb.diagnose(fit).notes if NOTE in note]


def test_a_prior_far_too_tight_is_said(tight):
    found = gb.diagnose(tight)
    assert (found.ok, found.components_ok, found.advice) == (True, True, ())
    assert found.prior_sensitivity > 0.05
    (note,) = prior_notes(tight)
    assert note.startswith("the prior of means, more than the data, decides means[")
    assert " and 3 more (power-scaling sensitivity 0.0" in note
    assert "fit.priors.replace(mean_covariance=...); see prior_sensitivity(fit)" in note
    told = gb.prior_sensitivity(tight)
    means = [name for name in told.table.index if name.startswith("means[")]
    assert sorted(told.sensitive.index) == sorted(means)
    assert set(told.sensitive["diagnosis"]) == {"strong prior or weak likelihood"}
    assert "4 of 29 quantities follow the priors" in repr(told)
    assert "that of means most" in repr(told)


def test_a_prior_that_outweighs_the_data_is_in_the_verdict(tmp_path):
    """Of few draws too, which the rest of the verdict does not believe."""
    fit, _ = conjugate_fit(0.1, 0.002)
    words = "; but the prior of means decides, and not the data"
    for some in (fit, gb.GMMFit(fit.datatree.isel(draw=slice(60)))):
        found = diagnostics.record_verdict(some)
        assert found.prior_decides == some.prior_decides == "means"
        assert repr(found).splitlines()[0].endswith(words)
        assert found.believe.endswith(words)
        assert f"{words}\n" in repr(some) + "\n"
        assert len(prior_notes(some)) == 1
    assert not found.ok
    assert gb.load(some.save(tmp_path / "fit.nc")).prior_decides == "means"
    wide, _ = conjugate_fit(0.0, 100.0)
    assert diagnostics.record_verdict(wide).prior_decides == wide.prior_decides == ""


def test_default_priors_are_no_alarm(faithful_fit):
    assert prior_notes(faithful_fit) == []
    found = gb.diagnose(faithful_fit)
    told = gb.prior_sensitivity(faithful_fit)
    assert 0 < found.prior_sensitivity <= told.table["prior"].max() + 0.005 < 0.05
    assert told.sensitive.empty
    assert (told.table["likelihood"] > 0.05).all()
    assert list(told.table.columns) == [
        *("prior", "likelihood", "weights", "means", "scales", "correlation_cholesky"),
        "diagnosis",
    ]
    assert list(told.table.index[[0, 10, 13, 15, 17, 19, 23]]) == [
        "anchor_log_density[0]",
        "mixture_mean[eruptions]",
        "mixture_covariance[waiting, eruptions]",
        "sorted_weights[0]",
        "weights[0]",
        "means[0, eruptions]",
        "scales[0, eruptions]",
    ]
    assert told.table.index[-1] == "correlation_cholesky[1, waiting, eruptions]"


def test_data_that_say_much_more_leave_no_prior_strong(faithful_fit, monkeypatch):
    monkeypatch.setitem(diagnostics.THRESHOLDS, "power_scaling", 0.005)
    assert gb.diagnose(faithful_fit).prior_sensitivity > 0.005
    assert prior_notes(faithful_fit) == []
    monkeypatch.setitem(diagnostics.THRESHOLDS, "prior_share", 0.0)
    assert len(prior_notes(faithful_fit)) == 1


def test_each_site_is_named_by_its_own_prior(faithful, faithful_fit):
    """The same draws, seen as the posterior under other priors, lean on those."""
    for site, field, value in (
        ("weights", "weight_concentration", np.full(2, 500.0)),
        ("correlation_cholesky", "correlation_concentration", np.asarray(300.0)),
    ):
        constants = faithful_fit.datatree["constant_data"].to_dataset()
        constants[field] = (constants[field].dims, value)
        (note,) = prior_notes(faithful_fit.with_group("constant_data", constants))
        assert f"the prior of {site}" in note
        assert f"replace({field}=...)" in note


def test_a_refit_moves_as_far_as_scaling_says(faithful, tight):
    """Of a normal prior, the second power is the one with half the variance."""
    halved = gb.Priors.fixed(mean_covariance=0.05)
    refit = gb.fit(faithful * 100, 2, priors=halved, sampler=SAMPLER, seed=1)
    by_means = gb.prior_sensitivity(tight).table["means"]

    def moved(select):
        a, b = (np.sort(select(fit.posterior).values.ravel()) for fit in (tight, refit))
        x = np.sort(np.concatenate([a, b]))
        p, q = (np.searchsorted(sample, x, side="right") / sample.size for sample in (a, b))
        return both_ways(x, p, q)

    for k in range(2):
        expected = by_means[f"means[{k}, waiting]"]
        found = moved(lambda posterior, k=k: posterior["means"].isel(component=k, feature=1))
        assert found == pytest.approx(expected, rel=0.35)
        assert found > 0.05
    assert moved(lambda posterior: posterior["weights"].isel(component=0)) < 0.03


def with_an_empty_component(n_draws=1000, seed=0):
    """Two components that the data know well, and one that is the prior's."""
    rng = np.random.default_rng(seed)
    X = np.concatenate([rng.standard_normal((150, 1)), 20 + rng.standard_normal((150, 1))])
    shape = (2, n_draws)
    empty = rng.beta(0.5, 300, shape)
    share = rng.beta(150, 150, shape)
    sites = {
        "weights": np.stack([(1 - empty) * share, (1 - empty) * (1 - share), empty], axis=-1),
        "means": np.array([0.0, 20.0, 10.0])[:, None]
        + np.array([0.08, 0.08, 10.0])[:, None] * rng.standard_normal((*shape, 3, 1)),
        "scales": np.concatenate(
            [
                1 + 0.06 * rng.standard_normal((*shape, 2, 1)),
                10 * np.abs(rng.standard_cauchy((*shape, 1, 1))),
            ],
            axis=2,
        ),
    }
    centres = np.array([[0.0], [20.0], [10.0]])
    structure = COVARIANCE_STRUCTURES["diag"]
    fit = as_fit(X, sites, structure, prior_centres=centres, prior_variance=100.0)
    constants = fit.datatree["constant_data"].to_dataset()
    constants["scale_scale"] = (constants["scale_scale"].dims, [10.0])
    return fit.with_group("constant_data", constants)


def test_an_empty_component_is_no_alarm():
    fit = with_an_empty_component()
    table = gb.prior_sensitivity(fit).table["prior"]
    assert table["means[2, x0]"] > 0.05
    assert table["scales[2, x0]"] > 0.05
    assert table["sorted_weights[2]"] > 0.05
    assert table[["means[0, x0]", "means[1, x0]", "mixture_mean[x0]"]].max() < 0.05
    threshold = diagnostics.THRESHOLDS["power_scaling"]
    leaning = diagnostics._leaning(fit, switched=False)
    assert leaning.highest < threshold
    assert leaning.quantity == ""


def test_parameters_are_left_out_where_labels_switched():
    mixed, _ = shuffled(made_up_fit(far_apart(2, 2), n_draws=100, noise=0.05))
    told = gb.prior_sensitivity(mixed)
    assert told.switched
    assert not any(name.startswith(("means[", "weights[")) for name in told.table.index)
    assert "parameters are left out" in repr(told)
    after = gb.prior_sensitivity(gb.align_labels(mixed))
    assert "means[1, x0]" in after.table.index


def test_a_small_component_is_judged_by_what_is_known_of_it(monkeypatch):
    """Fewer than two rows a feature: the parameters are not looked at."""
    fit = with_an_empty_component()
    monkeypatch.setattr("gmm_bayes.inference.verdict.power_scaling._ROWS_PER_FEATURE", 0)
    assert diagnostics._leaning(fit, switched=False).highest > 0.05


def test_draws_that_are_not_believed_are_not_judged(faithful_fit):
    thin = gb.GMMFit(faithful_fit.datatree.isel(draw=slice(20)))
    found = gb.diagnose(thin)
    assert not found.ok
    assert np.isnan(found.prior_sensitivity)
    assert prior_notes(thin) == []


def test_the_index_is_arvizs(faithful_fit):
    """Its own table of datasets, where the installed ArviZ has it ready."""
    psense = pytest.importorskip("arviz_stats").__dict__.get("psense")
    if psense is None:
        pytest.skip("needs arviz_base, which ArviZ 1 brings")
    dims = ("chain", "draw")
    log_prior = xr.Dataset(
        {name: (dims, value) for name, value in log_priors(faithful_fit).items()}
    )
    # Their table has a dim called component of its own.
    posterior = faithful_fit.posterior[["weights", "means"]].rename(component="part")
    tree = xr.DataTree.from_dict({"posterior": posterior, "log_prior": log_prior})
    theirs = psense(tree, group="prior", sample_dims=list(dims))
    ours = gb.prior_sensitivity(faithful_fit).table["prior"]
    # Rounding is that of numbers about one: the index is a small difference of them.
    near = partial(pytest.approx, rel=1e-9, abs=1e-9)
    for k in range(2):
        assert ours[f"weights[{k}]"] == near(float(theirs["weights"][k]))
        assert ours[f"means[{k}, waiting]"] == near(float(theirs["means"][k, 1]))


def test_draws_that_are_not_finite_have_no_index():
    values = np.random.default_rng(0).standard_normal((2, 2, 100))
    log_density = values[0] ** 2
    values[1, 0, 0] = np.nan
    found = arviz_bridge.power_scaling(values, log_density)
    assert np.isfinite(found[0])
    assert np.isnan(found[1])
    assert np.isnan(arviz_bridge.power_scaling(values, log_density * np.inf)).all()


def test_what_has_no_priors_of_its_own(faithful_fit):
    with pytest.raises(TypeError, match="fit must be a GMMFit"):
        gb.prior_sensitivity(3)
    part = gb.marginal(faithful_fit, "waiting")
    with pytest.raises(ValueError, match="a marginal has no priors; ask this of the whole fit"):
        gb.prior_sensitivity(part)
    assert np.isnan(gb.diagnose(part).prior_sensitivity)
    stacked = gb.stack_chains(made_up_fit(far_apart(2, 1), n_draws=30)).resample()
    with pytest.raises(ValueError, match="got some resampled by stack_chains"):
        gb.prior_sensitivity(stacked)


def test_slopes_of_all_quantities_are_arviz():
    """One quantity after the other, by ArviZ's function of arrays."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((7, 4, 300))
    values[1] = np.tan(np.clip(values[1], -1.5, 1.5)) ** 3
    values[2] = values[2].round(1)
    values[3] = np.sign(values[3])
    values[4] += 1e6
    values[5, 0, 0] = np.nan
    log_density = 3 * values[0] - values[6] ** 2
    found = arviz_bridge.power_scaling(values, log_density)
    array_stats = arviz_bridge._array_stats()
    lower, upper = (
        np.exp(array_stats.power_scale_lw(log_density, alpha=power, axis=(0, 1)))
        for power in (0.99, 1.01)
    )
    expected = [array_stats.power_scale_sense(v, lower, upper, 0.99, 1.01) for v in values]
    expected[5] = np.nan
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert found[0] > 0.1
