"""Which rows belong together: the posterior probability that two rows share a component."""

import itertools
import logging
from collections.abc import Iterator
from typing import Any, Final, Literal

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from gmm_bayes._validation import check_choice, check_integer, check_seed
from gmm_bayes._vocabulary import OBS, OBS2, PRECISIONS
from gmm_bayes.core import mixture
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.machine import row_blocks
from gmm_bayes.machine.devices import double_precision
from gmm_bayes.posterior.partitions.label_draws import thinned
from gmm_bayes.posterior.streaming import announce, each_draw, rows_of

__all__ = ["coassignment"]

logger = logging.getLogger(__name__)

# Bytes: 20,000 rows squared in float64, 3.2 GB. Beyond, the caller has to choose.
_MOST_BYTES: Final = 8 * 20_000**2
# Numbers in the block of responsibilities that is held beside the result: 4 MiB in float64. With
# many rows there are more, as adding up many thin products takes longer than the products.
_BLOCK: Final = 2**19
_LEAST_DEPTH: Final = 512
# Side of the tiles of the product, of a few sizes that all tables share.
_SMALLEST_TILE, _LARGEST_TILE = 64, 1024
# Rows that are compared with landmarks at a time.
_ROWS_AT_ONCE: Final = 4096


def coassignment(
    fit: GMMFit,
    X: Any = None,
    *,
    landmarks: int | None = None,
    max_rows: int | None = None,
    num_draws: int | None = None,
    dtype: Literal["float64", "float32"] = "float64",
    seed: Any = 0,
) -> xr.DataArray:
    """Posterior probability that two rows came from one component.

    Parameters
    ----------
    fit : GMMFit
        Switched labels do not matter.
    X : array, pandas, polars or xarray object, shape (n_obs, n_features), optional
        New rows, in the units and columns of the fit. None takes the training rows.
    landmarks : int, optional
        Compare all rows with so many of them, picked at random, instead of with each other.
    max_rows : int, optional
        Compare so many rows, picked at random if there are more, instead of all.
    num_draws : int, optional
        Average over so many draws, evenly spaced. None takes all; the time is proportional.
    dtype : {"float64", "float32"}
        Of the result. In float32 it takes half the memory and about half the time, and errors are
        some 1e-6.
    seed : int in [0, 2**32) or JAX key
        Picks landmarks and rows.

    Returns
    -------
    xarray.DataArray
        Dims (obs, obs2), probabilities; both coordinates are row labels. Symmetric unless there are
        landmarks. The attribute `rows` says which rows were compared, `num_draws` how many draws.

    Raises
    ------
    TypeError, ValueError
        If `X` does not have the columns of the fit, an option is wrong, or the matrix would take
        more than 3.2 GB (20,000 rows in float64): then choose `max_rows` or `landmarks`.

    Notes
    -----
    Given the parameters the rows are independent, so that for two rows

        P(z_i = z_j | X) = E[ sum_k r_ik r_jk ],

    the mean over draws of products of responsibilities; the diagonal is 1. It is the posterior
    similarity matrix [1]_ without the noise of drawn labels. With R the responsibilities of all
    draws side by side it is R R' / S, which is added up over chunks of draws: beside the result
    only a block of responsibilities is held. Its size is logged first, and warned about above
    1 GiB. New rows do not change what is believed of the parameters.

    References
    ----------
    .. [1] A. Fritsch, K. Ickstadt (2009). Improved criteria for clustering based on the posterior
       similarity matrix. Bayesian Analysis 4.
    """
    check_choice(dtype, "dtype", PRECISIONS)
    words = check_seed(seed)
    for name, value in (("landmarks", landmarks), ("max_rows", max_rows), ("num_draws", num_draws)):
        if value is not None:
            check_integer(value, name, 1)
    if landmarks is not None and max_rows is not None:
        raise ValueError(
            f"landmarks and max_rows are two ways to compare fewer rows, got landmarks={landmarks} "
            f"and max_rows={max_rows}; give one of them"
        )
    values, index = rows_of(fit, X)
    rng = np.random.default_rng(np.random.SeedSequence(words))
    rows, columns, note = _compared(len(values), landmarks, max_rows, rng)
    shape = (len(rows), len(rows) if columns is None else len(columns))
    _refuse_huge(shape, dtype)
    announce("coassignment", shape, itemsize=np.dtype(dtype).itemsize)
    draws = thinned(fit.parameters(), num_draws)
    matrix = _product(draws, values[rows], columns, np.dtype(dtype))
    second = index[rows] if columns is None else index[columns]
    array = xr.DataArray(matrix, {OBS: index[rows], OBS2: second}, (OBS, OBS2), "coassignment")
    return array.assign_attrs(rows=note, num_draws=len(draws.weights))


def _compared(
    n_obs: int, landmarks: int | None, max_rows: int | None, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Positions of the rows, of the landmarks (None: the same rows), and both in words."""
    everything = np.arange(n_obs)
    if landmarks is not None and landmarks < n_obs:
        columns = np.sort(rng.choice(n_obs, landmarks, replace=False))
        note = f"all {n_obs:,} rows with {landmarks:,} of them, picked at random"
    elif max_rows is not None and max_rows < n_obs:
        everything = np.sort(rng.choice(n_obs, max_rows, replace=False))
        columns, note = None, f"{max_rows:,} of {n_obs:,} rows, picked at random"
    else:
        return everything, None, f"all {n_obs:,} rows"
    logger.info("coassignment compares %s", note)
    return everything, columns, note


def _refuse_huge(shape: tuple[int, int], dtype: str) -> None:
    """Raise with the ways out if the result is too large."""
    itemsize = np.dtype(dtype).itemsize
    size = itemsize * shape[0] * shape[1]
    if size <= _MOST_BYTES:
        return
    side = int((_MOST_BYTES / itemsize) ** 0.5)
    raise ValueError(
        f"coassignment must take at most {_MOST_BYTES / 1e9:.1f} GB, got {shape[0]:,} x "
        f"{shape[1]:,} probabilities in {dtype}, {size / 1e9:.1f} GB. Give "
        f"max_rows={min(5000, side)} to compare a random choice of rows (up to {side:,} fit), or "
        "landmarks=1000 to compare all rows with a random 1,000 of them; "
        "gb.partition(fit) needs no such matrix"
    )


def _product(
    draws: MixtureParameters, rows: np.ndarray, columns: np.ndarray | None, dtype: np.dtype
) -> np.ndarray:
    """Mean over draws of R R', or of R with its own rows at `columns`; ones for a row and itself.

    Parameters
    ----------
    draws : MixtureParameters
        With a leading axis of S draws.
    rows : ndarray, shape (N, D)
    columns : ndarray of int, shape (M,), optional
    dtype : dtype

    Returns
    -------
    ndarray, shape (N, N) or (N, M)
    """
    if columns is None:
        total = np.zeros((len(rows), len(rows)), dtype)
        _add(total, draws, rows, None)
        columns = np.arange(len(rows))
    else:
        total = np.zeros((len(rows), len(columns)), dtype)
        marks = rows[columns]
        for begin in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[begin : begin + _ROWS_AT_ONCE]
            both = np.concatenate([marks, some])
            _add(total[begin : begin + len(some)], draws, both, len(marks))
    total /= len(draws.weights)
    np.clip(total, 0, 1, out=total)
    total[columns, np.arange(len(columns))] = 1
    return total


def _add(
    total: np.ndarray, draws: MixtureParameters, rows: np.ndarray, n_marks: int | None
) -> None:
    """Add the sum over draws of R R', or of the later rows of R by its first `n_marks`."""
    side = _SMALLEST_TILE
    while side < min(len(rows), _LARGEST_TILE):
        side *= 2
    for block in _responsibilities(draws, rows, total.dtype):
        with double_precision():
            left = _tiles(block[:, n_marks or 0 :], side)
            right = left if n_marks is None else _tiles(block[:, :n_marks], side)
            for i, j in itertools.product(range(len(left)), range(len(right))):
                # One triangle of a symmetric matrix is enough: half the work.
                if i >= j or n_marks is not None:
                    target = total[i * side : (i + 1) * side, j * side : (j + 1) * side]
                    target += np.asarray(_gram(left[i], right[j]))[: len(target), : target.shape[1]]
    if n_marks is None:
        _mirror(total, side)


def _responsibilities(
    draws: MixtureParameters, rows: np.ndarray, dtype: np.dtype
) -> Iterator[np.ndarray]:
    """Responsibilities of chunks of draws above each other, (chunk * K, N)."""
    n_draws, k = draws.weights.shape
    depth = max(_BLOCK // len(rows), _LEAST_DEPTH)
    size = 2 ** int(np.log2(max(1, min(n_draws, depth // k))))
    for begin in range(0, n_draws, size):
        chunk = MixtureParameters(*(a[begin : begin + size] for a in draws))
        length = len(chunk.weights)
        if length < size:
            # Filled up with its own first draw, so that all chunks share a program.
            chunk = MixtureParameters(
                *(np.concatenate([a, np.repeat(a[:1], size - length, axis=0)]) for a in chunk)
            )
        stacked = row_blocks.map_rows(_by_row, chunk, rows, axis=2, numbers_per_row=size * k)
        stacked[length:] = 0
        yield stacked.reshape(size * k, len(rows)).astype(dtype, copy=False)


def _tiles(block: np.ndarray, side: int) -> list[jax.Array]:
    """Columns of a block in pieces of one width, the last one filled with zeros, on the device."""
    missing = -block.shape[1] % side
    pieces = [block[:, begin : begin + side] for begin in range(0, block.shape[1], side)]
    pieces[-1] = np.pad(pieces[-1], ((0, 0), (0, missing)))
    return [jax.device_put(piece) for piece in pieces]


def _mirror(matrix: np.ndarray, side: int) -> None:
    """Copy the tiles below the diagonal to those above it."""
    for i in range(0, len(matrix), side):
        for j in range(0, i, side):
            matrix[j : j + side, i : i + side] = matrix[i : i + side, j : j + side].T


@jax.jit
def _gram(left: jax.Array, right: jax.Array) -> jax.Array:
    """Sum over draws and components of products of responsibilities, shape (side, side)."""
    # Without it a GPU multiplies with three digits.
    return jnp.matmul(left.T, right, precision=jax.lax.Precision.HIGHEST)


def _transposed(X: jax.Array, parameters: MixtureParameters) -> jax.Array:
    return mixture.responsibilities(X, parameters).T


_by_row = each_draw(_transposed)
