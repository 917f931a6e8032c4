"""Everything that differs between the two ArviZ generations, in one place.

ArviZ 0.23 (Python 3.11) speaks InferenceData, ArviZ 1.x speaks xarray.DataTree. Inside, the package
keeps a DataTree.
"""

import warnings
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import logsumexp

from gmm_bayes._vocabulary import CHAIN, DRAW

__all__ = [
    "ess",
    "import_arviz",
    "nested_rhat",
    "rhat",
    "smooth_log_weights",
    "smoothed_weights",
    "to_native",
]


def import_arviz() -> Any:
    """Import ArviZ without its once-a-day announcement."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        import arviz

    return arviz


def to_native(tree: xr.DataTree) -> Any:
    """Return the tree as the installed ArviZ takes it."""
    az = import_arviz()
    return az.from_datatree(tree) if hasattr(az, "from_datatree") else tree


def rhat(draws: xr.Dataset) -> xr.Dataset:
    """Rank-normalised split R-hat of every entry (Vehtari et al. 2021)."""
    return import_arviz().rhat(draws, method="rank")


def nested_rhat(draws: xr.Dataset, num_superchains: int) -> xr.Dataset:
    """Rank-normalised split nested R-hat of every entry (Margossian et al. 2024).

    Neighbouring chains are of one superchain; all superchains have as many.
    """
    # In ArviZ itself from 1.0 on only.
    from arviz_stats.base import array_stats  # type: ignore[attr-defined]

    def nested(values: np.ndarray) -> np.ndarray:
        superchain = np.arange(values.shape[-2]) * num_superchains // values.shape[-2]
        return array_stats.rhat_nested(values, superchain_ids=superchain)

    return xr.apply_ufunc(nested, draws, input_core_dims=[[CHAIN, DRAW]])


def ess(draws: xr.Dataset, method: str) -> xr.Dataset:
    """Effective sample size of every entry, `method` "bulk" or "tail" (Vehtari et al. 2021)."""
    extra = {"prob": (0.05, 0.95)} if method == "tail" else {}
    return import_arviz().ess(draws, method=method, **extra)


def smoothed_weights(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Pareto-smoothed importance weights (S,) that sum to one, and the shape k of their tail."""
    smoothed, k = smooth_log_weights(log_weights[None])
    return np.exp(smoothed[0]), float(k[0])


def smooth_log_weights(
    log_weights: np.ndarray, r_eff: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Pareto-smooth importance weights (Vehtari et al. 2024), one line at a time.

    Parameters
    ----------
    log_weights : ndarray, shape (n, S)
        Logs of n sets of S weights.
    r_eff : float
        Effective draws per draw.

    Returns
    -------
    smoothed : ndarray, shape (n, S)
        Logs of weights that sum to one in each line.
    k : ndarray, shape (n,)
        Shape of the tail of each line.
    """
    az = import_arviz()
    if hasattr(az, "psislw"):
        smoothed, k = az.psislw(log_weights, reff=r_eff)
    else:
        from arviz_stats.base import array_stats  # type: ignore[attr-defined]

        # It is given log-likelihoods of what is left out: minus log weights.
        smoothed, k = array_stats.psislw(-log_weights, r_eff=r_eff)
    smoothed = np.asarray(smoothed)
    return smoothed - logsumexp(smoothed, axis=-1, keepdims=True), np.atleast_1d(k)
