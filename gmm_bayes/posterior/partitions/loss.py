"""How far apart partitions are: the counts that a candidate shares with every label draw."""

from typing import Final

import numpy as np

__all__ = ["BINDER", "LOSSES", "VI", "SharedRows", "growth", "loss_scale"]

VI: Final = "vi"
BINDER: Final = "binder"
LOSSES: Final = (VI, BINDER)


def growth(loss: str, most: int) -> np.ndarray:
    """The function g of a number of rows 0, ..., most that a loss is made of.

    With n_a rows in cluster a of the candidate, m_k in cluster k of the draw and t_ak in both,

        loss = scale * (sum_a g(n_a) + sum_k g(m_k) - 2 sum_ak g(t_ak)),

    where g(n) = n log2 n for the variation of information, in bits, and n^2 for Binder's loss.
    """
    n = np.arange(most + 1, dtype=float)
    if loss == BINDER:
        return n * n
    return n * np.log2(np.maximum(n, 1))


def loss_scale(loss: str, n_obs: int) -> float:
    """What the sums are multiplied by: shares of rows, or of pairs of rows."""
    if loss == BINDER:
        return 1 / max(n_obs * (n_obs - 1), 1)
    return 1 / n_obs


class SharedRows:
    """A candidate partition and how many rows each of its clusters shares with those of the draws.

    Moving a row changes one count per draw, so that no matrix of rows by rows is needed.

    Parameters
    ----------
    draws : ndarray of int, shape (N, S)
        Labels of the rows under S draws, in 0 ... K - 1.
    loss : {"vi", "binder"}
    max_clusters : int
        C, how many clusters the candidate may have.

    Attributes
    ----------
    labels : ndarray of int, shape (N,)
        Cluster of each row, -1 for rows that have not been placed.
    sizes : ndarray of int, shape (C,)
    counts : ndarray of int, shape (S * K, C)
        Rows that are in cluster k of draw s and in a cluster of the candidate, at s * K + k.
    """

    def __init__(self, draws: np.ndarray, loss: str, max_clusters: int) -> None:
        self.draws, self.max_clusters = draws, max_clusters
        self.n_obs, self.n_draws = draws.shape
        self.k = int(draws.max()) + 1
        self.scale = loss_scale(loss, self.n_obs)
        # One more than there are rows: the cost of adding a row is asked of a full cluster too.
        self.g = growth(loss, self.n_obs + 1)
        self.step = np.diff(self.g)
        self._first = np.arange(self.n_draws) * self.k
        self._average = np.full(self.n_draws, 2 / self.n_draws)
        self._near = np.empty((self.n_draws, max_clusters))
        self.reset(np.full(self.n_obs, -1))

    def reset(self, labels: np.ndarray) -> None:
        """Start from these labels, in -1 ... C - 1."""
        self.labels = labels.astype(np.int64)
        placed = np.flatnonzero(labels >= 0)
        mine, cells = self.labels[placed], self.k * self.max_clusters
        self.sizes = np.bincount(mine, minlength=self.max_clusters)
        self.counts = np.concatenate(
            [
                np.bincount(column * self.max_clusters + mine, minlength=cells)
                for column in self.draws[placed].T.astype(np.int64)
            ]
        ).reshape(-1, self.max_clusters)
        # Beside every count, what one row more would add to the loss.
        self._steps = self.step[self.counts]

    def costs(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Loss of putting a row into each cluster, less a constant, shape (C,); its cells (S,)."""
        cells = self._first + self.draws[row]
        np.take(self._steps, cells, axis=0, out=self._near, mode="clip")
        costs = self.step[self.sizes] - self._average @ self._near
        own = self.labels[row]
        if own >= 0:
            # As if it had been taken out.
            without = self.step[self.counts[cells, own] - 1]
            costs[own] = self.step[self.sizes[own] - 1] - self._average @ without
        return costs, cells

    def move(self, row: int, cluster: int, cells: np.ndarray) -> None:
        """Put a row into another cluster."""
        own = self.labels[row]
        if own >= 0:
            self._add(own, cells, -1)
        self._add(cluster, cells, 1)
        self.labels[row] = cluster

    def _add(self, cluster: int, cells: np.ndarray, change: int) -> None:
        self.sizes[cluster] += change
        changed = self.counts[cells, cluster] + change
        self.counts[cells, cluster] = changed
        self._steps[cells, cluster] = self.step[changed]

    def merge(self, cluster: int, other: int) -> None:
        """Put all rows of `other` into `cluster`."""
        self.labels[self.labels == other] = cluster
        self.sizes[cluster] += self.sizes[other]
        self.counts[:, cluster] += self.counts[:, other]
        self.sizes[other] = self.counts[:, other] = 0
        for changed in (cluster, other):
            self._steps[:, changed] = self.step[self.counts[:, changed]]

    def merge_cost(self, cluster: int, other: int) -> float:
        """Change of the loss, without its scale, if two clusters became one."""
        sizes, counts = self.sizes, self.counts
        together = self.g[counts[:, cluster] + counts[:, other]].sum()
        apart = self.g[counts[:, cluster]].sum() + self.g[counts[:, other]].sum()
        change = self.g[sizes[cluster] + sizes[other]]
        change -= self.g[sizes[cluster]] + self.g[sizes[other]]
        return float(change - 2 * (together - apart) / self.n_draws)

    def losses(self) -> np.ndarray:
        """Loss between the candidate, all rows placed, and every draw, shape (S,)."""
        in_draw = self.counts.sum(axis=1).reshape(self.n_draws, self.k)
        shared = self.g[self.counts].sum(axis=1).reshape(self.n_draws, self.k).sum(axis=1)
        total = self.g[self.sizes].sum() + self.g[in_draw].sum(axis=1) - 2 * shared
        # Rounding leaves something of equal partitions.
        return np.maximum(self.scale * total, 0.0)
