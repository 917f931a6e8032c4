"""Sums over all numberings of the components: the likelihood is blind to them, a prior may not be.

The prior of a numbering differs from that of another one in two places only: each mean has a centre
of its own, and each weight may have a concentration of its own. Scales and correlations are
exchangeable, or there is just one of them.
"""

import numpy as np
from scipy.sparse.csgraph import connected_components

from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.model.priors import PriorArrays

__all__ = ["log_permanent", "log_prior_ratios", "numbering_weights"]

# Numbers held at once.
_CHUNK = 2**22
# A component that is in a place in fewer of a chain's draws has strayed, and not moved there.
_STRAY_SHARE = 0.01


def log_prior_ratios(draws: MixtureParameters, prior: PriorArrays) -> np.ndarray:
    """Log of how much more probable component j is with the prior of component k than with its own.

    Parameters
    ----------
    draws : MixtureParameters
        NumPy arrays with a leading axis of S draws.
    prior : PriorArrays
        In the units of the draws.

    Returns
    -------
    ndarray, shape (S, K, K)
        Entry (j, k) for the normal densities of the means and the powers of the weights, which have
        one normalising constant for all numberings; zero on the diagonal.
    """
    centres, means = (
        np.linalg.solve(prior.mean_scale_tril, np.asarray(a)[..., None])[..., 0]
        for a in (prior.mean_loc, draws.means)
    )
    power = np.asarray(prior.weight_concentration)
    log_weights = np.log(np.maximum(draws.weights, np.finfo(float).tiny))
    # What depends on j alone is the same in all of a row.
    logs = means @ centres.T - 0.5 * (centres**2).sum(axis=1) + power * log_weights[..., None]
    return logs - np.diagonal(logs, axis1=1, axis2=2)[..., None]


def log_permanent(logs: np.ndarray) -> np.ndarray:
    """Log of the permanents of matrices of positive entries, whose logs are given.

    Parameters
    ----------
    logs : ndarray, shape (S, K, K)

    Returns
    -------
    ndarray, shape (S,)

    Notes
    -----
    By dynamic programming over sets of columns: what the first |C| rows make of the columns C is
    the sum over k in C of what the rows before make of C without k, times the entry of row |C| in
    column k. All terms are positive and stay logs, so nothing cancels or overflows; it takes
    2^(K - 1) K steps, not K!.
    """
    n_draws, k, _ = logs.shape
    out = np.empty(n_draws)
    size = max(1, _CHUNK >> k)
    for begin in range(0, n_draws, size):
        # Entries (row, column, draw), so that a step runs along draws.
        entries = np.moveaxis(logs[begin : begin + size], 0, -1)
        sums = np.zeros((1 << k, entries.shape[-1]))
        for chosen in range(1, 1 << k):
            columns = [c for c in range(k) if chosen >> c & 1]
            row = len(columns) - 1
            terms = [sums[chosen ^ (1 << c)] + entries[row, c] for c in columns]
            sums[chosen] = np.logaddexp.reduce(terms)
        out[begin : begin + size] = sums[-1]
    return out


def numbering_weights(
    logs: np.ndarray, all_numberings: np.ndarray, came_from: np.ndarray
) -> np.ndarray:
    """Importance weights that make up for the numberings to which a chain never went.

    Parameters
    ----------
    logs : ndarray, shape (n_draws, K, K)
        `log_prior_ratios` of one chain's renumbered draws.
    all_numberings : ndarray, shape (n_draws,)
        `log_permanent` of them.
    came_from : ndarray of int, shape (n_draws, K)
        The permutations that renumbered them.

    Returns
    -------
    ndarray, shape (n_draws,)
        Of mean one.

    Notes
    -----
    The posterior of a renumbered mixture is its likelihood times the sum of the prior over all
    numberings. A chain that stayed with some of them has drawn from the likelihood times the sum
    over these. The ratio is the weight: one where the chain went everywhere, or where the prior is
    the same for all numberings, or as good as zero for those not visited. Components that changed
    places with each other, directly or by way of others, are taken to have done so in every order.
    """
    n_draws, k = came_from.shape
    visits = np.array([(came_from == place).sum(axis=0) for place in range(k)]).T
    went = visits > _STRAY_SHARE * n_draws
    # Components and places as the nodes of a graph.
    graph = np.block([[np.zeros((k, k)), went], [went.T, np.zeros((k, k))]])
    n_groups, group = connected_components(graph, directed=False)
    if n_groups == 1:
        return np.ones(n_draws)
    reached = group[:k, None] == group[k:]
    weights = all_numberings - log_permanent(np.where(reached, logs, -np.inf))
    weights = np.exp(weights - weights.max())
    return weights / weights.mean()
