"""The posterior predictive density, free of labels."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from gmm_bayes._validation import check_choice, check_integer, check_probability
from gmm_bayes.inference.em.result import EMFit
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.plots.axes import add_legend, check_axes, key, name_density, open_axes, rows_note
from gmm_bayes.plots.selection import (
    PANEL,
    check_features,
    choose,
    drawable,
    extents,
    generator,
    has_draws,
    line_grid,
)
from gmm_bayes.plots.style import COLOURS, DATA_COLOUR, DENSITY_MAP
from gmm_bayes.posterior.density import log_predictive_density
from gmm_bayes.posterior.marginals import marginal

__all__ = ["density_curve", "density_mesh", "density_name", "draw_band", "plot_density"]

_HEATMAP, _CONTOUR, _SURFACE = _KINDS = ("heatmap", "contour", "surface")
# Dark to middling: the bright end of the map of densities cannot be seen on white.
_LINE_MAP = LinearSegmentedColormap.from_list("lines", ["#A6C8E8", "#0072B2", "#00263D"])


class Curve(NamedTuple):
    """A density along one feature: arrays of shape (n_points,), in 1 / (units of the feature)."""

    x: np.ndarray
    mean: np.ndarray
    lower: np.ndarray | None
    upper: np.ndarray | None


class Mesh(NamedTuple):
    """A density over two features: points along each, and values of shape (n_y, n_x)."""

    x: np.ndarray
    y: np.ndarray
    density: np.ndarray


def plot_density(
    fit: GMMFit | EMFit,
    *,
    kind: Literal["heatmap", "contour", "surface"] = "heatmap",
    features: str | Sequence[str] | None = None,
    ax: Axes | None = None,
    interval: float | None = 0.9,
    inside: Sequence[float] = (0.2, 0.5, 0.8, 0.95),
    n_grid: int = 100,
    rows: bool = True,
    max_rows: int = 5000,
    legend: bool = True,
) -> Axes:
    """Draw the posterior predictive density of one or two features.

    Parameters
    ----------
    fit : GMMFit or EMFit
        Of the latter the density of the one solution is drawn, without a band.
    kind : {"heatmap", "contour", "surface"}
        How to draw two features; one feature is a curve.
    features : str or sequence of str, optional
        Names of one or two features; the others are integrated out. None takes all, if they are
        at most two.
    ax : matplotlib.axes.Axes, optional
        Where to draw, 3-D for a surface; None makes a figure.
    interval : float, optional
        Probability of the curve's pointwise, equal-tailed band over draws; None for no band.
    inside : sequence of float
        Shares of the probability that the contour lines enclose.
    n_grid : int
        Points along each of two features.
    rows : bool
        Whether to draw the training rows too; a surface never shows them.
    max_rows : int
        A random choice of so many rows is drawn if there are more.
    legend : bool
        Whether to draw the legend or the colour bar.

    Returns
    -------
    matplotlib.axes.Axes
        In the units of the data; the density is in 1 / (product of the features' units).

    Raises
    ------
    TypeError, ValueError
        If an option is wrong, or the fit has more than two features and none were chosen.

    Notes
    -----
    p(x | X) is the mean over draws of the mixture's density, as `log_predictive_density` computes
    it, so switched labels do not matter. Features are integrated out exactly, draw by draw. A
    contour line encloses the smallest region that holds its share, found on the grid (Hyndman
    1996, Computing and graphing highest density regions. The American Statistician 50).
    """
    fit = drawable(fit)
    names = _check_names(fit, features)
    check_choice(kind, "kind", _KINDS)
    check_axes(ax, three_d=kind == _SURFACE and len(names) == 2)
    n_grid = check_integer(n_grid, "n_grid", 2)
    interval = None if interval is None else check_probability(interval, "interval")
    interval = interval if has_draws(fit) else None
    shown = choose(len(fit.X), check_integer(max_rows, "max_rows", 1), generator(0))
    shares = _check_shares(inside)
    panel = marginal(fit, names)
    points = panel.X.values[shown] if rows else np.empty((0, len(names)))
    note = rows_note(len(shown), fit.n_obs) if rows else []
    if len(names) == 1:
        curve = density_curve(panel, interval)
        own, ax = ax is None, open_axes(ax)
        ax.set_xlabel(names[0])
        handles = _draw_curve(ax, panel, curve, points, interval=interval)
        if legend:
            add_legend(ax, handles + note, beside=own)
        return ax
    mesh = density_mesh(panel, n_grid)
    own, ax = ax is None, open_axes(ax, three_d=kind == _SURFACE)
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    if kind == _SURFACE:
        _draw_surface(ax, mesh)
        return ax
    if kind == _HEATMAP:
        _draw_heatmap(ax, mesh, density_name(fit) if legend else None)
        handles = note
    else:
        handles = _draw_contours(ax, mesh, shares) + note
    if legend and handles:
        # Beside a heat map is its colour bar.
        add_legend(ax, handles, beside=own and kind != _HEATMAP)
    if rows:
        _draw_rows(ax, points, fit.n_obs, on_dark=kind == _HEATMAP)
    return ax


def density_name(fit: GMMFit) -> str:
    """What a density is called in a legend."""
    return "posterior predictive density" if has_draws(fit) else "density, maximum likelihood"


def density_curve(fit: GMMFit, interval: float | None, limits: np.ndarray | None = None) -> Curve:
    """Predictive density of a fit with one feature along it, and the band over draws."""
    x = line_grid(fit, limits)
    values = log_predictive_density(fit, x[:, None], interval=interval)
    if isinstance(values, xr.DataArray):
        return Curve(x, np.exp(values.values), None, None)
    return Curve(x, *(np.exp(values[name].values) for name in ("mean", "lower", "upper")))


def density_mesh(fit: GMMFit, n_grid: int, limits: np.ndarray | None = None) -> Mesh:
    """Predictive density of a fit with two features on a regular grid, which covers its rows."""
    (x_low, x_high), (y_low, y_high) = extents(fit) if limits is None else limits
    x, y = np.linspace(x_low, x_high, n_grid), np.linspace(y_low, y_high, n_grid)
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    density = np.exp(np.asarray(log_predictive_density(fit, points)))
    return Mesh(x, y, density.reshape(n_grid, n_grid))


def highest_density_levels(density: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Densities above which given shares of the probability lie, shape (n_shares,).

    Parameters
    ----------
    density : ndarray
        On a regular grid.
    shares : sequence of float
        Between 0 and 1.
    """
    falling = np.sort(density, axis=None)[::-1]
    inside = np.cumsum(falling / falling.sum())
    return falling[np.searchsorted(inside, shares)]


def _check_names(fit: GMMFit, features: Any) -> tuple[str, ...]:
    if features is None and fit.n_features > PANEL:
        known = fit.feature_names
        raise ValueError(
            f"plot_density draws one or two features, but the fit has {len(known)} "
            f"({', '.join(known[:6])}{', ...' * (len(known) > 6)}); choose, as in "
            f"features={known[:PANEL]!r}"
        )
    return check_features(fit, fit.feature_names if features is None else features, PANEL)


def _check_shares(inside: Sequence[float]) -> list[float]:
    """Return distinct probabilities, the largest first."""
    shares = sorted({check_probability(share, "inside") for share in inside}, reverse=True)
    if not shares:
        raise ValueError(
            "inside must hold at least one probability, as in inside=(0.5, 0.9), got none"
        )
    return shares


def _draw_curve(
    ax: Axes, fit: GMMFit, curve: Curve, points: np.ndarray, *, interval: float | None
) -> list[Artist]:
    """Draw the density along one feature, its band, and a rug of the rows; return the legend."""
    handles = draw_band(ax, curve, interval, density_name(fit))
    if len(points):
        marks = ax.plot(
            points[:, 0],
            np.full(len(points), 0.02),
            linestyle="",
            marker="|",
            markersize=7,
            color=DATA_COLOUR,
            alpha=0.5,
            transform=ax.get_xaxis_transform(),
            rasterized=len(points) < fit.n_obs,
            label="rows",
        )
        handles += marks
    ax.set_xlim(*extents(fit)[0])
    ax.set_ylim(bottom=0)
    name_density(ax)
    return handles


def draw_band(ax: Axes, curve: Curve, interval: float | None, name: str) -> list[Artist]:
    """Draw a curve and the band about it; return the legend entries."""
    colour = COLOURS[0]
    handles: list[Artist] = [*ax.plot(curve.x, curve.mean, color=colour, linewidth=1.8, label=name)]
    if curve.lower is not None and curve.upper is not None and interval is not None:
        label = f"{100 * interval:g} % of draws, point by point"
        handles.append(
            ax.fill_between(
                curve.x, curve.lower, curve.upper, color=colour, alpha=0.25, lw=0, label=label
            )
        )
    return handles


def _draw_heatmap(ax: Axes, mesh: Mesh, name: str | None) -> None:
    image = ax.pcolormesh(
        mesh.x, mesh.y, mesh.density, shading="nearest", cmap=DENSITY_MAP, vmin=0, rasterized=True
    )
    figure = ax.figure
    if name is not None and figure is not None:
        figure.colorbar(image, ax=ax, label=name)


def _draw_contours(ax: Axes, mesh: Mesh, shares: Sequence[float]) -> list[Artist]:
    """Draw the lines and return their legend entries, the innermost first."""
    levels = highest_density_levels(mesh.density, shares)
    # Two shares can end on one point of a coarse grid; lines need rising levels.
    levels, first = np.unique(levels, return_index=True)
    # By rank: two levels that are close would otherwise share a colour.
    colours = [_LINE_MAP(rank) for rank in np.linspace(0, 1, len(levels))]
    ax.contour(mesh.x, mesh.y, mesh.density, levels=levels, colors=colours, linewidths=1.6)
    handles: list[Artist] = [
        key(f"{100 * shares[i]:g} % of the probability inside", color=colour, linewidth=1.6)
        for i, colour in zip(first, colours, strict=True)
    ]
    return handles[::-1]


def _draw_surface(ax: Any, mesh: Mesh) -> None:
    x, y = np.meshgrid(mesh.x, mesh.y)
    step = max(1, len(mesh.x) // 100)
    # Antialiased patches leave their seams visible as a second, false pattern.
    ax.plot_surface(
        x,
        y,
        mesh.density,
        cmap=DENSITY_MAP,
        rstride=step,
        cstride=step,
        linewidth=0,
        antialiased=False,
    )
    ax.set_zlabel("density", labelpad=12)


def _draw_rows(ax: Axes, points: np.ndarray, n_obs: int, *, on_dark: bool) -> None:
    ax.scatter(
        points[:, 0],
        points[:, 1],
        s=6,
        color="white" if on_dark else DATA_COLOUR,
        alpha=0.6,
        linewidths=0,
        rasterized=len(points) < n_obs,
        gid="rows",
        zorder=1,
    )
