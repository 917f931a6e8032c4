"""Conditional mixtures: joint over marginal, draw by draw, and what is predicted from them."""

import numpy as np
import pandas as pd
import pytest
from hostile import raises_exactly, small_fit, table, two_groups
from made_up import far_apart
from made_up import made_up_fit as three_columns
from plots.drawn import made_up_fit
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

import gmm_bayes as gb

SPREADS = np.array([1.0, 100.0, 0.01])
ROWS = np.random.default_rng(0).standard_normal((40, 3)) * SPREADS


def per_draw(weights, means, covariances, rows):
    """Log density of each row under each draw, shape (S, n_obs)."""
    n_rows, n_features = rows.shape
    each = [
        [
            np.log(w) + multivariate_normal(m, c).logpdf(rows).reshape(n_rows)
            for w, m, c in zip(*draw, strict=True)
        ]
        for draw in zip(weights, means, covariances.reshape(*means.shape, n_features), strict=True)
    ]
    return logsumexp(each, axis=1)


@pytest.mark.parametrize("known", [("x1",), ("x2", "x0")])
def test_every_draw_is_joint_over_marginal(covariance_type, known):
    fit = made_up_fit(ROWS, 2, covariance_type)
    row, columns = ROWS[3], [int(name[1]) for name in known]
    rest = [d for d in range(3) if d not in columns]
    answer = gb.conditional(fit, {name: row[int(name[1])] for name in known})
    assert answer.feature_names == tuple(f"x{d}" for d in rest)
    others = ROWS[:5][:, rest]
    weights, means, _ = answer.parameters
    ours = per_draw(weights, means, answer.parameters.covariances, others)
    whole = np.tile(row, (5, 1))
    whole[:, rest] = others
    joint = gb.log_likelihood(fit, whole).values.reshape(20, 5)
    given = gb.log_likelihood(gb.marginal(fit, known), row[None, columns]).values.reshape(20, 1)
    np.testing.assert_allclose(ours, joint - given, rtol=1e-10, atol=1e-10)
    predictive = logsumexp(joint, axis=0) - logsumexp(given)
    np.testing.assert_allclose(answer.log_density(others), predictive, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert (np.diagonal(answer.parameters.scale_tril, axis1=-2, axis2=-1) > 0).all()


def test_draws_count_as_much_as_they_predict():
    fit = small_fit()
    answer = gb.conditional(fit, {"x0": 1.0})
    given = gb.log_likelihood(gb.marginal(fit, "x0"), [[1.0]]).values.ravel()
    np.testing.assert_allclose(np.exp(answer.log_draw_weights), np.exp(given) / np.exp(given).sum())
    shares = np.exp(answer.log_draw_weights)
    assert answer.effective_draws == pytest.approx(1 / (shares**2).sum())
    assert repr(answer) == (
        "ConditionalMixture of x1 given x0 = 1: 2 components, 120 draws "
        f"({answer.effective_draws:.0f} effective)"
    )


def test_mean_interval_and_draws_are_of_one_distribution():
    fit = small_fit()
    answer = gb.conditional(fit, {"x0": 3.5})

    def density(x):
        return np.exp(answer.log_density([[x]]).item())

    grid = np.linspace(-20, 15, 3501)
    values = np.exp(answer.log_density(grid[:, None]).values)
    assert np.trapezoid(values, grid) == pytest.approx(1, abs=1e-9)
    assert np.trapezoid(values * grid, grid) == pytest.approx(answer.mean().item(), abs=1e-8)
    band = answer.interval(0.8)
    lower, upper = band["lower"].item(), band["upper"].item()
    assert quad(density, -30, lower, limit=200)[0] == pytest.approx(0.1, abs=1e-7)
    assert quad(density, upper, 25, limit=200)[0] == pytest.approx(0.1, abs=1e-7)
    rows = answer.sample(20_000, seed=2)
    assert rows.dims == ("obs", "feature")
    assert rows.coords["feature"].values.tolist() == ["x1"]
    assert ((rows < lower).mean().item(), (rows > upper).mean().item()) == pytest.approx(
        (0.1, 0.1), abs=0.008
    )
    assert rows.mean().item() == pytest.approx(answer.mean().item(), abs=0.1)
    assert rows.identical(answer.sample(20_000, seed=2))
    assert not rows.equals(answer.sample(20_000, seed=3))


def test_draws_keep_the_correlation_of_what_remains():
    fit = made_up_fit(ROWS, 2)
    answer = gb.conditional(fit, {"x1": 50.0})
    rows = answer.sample(50_000, seed=0).values
    shares = answer.parameters.weights * np.exp(answer.log_draw_weights)[:, None]
    mean = answer.mean().values
    away = answer.parameters.means - mean
    second = answer.parameters.covariances + away[..., :, None] * away[..., None, :]
    expected = np.einsum("sk,skde->de", shares, second)
    sd = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(np.cov((rows / sd).T), expected / np.outer(sd, sd), atol=0.03)
    np.testing.assert_allclose((rows.mean(axis=0) - mean) / sd, 0, atol=0.03)


def test_band_of_the_density():
    fit = small_fit()
    answer = gb.conditional(fit, {"x0": 1.0})
    X = np.array([[0.5], [1.0], [-3.0]])
    band = answer.log_density(X, interval=0.8)
    np.testing.assert_allclose(band["mean"], answer.log_density(X), rtol=1e-12)
    weights, means, tril = answer.parameters
    each = np.log((weights * norm.pdf(X[:, None], means[..., 0], tril[..., 0, 0])).sum(-1))
    shares = np.exp(answer.log_draw_weights)
    for name, tail in (("lower", 0.1), ("upper", 0.9)):
        edge = band[name].values[:, None]
        assert ((each < edge - 1e-9) @ shares <= tail).all()
        assert ((each < edge + 1e-9) @ shares >= tail).all()


def rescaled(fit, units):
    posterior = fit.posterior
    observed = fit.datatree["observed_data"].to_dataset()
    scaled = posterior.assign(means=posterior["means"] * units, scales=posterior["scales"] * units)
    return fit.with_group("posterior", scaled).with_group(
        "observed_data", observed.assign(X=observed["X"] * units)
    )


def test_units_do_not_matter():
    fit, units = made_up_fit(ROWS, 2), np.array([1e12, 1.0, 1e-12])
    ours = gb.conditional(fit, {"x1": 50.0})
    theirs = gb.conditional(rescaled(fit, units), {"x1": 50.0})
    np.testing.assert_allclose(theirs.parameters.weights, ours.parameters.weights, rtol=1e-9)
    np.testing.assert_allclose(theirs.mean() / units[[0, 2]], ours.mean(), rtol=1e-9)
    for edge in ("lower", "upper"):
        np.testing.assert_allclose(
            theirs.interval()[edge] / units[[0, 2]], ours.interval()[edge], rtol=1e-9
        )
    known = gb.conditional(rescaled(fit, units), {"x0": 0.3e12, "x2": 0.002e-12})
    np.testing.assert_allclose(
        known.mean(), gb.conditional(fit, {"x0": 0.3, "x2": 0.002}).mean(), rtol=1e-8
    )


def test_order_does_not_matter():
    fit = made_up_fit(ROWS, 2)
    one, other = (
        gb.conditional(fit, dict(pairs))
        for pairs in ([("x2", 0.01), ("x0", 1.0)], [("x0", 1.0), ("x2", 0.01)])
    )
    assert list(one.given) == list(other.given) == ["x0", "x2"]
    np.testing.assert_array_equal(one.parameters.means, other.parameters.means)
    turned = gb.conditional(gb.marginal(fit, ["x2", "x1", "x0"]), {"x0": 1.0, "x2": 0.01})
    np.testing.assert_allclose(turned.mean(), one.mean(), rtol=1e-9)
    np.testing.assert_allclose(turned.log_density([[30.0]]), one.log_density([[30.0]]), rtol=1e-9)


def test_labels_do_not_matter():
    fit = made_up_fit(two_groups(), 2)
    swapped = fit.posterior.isel(component=[1, 0]).assign_coords(component=[0, 1])
    answers = [gb.conditional(f, {"x0": 2.0}) for f in (fit, fit.with_group("posterior", swapped))]
    np.testing.assert_allclose(answers[0].mean(), answers[1].mean(), rtol=1e-10)
    np.testing.assert_allclose(
        answers[0].interval()["upper"], answers[1].interval()["upper"], rtol=1e-10
    )


def test_unusual_values_are_answered_with_a_warning_and_stay_logs():
    fit = small_fit()
    with pytest.warns(gb.errors.DataWarning, match=r"given is so unusual that \d.* of 120 draws"):
        answer = gb.conditional(fit, {"x0": 1e6})
    joint = gb.log_predictive_density(fit, [[1e6, 5.0], [1e6, -1e7]]).values
    given = gb.log_predictive_density(gb.marginal(fit, "x0"), [[1e6]]).values
    np.testing.assert_allclose(answer.log_density([[5.0], [-1e7]]), joint - given, rtol=1e-6)
    assert np.isfinite(answer.mean().item())
    assert np.isfinite(answer.interval()["upper"].item())


NAN = float("nan")
BAD = {
    "unknown": (
        {"x7": 1.0},
        ValueError,
        "given must be one of x0, x1, got 'x7'; did you mean 'x1' or 'x0'?",
    ),
    "not a name": ({0: 1.0}, ValueError, "given must be one of x0, x1, got 0"),
    "none": ({}, ValueError, "given must hold at least one feature of ['x0', 'x1']"),
    "all": (
        {"x0": 1.0, "x1": 2.0},
        ValueError,
        "given must leave at least one feature to predict, got all of ['x0', 'x1']",
    ),
    "NaN": ({"x0": NAN}, ValueError, "given['x0'] must be finite, got nan"),
    "infinite": ({"x0": -np.inf}, ValueError, "given['x0'] must be finite, got -inf"),
    "text": ({"x0": "1"}, TypeError, "given['x0'] must be numbers, got '1' of type str"),
    "None": ({"x0": None}, TypeError, "given['x0'] must be numbers, got None of type NoneType"),
    "several": ({"x0": [1.0, 2.0]}, ValueError, "given['x0'] must be one number, got shape (2,)"),
    "far": (
        {"x0": 1e200},
        ValueError,
        "given must lie within 1e+140 standard deviations of the training rows, or densities "
        "overflow; got 1e+200 in row 0, column 'x0'. Are the units those of the fit?",
    ),
    "a list": (
        ["x0"],
        TypeError,
        "given must be a mapping from features to values, as in given={'x0': 1.5}, or a frame of "
        "rows, got list",
    ),
}


@pytest.mark.parametrize(("given", "exception", "message"), table(BAD))
def test_wrong_given(given, exception, message):
    with raises_exactly(exception, message):
        gb.conditional(small_fit(), given)


QUESTIONS = {
    "columns": (lambda c: c.log_density([[1.0, 2.0]]), ValueError, "must have the 1 columns"),
    "NaN": (lambda c: c.log_density([[NAN]]), ValueError, "X must be finite"),
    "interval": (lambda c: c.interval(90), ValueError, "probability must be strictly between"),
    "band": (lambda c: c.log_density([[0.0]], interval=1), ValueError, "interval must be strictly"),
    "no rows": (lambda c: c.sample(0), ValueError, "n_obs must be at least 1, got 0"),
    "seed": (lambda c: c.sample(1, seed=-1), ValueError, "seed must be in"),
}


@pytest.mark.parametrize(("ask", "exception", "message"), table(QUESTIONS))
def test_wrong_questions(ask, exception, message):
    with pytest.raises(exception, match=message):
        ask(gb.conditional(small_fit(), {"x0": 1.0}))


def test_one_feature_leaves_nothing_to_predict():
    with pytest.raises(ValueError, match="must leave at least one feature to predict"):
        gb.conditional(gb.marginal(small_fit(), "x0"), {"x0": 1.0})


def test_a_frame_of_rows_is_answered_row_by_row():
    fit = small_fit()
    X = two_groups(5, seed=8)
    frame = pd.DataFrame({"x1": X[:, 1]}, index=list("abcde"))
    rows = gb.conditional(fit, frame)
    assert repr(rows) == "ConditionalRows of x0 given x1: 5 rows"
    alone = [gb.conditional(fit, {"x1": value}) for value in X[:, 1]]
    mean, found = rows.mean(), rows.interval(0.8)
    assert mean.dims == found["lower"].dims == ("obs", "feature")
    np.testing.assert_array_equal(mean["obs"], list("abcde"))
    np.testing.assert_array_equal(mean["feature"], ["x0"])
    np.testing.assert_array_equal(mean, [one.mean() for one in alone])
    for side in ("lower", "upper"):
        np.testing.assert_array_equal(found[side], [one.interval(0.8)[side] for one in alone])
    np.testing.assert_array_equal(rows[3].log_weights, alone[3].log_weights)
    assert len(list(rows)) == len(rows) == 5
    drawn = rows.sample(400, seed=1)
    assert drawn.dims == ("sample", "obs", "feature")
    errors = drawn.std("sample") / 20
    assert (abs(drawn.mean("sample") - mean) < 5 * errors).all()


def test_columns_of_a_frame_are_features_in_any_order():
    fit = three_columns(far_apart(2, 3), n_draws=200, noise=0.02)
    frame = pd.DataFrame({"x2": [0.4, 0.1], "x0": [0.2, -0.3]})
    found = gb.conditional(fit, frame).mean()
    np.testing.assert_array_equal(found["feature"], ["x1"])
    np.testing.assert_array_equal(found, gb.conditional(fit, frame[["x0", "x2"]]).mean())
    one = gb.conditional(fit, {"x0": -0.3, "x2": 0.1}).mean()
    np.testing.assert_array_equal(found[1], one)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x0": [1.0], "x1": [2.0]}, "must leave at least one feature"),
        ({"x7": [1.0]}, "given must be one of x0, x1"),
        ({"x0": [1.0, None]}, "given must be finite"),
    ],
)
def test_a_frame_that_cannot_be_answered(columns, message):
    with pytest.raises(ValueError, match=message):
        gb.conditional(small_fit(), pd.DataFrame(columns))


def test_unusual_rows_of_a_frame_are_named_once():
    rows = gb.conditional(small_fit(), pd.DataFrame({"x0": [0.0, 60.0]}, index=["near", "far"]))
    with pytest.warns(gb.errors.DataWarning, match=r"in 1 of 2 rows \(far\)") as caught:
        rows.mean()
    assert len(caught) == 1
