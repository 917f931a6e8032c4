"""The kernel: the sum over rows, its gradient by hand, and what it costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_mixture
from scipy.linalg import solve_triangular

from gmm_bayes.core import likelihood, mixture
from gmm_bayes.core.likelihood import (
    block_rows,
    component_scores,
    expected_moments,
    inverse_tril,
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
    monkeypatch.setitem(likelihood.ROWS_PER_BLOCK, "float64", 40)
    parameters, _ = random_mixture("full", k, d)
    X = rows_for(d, n_obs)

    def by_sum(parameters):
        return sum_log_density(component_scores(*parameters), block_rows(X))

    def by_row(parameters):
        return mixture.log_density(X, MixtureParameters(*parameters)).sum()

    ours, gradient = jax.jit(jax.value_and_grad(by_sum))(tuple(parameters))
    theirs, expected = jax.jit(jax.value_and_grad(by_row))(tuple(parameters))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    for a, b in zip(gradient, expected, strict=True):
        np.testing.assert_allclose(a, np.tril(b) if b.ndim == 3 else b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_moments_are_those_of_an_e_step(precision):
    parameters, _ = random_mixture("full", 3, 2)
    X = rows_for(2, 70)
    r = np.asarray(mixture.responsibilities(X, parameters))
    rows = block_rows(X, precision=precision)
    _, moments = expected_moments(component_scores(*parameters), rows)
    t = np.column_stack([np.ones(len(X)), X])
    exact = np.einsum("nk,ni,nj->kij", r, t, t)
    np.testing.assert_allclose(moments, exact, rtol=1e-10 if precision == "float64" else 1e-4)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_moments_of_hard_assignments(precision, monkeypatch):
    """Each row wholly to its best component; the log density is of the rows with those labels."""
    monkeypatch.setitem(likelihood.ROWS_PER_BLOCK, precision, 30)
    parameters, _ = random_mixture("full", 3, 2)
    X, row_weights = rows_for(2, 70), np.random.default_rng(3).uniform(0, 2, 70)
    scores = np.asarray(mixture.scores(X, parameters))
    rows = block_rows(X, precision=precision, row_weights=row_weights)
    total, moments = expected_moments(component_scores(*parameters), rows, hard=True)
    t = np.column_stack([np.ones(len(X)), X])
    best = scores.argmax(axis=1)
    assert len(set(best)) == 3
    exact = [np.einsum("n,ni,nj->ij", row_weights * (best == k), t, t) for k in range(3)]
    tolerance = 1e-10 if precision == "float64" else 1e-4
    np.testing.assert_allclose(moments, exact, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(total, (row_weights * scores.max(axis=1)).sum(), rtol=tolerance)


def test_of_equal_scores_the_first_is_chosen():
    tied = MixtureParameters(np.ones(2) / 2, np.zeros((2, 1)), np.ones((2, 1, 1)))
    _, moments = expected_moments(component_scores(*tied), block_rows(rows_for(1, 9)), hard=True)
    np.testing.assert_array_equal(moments[:, 0, 0], [9, 0])


@pytest.mark.parametrize("room", [0, 70, 71, 200])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_weights_of_rows_and_room_for_more(room, precision, monkeypatch):
    """A row counts as often as its weight says, and what is left over does not count."""
    monkeypatch.setitem(likelihood.ROWS_PER_BLOCK, precision, 30)
    parameters, _ = random_mixture("full", 3, 2)
    X, row_weights = rows_for(2, 70), np.random.default_rng(3).integers(0, 4, 70)
    rows = block_rows(X, precision=precision, row_weights=row_weights, room=room)
    assert rows.weights.sum() == row_weights.sum()
    assert rows.weights.size >= max(room, 70)
    total, moments = expected_moments(component_scores(*parameters), rows)
    log_density = np.asarray(mixture.log_density(X, parameters))
    r = row_weights[:, None] * np.asarray(mixture.responsibilities(X, parameters))
    t = np.column_stack([np.ones(len(X)), X])
    tolerance = 1e-10 if precision == "float64" else 1e-4
    np.testing.assert_allclose(total, (row_weights * log_density).sum(), rtol=tolerance)
    exact = np.einsum("nk,ni,nj->kij", r, t, t)
    np.testing.assert_allclose(moments, exact, rtol=tolerance, atol=tolerance)


def test_tables_with_the_same_room_have_the_same_shapes(monkeypatch):
    monkeypatch.setitem(likelihood.ROWS_PER_BLOCK, "float64", 30)
    shapes = {jax.tree.map(np.shape, block_rows(rows_for(2, n), room=70)) for n in (1, 29, 61, 70)}
    assert len(shapes) == 1


def test_rows_are_blocked_by_group(monkeypatch):
    """Every row once, and no block with rows of two groups."""
    monkeypatch.setitem(likelihood.ROWS_PER_BLOCK, "float64", 7)
    X, groups = rows_for(2, 50), np.random.default_rng(0).integers(3, size=50)
    rows = block_rows(X, groups=groups)
    kept = rows.values[:, 1:].swapaxes(1, 2)[rows.weights == 1]
    np.testing.assert_array_equal(kept[np.lexsort(kept.T)], X[np.lexsort(X.T)])
    group_of = {tuple(x): g for x, g in zip(X, groups, strict=True)}
    for block, weights in zip(rows.values, rows.weights, strict=True):
        assert len({group_of[tuple(x)] for x in block[1:].T[weights == 1]}) == 1


def test_chains_batch(monkeypatch):
    monkeypatch.setitem(likelihood.ROWS_PER_BLOCK, "float64", 40)
    singles = [component_scores(*random_mixture("full", 3, 2, seed=s)[0]) for s in range(4)]
    scores = jax.tree.map(lambda *leaves: jnp.stack(leaves), *singles)
    rows = block_rows(rows_for(2, 90))
    both = jax.vmap(jax.value_and_grad(sum_log_density), in_axes=(0, None))
    batched = jax.jit(both)(scores, rows)
    for i, one in enumerate(singles):
        value, gradient = jax.jit(jax.value_and_grad(sum_log_density))(one, rows)
        np.testing.assert_allclose(batched[0][i], value, rtol=1e-12)
        for ours, theirs in zip(batched[1], gradient, strict=True):
            np.testing.assert_allclose(ours[i], theirs, rtol=1e-9, atol=1e-9)


def test_nothing_of_the_size_of_the_features_is_held():
    """Temporary memory of value and gradient at N = 2e5, K = 8, D = 8: a block, not the table."""
    k, d, n = 8, 8, 200_000
    n_features = (d + 1) * (d + 2) // 2
    rows = block_rows(np.zeros((n, d)))
    scores = component_scores(np.full(k, 1 / k), np.zeros((k, d)), np.stack([np.eye(d)] * k))
    compiled = jax.jit(jax.value_and_grad(sum_log_density)).lower(scores, rows).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes
    assert temporary < 0.05 * 8 * n * n_features


@pytest.mark.parametrize("size", [1, 2, 5, 11])
def test_inverse_of_triangular_matrices(size):
    tril = np.tril(np.random.default_rng(1).uniform(0.5, 1.5, (3, size, size)))
    expected = np.stack([solve_triangular(one, np.eye(size), lower=True) for one in tril])
    np.testing.assert_allclose(inverse_tril(jnp.asarray(tril)), expected, rtol=1e-9, atol=1e-12)

    def total(tril):
        return jnp.sum(jnp.sin(inverse_tril(tril)))

    def by_numpy(tril):
        return jnp.sum(jnp.sin(jnp.linalg.inv(tril)))

    ours, theirs = jax.grad(total)(tril), jax.grad(by_numpy)(tril)
    np.testing.assert_allclose(np.tril(ours), np.tril(theirs), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_far_apart_means_keep_the_difference_of_two_log_likelihoods(precision):
    """Means 300 sds apart, N = 1e5: the error stays below 0.01 nat, in single precision too."""
    rng = np.random.default_rng(0)
    k, d, n = 8, 4, 100_000
    means = 300 * rng.standard_normal((k, d))
    labels = rng.integers(k, size=n)
    X = (means[labels] + rng.standard_normal((n, d))) / 300
    means = means / 300
    tril = np.broadcast_to(np.eye(d) / 300, (k, d, d))
    weights = np.full(k, 1 / k)
    moved = means + 1e-2 / 300
    rows = block_rows(X, precision=precision, groups=labels)
    assert rows.values.dtype == precision
    by_sum = [sum_log_density(component_scores(weights, m, tril), rows) for m in (means, moved)]
    by_row = [mixture.log_density(X, MixtureParameters(weights, m, tril)) for m in (means, moved)]
    exact = float(np.sum(np.asarray(by_row[1]) - np.asarray(by_row[0])))
    assert abs(exact) > 1
    assert abs(float(by_sum[1] - by_sum[0]) - exact) < (1e-4 if precision == "float64" else 0.01)
