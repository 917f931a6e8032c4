"""Everything that differs between the two ArviZ generations, in one place.

ArviZ 0.23 (Python 3.11) speaks InferenceData, ArviZ 1.x speaks xarray.DataTree. Inside, the package
keeps a DataTree.
"""

import warnings
from importlib import import_module
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import logsumexp

__all__ = [
    "ess",
    "import_arviz",
    "nested_rhat",
    "power_scaling",
    "rhat",
    "smooth_log_weights",
    "smoothed_weights",
    "to_native",
]

# By how much a density is raised and lowered to see what the posterior does, as in the paper.
_POWERS = (0.99, 1.01)
# Numbers that are sorted together.
_CHUNK = 2**16


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


def nested_rhat(values: np.ndarray, num_superchains: int) -> np.ndarray:
    """Rank-normalised split nested R-hat (n,) of quantities (n, num_chains, num_samples) [1]_.

    Neighbouring chains are of one superchain; all superchains have as many.

    References
    ----------
    .. [1] C. C. Margossian, M. D. Hoffman, P. Sountsov, L. Riou-Durand, A. Vehtari, A. Gelman
       (2024). Nested R-hat. Bayesian Analysis.
    """
    # In ArviZ itself from 1.0 on only.
    superchain = np.arange(values.shape[1]) * num_superchains // values.shape[1]
    return _array_stats().rhat_nested(values, superchain_ids=superchain)


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
        # It is given log-likelihoods of what is left out: minus log weights.
        smoothed, k = _array_stats().psislw(-log_weights, r_eff=r_eff)
    smoothed = np.asarray(smoothed)
    return smoothed - logsumexp(smoothed, axis=-1, keepdims=True), np.atleast_1d(k)


def _array_stats() -> Any:
    """Functions of arrays, the same in both lines.

    Those of datasets take seconds to import in the older one, and power-scaling's break on a dim
    called component.
    """
    import_arviz()
    return import_module("arviz_stats.base").array_stats


def power_scaling(values: np.ndarray, log_density: np.ndarray) -> np.ndarray:
    """How much draws change when a factor of the joint density is raised to a power.

    Parameters
    ----------
    values : ndarray, shape (n, num_chains, num_samples)
        Draws of n quantities.
    log_density : ndarray, shape (num_chains, num_samples)
        Log of the factor: of a prior, or of the likelihood.

    Returns
    -------
    ndarray, shape (n,)
        The slope, at power 1, of the cumulative Jensen-Shannon distance from the posterior over
        log2 of the power (Kallioinen, Paananen, Buerkner, Vehtari 2024), by importance weights.
        NaN for draws that are not finite, and where the largest weights are all the same: chains
        that hardly moved.
    """
    array_stats = _array_stats()
    if not np.isfinite(log_density).all():
        return np.full(len(values), np.nan)
    if np.ptp(log_density) == 0:
        return np.zeros(len(values))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # With few draws it complains of how few make a tail.
        warnings.simplefilter("ignore", UserWarning)
        try:
            lower, upper = (
                np.exp(array_stats.power_scale_lw(log_density, alpha=power, axis=(0, 1)))
                for power in _POWERS
            )
        except ValueError as error:
            if "tail" not in str(error):
                raise
            return np.full(len(values), np.nan)
    flat = values.reshape(len(values), -1)
    # So many quantities at once that their numbers stay in cache.
    size = max(1, _CHUNK // flat.shape[1])
    slopes = np.full(len(flat), np.nan)
    known = np.flatnonzero(np.isfinite(flat).all(axis=1))
    for begin in range(0, len(known), size):
        some = known[begin : begin + size]
        slopes[some] = 0.5 * sum(
            _distances(flat[some], weights.ravel()) / abs(np.log2(power))
            for weights, power in zip((lower, upper), _POWERS, strict=True)
        )
    return slopes


def _distances(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Cumulative Jensen-Shannon distances (n,) of draws (n, S) from the same draws, weighted (S,).

    Of the two ways to look at them the larger, as `power_scale_sense` of ArviZ's arrays has it,
    which sorts the draws of one quantity after the other four times: 125 ms against 45 for 60
    quantities of 4000 draws. A test holds the two equal.
    """
    order = np.argsort(values, axis=1)
    widths = np.diff(np.take_along_axis(values, order, axis=1), axis=1)
    weighted = (weights / weights.sum())[order]
    n_draws = values.shape[1]
    even = np.linspace(1 / n_draws, 1 - 1 / n_draws, n_draws - 1)
    found = []
    for way in (slice(None), slice(None, None, -1)):
        share, width = np.cumsum(weighted[:, way], axis=1)[:, :-1], widths[:, way]
        with np.errstate(divide="ignore", invalid="ignore"):
            middle = np.log2(0.5 * (even + share))
            apart = even * (np.log2(even) - middle)
            back = np.where(share > 0, share * (np.log2(share) - middle), 0.0)
        area, other = width @ even, (width * share).sum(axis=1)
        tilt = 0.5 / np.log(2) * (other - area)
        forth = np.maximum(0, (width * apart).sum(axis=1) + tilt)
        back = np.maximum(0, (width * back).sum(axis=1) - tilt)
        found.append(np.sqrt((forth + back) / (area + other)))
    return np.maximum(*found)
