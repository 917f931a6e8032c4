"""BayesianGMM: scikit-learn's own checks, its GaussianMixture's answers, and a posterior."""

import copy
import json
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from hostile import raises_exactly, table
from scipy.optimize import linear_sum_assignment
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.estimator_checks import parametrize_with_checks

import gmm_bayes as gb
from gmm_bayes._vocabulary import COMPONENT, POSTERIOR
from gmm_bayes.inference.verdict.measures import labels_switched

METHODS = ("predict", "predict_proba", "score_samples", "score", "aic", "bic")
# Steps to the optimum itself, without a floor, so that two programs can be compared there.
EXACT = {"tol": 1e-11, "reg_covar": 1e-10, "max_iter": 5000, "n_init": 3, "random_state": 0}


def em(n_components=2, **options):
    return gb.BayesianGMM(n_components, engine="em", **{"n_init": 3, "random_state": 0, **options})


@pytest.fixture(scope="module")
def em_model(faithful):
    return em().fit(faithful)


@pytest.fixture(scope="module")
def nuts_model(faithful):
    sampler = gb.NUTS(num_samples=500)
    return gb.BayesianGMM(2, sampler=sampler, n_init=3, random_state=3).fit(faithful)


@pytest.fixture(scope="module")
def wide_model(faithful, nuts_model):
    """The posterior from 23 rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gb.errors.GMMBayesWarning)
        return clone(nuts_model).fit(faithful[::12])


def plug_in(model, X):
    """Weight times density of every component at the attributes of a fitted model, shape (N, K)."""
    parts = zip(model.weights_, model.means_, model.covariances_, strict=True)
    return np.stack([w * multivariate_normal(m, c).pdf(X) for w, m, c in parts], axis=1)


# -- scikit-learn's own checks --------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::gmm_bayes.errors.DataWarning")
@parametrize_with_checks(
    [em(1, n_init=1), em(2, n_init=2, covariance_type="tied", warm_start=True)],
    # As of scikit-learn's own KMeans: starts picked among other rows may end in another maximum.
    expected_failed_checks=lambda model: (
        {"check_sample_weight_equivalence_on_dense_data": "two starts of EM"}
        if model.n_components > 1
        else {}
    ),
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::gmm_bayes.errors.GMMBayesWarning")
@parametrize_with_checks(
    [
        gb.BayesianGMM(
            sampler=gb.NUTS(num_warmup=30, num_samples=30, num_chains=1, preconditioning="laplace"),
            n_init=1,
        )
    ]
)
def test_scikit_learn_checks_of_draws(estimator, check):
    check(estimator)


# -- as a step before others, and with weights ----------------------------------------------------


def test_transform_is_responsibilities_with_names(faithful, em_model):
    new = em_model.transform(faithful[:7])
    np.testing.assert_array_equal(new, em_model.predict_proba(faithful[:7]))
    names = ["bayesiangmm0", "bayesiangmm1"]
    assert em_model.get_feature_names_out().tolist() == names
    model = em(n_init=1, init_params="kmeans").set_output(transform="pandas")
    frame = model.fit_transform(faithful)
    assert list(frame) == names
    assert frame.index.equals(faithful.index)
    np.testing.assert_allclose(frame.sum(axis=1), 1)


def test_weights_of_rows_are_those_of_fit_em(faithful):
    counts = np.random.default_rng(0).integers(0, 3, len(faithful))
    options = {"n_init": 1, "init_params": "kmeans", "tol": 1e-10}
    model = em(**options).fit(faithful, sample_weight=counts)
    again = em(**options).fit(faithful.iloc[np.repeat(np.arange(len(faithful)), counts)])
    np.testing.assert_allclose(model.means_, again.means_, rtol=1e-4)
    np.testing.assert_allclose(model.weights_, again.weights_, rtol=1e-4)
    assert model.lower_bound_ == pytest.approx(again.lower_bound_, abs=1e-6)
    assert abs(model.means_ - em(**options).fit(faithful).means_).max() > 1e-3


def test_weights_are_for_em():
    message = (
        "sample_weight must be None for engine='nuts', which counts every row once; take "
        "engine='em', or leave it out"
    )
    with raises_exactly(TypeError, message):
        gb.BayesianGMM(2).fit(np.eye(4), sample_weight=np.ones(4))


CODES = {
    "booleans": np.array([[True, False], [False, True], [True, True]]),
    "one boolean": [[True, 2.0], [1.0, 3.5], [2.0, 4.0]],
    "a boolean column": pd.DataFrame({"a": [True, False, True], "b": [1.0, 2.0, 4.0]}),
    "categories": pd.DataFrame({"a": pd.Categorical([1, 2, 1]), "b": [1.0, 2.0, 4.0]}),
    "text": np.array([["1", "2"], ["3", "4"], ["5", "7"]]),
    "text in a list": [["1", "2"], ["3", "4"], ["5", "7"]],
    "a text column": pd.DataFrame({"a": ["1", "2", "4"], "b": [1.0, 2.0, 4.0]}),
    "text among objects": np.array([["1", 2.0], [3, 4], [5, 7]], dtype=object),
    "dates": np.array([["2020-01-01"], ["2020-01-02"], ["2020-01-07"]], dtype="M8[D]"),
}


@pytest.mark.parametrize("X", CODES.values(), ids=CODES)
def test_codes_are_refused_as_fit_refuses_them(X, em_model):
    with pytest.raises(TypeError) as wanted:
        gb.fit_em(X, 1)
    for ask in (em(1).fit, em_model.predict):
        with raises_exactly(TypeError, str(wanted.value)):
            ask(X)


# -- in place of GaussianMixture ------------------------------------------------------------------


def matched(ours, theirs):
    """Order of our components that is theirs."""
    distance = np.linalg.norm(ours.means_[None] - theirs.means_[:, None], axis=-1)
    return linear_sum_assignment(distance)[1]


def test_the_same_optimum(faithful, covariance_type):
    X = faithful.to_numpy()
    ours = em(covariance_type=covariance_type, **EXACT).fit(X)
    theirs = GaussianMixture(2, covariance_type=covariance_type, **EXACT).fit(X)
    assert ours.converged_
    assert theirs.converged_
    order = matched(ours, theirs)
    np.testing.assert_array_equal(order[theirs.predict(X)], ours.predict(X))
    np.testing.assert_allclose(ours.predict_proba(X)[:, order], theirs.predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), atol=1e-5)
    assert ours.score(X) == pytest.approx(theirs.score(X), abs=1e-6)
    assert ours.lower_bound_ == pytest.approx(theirs.lower_bound_, abs=1e-6)
    assert ours.aic(X) == pytest.approx(theirs.aic(X), abs=1e-3)
    assert ours.bic(X) == pytest.approx(theirs.bic(X), abs=1e-3)
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        a, b = getattr(ours, name), getattr(theirs, name)
        assert a.shape == b.shape
        shared = covariance_type == "tied" and name not in ("weights_", "means_")
        np.testing.assert_allclose(a if shared else a[order], b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_shapes_of_one_feature(faithful, covariance_type):
    X = faithful[["waiting"]].to_numpy()
    ours = em(covariance_type=covariance_type).fit(X)
    theirs = GaussianMixture(2, covariance_type=covariance_type).fit(X)
    for name in ("means_", "covariances_", "precisions_", "precisions_cholesky_"):
        assert getattr(ours, name).shape == getattr(theirs, name).shape


def test_in_a_pipeline_and_a_search(faithful):
    X = faithful.to_numpy()
    results = []
    for model in (em(**EXACT), GaussianMixture(2, **EXACT)):
        pipeline = Pipeline([("scale", StandardScaler()), ("mixture", model)])
        labels = pipeline.fit_predict(X)
        search = GridSearchCV(pipeline, {"mixture__n_components": [1, 2]}, cv=2).fit(X)
        results.append(
            [
                pipeline.score(X),
                search.best_params_["mixture__n_components"],
                *search.cv_results_["mean_test_score"],
                *cross_val_score(pipeline, X, cv=2),
                min(np.mean(labels), 1 - np.mean(labels)),
            ]
        )
    np.testing.assert_allclose(*results, rtol=1e-5)


def test_copies_and_files_predict_the_same(faithful, em_model, nuts_model, tmp_path):
    for model in (em_model, nuts_model):
        expected = model.predict_proba(faithful)
        joblib.dump(model, tmp_path / "model.joblib")
        for again in (
            pickle.loads(pickle.dumps(model)),
            joblib.load(tmp_path / "model.joblib"),
        ):
            np.testing.assert_array_equal(again.predict_proba(faithful), expected)
            assert again.sample(5)[0].tolist() == model.sample(5)[0].tolist()
        unfitted = clone(model)
        assert unfitted.get_params() == model.get_params()
        assert not hasattr(unfitted, "fit_")
        assert "BayesianGMM" in unfitted._repr_html_()
        assert "BayesianGMM" in model._repr_html_()
    # ArviZ's view of the draws, once made, is no obstacle.
    assert nuts_model.fit_.idata is not None
    assert pickle.loads(pickle.dumps(nuts_model)).fit_ == nuts_model.fit_


def test_a_start_of_ones_own_survives_a_clone(faithful, em_model):
    start = em_model.fit_.parameters
    model = clone(em(init_params=start)).fit(faithful)
    assert model.n_iter_ < em_model.n_iter_
    assert model.score(faithful) == pytest.approx(em_model.score(faithful), abs=1e-5)


# -- what scikit-learn tests of its own mixture ---------------------------------------------------


@pytest.mark.parametrize("method", [*METHODS, "sample"])
def test_not_fitted(faithful, method):
    arguments = () if method == "sample" else (faithful,)
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(em(), method)(*arguments)


@pytest.mark.parametrize("engine", ["em", "nuts"])
def test_methods_agree_with_each_other(faithful, em_model, nuts_model, engine):
    model = em_model if engine == "em" else nuts_model
    shares = model.predict_proba(faithful)
    assert shares.shape == (272, 2)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(model.predict(faithful), shares.argmax(axis=1))
    scores = model.score_samples(faithful)
    assert scores.shape == (272,)
    assert model.score(faithful) == pytest.approx(scores.mean(), rel=1e-12)
    assert model.lower_bound_ == pytest.approx(scores.mean(), rel=1e-9)
    assert model.n_features_in_ == 2
    assert isinstance(model.n_iter_, int)
    assert isinstance(model.converged_, bool)
    log_likelihood = np.log(plug_in(model, faithful).sum(axis=1)).sum()
    assert model.aic(faithful) == pytest.approx(2 * 11 - 2 * log_likelihood, rel=1e-9)
    assert model.bic(faithful) == pytest.approx(11 * np.log(272) - 2 * log_likelihood, rel=1e-9)
    for part in ("weights_", "means_", "covariances_"):
        assert getattr(model, part).dtype == np.float64
    np.testing.assert_allclose(model.weights_.sum(), 1)
    factors = model.precisions_cholesky_
    identity = np.broadcast_to(np.eye(2), (2, 2, 2))
    np.testing.assert_allclose(model.precisions_ @ model.covariances_, identity, atol=1e-9)
    np.testing.assert_allclose(factors @ factors.swapaxes(1, 2), model.precisions_)
    np.testing.assert_array_equal(factors, np.triu(factors))


def test_fit_predict_is_fit_then_predict(faithful):
    for options in ({}, {"max_iter": 1}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            labels = em(**options).fit_predict(faithful)
            np.testing.assert_array_equal(labels, em(**options).fit(faithful).predict(faithful))


def test_a_change_of_units_changes_nothing_else(faithful, em_model):
    moved = faithful.to_numpy() * [1e-6, 1e3] + [1e-3, -1e6]
    model = em().fit(moved)
    np.testing.assert_array_equal(model.predict(moved), em_model.predict(faithful))
    shift = np.log(1e-6 * 1e3)
    assert model.score(moved) == pytest.approx(em_model.score(faithful) - shift, abs=1e-6)


def test_more_components_do_not_lower_the_likelihood(faithful, em_model):
    heights = [em(k).fit(faithful).lower_bound_ for k in (1, 2, 3)]
    assert heights == sorted(heights)
    assert heights[1] == pytest.approx(em_model.lower_bound_)
    assert (np.diff(em_model.fit_.trace) > -1e-9).all()


def test_more_starts_are_no_worse(faithful):
    one, many = (em(3, n_init=n, init_params="random").fit(faithful) for n in (1, 8))
    assert many.lower_bound_ >= one.lower_bound_ - 1e-6


def test_one_group_a_row():
    X = np.random.default_rng(0).normal(size=(8, 2))
    with pytest.warns(gb.errors.DataWarning):
        labels = em(8, n_init=2).fit(X).predict(X)
    assert sorted(labels) == list(range(8))


def test_random_state(faithful):
    def means(random_state):
        return em(3, n_init=1, init_params="random", random_state=random_state).fit(faithful).means_

    np.testing.assert_array_equal(means(5), means(5))
    np.testing.assert_array_equal(means(np.random.RandomState(5)), means(5))
    stream = np.random.RandomState(5)
    first, second = means(stream), means(stream)
    np.testing.assert_array_equal(first, means(5))
    assert not np.array_equal(first, second)


def test_rows_far_away(faithful, em_model, nuts_model):
    far = pd.DataFrame([[1e6, 0], [0, -1e6], [1e100, 1e100]], columns=faithful.columns)
    for model in (em_model, nuts_model):
        np.testing.assert_allclose(model.predict_proba(far).sum(axis=1), 1)
        assert np.isfinite(model.score_samples(far)).all()
        assert model.score_samples(far).max() < -1e6


def test_names_of_columns(faithful, em_model):
    assert list(em_model.feature_names_in_) == ["eruptions", "waiting"]
    assert em_model.fit_.feature_names == ("eruptions", "waiting")
    with pytest.raises(ValueError, match="must be in the same order as they were in fit"):
        em_model.predict(faithful[["waiting", "eruptions"]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        np.testing.assert_array_equal(
            em_model.predict(faithful.to_numpy()), em_model.predict(faithful)
        )
    with pytest.raises(ValueError, match="should match those that were passed during fit"):
        em_model.predict(faithful[["eruptions"]])
    labelled = faithful.set_axis([f"eruption {i}" for i in range(272)])
    model = em().fit(labelled)
    assert model.fit_.responsibilities.coords["obs"].values[-1] == "eruption 271"
    model.fit(faithful.to_numpy())
    assert not hasattr(model, "feature_names_in_")
    with pytest.raises(ValueError, match="X has 1 features, but BayesianGMM is expecting 2"):
        model.predict(faithful.to_numpy()[:, :1])


def test_polars(faithful, em_model):
    X = pytest.importorskip("polars").DataFrame(faithful.to_dict("list"))
    model = em().fit(X)
    assert list(model.feature_names_in_) == ["eruptions", "waiting"]
    np.testing.assert_array_equal(model.predict(X), em_model.predict(faithful))


def test_em_says_when_it_has_not_converged(faithful):
    with pytest.warns(ConvergenceWarning, match="EM did not converge in 1 iterations"):
        model = em(max_iter=1).fit(faithful)
    assert not model.converged_
    assert model.n_iter_ == 1


def test_warm_start_goes_on_to_the_same_optimum(faithful, em_model):
    model = em(warm_start=True, max_iter=3, tol=1e-9)
    heights = []
    for _ in range(30):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            heights.append(model.fit(faithful).lower_bound_)
        if model.converged_:
            break
    assert model.converged_
    assert len(heights) > 1
    assert (np.diff(heights) > -1e-9).all()
    assert heights[-1] == pytest.approx(em_model.lower_bound_, abs=1e-4)
    with raises_exactly(
        ValueError,
        "warm_start=True goes on from the last solution, which has 2 components over 2 columns, "
        "and not 3 over 2; set warm_start=False to begin anew",
    ):
        model.set_params(n_components=3).fit(faithful)


@pytest.mark.parametrize("engine", ["em", "nuts"])
def test_sampled_rows_have_the_moments(em_model, wide_model, engine):
    model = em_model if engine == "em" else wide_model
    X, y = model.sample(100_000)
    assert X.shape == (100_000, 2)
    assert (np.diff(y) >= 0).all()
    np.testing.assert_allclose(np.bincount(y) / len(y), model.weights_, atol=0.01)
    draws = model._draws()
    for k in range(2):
        # Of a draw in which the component is large, more rows are its.
        share = draws.weights[:, k] / draws.weights[:, k].sum()
        mean = share @ draws.means[:, k]
        away = draws.means[:, k] - mean
        covariance = np.einsum("s,sde->de", share, draws.covariances[:, k])
        between = np.einsum("s,sd,se->de", share, away, away)
        assert engine == "em" or (np.diag(between) > 0.05 * np.diag(covariance)).all()
        np.testing.assert_allclose(X[y == k].mean(axis=0), mean, rtol=0.01)
        expected = covariance + between
        # Five standard errors of a normal sample's covariance, and some for the mixture over draws.
        variances = np.diag(expected)
        error = np.sqrt((np.outer(variances, variances) + expected**2) / np.sum(y == k))
        assert (abs(np.cov(X[y == k].T) - expected) < 6 * error).all()


def test_sampling_follows_the_random_state(em_model):
    np.testing.assert_array_equal(em_model.sample(7)[0], em_model.sample(7)[0])
    other = copy.copy(em_model).set_params(random_state=1)
    assert not np.array_equal(other.sample(7)[0], em_model.sample(7)[0])
    one, label = em_model.sample()
    assert (one.shape, label.shape) == ((1, 2), (1,))
    with raises_exactly(ValueError, "n_samples must be at least 1, got 0"):
        em_model.sample(0)


ONE_KIND = "sampler must be a gmm_bayes.{}(...) for engine='{}', got {!r}"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    table(
        {
            "engine": (
                {"engine": "nut"},
                ValueError,
                "engine must be one of nuts, laplace, em, got 'nut'; did you mean 'nuts'?",
            ),
            "sampler for em": (
                {"engine": "em", "sampler": gb.Laplace()},
                TypeError,
                "engine='em' takes no sampler, got Laplace(num_samples=1000); leave it out",
            ),
            "another sampler": (
                {"sampler": gb.Laplace()},
                TypeError,
                ONE_KIND.format("NUTS", "nuts", gb.Laplace()),
            ),
            "no sampler": (
                {"engine": "laplace", "sampler": "nuts"},
                TypeError,
                ONE_KIND.format("Laplace", "laplace", "nuts"),
            ),
            "priors": (
                {"priors": 1},
                TypeError,
                "priors must be a gmm_bayes.Priors, got int",
            ),
            "covariance type": (
                {"engine": "em", "covariance_type": "ful"},
                ValueError,
                "covariance_type must be one of full, tied, diag, spherical, got 'ful'; "
                "did you mean 'full'?",
            ),
            "no components": (
                {"n_components": 0},
                ValueError,
                "n_components must be at least 1, got 0",
            ),
            "half a component": (
                {"engine": "em", "n_components": 1.5},
                TypeError,
                "n_components must be an integer of at least 1, got 1.5 of type float",
            ),
            "iterations": (
                {"engine": "em", "max_iter": 0},
                ValueError,
                "max_iter must be at least 1, got 0",
            ),
            "tolerance": (
                {"engine": "em", "tol": -1.0},
                ValueError,
                "tol must be finite and at least 0, got -1.0",
            ),
            "starts": ({"n_init": 0}, ValueError, "n_init must be at least 1, got 0"),
            "kind of start": (
                {"init_params": "kmean"},
                ValueError,
                "init must be one of auto, kmeans, k-means++, random, random_from_data, "
                "got 'kmean'; did you mean 'kmeans' or 'k-means++'?",
            ),
            "random state": (
                {"random_state": "seven"},
                ValueError,
                "'seven' cannot be used to seed a numpy.random.RandomState instance",
            ),
        }
    ),
)
def test_wrong_options(faithful, options, error, message):
    model = gb.BayesianGMM(**{"n_components": 2, **options})
    with raises_exactly(error, message):
        model.fit(faithful)


@pytest.mark.parametrize("engine", ["em", "nuts"])
@pytest.mark.parametrize(
    ("X", "message"),
    table(
        {
            "missing": ([[1.0, np.nan], [2.0, 1.0]], "Input X contains NaN"),
            "one row": ([[1.0, 2.0]], r"1 sample\(s\)"),
            "a line": ([1.0, 2.0, 3.0], "Expected 2D array, got 1D array instead"),
            "constant": ([[1.0, 2.0], [1.0, 3.0], [1.0, 4.0]], "column 'x0' is constant"),
            "few rows": ([[1.0, 2.0], [3.0, 3.0]], "at most the number of rows"),
            "few rows that differ": ([[1.0, 2.0], [3.0, 3.0]] * 2, "number of distinct rows"),
        }
    ),
)
def test_wrong_data(engine, X, message):
    with pytest.raises(ValueError, match=message):
        gb.BayesianGMM(3, engine=engine).fit(X)


# -- the posterior --------------------------------------------------------------------------------


def test_attributes_are_posterior_means(faithful, nuts_model):
    posterior = nuts_model.fit_.posterior
    for name in ("weights", "means", "covariances"):
        expected = posterior[name].mean(("chain", "draw"))
        np.testing.assert_allclose(getattr(nuts_model, f"{name}_"), expected)
    assert nuts_model.converged_
    assert nuts_model.n_iter_ == nuts_model.fit_.run["n_gradients"]
    np.testing.assert_array_equal(
        nuts_model.predict_proba(faithful), gb.responsibilities(nuts_model.fit_, faithful)
    )
    np.testing.assert_array_equal(
        nuts_model.score_samples(faithful), gb.log_predictive_density(nuts_model.fit_, faithful)
    )


def test_the_seed_and_the_names_reach_the_fit(nuts_model):
    seed = int(check_random_state(3).randint(2**32, dtype=np.uint64))
    assert nuts_model.fit_.seed == [seed]
    assert nuts_model.fit_.feature_names == ("eruptions", "waiting")


def test_the_posterior_is_less_sure_where_rows_are_few(faithful, nuts_model, wide_model):
    first, second = nuts_model.means_
    between = first + np.linspace(0.2, 0.8, 13)[:, None] * (second - first)
    surer, off = [], []
    for model in (wide_model, nuts_model):
        parts = plug_in(model, between)
        certainty = (parts.max(axis=1) / parts.sum(axis=1)).mean()
        rows = pd.DataFrame(between, columns=faithful.columns)
        surer.append(certainty - model.predict_proba(rows).max(axis=1).mean())
        density = np.log(plug_in(model, faithful).sum(axis=1))
        off.append(abs(model.score_samples(faithful) - density).max())
    assert surer[0] > 0.03
    assert off[0] > 1
    assert abs(surer[1]) < surer[0] / 3
    assert off[1] < off[0] / 5


def switched(fit):
    """The same fit, its components in the other order in every other draw."""
    datasets = {name: node.to_dataset() for name, node in fit.datatree.children.items()}
    posterior = datasets[POSTERIOR]
    other = posterior.isel({COMPONENT: [1, 0]}).assign_coords(posterior.coords)
    every_other = posterior["draw"] % 2 == 0
    datasets[POSTERIOR] = posterior.map(
        lambda v: v.where(every_other, other[v.name]) if COMPONENT in v.dims else v
    )
    result = fit
    for name, dataset in datasets.items():
        result = result.with_group(name, dataset)
    return result


def given(monkeypatch, fit):
    """Have the estimator find this fit; return the options that it asks with."""
    asked = {}

    def found(X, n_components, **options):
        asked.update(options, X=X, n_components=n_components)
        return fit

    monkeypatch.setattr("gmm_bayes.estimator.sample_posterior", found)
    return asked


def test_switched_labels_are_put_right(faithful, nuts_model, monkeypatch):
    fit = switched(nuts_model.fit_)
    assert labels_switched(fit)
    with pytest.raises(gb.errors.LabelSwitchingError):
        gb.responsibilities(fit)
    given(monkeypatch, fit)
    model = gb.BayesianGMM(2, random_state=0).fit(faithful)
    expected = gb.responsibilities(nuts_model.fit_).values
    means = nuts_model.fit_.posterior["means"].mean(("chain", "draw")).values
    order = [int(abs(model.means_ - mean).sum(axis=1).argmin()) for mean in means]
    assert sorted(order) == [0, 1]
    np.testing.assert_allclose(model.predict_proba(faithful)[:, order], expected, rtol=1e-9)
    for name in ("weights", "means", "covariances"):
        average = nuts_model.fit_.posterior[name].mean(("chain", "draw"))
        np.testing.assert_allclose(getattr(model, f"{name}_")[order], average, rtol=1e-9)
    X, y = model.sample(4000)
    for k in range(2):
        np.testing.assert_allclose(X[y == k].mean(axis=0), model.means_[k], rtol=0.03)


def test_options_go_to_the_fit(faithful, nuts_model, monkeypatch):
    asked = given(monkeypatch, nuts_model.fit_)
    priors = gb.default_priors(faithful, 2)
    options = {"priors": priors, "n_init": 4, "init_params": "random", "device": "cpu"}
    model = gb.BayesianGMM(2, covariance_type="full", verbose=1, warm_start=True, **options)
    model.fit(faithful)
    assert asked["sampler"] == gb.NUTS()
    assert asked["priors"] is priors
    assert asked["progress"] is True
    assert asked["n_components"] == 2
    assert asked["covariance_type"] == "full"
    assert (asked["n_init"], asked["init"], asked["device"]) == (4, "random", "cpu")
    pd.testing.assert_frame_equal(asked["X"], faithful.astype(float))
    # A second fit begins where the first one ended.
    model.set_params(engine="laplace", verbose=0).fit(faithful)
    assert asked["sampler"] == gb.Laplace()
    assert asked["progress"] is False
    np.testing.assert_array_equal(asked["init"].means, model.means_)
    np.testing.assert_allclose(asked["init"].covariances, model.covariances_)


def test_the_verdict_of_the_fit_is_converged(faithful, nuts_model, monkeypatch):
    fit = gb.GMMFit(nuts_model.fit_.datatree.copy())
    fit.datatree.attrs["problems"] = json.dumps(["R-hat is 1.2"])
    given(monkeypatch, fit)
    assert gb.BayesianGMM(2).fit(faithful).converged_ is False


def test_laplace(faithful, nuts_model):
    model = gb.BayesianGMM(2, engine="laplace", sampler=gb.Laplace(300), random_state=3)
    model.fit(faithful)
    assert model.n_iter_ == 1200
    np.testing.assert_allclose(model.means_, nuts_model.means_, rtol=0.02)
    assert model.score(faithful) == pytest.approx(nuts_model.score(faithful), abs=0.01)
    np.testing.assert_array_equal(model.predict(faithful), nuts_model.predict(faithful))
