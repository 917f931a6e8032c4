"""Quantities of every draw that stay the same when components change places."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import xarray as xr

from gmm_bayes._vocabulary import CHAIN, DRAW, TOTAL_LOG_LIKELIHOOD
from gmm_bayes.core.draws import log_density_and_entropy, mixture_moments
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.inference.rows.standardization import Standardization
from gmm_bayes.machine.devices import cpu_cores

__all__ = [
    "anchor_log_density",
    "label_free_quantities",
    "log_density_at_some_rows",
    "spread_rows",
]

_ANCHORS = 10
# Rows over which the entropy is averaged, at most; fewer where there are many large draws, so that
# no more than so many numbers are computed.
_MOST_ROWS = 256
_MOST_NUMBERS = 2**24
# Nats a row below which no row is in doubt. R-hat sees ranks, and would make much of what a
# component without rows adds to nothing.
_NO_ENTROPY = 1e-5


def label_free_quantities(fit: GMMFit) -> xr.Dataset:
    """Numbers by which chains can be compared whatever the order of their components.

    Parameters
    ----------
    fit : GMMFit

    Returns
    -------
    xarray.Dataset
        Dims chain and draw, and one of their own where there are several numbers: `log_likelihood`
        and `lp` (nats), `sorted_weights` (largest first), `mixture_mean`, `mixture_covariance` (its
        lower triangle) in the user's units, `entropy` (nats), `anchor_log_density` (nats).

    Notes
    -----
    The entropy is -sum_k r_nk log r_nk, averaged over rows; the anchors are ten rows. Rows are
    equally spaced in their order along the first principal component, ends included: all data are
    covered, and their order in the table plays no part. There are at most 256 of them, however many
    rows the fit has, and fewer where draws are many and large; all draws are used.
    """
    sizes, stats = fit.posterior.sizes, fit.sample_stats
    draws = fit.parameters()
    mean, covariance = mixture_moments(draws.weights, draws.means, draws.covariances)
    log_density, entropy = _at_rows(fit, draws)
    values = {
        "sorted_weights": -np.sort(-draws.weights, axis=1),
        "mixture_mean": mean,
        "mixture_covariance": covariance[:, *np.tril_indices(mean.shape[1])],
        "entropy": entropy,
        "anchor_log_density": log_density[:, _anchors(log_density.shape[1])],
    }
    by_chain = {
        name: (
            (CHAIN, DRAW, *[f"{name}_entry"] * (value.ndim - 1)),
            value.reshape(sizes[CHAIN], sizes[DRAW], *value.shape[1:]),
        )
        for name, value in values.items()
    }
    heights = stats[[TOTAL_LOG_LIKELIHOOD, "lp"]]
    return heights.rename({TOTAL_LOG_LIKELIHOOD: "log_likelihood"}).assign(by_chain)


def anchor_log_density(fit: GMMFit) -> np.ndarray:
    """Log density of at most ten rows under every draw, shape (S, rows), in nats.

    The quantity of that name of `label_free_quantities`, without the cost of the others.
    """
    draws = fit.parameters()
    rows = _some_rows(fit, draws)
    return _at_rows(fit, draws, rows[_anchors(len(rows))])[0]


def log_density_at_some_rows(fit: GMMFit, most: int) -> np.ndarray:
    """Log density of at most so many rows, and 256, under every draw, (S, rows), in nats."""
    draws = fit.parameters()
    return _at_rows(fit, draws, _some_rows(fit, draws, most))[0]


def _anchors(n_rows: int) -> np.ndarray:
    return np.unique(np.linspace(0, n_rows - 1, _ANCHORS).astype(int))


def _some_rows(fit: GMMFit, draws: MixtureParameters, most: int = _MOST_ROWS) -> np.ndarray:
    """Positions of the rows that are looked at."""
    affordable = max(_ANCHORS, _MOST_NUMBERS // draws.means.size)
    X = Standardization.of(fit.X.values, fit.structure).apply(fit.X.values)
    return spread_rows(X, min(_MOST_ROWS, most, affordable))


def spread_rows(X: np.ndarray, most: int) -> np.ndarray:
    """Positions of at most so many rows, equally spaced along the first principal component."""
    along = X @ np.linalg.eigh(np.atleast_2d(X.T @ X))[1][:, -1]
    order = np.argsort(along, kind="stable")
    return order[np.unique(np.linspace(0, len(X) - 1, min(most, len(X))).astype(int))]


def _at_rows(
    fit: GMMFit, draws: MixtureParameters, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Log density (S, rows) of some rows in the user's units, and mean entropy (S,)."""
    units = Standardization.of(fit.X.values, fit.structure)
    X, (weights, means, tril) = units.apply(fit.X.values), units.apply_to_parameters(draws)
    X = X[_some_rows(fit, draws) if rows is None else rows]
    workers = min(cpu_cores(), len(means))

    def of_some(share: int) -> tuple[np.ndarray, np.ndarray]:
        some = slice(share * len(means) // workers, (share + 1) * len(means) // workers)
        return log_density_and_entropy(X, weights[some], means[some], tril[some])

    # NumPy lets go of the interpreter's lock in every loop.
    with ThreadPoolExecutor(workers) as pool:
        parts = zip(*pool.map(of_some, range(workers)), strict=True)
    log_density, by_row = (np.concatenate(part) for part in parts)
    entropy = by_row.mean(axis=1)
    return log_density - units.log_volume, np.where(entropy < _NO_ENTROPY, 0.0, entropy)
