"""The partition of least expected loss, by greedy search from several starts."""

import itertools
from typing import Final

import numpy as np

from gmm_bayes.posterior.partitions.loss import SharedRows

__all__ = ["renumbered", "search"]

# Rows that the starts are compared on: with more, the best start is carried over to all of them.
_MOST_ROWS: Final = 2000
_MOST_SWEEPS: Final = 100
# A move must improve the sum over rows by more than rounding, or two clusters could swap for ever.
_LEAST_GAIN: Final = 1e-9


def search(
    draws: np.ndarray, loss: str, max_clusters: int, num_starts: int, rng: np.random.Generator
) -> SharedRows:
    """Find a partition with a small mean loss to the label draws.

    Parameters
    ----------
    draws : ndarray of int, shape (N, S)
    loss : {"vi", "binder"}
    max_clusters, num_starts : int
    rng : numpy.random.Generator

    Returns
    -------
    SharedRows
        The best candidate: no row that moves and no two clusters that merge make it better.
    """
    n_obs = len(draws)
    rows = np.arange(n_obs)
    if n_obs > _MOST_ROWS:
        rows = rng.choice(n_obs, _MOST_ROWS, replace=False)
    candidate = SharedRows(draws[rows], loss, max_clusters)
    best, least = candidate.labels, np.inf
    for number in range(num_starts):
        _start(candidate, rng, from_draw=number % 2 == 1)
        _descend(candidate, rng)
        expected = candidate.losses().mean()
        if expected < least - 1e-12:
            best, least = candidate.labels.copy(), expected
    labels = np.full(n_obs, -1)
    labels[rows] = best
    candidate = SharedRows(draws, loss, max_clusters)
    candidate.reset(labels)
    _place(candidate, rng)
    _descend(candidate, rng)
    return candidate


def renumbered(labels: np.ndarray) -> np.ndarray:
    """The same clusters, numbered 0, 1, ... from the largest; ties by their first row."""
    _, first, inverse, sizes = np.unique(
        labels, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort((first, -sizes))
    number = np.empty(len(order), int)
    number[order] = np.arange(len(order))
    return number[inverse]


def _start(candidate: SharedRows, rng: np.random.Generator, *, from_draw: bool) -> None:
    """One of the draws, or rows placed one after the other in a random order."""
    labels = np.full(candidate.n_obs, -1)
    if from_draw:
        labels = renumbered(candidate.draws[:, rng.integers(candidate.n_draws)])
        # The largest clusters are kept, the rows of the others placed anew.
        labels[labels >= candidate.max_clusters] = -1
    candidate.reset(labels)
    _place(candidate, rng)


def _place(candidate: SharedRows, rng: np.random.Generator) -> None:
    for row in rng.permutation(np.flatnonzero(candidate.labels < 0)):
        costs, cells = candidate.costs(row)
        candidate.move(row, int(costs.argmin()), cells)


def _descend(candidate: SharedRows, rng: np.random.Generator) -> None:
    """Move rows, then merge clusters, until neither makes the expected loss smaller."""
    for _ in range(_MOST_SWEEPS):
        moved = _sweep(candidate, rng)
        if not moved and not _merge(candidate):
            return


def _sweep(candidate: SharedRows, rng: np.random.Generator) -> bool:
    """Offer every row a better cluster, in a random order; whether any took it."""
    moved = False
    for row in rng.permutation(candidate.n_obs):
        costs, cells = candidate.costs(row)
        cluster = int(costs.argmin())
        if costs[cluster] < costs[candidate.labels[row]] - _LEAST_GAIN:
            candidate.move(row, cluster, cells)
            moved = True
    return moved


def _merge(candidate: SharedRows) -> bool:
    """Merge the two clusters that gain most by it; whether there were any."""
    pairs = list(itertools.combinations(np.flatnonzero(candidate.sizes).tolist(), 2))
    costs = [candidate.merge_cost(*pair) for pair in pairs]
    if not costs or min(costs) >= -_LEAST_GAIN:
        return False
    candidate.merge(*pairs[int(np.argmin(costs))])
    return True
