"""The same posterior of fewer features: every draw's mixture, marginalised exactly."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from gmm_bayes._validation import check_choice
from gmm_bayes._vocabulary import (
    CHAIN,
    COMPONENT,
    CORRELATION_CHOLESKY,
    COVARIANCES,
    DRAW,
    FEATURE,
    FEATURE2,
    OBSERVED_DATA,
    POSTERIOR,
    SAMPLE_STATS,
)
from gmm_bayes.inference.result.gmm_fit import GMMFit, check_fit
from gmm_bayes.inference.result.tree import label_sites, site_dims

__all__ = ["check_features", "kept_triangle", "marginal"]


def marginal(fit: GMMFit, features: str | Sequence[str]) -> GMMFit:
    """Integrate out all features but some: the posterior of their mixture.

    Parameters
    ----------
    fit : GMMFit
    features : str or sequence of str
        Names of the features to keep, in this order.

    Returns
    -------
    GMMFit
        Draws, shapes (chain, draw, ...), and training rows of the kept features, for densities,
        responsibilities, pictures and new rows. It has learnt from all features, so it is not the
        fit of these alone: it has no priors, no evidence, and is not saved.

    Raises
    ------
    TypeError, ValueError
        If a name is not known or repeats, or there are none.

    Notes
    -----
    The marginal of a Gaussian keeps the rows and columns of its mean and covariance. With
    Omega = L L', the kept block is that of the kept rows of L, whose triangular factor is the
    R' of a QR decomposition of their transpose: no covariance is formed and no digits are lost.
    """
    check_fit(fit)
    names = check_features(fit, features)
    if names == fit.feature_names:
        return fit
    columns = [fit.feature_names.index(name) for name in names]
    kept = fit.posterior.isel({FEATURE: columns})
    sites = {
        name: kept[name].transpose(CHAIN, DRAW, *dims).values
        for name, dims in site_dims(fit.structure).items()
        if name in kept and name != COVARIANCES
    }
    correlations = sites.pop(CORRELATION_CHOLESKY, None)
    # As in a fit of one feature, which has no correlations.
    if correlations is not None and len(columns) > 1:
        sites[CORRELATION_CHOLESKY] = kept_triangle(correlations)
    labels = np.array(names, dtype=object)
    coords = {COMPONENT: fit.posterior.coords[COMPONENT].values, FEATURE: labels, FEATURE2: labels}
    posterior = label_sites(sites, fit.structure, coords)
    posterior = posterior.assign_coords({d: fit.posterior.coords[d] for d in (CHAIN, DRAW)})
    tree = xr.DataTree.from_dict(
        {
            POSTERIOR: posterior,
            # Of the run, whose draws these are.
            SAMPLE_STATS: fit.sample_stats,
            OBSERVED_DATA: fit.datatree[OBSERVED_DATA].to_dataset().isel({FEATURE: columns}),
        }
    )
    tree.attrs = dict(fit.datatree.attrs)
    return GMMFit(tree)


def check_features(fit: GMMFit, features: Any) -> tuple[str, ...]:
    """Return distinct names of features of the fit.

    Raises
    ------
    TypeError, ValueError
        If a name is not known or repeats, or there are none.
    """
    check_fit(fit)
    names = (features,) if isinstance(features, str) else features
    if not isinstance(names, Sequence | np.ndarray):
        raise TypeError(f"features must be names of features, got {type(features).__name__}")
    chosen = tuple(check_choice(name, "features", fit.feature_names) for name in names)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"features must be one or more distinct names, got {list(chosen)}")
    return chosen


def kept_triangle(rows: np.ndarray) -> np.ndarray:
    """Cholesky factors of A A' from rows A of a matrix root, shapes (..., d, D) -> (..., d, d)."""
    upper = np.asarray(np.linalg.qr(rows.swapaxes(-1, -2), mode="r"))
    triangle = upper.swapaxes(-1, -2)
    # QR leaves the signs free; a Cholesky factor has a positive diagonal.
    signs = np.where(np.diagonal(triangle, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    return triangle * signs[..., None, :]
