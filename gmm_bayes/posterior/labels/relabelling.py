"""What it costs a draw to take one of its components for another: three rules.

Costs are sums over rows. For every draw they are one product of K x K numbers, of blocks of rows
and one draw at a time, so that draws x rows x components are never held.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np

from gmm_bayes.core import mixture
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.machine import row_blocks
from gmm_bayes.machine.devices import cpu_cores, double_precision
from gmm_bayes.model.matching import match_costs, matched, permuted
from gmm_bayes.posterior.streaming import mean_over_draws

__all__ = ["RULES", "LabelCosts"]

# Rows, or nats, by which the distance of the parameters decides where the rows say nothing: which
# of several empty components is which.
_TIE = 1e-3
_MOST_ROUNDS = 20


class LabelCosts(NamedTuple):
    """Assignment problems of all draws, and how they were solved.

    Attributes
    ----------
    costs : ndarray, shape (S, K, K)
        Cost of taking component j of a draw, last axis, for place k.
    permutations : ndarray of int, shape (S, K)
        The component for each place at least total cost.
    rows : ndarray, shape (S, K)
        Expected number of rows of the components of a draw, as the draw numbers them.
    """

    costs: np.ndarray
    permutations: np.ndarray
    rows: np.ndarray

    def numbered(self, order: np.ndarray) -> "LabelCosts":
        """The same with the places in another order, a permutation (K,)."""
        return LabelCosts(self.costs[:, order], self.permutations[:, order], self.rows)


def _ecr(X: np.ndarray, draws: MixtureParameters, best: int) -> LabelCosts:
    """Rows that agree with the labels of the draw of highest density (equivalence classes)."""
    pivot = MixtureParameters(*(a[best] for a in draws))
    labels = np.asarray(row_blocks.map_rows(_responsibilities, pivot, X)).argmax(axis=1)
    agreement = _sums(X, draws, np.eye(len(pivot.weights))[labels])
    costs = _finite(_by_parameters(draws, pivot) - agreement)
    return LabelCosts(costs, matched(costs), agreement.sum(axis=1))


def _stephens(X: np.ndarray, draws: MixtureParameters, best: int) -> LabelCosts:
    """Kullback-Leibler divergence of a draw's probabilities from their mean over aligned draws."""
    pivot = MixtureParameters(*(a[best] for a in draws))
    ties = _by_parameters(draws, pivot)
    permutations = matched(_finite(ties))
    sound = np.all([np.isfinite(a).all(axis=tuple(range(1, a.ndim))) for a in draws], axis=0)
    for _ in range(_MOST_ROUNDS):
        aligned = permuted(draws, permutations)
        mean = row_blocks.map_rows(_mean, MixtureParameters(*(a[sound] for a in aligned)), X)
        logs = np.log(np.maximum(mean, np.finfo(float).tiny))
        sums = _sums(X, draws, np.column_stack([-logs, np.ones(len(X))]))
        costs, before = _finite(ties + sums[:, :-1]), permutations
        permutations = matched(costs)
        if (permutations == before).all():
            break
    return LabelCosts(costs, permutations, sums[:, -1])


def _means(X: np.ndarray, draws: MixtureParameters, best: int) -> LabelCosts:
    """Distances of the parameters from those of the draw of highest density; no rows are read."""
    costs = len(X) * match_costs(draws, MixtureParameters(*(a[best] for a in draws)))
    return LabelCosts(costs, matched(costs), len(X) * np.asarray(draws.weights))


# By the names of Papastamoulis (2016), label.switching: an R package for dealing with the label
# switching problem in MCMC outputs, J. Stat. Software 69. Each takes the rows (N, D), all draws and
# the number of the draw of highest density.
RULES: dict[str, Callable[[np.ndarray, MixtureParameters, int], LabelCosts]] = {
    "ecr": _ecr,
    "stephens": _stephens,
    "means": _means,
}


def _by_parameters(draws: MixtureParameters, pivot: MixtureParameters) -> np.ndarray:
    """A small cost (S, K, K), bounded, that grows with the distance of the parameters."""
    distance = match_costs(draws, pivot)
    return _TIE * distance / (1 + distance)


def _finite(costs: np.ndarray) -> np.ndarray:
    """A draw that is not finite keeps its numbering: no order is better than another."""
    broken = ~np.isfinite(costs).all(axis=(1, 2))
    costs[broken] = 1 - np.eye(costs.shape[1])
    return costs


def _sums(X: np.ndarray, draws: MixtureParameters, targets: np.ndarray) -> np.ndarray:
    """Targets times responsibilities, summed over rows.

    Parameters
    ----------
    X : ndarray, shape (N, D)
    draws : MixtureParameters
        With a leading axis of S draws.
    targets : ndarray, shape (N, T)

    Returns
    -------
    ndarray, shape (S, T, K)
    """
    with double_precision():
        on_device = jax.device_put(MixtureParameters(*draws))

    def of_block(block: tuple[np.ndarray, int, int]) -> np.ndarray:
        rows, begin, length = block
        # What fills a block has no target, and adds nothing.
        wanted = np.zeros((len(rows), targets.shape[1]))
        wanted[:length] = targets[begin : begin + length]
        with double_precision():
            return np.asarray(_products(rows, wanted, on_device))

    blocks, begin = [], 0
    for rows, length in row_blocks.padded_blocks(X, 0):
        blocks.append((rows, begin, length))
        begin += length
    # A program of small products keeps one core busy.
    with ThreadPoolExecutor(cpu_cores()) as pool:
        return sum(pool.map(of_block, blocks), start=np.zeros(()))


@jax.jit
def _products(X: jax.Array, targets: jax.Array, draws: MixtureParameters) -> jax.Array:
    def one_draw(draw: MixtureParameters) -> jax.Array:
        return targets.T @ mixture.responsibilities(X, draw)

    return jax.lax.map(one_draw, draws)


_responsibilities = jax.jit(mixture.responsibilities)
_mean = mean_over_draws(mixture.responsibilities)
