"""From a sampler's arrays in standard units to one labelled tree in the user's units."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from gmm_bayes._validation import Table
from gmm_bayes._vocabulary import (
    CHAIN,
    COMPONENT,
    CONSTANT_DATA,
    CORRELATION_CHOLESKY,
    CORRELATIONS,
    COVARIANCES,
    DATA,
    DRAW,
    FEATURE,
    FEATURE2,
    MEANS,
    OBS,
    OBSERVED_DATA,
    PAIR,
    POSTERIOR,
    SAMPLE_STATS,
    SCALES,
    TOTAL_LOG_LIKELIHOOD,
    WEIGHTS,
)
from gmm_bayes.core.covariance import CovarianceStructure
from gmm_bayes.inference.rows.standardization import Standardization
from gmm_bayes.inference.sampling.problem import Draws
from gmm_bayes.model.priors import PriorArrays

__all__ = ["label_draws", "label_sites", "site_dims", "with_correlations"]


def label_draws(
    draws: Draws,
    table: Table,
    prior: PriorArrays,
    units: Standardization,
    structure: CovarianceStructure,
    n_obs: int | None = None,
) -> xr.DataTree:
    """Return the tree of a finished run: posterior, sample_stats, observed_data, constant_data.

    The table may be a sample of the `n_obs` rows that the draws are about.
    """
    coords: dict[str, Any] = {
        COMPONENT: np.arange(len(prior.weight_concentration)),
        FEATURE: np.array(table.feature_names, dtype=object),
        FEATURE2: np.array(table.feature_names, dtype=object),
        OBS: table.index,
    }
    sites = units.restore(draws.sites, structure)
    constants = {
        "weight_concentration": (COMPONENT, prior.weight_concentration),
        "mean_loc": ((COMPONENT, FEATURE), prior.mean_loc),
        "mean_covariance": ((FEATURE, FEATURE2), prior.mean_scale_tril @ prior.mean_scale_tril.T),
        "scale_scale": (FEATURE, prior.scale_scale),
        "correlation_concentration": ((), np.asarray(prior.correlation_concentration)),
    }
    return xr.DataTree.from_dict(
        {
            POSTERIOR: label_sites(sites, structure, coords),
            SAMPLE_STATS: _sample_stats(
                draws, n_obs or len(table.values), len(coords[COMPONENT]), units
            ),
            OBSERVED_DATA: _dataset({DATA: ((OBS, FEATURE), table.values)}, coords),
            CONSTANT_DATA: _dataset(constants, coords),
        }
    )


def site_dims(structure: CovarianceStructure) -> dict[str, tuple[str, ...]]:
    """Dims of every site of the model under one covariance structure."""
    dims = {
        WEIGHTS: (COMPONENT,),
        MEANS: (COMPONENT, FEATURE),
        SCALES: structure.scale_dims,
        COVARIANCES: structure.covariance_dims,
    }
    if structure.correlation_dims is not None:
        dims[CORRELATION_CHOLESKY] = structure.correlation_dims
    return dims


def label_sites(
    sites: Mapping[str, np.ndarray], structure: CovarianceStructure, coords: Mapping[str, Any]
) -> xr.Dataset:
    """Label draws of the sites, shapes (chain, draw, ...), and add the covariances."""
    covariances = structure.covariances(sites[SCALES], sites.get(CORRELATION_CHOLESKY))
    values = {**sites, COVARIANCES: np.asarray(covariances)}
    dims = site_dims(structure)
    return _dataset(
        {name: ((CHAIN, DRAW, *dims[name]), values[name]) for name in dims if name in values},
        coords,
    )


def with_correlations(draws: xr.Dataset) -> xr.Dataset:
    """Draws with the correlation of each pair of features in place of the Cholesky factor.

    Half of such a factor is zeros and ones, of which R-hat is NaN, and a plot warns of each.
    """
    if CORRELATION_CHOLESKY not in draws:
        return draws
    factor = draws[CORRELATION_CHOLESKY]
    draws = draws.drop_vars(CORRELATION_CHOLESKY)
    low, high = np.tril_indices(factor.sizes[FEATURE2], -1)
    if not len(low):
        return draws
    rows = factor.values
    values = np.einsum("...pi,...pi->...p", rows[..., low, :], rows[..., high, :])
    names = factor.coords[FEATURE2].values
    pairs = np.array([f"{names[i]}:{names[j]}" for i, j in zip(high, low, strict=True)], object)
    # A name may hold a colon.
    pairs = pairs if len(set(pairs)) == len(pairs) else np.arange(len(pairs))
    return draws.assign({CORRELATIONS: ((*factor.dims[:-2], PAIR), values)}).assign_coords(
        {PAIR: (PAIR, pairs)}
    )


def _sample_stats(
    draws: Draws, n_obs: int, n_components: int, units: Standardization
) -> xr.Dataset:
    """The sampler's numbers by ArviZ's names, log densities in the user's units.

    A row's density is smaller by the factor exp(log_volume) in the user's units; so is each mean's.
    The scales are sampled on the log scale, where a change of units is a mere shift.
    """
    shift = units.log_volume * (n_obs + n_components)
    values = dict(draws.stats)
    values["lp"] = -values.pop("potential") - shift
    values[TOTAL_LOG_LIKELIHOOD] = values.pop("log_likelihood") - units.log_volume * n_obs
    # Only a sampler with trajectories has these.
    if "energy" in values:
        values["energy"] = values["energy"] + shift
    return _dataset({name: ((CHAIN, DRAW), value) for name, value in values.items()}, {})


def _dataset(variables: Mapping[str, Any], coords: Mapping[str, Any]) -> xr.Dataset:
    """Build a dataset with just those coordinates that its variables use, and numbered draws."""
    dataset = xr.Dataset(dict(variables))
    numbered = {dim: np.arange(size) for dim, size in dataset.sizes.items() if dim in (CHAIN, DRAW)}
    used = {dim: (dim, values) for dim, values in coords.items() if dim in dataset.dims}
    return dataset.assign_coords({**numbered, **used})
