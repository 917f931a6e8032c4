"""Which rows belong together, as a matrix and as a scatter of the one best partition."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from gmm_bayes._validation import check_integer
from gmm_bayes.inference.result.gmm_fit import GMMFit, check_fit
from gmm_bayes.plots.axes import add_legend, check_axes, key, open_axes, rows_note
from gmm_bayes.plots.selection import PANEL, check_features, choose, extents, generator
from gmm_bayes.plots.style import DENSITY_MAP, component_style
from gmm_bayes.posterior.marginals import marginal
from gmm_bayes.posterior.partitions.coassignment import coassignment
from gmm_bayes.posterior.partitions.partition import Partition
from gmm_bayes.posterior.partitions.partition import partition as best_partition

__all__ = ["plot_coassignment", "plot_partition"]

# Below, a row is marked as unsure.
_SURE: Final = 0.95
_SURE_SIZE, _UNSURE_SIZE = 14.0, 70.0
# Clusters narrower than this share of the axis have no room for their number.
_ROOM: Final = 0.03
_BORDER: Any = {"colors": "white", "linewidths": 1.0}


def plot_coassignment(
    fit: GMMFit,
    *,
    partition: Partition | None = None,
    ax: Axes | None = None,
    max_rows: int = 1000,
    legend: bool = True,
    seed: Any = 0,
) -> Axes:
    """Draw the probability that two rows share a component, rows ordered by a partition.

    Parameters
    ----------
    fit : GMMFit
    partition : Partition, optional
        Of the training rows, dims (obs,). None finds one for the rows that are drawn.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a figure.
    max_rows : int
        A random choice of so many rows is drawn if there are more; the x label then says so.
    legend : bool
        Whether to draw the colour bar.
    seed : int in [0, 2**32) or JAX key
        Picks the rows.

    Returns
    -------
    matplotlib.axes.Axes
        An image on a scale from 0 to 1. Lines separate clusters; within one,
        rows that are surest to belong to it come first.

    Raises
    ------
    TypeError, ValueError
        If an option is wrong.

    Notes
    -----
    The matrix is that of `coassignment`. Switched labels do not matter.
    """
    check_fit(fit)
    check_axes(ax)
    _check_partition(fit, partition)
    most = check_integer(max_rows, "max_rows", 1)
    rows = choose(len(fit.X), most, generator(seed))
    values = fit.X.values[rows]
    if partition is None:
        labels = best_partition(fit, values).labels.values
    else:
        labels = partition.labels.values[rows]
    matrix = coassignment(fit, values, dtype="float32").values
    order = _order(matrix, labels)
    ax = open_axes(ax)
    image = ax.imshow(
        matrix[np.ix_(order, order)],
        cmap=DENSITY_MAP,
        vmin=0,
        vmax=1,
        extent=(0, len(rows), len(rows), 0),
        interpolation="nearest",
        gid="coassignment",
    )
    if legend:
        ax.figure.colorbar(image, ax=ax, label="probability of one component")
    _mark_clusters(ax, np.sort(labels))
    shown = f" ({len(rows):,} of {fit.n_obs:,} shown)" * (len(rows) < fit.n_obs)
    ax.set_xlabel(f"rows by cluster{shown}")
    ax.set_ylabel("rows by cluster")
    return ax


def plot_partition(
    fit: GMMFit,
    *,
    partition: Partition | None = None,
    features: str | Sequence[str] | None = None,
    ax: Axes | None = None,
    max_rows: int = 5000,
    legend: bool = True,
    seed: Any = 0,
) -> Axes:
    """Draw the rows in the colours of the best partition, those that are unsure marked.

    Parameters
    ----------
    fit : GMMFit
    partition : Partition, optional
        Of the training rows, dims (obs,). None finds one with the defaults of `partition`.
    features : str or sequence of str, optional
        Names of one or two features to draw against. None takes the first two, or the only one.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a figure.
    max_rows : int
        A random choice of so many rows is drawn if there are more.
    legend : bool
        Whether to draw one.
    seed : int in [0, 2**32) or JAX key
        Picks the rows, and finds the partition if there is none.

    Returns
    -------
    matplotlib.axes.Axes
        In the units of the data. One feature: its value against the probability that the row sits
        in its cluster.

    Raises
    ------
    TypeError, ValueError
        If an option is wrong.

    Notes
    -----
    Larger, rimmed markers are rows that sit in their cluster with probability below 0.95; see
    `Partition.probability`. Colours number clusters from the largest, not components.
    """
    check_fit(fit)
    names = check_features(fit, fit.feature_names[:PANEL] if features is None else features, PANEL)
    check_axes(ax)
    _check_partition(fit, partition)
    most = check_integer(max_rows, "max_rows", 1)
    rows = choose(len(fit.X), most, generator(seed))
    found = best_partition(fit, seed=seed) if partition is None else partition
    labels, probability = found.labels.values, found.probability.values
    panel = marginal(fit, names)
    own, ax = ax is None, open_axes(ax)
    limits = extents(panel)
    x = panel.X.values[rows, 0]
    y = probability[rows] if len(names) == 1 else panel.X.values[rows, 1]
    _draw_rows(ax, x, y, labels[rows], probability[rows] < _SURE, thin=len(rows) < fit.n_obs)
    ax.set_xlabel(names[0])
    ax.set_xlim(*limits[0])
    if len(names) == 1:
        ax.set_ylabel("probability of its cluster")
        ax.set_ylim(-0.04, 1.04)
    else:
        ax.set_ylabel(names[1])
        ax.set_ylim(*limits[1])
    if legend:
        unsure = bool((probability[rows] < _SURE).any())
        handles = _handles(found.sizes, unsure) + rows_note(len(rows), fit.n_obs)
        add_legend(ax, handles, beside=own)
    return ax


def _check_partition(fit: GMMFit, partition: Any) -> None:
    """Refuse what is not a partition of the training rows."""
    if partition is None:
        return
    if not isinstance(partition, Partition):
        raise TypeError(
            f"partition must be a Partition or None, got {type(partition).__name__}; "
            "gmm_bayes.partition makes one"
        )
    if len(partition.labels) != len(fit.X):
        raise ValueError(
            f"partition must be of the {len(fit.X)} training rows, got one of "
            f"{len(partition.labels)} rows; use gmm_bayes.partition(fit)"
        )


def _order(matrix: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rows by cluster and, within one, from the surest."""
    belongs = np.zeros(len(labels))
    for cluster in np.unique(labels):
        mine = labels == cluster
        belongs[mine] = matrix[np.ix_(mine, mine)].mean(axis=1)
    return np.lexsort((-belongs, labels))


def _mark_clusters(ax: Axes, labels: np.ndarray) -> None:
    """Lines between clusters, and their numbers on both axes."""
    clusters, begins, sizes = np.unique(labels, return_index=True, return_counts=True)
    total = len(labels)
    across = [[(b, 0), (b, total)] for b in begins[1:]]
    down = [[(0, b), (total, b)] for b in begins[1:]]
    ax.add_collection(LineCollection(across + down, gid="borders", **_BORDER))
    wide = sizes >= _ROOM * total
    centres, numbers = (begins + sizes / 2)[wide], [str(c) for c in clusters[wide]]
    ax.set_xticks(centres, numbers)
    ax.set_yticks(centres, numbers)
    ax.tick_params(length=0)


def _draw_rows(
    ax: Axes, x: np.ndarray, y: np.ndarray, labels: np.ndarray, unsure: np.ndarray, *, thin: bool
) -> None:
    for cluster in np.unique(labels):
        style, mine = component_style(int(cluster)), np.flatnonzero(labels == cluster)
        # Sure rows last, so that large markers hide no small one.
        mine = mine[np.argsort(~unsure[mine], kind="stable")]
        ax.scatter(
            x[mine],
            y[mine],
            s=np.where(unsure[mine], _UNSURE_SIZE, _SURE_SIZE),
            c=style.colour,
            marker=style.marker,
            alpha=0.75,
            edgecolors="black",
            linewidths=(0.9 * unsure[mine]).tolist(),
            rasterized=thin,
            gid=f"rows of cluster {cluster}",
            zorder=2,
        )


def _handles(sizes: np.ndarray, unsure: bool) -> list[Artist]:
    """Legend entries: clusters with their sizes, then the mark of unsure rows."""
    handles: list[Artist] = [
        key(
            f"cluster {cluster}: {size:,} row{'s' * (size != 1)}",
            color=component_style(cluster).colour,
            marker=component_style(cluster).marker,
            linestyle="",
            markersize=6,
        )
        for cluster, size in enumerate(sizes.tolist())
    ]
    if unsure:
        handles.append(
            key(
                f"probability below {_SURE:g}",
                linestyle="",
                marker="o",
                markersize=np.sqrt(_UNSURE_SIZE),
                markerfacecolor="none",
                markeredgecolor="black",
                markeredgewidth=0.9,
            )
        )
    return handles
