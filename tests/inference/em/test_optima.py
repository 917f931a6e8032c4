"""The search for the maxima of the likelihood, where k-means misleads, and its parts."""

import warnings

import jax
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

import gmm_bayes as gb
from gmm_bayes.core.likelihood import block_rows
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.em import optima
from gmm_bayes.inference.em.guesses import KINDS, Rows, guesses, portfolio, regroupings
from gmm_bayes.inference.em.optima import find_optima, follow_all
from gmm_bayes.inference.em.steps import EMSettings, e_step, hard_moments
from gmm_bayes.inference.potential import ModelSpec


@pytest.fixture(scope="module")
def bodies():
    return gb.datasets.load_crabs().to_numpy()


@pytest.mark.parametrize(("k", "known"), [(2, -1354.16), (3, -1281.28), (4, -1223.69)])
def test_groups_that_size_hides_are_found(bodies, k, known):
    """From every seed what the best of 2,000 starts is; ten of k-means may miss it by far."""
    by_kmeans = [gb.fit_em(bodies, k, init="kmeans", seed=seed) for seed in range(4)]
    assert min(fit.log_likelihood for fit in by_kmeans) < known - 10
    for seed in range(4):
        fit = gb.fit_em(bodies, k, seed=seed)
        assert fit.log_likelihood == pytest.approx(known, abs=0.05)
        # Found more than once, and said.
        assert fit.starts["n_starts"][0] >= 10
        assert fit.starts["n_starts"].sum() <= fit.n_starts


def test_four_groups_of_crabs_are_species_and_sexes():
    X = gb.datasets.load_crabs()
    kinds = [label[:2] for label in X.index]
    assert adjusted_rand_score(gb.fit_em(X, 4).labels, kinds) == pytest.approx(0.82, abs=0.02)


def test_the_first_line_is_the_best_and_lines_differ(bodies):
    starts = gb.fit_em(bodies, 3).starts
    regular = starts[~starts["singular"]]["log_likelihood_per_row"]
    assert regular.is_monotonic_decreasing
    assert len(starts) > 3
    assert (starts["n_starts"] >= 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_guess_puts_each_row_somewhere(bodies, kind):
    X = bodies
    moments = guesses(Rows.of(X), 3, [kind], 0)
    assert moments.shape == (1, 3, 6, 6)
    np.testing.assert_allclose(moments[0, :, 0, 0].sum(), len(X))
    np.testing.assert_allclose(moments[0, :, 0, 1:].sum(axis=0), X.sum(axis=0))
    weights = np.r_[np.full(40, 2.5), np.ones(160)]
    weighted = guesses(Rows.of(X, weights), 3, [kind], 0)
    np.testing.assert_allclose(weighted[0, :, 0, 0].sum(), weights.sum())


def test_sphered_rows_have_the_identity_for_their_covariance(bodies):
    X = bodies * [1, 10, 100, 1000, 0.1]
    np.testing.assert_allclose(np.cov(Rows.of(X).sphered.T, ddof=0), np.eye(5), atol=1e-8)
    weights = np.r_[np.full(40, 2.5), np.ones(160)]
    sphered = Rows.of(X, weights).sphered
    np.testing.assert_allclose(np.cov(sphered.T, ddof=0, aweights=weights), np.eye(5), atol=1e-8)
    # Two columns that are one: there is a direction in which nothing spreads.
    flat = Rows.of(np.column_stack([X[:, 0], X[:, 0]])).sphered
    assert np.isfinite(flat).all()
    assert np.abs(flat).max() < 10


def test_a_tree_of_many_rows_is_one_of_some(monkeypatch, bodies):
    whole = guesses(Rows.of(bodies), 2, ["sphered ward"], 0)
    monkeypatch.setattr("gmm_bayes.inference.em.guesses._ROWS_IN_TREE", 50)
    some = guesses(Rows.of(bodies), 2, ["sphered ward"], 0)
    assert not np.allclose(whole, some)
    np.testing.assert_allclose(some[0, :, 0, 0].sum(), 200)


def test_a_portfolio_begins_with_what_leaves_nothing_to_chance():
    assert portfolio(3, 5) == ["ward", "sphered ward", "kmeans"]
    assert len(portfolio(100, 5)) == 100
    assert set(portfolio(100, 5)) == set(KINDS) - {"random"}
    assert not any("sphered" in kind or "projected" in kind for kind in portfolio(100, 1))


@pytest.mark.usefixtures("double")
def test_regrouping_leads_out_of_a_wrong_maximum():
    """Two components share one group and one holds two: EM stays there."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal((x, 0.0), 1.0, (80, 2)) for x in (0.0, 12.0, 18.0)])
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    labels = np.repeat([0, 2, 2], 80)
    labels[:80] = rng.integers(0, 2, 80)
    rows, here, spec = jax.device_put(block_rows(X)), Rows.of(X), ModelSpec(3, "full")
    wrong = hard_moments(X, labels, 3)[None]
    stuck = follow_all(wrong, ["given"], rows, spec, EMSettings())
    right = find_optima(X, rows, spec, EMSettings(), init="auto", n_init=None, seed=0)
    gain = right.solutions.log_likelihood[0] - stuck.solutions.log_likelihood[0]
    assert gain > 20, "else EM does not stay there"
    moves = regroupings(here, _labels(X, stuck.best), stuck.best, 32, np.random.default_rng(1))
    np.testing.assert_allclose(moves[:, :, 0, 0].sum(axis=1), 240)
    led = follow_all(moves, ["regrouped"] * 32, rows, spec, EMSettings())
    assert led.solutions.log_likelihood[0] == pytest.approx(
        right.solutions.log_likelihood[0], abs=0.01
    )


def _labels(X, mixture):
    return np.asarray(gb.core.mixture.scores(X, mixture)).argmax(axis=1)


@pytest.mark.usefixtures("double")
def test_a_short_run_and_what_goes_on_from_it_are_one_run(bodies, monkeypatch):
    X = (bodies - bodies.mean(axis=0)) / bodies.std(axis=0)
    rows, spec, settings = jax.device_put(block_rows(X)), ModelSpec(2, "full"), EMSettings()
    kinds = ["kmeans"] * 3
    moments = guesses(Rows.of(X), 2, kinds, 0)
    em = optima._EM(rows, spec, settings, X)
    in_two = em.follow_best(moments, kinds)
    at_once = follow_all(moments, kinds, rows, spec, settings)
    n = int(in_two.solutions.n_iter[0])
    assert n > optima.SHORT, "else there was one run"
    assert n == at_once.solutions.n_iter[0]
    np.testing.assert_allclose(
        in_two.solutions.trace[0][:n], at_once.solutions.trace[0][:n], rtol=1e-10
    )
    total, expected = e_step(in_two.best, rows)
    assert float(total) == pytest.approx(in_two.solutions.log_likelihood[0], rel=1e-12)
    np.testing.assert_allclose(expected, in_two.solutions.moments[0], rtol=1e-8, atol=1e-8)


@pytest.mark.usefixtures("double")
def test_mixtures_that_differ_in_their_numbers_alone_are_one(bodies):
    X = (bodies - bodies.mean(axis=0)) / bodies.std(axis=0)
    rows, spec, settings = jax.device_put(block_rows(X)), ModelSpec(2, "full"), EMSettings()
    moments = guesses(Rows.of(X), 2, ["sphered k-means"], 0)
    both = np.concatenate([moments, moments[:, ::-1]])
    found = optima._EM(rows, spec, settings, X).follow_best(both, ["kmeans", "random"])
    assert found.led == [["kmeans", "random"]]
    assert found.n_starts == 2
    assert len(found.solutions.log_likelihood) == 1


@pytest.mark.parametrize(("rows", "columns", "k"), [(5, 1, 1), (6, 1, 3), (7, 5, 2), (30, 1, 4)])
def test_small_tables(rows, columns, k):
    X = np.random.default_rng(0).standard_normal((rows, columns))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(optima, "_MOST_ROUNDS", 3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", gb.errors.DataWarning)
            found = gb.fit_em(X, k)
    assert np.isfinite(found.log_likelihood)
    assert found.starts["n_starts"].sum() <= found.n_starts
    if k == 1:
        assert found.n_starts == 1
        np.testing.assert_allclose(found.means[0], X.mean(axis=0))


def test_ties_and_few_distinct_rows():
    X = np.repeat(np.arange(6.0), 20)[:, None] + np.tile([0.0, 0.25], 60)[:, None]
    found = gb.fit_em(pd.DataFrame({"a": X[:, 0]}), 3)
    assert np.isfinite(found.log_likelihood)
    assert not found.singular


def test_as_many_starts_as_asked_for(bodies):
    found = gb.fit_em(bodies, 2, n_init=7)
    regrouped = found.n_starts - 7
    assert regrouped > 0
    assert regrouped % 4 == 0
    again = gb.fit_em(bodies, 2, n_init=7)
    pd.testing.assert_frame_equal(found.starts, again.starts)


def test_a_mixture_among_the_best_is_a_mixture(bodies):
    found = gb.fit_em(bodies, 2)
    assert isinstance(found.parameters, MixtureParameters)
    assert found.weights.sum() == pytest.approx(1)
