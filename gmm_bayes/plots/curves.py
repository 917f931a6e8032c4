"""One feature: the components' densities over the rows, drawn by `plot_components`."""

from typing import NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Patch

from gmm_bayes.core import mixture
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.plots.axes import key, name_density
from gmm_bayes.plots.selection import extents, line_grid
from gmm_bayes.plots.style import component_style
from gmm_bayes.posterior.streaming import each_draw, log_mean_over_draws, map_rows

__all__ = ["Curves", "component_curves", "curve_handles", "draw_curves"]

_HISTOGRAM = "#E3E3E3"
_MIXTURE = "#A9A9A9"
_FEWEST_BINS, _MOST_BINS = 10, 60


class Curves(NamedTuple):
    """Densities along one feature, in 1 / (units of the feature).

    Attributes
    ----------
    x : ndarray, shape (n_points,)
    components : ndarray, shape (n_points, n_components)
        Posterior mean of weight times component density.
    fan : ndarray, shape (n_draws, n_points, n_components)
        The same under single draws.
    """

    x: np.ndarray
    components: np.ndarray
    fan: np.ndarray


def component_curves(fit: GMMFit, draws: np.ndarray) -> Curves:
    """Weighted densities of the components of a fit with one feature, on average and for draws.

    Parameters
    ----------
    fit : GMMFit
        With one feature.
    draws : ndarray of int, shape (n_draws,)
        Positions of the draws of the fan, chains joined.
    """
    x = line_grid(fit)
    mean = np.exp(map_rows(_log_mean, fit, x[:, None]))
    if len(draws) == 0:
        return Curves(x, mean, np.empty((0, *mean.shape)))
    picked = MixtureParameters(*(values[draws] for values in fit.parameters()))
    fan = map_rows(lambda rows, _: _each(rows, picked), fit, x[:, None], axis=1)
    return Curves(x, mean, np.exp(fan))


def draw_curves(
    ax: Axes, fit: GMMFit, curves: Curves, rows: np.ndarray, colours: np.ndarray
) -> None:
    """Draw the curves over a histogram of all rows and a rug of the chosen ones.

    Parameters
    ----------
    ax : Axes
    fit : GMMFit
        With one feature.
    curves : Curves
    rows : ndarray, shape (n_shown,)
        Values of the rug.
    colours : ndarray, shape (n_shown, 3)
    """
    every = fit.X.values[:, 0]
    heights, _, _ = ax.hist(
        every, bins=_n_bins(every), density=True, color=_HISTOGRAM, gid="histogram", zorder=0
    )
    for k in range(curves.components.shape[1]):
        style = component_style(k)
        _draw_fan(ax, curves.x, curves.fan[:, :, k], style.colour)
        ax.plot(
            curves.x,
            curves.components[:, k],
            color=style.colour,
            linestyle=style.linestyle,
            linewidth=1.8,
            gid=f"component {k}",
            zorder=3,
        )
    total = curves.components.sum(axis=1)
    # A broad band below the components: where there is only one, both are to be seen.
    ax.plot(curves.x, total, color=_MIXTURE, linewidth=4.0, gid="mixture", zorder=0.5)
    ax.scatter(
        rows,
        np.full(len(rows), 0.035),
        c=colours,
        marker="|",
        s=50,
        linewidths=1.0,
        transform=ax.get_xaxis_transform(),
        rasterized=len(rows) < len(every),
        gid="rows",
        zorder=2,
    )
    # A few draws may leave the picture, lest one spike flatten all the others.
    peaks = np.quantile(curves.fan.max(axis=1), 0.9, axis=0) if len(curves.fan) else np.zeros(1)
    top = 1.05 * max(total.max(), np.max(heights), peaks.max())
    ax.set_ylim(-0.08 * top, top)
    ax.set_xlim(*extents(fit)[0])
    name_density(ax)


def curve_handles() -> list[Artist]:
    """Legend entries of what every panel with one feature shows."""
    return [
        key("mixture", color=_MIXTURE, linewidth=4.0),
        Patch(color=_HISTOGRAM, label="rows, histogram"),
    ]


def _n_bins(values: np.ndarray) -> int:
    """Number of bins by Freedman and Diaconis's rule, bounded: an outlier asks for millions."""
    low, high = np.quantile(values, [0.25, 0.75])
    width = 2 * (high - low) / len(values) ** (1 / 3)
    wanted = np.ptp(values) / width if width > 0 else _MOST_BINS
    return int(np.clip(wanted, _FEWEST_BINS, _MOST_BINS))


def _draw_fan(ax: Axes, x: np.ndarray, fan: np.ndarray, colour: str) -> None:
    lines = np.stack(np.broadcast_arrays(x, fan), axis=-1)
    ax.add_collection(
        LineCollection(list(lines), colors=colour, linewidths=0.5, alpha=0.35, zorder=1, gid="fan"),
    )


_log_mean = log_mean_over_draws(mixture.scores)
_each = each_draw(mixture.scores)
