"""What is drawn of a fit: which features, rows and draws, and over which range."""

import json
from typing import Any

import numpy as np
import xarray as xr

from gmm_bayes._validation import check_seed
from gmm_bayes._vocabulary import (
    CHAIN,
    COMPONENT,
    CORRELATION_CHOLESKY,
    DATA,
    DRAW,
    FEATURE,
    FEATURE2,
    MEANS,
    OBS,
    OBSERVED_DATA,
    POSTERIOR,
    SAMPLE_STATS,
    SCALES,
    WEIGHTS,
)
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.em.result import EMFit
from gmm_bayes.inference.result.gmm_fit import GMMFit, check_fit
from gmm_bayes.inference.result.tree import label_sites
from gmm_bayes.posterior import marginals

__all__ = [
    "PANEL",
    "check_features",
    "choose",
    "drawable",
    "extents",
    "generator",
    "has_draws",
    "line_grid",
]

# Features that one panel of ellipses or of a surface shows.
PANEL = 2

# Of a tree that holds maximum likelihood in the place of a draw.
_SOLUTION = "solution"
_SDS = 3.0
_CURVE_POINTS = 400
_TYPICAL_DRAWS = 3


def drawable(fit: Any) -> GMMFit:
    """Return the fit; of an EMFit its one solution, in the place of a single draw.

    Raises
    ------
    TypeError
        If this is neither, with what to give instead.
    """
    if not isinstance(fit, EMFit):
        check_fit(fit)
        return fit
    structure = COVARIANCE_STRUCTURES[fit.covariance_type]
    scales, correlations = structure.sites(fit.parameters.covariances)
    sites = {WEIGHTS: fit.weights, MEANS: fit.means, SCALES: scales}
    if correlations is not None:
        sites[CORRELATION_CHOLESKY] = correlations
    names = np.array(fit.feature_names, dtype=object)
    coords = {COMPONENT: np.arange(fit.n_components), FEATURE: names, FEATURE2: names}
    one = {name: np.asarray(value)[None, None] for name, value in sites.items()}
    rows = xr.Dataset(
        {DATA: ((OBS, FEATURE), fit.table.values)}, {OBS: fit.table.index, FEATURE: names}
    )
    stats = xr.Dataset({"lp": ((CHAIN, DRAW), np.full((1, 1), fit.log_likelihood))})
    posterior = label_sites(one, structure, coords)
    groups = {POSTERIOR: posterior, SAMPLE_STATS: stats, OBSERVED_DATA: rows}
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = {
        "n_components": fit.n_components,
        "covariance_type": fit.covariance_type,
        "problems": json.dumps([]),
        _SOLUTION: 1,
    }
    return GMMFit(tree)


def has_draws(fit: GMMFit) -> bool:
    """Whether this is a posterior, and not the one solution of an EMFit."""
    return _SOLUTION not in fit.datatree.attrs


def check_features(fit: GMMFit, features: Any, most: int | None = None) -> tuple[str, ...]:
    """Return the names of the features to draw.

    Parameters
    ----------
    fit : GMMFit
    features : str or sequence of str
        Names out of `fit.feature_names`.
    most : int, optional
        How many at most.

    Raises
    ------
    ValueError
        If a name is not known or repeats, or there are none or too many.
    """
    chosen = marginals.check_features(fit, features)
    if most is not None and len(chosen) > most:
        raise ValueError(
            f"features must be at most {most} names for this picture, got {len(chosen)}: "
            f"{list(chosen)}"
        )
    return chosen


def generator(seed: Any) -> np.random.Generator:
    """Random numbers of a checked seed; NumPy's global state is left alone."""
    return np.random.default_rng(np.random.SeedSequence(check_seed(seed)))


def choose(total: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of all rows or draws, or of a random `most` of them, in order."""
    if total <= most:
        return np.arange(total)
    return np.sort(rng.choice(total, size=most, replace=False))


def extents(fit: GMMFit) -> np.ndarray:
    """Range of each feature that shows the rows and the components.

    Returns
    -------
    ndarray, shape (n_features, 2)
        Lowest and highest value, in the units of the data.
    """
    low, high = fit.X.values.min(axis=0), fit.X.values.max(axis=0)
    means, sds = _spreads(fit.parameters())
    # The outermost component of each draw, whichever it is: labels may switch between draws.
    lowest = np.median((means - _SDS * sds).min(axis=1), axis=0)
    highest = np.median((means + _SDS * sds).max(axis=1), axis=0)
    # A component without rows is as wide as its prior: it must not squeeze the data into a dot.
    near, far = 0.06 * (high - low), 0.4 * (high - low)
    return np.column_stack(
        [np.clip(lowest, low - far, low - near), np.clip(highest, high + near, high + far)]
    )


def line_grid(fit: GMMFit, limits: np.ndarray | None = None) -> np.ndarray:
    """Points along the one feature of a fit, denser where a component is narrow.

    Parameters
    ----------
    fit : GMMFit
    limits : ndarray, shape (1, 2), optional
        Lowest and highest value; None takes `extents(fit)`.

    Returns
    -------
    ndarray, shape (n_points,)
        Sorted, in the units of the data.
    """
    low, high = (extents(fit) if limits is None else limits)[0]
    draws = fit.parameters()
    some = np.linspace(0, len(draws.weights) - 1, _TYPICAL_DRAWS).astype(int)
    means, sds = _spreads(MixtureParameters(*(values[some] for values in draws)))
    near = (means + sds * np.linspace(-4, 4, 33)).ravel()
    even = np.linspace(low, high, _CURVE_POINTS)
    return np.unique(np.concatenate([even, near[(near > low) & (near < high)]]))


def _spreads(draws: MixtureParameters) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of the components of each draw, shapes (S, K, D)."""
    return draws.means, np.linalg.norm(draws.scale_tril, axis=-1)
