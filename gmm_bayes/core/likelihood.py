"""The hot kernel: scores -> log-sum-exp -> expected sufficient statistics.

There are two forms of one density. By row, it is whitened: `component_log_density`. As a sum over
rows it is one matrix product on the features phi(x) = lower(t t') of t = [1, x],

    scores_k = constants_k - |whiten_k t|^2 / 2 = theta_k phi(x),

and its gradient, responsibilities times features, is finished in the forward pass: the expected
second moments sum_n r_nk t_n t_n', which are the statistics of an E-step. A value with its gradient
costs 4 N K F flops, F = (D + 1)(D + 2) / 2, and one pass of exp over N x K numbers, and holds one
block of rows at a time.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from gmm_bayes._vocabulary import Precision
from gmm_bayes.core.sharding import Split, over_devices, sum_over_devices

__all__ = [
    "ROWS_PER_BLOCK",
    "ComponentScores",
    "RowBlocks",
    "blank_blocks",
    "block_rows",
    "component_log_density",
    "component_scores",
    "expected_moments",
    "fill_block",
    "inverse_tril",
    "log_sum_exp",
    "pack_scores",
    "rows_in_blocks",
    "sum_log_density",
    "weighted_log_density",
]

# Rows in a block, on a CPU: its features and scores stay in cache, and no product is so large that
# the library spreads it over threads, of which every chain has one already. Measured on 2 cores; in
# single precision a block costs two small products more.
ROWS_PER_BLOCK = {"float64": 500, "float32": 2000}
_HIGHEST = jax.lax.Precision.HIGHEST


class RowBlocks(NamedTuple):
    """Rows in blocks of equal length, features first, so that a product runs along the rows.

    Attributes
    ----------
    values : array, shape (n_blocks, D + 1, rows)
        The rows below a row of ones; in single precision, less the centre of their block.
    weights : array, shape (n_blocks, rows)
        How often a row counts: 1, and 0 for what fills a block.
    shift : array, shape (n_blocks, D + 1, D + 1), or None
        In single precision, the matrix that adds a block's centre to [1, x - centre].
    split : Split, optional
        How the blocks are spread over devices.
    """

    values: Any
    weights: Any
    shift: Any = None
    split: Split | None = None


class ComponentScores(NamedTuple):
    """Log of weight times density of each component, as a function of the row t = [1, x].

    Attributes
    ----------
    constants : array, shape (K,)
    whiten : array, shape (K, D, D + 1)
        score_k(t) = constants_k - |whiten_k t|^2 / 2.
    """

    constants: Any
    whiten: Any


def block_rows(
    X: np.ndarray,
    *,
    precision: Precision = "float64",
    groups: np.ndarray | None = None,
    rows_per_block: int | None = None,
    row_weights: np.ndarray | None = None,
    room: int = 0,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
    multiple: int = 1,
) -> RowBlocks:
    """Cut rows (N, D) into blocks.

    Parameters
    ----------
    X : ndarray, shape (N, D)
    precision : {"float64", "float32"}
        In single precision each block keeps its rows less their mean, without which the score of a
        row a hundred sds from the origin would lose its last digits.
    groups : ndarray of int, shape (N,), optional
        A block holds rows of one group only. In single precision the rows of a group should be
        close to each other.
    rows_per_block : int, optional
        None takes what is fastest on a CPU.
    row_weights : ndarray, shape (N,), optional
        How often each row counts; None counts each once.
    room : int
        Blocks for at least so many rows, so that tables with fewer share their programs. It is for
        tables without groups.
    transform : callable, optional
        What is done to the rows of each block first, so that no second table is held.
    multiple : int
        The number of blocks is a multiple of it; blocks are added that weigh nothing.
    """
    n_obs, n_features = X.shape
    order = np.arange(n_obs) if groups is None else np.argsort(groups, kind="stable")
    sizes = [n_obs] if groups is None else np.unique(groups, return_counts=True)[1]
    largest, wanted = max(room, *sizes), rows_per_block or ROWS_PER_BLOCK[precision]
    length = rows_in_blocks(largest, wanted, multiple if groups is None else 1)[1]
    n_blocks = [math.ceil(max(size, room) / length) for size in sizes]
    blocks = blank_blocks(_round_up(sum(n_blocks), multiple), n_features, length, precision)
    # One block at a time, for a table may fill much of the memory; what is left over in the last
    # block of a group stays zero and weighs nothing.
    begin = 0
    ends = np.repeat(np.cumsum(sizes), n_blocks)
    for block, end in enumerate(ends):
        picked = order[begin : min(begin + length, end)]
        if not len(picked):
            break
        rows = X[picked] if transform is None else transform(X[picked])
        fill_block(blocks, block, rows, 1.0 if row_weights is None else row_weights[picked])
        begin += len(picked)
    return blocks


def blank_blocks(n_blocks: int, n_features: int, length: int, precision: Precision) -> RowBlocks:
    """Blocks of rows that weigh nothing, NumPy arrays to be filled."""
    shift = None
    if precision == "float32":
        shift = np.stack([np.eye(n_features + 1)] * n_blocks)
    values = np.zeros((n_blocks, n_features + 1, length), precision)
    return RowBlocks(values, np.zeros((n_blocks, length)), shift)


def fill_block(
    blocks: RowBlocks, block: int, rows: np.ndarray, row_weights: np.ndarray | float = 1.0
) -> None:
    """Write rows (n, D) into one of some blank blocks, in single precision less their mean."""
    if blocks.shift is not None:
        centre = rows.mean(axis=0)
        blocks.shift[block, 1:, 0] = centre
        rows = rows - centre
    blocks.values[block, 0, : len(rows)] = 1
    blocks.values[block, 1:, : len(rows)] = rows.T
    blocks.weights[block, : len(rows)] = row_weights


def rows_in_blocks(n_obs: int, wanted: int, multiple: int = 1) -> tuple[int, int]:
    """Number of blocks, a multiple, and the rows in each, about as many as wanted."""
    n_blocks = _round_up(math.ceil(n_obs / wanted), multiple)
    return n_blocks, math.ceil(n_obs / n_blocks)


def _round_up(number: int, multiple: int) -> int:
    return math.ceil(number / multiple) * multiple


def component_scores(
    weights: jax.Array, means: jax.Array, scale_tril: jax.Array
) -> ComponentScores:
    """Scores of a mixture given by weights (K,), means (K, D) and Cholesky factors (K, D, D)."""
    inverse = inverse_tril(scale_tril)
    log_det = jnp.sum(jnp.log(jnp.diagonal(scale_tril, axis1=-2, axis2=-1)), axis=-1)
    constants = _log_weights(weights) - log_det - 0.5 * means.shape[-1] * math.log(2 * math.pi)
    centred = jnp.einsum("kij,kj->ki", inverse, means, precision=_HIGHEST)
    return ComponentScores(constants, jnp.concatenate([-centred[..., None], inverse], axis=-1))


def pack_scores(scores: ComponentScores) -> jax.Array:
    """Coefficients theta of the features lower(t t') for each component, shape (K, F)."""
    whiten = scores.whiten
    rows, columns = np.tril_indices(whiten.shape[-1])
    squares = jnp.einsum("kdi,kdj->kij", whiten, whiten, precision=_HIGHEST)
    # Off the diagonal, a product of two entries of t stands for two entries of the matrix.
    multiple = jnp.asarray(np.where(rows == columns, -0.5, -1.0), whiten.dtype)
    theta = squares[:, rows, columns] * multiple
    constants = scores.constants[:, None]
    return jnp.concatenate([theta[:, :1] + constants, theta[:, 1:]], axis=1)


@jax.custom_vjp
def sum_log_density(scores: ComponentScores, rows: RowBlocks) -> jax.Array:
    """Log density of the mixture summed over all rows, a scalar in nats.

    Parameters
    ----------
    scores : ComponentScores
        Differentiable, in reverse mode; the rows are data.
    rows : RowBlocks
    """
    return expected_moments(scores, rows)[0]


def expected_moments(
    scores: ComponentScores, rows: RowBlocks, *, hard: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Return the summed log density and the expected second moments, the statistics of an E-step.

    Parameters
    ----------
    scores : ComponentScores
    rows : RowBlocks
    hard : bool
        Give each row wholly to its component of largest score, as k-means does. The log density is
        then that of the rows together with these labels.

    Returns
    -------
    log_density : array, shape ()
    moments : array, shape (K, D + 1, D + 1)
        sum_n r_nk t_n t_n' of t = [1, x]: each component's count, sum and sum of products.
    """
    if rows.split is not None and not rows.split.inside:
        return over_devices(partial(expected_moments, hard=hard), scores, rows)
    if rows.shift is None:
        theta = pack_scores(scores)
        sums = _sum_blocks(lambda block: _block_statistics(theta, block, hard), rows)
        total, statistics = sum_over_devices(sums, rows.split)
        return total, _unpack(statistics)

    def about_its_centre(block: RowBlocks) -> tuple[jax.Array, jax.Array]:
        moved = scores._replace(whiten=jnp.matmul(scores.whiten, block.shift, precision=_HIGHEST))
        theta = pack_scores(moved).astype(block.values.dtype)
        total, statistics = _block_statistics(theta, block, hard)
        moments = _unpack(statistics.astype(scores.whiten.dtype))
        back = jnp.matmul(block.shift, moments, precision=_HIGHEST)
        return total, jnp.matmul(back, block.shift.T, precision=_HIGHEST)

    total, moments = _sum_blocks(about_its_centre, rows)
    if rows.split is None:
        return total, moments
    lower = np.tril_indices(moments.shape[-1])
    total, statistics = sum_over_devices((total, moments[:, *lower]), rows.split)
    return total, _unpack(statistics)


def _sum_blocks(of_block: Callable[[RowBlocks], Any], rows: RowBlocks) -> Any:
    """Add up a function of every block, holding one block at a time."""
    first = jax.tree.map(lambda a: a[0], rows)
    if rows.values.shape[0] == 1:
        return of_block(first)
    zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(of_block, first))

    def add(running: Any, block: RowBlocks) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, running, of_block(block)), None

    return jax.lax.scan(add, zero, rows)[0]


def _block_statistics(
    theta: jax.Array, block: RowBlocks, hard: bool
) -> tuple[jax.Array, jax.Array]:
    """Log density of the rows of one block, and responsibilities times features, (K, F)."""
    features = _features(block.values)
    scores = jnp.matmul(theta, features, precision=_HIGHEST)
    largest = jnp.max(scores, axis=0)
    if hard:
        # The first of equal scores, as argmax and k-means take it.
        chosen = jnp.arange(len(scores))[:, None] == jnp.argmax(scores, axis=0)
        shares, total = chosen.astype(scores.dtype), jnp.ones_like(largest)
    else:
        shares = jnp.exp(scores - largest)
        total = jnp.sum(shares, axis=0)
    # The sum over rows is taken in the precision of the weights, which is double.
    log_density = jnp.sum(block.weights * (largest + jnp.log(total)).astype(block.weights.dtype))
    shares = shares * (block.weights.astype(total.dtype) / total)
    return log_density, jnp.matmul(shares, features.T, precision=_HIGHEST)


def _features(values: jax.Array) -> jax.Array:
    """lower(t t') of t = [1, x], shape (F, rows); no concatenation, which is slow on a CPU."""
    rows, columns = np.tril_indices(values.shape[0])
    return values[rows] * values[columns]


def _unpack(statistics: jax.Array) -> jax.Array:
    """Symmetric matrices (K, D + 1, D + 1) from their packed lower triangles (K, F)."""
    size = (math.isqrt(8 * statistics.shape[-1] + 1) - 1) // 2
    place = np.zeros((size, size), dtype=int)
    rows, columns = np.tril_indices(size)
    place[rows, columns] = place[columns, rows] = np.arange(len(rows))
    return statistics[:, place]


def _forward(scores: ComponentScores, rows: RowBlocks) -> tuple[jax.Array, ComponentScores]:
    total, moments = expected_moments(scores, rows)
    gradient = -jnp.matmul(scores.whiten, moments, precision=_HIGHEST)
    return total, ComponentScores(moments[:, 0, 0], gradient)


def _backward(gradient: ComponentScores, cotangent: jax.Array) -> tuple[ComponentScores, None]:
    return jax.tree.map(lambda g: cotangent * g, gradient), None


sum_log_density.defvjp(_forward, _backward)


@jax.custom_jvp
@jax.jit
def inverse_tril(tril: jax.Array) -> jax.Array:
    """Inverse of lower triangular matrices, shape (..., D, D), one column after another.

    Written out because XLA's own solver calls a BLAS whose threads spin: on a busy machine 0.1 ms
    became 40. The jit is for callers who are not in one.
    """
    size = tril.shape[-1]
    diagonal = jnp.diagonal(tril, axis1=-2, axis2=-1)
    unit = jnp.tril(tril / diagonal[..., :, None], -1)
    inverse = jnp.broadcast_to(jnp.eye(size, dtype=tril.dtype), tril.shape)
    for j in range(size - 1):
        inverse = inverse - unit[..., :, j, None] * inverse[..., None, j, :]
    return inverse / diagonal[..., None, :]


@inverse_tril.defjvp
def _inverse_tril_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (tril,), (change,) = primals, tangents
    inverse = inverse_tril(tril)
    product = jnp.matmul(inverse, jnp.matmul(jnp.tril(change), inverse, precision=_HIGHEST))
    return inverse, -product


def component_log_density(X: jax.Array, means: jax.Array, scale_tril: jax.Array) -> jax.Array:
    """Log density of each row under each normal component.

    Parameters
    ----------
    X : array, shape (N, D)
    means : array, shape (K, D)
    scale_tril : array, shape (K, D, D)
        Lower Cholesky factors of the covariances.

    Returns
    -------
    array, shape (N, K)
        log N(x_n; mu_k, L_k L_k'), in nats; the density has units of 1 / (units of X)^D.
    """
    n_features = X.shape[-1]
    # A centre far from the origin would cancel away in x'P - mu'P; it drops out of the difference.
    centre = jax.lax.stop_gradient(means.mean(axis=0))
    whiten = inverse_tril(scale_tril)
    z = jnp.einsum("nd,ked->kne", X - centre, whiten, precision=_HIGHEST)
    z_mean = jnp.einsum("kd,ked->ke", means - centre, whiten, precision=_HIGHEST)
    squared = jnp.sum((z - z_mean[:, None, :]) ** 2, axis=-1).T
    log_det = jnp.sum(jnp.log(jnp.diagonal(scale_tril, axis1=-2, axis2=-1)), axis=-1)
    return -0.5 * (n_features * math.log(2 * math.pi) + squared) - log_det


def weighted_log_density(log_components: jax.Array, weights: jax.Array) -> jax.Array:
    """Add the log weights: log pi_k + log N(x_n; k), shape (N, K)."""
    return log_components + _log_weights(weights)


def log_sum_exp(scores: jax.Array) -> jax.Array:
    """Log-sum-exp over components, shape (N, K) -> (N,)."""
    return logsumexp(scores, axis=-1)


def _log_weights(weights: jax.Array) -> jax.Array:
    # An exact zero is raised to the smallest normal number, as NumPyro does, because the gradient
    # of its log is not a number.
    return jnp.log(jnp.maximum(weights, jnp.finfo(weights.dtype).tiny))
