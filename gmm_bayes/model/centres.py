"""Centres for the priors of the means: k-means of the rows."""

import warnings
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import numpy as np

from gmm_bayes._validation import check_integer, check_seed, column_spreads

__all__ = ["few_threads", "kmeans_centers"]

# Tables below this size are not worth a second thread.
_FEW_NUMBERS = 100_000


def kmeans_centers(
    X: np.ndarray,
    n_components: int,
    *,
    seed: int = 0,
    n_init: int = 10,
    row_weights: np.ndarray | None = None,
) -> np.ndarray:
    """Centroids of scikit-learn's k-means, the best of several starts, on columns of equal spread.

    Parameters
    ----------
    X : ndarray, shape (n_obs, n_features)
    n_components : int
    seed, n_init : int
    row_weights : ndarray, shape (n_obs,), optional

    Returns
    -------
    ndarray, shape (n_components, n_features)
        Sorted by the first column, then the next, so that they do not depend on the row order.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    seed = check_integer(seed, "seed", 0)
    check_seed(seed)
    loc, spread = X.mean(axis=0), column_spreads(X)
    scaled = X - loc
    scaled /= spread
    with warnings.catch_warnings(), few_threads(X):
        # Fewer distinct rows than components: two centres coincide, which is a fine prior.
        warnings.simplefilter("ignore", ConvergenceWarning)
        kmeans = KMeans(n_components, n_init=n_init, random_state=seed, copy_x=False)
        kmeans.fit(scaled, sample_weight=row_weights)
    centers = kmeans.cluster_centers_
    return loc + spread * centers[np.lexsort(np.round(centers, 8).T[::-1])]


def few_threads(X: np.ndarray) -> AbstractContextManager[Any]:
    """Context in which BLAS and OpenMP take one thread for a small table.

    On small products their threads spin rather than work: with four other processes on two cores,
    ten EM starts on 500 rows took 20 s instead of 0.5 s.
    """
    return _thread_pools().limit(limits=1 if X.size < _FEW_NUMBERS else None)


@cache
def _thread_pools() -> Any:
    """The thread pools of this process, which take longer to find than k-means of a small table."""
    # What is not loaded yet is not found.
    import sklearn.cluster  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
