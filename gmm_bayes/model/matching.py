"""Which component is which: draws matched to the components of one mixture."""

import numpy as np
from scipy.optimize import linear_sum_assignment

from gmm_bayes.core.bhattacharyya import bhattacharyya
from gmm_bayes.core.mixture import MixtureParameters

__all__ = ["match_costs", "match_to_pivot", "matched", "permuted"]

# Added to every weight, so that components without rows are told apart too. Without it their
# assignment would be left to rounding, and two numberings of one draw could both be the best.
_LEAST_WEIGHT = 0.01
# Numbers in an array of the distances' computation.
_CHUNK = 2**22
# Farther than any two components, and its sums are finite.
_FARTHEST = 1e100


def match_to_pivot(draws: MixtureParameters, pivot: MixtureParameters) -> np.ndarray:
    """Number the components of every draw as those of the pivot that they are closest to.

    Parameters
    ----------
    draws : MixtureParameters
        NumPy arrays with a leading axis of S draws: shapes (S, K), (S, K, D) and (S, K, D, D).
    pivot : MixtureParameters
        One mixture, shapes (K,), (K, D) and (K, D, D), in the same units.

    Returns
    -------
    ndarray of int, shape (S, K)
        Component k of the pivot is component `permutations[s, k]` of draw s; see `permuted`.

    Notes
    -----
    The assignment of least total cost [1]_, the cost of a pair of components being Bhattacharyya's
    distance of their normals times the mean of their weights plus 0.01. The distance does not
    depend on units. Renumbering a draw changes its permutation but not the result of `permuted`:
    for each mixture exactly one numbering is matched to 0, ..., K - 1, up to ties of measure zero.

    References
    ----------
    .. [1] D. F. Crouse (2016). On implementing 2D rectangular assignment algorithms. IEEE
       Transactions on Aerospace and Electronic Systems 52.
    """
    if np.shape(draws.means)[1] == 1:
        return np.zeros((len(draws.means), 1), int)
    return matched(match_costs(draws, pivot))


def matched(costs: np.ndarray) -> np.ndarray:
    """The assignment of least total cost for every draw.

    Parameters
    ----------
    costs : ndarray, shape (S, K, K)
        Cost of taking component j of a draw, last axis, for place k.

    Returns
    -------
    ndarray of int, shape (S, K)
        The component for each place.
    """
    return np.array([linear_sum_assignment(cost)[1] for cost in costs]).reshape(costs.shape[:2])


def match_costs(draws: MixtureParameters, pivot: MixtureParameters) -> np.ndarray:
    """What `match_to_pivot` minimises: costs (S, K, K) of a component j, last axis, for place k."""
    n_draws, k, d = np.shape(draws.means)
    costs = np.empty((n_draws, k, k))
    size = max(1, _CHUNK // (k * d) ** 2)
    for begin in range(0, n_draws, size):
        some = MixtureParameters(*(np.asarray(a)[begin : begin + size] for a in draws))
        costs[begin : begin + size] = _costs(some, pivot)
    return costs


def permuted(draws: MixtureParameters, permutations: np.ndarray) -> MixtureParameters:
    """Renumber the components: component k of a result was `permutations[s, k]` of draw s.

    Parameters
    ----------
    draws : MixtureParameters
        Shapes (S, K), (S, K, D) and (S, K, D, D).
    permutations : ndarray of int, shape (S, K)

    Returns
    -------
    MixtureParameters
        Of the same shapes.
    """
    weights, means, scale_tril = map(np.asarray, draws)
    return MixtureParameters(
        np.take_along_axis(weights, permutations, axis=1),
        np.take_along_axis(means, permutations[:, :, None], axis=1),
        np.take_along_axis(scale_tril, permutations[:, :, None, None], axis=1),
    )


def _costs(draws: MixtureParameters, pivot: MixtureParameters) -> np.ndarray:
    """Cost (S, K, K) of taking component j of a draw, last axis, for component k of the pivot."""
    n_draws, k, d = draws.means.shape
    # Parameters far out may overflow; then the component is far from everything.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        distance = bhattacharyya(
            draws.means.reshape(-1, d),
            draws.scale_tril.reshape(-1, d, d),
            np.asarray(pivot.means),
            np.asarray(pivot.scale_tril),
        ).reshape(n_draws, k, k)
        share = (draws.weights[:, :, None] + pivot.weights) / 2 + _LEAST_WEIGHT
        cost = (share * distance).swapaxes(1, 2)
    return np.where(np.isfinite(cost), np.minimum(cost, _FARTHEST), _FARTHEST)
