"""The table of covariance structures against scikit-learn's shapes and against itself."""

import numpy as np
import pytest
from conftest import STRUCTURES, random_mixture
from sklearn.mixture import GaussianMixture

from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES

SHAPES = [(1, 1), (1, 3), (4, 1), (3, 2), (2, 4)]


@pytest.mark.parametrize(("k", "d"), SHAPES)
def test_shapes_and_counts_are_scikit_learns(covariance_type, k, d):
    _, covariances = random_mixture(covariance_type, k, d)
    rows = np.random.default_rng(0).standard_normal((50, d))
    theirs = GaussianMixture(k, covariance_type=covariance_type).fit(rows)
    assert covariances.shape == theirs.covariances_.shape
    counted = COVARIANCE_STRUCTURES[covariance_type].n_parameters(k, d)
    assert counted == theirs._n_parameters()


@pytest.mark.parametrize(("k", "d"), SHAPES)
def test_sites_and_cholesky_factors_are_inverse(covariance_type, k, d):
    parameters, covariances = random_mixture(covariance_type, k, d)
    structure = COVARIANCE_STRUCTURES[covariance_type]
    scales, correlation = structure.sites(parameters.covariances)
    assert (correlation is None) == (not structure.has_correlations(d))
    tril = structure.scale_tril(scales, correlation, k, d)
    np.testing.assert_allclose(tril, parameters.scale_tril, atol=1e-12)
    np.testing.assert_allclose(
        structure.to_dense(covariances, k, d), parameters.covariances, atol=1e-12
    )


def test_leading_axes_are_kept(covariance_type):
    structure = COVARIANCE_STRUCTURES[covariance_type]
    single, _ = random_mixture(covariance_type, 3, 2)
    scales, correlation = structure.sites(single.covariances)

    def draws(array):
        return None if array is None else np.broadcast_to(array, (5, 7, *array.shape))

    tril = structure.scale_tril(draws(scales), draws(correlation), 3, 2)
    assert tril.shape == (5, 7, 3, 2, 2)
    np.testing.assert_allclose(tril[4, 6], single.scale_tril, atol=1e-12)


def test_projection_shares_the_mean_variance():
    dense = np.array([np.diag([1.0, 3.0]), np.diag([5.0, 7.0])])
    variances = {
        name: COVARIANCE_STRUCTURES[name].sites(dense)[0] ** 2 for name in ("tied", "spherical")
    }
    np.testing.assert_allclose(variances["tied"], [3, 5])
    np.testing.assert_allclose(variances["spherical"], [2, 6])


def test_all_structures_are_the_same_for_one_feature():
    scales = {"full": (3, 1), "diag": (3, 1), "spherical": (3,)}
    sigma = np.array([0.5, 1.0, 2.0])
    factors = [
        COVARIANCE_STRUCTURES[name].scale_tril(sigma.reshape(shape), None, 3, 1)
        for name, shape in scales.items()
    ]
    for factor in factors:
        np.testing.assert_array_equal(factor, sigma[:, None, None])


def test_all_structures_fit_in_one_table():
    assert tuple(COVARIANCE_STRUCTURES) == STRUCTURES
    assert all(name == row.name for name, row in COVARIANCE_STRUCTURES.items())
