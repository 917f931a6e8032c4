"""The kernel: the sum over rows, its gradient by hand, and what it costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_mixture

from gmm_bayes.core import likelihood, mixture
from gmm_bayes.core.likelihood import (
    block_rows,
    expected_statistics,
    natural_parameters,
    sum_log_density,
)
from gmm_bayes.core.mixture import MixtureParameters

pytestmark = pytest.mark.usefixtures("double")
SHAPES = [(1, 1), (4, 1), (1, 3), (3, 2), (5, 4)]


def rows_for(d, n):
    return 3 * np.random.default_rng(2).standard_normal((n, d))


@pytest.mark.parametrize(("k", "d"), SHAPES)
@pytest.mark.parametrize("n_obs", [1, 50, 101])
def test_value_and_gradient_are_those_of_the_rows(k, d, n_obs, monkeypatch):
    """One block and three, the last one filled up."""
    monkeypatch.setattr(likelihood, "_ROWS_PER_BLOCK", 40)
    parameters, _ = random_mixture("full", k, d)
    X = rows_for(d, n_obs)

    def by_sum(parameters):
        return sum_log_density(natural_parameters(*parameters), block_rows(X))

    def by_row(parameters):
        return mixture.log_density(X, MixtureParameters(*parameters)).sum()

    ours, gradient = jax.value_and_grad(by_sum)(tuple(parameters))
    theirs, expected = jax.value_and_grad(by_row)(tuple(parameters))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    for a, b in zip(gradient, expected, strict=True):
        np.testing.assert_allclose(a, np.tril(b) if b.ndim == 3 else b, rtol=1e-8, atol=1e-9)


def test_statistics_are_those_of_an_e_step():
    parameters, _ = random_mixture("full", 3, 2)
    X = rows_for(2, 70)
    r = np.asarray(mixture.responsibilities(X, parameters))
    _, statistics = expected_statistics(natural_parameters(*parameters), block_rows(X))
    second = np.einsum("nk,nd,ne->kde", r, X, X)[:, *np.tril_indices(2)]
    np.testing.assert_allclose(statistics, np.column_stack([r.sum(0), r.T @ X, second]), rtol=1e-10)


def test_chains_batch(monkeypatch):
    monkeypatch.setattr(likelihood, "_ROWS_PER_BLOCK", 40)
    singles = [random_mixture("full", 3, 2, seed=s)[0] for s in range(4)]
    theta = jnp.stack([natural_parameters(*p) for p in singles])
    rows = block_rows(rows_for(2, 90))
    batched = jax.vmap(jax.value_and_grad(sum_log_density), in_axes=(0, None))(theta, rows)
    for i, one in enumerate(theta):
        value, gradient = jax.value_and_grad(sum_log_density)(one, rows)
        np.testing.assert_allclose(batched[0][i], value, rtol=1e-12)
        np.testing.assert_allclose(batched[1][i], gradient, rtol=1e-9)


def test_nothing_of_the_size_of_the_features_is_held():
    """Temporary memory of value and gradient at N = 2e5, K = 8, D = 8: a block, not the table."""
    k, d, n = 8, 8, 200_000
    n_features = (d + 1) * (d + 2) // 2
    rows = jax.eval_shape(block_rows, jax.ShapeDtypeStruct((n, d), np.float64))
    theta = jax.ShapeDtypeStruct((k, n_features), np.float64)
    compiled = jax.jit(jax.value_and_grad(sum_log_density)).lower(theta, rows).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes
    assert temporary < 0.05 * 8 * n * n_features


def test_far_apart_means_keep_the_difference_of_two_log_likelihoods():
    """Means 300 sds apart, N = 1e5: the error stays far below 0.01 nat in float64."""
    rng = np.random.default_rng(0)
    k, d, n = 8, 4, 100_000
    means = 300 * rng.standard_normal((k, d))
    X = means[rng.integers(k, size=n)] + rng.standard_normal((n, d))
    X, means = X / 300, means / 300
    tril = np.broadcast_to(np.eye(d) / 300, (k, d, d))
    weights = np.full(k, 1 / k)
    moved = means + 1e-3 / 300
    rows = block_rows(X)
    by_sum = [sum_log_density(natural_parameters(weights, m, tril), rows) for m in (means, moved)]
    by_row = [mixture.log_density(X, MixtureParameters(weights, m, tril)) for m in (means, moved)]
    exact = float(np.sum(np.asarray(by_row[1]) - np.asarray(by_row[0])))
    assert abs(float(by_sum[1] - by_sum[0]) - exact) < 1e-4
