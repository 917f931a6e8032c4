"""Densities and responsibilities against scikit-learn and SciPy, and their identities."""

import jax
import numpy as np
import pytest
from conftest import random_mixture
from scipy import stats
from scipy.special import logsumexp
from sklearn.mixture import GaussianMixture
from sklearn.mixture._gaussian_mixture import _compute_precision_cholesky

from gmm_bayes.core import mixture
from gmm_bayes.core.mixture import MixtureParameters

pytestmark = pytest.mark.usefixtures("double")
SHAPES = [(1, 1), (1, 3), (4, 1), (3, 2), (5, 4)]


def rows_for(d, n=40, seed=1):
    return 4 * np.random.default_rng(seed).standard_normal((n, d))


def scikit_learns(parameters, covariances, covariance_type):
    theirs = GaussianMixture(len(parameters.weights), covariance_type=covariance_type)
    theirs.weights_, theirs.means_ = parameters.weights, parameters.means
    theirs.covariances_ = covariances
    theirs.precisions_cholesky_ = _compute_precision_cholesky(covariances, covariance_type)
    return theirs


@pytest.mark.parametrize(("k", "d"), SHAPES)
def test_density_and_responsibilities_are_scikit_learns(covariance_type, k, d):
    parameters, covariances = random_mixture(covariance_type, k, d)
    X = rows_for(d)
    theirs = scikit_learns(parameters, covariances, covariance_type)
    np.testing.assert_allclose(
        mixture.log_density(X, parameters), theirs.score_samples(X), rtol=1e-10
    )
    np.testing.assert_allclose(
        mixture.responsibilities(X, parameters), theirs.predict_proba(X), rtol=1e-10, atol=1e-14
    )


def test_component_density_is_scipys():
    parameters, _ = random_mixture("full", 3, 4)
    X = rows_for(4)
    expected = [
        stats.multivariate_normal(m, c).logpdf(X) + np.log(w)
        for w, m, c in zip(
            parameters.weights, parameters.means, parameters.covariances, strict=True
        )
    ]
    np.testing.assert_allclose(mixture.scores(X, parameters), np.transpose(expected), rtol=1e-11)
    np.testing.assert_allclose(
        mixture.log_density(X, parameters), logsumexp(expected, axis=0), rtol=1e-11
    )


def test_order_of_components_and_rows_does_not_matter():
    parameters, _ = random_mixture("full", 4, 3)
    X = rows_for(3)
    order, shuffle = np.array([2, 0, 3, 1]), np.random.default_rng(0).permutation(len(X))
    permuted = MixtureParameters(*(a[order] for a in parameters))
    np.testing.assert_allclose(
        mixture.log_density(X[shuffle], permuted), mixture.log_density(X, parameters)[shuffle]
    )
    np.testing.assert_allclose(
        mixture.responsibilities(X, permuted), mixture.responsibilities(X, parameters)[:, order]
    )


def test_shift_and_scale_change_only_the_units():
    parameters, _ = random_mixture("full", 3, 2)
    X = rows_for(2)
    scale = np.array([2.0**-30, 2.0**30])
    scaled = parameters._replace(
        means=scale * parameters.means, scale_tril=scale[:, None] * parameters.scale_tril
    )
    expected = mixture.log_density(X, parameters) - np.log(scale).sum()
    np.testing.assert_allclose(mixture.log_density(scale * X, scaled), expected, rtol=1e-12)
    # A shift costs digits of the data themselves, so it is tested where x + 2**30 is exact.
    coarse = np.round(X * 64) / 64
    near = parameters._replace(means=np.round(parameters.means * 64) / 64)
    far = near._replace(means=near.means + 2.0**30)
    np.testing.assert_allclose(
        mixture.log_density(coarse + 2.0**30, far), mixture.log_density(coarse, near), rtol=1e-12
    )


def test_tied_is_full_with_equal_matrices():
    tied, _ = random_mixture("tied", 3, 2)
    assert np.ptp(tied.covariances, axis=0).max() < 1e-12
    full = MixtureParameters.from_covariances(tied.weights, tied.means, tied.covariances, "full")
    X = rows_for(2)
    np.testing.assert_allclose(mixture.log_density(X, tied), mixture.log_density(X, full))


def test_far_rows_keep_their_order():
    parameters, _ = random_mixture("full", 3, 2)
    X = np.outer([1e3, 2e3, 1e4, 1e5], [1.0, 1.0])
    logs = np.asarray(mixture.log_density(X, parameters))
    assert np.isfinite(logs).all()
    assert (np.diff(logs) < 0).all()
    assert logs[-1] < -1e6


def test_an_empty_component_has_a_finite_gradient():
    parameters, _ = random_mixture("full", 2, 2)
    weights = np.array([1.0, 0.0])

    def total(means):
        return mixture.log_density(
            rows_for(2), parameters._replace(weights=weights, means=means)
        ).sum()

    assert np.isfinite(jax.grad(total)(parameters.means)).all()


def test_samples_have_the_mixtures_moments():
    parameters, _ = random_mixture("full", 3, 2)
    n = 40_000
    X, labels = mixture.sample(jax.random.key(0), parameters, n)
    weights = parameters.weights
    shares = np.bincount(labels, minlength=3) / n
    assert (abs(shares - weights) < 5 * np.sqrt(weights * (1 - weights) / n)).all()
    mean = weights @ parameters.means
    assert (abs(np.mean(X, axis=0) - mean) < 5 * np.std(X, axis=0) / np.sqrt(n)).all()
    for k in range(3):
        rows = np.asarray(X)[np.asarray(labels) == k]
        sd = np.sqrt(np.diag(parameters.covariances[k]))
        error = abs(np.cov(rows.T) - parameters.covariances[k])
        assert (error < 5 * np.sqrt(2 / len(rows)) * np.outer(sd, sd)).all()


def test_core_obeys_strict_promotion():
    parameters, _ = random_mixture("full", 3, 2)
    with jax.numpy_dtype_promotion("strict"):
        mixture.log_density(jax.device_put(rows_for(2)), jax.device_put(parameters))


def test_single_precision_stays_single():
    parameters, _ = random_mixture("full", 3, 2)
    single = jax.tree.map(lambda a: a.astype(np.float32), jax.device_put(parameters))
    X = rows_for(2)
    out = mixture.log_density(jax.device_put(X.astype(np.float32)), single)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, mixture.log_density(X, parameters), rtol=2e-5)
