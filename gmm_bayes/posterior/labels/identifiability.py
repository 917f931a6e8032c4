"""Can the components be told apart once they are aligned, and how often had they moved?"""

from typing import Any

import numpy as np
from scipy.sparse.csgraph import connected_components

from gmm_bayes.posterior.labels.relabelling import LabelCosts

__all__ = ["exchange_gaps", "quality"]

# An exchange of two components is ambiguous in a draw when it costs less than a quarter of what it
# costs in the median draw. Where two components can be told apart, all draws stay well away from
# zero; where they cannot, the best order is the better half of a cost that is spread about zero,
# and 11 to 13 % of draws are this near to it (13 % of a normal distribution, 12.5 % of a uniform
# one).
_NEAR = 0.25
_AMBIGUOUS_SHARE = 0.05
# The least cost per row of the two components: 1 % of their rows, or 0.01 nats a row.
_LEAST_GAP = 0.01
# A component that holds less than a row, in the median draw, is empty.
_ONE_ROW = 1.0
# Numbers in an array.
_CHUNK = 2**22


def exchange_gaps(costs: np.ndarray, permutations: np.ndarray) -> np.ndarray:
    """How much more it costs to let two components change places, at least.

    Parameters
    ----------
    costs : ndarray, shape (S, K, K)
        Cost of component j, last axis, for place k.
    permutations : ndarray of int, shape (S, K)
        The best assignments.

    Returns
    -------
    ndarray, shape (S, K, K)
        For places k and l, the least cost of an order in which both take part in the change, alone
        or with others, above the best; infinity on the diagonal. The smallest entry of a draw is
        what its second best order costs more.

    Notes
    -----
    Every other order is a set of cycles of places, each of which takes the component of the next.
    The cheapest way from k to l and back, over all other places, is found by Floyd's and Warshall's
    recursion; no cycle has a negative cost because the assignment is the best.
    """
    aligned = np.take_along_axis(costs, permutations[:, None, :], axis=2)
    way = aligned - np.diagonal(aligned, axis1=1, axis2=2)[:, :, None]
    n_places = costs.shape[1]
    size = max(1, _CHUNK // n_places**2)
    for begin in range(0, len(way), size):
        some = way[begin : begin + size]
        for via in range(n_places):
            np.minimum(some, some[:, :, via, None] + some[:, None, via, :], out=some)
    gaps = way + way.swapaxes(1, 2)
    gaps[:, range(n_places), range(n_places)] = np.inf
    return np.maximum(gaps, 0)


def quality(found: LabelCosts, num_chains: int) -> dict[str, Any]:
    """How well the components are told apart, and how often they moved.

    Parameters
    ----------
    found : LabelCosts
        Of all draws, in the order of the chains.
    num_chains : int

    Returns
    -------
    dict
        `unambiguous`, `moved_within`, `moved_between`, `indistinct` and `empty`, as `align_labels`
        documents them.
    """
    rows = np.take_along_axis(found.rows, found.permutations, axis=1)
    sound = np.isfinite(rows).all(axis=1)
    held = np.median(rows[sound], axis=0) >= _ONE_ROW
    gaps = exchange_gaps(found.costs, found.permutations)
    per_row = gaps / (rows[:, :, None] + rows[:, None, :] + _ONE_ROW)
    near = per_row <= np.maximum(_NEAR * np.median(per_row[sound], axis=0), _LEAST_GAP)
    # Which of two empty components is which makes no difference.
    near &= held[:, None] | held
    # Infinity is not less than a quarter of itself, but it is no more either.
    near[:, range(len(held)), range(len(held))] = False
    _, group = connected_components(near.mean(axis=0) > _AMBIGUOUS_SHARE, directed=False)
    members = [np.flatnonzero(group == g).tolist() for g in range(group.max() + 1)]
    within, between = _moves(found.permutations[:, held], num_chains)
    return {
        "unambiguous": float((sound & ~near.any(axis=(1, 2))).mean()),
        "moved_within": within,
        "moved_between": between,
        "indistinct": [some for some in members if len(some) > 1],
        "empty": np.flatnonzero(~held).tolist(),
    }


def _moves(numbers: np.ndarray, num_chains: int) -> tuple[float, float]:
    """Share of steps of chains, and of pairs of chains, at which the numbering changes."""
    by_chain = numbers.reshape(num_chains, len(numbers) // num_chains, numbers.shape[1])
    steps = (np.diff(by_chain, axis=1) != 0).any(axis=2)
    commonest = []
    for chain in by_chain:
        orders, counts = np.unique(chain, axis=0, return_counts=True)
        commonest.append(orders[counts.argmax()])
    pairs = [(commonest[a] != commonest[b]).any() for a in range(num_chains) for b in range(a)]
    return (float(steps.mean()) if steps.size else 0.0, float(np.mean(pairs)) if pairs else 0.0)
