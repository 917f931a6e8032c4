"""All quantities in one pass are what ArviZ says of each by itself, to a billionth."""

import numpy as np
import pytest
import xarray as xr

from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference.verdict import agreement as module
from gmm_bayes.inference.verdict.agreement import agreement


def series(n, n_chains, n_draws, seed=0):
    """Quantities that mix quickly, slowly, not at all, with ties, tails and opposite steps."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((n, n_chains, n_draws))
    for i, row in enumerate(values):
        memory = [0.0, 0.5, 0.95, -0.6, 0.99][i % 5]
        for t in range(1, n_draws):
            row[:, t] = memory * row[:, t - 1] + np.sqrt(1 - memory**2) * row[:, t]
    values[5 % n] = values[5 % n].round(1)
    values[6 % n] = np.sign(values[6 % n])
    values[7 % n] = np.tan(np.clip(values[7 % n], -1.5, 1.5)) ** 3
    values[8 % n] += 3 * np.arange(n_chains)[:, None]
    values[9 % n, 0] *= 10
    values[10 % n] = 1e9 + 1e-3 * values[10 % n]
    return values


def by_arviz(values):
    dataset = xr.Dataset({"x": (("chain", "draw", "q"), np.moveaxis(values, 0, 2))})
    return (
        arviz_bridge.rhat(dataset)["x"].values,
        arviz_bridge.ess(dataset, "bulk")["x"].values,
        arviz_bridge.ess(dataset, "tail")["x"].values,
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("n_chains", "n_draws"),
    [(4, 1000), (2, 4), (2, 5), (3, 6), (2, 7), (5, 8), (2, 9), (4, 61), (7, 301)],
)
def test_numbers_are_arviz(n_chains, n_draws):
    values = series(15, n_chains, n_draws, seed=n_draws)
    for got, expected in zip(agreement(values), by_arviz(values), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_judged_is_unknown(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 700)
    values = series(15, 4, 100)
    values[1, 2, 3] = np.nan
    values[4] = 2.5
    values[11, 0, 0] = np.inf
    for got, expected in zip(agreement(values), by_arviz(values), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9)
    assert np.isnan(agreement(values).rhat[[1, 4]]).all()
    for one in agreement(values[:, :, :3]):
        assert np.isnan(one).all()
    one_chain = agreement(values[:1, :1])
    assert np.isnan(one_chain.rhat).all()
    np.testing.assert_allclose(one_chain.ess_bulk, by_arviz(values[:1, :1])[1], rtol=1e-9)


def test_tails_are_left_out_on_request():
    values = series(5, 2, 40)
    with_tails, without = agreement(values), agreement(values, tails=False)
    np.testing.assert_array_equal(with_tails.rhat, without.rhat)
    np.testing.assert_array_equal(with_tails.ess_bulk, without.ess_bulk)
    assert np.isnan(without.ess_tail).all()
