"""Fewer draws, and labels of all rows drawn under each of them."""

import jax
import jax.numpy as jnp
import numpy as np

from gmm_bayes.core import mixture
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.machine.devices import double_precision

__all__ = ["draw_labels", "labels_of_rows", "thinned"]

_ROWS_PER_BLOCK = 1024


def thinned(draws: MixtureParameters, most: int | None) -> MixtureParameters:
    """All draws (S, ...), or `most` of them at even distances, so that all chains take part."""
    n_draws = len(draws.weights)
    if most is None or most >= n_draws:
        return draws
    picked = (np.arange(most) * n_draws) // most
    return MixtureParameters(*(values[picked] for values in draws))


def draw_labels(draws: MixtureParameters, rows: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Draw z_n ~ Categorical(r_n) once for every row under every draw.

    Parameters
    ----------
    draws : MixtureParameters
        With a leading axis of S draws.
    rows : ndarray, shape (N, D)
    key : ndarray of uint32, shape (2,)

    Returns
    -------
    ndarray of int8 or int16, shape (N, S)
        The labels of one row are beside each other.
    """
    n_draws, k = draws.weights.shape
    labels = np.empty((len(rows), n_draws), np.int8 if k <= 127 else np.int16)
    n_blocks = -(-len(rows) // _ROWS_PER_BLOCK)
    size = -(-len(rows) // n_blocks)
    with double_precision():
        on_device = jax.device_put(draws)
        for number in range(n_blocks):
            block = rows[number * size : (number + 1) * size]
            filler = np.repeat(rows[:1], size - len(block), axis=0)
            drawn = _draw(key, number, np.concatenate([block, filler]), on_device)
            labels[number * size : number * size + len(block)] = np.asarray(drawn).T[: len(block)]
    return labels


@jax.jit
def _draw(key: jax.Array, number: jax.Array, X: jax.Array, draws: MixtureParameters) -> jax.Array:
    """Labels of a block of rows, shape (S, rows)."""
    block_key = jax.random.fold_in(key, number)

    def one(numbered: tuple[jax.Array, MixtureParameters]) -> jax.Array:
        place, draw = numbered
        labels = labels_of_rows(jax.random.fold_in(block_key, place), X, draw)
        return labels.astype(jnp.int16)

    return jax.lax.map(one, (jnp.arange(len(draws.weights)), draws))


def labels_of_rows(key: jax.Array, X: jax.Array, draw: MixtureParameters) -> jax.Array:
    """Draw z_n ~ Categorical(r_n) for rows (N, D) under one mixture, shape (N,)."""
    ends = jnp.cumsum(mixture.responsibilities(X, draw), axis=1)
    uniform = jax.random.uniform(key, (len(X), 1))
    return (uniform * ends[:, -1:] >= ends[:, :-1]).sum(axis=1)
