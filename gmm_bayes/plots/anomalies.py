"""Who does not belong: rows marked normal, strange or unsure, over the density."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from gmm_bayes._validation import check_integer, check_probability
from gmm_bayes.inference.em.result import EMFit
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.plots.axes import add_legend, check_axes, key, name_density, open_axes, rows_note
from gmm_bayes.plots.density import density_curve, density_mesh, density_name, draw_band
from gmm_bayes.plots.selection import (
    PANEL,
    check_features,
    choose,
    drawable,
    extents,
    generator,
    has_draws,
)
from gmm_bayes.plots.style import ANOMALY_STYLES, NORMAL, STRANGE, UNSURE
from gmm_bayes.posterior.marginals import marginal
from gmm_bayes.posterior.strangers import flag_anomalies
from gmm_bayes.posterior.streaming import rows_of

__all__ = ["plot_anomalies"]

# Pale throughout: marks of every colour stand out on it.
_BACKGROUND = LinearSegmentedColormap.from_list("background", ["#FFFFFF", "#9FB4C8"])
_THRESHOLD: Any = {"color": "black", "linewidth": 1.0, "linestyle": "--"}
# Heights of the three kinds of rows along one feature, as shares of the axes, below the density.
_LANES = {STRANGE: 0.03, UNSURE: 0.075, NORMAL: 0.115}
_BELOW = 0.145


def plot_anomalies(
    fit: GMMFit | EMFit,
    X: Any = None,
    *,
    contamination: float | None = None,
    threshold: float | None = None,
    min_responsibility: float | None = None,
    min_weight: float | None = None,
    features: str | Sequence[str] | None = None,
    ax: Axes | None = None,
    interval: float | None = 0.9,
    n_grid: int = 100,
    max_rows: int = 5000,
    legend: bool = True,
) -> Axes:
    """Mark rows as normal, strange or unsure, over the predictive density.

    Parameters
    ----------
    fit : GMMFit or EMFit
    X : array, pandas, polars or xarray object, shape (n_obs, n_features), optional
        New rows. None takes the training rows.
    contamination, threshold, min_responsibility, min_weight : float, optional
        The rules of `flag_anomalies`.
    features : str or sequence of str, optional
        Names of one or two features to draw against; the density is that of these, the flags are of
        all features. None takes the first two, or the only one.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a figure.
    interval : float, optional
        Probability of the pointwise band over draws along one feature; None for no band.
    n_grid : int
        Points along each of two features.
    max_rows : int
        So many rows are drawn if there are more: the flagged ones and a random choice of the
        others.
    legend : bool
        Whether to draw one.

    Returns
    -------
    matplotlib.axes.Axes
        In the units of the data. Strange rows are of too low a density or of too small a component,
        unsure ones lie between components; where both hold, strange is shown. The dashed line is
        the threshold, where all features of the fit are drawn.

    Raises
    ------
    LabelSwitchingError, TypeError, ValueError
        As of `flag_anomalies`, or if another option is wrong.
    """
    fit = drawable(fit)
    names = check_features(fit, fit.feature_names[:PANEL] if features is None else features, PANEL)
    check_axes(ax)
    n_grid = check_integer(n_grid, "n_grid", 2)
    most = check_integer(max_rows, "max_rows", 1)
    interval = None if interval is None else check_probability(interval, "interval")
    interval = interval if has_draws(fit) else None
    flags = flag_anomalies(
        fit,
        X,
        contamination=contamination,
        threshold=threshold,
        min_responsibility=min_responsibility,
        min_weight=min_weight,
    )
    kinds = _kinds(flags)
    panel = marginal(fit, names)
    points = rows_of(fit, X)[0][:, [fit.feature_names.index(name) for name in names]]
    limits = _limits(panel, points)
    # The threshold is a density of all features: on a marginal it means nothing.
    level = np.exp(flags.attrs["threshold"]) if len(names) == fit.n_features else None
    draw = _draw_line if len(names) == 1 else _draw_plane
    own, ax = ax is None, open_axes(ax)
    handles = draw(ax, panel, limits, level, interval=interval, n_grid=n_grid)
    shown = _choose(kinds, most)
    handles += _draw_rows(ax, points, kinds, shown)
    ax.set_xlabel(names[0])
    ax.set_xlim(*limits[0])
    if len(names) == PANEL:
        ax.set_ylabel(names[1])
        ax.set_ylim(*limits[1])
    if legend:
        inside = ((limits[:, 0] <= points) & (points <= limits[:, 1])).all(axis=1)
        handles += _features_note(len(names), fit.n_features)
        handles += _outside_note(int((~inside).sum())) + rows_note(len(shown), len(kinds))
        add_legend(ax, handles, beside=own)
    return ax


def _kinds(flags: xr.Dataset) -> np.ndarray:
    """What each row is marked as, shape (n_obs,)."""
    strange = flags["low_density"].values | flags["small_component"].values
    return np.where(strange, STRANGE, np.where(flags["unsure"].values, UNSURE, NORMAL))


def _limits(panel: GMMFit, points: np.ndarray) -> np.ndarray:
    """Range of each feature, shape (n_features, 2), for the fit and the rows near enough to it."""
    low, high = extents(panel).T
    reach = high - low
    # A row far out must not squeeze the others into a dot.
    return np.column_stack(
        [
            np.clip(points.min(axis=0) - 0.04 * reach, low - reach, low),
            np.clip(points.max(axis=0) + 0.04 * reach, high, high + reach),
        ]
    )


def _choose(kinds: np.ndarray, most: int) -> np.ndarray:
    """Positions of the rows to draw: flagged ones first."""
    rng = generator(0)
    flagged, normal = np.flatnonzero(kinds != NORMAL), np.flatnonzero(kinds == NORMAL)
    flagged = flagged[choose(len(flagged), most, rng)]
    room = most - len(flagged)
    return np.sort(np.concatenate([flagged, normal[choose(len(normal), room, rng)]]))


def _draw_line(
    ax: Axes,
    panel: GMMFit,
    limits: np.ndarray,
    level: float | None,
    *,
    interval: float | None,
    n_grid: int,
) -> list[Artist]:
    """Draw the density along one feature; return the legend entries."""
    handles = draw_band(ax, density_curve(panel, interval, limits), interval, density_name(panel))
    top = ax.get_ylim()[1]
    ax.set_ylim(-top * _BELOW / (1 - _BELOW), top)
    name_density(ax)
    ax.set_yticks([tick for tick in ax.get_yticks() if 0 <= tick <= top])
    ax.axhline(0, color="black", linewidth=0.6)
    if level is not None:
        ax.axhline(level, gid="threshold", **_THRESHOLD)
        handles.append(key("threshold", **_THRESHOLD))
    return handles


def _draw_plane(
    ax: Axes,
    panel: GMMFit,
    limits: np.ndarray,
    level: float | None,
    *,
    interval: float | None,
    n_grid: int,
) -> list[Artist]:
    """Draw the density over two features; return the legend entries."""
    mesh = density_mesh(panel, n_grid, limits)
    ax.pcolormesh(
        mesh.x,
        mesh.y,
        mesh.density,
        shading="nearest",
        cmap=_BACKGROUND,
        vmin=0,
        rasterized=True,
        gid="density",
    )
    shade = _BACKGROUND(1.0)
    handles: list[Artist] = [
        key(density_name(panel), color=shade, marker="s", markersize=8, linestyle="")
    ]
    if level is None or not mesh.density.min() < level < mesh.density.max():
        return handles
    ax.contour(
        mesh.x,
        mesh.y,
        mesh.density,
        levels=[level],
        colors=_THRESHOLD["color"],
        linewidths=_THRESHOLD["linewidth"],
        linestyles=_THRESHOLD["linestyle"],
    )
    return [*handles, key("threshold", **_THRESHOLD)]


def _draw_rows(ax: Axes, points: np.ndarray, kinds: np.ndarray, shown: np.ndarray) -> list[Artist]:
    """Draw some of the rows, the strange ones on top; return the legend with counts of all."""
    handles: list[Artist] = []
    along = points.shape[1] == 1
    for kind, style in ANOMALY_STYLES.items():
        if not (kinds == kind).any():
            continue
        mine = points[shown][kinds[shown] == kind]
        ax.scatter(
            mine[:, 0],
            np.full(len(mine), _LANES[kind]) if along else mine[:, 1],
            s=style.size**2,
            c=style.colour,
            marker=style.marker,
            edgecolors=style.edge,
            linewidths=0.5,
            alpha=style.alpha,
            transform=ax.get_xaxis_transform() if along else ax.transData,
            rasterized=len(shown) < len(kinds),
            gid=f"{kind} rows",
            zorder=3,
        )
        handles.append(
            key(
                f"{kind} ({(kinds == kind).sum():,})",
                color=style.colour,
                marker=style.marker,
                markersize=style.size,
                markeredgecolor=style.edge,
                markeredgewidth=0.5,
                linestyle="",
            )
        )
    return handles


def _features_note(n_shown: int, n_features: int) -> list[Artist]:
    """Said where a row may be flagged for what the picture does not show."""
    words = f"flags use all {n_features} features, {n_shown} shown"
    return [key(words, linestyle="")] * (n_shown < n_features)


def _outside_note(n_outside: int) -> list[Artist]:
    rows = "row" if n_outside == 1 else "rows"
    return [key(f"{n_outside:,} {rows} outside the picture", linestyle="")] * (n_outside > 0)
