"""Chains of one mode are not told that they sit in a worse one; planted ones are found."""

import re

import numpy as np
import pytest
from made_up import COVARIANCE_STRUCTURES, as_fit
from scipy import stats
from scipy.signal import lfilter

import gmm_bayes as gb
from gmm_bayes.inference.verdict import diagnosis, measures
from gmm_bayes.inference.verdict.thresholds import THRESHOLDS

LIMITS = (THRESHOLDS["worse_chain_sd"], THRESHOLDS["worse_chain_mcse"])
N_OBS, D = 120, 3


def remembering(rng, shape, memory):
    """Standard normal numbers (chain, draw, ...), each draw like the one before so far."""
    z = rng.standard_normal(shape)
    z[:, 1:] *= np.sqrt(1 - memory**2)
    return lfilter([1.0], [1.0, -memory], z, axis=1)


def chains_of_one_mode(rng, n_chains, n_draws, memory, behind=None):
    """Draws of the posterior of a normal, a fit; one chain's mean may be `behind` nats worse."""
    X = rng.standard_normal((N_OBS, D))
    means = X.mean(axis=0) + remembering(rng, (n_chains, n_draws, D), memory) / np.sqrt(N_OBS)
    if behind is not None:
        # The log-likelihood of a mean falls by half the squared distance for each row.
        means[1, :, 0] += np.sqrt(2 * behind / N_OBS)
    scales = np.exp(remembering(rng, (n_chains, n_draws, D), memory) / np.sqrt(2 * N_OBS))
    sites = {
        "weights": np.ones((n_chains, n_draws, 1)),
        "means": means[:, :, None],
        "scales": (X.std(axis=0) * scales)[:, :, None],
    }
    fit = as_fit(X, sites, COVARIANCE_STRUCTURES["diag"], prior_centres=np.zeros((1, D)))
    squares = (X**2).mean(axis=0) - 2 * X.mean(axis=0) * means + means**2
    variances = sites["scales"][:, :, 0] ** 2
    log_likelihood = -N_OBS / 2 * (np.log(2 * np.pi * variances) + squares / variances).sum(axis=2)
    stats = fit.sample_stats.assign(total_log_likelihood=(("chain", "draw"), log_likelihood))
    return fit.with_group("sample_stats", stats)


def told(fit):
    table = measures.agreement_table(fit)
    return diagnosis._worse_chains(fit, table, None)[1]


# Chains, draws and memory.
SHAPES = [
    (4, 8, 0.9),
    (4, 50, 0.5),
    (4, 50, 0.9),
    (4, 50, 0.98),
    (4, 100, 0.95),
    (8, 30, 0.95),
    (16, 60, 0.9),
    (64, 50, 0.9),
    (64, 50, 0.98),
    (256, 30, 0.5),
]


@pytest.mark.parametrize("n_runs", [4, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("n_chains", "n_draws", "memory"), SHAPES)
def test_no_chain_of_one_mode_is_a_worse_one(n_chains, n_draws, memory, n_runs):
    rng = np.random.default_rng([n_chains, n_draws, int(100 * memory)])
    alarms = [
        found
        for _ in range(n_runs)
        if (found := told(chains_of_one_mode(rng, n_chains, n_draws, memory)))
    ]
    assert not alarms


@pytest.mark.parametrize(
    ("n_chains", "n_draws", "memory", "behind"),
    [(4, 400, 0.3, 15.0), (4, 1000, 0.9, 15.0), (16, 200, 0.5, 15.0), (64, 100, 0.3, 15.0)],
)
def test_a_planted_one_is_found(n_chains, n_draws, memory, behind):
    rng = np.random.default_rng(n_draws)
    for _ in range(5):
        assert told(chains_of_one_mode(rng, n_chains, n_draws, memory, behind)) == (1,)


@pytest.mark.parametrize(("n_chains", "n_draws", "memory"), [(4, 400, 0.3), (64, 100, 0.3)])
def test_one_that_is_little_worse_is_not_believed(n_chains, n_draws, memory):
    """Less than two sds of the log-likelihood: they disagree, whether or not one is named."""
    rng = np.random.default_rng(n_draws)
    found = gb.diagnose(chains_of_one_mode(rng, n_chains, n_draws, memory, behind=3.0))
    assert not found.ok
    assert found.rhat > THRESHOLDS["rhat"]
    alone = gb.diagnose(chains_of_one_mode(rng, n_chains, n_draws, memory))
    assert alone.rhat < found.rhat


def test_many_chains_may_be_farther_apart():
    """The best and the worst of independent normal numbers, beside two of them."""
    rng = np.random.default_rng(0)
    for n_chains in (2, 16, 64):
        apart = np.ptp(rng.standard_normal((20_000, n_chains)), axis=1) / np.sqrt(2)
        allowed = measures.errors_apart(2.0, n_chains)
        assert 0.2 * stats.norm.sf(2.0) < np.mean(apart > allowed) / 2 < 1.2 * stats.norm.sf(2.0)
    found = [measures.errors_apart(4.0, n_chains) for n_chains in (2, 4, 16, 256)]
    assert found == pytest.approx([5.04, 5.04, 5.23, 6.02], abs=0.01)


def test_the_error_of_a_mean_is_what_means_differ_by():
    rng = np.random.default_rng(0)
    for n_draws, memory in ((1000, 0.0), (1000, 0.9), (100, 0.8)):
        values = remembering(rng, (64, n_draws), memory)
        spread = values.mean(axis=1).std()
        assert measures.mcse_of_chains(values) == pytest.approx(spread, rel=0.35)
    # Chains as long as their memory do not say.
    assert measures.mcse_of_chains(remembering(rng, (64, 50), 0.98)) == np.inf
    # Few chains have their autocorrelation alone.
    values = remembering(rng, (4, 4000), 0.8)
    assert measures.mcse_of_chains(values) == pytest.approx(3 / np.sqrt(4000), rel=0.3)


def test_many_chains_are_not_all_listed():
    rng = np.random.default_rng(0)
    fit = chains_of_one_mode(rng, 12, 400, 0.3)
    stats = fit.sample_stats.copy(deep=True)
    stats["total_log_likelihood"][:9] -= 80
    found = gb.diagnose(fit.with_group("sample_stats", stats))
    assert found.worse_chains == tuple(range(9))
    (said,) = (problem for problem in found.problems if "sit in a worse mode" in problem)
    assert said.startswith("chains [0, 1, 2, 3, 4, ...] sit in a worse mode (mean log-likelihood")
    assert len(re.findall(r"-?\d+\.\d", said)) == 10
