"""Chains weighted by what they predict: bad modes are left out, equal chains are not told apart."""

import numpy as np
import pytest
from made_up import far_apart, made_up_fit, shuffled

import gmm_bayes as gb
from gmm_bayes.checking.stacking import stacking_weights


def with_a_bad_chain(fit, chain=1):
    """The last chain has merged its components in one place."""
    posterior = fit.posterior.copy(deep=True)
    posterior["means"].values[chain] = posterior["means"].values[chain].mean(axis=1, keepdims=True)
    return fit.with_group("posterior", posterior)


@pytest.fixture(scope="module")
def good():
    return made_up_fit(far_apart(2, 2), n_draws=100, noise=0.1)


def test_a_chain_in_a_bad_mode_weighs_nothing(good):
    bad = with_a_bad_chain(good)
    stacked = gb.stack_chains(bad)
    assert stacked.weights[1] < 1e-3
    assert stacked.weights.sum() == pytest.approx(1)
    assert stacked.elpd_chains[0] > stacked.elpd_chains[1] + 100
    assert stacked.elpd_stacked > stacked.elpd_equal + 50
    fit = stacked.resample(3)
    assert fit.stacking == {"weights": stacked.weights.tolist()}
    alone = bad.posterior.isel(chain=0)["weights"].values
    drawn = fit.posterior["weights"].values
    assert drawn.shape == (2, 100, 2)
    from_the_good = (drawn.reshape(-1, 1, 2) == alone).all(axis=2)
    # Each draw of the good chain about twice, for the other chain has no share.
    assert (from_the_good.sum(axis=0) >= 1).all()
    assert from_the_good.sum() >= 199


def test_equal_chains_predict_alike(good):
    stacked = gb.stack_chains(good)
    assert stacked.elpd_chains[0] == pytest.approx(stacked.elpd_chains[1], abs=1)
    assert stacked.elpd_stacked == pytest.approx(stacked.elpd_equal, abs=0.5)
    # By chance one of them predicts a little better: that is no reason to take it alone.
    assert stacked.agree
    np.testing.assert_array_equal(stacked.weights, 0.5)
    assert "the chains agree (R-hat " in repr(stacked)
    bad = gb.stack_chains(with_a_bad_chain(good))
    assert not bad.agree
    assert "agree" not in repr(bad)
    twice = gb.GMMFit(good.datatree.isel(chain=[0, 0]))
    np.testing.assert_allclose(gb.stack_chains(twice).weights, 0.5, atol=1e-3)


def test_labels_play_no_part(good):
    bad = with_a_bad_chain(good)
    mixed, _ = shuffled(bad)
    np.testing.assert_allclose(
        gb.stack_chains(mixed).weights, gb.stack_chains(bad).weights, atol=1e-6
    )


def test_weights_against_a_grid():
    rng = np.random.default_rng(0)
    logs = np.array([np.where(rng.random(300) < 0.7, -1.0, -4.0), np.full(300, -2.0)])
    weights = stacking_weights(logs)
    grid = np.linspace(0, 1, 2001)
    totals = [np.log(w * np.exp(logs[0]) + (1 - w) * np.exp(logs[1])).sum() for w in grid]
    assert weights[0] == pytest.approx(grid[np.argmax(totals)], abs=1e-3)


def test_what_is_resampled_says_so(good, tmp_path):
    stacked = gb.stack_chains(good)
    fit = stacked.resample(1)
    assert fit == stacked.resample(1)
    assert fit != stacked.resample(2)
    assert "stacked: draws were taken from the chains by weights" in repr(fit)
    assert gb.load(fit.save(tmp_path / "stacked.nc")) == fit
    assert fit.X.equals(good.X)
    np.testing.assert_allclose(gb.responsibilities(fit).sum("component"), 1)
    aligned = gb.align_labels(fit)
    assert aligned.stacking == fit.stacking
    with pytest.raises(ValueError, match="diagnose must have draws as they were sampled"):
        gb.diagnose(fit)
    with pytest.raises(ValueError, match="log_evidence must have the draws of chains"):
        gb.log_evidence(fit)
    with pytest.raises(ValueError, match="got resampled draws"):
        gb.stack_chains(fit)
    assert "chain 1: weight" in repr(stacked)


def test_what_cannot_be_stacked():
    with pytest.raises(TypeError, match="fit must be a GMMFit"):
        gb.stack_chains(3)
    with pytest.raises(ValueError, match="at least 25 draws a chain, got 24"):
        gb.stack_chains(made_up_fit(far_apart(2, 1), n_draws=24))
    fit = made_up_fit(far_apart(2, 1), n_draws=25)
    assert gb.stack_chains(fit).weights.shape == (2,)
    with pytest.raises(ValueError, match="must have finite draws"):
        gb.stack_chains(fit.with_group("posterior", fit.posterior * np.nan))


def test_no_other_weights_are_better():
    """Karush, Kuhn and Tucker: members with a share gain equally, the others less."""
    rng = np.random.default_rng(1)
    logs = np.log(rng.gamma(1.0, size=(5, 400)) * [[1.0], [0.9], [1.1], [0.3], [1.0]])
    weights = stacking_weights(logs)
    densities = np.exp(logs)
    gain = (densities / (weights @ densities)).mean(axis=1)
    used = weights > 0.01
    assert 1 < used.sum() < 5
    np.testing.assert_allclose(gain[used], 1, atol=1e-4)
    assert (gain[~used] < 1).all()
