"""Evaluate functions of rows in blocks of a few fixed sizes, which all tables share."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.machine.devices import double_precision

__all__ = ["map_rows", "padded_blocks"]

_LARGEST_BLOCK = 2048
_SMALLEST_BLOCK = 64
_LARGEST_ANSWER = 2**27


def map_rows(
    function: Callable[[Any, MixtureParameters], Any],
    parameters: MixtureParameters,
    rows: np.ndarray,
    *,
    axis: int = 0,
    numbers_per_row: int = 0,
) -> Any:
    """Apply a jitted function of (rows, parameters) to blocks of rows and join the answers.

    Parameters
    ----------
    function : callable
        From an array (block, D) and the parameters to arrays with `axis` for rows.
    parameters : MixtureParameters
        One mixture, or a stack of draws.
    rows : ndarray, shape (n_obs, n_features)
    axis : int
        The axis of the answers that counts rows.
    numbers_per_row : int
        Size of a row's answer when it holds all draws; shrinks the blocks.
    """
    with double_precision():
        parameters = jax.device_put(parameters)
        answers = [
            _cut(function(block, parameters), length, axis)
            for block, length in padded_blocks(rows, numbers_per_row)
        ]
    return jax.tree.map(lambda *parts: np.concatenate(parts, axis=axis), *answers)


def _cut(answers: Any, length: int, axis: int) -> Any:
    """Keep the answers to the first `length` rows of a block."""
    return jax.tree.map(lambda a: np.asarray(a).take(np.arange(length), axis=axis), answers)


def padded_blocks(rows: np.ndarray, numbers_per_row: int) -> Iterator[tuple[np.ndarray, int]]:
    """Blocks of rows, the last one filled up with its own first row, and their true lengths."""
    size = _SMALLEST_BLOCK
    while size < min(len(rows), _LARGEST_BLOCK) and size * numbers_per_row * 8 < _LARGEST_ANSWER:
        size *= 2
    for begin in range(0, len(rows), size):
        block = rows[begin : begin + size]
        filler = np.broadcast_to(block[:1], (size - len(block), rows.shape[1]))
        yield np.concatenate([block, filler]), len(block)
