"""Priors: the two recipes, how they follow the data, and how they read."""

import numpy as np
import pytest

import gmm_bayes as gb
from gmm_bayes.model.centres import kmeans_centers


def test_fixed_is_the_textbook_recipe():
    priors = gb.Priors.fixed()
    assert priors == gb.Priors(mean_covariance=0.1, scale_scale=1.0)
    arrays = priors.replace(mean_loc=np.zeros((3, 2))).arrays(3, 2)
    np.testing.assert_array_equal(arrays.weight_concentration, [0.5] * 3)
    np.testing.assert_allclose(arrays.mean_scale_tril @ arrays.mean_scale_tril.T, 0.1 * np.eye(2))
    np.testing.assert_array_equal(arrays.scale_scale, [1, 1])
    assert arrays.correlation_concentration == 2


def test_default_priors_follow_the_units(faithful):
    shift, scale = np.array([5.0, -300.0]), np.array([1e-9, 1e9])
    one, other = (
        gb.default_priors(X, 3).arrays(3, 2)
        for X in (faithful.to_numpy(), shift + scale * faithful.to_numpy())
    )
    np.testing.assert_allclose(other.mean_loc, shift + scale * one.mean_loc, rtol=1e-6)
    np.testing.assert_allclose(other.mean_scale_tril, scale[:, None] * one.mean_scale_tril)
    np.testing.assert_allclose(other.scale_scale, scale * one.scale_scale)


def test_centres_do_not_depend_on_the_order_of_rows(faithful):
    X = faithful.to_numpy()
    shuffled = np.random.default_rng(0).permutation(X)
    np.testing.assert_allclose(kmeans_centers(X, 2), kmeans_centers(shuffled, 2), rtol=1e-6)


def test_centres_are_the_best_of_several_starts():
    """One start from a fixed key is a worse optimum on most data of this kind."""
    from sklearn.cluster import KMeans

    X = gb.datasets.make_blobs().X
    ours = kmeans_centers(X, 8)
    best = KMeans(8, n_init=50, random_state=1).fit(X)
    distance = ((X[:, None] - ours[None]) ** 2).sum(-1).min(1).sum()
    assert distance < 1.001 * best.inertia_


@pytest.mark.parametrize(
    "covariance", [0.25, [0.25, 0.25], [[0.25, 0.0], [0.0, 0.25]]], ids=["scalar", "D", "DxD"]
)
def test_three_ways_to_say_a_covariance(covariance):
    arrays = gb.Priors.fixed(np.zeros((1, 2)), mean_covariance=covariance).arrays(1, 2)
    np.testing.assert_allclose(arrays.mean_scale_tril, 0.5 * np.eye(2))


def test_a_correlated_covariance_keeps_its_units():
    covariance = np.array([[1e18, 0.5], [0.5, 1e-18]])
    tril = gb.Priors.fixed(np.zeros((1, 2)), mean_covariance=covariance).arrays(1, 2)
    np.testing.assert_allclose(
        tril.mean_scale_tril @ tril.mean_scale_tril.T, covariance, rtol=1e-12
    )


def test_repr_and_summary_can_be_read(faithful):
    priors = gb.default_priors(faithful, 2)
    assert repr(gb.Priors.fixed()) == (
        "Priors(weight_concentration=0.5, mean_loc=None, mean_covariance=0.1, scale_scale=1, "
        "correlation_concentration=2)"
    )
    assert "mean_covariance=diag([" in repr(priors)
    table = priors.summary()
    assert list(table.index) == ["weights", "means", "scales", "correlation_cholesky"]
    assert gb.Priors.fixed().summary().loc["means", "parameters"] == (
        "centre k-means centroids, covariance 0.1"
    )


def test_priors_cannot_be_changed_behind_ones_back():
    centres = np.zeros((2, 2))
    priors = gb.Priors(mean_loc=centres)
    centres += 1
    assert not priors.mean_loc.any()
    with pytest.raises(ValueError, match="read-only"):
        priors.mean_loc[0] = 1


@pytest.mark.parametrize(
    "change", [{"weight_concentration": 1.0}, {"correlation_concentration": 5.0}]
)
def test_who_changes_one_prior_keeps_the_others(faithful, change):
    """Body masses in grams, say: the textbook's numbers would pin every mean to its centre."""
    X = 1000 * faithful.to_numpy()
    default = gb.default_priors(X, 2)
    expected = default.replace(**change)
    assert gb.Priors(**change).with_centers(X, 2) == expected
    assert gb.Priors().replace(**change).with_centers(X, 2) == expected
    # None gives a field back to the data.
    assert expected.replace(scale_scale=None, mean_loc=None).with_centers(X, 2) == expected
    np.testing.assert_allclose(expected.scale_scale, X.std(axis=0), rtol=1e-12)
    tril = np.tile(np.diag(X.std(axis=0)), (2, 1, 1))
    start = gb.MixtureParameters(np.full(2, 0.5), default.mean_loc, tril)
    fit = gb.fit(X, 2, priors=gb.Priors(**change), sampler=gb.Laplace(num_samples=200), init=start)
    np.testing.assert_allclose(fit.priors.scale_scale, X.std(axis=0), rtol=1e-12)


def test_what_is_left_to_the_data_is_said():
    priors = gb.Priors(mean_loc=[[0.0, 0.0]])
    with pytest.raises(ValueError, match="mean_covariance and scale_scale are None: give them, or"):
        priors.arrays(1, 2)
    assert priors.summary().loc["scales", "parameters"] == "scale the columns' sds"
    with pytest.raises(ValueError, match="must have mean_covariance and scale_scale filled"):
        gb.gaussian_mixture(None, n_components=1, priors=priors, n_obs=3)
