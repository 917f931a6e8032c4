"""Too few and too many components are said beside the verdict; the right number is left alone."""

import warnings

import numpy as np
import pytest
from made_up import as_fit, made_up_fit, shuffled

import gmm_bayes as gb
from gmm_bayes._vocabulary import FULL
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.core.draws import draw_scores
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.verdict import how_many
from gmm_bayes.inference.verdict.how_many import about_k, prior_expects, words_about_k


def gibbs_fit(X, labels, k, rng, n_draws=40):
    """Draws of a mixture of `k` normals by Gibbs sampling, from labels that are given."""
    d, structure = X.shape[1], COVARIANCE_STRUCTURES[FULL]
    centre, spread, sites = X.mean(axis=0), np.cov(X.T) / k, []
    for _ in range(2 * n_draws):
        counts = np.bincount(labels, minlength=k)
        weights, means, dense = rng.dirichlet(counts + 0.5), np.empty((k, d)), np.empty((k, d, d))
        for j in range(k):
            own, m = X[labels == j], counts[j] + 0.05
            mean = (own.sum(axis=0) + 0.05 * centre) / m
            away = np.concatenate([own - mean, np.sqrt(0.05) * (centre - mean)[None]])
            root = np.linalg.cholesky(np.linalg.inv(spread + away.T @ away))
            noise = root @ rng.standard_normal((d, d + 2 + counts[j]))
            dense[j] = np.linalg.inv(noise @ noise.T)
            means[j] = mean + np.linalg.cholesky(dense[j] / m) @ rng.standard_normal(d)
        tril = np.linalg.cholesky(dense)
        scores = draw_scores(X, weights[None], means[None], tril[None])[0]
        labels = (scores + rng.gumbel(size=scores.shape)).argmax(axis=0)
        sites.append((weights, means, *structure.sites(dense)))
    names = ("weights", "means", "scales", "correlation_cholesky")
    kept = [np.stack(one[n_draws:])[None] for one in zip(*sites, strict=True)]
    draws = dict(zip(names, kept, strict=True))
    return as_fit(X, draws, structure, prior_centres=np.zeros((k, d)))


def rows_of_groups(rng, k, n=200, sep=4.0):
    means = sep * rng.standard_normal((k, 2))
    labels = rng.integers(k, size=n)
    return means[labels] + rng.standard_normal((n, 2)), labels


def test_the_right_number_is_told_to_be_too_small_as_rarely_as_promised():
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        X, labels = rows_of_groups(rng, 3)
        found.append(about_k(gibbs_fit(X, labels, 3, rng, n_draws=20)))
    # By the bound eight of a hundred, so four or fewer of forty in nearly all runs.
    assert sum(one.too_few for one in found) <= 3
    assert np.mean([one.density_p for one in found]) > 0.3
    assert np.mean([one.shape_p for one in found]) > 0.3


def test_five_groups_with_three_components_are_too_few():
    said = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        angle = 2 * np.pi * np.arange(5) / 5
        labels = rng.integers(5, size=300)
        means = 8 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        X = means[labels] + rng.standard_normal((300, 2))
        found = about_k(gibbs_fit(X, labels // 2, 3, rng))
        (*words,) = words_about_k(found, 3)
        said += any(word.startswith("K = 3 may be too few") for word in words)
        assert found.enough == 3
    assert said == 6


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_what_can_be_merged_is_counted_whatever_the_order(covariance_type):
    """Two groups, one described by three components that are alike."""
    means = np.array([[0.0, 0], [0, 0], [0, 0], [9, 9]])
    weights = [0.2, 0.2, 0.1, 0.5]
    fit = made_up_fit(means, covariance_type=covariance_type, weights=weights)
    found = about_k(fit)
    assert found.enough == 2
    moved = about_k(shuffled(fit)[0])
    assert moved.enough == 2
    assert moved.loss == pytest.approx(found.loss, abs=1e-6)
    (said,) = (w for w in words_about_k(found, 4) if "too many" in w)
    assert said.startswith("K = 4 may be too many: merged into 2, the components lose ")


def test_groups_that_lie_apart_are_not_merged():
    means = np.array([[0.0, 0], [7, 0], [0, 7]])
    found = about_k(made_up_fit(means))
    assert (found.enough, found.too_few) == (3, False)
    assert found.loss > 50


def test_how_many_the_prior_expects_to_have_a_row():
    fit = made_up_fit(np.array([[0.0, 0], [9, 9], [0, 9]]), n_obs=50)
    rng = np.random.default_rng(0)
    counts = np.array([rng.multinomial(50, w) for w in rng.dirichlet(np.full(3, 0.5), 20_000)])
    assert prior_expects(fit) == pytest.approx((counts > 0).sum(axis=1).mean(), abs=0.02)


def test_real_tables_keep_their_number_and_one_column_too(faithful_fit, line_fit):
    for fit in (faithful_fit, line_fit):
        assert fit.about_k == ()
        assert "how many?" not in repr(fit)
        found = about_k(fit)
        assert (found.enough, found.too_few) == (2, False)


def test_the_answer_is_in_the_record_and_in_its_words(faithful):
    fit = gb.fit(faithful, 1, sampler=gb.Laplace(num_samples=200), seed=1)
    (said,) = fit.about_k
    assert fit.problems == ()
    assert said.startswith("K = 1 may be too few, or groups are not normal")
    assert said in gb.diagnose(fit).notes
    assert f"how many?: {said}" in repr(fit)


def test_many_narrow_columns_overflow_nothing():
    """The volume of forty scales of 1e-9 is below what a float holds."""
    rng = np.random.default_rng(0)
    tril = np.broadcast_to(1e-9 * np.eye(40), (5, 3, 40, 40))
    means = 1e-8 * rng.standard_normal((5, 3, 40))
    draws = MixtureParameters(np.full((5, 3), 1 / 3), means, tril)
    X = means[0, rng.integers(0, 3, 50)] + 1e-9 * rng.standard_normal((50, 40))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merged, log_likelihood = how_many._best_merge(COVARIANCE_STRUCTURES["full"], X, draws)
    assert merged.weights.shape == (5, 2)
    assert np.isfinite(log_likelihood).all()
    # Too few rows for so many columns say nothing of shapes, and cost nothing.
    assert (how_many._shape(rng.standard_normal((4, 50, 40)), np.zeros((4, 50), int), 3) == 0).all()
