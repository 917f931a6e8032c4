"""Anomalies: scores and flags against every draw by hand, and the answer "I do not know"."""

import numpy as np
import pytest
from hostile import raises_exactly, small_fit, table, two_groups
from plots.drawn import made_up_fit

import gmm_bayes as gb
from gmm_bayes.posterior import strangers

NEAR, BETWEEN, FAR = [0.0, 0.0], [3.5, -3.0], [30.0, 40.0]


def log_densities(fit, X=None):
    """Shape (S, n_obs)."""
    values = gb.log_likelihood(fit, X).values
    return values.reshape(-1, values.shape[-1])


def test_scores_are_minus_the_log_predictive_density():
    fit = small_fit()
    scores = gb.anomaly_scores(fit)
    assert scores.dims == ("obs",)
    np.testing.assert_array_equal(scores, -gb.log_predictive_density(fit))
    near, far = gb.anomaly_scores(fit, [NEAR, FAR]).values
    assert far > near + 100


def test_threshold_and_its_probability_by_hand():
    fit = small_fit()
    X = np.vstack([two_groups(30, seed=5), [BETWEEN, FAR]])
    each = log_densities(fit, X)
    flags = gb.flag_anomalies(fit, X, threshold=-5.0)
    predictive = gb.log_predictive_density(fit, X).values
    np.testing.assert_array_equal(flags["flag"], predictive < -5)
    np.testing.assert_array_equal(flags["low_density"], flags["flag"])
    np.testing.assert_allclose(flags["probability"], (each < -5).mean(axis=0), atol=1e-12)
    np.testing.assert_array_equal(flags["score"], -predictive)
    assert 0 < flags["flag"].sum() < len(X)
    assert ((flags["probability"] > 0.02) & (flags["probability"] < 0.98)).any()
    assert flags.attrs["threshold"] == -5
    assert not flags["small_component"].any()
    assert not flags["unsure"].any()


@pytest.mark.parametrize("share", [0.05, 0.25])
def test_contamination_is_a_quantile_of_the_training_rows(share):
    fit = small_fit()
    flags = gb.flag_anomalies(fit, contamination=share)
    assert flags["flag"].mean() == share
    assert flags.attrs["threshold"] == np.quantile(gb.log_predictive_density(fit), share)
    new = gb.flag_anomalies(fit, [NEAR, FAR], contamination=share)
    assert new.attrs == flags.attrs
    assert new["flag"].values.tolist() == [False, True]
    assert new["probability"].values[1] == 1


def test_flags_keep_the_names_of_the_rows(faithful, faithful_fit):
    flags = gb.flag_anomalies(faithful_fit, faithful.iloc[[7, 3]], contamination=0.1)
    assert flags.coords["obs"].values.tolist() == [7, 3]


def test_unsure_rows_are_flagged():
    fit = small_fit()
    line = np.linspace(0, 1, 41)[:, None] * [7.0, -6.0]
    sure = gb.responsibilities(fit, line).values.max(axis=1)
    flags = gb.flag_anomalies(fit, line, threshold=-1e6, min_responsibility=0.9)
    np.testing.assert_allclose(flags["responsibility"], sure, rtol=1e-12)
    np.testing.assert_array_equal(flags["unsure"], sure < 0.9)
    assert flags["unsure"].any()
    np.testing.assert_array_equal(flags["flag"], flags["unsure"])
    assert not flags["low_density"].any()


def reweighted(fit, weights):
    """The same draws with given weights (S, K)."""
    posterior = fit.posterior
    values = weights.reshape(posterior["weights"].shape)
    return fit.with_group(
        "posterior", posterior.assign(weights=(("chain", "draw", "component"), values))
    )


def test_small_components_are_counted_draw_by_draw():
    rng = np.random.default_rng(0)
    fit = made_up_fit(rng.normal(size=(30, 2)), 3)
    small = rng.uniform(0.0, 0.1, 20)
    fit = reweighted(fit, np.column_stack([0.6 - small, small, np.full(20, 0.4)]))
    X = fit.parameters().means[0]
    each = gb.responsibilities(fit, X, reduce=None).values.reshape(20, 3, 3)
    expected = np.where(small[:, None] < 0.05, each[:, :, 1], 0).mean(axis=0)
    flags = gb.flag_anomalies(fit, X, threshold=-1e6, min_weight=0.05)
    np.testing.assert_allclose(flags["small_component_probability"], expected, rtol=1e-10)
    np.testing.assert_array_equal(flags["small_component"], expected > 0.5)


def test_a_tiny_cluster_far_away_is_strange():
    rng = np.random.default_rng(1)
    X = np.vstack([rng.normal(size=(38, 2)), rng.normal(size=(2, 2)) * 0.2 + [9.0, 9.0]])
    fit = made_up_fit(X, 2)
    posterior = fit.posterior
    fit = fit.with_group(
        "posterior",
        posterior.assign(
            means=posterior["means"] * 0 + np.array([[0.0, 0.0], [9.0, 9.0]]),
            weights=posterior["weights"] * 0 + np.array([0.95, 0.05]),
        ),
    )
    flags = gb.flag_anomalies(fit, threshold=-1e6, min_weight=0.1)
    assert np.flatnonzero(flags["flag"]).tolist() == [38, 39]
    labels = gb.assign(fit, reject=gb.Reject(min_weight=0.1))
    assert labels.values.tolist() == [0] * 38 + [-1] * 2


def test_labels_do_not_matter_but_for_responsibilities(monkeypatch):
    fit = made_up_fit(two_groups(), 2)
    swapped = fit.posterior.isel(component=[1, 0]).assign_coords(component=[0, 1])
    halves = xr_concat(fit.posterior.isel(draw=slice(10)), swapped.isel(draw=slice(10, None)))
    switched = fit.with_group("posterior", halves)
    options = {"contamination": 0.1, "min_weight": 0.4}
    ours, theirs = (gb.flag_anomalies(f, **options) for f in (fit, switched))
    for name in ours:
        np.testing.assert_allclose(
            ours[name].astype(float), theirs[name].astype(float), rtol=1e-9, atol=1e-12
        )
    with pytest.raises(gb.errors.LabelSwitchingError, match="min_responsibility averages over"):
        gb.flag_anomalies(switched, contamination=0.1, min_responsibility=0.9)


def xr_concat(*parts):
    import xarray as xr

    joined = xr.concat(
        parts, "draw", data_vars="all", coords="minimal", join="outer", compat="equals"
    )
    return joined.transpose(*("chain", "draw", ...))


def test_units_change_no_flag():
    fit = small_fit()
    posterior = fit.posterior
    units = np.array([1e6, 1e-3])
    scaled = posterior.assign(means=posterior["means"] * units, scales=posterior["scales"] * units)
    observed = fit.datatree["observed_data"].to_dataset()
    scaled = fit.with_group("posterior", scaled).with_group(
        "observed_data", observed.assign(X=observed["X"] * units)
    )
    X = np.vstack([two_groups(30, seed=5), [BETWEEN, FAR]])
    options = {"contamination": 0.1, "min_responsibility": 0.9}
    ours = gb.flag_anomalies(fit, X, **options)
    theirs = gb.flag_anomalies(scaled, X * units, **options)
    np.testing.assert_array_equal(ours["flag"], theirs["flag"])
    np.testing.assert_allclose(ours["probability"], theirs["probability"])
    np.testing.assert_allclose(theirs["score"] - ours["score"], np.log(units).sum(), rtol=1e-9)


def test_assign_says_when_it_does_not_know():
    fit = small_fit()
    X = np.vstack([two_groups(30, seed=5), [BETWEEN, FAR]])
    plain = gb.assign(fit, X)
    rules = gb.Reject(contamination=0.05, min_responsibility=0.95)
    labels = gb.assign(fit, X, reject=rules)
    flags = gb.flag_anomalies(fit, X, contamination=0.05, min_responsibility=0.95)["flag"].values
    np.testing.assert_array_equal(labels, np.where(flags, -1, plain))
    assert labels.dtype == plain.dtype
    assert labels.values[-1] == -1
    assert 1 <= flags.sum() < len(X)
    # Far beyond the first component, and still farther from the second.
    beyond = [[-21.0, 18.0]]
    assert gb.assign(fit, beyond, reject=gb.Reject(min_responsibility=0.8)).item() != -1
    assert gb.assign(fit, beyond, reject=gb.Reject(contamination=0.05)).item() == -1


def test_draws_are_never_held_by_row_and_component(monkeypatch):
    """What is summed has the size of rows x components, and no more."""
    fit, sizes = small_fit(), []
    real = strangers.map_rows

    def spy(function, *args, **options):
        def seen(X, draws):
            answer = function(X, draws)
            sizes.extend(np.shape(part) for part in answer)
            return answer

        return real(seen, *args, **options)

    monkeypatch.setattr(strangers, "map_rows", spy)
    gb.flag_anomalies(fit, threshold=-3.0)
    assert sizes == [(64,)] * 3


BAD = {
    "neither": (
        lambda fit: gb.flag_anomalies(fit),
        ValueError,
        "give exactly one of contamination and threshold, got neither: contamination=0.05 takes "
        "the threshold below which 5 % of the training rows lie, threshold is a log density",
    ),
    "both": (
        lambda fit: gb.flag_anomalies(fit, contamination=0.1, threshold=-3),
        ValueError,
        "give exactly one of contamination and threshold, got both: contamination=0.05 takes the "
        "threshold below which 5 % of the training rows lie, threshold is a log density",
    ),
    "contamination": (
        lambda fit: gb.flag_anomalies(fit, contamination=5),
        ValueError,
        "contamination must be strictly between 0 and 1, got 5",
    ),
    "threshold NaN": (
        lambda fit: gb.flag_anomalies(fit, threshold=float("nan")),
        ValueError,
        "threshold must be finite, got nan",
    ),
    "threshold text": (
        lambda fit: gb.flag_anomalies(fit, threshold="low"),
        TypeError,
        "threshold must be numbers, got 'low' of type str",
    ),
    "thresholds": (
        lambda fit: gb.flag_anomalies(fit, threshold=[-3, -4]),
        ValueError,
        "threshold must be one log density, got shape (2,)",
    ),
    "min_responsibility": (
        lambda fit: gb.flag_anomalies(fit, threshold=-3, min_responsibility=90),
        ValueError,
        "min_responsibility must be strictly between 0 and 1, got 90",
    ),
    "min_weight": (
        lambda fit: gb.flag_anomalies(fit, threshold=-3, min_weight=0),
        ValueError,
        "min_weight must be strictly between 0 and 1, got 0",
    ),
    "no rule": (
        lambda fit: gb.assign(fit, reject=gb.Reject()),
        ValueError,
        "Reject needs at least one rule: contamination, threshold, min_responsibility or "
        "min_weight",
    ),
    "two thresholds": (
        lambda fit: gb.Reject(contamination=0.1, threshold=-3),
        ValueError,
        "give contamination or threshold, not both: each sets the threshold",
    ),
    "a number to reject by": (
        lambda fit: gb.assign(fit, reject=0.05),
        TypeError,
        "reject must be a gmm_bayes.Reject, as in Reject(contamination=0.05), got float",
    ),
    "not a fit": (
        lambda fit: gb.flag_anomalies(two_groups(), contamination=0.1),
        TypeError,
        "fit must be a GMMFit, got ndarray; gmm_bayes.fit makes one",
    ),
    "rows with NaN": (
        lambda fit: gb.anomaly_scores(fit, [[0.0, np.nan]]),
        ValueError,
        "X must be finite, got 1 missing of 2 values, the first in row 0, column 'x1'. Drop or "
        "impute them: rows are never dropped silently.",
    ),
}


@pytest.mark.parametrize(("ask", "exception", "message"), table(BAD))
def test_wrong_options(ask, exception, message):
    with raises_exactly(exception, message):
        ask(small_fit())
