"""What is drawn of a fit: which features, rows and draws, and over which range."""

from typing import Any

import numpy as np

from gmm_bayes._validation import check_seed
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.posterior import marginals

__all__ = [
    "PANEL",
    "check_features",
    "choose",
    "extents",
    "generator",
    "line_grid",
]

# Features that one panel of ellipses or of a surface shows.
PANEL = 2

_SDS = 3.0
_CURVE_POINTS = 400
_TYPICAL_DRAWS = 3


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
