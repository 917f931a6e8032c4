"""The axes that pictures are drawn on, and their legends."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

__all__ = [
    "add_legend",
    "check_axes",
    "check_no_axes",
    "grid_axes",
    "key",
    "name_density",
    "open_axes",
    "rows_note",
    "save_picture",
]

_THREE_D = "3d"
_TALL_LEGEND = 20


def check_axes(ax: Any, *, three_d: bool = False) -> None:
    """Check that `ax` is None or can hold the picture, before anything long is computed.

    Raises
    ------
    TypeError
        If this is not one Axes.
    ValueError
        If it has the wrong number of dimensions.
    """
    if ax is None:
        return
    if not isinstance(ax, Axes):
        raise TypeError(f"ax must be one matplotlib Axes or None, got {type(ax).__name__}")
    if three_d and ax.name != _THREE_D:
        raise ValueError(
            "ax must be a 3-D Axes for kind='surface', got a 2-D one; "
            "make it with fig.add_subplot(projection='3d') or leave ax=None"
        )
    if not three_d and ax.name == _THREE_D:
        raise ValueError(
            "ax must be a 2-D Axes for this picture, got a 3-D one; "
            "make it with fig.add_subplot() or leave ax=None"
        )


def open_axes(ax: Axes | None, *, three_d: bool = False) -> Axes:
    """Return `ax`, or the axes of a new figure."""
    if ax is not None:
        return ax
    # Constrained layout makes room for a legend beside the axes and for the colour bar.
    figure = plt.figure(layout="constrained", figsize=(7.2, 4.8))
    return figure.add_subplot(projection=_THREE_D if three_d else None)


def check_no_axes(ax: Any, features: Sequence[str]) -> None:
    """Refuse axes where a grid is to be drawn, which makes its own.

    Raises
    ------
    ValueError
        If any were given.
    """
    if ax is not None:
        size = len(features)
        raise ValueError(
            f"ax must be None for a grid of {size} x {size} axes, got {type(ax).__name__}; leave "
            f"it out, or show one or two features, as in features={tuple(features[:2])!r}"
        )


def grid_axes(size: int) -> np.ndarray:
    """Return a new figure's grid of axes, shape (size, size), its upper triangle hidden."""
    side = max(5.0, 2.1 * size)
    figure = plt.figure(layout="constrained", figsize=(1.15 * side, side))
    axes = figure.subplots(size, size, sharex="col")
    for row, column in zip(*np.triu_indices(size, 1), strict=True):
        axes[row, column].set_visible(False)
    return axes


def add_legend(ax: Axes, handles: Sequence[Artist], *, beside: bool) -> None:
    """Put the legend beside axes that are ours, or where it covers least on the user's.

    Parameters
    ----------
    ax : Axes
    handles : sequence of Artist
        Entries, with their labels.
    beside : bool
        Whether there is room to the right of the axes.
    """
    columns = 1 + len(handles) // (_TALL_LEGEND + 1)
    place: dict[str, Any] = {"loc": "best"}
    if beside:
        place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0.0}
    ax.legend(handles=list(handles), fontsize="small", framealpha=0.85, ncols=columns, **place)


def name_density(ax: Axes) -> None:
    """Label the axis of a density, whose numbers are far from 1 in most units."""
    ax.set_ylabel("density")
    ax.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4), useMathText=True)


def key(label: str, **look: Any) -> Line2D:
    """A legend entry: a piece of line or a marker, with matplotlib's properties of lines."""
    return Line2D([], [], label=label, **look)


def rows_note(n_shown: int, n_obs: int) -> list[Artist]:
    """A legend entry that says how many rows are drawn; none when all are."""
    return [key(f"{n_shown:,} of {n_obs:,} rows shown", linestyle="")] * (n_shown < n_obs)


def save_picture(axes: Any, path: Path) -> None:
    """Write the figure of some axes as PNG and close it: pyplot keeps what is open for ever."""
    # A page of named panels, an array of them, or one.
    panels = list(axes.values()) if isinstance(axes, dict) else np.ravel(axes)
    figure = panels[0].figure
    # The suffix of a temporary file says nothing of its format.
    figure.savefig(path, format="png")
    plt.close(figure)
