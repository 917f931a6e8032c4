"""How likely rows are: predictive density, log-likelihood, and new rows drawn from it."""

from typing import Any

import jax
import numpy as np
import xarray as xr

from gmm_bayes._validation import check_integer, check_probability, check_seed
from gmm_bayes._vocabulary import CHAIN, DRAW, FEATURE, OBS
from gmm_bayes.core import mixture
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.result.gmm_fit import GMMFit, check_fit
from gmm_bayes.machine.devices import double_precision
from gmm_bayes.posterior.streaming import (
    announce,
    each_draw,
    log_mean_over_draws,
    map_rows,
    row_coords,
    rows_of,
)

__all__ = ["log_likelihood", "log_predictive_density", "sample_predictive"]


def log_predictive_density(
    fit: GMMFit, X: Any = None, *, interval: float | None = None
) -> xr.DataArray | xr.Dataset:
    """Log of the posterior predictive density of each row.

    Parameters
    ----------
    fit : GMMFit
    X : array, pandas, polars or xarray object, shape (n_obs, n_features), optional
        New rows, in the units and columns of the fit. None takes the training rows.
    interval : float, optional
        Probability of an equal-tailed interval of the log density over draws, for example 0.9.

    Returns
    -------
    xarray.DataArray
        Dims (obs,), in nats; the density has units of 1 / (units of X)^n_features.
    xarray.Dataset
        With `interval`: `mean` (the predictive density itself), `lower` and `upper`, dims (obs,).

    Raises
    ------
    TypeError, ValueError
        If `X` does not have the columns of the fit.

    Notes
    -----
    log p(x | X) = log mean_s sum_k weights_k N(x; means_k, covariances_k), by a running log-sum-exp
    over draws, so that -1e6 stays -1e6. It does not depend on labels (Gelman et al. 2013, Bayesian
    Data Analysis, section 1.3).
    """
    tail = None if interval is None else (1 - check_probability(interval, "interval")) / 2
    rows, index = rows_of(fit, X)
    coords = row_coords(fit, index)
    mean = map_rows(_log_mean, fit, rows)
    if tail is None:
        return xr.DataArray(mean, coords, (OBS,), name="log_predictive_density")

    def block(X: Any, draws: MixtureParameters) -> np.ndarray:
        return np.quantile(np.asarray(_each(X, draws)), [tail, 1 - tail], axis=0)

    n_draws = fit.posterior.sizes[CHAIN] * fit.posterior.sizes[DRAW]
    lower, upper = map_rows(block, fit, rows, axis=1, numbers_per_row=n_draws)
    return xr.Dataset({"mean": (OBS, mean), "lower": (OBS, lower), "upper": (OBS, upper)}, coords)


def log_likelihood(fit: GMMFit, X: Any = None) -> xr.DataArray:
    """Log density of each row under each draw.

    Parameters
    ----------
    fit : GMMFit
    X : array, pandas, polars or xarray object, shape (n_obs, n_features), optional
        New rows, in the units and columns of the fit. None takes the training rows.

    Returns
    -------
    xarray.DataArray
        Dims (chain, draw, obs), in nats. Its size is logged first, and warned about above 1 GiB.

    Raises
    ------
    InsufficientMemoryError
        If the array does not fit into the free memory, before it is made.
    TypeError, ValueError
        If `X` does not have the columns of the fit.
    """
    rows, index = rows_of(fit, X)
    sizes = fit.posterior.sizes
    shape = (sizes[CHAIN], sizes[DRAW], len(rows))
    announce("log_likelihood", shape, instead="log_predictive_density(fit, X) holds no such array")
    values = map_rows(_each, fit, rows, axis=1, numbers_per_row=shape[0] * shape[1])
    coords = row_coords(fit, index, CHAIN, DRAW)
    return xr.DataArray(values.reshape(shape), coords, (CHAIN, DRAW, OBS), name="X")


def sample_predictive(fit: GMMFit, n_obs: int, *, seed: Any = 0) -> xr.DataArray:
    """Draw new rows from the posterior predictive distribution.

    Parameters
    ----------
    fit : GMMFit
    n_obs : int
        Number of rows; each comes from a posterior draw of its own, picked at random.
    seed : int in [0, 2**32) or JAX key

    Returns
    -------
    xarray.DataArray
        Dims (obs, feature), in the units of the data.
    """
    check_fit(fit)
    n_obs = check_integer(n_obs, "n_obs", 1)
    rng = np.random.default_rng(np.random.SeedSequence(check_seed(seed)))
    draws = fit.parameters()
    picked = rng.integers(len(draws.weights), size=n_obs)
    key = rng.integers(0, 2**32, 2, dtype=np.uint32)
    # One row from each of n_obs mixtures: pick the component by inverting its cumulative weights.
    cumulative = draws.weights[picked].cumsum(axis=1)
    labels = (rng.random((n_obs, 1)) * cumulative[:, -1:] > cumulative).sum(axis=1)
    with double_precision():
        rows = mixture.sample_normal(
            jax.device_put(key),
            *jax.device_put((draws.means[picked, labels], draws.scale_tril[picked, labels])),
        )
    coords = {OBS: np.arange(n_obs), FEATURE: np.array(fit.feature_names, dtype=object)}
    return xr.DataArray(np.asarray(rows), coords, (OBS, FEATURE), name="X")


_log_mean = log_mean_over_draws(mixture.log_density)
_each = each_draw(mixture.log_density)
