"""Calibration: how far the ranks of true values are from uniform, quantity by quantity."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from gmm_bayes._validation import check_choice
from gmm_bayes.checking.calibration.uniformity import Band, counts_below
from gmm_bayes.checking.calibration.verdict import Calibration
from gmm_bayes.plots.axes import key
from gmm_bayes.plots.style import COLOURS, DATA_COLOUR

__all__ = ["plot_calibration"]

_BAND_COLOUR = "#DDDDDD"
# Vermilion, which nobody takes for the grey of the others.
_OUTSIDE_COLOUR = COLOURS[3]
_MOST_COLUMNS = 4
# Names in one panel's legend; more would cover the curves.
_MOST_NAMED = 3


def plot_calibration(
    calibration: Calibration, *, quantities: Sequence[str] | None = None
) -> np.ndarray:
    """Draw the ECDF of each quantity's ranks, less that of uniform ranks, with its band.

    Parameters
    ----------
    calibration : Calibration
    quantities : sequence of str, optional
        Names of the panels: "log_likelihood", "means", ... None draws all.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (n_panels,)
        One panel for each name, with a curve for each of its entries. A curve above zero means
        that true values are too often among the smallest of their draws, so the posterior is biased
        high; one that rises above zero on the left and falls below it on the right, that they are
        too often extreme: it is too narrow. Curves that leave the grey band are vermilion and
        named. When nothing is wrong, all of them are inside with a probability of 95 %.

    Raises
    ------
    TypeError, ValueError
        If this is no calibration, or it does not have a quantity.

    Notes
    -----
    The bands are those of the verdict: simultaneous along each curve, and widened so that they hold
    for all quantities together.
    """
    if not isinstance(calibration, Calibration):
        raise TypeError(
            f"calibration must be a Calibration, got {type(calibration).__name__}; "
            "gmm_bayes.simulation_based_calibration makes one"
        )
    groups: dict[str, list[str]] = {}
    for name in calibration.ranks:
        groups.setdefault(name.partition("[")[0], []).append(name)
    chosen = list(groups) if quantities is None else list(quantities)
    for name in chosen:
        check_choice(name, "quantities", tuple(groups))
    if not chosen:
        raise ValueError(f"quantities must name at least one of {', '.join(groups)}, got none")
    n_columns = min(_MOST_COLUMNS, len(chosen))
    n_rows = -(-len(chosen) // n_columns)
    figure = plt.figure(layout="constrained", figsize=(2.7 * n_columns + 0.4, 2.1 * n_rows + 0.6))
    grid = np.ravel(figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False))
    for place, ax in enumerate(grid):
        ax.set_visible(place < len(chosen))
        ax.tick_params(labelbottom=place + n_columns >= len(chosen))
    band = calibration.band
    shown = list(zip(grid, chosen, strict=False))
    reach = [_draw(ax, calibration, name, groups[name], band) for ax, name in shown]
    # Room for words above and below.
    grid[0].set_ylim(-1.5 * max(reach), 1.5 * max(reach))
    figure.supxlabel("rank of the truth among its draws, as a share", fontsize="medium")
    figure.supylabel("ECDF of ranks less uniform", fontsize="medium")
    _add_key(figure, calibration)
    return grid[: len(chosen)]


def _draw(
    ax: Axes, calibration: Calibration, title: str, names: Sequence[str], band: Band
) -> float:
    """Draw one panel and return how far its curves and band are from zero."""
    share = np.concatenate([[0], band.points, [1]])
    low, high = (np.pad(edge - band.points, 1) for edge in (band.low, band.high))
    ax.fill_between(share, low, high, color=_BAND_COLOUR, linewidth=0, gid="band")
    ax.axhline(0, color="#BBBBBB", linewidth=0.8)
    counts = counts_below(calibration.ranks[list(names)].to_numpy(), calibration.num_ranked)
    curves = np.pad(counts / len(calibration.ranks) - band.points, ((0, 0), (1, 1)))
    table = calibration.table.loc[list(names)]
    for name, curve, fine in zip(names, curves, table["ok"], strict=True):
        ax.plot(
            share,
            curve,
            color=DATA_COLOUR if fine else _OUTSIDE_COLOUR,
            linewidth=0.9 if fine else 1.4,
            zorder=2 if fine else 3,
            gid=name,
        )
    outside = table[~table["ok"]]
    ax.set_title(title, fontsize="medium", color="black" if outside.empty else _OUTSIDE_COLOUR)
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    words = [f"{n[len(title) :]} {finding}".strip() for n, finding in outside["finding"].items()]
    if words:
        _write(ax, words, curves, share)
    return float(max(abs(curves).max(), high.max(), -low.min()))


def _write(ax: Axes, words: Sequence[str], curves: np.ndarray, share: np.ndarray) -> None:
    """Say what is wrong in the corner from which the curves stay away most."""
    if len(words) > _MOST_NAMED:
        words = [*words[: _MOST_NAMED - 1], f"and {len(words) - _MOST_NAMED + 1} more"]
    heights: dict[str, float] = {
        f"{vertical} {side}": (sign * curves[:, inside]).max()
        for vertical, sign in (("upper", 1), ("lower", -1))
        for side, inside in (("right", share > 0.2), ("left", share < 0.8))
    }
    look: dict[str, Any] = {"frameon": False, "borderpad": 0.2, "labelcolor": _OUTSIDE_COLOUR}
    look |= {"fontsize": "x-small", "handlelength": 0, "handletextpad": 0}
    look["loc"] = min(heights, key=lambda corner: heights[corner])
    ax.legend(handles=[key(text, linestyle="") for text in words], **look)


def _add_key(figure: Figure, calibration: Calibration) -> None:
    """What the colours mean, and of what this is a picture."""
    n_simulations, n_quantities = calibration.ranks.shape
    handles = [
        Patch(
            color=_BAND_COLOUR,
            label=f"{calibration.probability:.0%} band of all {n_quantities} quantities together",
        ),
        key("within it", color=DATA_COLOUR),
        key("outside", color=_OUTSIDE_COLOUR),
        key(f"{n_simulations:,} simulations", linestyle=""),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=4, fontsize="small")
