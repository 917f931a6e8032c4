"""Small fits to draw, and questions to axes about what was drawn on them."""

import warnings
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

import gmm_bayes as gb
from gmm_bayes._vocabulary import (
    COMPONENT,
    CORRELATION_CHOLESKY,
    DATA,
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
from gmm_bayes.inference.result.tree import label_sites

SMALL = {"num_warmup": 150, "num_samples": 60, "num_chains": 2}


def small_fit(X: Any, n_components: int, **options: Any) -> gb.GMMFit:
    """A fit too short to be believed, but good enough to draw."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gb.errors.GMMBayesWarning)
        return gb.fit(X, n_components, sampler=gb.NUTS(**SMALL), seed=0, n_init=2, **options)


def made_up_fit(X: np.ndarray, n_components: int, covariance_type: str = "full") -> gb.GMMFit:
    """A result whose draws were never sampled: random mixtures about the rows, in 1 x 20 draws."""
    structure = COVARIANCE_STRUCTURES[covariance_type]
    rng = np.random.default_rng(0)
    spread = X.std(axis=0)
    centres = X.mean(axis=0) + 2 * spread * rng.standard_normal((n_components, X.shape[1]))
    draws: dict[str, list[np.ndarray]] = {}
    for _ in range(20):
        root = rng.standard_normal((n_components, X.shape[1], X.shape[1] + 40))
        dense = root @ root.swapaxes(-1, -2) / root.shape[-1] * np.outer(spread, spread)
        scales, correlation = structure.sites(dense)
        noise = 0.1 * spread * rng.standard_normal(centres.shape)
        for name, value in (
            (WEIGHTS, rng.dirichlet(np.full(n_components, 20.0))),
            (MEANS, centres + noise),
            (SCALES, scales),
            (CORRELATION_CHOLESKY, correlation),
        ):
            if value is not None:
                draws.setdefault(name, []).append(value)
    names = np.array([f"x{d}" for d in range(X.shape[1])], dtype=object)
    coords = {COMPONENT: np.arange(n_components), FEATURE: names, FEATURE2: names}
    sites = {name: np.array(values)[None] for name, values in draws.items()}
    rows = xr.Dataset({DATA: ((OBS, FEATURE), X)}, {OBS: np.arange(len(X)), FEATURE: names})
    posterior = label_sites(sites, structure, coords)
    stats = posterior[WEIGHTS].sum(COMPONENT).to_dataset(name="lp")
    tree = xr.DataTree.from_dict({POSTERIOR: posterior, SAMPLE_STATS: stats, OBSERVED_DATA: rows})
    tree.attrs = {"n_components": n_components, "covariance_type": covariance_type}
    return gb.GMMFit(tree)


def by_gid(ax: Axes, start: str) -> list[Artist]:
    """Everything whose name begins so."""
    return [a for a in ax.get_children() if (a.get_gid() or "").startswith(start)]


def line(ax: Axes, gid: str) -> np.ndarray:
    """Points (n, 2) of the one line of that name."""
    (found,) = by_gid(ax, gid)
    return np.asarray(found.get_xydata())


def points(ax: Axes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets (n, 2), colours (n, 3) and areas (n,) of all rows, sorted by offset."""
    scatters = by_gid(ax, "rows")
    xy = np.concatenate([np.asarray(s.get_offsets()) for s in scatters])
    colours = np.concatenate(
        [np.broadcast_to(s.get_facecolors()[:, :3], (len(s.get_offsets()), 3)) for s in scatters]
    )
    areas = np.concatenate([np.broadcast_to(s.get_sizes(), len(s.get_offsets())) for s in scatters])
    order = np.lexsort((areas, *colours.T, *xy.T))
    return xy[order], colours[order], areas[order]


def fans(ax: Axes) -> list[np.ndarray]:
    """Segments (n_draws, n_points, 2) of each fan."""
    found = [a for a in by_gid(ax, "fan") if isinstance(a, LineCollection)]
    return [np.array(f.get_segments()) for f in found]


def legend_texts(ax: Axes) -> list[str]:
    """The entries of the legend."""
    legend = ax.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]
