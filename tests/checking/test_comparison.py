"""How many components: every criterion against another way to compute it, and what is a tie."""

import re
import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn.mixture import GaussianMixture

import gmm_bayes as gb
from gmm_bayes.checking import prediction
from gmm_bayes.checking.candidates import Candidate, Scores, comparison
from gmm_bayes.checking.comparison import _seed
from gmm_bayes.checking.nested import risen, still_falling
from gmm_bayes.checking.prediction import folds, leave_one_out
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference import arviz_bridge
from gmm_bayes.machine import row_blocks

EM_CRITERIA = ("aic", "bic", "icl", "cv")


@pytest.fixture(scope="module")
def faithful_sweep(faithful):
    return gb.compare_n_components(faithful, (3, 1, 2), criteria=EM_CRITERIA, n_folds=4, seed=3)


@pytest.fixture(scope="module")
def posterior_sweep(faithful):
    """Independent draws: no chains, and nothing to compile but what a criterion needs."""
    return gb.compare_n_components(
        faithful,
        (1, 2),
        criteria=("loo", "waic", "cv"),
        engine="nuts",
        n_folds=2,
        sampler=gb.Laplace(num_samples=500),
        seed=3,
    )


def test_one_line_a_candidate_and_the_winners_of_each(faithful_sweep):
    table = faithful_sweep.table
    assert list(table.index) == [("full", 1), ("full", 2), ("full", 3)]
    assert table.index.names == ["covariance_type", "n_components"]
    np.testing.assert_allclose(
        table["log_likelihood"][:2], [-1289.797, -1130.264], atol=0.01
    )  # mclust 6.1.3
    assert list(table["n_parameters"]) == [5, 11, 17]
    for name in ("aic", "bic", "icl"):
        values = [getattr(fit, name) for fit in faithful_sweep.fits.values()]
        np.testing.assert_array_equal(table[name], values)
        assert f"{name}_se" not in table
        assert faithful_sweep.ties[name] == (faithful_sweep.best[name],)
    assert faithful_sweep.best["bic"] == Candidate(2, "full")
    assert faithful_sweep.best["aic"] == Candidate(3, "full")
    assert faithful_sweep.posteriors == {}


def test_cross_validation_of_one_component_is_that_of_a_normal(faithful, faithful_sweep):
    """Its mean and covariance are those of the rows that are kept."""
    X, total = faithful.to_numpy(), 0.0
    for part in folds(len(X), 4, np.random.default_rng([3, len(X)])):
        kept = np.delete(X, part, axis=0)
        normal = stats.multivariate_normal(kept.mean(0), np.cov(kept.T, ddof=0))
        total += normal.logpdf(X[part]).sum()
    assert faithful_sweep.table["cv"][("full", 1)] == pytest.approx(total, abs=1e-2)


def test_cross_validation_of_two_components_is_scikit_learns(faithful, faithful_sweep):
    X, rows = faithful.to_numpy(), np.empty(len(faithful))
    for part in folds(len(X), 4, np.random.default_rng([3, len(X)])):
        kept = np.delete(X, part, axis=0)
        loc, scale = kept.mean(0), kept.std(0)
        theirs = GaussianMixture(2, tol=1e-10, max_iter=1000, random_state=0)
        theirs.fit((kept - loc) / scale)
        rows[part] = theirs.score_samples((X[part] - loc) / scale) - np.log(scale).sum()
    line = faithful_sweep.table.loc[("full", 2)]
    assert line["cv"] == pytest.approx(rows.sum(), abs=0.01)
    assert line["cv_se"] == pytest.approx(np.sqrt(len(X) * rows.var(ddof=1)), rel=1e-3)


@pytest.mark.filterwarnings("ignore::gmm_bayes.errors.ConvergenceWarning")
def test_cross_validation_by_the_posterior_makes_priors_anew(faithful, posterior_sweep):
    X, candidate = faithful.to_numpy(), Candidate(2, "full")
    total = 0.0
    for part in folds(len(X), 2, np.random.default_rng([3, len(X)])):
        kept = np.delete(X, part, axis=0)
        number = _seed(np.array([3], dtype=np.uint32), candidate)
        fit = gb.fit(kept, 2, sampler=gb.Laplace(num_samples=500), seed=number)
        total += float(gb.log_predictive_density(fit, X[part]).sum())
    assert posterior_sweep.table["cv"][candidate[::-1]] == pytest.approx(total, abs=1e-6)


def test_folds_are_a_partition():
    parts = folds(23, 5, np.random.default_rng(0))
    assert sorted(np.concatenate(parts)) == list(range(23))
    assert {len(part) for part in parts} == {4, 5}


def test_leave_one_out_is_arvizs(faithful_fit, monkeypatch):
    az = arviz_bridge.import_arviz()
    r_eff = prediction._relative_efficiency(faithful_fit)
    assert 0.3 < r_eff < 3
    grouped = gb.with_groups(faithful_fit, "log_likelihood").idata
    theirs = az.loo(grouped, pointwise=True, reff=r_eff)
    monkeypatch.setattr(row_blocks, "_LARGEST_BLOCK", 64)  # several blocks, the last one not full
    ours = leave_one_out(faithful_fit)
    theirs_rows = theirs.loo_i if hasattr(theirs, "loo_i") else theirs.elpd_i
    np.testing.assert_allclose(ours.loo, np.ravel(theirs_rows), atol=1e-8)
    np.testing.assert_allclose(ours.pareto_k, np.ravel(theirs.pareto_k), atol=1e-8)
    log_density = gb.log_likelihood(faithful_fit).values.reshape(-1, faithful_fit.n_obs)
    mean = np.log(np.exp(log_density).mean(axis=0))
    np.testing.assert_allclose(ours.waic, mean - log_density.var(axis=0, ddof=1), atol=1e-10)


def test_leave_one_out_charges_for_the_parameters(line_fit):
    """Near enough: the two estimates agree, and the price is about that of five parameters."""
    ours = leave_one_out(line_fit)
    assert ours.loo.sum() == pytest.approx(ours.waic.sum(), abs=0.3)
    density = gb.log_predictive_density(line_fit).values
    # Every row is predicted worse by the others than by all.
    assert (ours.loo < density).all()
    assert 2 < (density - ours.loo).sum() < 8


def test_criteria_of_the_posterior(posterior_sweep):
    table = posterior_sweep.table
    for name in ("loo", "waic"):
        rows = np.array(
            [
                getattr(leave_one_out(posterior), name)
                for posterior in posterior_sweep.posteriors.values()
            ]
        )
        np.testing.assert_allclose(table[name], rows.sum(axis=1))
        n_obs = rows.shape[1]
        np.testing.assert_allclose(table[f"{name}_se"], np.sqrt(n_obs * rows.var(axis=1, ddof=1)))
        error = np.sqrt(n_obs * (rows[1] - rows[0]).var(ddof=1))
        np.testing.assert_allclose(table[f"{name}_gap_se"], [error, 0])
        assert posterior_sweep.best[name] == Candidate(2, "full")
    assert table["believe"].all()
    assert (table["pareto_k_high"] < 0.02).all()


def scores_of(rows):
    return Scores(rows.sum(axis=1), rows)


def test_a_tie_is_a_tie_and_a_clear_winner_is_not(faithful_sweep):
    fits = faithful_sweep.fits
    rng = np.random.default_rng(0)
    first = rng.standard_normal(100)
    # Behind by 3 with an error of 10; behind by 30 with an error of 10.
    rows = np.stack([first, first - 0.03, first - 0.3])
    rows[1:] += np.resize([1.0, -1.0], 100)
    found = comparison(fits, {}, {}, {"cv": scores_of(rows)})
    candidates = list(fits)
    assert found.best["cv"] == candidates[0]
    assert found.ties["cv"] == (candidates[0], candidates[1])
    np.testing.assert_allclose(found.table["cv_gap"], [0, 3, 30])
    np.testing.assert_allclose(found.table["cv_gap_se"], [0, 10.05, 10.05], atol=0.01)
    assert "cv: 1 full; no worse within one standard error: 2 full" in repr(found)


def test_estimates_with_an_error_tie_within_it(faithful_sweep):
    scores = Scores(np.array([-10.0, -10.2, -12.0]), errors=np.array([0.1, 0.3, 0.1]))
    found = comparison(faithful_sweep.fits, {}, {}, {"evidence": scores})
    assert [c.n_components for c in found.ties["evidence"]] == [1, 2]
    np.testing.assert_allclose(
        found.table["evidence_gap_se"], [0, np.hypot(0.1, 0.3), 0.1 * 2**0.5]
    )


def test_a_singular_candidate_is_out_of_bic_and_said_so():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.standard_normal((30, 2)), np.full((15, 2), 5.0)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = gb.compare_n_components(X, (1, 2), criteria=("bic",), n_init=3)
    assert any("without extent: aic, bic and icl leave it out" in str(w.message) for w in caught)
    assert list(found.table["singular"]) == [False, True]
    assert np.isnan(found.table["bic"][("full", 2)])
    assert found.best["bic"] == Candidate(1, "full")
    assert found.ties["bic"] == (Candidate(1, "full"),)


def test_a_criterion_without_any_candidate_has_no_winner():
    X = np.random.default_rng(0).normal(size=(6, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gb.errors.DataWarning)
        found = gb.compare_n_components(X, (1,), criteria=("bic",))
    assert found.best == found.ties == {}
    assert "bic: none, for every candidate is singular" in repr(found)
    gb.plots.plot_n_components(found)[0].figure.canvas.draw()


def test_evidence_beside_the_rest():
    """The sum of the two groups' evidences is not near that of one."""
    rng = np.random.default_rng(2)
    X = np.concatenate([rng.standard_normal(25) - 5, rng.standard_normal(25) + 5])[:, None]
    sampler = gb.NUTS(num_warmup=300, num_samples=600)
    found = gb.compare_n_components(
        X,
        (1, 2),
        criteria=("evidence",),
        priors=lambda k: gb.Priors.fixed(np.zeros((k, 1)), mean_covariance=25.0),
        sampler=sampler,
        n_init=2,
    )
    assert found.best["evidence"] == Candidate(2, "full")
    assert [float(p.priors.mean_loc.std()) for p in found.posteriors.values()] == [0, 0]
    one, two = (gb.log_evidence(p) for p in found.posteriors.values())
    np.testing.assert_allclose(found.table["evidence"], [one.log_evidence, two.log_evidence])
    np.testing.assert_allclose(found.table["evidence_se"], [one.error, two.error])


class Client:
    """What is used of a Dask client."""

    def submit(self, function, pure):
        from concurrent.futures import Future

        future = Future()
        future.set_result(function())
        return future

    def gather(self, futures):
        return [future.result() for future in futures]


@pytest.mark.parametrize("executor", ["multiprocessing", "looky"])
def test_what_cannot_run_fits_is_refused_before_any_work(faithful, executor):
    with pytest.raises(ValueError) as error:
        gb.compare_n_components(faithful, (1, 2), criteria=("bic",), executor=executor)
    assert str(error.value).startswith(f"executor={executor!r} cannot run fits (")
    assert "take 'loky' for processes" in str(error.value)


@pytest.mark.parametrize("executor", ["threading", Client()])
def test_work_done_elsewhere_is_the_same(faithful, faithful_sweep, executor):
    found = gb.compare_n_components(
        faithful, (1, 2, 3), criteria=EM_CRITERIA, n_folds=4, seed=3, executor=executor
    )
    assert found.table.equals(faithful_sweep.table)


def test_structures_side_by_side(faithful):
    found = gb.compare_n_components(
        faithful, (2,), covariance_types=("full", "diag"), criteria=("bic",), n_init=2
    )
    assert list(found.table.index) == [("full", 2), ("diag", 2)]
    assert found.fits[Candidate(2, "diag")].covariance_type == "diag"


def test_it_reads_well(faithful_sweep):
    text = repr(faithful_sweep)
    assert text.startswith("Comparison\n  aic: 3 full\n  bic: 2 full\n  icl: 2 full\n  cv: ")
    assert re.search(r"\n +2 +11 +-1130\.3 ", text)
    html = faithful_sweep._repr_html_()
    assert "<li>bic: 2 full</li>" in html
    assert "-1130.3" in html


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"candidates": (0, 1)}, ValueError, "n_components must be at least 1, got 0"),
        (
            {"candidates": (1, 2.0)},
            TypeError,
            "n_components must be an integer of at least 1, got 2.0 of type float",
        ),
        (
            {"candidates": ()},
            ValueError,
            "candidates, covariance_types and criteria must not be empty",
        ),
        (
            {"criteria": ("bci",)},
            ValueError,
            "criteria must be one of aic, bic, icl, cv, loo, waic, evidence, got 'bci'; did you "
            "mean 'bic'?",
        ),
        (
            {"criteria": "bic"},
            TypeError,
            "covariance_types and criteria must be sequences of names, not one string",
        ),
        (
            {"covariance_types": ("fulll",)},
            ValueError,
            "covariance_types must be one of full, tied, diag, spherical, got 'fulll'; did you "
            "mean 'full'?",
        ),
        (
            {"engine": "mcmc"},
            ValueError,
            "engine must be one of em, nuts, got 'mcmc'; known: em, nuts",
        ),
        ({"n_folds": 1}, ValueError, "n_folds must be at least 2, got 1"),
        (
            {"n_folds": 300},
            ValueError,
            "n_folds must be at most the number of rows, 272, got 300",
        ),
        ({"n_init": 0}, ValueError, "n_init must be at least 1, got 0"),
        (
            {"sampler": "nuts"},
            TypeError,
            "sampler must be a gmm_bayes.NUTS, ChEES or Laplace, got 'nuts'",
        ),
        (
            {"priors": 1},
            TypeError,
            "priors must be a gmm_bayes.Priors or a function that returns one, got int",
        ),
        (
            {"priors": lambda k: k},
            TypeError,
            "priors must be a gmm_bayes.Priors or a function that returns one, got int",
        ),
        (
            {"executor": 3},
            TypeError,
            "executor must be None, the name of a joblib backend such as 'loky', or a Dask client, "
            "got int",
        ),
        ({"seed": -1}, ValueError, "seed must be in [0, 2**32), got -1"),
    ],
)
def test_what_cannot_be_compared_is_refused(faithful, monkeypatch, options, error, message):
    monkeypatch.setattr("gmm_bayes.checking.comparison.run_tasks", None)
    options = {"criteria": ("bic", "cv"), **options}
    with pytest.raises(error) as caught:
        gb.compare_n_components(faithful, **options)
    assert str(caught.value) == message


def test_more_components_than_a_fold_leaves_rows():
    X = np.random.default_rng(0).standard_normal((10, 1))
    with pytest.raises(ValueError, match="n_components must be at most the number of rows, got"):
        gb.compare_n_components(X, (9,), criteria=("cv",), n_folds=2)


# -- maxima are nested ----------------------------------------------------------------------------


def poor(X, k):
    """A fit whose components all share one place: far from a maximum of the likelihood."""
    start = MixtureParameters(
        np.full(k, 1 / k),
        np.repeat(X.mean().to_numpy()[None], k, axis=0),
        np.repeat(np.linalg.cholesky(X.cov().to_numpy())[None], k, axis=0),
    )
    return gb.fit_em(X, k, init=start)


def test_a_likelihood_that_falls_is_searched_again_from_splits(faithful):
    two, three = Candidate(2, "full"), Candidate(3, "full")
    fits = {three: poor(faithful, 3), two: gb.fit_em(faithful, 2)}
    assert still_falling(fits) == [three]
    found = risen(fits[two].table, fits)
    assert list(found) == [three, two]
    assert found[two] is fits[two]
    assert found[three].log_likelihood > fits[two].log_likelihood
    assert found[three].n_starts == fits[three].n_starts + 2
    assert still_falling(found) == []
    # Without its neighbour there is nothing to compare with.
    assert still_falling({three: fits[three]}) == []


def test_a_likelihood_that_stays_low_is_told(faithful, monkeypatch):
    monkeypatch.setattr("gmm_bayes.checking.comparison.risen", lambda table, fits: fits)
    monkeypatch.setattr(
        "gmm_bayes.checking.comparison._best_fit",
        lambda table, candidate, *rest: (
            poor(faithful, 3) if candidate.n_components == 3 else gb.fit_em(faithful, 2)
        ),
    )
    with pytest.warns(gb.errors.DataWarning, match="with 3 full the likelihood is lower than"):
        gb.compare_n_components(faithful, (2, 3), criteria=("bic",))


def test_crabs_rise_with_every_component():
    """Ten starts of k-means fell from -1295 at three to -1311 at four."""
    found = gb.compare_n_components(gb.datasets.load_crabs(), range(2, 5), criteria=("bic",))
    heights = found.table["log_likelihood"].to_numpy()
    np.testing.assert_allclose(heights, [-1354.16, -1281.28, -1223.69], atol=0.05)
