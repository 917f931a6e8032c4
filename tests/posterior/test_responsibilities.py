"""Responsibilities and labels: the mean over draws, by hand and streamed."""

import numpy as np
import pytest
from sklearn.mixture import GaussianMixture
from sklearn.mixture._gaussian_mixture import _compute_precision_cholesky

import gmm_bayes as gb
from gmm_bayes.machine import row_blocks
from gmm_bayes.posterior import streaming


def by_hand(fit, X):
    """scikit-learn's responsibilities at every draw, averaged."""
    draws = fit.posterior.stack(sample=("chain", "draw")).transpose("sample", ...)
    total = 0
    for s in range(0, draws.sizes["sample"], 40):
        em = GaussianMixture(fit.n_components)
        em.weights_, em.means_ = draws["weights"].values[s], draws["means"].values[s]
        em.precisions_cholesky_ = _compute_precision_cholesky(
            draws["covariances"].values[s], "full"
        )
        total = total + em.predict_proba(X)
    return total / len(range(0, draws.sizes["sample"], 40))


@pytest.fixture(scope="module")
def thin_fit(faithful_fit):
    """Every fortieth draw of the joined chains, so that a loop over draws is quick."""
    tree = faithful_fit.datatree.isel(draw=slice(None, None, 40))
    return gb.GMMFit(tree)


def test_mean_over_draws_is_that_of_scikit_learn(faithful, faithful_fit, thin_fit):
    ours = gb.responsibilities(thin_fit)
    assert ours.dims == ("obs", "component")
    np.testing.assert_allclose(
        ours, by_hand(faithful_fit, faithful.to_numpy()), rtol=1e-10, atol=1e-13
    )
    np.testing.assert_allclose(ours.sum("component"), 1)


def test_new_rows_are_treated_like_old_ones(faithful, faithful_fit):
    ours = gb.responsibilities(faithful_fit)
    order = np.random.default_rng(0).permutation(272)[:65]
    again = gb.responsibilities(faithful_fit, faithful.iloc[order])
    np.testing.assert_array_equal(again.coords["obs"], order)
    np.testing.assert_allclose(again, ours.isel(obs=order), rtol=1e-12)


def test_many_rows_go_in_blocks(faithful, faithful_fit, thin_fit, monkeypatch):
    monkeypatch.setattr(row_blocks, "_LARGEST_BLOCK", 64)
    np.testing.assert_allclose(
        gb.responsibilities(thin_fit, faithful),
        gb.responsibilities(thin_fit, faithful.iloc[::-1])[::-1],
        rtol=1e-12,
    )
    each = gb.responsibilities(thin_fit, faithful, reduce=None)
    assert each.dims == ("chain", "draw", "obs", "component")
    np.testing.assert_allclose(each.mean(("chain", "draw")), gb.responsibilities(thin_fit))


def test_interval_is_the_quantiles_of_the_draws(thin_fit):
    each = gb.responsibilities(thin_fit, reduce=None)
    answer = gb.responsibilities(thin_fit, interval=0.8)
    expected = each.quantile([0.1, 0.9], ("chain", "draw"))
    np.testing.assert_allclose(answer["lower"], expected[0], atol=1e-14)
    np.testing.assert_allclose(answer["upper"], expected[1], atol=1e-14)
    np.testing.assert_allclose(answer["mean"], gb.responsibilities(thin_fit))


def test_assign_takes_the_most_probable(faithful, faithful_fit):
    labels = gb.assign(faithful_fit)
    assert labels.dims == ("obs",)
    long_wait = faithful["waiting"].to_numpy() > 68
    assert np.mean(labels.values == long_wait) > 0.97
    np.testing.assert_array_equal(labels, gb.responsibilities(faithful_fit).values.argmax(1))


def test_size_is_said_before_the_whole_array_is_made(thin_fit, monkeypatch, caplog):
    with caplog.at_level("INFO", logger="gmm_bayes"):
        gb.responsibilities(thin_fit, reduce=None)
    assert "responsibilities with reduce=None of shape (4, 25, 272, 2) takes 0 MiB" in caplog.text
    monkeypatch.setattr(streaming, "_LARGE_ARRAY", 10)
    with pytest.warns(gb.errors.LargeArrayWarning, match="takes 0 MiB"):
        gb.responsibilities(thin_fit, reduce=None)


def test_wrong_options_are_refused(thin_fit):
    with pytest.raises(ValueError, match="reduce must be one of mean, got 'max'"):
        gb.responsibilities(thin_fit, reduce="max")
    with pytest.raises(ValueError, match="interval must be strictly between 0 and 1, got 90"):
        gb.responsibilities(thin_fit, interval=90)
    with pytest.raises(ValueError, match="give it with reduce='mean'"):
        gb.responsibilities(thin_fit, reduce=None, interval=0.9)
