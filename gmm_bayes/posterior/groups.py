"""Groups of ArviZ's schema that are made on request."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import xarray as xr

from gmm_bayes._validation import check_choice, check_seed
from gmm_bayes._vocabulary import (
    CHAIN,
    COVARIANCES,
    DATA,
    DRAW,
    FEATURE,
    LOG_LIKELIHOOD,
    OBS,
    POSTERIOR_PREDICTIVE,
    PRIOR,
    PRIOR_PREDICTIVE,
)
from gmm_bayes.core import mixture
from gmm_bayes.inference.potential import ModelSpec, sample_prior
from gmm_bayes.inference.result.gmm_fit import GMMFit, check_fit, refuse_marginal
from gmm_bayes.inference.result.tree import label_sites
from gmm_bayes.machine.devices import double_precision
from gmm_bayes.posterior.density import log_likelihood
from gmm_bayes.posterior.streaming import announce

__all__ = ["PRIOR_DRAWS", "with_groups"]

# Draws of the prior, in one chain.
PRIOR_DRAWS = 500


def with_groups(fit: GMMFit, *groups: str, seed: Any = 0) -> GMMFit:
    """Return the same fit with more of ArviZ's groups in its tree.

    Parameters
    ----------
    fit : GMMFit
    *groups : {"log_likelihood", "prior", "prior_predictive", "posterior_predictive"}
        What to add. `log_likelihood` has dims (chain, draw, obs); the predictive groups hold a
        whole table for each draw, dims (chain, draw, obs, feature). The prior has one chain of 500
        draws.
    seed : int in [0, 2**32) or JAX key

    Returns
    -------
    GMMFit
        `az.loo(with_groups(fit, "log_likelihood").idata)` then works.

    Raises
    ------
    TypeError, ValueError
        If `fit` is not a GMMFit, or is a marginal, or a name is not one of these.
    """
    check_fit(fit)
    refuse_marginal(fit, "takes no groups; add them to the whole fit")
    words = check_seed(seed)
    for name in groups:
        check_choice(name, "group", tuple(_MAKERS))
    for name in groups:
        fit = fit.with_group(name, _MAKERS[name](fit, words))
    return fit


def _key(words: np.ndarray, stream: int) -> jax.Array:
    state = np.random.SeedSequence([*map(int, words), stream]).generate_state(2)
    return jax.device_put(state)


def _log_likelihood(fit: GMMFit, words: np.ndarray) -> xr.Dataset:
    return log_likelihood(fit).to_dataset(name=DATA)


def _prior(fit: GMMFit, words: np.ndarray) -> xr.Dataset:
    return _prior_draws(fit, words)[0]


def _prior_predictive(fit: GMMFit, words: np.ndarray) -> xr.Dataset:
    announce(PRIOR_PREDICTIVE, (1, PRIOR_DRAWS, len(fit.X), fit.n_features))
    return _prior_draws(fit, words)[1]


def _prior_draws(fit: GMMFit, words: np.ndarray) -> tuple[xr.Dataset, xr.Dataset]:
    spec = ModelSpec(fit.n_components, fit.covariance_type)
    with double_precision():
        sites = sample_prior(
            _key(words, 0),
            fit.priors.arrays(fit.n_components, fit.n_features),
            spec,
            n_obs=len(fit.X),
            n_draws=PRIOR_DRAWS,
        )
        sites = {name: np.asarray(value)[None] for name, value in sites.items()}
    rows = sites.pop(DATA)
    sites.pop(COVARIANCES)
    coords = {
        str(name): value.values
        for name, value in fit.posterior.coords.items()
        if name not in (CHAIN, DRAW)
    }
    return label_sites(sites, fit.structure, coords), _rows(fit, rows)


def _posterior_predictive(fit: GMMFit, words: np.ndarray) -> xr.Dataset:
    sizes = fit.posterior.sizes
    shape = (sizes[CHAIN], sizes[DRAW], len(fit.X), fit.n_features)
    announce(POSTERIOR_PREDICTIVE, shape)
    with double_precision():
        draws = jax.device_put(fit.parameters())
        keys = jax.random.split(_key(words, 1), len(draws.weights))
        rows = jax.lax.map(lambda a: mixture.sample(a[0], a[1], len(fit.X))[0], (keys, draws))
        rows = np.asarray(rows).reshape(shape)
    return _rows(fit, rows)


def _rows(fit: GMMFit, rows: np.ndarray) -> xr.Dataset:
    coords = {
        CHAIN: np.arange(rows.shape[0]),
        DRAW: np.arange(rows.shape[1]),
        **{dim: fit.X.coords[dim].values for dim in (OBS, FEATURE)},
    }
    return xr.Dataset({DATA: ((CHAIN, DRAW, OBS, FEATURE), rows)}, coords)


_MAKERS: dict[str, Callable[[GMMFit, np.ndarray], xr.Dataset]] = {
    LOG_LIKELIHOOD: _log_likelihood,
    PRIOR: _prior,
    PRIOR_PREDICTIVE: _prior_predictive,
    POSTERIOR_PREDICTIVE: _posterior_predictive,
}
