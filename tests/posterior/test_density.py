"""Predictive densities: by hand, as integrals, and against the rows drawn from them."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

import gmm_bayes as gb


@pytest.fixture(scope="module")
def thin_fit(faithful_fit):
    return gb.GMMFit(faithful_fit.datatree.isel(draw=slice(None, None, 100)))


def test_log_density_by_hand(faithful, thin_fit):
    X = faithful.to_numpy()[:30]
    draws = thin_fit.posterior.stack(sample=("chain", "draw")).transpose("sample", ...)
    logs = np.array(
        [
            logsumexp(
                [
                    np.log(weights[k]) + stats.multivariate_normal(means[k], cov[k]).logpdf(X)
                    for k in range(2)
                ],
                axis=0,
            )
            for weights, means, cov in zip(
                draws["weights"].values,
                draws["means"].values,
                draws["covariances"].values,
                strict=True,
            )
        ]
    )
    expected = logsumexp(logs, axis=0) - np.log(len(logs))
    np.testing.assert_allclose(gb.log_predictive_density(thin_fit, X), expected, rtol=1e-10)
    np.testing.assert_allclose(
        gb.log_likelihood(thin_fit, X).values.reshape(logs.shape), logs, rtol=1e-10
    )
    band = gb.log_predictive_density(thin_fit, X, interval=0.5)
    np.testing.assert_allclose(band["lower"], np.quantile(logs, 0.25, axis=0), rtol=1e-9)
    np.testing.assert_allclose(band["upper"], np.quantile(logs, 0.75, axis=0), rtol=1e-9)
    np.testing.assert_allclose(band["mean"], expected, rtol=1e-10)


def test_density_integrates_to_one(line_fit):
    grid = np.linspace(0, 140, 3000)[:, None]
    density = np.exp(gb.log_predictive_density(line_fit, grid).values)
    assert np.trapezoid(density, grid[:, 0]) == pytest.approx(1, abs=1e-4)


def test_far_rows_stay_logs_and_keep_their_order(thin_fit):
    far = np.outer([1e3, 1e4, 1e5, 1e6], [1.0, 1.0])
    logs = gb.log_predictive_density(thin_fit, far).values
    assert np.isfinite(logs).all()
    assert (np.diff(logs) < 0).all()
    assert logs[-1] < -1e6


def test_new_rows_come_from_the_density(line_fit):
    rows = gb.sample_predictive(line_fit, 4000, seed=3)
    assert rows.dims == ("obs", "feature")
    assert list(rows.coords["feature"].values) == ["waiting"]
    grid = np.linspace(0, 140, 4000)
    density = np.exp(gb.log_predictive_density(line_fit, grid[:, None]).values)
    cdf = np.cumsum(density) * (grid[1] - grid[0])
    assert stats.kstest(rows.values[:, 0], lambda x: np.interp(x, grid, cdf)).pvalue > 1e-3
    again = gb.sample_predictive(line_fit, 4000, seed=3)
    assert rows.identical(again)
    assert not rows.equals(gb.sample_predictive(line_fit, 4000, seed=4))


def test_new_rows_keep_the_correlation(faithful, faithful_fit):
    rows = gb.sample_predictive(faithful_fit, 5000, seed=0).values
    ours, data = np.corrcoef(rows.T)[0, 1], np.corrcoef(faithful.to_numpy().T)[0, 1]
    assert ours == pytest.approx(data, abs=0.03)
