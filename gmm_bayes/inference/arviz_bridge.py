"""Everything that differs between the two ArviZ generations, in one place.

ArviZ 0.23 (Python 3.11) speaks InferenceData, ArviZ 1.x speaks xarray.DataTree. Inside, the package
keeps a DataTree.
"""

import warnings
from typing import Any

import numpy as np
import xarray as xr

__all__ = ["ess", "import_arviz", "rhat", "smoothed_weights", "to_native"]


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


def ess(draws: xr.Dataset, method: str) -> xr.Dataset:
    """Effective sample size of every entry, `method` "bulk" or "tail" (Vehtari et al. 2021)."""
    extra = {"prob": (0.05, 0.95)} if method == "tail" else {}
    return import_arviz().ess(draws, method=method, **extra)


def smoothed_weights(log_weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Pareto-smoothed importance weights that sum to one, and the shape k of their tail."""
    az = import_arviz()
    if hasattr(az, "psislw"):
        smoothed, k = az.psislw(log_weights)
    else:
        from arviz_stats.base import array_stats

        # It is given log-likelihoods of what is left out: minus log weights.
        smoothed, k = array_stats.psislw(-log_weights)
    weights = np.exp(np.asarray(smoothed) - np.max(smoothed))
    return weights / weights.sum(), float(k)
