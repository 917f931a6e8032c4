"""Chains judged by the rows they leave out: what a log-likelihood alone does not see."""

import numpy as np
import pytest
from made_up import COVARIANCE_STRUCTURES, as_fit
from scipy import stats
from scipy.special import logsumexp

import gmm_bayes as gb
from gmm_bayes.inference.verdict import measures
from gmm_bayes.inference.verdict.diagnosis import THRESHOLDS

N_OBS, N_DRAWS = 150, 400
# A component so narrow that it holds one row, and a weight that costs the others little.
SPIKE, SHARE = 2e-3, 0.05


def pointwise(X, sites):
    """Log density of the rows, (chains, draws, N)."""
    means, scales = (sites[name][..., None, :] for name in ("means", "scales"))
    terms = stats.norm.logpdf(X, means, scales).sum(axis=-1)
    return logsumexp(np.log(sites["weights"])[..., None] + terms, axis=2)


def two_chains(spike_chain):
    """Draws about one normal; in one chain a second component sits on a row, another each time."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((N_OBS, 2))
    shape = (3, N_DRAWS, 2)
    broad = X.mean(axis=0) + X.std(axis=0) / np.sqrt(N_OBS) * rng.standard_normal(shape)
    scale = X.std(axis=0) * (1 + rng.standard_normal(shape) / np.sqrt(2 * N_OBS))
    # Elsewhere the second component is a broad one too, of the same share.
    second, narrow = broad.copy(), scale.copy()
    if spike_chain is not None:
        second[spike_chain] = X[rng.integers(N_OBS, size=N_DRAWS)]
        narrow[spike_chain] = SPIKE
    share = SHARE * rng.uniform(0.8, 1.2, shape[:2])
    sites = {
        "weights": np.stack([1 - share, share], axis=-1),
        "means": np.stack([broad, second], axis=2),
        "scales": np.stack([scale, narrow], axis=2),
    }
    fit = as_fit(X, sites, COVARIANCE_STRUCTURES["diag"], prior_centres=np.zeros((2, 2)))
    log_likelihood = pointwise(X, sites).sum(axis=-1)
    statistics = fit.sample_stats.assign(total_log_likelihood=(("chain", "draw"), log_likelihood))
    return fit.with_group("sample_stats", statistics), pointwise(X, sites)


@pytest.fixture(scope="module")
def spiked():
    return two_chains(1)


def test_leave_one_out_of_each_chain_is_that_of_stack_chains(spiked):
    fit, _ = spiked
    ours = measures.chain_elpd(fit)
    assert ours.by_row.shape == (3, N_OBS)
    np.testing.assert_allclose(ours.by_row.sum(axis=1), gb.stack_chains(fit).elpd_chains, rtol=1e-9)


def test_a_chain_that_follows_single_rows_is_found(spiked):
    """Its log-likelihood is the highest, so that by this alone nothing is said against it."""
    fit, log_density = spiked
    found = gb.diagnose(fit)
    assert found.log_likelihood.argmax() == 1
    totals = log_density.sum(axis=-1)
    assert 1 not in measures.worse_chains(totals, THRESHOLDS["worse_chain_sd"], 0.0)
    assert found.worse_chains == (1,)
    assert found.elpd[1] < found.elpd[[0, 2]].min() - THRESHOLDS["worse_chain_elpd"]
    (said,) = (p for p in found.problems if "sit in a worse mode" in p)
    assert said.startswith("chains [1] sit in a worse mode (mean log-likelihood by chain: ")
    assert "; of rows left out: " in said


def test_chains_that_agree_are_not_asked(monkeypatch):
    fit, _ = two_chains(None)
    monkeypatch.setattr(measures, "chain_elpd", lambda fit: pytest.fail("was asked"))
    found = gb.diagnose(fit)
    assert found.worse_chains == ()
    assert np.isnan(found.elpd).all()


def test_small_differences_and_uncertain_ones_are_forgiven():
    rng = np.random.default_rng(0)
    best = rng.standard_normal(200)
    chains = np.stack([best, best - 0.01, best - 0.05, best - 0.05 + rng.standard_normal(200)])
    # 2 nats, surely; 10 nats, surely; 10 nats, give or take 14.
    exact = measures.ChainElpd(chains)
    assert measures.worse_by_elpd(exact, 200, 4.0, 3.0, 4.0) == (2,)
    # The same rows may stand for ten times as many.
    assert measures.worse_by_elpd(exact, 2000, 4.0, 3.0, 4.0) == (1, 2)
    # 10 nats, give or take 2.8 for want of draws.
    few_draws = measures.ChainElpd(chains, 0.01)
    assert measures.worse_by_elpd(few_draws, 200, 4.0, 3.0, 4.0) == ()
    assert measures.worse_by_elpd(few_draws, 200, 4.0, 3.0, 3.0) == (2,)
    nothing = measures.ChainElpd(np.empty((3, 0)))
    assert measures.worse_by_elpd(nothing, 200, 4.0, 3.0, 4.0) == ()


def test_where_it_cannot_be_said(spiked):
    fit, _ = spiked
    few = gb.GMMFit(fit.datatree.isel(draw=slice(measures.FEWEST_LOO_DRAWS - 1)))
    assert measures.chain_elpd(few).by_row.shape == (3, 0)
    assert measures.chain_elpd(fit.with_group("posterior", fit.posterior * np.nan)).by_row.size == 0
