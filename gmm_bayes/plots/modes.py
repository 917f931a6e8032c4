"""The posterior's modes: how much is in each, and what the first few say."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from gmm_bayes._validation import check_integer
from gmm_bayes._vocabulary import SURVEY
from gmm_bayes.core.draws import draw_scores
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.modes.table import modes
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.plots.components import draw_mean, ellipses
from gmm_bayes.plots.selection import PANEL, check_features, choose, generator
from gmm_bayes.plots.style import COLOURS, DATA_COLOUR, component_style, row_colours

__all__ = ["plot_modes"]

_MOST_ROWS = 5000
# Share of a component's own probability inside its ellipse.
_PROBABILITY = 0.9
# Nats below the first at which the bars end.
_DEEPEST = 40.0
# Bars at most: the words of more would lie over each other.
_MOST_BARS = 12
_CURVE_POINTS = 400


def plot_modes(
    fit: GMMFit, *, features: str | Sequence[str] | None = None, n_modes: int = 3
) -> np.ndarray:
    """Draw what each mode of a posterior is worth, and the first few side by side.

    Parameters
    ----------
    fit : GMMFit
        Whose modes were looked for.
    features : str or sequence of str, optional
        One or two of the features; None takes the first two.
    n_modes : int
        How many modes to draw, at most.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (1 + modes drawn,)
        First the log mass of the modes, twelve at most, beside the first's, in nats and by
        Laplace's method, with the number of starts that led there and, where chains came to a mode,
        the share of the posterior that they found there and at others that they came to. Then the
        modes: rows have the colour of their most probable component, paler the less sure that is,
        and ellipses hold 0.9 of a component; of one feature, curves are weight times density.

    Raises
    ------
    TypeError, ValueError
        If modes were not looked for, or there are more than two features to show.
    """
    table = modes(fit)
    names = check_features(fit, fit.feature_names[:PANEL] if features is None else features)
    if len(names) > PANEL:
        raise ValueError(f"features must be one or two, got {len(names)}: {', '.join(names)}")
    n_drawn = min(check_integer(n_modes, "n_modes", 1), len(table))
    width = 3.4 + 3.2 * n_drawn
    figure = plt.figure(layout="constrained", figsize=(width, 3.6))
    panels = figure.subplots(1, 1 + n_drawn, width_ratios=[1.2, *[1.0] * n_drawn])
    _draw_masses(panels[0], table)
    rows = choose(len(fit.X), _MOST_ROWS, generator(0))
    columns = [fit.feature_names.index(name) for name in names]
    for i, ax in enumerate(panels[1:]):
        told = fit.run[SURVEY]["modes"][i]["mixture"]
        mixture = MixtureParameters(**{k: np.array(v) for k, v in told.items()})
        _draw_mode(ax, fit.X.values[rows], mixture, columns)
        ax.set_title(f"mode {i}", fontsize="medium")
        ax.set_xlabel(names[0])
        if len(names) == PANEL and i == 0:
            ax.set_ylabel(names[1])
        ax.tick_params(labelleft=i == 0)
    return panels


def _draw_masses(ax: Axes, table: pd.DataFrame) -> None:
    """A bar for each of the first modes, from the bottom of the axis: longer is more."""
    n_modes, with_chains = len(table), table["chains"].notna().any()
    table = table.head(_MOST_BARS)
    mass = np.maximum(table["log_mass"].fillna(-np.inf), -_DEEPEST)
    bottom = min(-10.0, 1.1 * mass.min())
    been = table["chains"].notna()
    colours = np.where(been, COLOURS[0], "#BBBBBB")
    ax.barh(table.index, mass - bottom, left=bottom, color=list(colours), gid="masses")
    for i, line in table.iterrows():
        words = f"{line['n_starts']} start" + "s" * (line["n_starts"] != 1)
        if been[i]:
            words += f", share {line['chains']:.3f}"
        inside = mass[i] - bottom > -0.55 * bottom
        ax.annotate(
            words,
            (bottom if inside else mass[i], i),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize="x-small",
            color="white" if inside and been[i] else "black",
            gid=f"words {i}",
        )
    ax.set_xlim(bottom, 0.0)
    ax.set_ylim(max(len(table), 4) - 0.5, -0.5)
    ax.set_yticks(list(table.index))
    ax.set_ylabel("mode" if len(table) == n_modes else f"mode, the first {len(table)} of {n_modes}")
    ax.set_xlabel("log mass beside the first (nats)")
    ax.set_title("blue: chains came to it" if with_chains else "no chains", fontsize="medium")


def _draw_mode(ax: Axes, X: np.ndarray, mixture: MixtureParameters, columns: list[int]) -> None:
    scores = draw_scores(X, *(a[None] for a in mixture))[0].T
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    colours, labels = row_colours(shares), shares.argmax(axis=1)
    covariances = mixture.scale_tril @ mixture.scale_tril.swapaxes(-1, -2)
    means = mixture.means[:, columns]
    tril = np.linalg.cholesky(covariances[:, columns][:, :, columns])
    if len(columns) == 1:
        _draw_curves(ax, X[:, columns[0]], colours, mixture.weights, means[:, 0], tril[:, 0, 0])
        return
    radius = np.sqrt(-2 * np.log1p(-_PROBABILITY))
    rows = X[:, columns]
    for k in range(len(means)):
        mine = labels == k
        ax.scatter(
            rows[mine, 0],
            rows[mine, 1],
            c=colours[mine],
            marker=component_style(k).marker,
            s=12,
            linewidths=0,
            gid=f"rows of component {k}",
        )
        draw_mean(ax, k, means[k], ellipses(means[k], tril[k], radius))
    # An ellipse of a component with hardly a row may be anywhere.
    low, high = rows.min(axis=0), rows.max(axis=0)
    margin = 0.1 * (high - low)
    ax.set_xlim(low[0] - margin[0], high[0] + margin[0])
    ax.set_ylim(low[1] - margin[1], high[1] + margin[1])


def _draw_curves(
    ax: Axes,
    x: np.ndarray,
    colours: np.ndarray,
    weights: np.ndarray,
    means: np.ndarray,
    sds: np.ndarray,
) -> None:
    low, high = x.min(), x.max()
    grid = np.linspace(low - 0.1 * (high - low), high + 0.1 * (high - low), _CURVE_POINTS)
    z = (grid[:, None] - means) / sds
    density = weights * np.exp(-0.5 * z**2) / (sds * np.sqrt(2 * np.pi))
    for k in range(len(means)):
        style = component_style(k)
        ax.plot(
            grid, density[:, k], color=style.colour, linestyle=style.linestyle, gid=f"curve {k}"
        )
    ax.plot(grid, density.sum(axis=1), color=DATA_COLOUR, linewidth=0.8, gid="whole")
    ax.scatter(x, np.full(len(x), -0.04 * density.max()), c=colours, marker="|", gid="rows")
    ax.set_yticks([])
