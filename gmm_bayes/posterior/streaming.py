"""Run over all draws and all rows without ever holding draws x rows x components.

Rows go in blocks of a few fixed sizes, so that tables of every length share the same programs;
within a block, draws are scanned one by one.
"""

import logging
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gmm_bayes._validation import check_columns, check_data, check_near
from gmm_bayes._vocabulary import OBS
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.errors import InsufficientMemoryError, LabelSwitchingError, LargeArrayWarning
from gmm_bayes.inference.result.gmm_fit import GMMFit, check_fit
from gmm_bayes.inference.verdict.measures import labels_switched
from gmm_bayes.machine import row_blocks
from gmm_bayes.machine.memory import available_memory

__all__ = [
    "announce",
    "each_draw",
    "log_mean_over_draws",
    "map_rows",
    "mean_over_draws",
    "refuse_switched",
    "row_coords",
    "rows_of",
]

logger = logging.getLogger(__name__)

_LARGE_ARRAY = 2**30


def rows_of(fit: GMMFit, X: Any) -> tuple[np.ndarray, np.ndarray]:
    """Values (n_obs, n_features) and row labels: the training rows, or checked new ones."""
    check_fit(fit)
    if X is None:
        return fit.X.values, fit.X.coords[OBS].values
    table = check_data(X)
    rows = check_columns(table, fit.feature_names)
    check_near(rows, fit.X.values, fit.feature_names)
    return rows, table.index


def row_coords(fit: GMMFit, index: np.ndarray, *dims: str) -> dict[str, Any]:
    """Coordinates of a labelled answer: row labels, and those of the fit for `dims`."""
    coords = {dim: fit.posterior.coords[dim] for dim in dims if dim in fit.posterior.coords}
    return {OBS: index, **coords}


def map_rows(
    function: Callable[[Any, MixtureParameters], Any],
    fit: GMMFit,
    rows: np.ndarray,
    *,
    axis: int = 0,
    numbers_per_row: int = 0,
) -> Any:
    """Apply a jitted function of (rows, all draws) to blocks of rows and join the answers.

    Parameters
    ----------
    function : callable
        From an array (block, D) and stacked parameters (S, ...) to arrays with `axis` for rows.
    fit : GMMFit
    rows : ndarray, shape (n_obs, n_features)
    axis, numbers_per_row : int
        The axis of the answers that counts rows; the size of a row's answer that holds all draws.
    """
    return row_blocks.map_rows(
        function, fit.parameters(), rows, axis=axis, numbers_per_row=numbers_per_row
    )


PerDraw = Callable[[Any, MixtureParameters], jax.Array]


def each_draw(per_draw: PerDraw) -> PerDraw:
    """Compile a function of (rows, one draw) into one of (rows, all draws), stacked: (S, ...)."""

    @jax.jit
    def stacked(X: jax.Array, draws: MixtureParameters) -> jax.Array:
        return jax.lax.map(lambda draw: per_draw(X, draw), draws)

    return stacked


def mean_over_draws(per_draw: PerDraw) -> PerDraw:
    """Compile a function of (rows, one draw) into its mean over all draws, one at a time."""

    @jax.jit
    def mean(X: jax.Array, draws: MixtureParameters) -> jax.Array:
        def add(total: jax.Array, draw: MixtureParameters) -> tuple[jax.Array, None]:
            return total + per_draw(X, draw), None

        one = jax.tree.map(lambda a: a[0], draws)
        zero = jnp.zeros_like(jax.eval_shape(per_draw, X, one))
        return jax.lax.scan(add, zero, draws)[0] / draws.weights.shape[0]

    return mean


def log_mean_over_draws(per_draw: PerDraw) -> PerDraw:
    """Compile a log density of (rows, one draw) into the log of its mean density over all draws.

    A running log-sum-exp, so that logs far below the smallest number stay logs.
    """

    @jax.jit
    def log_mean(X: jax.Array, draws: MixtureParameters) -> jax.Array:
        def add(total: jax.Array, draw: MixtureParameters) -> tuple[jax.Array, None]:
            return jnp.logaddexp(total, per_draw(X, draw)), None

        one = jax.tree.map(lambda a: a[0], draws)
        nothing = jnp.full_like(jax.eval_shape(per_draw, X, one), -jnp.inf)
        return jax.lax.scan(add, nothing, draws)[0] - jnp.log(draws.weights.shape[0])

    return log_mean


def announce(
    what: str, shape: tuple[int, ...], itemsize: int = 8, *, instead: str | None = None
) -> None:
    """Say how large an explicitly requested array is before it is made.

    Parameters
    ----------
    what : str
    shape : tuple of int
    itemsize : int
    instead : str, optional
        A way that needs no such array.

    Raises
    ------
    InsufficientMemoryError
        If it cannot be held: the system would end the process without a word.
    """
    size = itemsize * int(np.prod(shape, dtype=np.float64))
    message = f"{what} of shape {shape} takes {size / 2**20:,.0f} MiB"
    room = available_memory(None)
    # Blocks of rows are joined at the end: for a moment it is there twice.
    if room is not None and 2 * size > room:
        raise InsufficientMemoryError(
            f"{message}, twice that while it is made, and {room / 2**20:,.0f} MiB are free: give "
            f"fewer rows at a time, as X[:{_rows_that_fit(shape, size, room):,}]"
            + f"; or {instead}"
            * (instead is not None)
        )
    logger.info(message)
    if size > _LARGE_ARRAY:
        warnings.warn(message, LargeArrayWarning, stacklevel=3)


def _rows_that_fit(shape: tuple[int, ...], size: int, room: int) -> int:
    """How many rows fill a quarter of the memory; rows are the third axis, or the first."""
    n_rows = shape[2] if len(shape) > 2 else shape[0]
    return max(1, int(n_rows * room / (4 * size)))


def refuse_switched(fit: GMMFit, what: str) -> None:
    """Raise rather than average components that changed places, or cannot be told apart."""
    if not labels_switched(fit):
        return
    instead = (
        "use reduce=None for every draw by itself, or log_predictive_density, which does not "
        "depend on labels."
    )
    if fit.alignment is None:
        raise LabelSwitchingError(
            f"{what} averages over draws per component, but components changed places between "
            f"draws. Renumber them with gmm_bayes.align_labels(fit); or {instead}"
        )
    groups = "; ".join(" and ".join(map(str, group)) for group in fit.alignment["indistinct"])
    raise LabelSwitchingError(
        f"{what} averages over draws per component, but components {groups} cannot be told apart: "
        "other orders of theirs are as good. Fit fewer components, or give a prior that tells them "
        f"apart; or {instead}"
    )
