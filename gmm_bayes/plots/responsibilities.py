"""Who is sure and who is not: each row's most probable component, and how probable it is."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from gmm_bayes._validation import check_integer
from gmm_bayes.inference.em.result import EMFit
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.plots.axes import add_legend, check_axes, key, open_axes, rows_note
from gmm_bayes.plots.selection import PANEL, check_features, choose, drawable, extents, generator
from gmm_bayes.plots.style import component_style
from gmm_bayes.posterior.marginals import marginal
from gmm_bayes.posterior.responsibilities import responsibilities

__all__ = ["plot_responsibilities"]

_SURE_SIZE, _UNSURE_SIZE = 12.0, 220.0
_DOUBT = 0.05
_CHANCE: Any = {"color": "black", "linewidth": 0.8, "linestyle": ":"}
_KEY = (0.0, 0.25, 0.5)


def plot_responsibilities(
    fit: GMMFit | EMFit,
    *,
    features: str | Sequence[str] | None = None,
    ax: Axes | None = None,
    max_rows: int = 5000,
    legend: bool = True,
    seed: Any = 0,
) -> Axes:
    """Draw the rows so that those whose component is not sure stand out.

    Parameters
    ----------
    fit : GMMFit or EMFit
    features : str or sequence of str, optional
        Names of one or two features to draw against. None takes the first two, or the only one.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a figure.
    max_rows : int
        A random choice of so many rows is drawn if there are more.
    legend : bool
        Whether to draw one.
    seed : int in [0, 2**32) or JAX key
        Picks the rows.

    Returns
    -------
    matplotlib.axes.Axes
        In the units of the data. Two features: rows in the colour of their most probable
        component, the larger the less sure. One feature: its value against the probability of that
        component.

    Raises
    ------
    LabelSwitchingError
        If the components changed places between draws.
    TypeError, ValueError
        If an option is wrong.

    Notes
    -----
    The area of a marker grows linearly with 1 - max_k r_nk, the probability that the row came from
    another component; r are the posterior mean responsibilities, from all features of the fit.
    """
    fit = drawable(fit)
    names = check_features(fit, fit.feature_names[:PANEL] if features is None else features, PANEL)
    check_axes(ax)
    most = check_integer(max_rows, "max_rows", 1)
    rows = choose(len(fit.X), most, generator(seed))
    probabilities = np.asarray(responsibilities(fit, fit.X.values[rows]))
    panel = marginal(fit, names)
    own, ax = ax is None, open_axes(ax)
    limits = extents(panel)
    x = panel.X.values[rows, 0]
    y = probabilities.max(axis=1) if len(names) == 1 else panel.X.values[rows, 1]
    _draw_rows(ax, x, y, probabilities, rasterized=len(rows) < fit.n_obs)
    ax.set_xlabel(names[0])
    ax.set_xlim(*limits[0])
    if len(names) == 1:
        _name_probability(ax, fit.n_components)
    else:
        ax.set_ylabel(names[1])
        ax.set_ylim(*limits[1])
    if legend:
        handles = _handles(fit.n_components)
        if len(names) == 1:
            handles.append(key("all equally probable", **_CHANCE))
        handles += rows_note(len(rows), fit.n_obs)
        add_legend(ax, handles, beside=own)
    return ax


def marker_area(responsibilities: np.ndarray) -> np.ndarray:
    """Area of each row's marker in points squared, from responsibilities (n_obs, n_components)."""
    return _area(1 - responsibilities.max(axis=1))


def _area(doubt: Any) -> Any:
    return _SURE_SIZE + (_UNSURE_SIZE - _SURE_SIZE) * doubt


def _draw_rows(
    ax: Axes, x: np.ndarray, y: np.ndarray, probabilities: np.ndarray, *, rasterized: bool
) -> None:
    area, labels = marker_area(probabilities), probabilities.argmax(axis=1)
    for k in np.unique(labels):
        style, mine = component_style(int(k)), np.flatnonzero(labels == k)
        # The largest first, so that they hide no small one.
        mine = mine[np.argsort(-area[mine], kind="stable")]
        ax.scatter(
            x[mine],
            y[mine],
            s=area[mine],
            c=style.colour,
            marker=style.marker,
            alpha=0.75,
            # A rim around the unsure only: around small markers it would drown the colour.
            edgecolors="black",
            linewidths=[0.8 * (size > _area(_DOUBT)) for size in area[mine]],
            rasterized=rasterized,
            gid=f"rows of component {k}",
            zorder=2,
        )


def _name_probability(ax: Axes, n_components: int) -> None:
    """The axis of probabilities; no row lies below that of a guess."""
    ax.set_ylabel("probability of the most probable component")
    ax.set_ylim(1 / n_components - 0.04, 1.04)
    ax.axhline(1 / n_components, zorder=1, **_CHANCE)


def _handles(n_components: int) -> list[Artist]:
    """Legend entries: the components, then the scale of sizes."""
    handles: list[Artist] = [
        key(
            f"component {k}",
            color=component_style(k).colour,
            marker=component_style(k).marker,
            linestyle="",
            markersize=6,
        )
        for k in range(n_components)
    ]
    for doubt in _KEY:
        handles.append(
            key(
                f"probability {1 - doubt:g}",
                linestyle="",
                marker="o",
                markersize=np.sqrt(_area(doubt)),
                markerfacecolor="none",
                markeredgecolor="black",
                markeredgewidth=0.8,
            )
        )
    return handles
