"""Sets whose trajectories are long are sampled apart, as far as their budget goes."""

import warnings

import numpy as np
import pytest

import gmm_bayes as gb
from gmm_bayes.inference.batch.programs import SetPrograms

SAMPLER = gb.NUTS(
    num_warmup=60, num_samples=40, num_chains=2, max_tree_depth=6, preconditioning="none"
)


def fit_many(tables, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gb.errors.GMMBayesWarning)
        return gb.fit_many(tables, 2, sampler=SAMPLER, seed=1, device="cpu", **options)


@pytest.fixture(scope="module")
def tables():
    """One group of rows, in which two components overlap, and two groups."""
    rng = np.random.default_rng(3)
    one = rng.standard_normal((40, 1))
    return {"one": one, "two": np.vstack([one[:20], one[20:] + 8])}


@pytest.fixture(scope="module")
def whole(tables):
    return fit_many(tables, max_gradients=10**9)


def test_nothing_waits_in_a_block(monkeypatch, tables, whole):
    def refuse(*args, **kwargs):
        raise AssertionError("a set that is far from normal went into a block")

    monkeypatch.setattr(SetPrograms, "advance", refuse)
    again = fit_many(tables)
    for name in tables:
        assert again[name] == whole[name] or again[name].posterior.equals(whole[name].posterior)
    assert list(again.table()["n_draws"]) == [40, 40]


def test_a_set_is_stopped_at_its_budget_wherever_a_call_ends(tables, whole):
    spent = whole.table()["n_gradients"]
    stopped, n_draws = spent.idxmax(), 40
    # Chains share equally, and one needs more than the other.
    for share in np.arange(1.1, 0.6, -0.02):
        budget = int(share * spent.max())
        short = fit_many(tables, max_gradients=budget)
        found = short.table()
        n_draws = found.loc[stopped, "n_draws"]
        if n_draws < 40:
            break
    assert 0 < n_draws < 40
    assert not found.loc[stopped, "ok"]
    assert found["n_gradients"].max() <= budget
    # What is kept are the first draws of the whole run, and as many as the budget allows.
    ours, full = short[stopped].posterior, whole[stopped].posterior
    np.testing.assert_array_equal(ours["means"], full["means"][:, :n_draws])
    assert short[stopped].run["stopped"]
    np.testing.assert_allclose(
        gb.log_likelihood(short[stopped]).sum("obs"),
        short[stopped].sample_stats["total_log_likelihood"],
        rtol=1e-9,
    )


def test_a_budget_that_ends_in_the_warmup_is_said(tables):
    with pytest.warns(gb.errors.ConvergenceWarning, match="2 of them were stopped by max_grad"):
        short = gb.fit_many(tables, 2, sampler=SAMPLER, seed=1, device="cpu", max_gradients=50)
    assert list(short.table()["n_draws"]) == [0, 0]
    assert np.isnan(short.table()["weight_0"]).all()
    with pytest.raises(gb.errors.InferenceError, match=r"0 draws of data set 'one'.*budget"):
        short["one"]


def test_a_bad_budget():
    with pytest.raises(ValueError, match="max_gradients"):
        gb.fit_many([np.arange(9.0)[:, None]], 2, max_gradients=0)
