"""Maximum likelihood: the known maxima, scikit-learn's numbers, many starts, and hostile inputs."""

import dataclasses
import pickle
import warnings
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pandas as pd
import pytest
from compilations import count_compilations
from hostile import raises_exactly, table, two_groups
from scipy.stats import multivariate_normal
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

import gmm_bayes as gb
from gmm_bayes._validation import check_data
from gmm_bayes._vocabulary import INIT_METHODS
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.core.likelihood import block_rows
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.errors import DataWarning, InferenceError
from gmm_bayes.inference.em import starts as initialization
from gmm_bayes.inference.em.degenerate import REASONS, singular_advice
from gmm_bayes.inference.em.guesses import KINDS, Rows, guesses, named_kinds
from gmm_bayes.inference.em.steps import VARIANCE_FLOOR, e_step, hard_moments, maximise
from gmm_bayes.inference.fit import _check_size as check_size
from gmm_bayes.inference.potential import ModelSpec
from gmm_bayes.inference.rows.standardization import Standardization

# Programs are compiled for a number of iterations too, so most tests share this one.
ITERATIONS = 40
BUNDLED = {
    "old faithful": (gb.datasets.load_old_faithful, 2),
    "galaxies": (gb.datasets.load_galaxies, 3),
    "iris": (gb.datasets.load_iris, 3),
}


def standard(load):
    """Columns of mean zero and spread one, where reg_covar means the same to scikit-learn."""
    X = load().to_numpy(dtype=float)
    return (X - X.mean(axis=0)) / X.std(axis=0)


def start_for(X, n_components, covariance_type):
    """A start: uneven weights, rows as means, unequal covariances in scikit-learn's shape."""
    n_features = X.shape[1]
    weights = np.arange(1.0, n_components + 1) / np.arange(1, n_components + 1).sum()
    means = X[np.linspace(0, len(X) - 1, n_components).astype(int)]
    pooled = np.cov(X.T).reshape(n_features, n_features)
    dense = pooled * np.linspace(0.3, 0.6, n_components)[:, None, None]
    structure = COVARIANCE_STRUCTURES[covariance_type]
    dense = structure.pooled(dense, weights)
    return weights, means, structure.covariances(*structure.sites(dense))


def precisions(covariances, covariance_type):
    return np.linalg.inv(covariances) if covariance_type in ("full", "tied") else 1 / covariances


@cache
def both(name, covariance_type):
    """Our fit and scikit-learn's after the same number of iterations from one start."""
    load, k = BUNDLED[name]
    X = standard(load)
    weights, means, covariances = start_for(X, k, covariance_type)
    theirs = GaussianMixture(
        k,
        covariance_type=covariance_type,
        tol=0,
        max_iter=ITERATIONS,
        reg_covar=1e-6,
        weights_init=weights,
        means_init=means,
        precisions_init=precisions(covariances, covariance_type),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        theirs.fit(X)
    start = MixtureParameters.from_covariances(weights, means, covariances, covariance_type)
    options = {"covariance_type": covariance_type, "tol": 0, "max_iter": ITERATIONS}
    options["reg_covar"] = 1e-6
    return X, gb.fit_em(X, k, init=start, **options), theirs


@cache
def best(load, k, **options):
    return gb.fit_em(load(), k, **options)


def close(ours, theirs, **tolerance):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


# -- the right answer -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("load", "k", "expected"),
    [
        (gb.datasets.load_old_faithful, 1, -1289.797),
        (gb.datasets.load_old_faithful, 2, -1130.264),
        (gb.datasets.load_iris, 1, -379.915),
        (gb.datasets.load_iris, 2, -214.355),
        (gb.datasets.load_iris, 3, -180.186),
    ],
)
def test_known_maxima(load, k, expected):
    """mclust 6.1.3's."""
    fit = best(load, k)
    assert fit.log_likelihood > expected - 0.01
    assert fit.converged
    assert not fit.singular
    rows = fit.score_samples()
    assert rows.sum() == pytest.approx(fit.log_likelihood, rel=1e-10)
    assert fit.trace[-1] == pytest.approx(fit.log_likelihood, rel=1e-12)


@pytest.mark.parametrize("name", BUNDLED)
def test_it_is_scikit_learns_em(name, covariance_type):
    """Every row's density, the responsibilities, the parameters and the criteria."""
    X, ours, theirs = both(name, covariance_type)
    np.testing.assert_allclose(ours.score_samples(), theirs.score_samples(X), rtol=0, atol=1e-8)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=0, atol=1e-8)
    ours_parameters = (ours.weights, ours.means, ours.covariances)
    close(ours_parameters, (theirs.weights_, theirs.means_, theirs.covariances_), atol=1e-8)
    assert ours.log_likelihood == pytest.approx(theirs.score_samples(X).sum(), abs=1e-6)
    assert ours.n_parameters == theirs._n_parameters()
    assert ours.aic == pytest.approx(theirs.aic(X), abs=1e-6)
    assert ours.bic == pytest.approx(theirs.bic(X), abs=1e-6)
    icl = theirs.bic(X) - 2 * np.log(theirs.predict_proba(X).max(axis=1)).sum()
    assert ours.icl == pytest.approx(icl, abs=1e-6)


@pytest.mark.parametrize(
    ("factor", "shift"), [(1e12, 0.0), (1e-12, 0.0), (np.array([1e-9, 1e9]), 0.0), (1.0, 1e6)]
)
def test_units_change_only_the_units(faithful, factor, shift, covariance_type):
    if covariance_type == "spherical" and np.ndim(factor):
        factor = 1e3  # one variance for both columns depends on their units
    options = {"covariance_type": covariance_type, "n_init": 2}
    plain = best(gb.datasets.load_old_faithful, 2, **options)
    other = gb.fit_em(faithful * factor + shift, 2, **options)
    np.testing.assert_array_equal(other.labels, plain.labels)
    log_volume = len(faithful) * np.sum(np.broadcast_to(np.log(factor), 2))
    assert other.log_likelihood == pytest.approx(plain.log_likelihood - log_volume, abs=1e-4)
    scale = np.broadcast_to(factor, 2)
    covariances = plain.parameters.covariances * np.multiply.outer(scale, scale)
    np.testing.assert_allclose(other.weights, plain.weights, rtol=1e-5)
    np.testing.assert_allclose(other.means, plain.means * scale + shift, rtol=1e-6)
    np.testing.assert_allclose(other.parameters.covariances, covariances, rtol=1e-4)


# -- iterations and starts ------------------------------------------------------------------------


def test_the_likelihood_never_falls():
    for name in BUNDLED:
        fit = best(*BUNDLED[name])
        # What is added to every variance costs a little.
        assert np.diff(fit.trace).min(initial=0) > -1e-6 * fit.n_obs
        assert np.isfinite(fit.trace).all()
        assert fit.n_iter == len(fit.trace) == fit.starts["n_iter"][0]


def test_too_few_iterations_are_not_convergence(faithful):
    fit = gb.fit_em(faithful, 2, max_iter=3, tol=0)
    assert (fit.converged, fit.n_iter) == (False, 3)
    assert not fit.starts["converged"].any()
    assert "NOT converged after 3 iterations" in repr(fit)


def test_starts_are_told_best_first():
    fit = best(gb.datasets.load_iris, 3, init="kmeans")
    starts = fit.starts
    assert list(starts.columns) == [
        "init",
        "n_starts",
        "log_likelihood_per_row",
        "n_iter",
        "converged",
        "singular",
    ]
    regular = starts[~starts["singular"]]["log_likelihood_per_row"]
    assert len(starts) == 10
    assert starts["singular"].is_monotonic_increasing
    assert regular.is_monotonic_decreasing
    assert regular[0] == pytest.approx(fit.log_likelihood / 150, rel=1e-12)
    assert starts["init"].value_counts().to_dict() == {"kmeans": 5, "random_from_data": 5}


@pytest.mark.usefixtures("double")
def test_a_start_is_the_same_alone_and_among_others():
    """One that has ended stays as it is while others go on."""
    X = standard(gb.datasets.load_iris)
    moments = guesses(Rows.of(X), 3, named_kinds("kmeans", 10), seed=0)
    rest = (block_rows(X), 1e-3 * len(X), VARIANCE_FLOOR, 500)
    spec = {"spec": ModelSpec(3, "full"), "max_iter": 500}
    together = maximise(moments, *rest, **spec)
    assert len(set(np.asarray(together.n_iter))) > 3, "else nothing was frozen"
    for i in range(0, 10, 3):
        alone = maximise(moments[i : i + 1], *rest, **spec)
        assert int(alone.n_iter[0]) == int(together.n_iter[i])
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(a[0], b[i], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("init", ["k-means++", "random", "random_from_data"])
def test_other_starts_find_the_same_maximum(init):
    fit = best(gb.datasets.load_old_faithful, 2, init=init)
    assert fit.log_likelihood == pytest.approx(-1130.264, abs=0.01)
    assert init in set(fit.starts["init"])
    assert (set(fit.starts["init"]) == {"random"}) == (init == "random")


def test_a_seed_is_repeatable_and_used():
    fits = [gb.fit_em(gb.datasets.load_iris(), 3, seed=seed) for seed in (5, 5, 6)]
    pd.testing.assert_frame_equal(fits[0].starts, fits[1].starts)
    close(fits[0].parameters, fits[1].parameters, rtol=0)
    assert not fits[0].starts.equals(fits[2].starts)


def test_a_start_that_is_the_maximum_stays_and_keeps_its_numbers(faithful):
    found = best(gb.datasets.load_old_faithful, 2)
    swapped = MixtureParameters(*(a[::-1] for a in found.parameters))
    again = gb.fit_em(faithful, 2, init=swapped)
    assert list(again.starts["init"]) == ["given"]
    close(again.parameters, swapped, rtol=1e-3)
    assert again.n_iter < 10
    # Found by ourselves, components are numbered by their means.
    assert (np.diff(found.means[:, 0]) > 0).all()


# -- weights --------------------------------------------------------------------------------------


def weighted_and_repeated(reg_covar):
    X = gb.datasets.load_old_faithful().to_numpy()
    counts = np.random.default_rng(0).integers(0, 4, len(X))
    # A start from which both end after as many iterations: at tol=0 rounding decides.
    near = best(gb.datasets.load_old_faithful, 2, reg_covar=1e-6).parameters
    start = near._replace(means=near.means + np.array([0.5, -5]))
    options = {"init": start, "tol": 0, "max_iter": ITERATIONS, "reg_covar": reg_covar}
    weighted = gb.fit_em(X, 2, sample_weight=counts, **options)
    return weighted, gb.fit_em(np.repeat(X, counts, axis=0), 2, **options), counts


@pytest.mark.parametrize("reg_covar", [0, 1e-6])
def test_a_weight_is_so_many_equal_rows(reg_covar):
    weighted, repeated, counts = weighted_and_repeated(reg_covar)
    close(weighted.parameters, repeated.parameters, rtol=1e-10, atol=1e-10)
    for name in ("log_likelihood", "aic", "bic", "icl"):
        assert getattr(weighted, name) == pytest.approx(getattr(repeated, name), rel=1e-10)
    assert weighted.n_obs == repeated.n_obs == counts.sum()
    shares = weighted.responsibilities.values
    assert shares.shape == (272, 2)
    np.testing.assert_allclose(
        np.repeat(shares, counts, axis=0), repeated.responsibilities.values, atol=1e-9
    )


def test_a_row_of_no_weight_to_speak_of_does_not_set_the_units():
    X = gb.datasets.load_iris().to_numpy()
    far = np.concatenate([X, np.full((1, 4), 1e7)])
    weights = np.r_[np.ones(150), 1e-20]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gb.errors.DataWarning)  # it is far, and that is said
        found = gb.fit_em(far, 2, n_init=4, sample_weight=weights)
    assert not found.singular
    assert found.log_likelihood == pytest.approx(-214.355, abs=0.01)


def test_groups_of_weighted_rows_are_groups_of_repeated_rows(faithful):
    """Where EM begins: the groups of a start, and shares of rows at random."""
    X = faithful.to_numpy()
    rng = np.random.default_rng(0)
    labels, counts = rng.integers(3, size=272), rng.integers(0, 4, 272)
    copies = np.repeat(np.arange(272), counts)
    weighted = hard_moments(X, labels, 3, counts)
    np.testing.assert_allclose(weighted, hard_moments(X[copies], labels[copies], 3), rtol=1e-12)
    for moments in guesses(Rows.of(X, counts.astype(float)), 3, KINDS, 0):
        assert moments[:, 0, 0].sum() == pytest.approx(counts.sum())
        np.testing.assert_allclose(moments.sum(axis=0), weighted.sum(axis=0), rtol=1e-12)


@pytest.mark.parametrize("init", INIT_METHODS)
def test_a_row_of_weight_zero_changes_nothing(faithful, init):
    """Not even the units, in which reg_covar is."""
    plain = gb.fit_em(faithful, 2, init=init, sample_weight=np.ones(272))
    wild = pd.DataFrame([[1e9, -1e9], [0.0, 0.0]], columns=faithful.columns, index=[-1, -2])
    X = pd.concat([wild, faithful])
    fit = gb.fit_em(X, 2, init=init, sample_weight=np.r_[0, 0, np.ones(272)])
    close(fit.parameters, plain.parameters, rtol=1e-12)
    pd.testing.assert_frame_equal(fit.starts, plain.starts)
    for name in ("log_likelihood", "bic", "icl"):
        assert getattr(fit, name) == pytest.approx(getattr(plain, name), rel=1e-12)
    assert fit.responsibilities.shape == (274, 2)
    np.testing.assert_array_equal(fit.labels[2:], plain.labels)


@pytest.mark.parametrize("unit", [1e-300, 1e-9, 1e300])
def test_only_proportions_of_weights_count_for_the_parameters(faithful, unit):
    weights = np.linspace(1, 3, 272)
    one = gb.fit_em(faithful, 2, sample_weight=weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # there are few rows then, and that is said
        other = gb.fit_em(faithful, 2, sample_weight=weights * unit)
    close(one.parameters, other.parameters, rtol=1e-6)
    assert other.log_likelihood / unit == pytest.approx(one.log_likelihood, rel=1e-9)
    assert other.trace[-1] / unit == pytest.approx(one.trace[-1], rel=1e-9)


def test_weights_that_sum_to_few_rows_are_said_to(faithful):
    """BIC's penalty would vanish without a word."""
    message = (
        "sample_weight sums to 1 for 80 rows. A weight says how often its row counts, so aic, bic "
        "and icl take these for 1 rows, and do not weigh fit against parameters as for 80; where "
        "only the proportions mean something, multiply by 80"
    )
    with pytest.warns(DataWarning) as caught:
        fit = gb.fit_em(faithful[:82], 1, sample_weight=np.r_[0, np.full(80, 1 / 80), 0])
    assert caught_here(caught) == [message]
    assert fit.bic == pytest.approx(-2 * fit.log_likelihood, rel=1e-6)
    gb.fit_em(faithful[:80], 1, sample_weight=np.full(80, 0.3))


@pytest.mark.parametrize("covariance_type", ["full", "diag"])
def test_columns_as_many_as_rows_are_said_in_the_words_of_what_is_fitted(covariance_type):
    """No prior in EM, and no correlations in a diagonal model."""
    X = np.random.default_rng(0).normal(size=(6, 6))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gb.fit_em(X, 1, covariance_type=covariance_type)
        gb.compare_n_components(X, (1,), covariance_types=(covariance_type,), criteria=("bic",))
    said = [str(w.message) for w in caught if "only 6 rows" in str(w.message)]
    words = (
        "X has 6 columns and only 6 rows: covariances between them have no maximum of the "
        "likelihood; take covariance_type='diag' or 'spherical'"
    )
    assert said == [words] * 2 * (covariance_type == "full")
    spec, sampled = ModelSpec(1, covariance_type), gb.Laplace()
    arguments = SimpleNamespace(spec=spec, sampler=sampled, table=check_data(X), n_obs=6, seen=None)
    cautions = check_size(arguments)
    expected = "X has 6 columns and only 6 rows: correlations between columns come from the prior"
    assert (expected in cautions) == (covariance_type == "full")


# -- singular solutions ---------------------------------------------------------------------------


def test_a_singular_solution_of_higher_likelihood_is_not_chosen():
    """iris with four components: one of them on a plane."""
    fit = best(gb.datasets.load_iris, 4, init="kmeans", n_init=30)
    higher = fit.starts[fit.starts["log_likelihood_per_row"] > fit.log_likelihood / 150 + 0.1]
    assert len(higher) >= 1
    assert higher["singular"].all()
    assert not fit.singular
    assert np.linalg.eigvalsh(fit.parameters.covariances).min() > 1e-5
    assert np.isfinite([fit.aic, fit.bic, fit.icl]).all()


NO_EXTENT = singular_advice(REASONS[1])
THREE_POINTS = np.repeat([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], 20, axis=0)
REPEATED = (
    "one row occurs 20 times in 60: a component may shrink onto it; leave out the copies, or add "
    "the noise that rounding took away"
)


def caught_here(caught):
    """Messages of data warnings that point at this file."""
    assert {Path(w.filename).name for w in caught} == {Path(__file__).name}
    assert {w.category for w in caught} == {DataWarning}
    return [str(w.message) for w in caught]


def test_where_there_are_only_singular_solutions_it_says_so():
    with pytest.warns(DataWarning) as caught:
        fit = gb.fit_em(THREE_POINTS, 3)
    # Between them are cautions of the two columns, which hold many zeros.
    said = caught_here(caught)[::3]
    assert said == [REPEATED, f"the best fit with 3 components {NO_EXTENT}"]
    assert fit.singular
    assert "caution: it has a component without extent" in repr(fit)
    for name in ("aic", "bic", "icl"):
        with pytest.warns(DataWarning) as caught:
            assert np.isfinite(getattr(fit, name))
        assert caught_here(caught) == [f"{name} of a fit with 3 components that {NO_EXTENT}"]


def test_without_a_floor_there_may_be_no_solution_at_all():
    message = (
        "no start of EM has a finite likelihood, because a covariance has no inverse; take a "
        "larger reg_covar than 0"
    )
    with pytest.warns(DataWarning), raises_exactly(InferenceError, message):
        gb.fit_em(THREE_POINTS, 3, reg_covar=0)


@pytest.mark.parametrize("reg_covar", [1e-6, 0.1])
def test_reg_covar_is_added_in_units_of_the_columns(faithful, reg_covar):
    X = faithful.to_numpy() * [1e5, 1e-5]
    fit = gb.fit_em(X, 1, reg_covar=reg_covar, n_init=1)
    expected = np.cov(X.T, bias=True) + reg_covar * np.diag(X.var(axis=0))
    np.testing.assert_allclose(fit.covariances[0], expected, rtol=1e-9)


# -- hard assignments -----------------------------------------------------------------------------


def balls(centres, scale):
    """Equal weights and equal spherical covariances around centres."""
    k = len(centres)
    covariances = np.full(k, scale**2)
    return MixtureParameters.from_covariances(np.full(k, 1 / k), centres, covariances, "spherical")


def lloyd(X, centres):
    """k-means by iterations of hard EM between which weights and covariances are made equal."""
    options = {"hard": True, "max_iter": 1, "covariance_type": "spherical"}
    for _ in range(100):
        fit = gb.fit_em(X, len(centres), init=balls(centres, X.std()), **options)
        if np.array_equal(fit.means, centres):
            break
        centres = fit.means
    return centres, dataclasses.replace(fit, parameters=balls(centres, X.std())).labels


def test_with_equal_balls_hard_em_is_k_means():
    X = gb.datasets.make_blobs().X
    centres = X[[0, 20, 40, 60, 80, 101, 120, 141]]
    ours, labels = lloyd(X, centres)
    theirs = KMeans(8, init=centres, n_init=1, algorithm="lloyd", tol=0).fit(X)
    assert theirs.n_iter_ > 3
    np.testing.assert_allclose(ours, theirs.cluster_centers_, rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(labels, theirs.labels_)


def test_hard_em_is_classification_em():
    """Labels from the mixture, the mixture from the rows of each label, ten times over."""
    X = standard(gb.datasets.load_iris)
    weights, means, covariances = start_for(X, 3, "full")
    start = MixtureParameters.from_covariances(weights, means, covariances)
    fit = gb.fit_em(X, 3, init=start, hard=True, max_iter=10, tol=0, reg_covar=1e-3)
    for _ in range(10):
        normals = [multivariate_normal(m, c) for m, c in zip(means, covariances, strict=True)]
        scores = np.log(weights) + np.stack([one.logpdf(X) for one in normals], axis=1)
        groups = [X[scores.argmax(axis=1) == k] for k in range(3)]
        weights = np.array([len(group) / 150 for group in groups])
        means = np.stack([group.mean(axis=0) for group in groups])
        covariances = np.stack([np.cov(g.T, bias=True) + 1e-3 * np.eye(4) for g in groups])
    close((fit.weights, fit.means, fit.covariances), (weights, means, covariances), atol=1e-10)
    assert fit.n_iter > 3
    assert (np.diff(fit.trace) > -1e-3 * 150).all()


def test_hard_em_finds_the_groups_of_k_means():
    rng = np.random.default_rng(1)
    truth = rng.permutation(np.repeat(np.arange(4), 50))
    X = np.array([[0, 0], [9, 0], [0, 9], [9, 9]])[truth] + rng.normal(size=(200, 2))
    fit = gb.fit_em(X, 4, hard=True, covariance_type="spherical")
    theirs = KMeans(4, n_init=10, random_state=0).fit(X)
    assert adjusted_rand_score(fit.labels, theirs.labels_) == 1
    # All the same the record is about the mixture; the trace is of rows with their labels.
    assert fit.score_samples().sum() == pytest.approx(fit.log_likelihood, rel=1e-12)
    own = np.log(fit.predict_proba().max(axis=1)).sum()
    assert fit.trace[-1] == pytest.approx(fit.log_likelihood + own, rel=1e-9)
    assert fit.trace[-1] < fit.log_likelihood


# -- many rows ------------------------------------------------------------------------------------


def test_many_rows_are_searched_in_part_and_fitted_in_full(monkeypatch):
    X = gb.datasets.make_mixture(21_000, 2, 2, seed=0).X
    options = {"n_init": 2, "tol": 1e-10}
    part = gb.fit_em(X, 2, **options)
    going_on = gb.fit_em(X, 2, init=part.parameters, tol=1e-10)
    ones = gb.fit_em(X, 2, sample_weight=np.ones(21_000), **options)
    monkeypatch.setattr(initialization, "_MANY_ROWS", 10**6)
    plain = gb.fit_em(X, 2, **options)
    for other in (going_on, ones, plain):
        assert other.log_likelihood == pytest.approx(part.log_likelihood, abs=1e-4)
        close(other.parameters, part.parameters, rtol=1e-3, atol=1e-3)
    assert part.score_samples().sum() == pytest.approx(part.log_likelihood, rel=1e-10)
    # Starts were compared on 20,000 rows, whose density is near but not the same.
    heights = [fit.starts["log_likelihood_per_row"][0] for fit in (part, plain)]
    assert heights[1] == pytest.approx(plain.log_likelihood / 21_000, rel=1e-12)
    assert 1e-6 < abs(heights[0] - heights[1]) < 0.02


# -- the record -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def named():
    frame = gb.datasets.load_old_faithful()
    frame.index = [f"eruption {i}" for i in range(272)]
    return gb.fit_em(frame, 2)


def test_labelled_responsibilities(named):
    shares = named.responsibilities
    assert shares.dims == ("obs", "component")
    assert list(shares["obs"].values[:2]) == ["eruption 0", "eruption 1"]
    np.testing.assert_allclose(shares.sum("component"), 1)
    np.testing.assert_array_equal(named.labels, shares.argmax("component"))
    assert named.feature_names == ("eruptions", "waiting")


def test_new_rows(named):
    X, ours, theirs = both("old faithful", "full")
    rows = np.concatenate([X[:5] + 0.1, [[50.0, -50.0], [1e6, 1e6]]])
    np.testing.assert_allclose(ours.score_samples(rows), theirs.score_samples(rows), rtol=1e-6)
    np.testing.assert_allclose(ours.predict_proba(rows), theirs.predict_proba(rows), atol=1e-7)
    frame = gb.datasets.load_old_faithful()
    np.testing.assert_array_equal(named.predict_proba(frame[:7]), named.predict_proba()[:7])
    assert named.score_samples(frame.to_numpy()[:7]).shape == (7,)
    with pytest.warns(gb.errors.DataWarning, match="X has the columns of the fit in another ord"):
        turned = named.score_samples(frame[["waiting", "eruptions"]][:7])
    np.testing.assert_array_equal(turned, named.score_samples()[:7])


NEW_ROWS = {
    "one column": (
        lambda X: X.to_numpy()[:, :1],
        "X must have the 2 columns of the fit, ['eruptions', 'waiting'], got 1 columns.",
    ),
    "no rows": (lambda X: X[:0], "X must have at least 1 row, got shape (0, 2)."),
    "one axis": (
        lambda X: X.to_numpy()[0],
        "X must have shape (n_obs, n_features), got (2,). For one feature use X[:, None].",
    ),
}


@pytest.mark.parametrize(("change", "message"), table(NEW_ROWS))
@pytest.mark.parametrize("read", ["predict_proba", "score_samples"])
def test_new_rows_that_do_not_fit_are_refused(named, faithful, read, change, message):
    with raises_exactly(ValueError, message):
        getattr(named, read)(change(faithful))


def test_the_page_carries_the_numbers(named):
    for text in (repr(named), named._repr_html_()):
        for words in (
            "EMFit",
            "272 rows, 2 columns",
            "2 components, full covariances, 11 parameters",
            f"{named.log_likelihood:.3f}, converged after {named.n_iter} iterations",
            f"{named.n_starts}, of which {named.starts['n_starts'][0]} ended as high",
        ):
            assert words in text
    assert repr(named).count("\n") == 4
    assert named._repr_html_().startswith("<div>")


def test_the_data_are_kept_and_not_written_to(faithful):
    X = faithful.to_numpy(copy=True)
    X.flags.writeable = False
    weights = np.ones(272)
    weights.flags.writeable = False
    fit = gb.fit_em(X, 2, sample_weight=weights)
    assert not np.shares_memory(fit.table.values, X)
    assert not np.shares_memory(fit.row_weights, weights)
    np.testing.assert_array_equal(X, faithful)


def test_it_pickles(named):
    assert named.responsibilities.shape == (272, 2)  # now it is kept
    again = pickle.loads(pickle.dumps(named))
    assert repr(again) == repr(named)
    close(again.parameters, named.parameters, rtol=0)
    assert again.responsibilities.identical(named.responsibilities)
    assert again.bic == named.bic


def test_results_are_double_whatever_the_users_setting(named):
    assert not jax.config.jax_enable_x64
    assert {np.asarray(a).dtype for a in named.parameters} == {np.dtype("f8")}
    assert {type(a) for a in named.parameters} == {np.ndarray}
    assert named.predict_proba().dtype == named.score_samples().dtype == np.dtype("f8")


def test_one_component_and_one_column(faithful):
    fit = gb.fit_em(faithful[["waiting"]], 2)
    assert fit.covariances.shape == (2, 1, 1)
    X = faithful["waiting"].to_numpy()
    single = best(gb.datasets.load_old_faithful, 1)
    assert single.means[0, 1] == pytest.approx(X.mean())
    assert single.covariances[0, 1, 1] == pytest.approx(X.var(), rel=1e-5)


def test_a_second_fit_of_the_same_shape_compiles_nothing(faithful):
    def everything(X, seed):
        fit = gb.fit_em(X, 2, seed=seed, tol=1e-5 * seed, reg_covar=1e-6 * seed)
        return fit.bic, fit.icl, fit.labels, fit.score_samples(), repr(fit)

    everything(faithful, 1)
    other = faithful.to_numpy()[::-1] * [3, 7] + 1
    assert count_compilations(lambda: everything(other, 2)) == 0
    # The counter can count: another number of components is another program.
    assert count_compilations(lambda: everything(other[:33, :1], 1)) > 0


@pytest.mark.usefixtures("double")
def test_an_e_step_of_a_maximum_gives_its_own_parameters_back(named):
    """What EM is: at its end the moments have the means and covariances of the mixture."""
    X = named.table.values
    units = Standardization.of(X, COVARIANCE_STRUCTURES["full"])
    mixture = units.apply_to_parameters(named.parameters)
    total, moments = e_step(mixture, block_rows(units.apply(X)))
    assert float(total) - 272 * units.log_volume == pytest.approx(named.log_likelihood, rel=1e-12)
    counts, sums = moments[:, 0, 0], moments[:, 1:, 0]
    np.testing.assert_allclose(counts / 272, named.weights, atol=1e-3)
    np.testing.assert_allclose(sums / counts[:, None], mixture.means, atol=1e-3)


# -- hostile options and data ---------------------------------------------------------------------

X40 = two_groups()
NAN = float("nan")
START3 = MixtureParameters(np.ones(3) / 3, np.zeros((3, 2)), np.stack([np.eye(2)] * 3))


def integer(name, got):
    return f"{name} must be an integer of at least 1, got {got}"


def seed_error(got):
    return f"seed must be an integer in [0, 2**32) or one JAX key, got {got}"


OPTIONS = {
    "n_components 0": (
        {"n_components": 0},
        ValueError,
        "n_components must be at least 1, got 0",
    ),
    "n_components 2.0": (
        {"n_components": 2.0},
        TypeError,
        integer("n_components", "2.0 of type float"),
    ),
    "n_components None": (
        {"n_components": None},
        TypeError,
        integer("n_components", "None of type NoneType"),
    ),
    "n_components True": (
        {"n_components": True},
        TypeError,
        integer("n_components", "True of type bool"),
    ),
    "more components than rows": (
        {"n_components": 10**6},
        ValueError,
        "n_components must be at most the number of rows, got n_components=1000000 for 40 rows; "
        "take fewer components",
    ),
    "more components than rows that count": (
        {"sample_weight": np.r_[1, np.zeros(39)]},
        ValueError,
        "n_components must be at most the number of rows, got n_components=2 for 1 rows; take "
        "fewer components",
    ),
    "covariance type": (
        {"covariance_type": "fulll"},
        ValueError,
        "covariance_type must be one of full, tied, diag, spherical, got 'fulll'; "
        "did you mean 'full'?",
    ),
    "covariance type None": (
        {"covariance_type": None},
        ValueError,
        "covariance_type must be one of full, tied, diag, spherical, got None",
    ),
    "init": (
        {"init": "k-means"},
        ValueError,
        "init must be one of auto, kmeans, k-means++, random, random_from_data, got 'k-means'; "
        "did you mean 'kmeans' or 'k-means++'?",
    ),
    "init None": (
        {"init": None},
        ValueError,
        "init must be one of auto, kmeans, k-means++, random, random_from_data, got None",
    ),
    "init of another size": (
        {"init": START3},
        ValueError,
        "init.means must have shape (n_components, n_features) = (2, 2), got (3, 2)",
    ),
    "init with NaN": (
        {"init": MixtureParameters(np.ones(2) / 2, np.full((2, 2), NAN), START3.scale_tril[:2])},
        ValueError,
        "init.means must be finite, got nan",
    ),
    "n_init 0": ({"n_init": 0}, ValueError, "n_init must be at least 1, got 0"),
    "n_init 1.0": ({"n_init": 1.0}, TypeError, integer("n_init", "1.0 of type float")),
    "max_iter 0": ({"max_iter": 0}, ValueError, "max_iter must be at least 1, got 0"),
    "max_iter 1e3": ({"max_iter": 1e3}, TypeError, integer("max_iter", "1000.0 of type float")),
    "max_iter beyond its trace": (
        {"max_iter": 100_001},
        ValueError,
        "max_iter must be at most 100,000, got 100001; EM that has not converged by then will not: "
        "raise tol",
    ),
    "hard": ({"hard": "no"}, TypeError, "hard must be True or False, got 'no'"),
    "hard None": ({"hard": None}, TypeError, "hard must be True or False, got None"),
    "device": (
        {"device": "gpuu"},
        ValueError,
        "device must be one of auto, cpu, gpu, got 'gpuu'; did you mean 'gpu' or 'cpu'?",
    ),
    "seed 2**32": ({"seed": 2**32}, ValueError, "seed must be in [0, 2**32), got 4294967296"),
    "seed -1": ({"seed": -1}, ValueError, "seed must be in [0, 2**32), got -1"),
    "seed 1.5": ({"seed": 1.5}, TypeError, seed_error("1.5 of type float")),
    "seed None": ({"seed": None}, TypeError, seed_error("None of type NoneType")),
    "several seeds": (
        {"seed": np.zeros(2, dtype=np.uint32)},
        TypeError,
        seed_error("shape (2,) of type ndarray"),
    ),
    "weights of another length": (
        {"sample_weight": np.ones(39)},
        ValueError,
        "sample_weight must have shape (n_obs,) = (40,), got (39,)",
    ),
    "weights as a column": (
        {"sample_weight": np.ones((40, 1))},
        ValueError,
        "sample_weight must have shape (n_obs,) = (40,), got (40, 1)",
    ),
    "one weight": (
        {"sample_weight": 2.0},
        ValueError,
        "sample_weight must have shape (n_obs,) = (40,), got ()",
    ),
    "negative weight": (
        {"sample_weight": np.r_[np.ones(39), -0.5]},
        ValueError,
        "sample_weight must not be negative, got -0.5",
    ),
    "no weight": (
        {"sample_weight": np.zeros(40)},
        ValueError,
        "sample_weight must have a positive, finite sum, got 0; give weights near 1, "
        "not zero for all rows",
    ),
    "weight NaN": (
        {"sample_weight": np.r_[np.ones(39), NAN]},
        ValueError,
        "sample_weight must be finite, got nan",
    ),
    "weight infinite": (
        {"sample_weight": np.r_[np.ones(39), np.inf]},
        ValueError,
        "sample_weight must be finite, got inf",
    ),
    "weights as text": (
        {"sample_weight": "balanced"},
        TypeError,
        "sample_weight must be numbers, got 'balanced' of type str",
    ),
}
for _name in ("tol", "reg_covar"):
    _must = f"{_name} must be"
    OPTIONS |= {
        f"{_name} -1": ({_name: -1}, ValueError, f"{_must} finite and at least 0, got -1"),
        f"{_name} NaN": ({_name: NAN}, ValueError, f"{_must} finite and at least 0, got nan"),
        f"{_name} inf": ({_name: np.inf}, ValueError, f"{_must} finite and at least 0, got inf"),
    }
    for _got, _type in (("'1e-3'", "str"), ("None", "NoneType"), ("True", "bool")):
        OPTIONS[f"{_name} {_got}"] = (
            {_name: {"str": "1e-3", "NoneType": None, "bool": True}[_type]},
            TypeError,
            f"{_must} a number of at least 0, got {_got} of type {_type}",
        )


@pytest.fixture
def no_work(monkeypatch):
    """Everything long fails, so that an error must have come before it."""

    def long_work(*args, **options):
        raise AssertionError("long work has begun")

    for name in ("find_optima", "follow_all", "block_rows", "e_step"):
        monkeypatch.setattr(f"gmm_bayes.inference.em.fit_em.{name}", long_work)


@pytest.mark.parametrize(("options", "exception", "message"), table(OPTIONS))
def test_hostile_options(no_work, options, exception, message):
    with raises_exactly(exception, message):
        gb.fit_em(X40, **{"n_components": 2, **options})


def test_a_misspelt_option_is_not_ignored():
    with pytest.raises(TypeError, match="unexpected keyword argument 'n_inits'"):
        gb.fit_em(X40, 2, n_inits=3)


def with_value(value):
    X = X40.copy()
    X[3, 1] = value
    return X


DATA = {
    "NaN": (
        lambda: with_value(NAN),
        ValueError,
        "X must be finite, got 1 missing of 80 values, the first in row 3, column 'x1'. Drop or "
        "impute them: rows are never dropped silently.",
    ),
    "constant column": (
        lambda: np.column_stack([X40[:, 0], np.ones(40)]),
        ValueError,
        "X must vary in every column, but column 'x1' is constant (value 1); drop the column.",
    ),
    "all rows equal": (
        lambda: np.ones((5, 2)),
        ValueError,
        "X must vary, but all its rows are equal: there is nothing to learn from them.",
    ),
    "one row": (
        lambda: np.ones((1, 2)),
        ValueError,
        "X must have at least 2 rows, got shape (1, 2).",
    ),
    "one axis": (
        lambda: np.arange(9.0),
        ValueError,
        "X must have shape (n_obs, n_features), got (9,). For one feature use X[:, None].",
    ),
    "times 1e200": (
        lambda: X40 * [1, 1e200],
        ValueError,
        "the variance of column 'x1' would overflow float64 (half its range is 4.52396e+200); "
        "change its units.",
    ),
    "None": (
        lambda: None,
        TypeError,
        "X must be a table of numbers of shape (n_obs, n_features), got NoneType.",
    ),
    "two distinct rows for three components": (
        lambda: np.repeat([[0.0, 1.0], [1.0, 0.0]], 9, axis=0),
        ValueError,
        "n_components must be at most the number of distinct rows, got n_components=3 for 2 "
        "distinct rows; take fewer components",
    ),
}


@pytest.mark.parametrize(("make", "exception", "message"), table(DATA))
def test_hostile_data(no_work, make, exception, message):
    with raises_exactly(exception, message):
        gb.fit_em(make(), 3)


def test_a_row_that_does_not_count_may_not_be_missing_either(no_work):
    """Its responsibilities are part of the answer."""
    with pytest.raises(ValueError, match=r"\AX must be finite"):
        gb.fit_em(with_value(NAN), 2, sample_weight=np.r_[np.ones(3), 0, np.ones(36)])


def test_a_column_must_vary_in_the_rows_that_count(no_work):
    X = np.column_stack([X40[:, 0], np.r_[5.0, np.zeros(39)]])
    message = "X must vary in every column, but column 'x1' is constant (value 0); drop the column."
    with raises_exactly(ValueError, message):
        gb.fit_em(X, 2, sample_weight=np.r_[0, np.ones(39)])


def test_numpy_numbers_are_numbers():
    options = {"n_init": np.int8(2), "tol": np.float32(1e-5), "max_iter": np.uint16(500)}
    fit = gb.fit_em(X40, np.int64(2), seed=np.uint8(3), **options)
    assert fit.n_components == 2
    assert check_data(X40).values.shape == fit.table.values.shape


# -- what is narrow, and what is no maximum -------------------------------------------------------


@pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical"])
@pytest.mark.parametrize(
    ("n_features", "distance", "options"), [(1, 1e3, {"reg_covar": 0}), (2, 1e4, {})]
)
def test_groups_that_are_far_apart_are_groups(covariance_type, n_features, distance, options):
    """The variance of the whole column says nothing: not of what is singular, nor of a floor."""
    X = np.random.default_rng(0).normal(size=(400, n_features))
    X[200:] += distance
    options = {"covariance_type": covariance_type, "n_init": 4, **options}
    one, two = (gb.fit_em(X, k, **options) for k in (1, 2))
    assert not two.singular
    assert two.bic < one.bic
    assert two.icl < one.icl
    structure = COVARIANCE_STRUCTURES[covariance_type]
    groups = np.stack([np.cov(g.T, bias=True).reshape(n_features, -1) for g in (X[:200], X[200:])])
    expected = structure.covariances(*structure.sites(groups))
    np.testing.assert_allclose(two.covariances, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("k", [4, 6])
def test_no_spike_on_a_few_galaxies_is_chosen(k):
    """Two to five velocities, closer together than the others by chance: no group."""
    fit = best(gb.datasets.load_galaxies, k)
    assert not fit.singular
    higher = fit.starts["log_likelihood_per_row"] > fit.starts["log_likelihood_per_row"][0] + 1e-3
    assert fit.starts["singular"][higher].all()
    counts = fit.responsibilities.values.sum(axis=0)
    assert np.sqrt(fit.covariances.ravel()[counts < 6]).min(initial=np.inf) > 500


def test_a_spike_is_singular_and_three_far_galaxies_are_not():
    X = gb.datasets.load_galaxies().to_numpy(dtype=float)
    rows = np.sort(X[:, 0])
    pair = rows[40:42]
    starts = {"pair": (pair.mean(), max(pair.std(), 5.0)), "far": (rows[-3:].mean(), 900.0)}
    found = {}
    for name, (centre, sd) in starts.items():
        means = np.array([[rows[:7].mean()], [rows[7:79].mean()], [centre]])
        sds = np.array([420.0, 2200.0, sd])[:, None, None]
        start = MixtureParameters(np.array([0.09, 0.87, 0.04]), means, sds)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            found[name] = gb.fit_em(X, 3, init=start)
    assert found["pair"].responsibilities.values.sum(axis=0)[2] < 6
    assert found["pair"].why_singular == REASONS[3]
    assert found["far"].responsibilities.values.sum(axis=0)[2] == pytest.approx(3, abs=0.01)
    assert not found["far"].singular
    with pytest.warns(DataWarning, match="on few rows, no closer together than chance"):
        assert np.isfinite(found["pair"].bic)


def test_a_component_no_wider_than_the_recording_is_singular():
    """Two neighbouring values, one of them nine times of ten, in a column that has ties."""
    rng = np.random.default_rng(1)
    X = np.r_[np.round(rng.normal(0, 3, 200)), np.full(72, 20.0), np.full(4, 21.0)][:, None]
    means, sds = np.array([[0.0], [20.05]]), np.array([3.0, 0.25])[:, None, None]
    start = MixtureParameters(np.array([0.7, 0.3]), means, sds)
    with pytest.warns(DataWarning) as caught:
        fit = gb.fit_em(X, 2, init=start)
    assert fit.why_singular == REASONS[2]
    tied, said = caught_here(caught)[-2:]
    assert "holds 20 in 72 of 276 rows" in tied
    assert "no wider than the recording of the rows" in said
    assert not gb.fit_em(X[:200], 1).singular
