"""The components over the rows they explain, with the posterior's uncertainty."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import patheffects
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from gmm_bayes._validation import check_integer, check_probability
from gmm_bayes._vocabulary import CHAIN, DRAW
from gmm_bayes.inference.em.result import EMFit
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.plots.axes import (
    add_legend,
    check_axes,
    check_no_axes,
    grid_axes,
    key,
    open_axes,
    rows_note,
)
from gmm_bayes.plots.curves import component_curves, curve_handles, draw_curves
from gmm_bayes.plots.selection import (
    PANEL,
    check_features,
    choose,
    drawable,
    extents,
    generator,
    has_draws,
)
from gmm_bayes.plots.style import DATA_COLOUR, UNSURE_COLOUR, component_style, row_colours
from gmm_bayes.posterior.marginals import marginal
from gmm_bayes.posterior.responsibilities import responsibilities

__all__ = ["draw_mean", "ellipses", "plot_components"]

logger = logging.getLogger(__name__)

_MOST_FEATURES = 5
_ELLIPSE_POINTS = 101


class _Picture(NamedTuple):
    """What all panels share: positions of draws and rows; labels and colours of those rows."""

    fit: GMMFit
    probability: float
    draws: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    colours: np.ndarray


def plot_components(
    fit: GMMFit | EMFit,
    *,
    features: str | Sequence[str] | None = None,
    ax: Axes | None = None,
    n_draws: int = 30,
    probability: float = 0.9,
    max_rows: int = 5000,
    legend: bool = True,
    seed: Any = 0,
) -> Any:
    """Draw the rows by component, the mean components, and a fan of posterior draws.

    Two features give ellipses, one feature gives densities, more give a grid of both.

    Parameters
    ----------
    fit : GMMFit or EMFit
        Of the latter the one solution is drawn, without a fan.
    features : str or sequence of str, optional
        Names of the features to show. None takes all, or the first 5 if there are more.
    ax : matplotlib.axes.Axes, optional
        Where to draw one or two features; None makes a figure.
    n_draws : int
        How many posterior draws make the fan of thin lines; 0 for none.
    probability : float
        Share of a component's own probability inside its ellipse.
    max_rows : int
        A random choice of so many rows is drawn if there are more.
    legend : bool
        Whether to draw one.
    seed : int in [0, 2**32) or JAX key
        Picks the draws and the rows.

    Returns
    -------
    matplotlib.axes.Axes
        For one or two features; axes are in the units of the data, densities in their inverse.
    ndarray of Axes, shape (n_features, n_features)
        For more; densities on the diagonal, pairs below it, the rest hidden.

    Raises
    ------
    LabelSwitchingError
        If the components changed places between draws.
    TypeError, ValueError
        If an option is wrong, or `ax` is given for a grid.

    Notes
    -----
    A row has the colour of its most probable component, paler grey the less sure that is. The
    bold ellipse has the posterior mean of the mean and of the covariance, and holds `probability`
    of that normal: its squared Mahalanobis radius is the chi-squared quantile with 2 degrees of
    freedom, -2 log(1 - probability). Bold densities are posterior means of weight times density,
    so that they add up to the predictive density. Features left out are integrated out; colours
    always use all of them.
    """
    fit = drawable(fit)
    names = check_features(
        fit, fit.feature_names[:_MOST_FEATURES] if features is None else features
    )
    if len(names) > PANEL:
        check_no_axes(ax, names)
    check_axes(ax)
    picture = _prepare(fit, probability, n_draws, max_rows, seed)
    if len(names) > PANEL:
        return _draw_grid(picture, names, legend=legend)
    own, ax = ax is None, open_axes(ax)
    panel = marginal(fit, names)
    if len(names) == 1:
        _draw_one(ax, picture, panel)
    else:
        _draw_pair(ax, picture, panel)
    ax.set_xlabel(names[0])
    if len(names) == PANEL:
        ax.set_ylabel(names[1])
    if legend:
        add_legend(ax, _handles(picture, len(names)), beside=own)
    return ax


def _prepare(fit: GMMFit, probability: Any, n_draws: Any, max_rows: Any, seed: Any) -> _Picture:
    probability = check_probability(probability, "probability")
    most_draws = check_integer(n_draws, "n_draws", 0)
    most_rows = check_integer(max_rows, "max_rows", 1)
    rng = generator(seed)
    rows = choose(len(fit.X), most_rows, rng)
    total = fit.posterior.sizes[CHAIN] * fit.posterior.sizes[DRAW]
    draws = choose(total if has_draws(fit) else 0, most_draws, rng)
    probabilities = np.asarray(responsibilities(fit, fit.X.values[rows]))
    return _Picture(
        fit, probability, draws, rows, probabilities.argmax(axis=1), row_colours(probabilities)
    )


def _draw_one(ax: Axes, picture: _Picture, panel: GMMFit) -> None:
    rows = panel.X.values[picture.rows, 0]
    draw_curves(ax, panel, component_curves(panel, picture.draws), rows, picture.colours)


def _draw_pair(ax: Axes, picture: _Picture, panel: GMMFit) -> None:
    """Draw rows, fan and mean ellipses of a fit with two features."""
    rows = panel.X.values[picture.rows]
    parameters = panel.parameters()
    radius = np.sqrt(-2 * np.log1p(-picture.probability))
    means = parameters.means.mean(axis=0)
    scale_tril = np.linalg.cholesky(parameters.covariances.mean(axis=0))
    for k in range(panel.n_components):
        style, mine = component_style(k), picture.labels == k
        ax.scatter(
            rows[mine, 0],
            rows[mine, 1],
            c=picture.colours[mine],
            marker=style.marker,
            s=14,
            linewidths=0,
            rasterized=len(rows) < panel.n_obs,
            gid=f"rows of component {k}",
            zorder=1,
        )
        fan = ellipses(
            parameters.means[picture.draws, k], parameters.scale_tril[picture.draws, k], radius
        )
        ax.add_collection(
            LineCollection(
                list(fan), colors=style.colour, linewidths=0.5, alpha=0.4, zorder=2, gid="fan"
            ),
        )
        draw_mean(ax, k, means[k], ellipses(means[k], scale_tril[k], radius))
    limits = extents(panel)
    ax.set_xlim(*limits[0])
    ax.set_ylim(*limits[1])


def ellipses(means: np.ndarray, scale_tril: np.ndarray, radius: float) -> np.ndarray:
    """Contours at one Mahalanobis radius, as closed polygons.

    Parameters
    ----------
    means : ndarray, shape (..., 2)
    scale_tril : ndarray, shape (..., 2, 2)
        Lower Cholesky factors of the covariances.
    radius : float

    Returns
    -------
    ndarray, shape (..., n_points, 2)
        mean + radius L (cos t, sin t). Unlike axes and angles, this keeps its digits when the
        units of the two features are many powers of ten apart.
    """
    angle = np.linspace(0, 2 * np.pi, _ELLIPSE_POINTS)
    circle = radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return means[..., None, :] + circle @ scale_tril.swapaxes(-1, -2)


def draw_mean(ax: Axes, component: int, mean: np.ndarray, outline: np.ndarray) -> None:
    """The bold ellipse of a component and its number at the centre."""
    style = component_style(component)
    # The dark rim keeps pale colours visible on white and on rows of their own colour.
    rim = patheffects.withStroke(linewidth=3.0, foreground="black")
    ax.plot(
        *outline.T,
        color=style.colour,
        linestyle=style.linestyle,
        linewidth=1.6,
        path_effects=[rim],
        gid=f"ellipse {component}",
        zorder=3,
    )
    halo = patheffects.withStroke(linewidth=2.5, foreground="white")
    ax.text(
        mean[0],
        mean[1],
        str(component),
        color="black",
        weight="bold",
        ha="center",
        va="center",
        clip_on=True,
        path_effects=[halo],
        zorder=4,
    )


def _draw_grid(picture: _Picture, names: Sequence[str], *, legend: bool) -> np.ndarray:
    """Densities on the diagonal and pairs below it."""
    fit, size = picture.fit, len(names)
    axes = grid_axes(size)
    for row in range(size):
        for column in range(row + 1):
            ax = axes[row, column]
            if row == column:
                _draw_one(ax, picture, marginal(fit, names[row : row + 1]))
                ax.set_yticks([])
                ax.set_ylabel("density" if row == 0 else "")
            else:
                _draw_pair(ax, picture, marginal(fit, (names[column], names[row])))
                ax.set_ylabel(names[row] if column == 0 else "")
                ax.tick_params(labelleft=column == 0)
            ax.set_xlabel(names[column] if row == size - 1 else "")
            ax.tick_params(labelbottom=row == size - 1)
    figure = axes[0, 0].figure
    if size < fit.n_features:
        shown = f"{size} of {fit.n_features} features: {', '.join(names)}"
        figure.suptitle(shown, fontsize="medium")
        logger.info("plot_components shows %s", shown)
    if legend:
        figure.legend(handles=_handles(picture, size), loc="upper right", fontsize="small")
    return axes


def _handles(picture: _Picture, n_features: int) -> list[Artist]:
    """Legend entries: the components, then what the other marks mean."""
    weights = picture.fit.parameters().weights.mean(axis=0)
    handles: list[Artist] = [
        key(
            f"component {k}, weight {weight:.2f}",
            color=component_style(k).colour,
            linestyle=component_style(k).linestyle,
            marker=component_style(k).marker,
            markersize=5,
        )
        for k, weight in enumerate(weights)
    ]
    if n_features != PANEL:
        handles += curve_handles()
    if n_features > 1:
        mean = "mean ellipse" if has_draws(picture.fit) else "ellipse"
        bold = f"bold: {mean}, {100 * picture.probability:g} % inside"
        handles.append(key(bold, color=DATA_COLOUR, linewidth=2.2))
    if len(picture.draws):
        thin = f"thin: {len(picture.draws)} posterior draws"
        handles.append(key(thin, color=DATA_COLOUR, linewidth=0.5))
    if picture.fit.n_components > 1:
        handles.append(
            key("paler: less sure", color=UNSURE_COLOUR, linestyle="", marker="o", markersize=5)
        )
    return handles + rows_note(len(picture.rows), picture.fit.n_obs)
