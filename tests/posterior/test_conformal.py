"""Conformal p-values: the formula, and the false-alarm rate that they promise."""

import numpy as np
import pytest
from hostile import quiet_fit, raises_exactly, small_fit, two_groups
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

import gmm_bayes as gb

CALIBRATION = two_groups(60, seed=8)


def false_alarms(fit, rows, level, n_calibration=19, n_new=20, repeats=150):
    """Shares of false alarms in many calibrations: (mean, standard error)."""
    shares = []
    for _ in range(repeats):
        p = gb.conformal_p_values(fit, rows(n_calibration), rows(n_new))
        shares.append((p <= level).mean())
    return np.mean(shares), np.std(shares) / np.sqrt(repeats)


def test_formula():
    fit = small_fit()
    new = np.vstack([two_groups(20, seed=9), [[30.0, 40.0]]])
    p = gb.conformal_p_values(fit, CALIBRATION, new)
    assert p.dims == ("obs",)
    known, scores = (gb.anomaly_scores(fit, X).values for X in (CALIBRATION, new))
    np.testing.assert_allclose(p, (1 + (known >= scores[:, None]).sum(axis=1)) / 61)
    assert p.values[-1] == 1 / 61


def test_a_tie_counts_as_as_strange():
    fit = small_fit()
    row = CALIBRATION[gb.anomaly_scores(fit, CALIBRATION).values.argmax()]
    assert gb.conformal_p_values(fit, CALIBRATION, row[None]).item() == 2 / 61


@pytest.mark.parametrize("level", [0.1, 0.5])
def test_false_alarm_rate_on_simulated_rows(level):
    rng = np.random.default_rng(0)
    fit = small_fit()

    def rows(n):
        X = two_groups(400, seed=rng.integers(2**32))
        return X[rng.choice(400, n, replace=False)]

    mean, error = false_alarms(fit, rows, level)
    assert abs(mean - level) < 4 * error
    assert error < 0.02


def test_the_rate_holds_where_the_model_is_wrong():
    """Heavy tails, which no normal mixture has: the level does not depend on the model."""
    rng = np.random.default_rng(1)
    fit = small_fit()
    mean, error = false_alarms(fit, lambda n: rng.standard_cauchy((n, 2)), 0.2)
    assert abs(mean - 0.2) < 4 * error


@pytest.mark.parametrize("seed", [0, 1])
def test_false_alarm_rate_on_handwritten_digits(seed):
    """Train, calibrate, test: a three-way split of real rows, the map made of the first part."""
    pixels = np.random.default_rng(seed).permutation(load_digits().data)
    train, calibration, new = np.split(pixels, [300, 1000])
    chart = PCA(2, random_state=0).fit(train)
    fit = quiet_fit(chart.transform(train), 4)
    p = gb.conformal_p_values(fit, chart.transform(calibration), chart.transform(new)).values
    for level in (0.05, 0.1, 0.3):
        # Of the new rows, and of the level that these calibration rows happen to give.
        error = np.sqrt(level * (1 - level) * (1 / len(new) + 1 / len(calibration)))
        assert abs((p <= level).mean() - level) < 3.5 * error
    noise = 5 * chart.transform(train).std() * np.eye(2)
    assert (gb.conformal_p_values(fit, chart.transform(calibration), noise) < 0.01).all()


def test_training_rows_are_refused():
    fit = small_fit()
    message = (
        "X_calibration must be rows that the fit did not see, but all its 40 rows are training "
        "rows; split the data before the fit"
    )
    with raises_exactly(ValueError, message):
        gb.conformal_p_values(fit, fit.X, CALIBRATION)
    half = np.vstack([fit.X.values[:10], CALIBRATION])
    with pytest.warns(gb.errors.DataWarning, match=r"^10 of 70 rows of X_calibration equal train"):
        gb.conformal_p_values(fit, half, CALIBRATION)
    # One match can be chance.
    gb.conformal_p_values(fit, np.vstack([fit.X.values[:1], CALIBRATION]), CALIBRATION)


def test_rounded_rows_may_be_equal_by_chance(faithful, faithful_fit):
    """All waiting times are whole minutes that occur many times."""
    rows = faithful[["waiting"]].iloc[:100]
    line_fit = gb.marginal(faithful_fit, "waiting")
    p = gb.conformal_p_values(line_fit, rows, rows.iloc[:5])
    assert p.coords["obs"].values.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["X_calibration", "X_new"])
@pytest.mark.parametrize(
    ("rows", "exception", "message"),
    [
        (None, TypeError, "must be a table of numbers of shape .*, got NoneType"),
        ([[0.0, np.nan]], ValueError, "must be finite, got 1 missing of 2 values"),
        (np.zeros((3, 4)), ValueError, "must have the 2 columns of the fit, .*, got 4 columns"),
        (np.empty((0, 2)), ValueError, "must have at least 1 row, got shape"),
        ([[0.0, 1e250]], ValueError, "must lie within 1e.140 standard deviations"),
    ],
)
def test_bad_rows_are_named(name, rows, exception, message):
    tables = {"X_calibration": CALIBRATION, "X_new": CALIBRATION, name: rows}
    with pytest.raises(exception, match=f"^{name} {message}"):
        gb.conformal_p_values(small_fit(), **tables)
