"""plot_coassignment and plot_partition show which rows belong together, and how surely."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

import gmm_bayes as gb
from gmm_bayes.plots.style import COLOURS

from .drawn import by_gid, legend_texts, points


@pytest.fixture(scope="module")
def found(geyser_fit: gb.GMMFit) -> gb.Partition:
    return gb.partition(geyser_fit, num_starts=4)


def test_matrix_is_ordered_by_the_partition(geyser_fit: gb.GMMFit, found: gb.Partition) -> None:
    ax = gb.plots.plot_coassignment(geyser_fit, partition=found)
    (image,) = by_gid(ax, "coassignment")
    drawn = np.asarray(image.get_array())
    matrix = gb.coassignment(geyser_fit).values
    first = found.sizes[0]
    inside = matrix[np.ix_(found.labels == 0, found.labels == 0)]
    np.testing.assert_allclose(drawn[:first, :first].sum(), inside.sum(), rtol=1e-5)
    assert drawn[:first, :first].mean() > 0.9 > 0.1 > drawn[:first, first:].mean()
    assert (np.diff(drawn[:first, :first].mean(axis=1)) < 1e-6).all()
    np.testing.assert_array_equal(drawn, drawn.T)
    assert image.get_clim() == (0, 1)
    (borders,) = by_gid(ax, "borders")
    np.testing.assert_array_equal(
        borders.get_segments(), [[[first, 0], [first, 272]], [[0, first], [272, first]]]
    )
    for axis in (ax.xaxis, ax.yaxis):
        assert [text.get_text() for text in axis.get_ticklabels()] == ["0", "1"]
        np.testing.assert_allclose(axis.get_ticklocs(), [first / 2, (first + 272) / 2])
    assert ax.get_xlabel() == "rows by cluster"
    (bar,) = [other for other in ax.figure.axes if other is not ax]
    assert bar.get_ylabel() == "probability of one component"


def test_many_rows_are_thinned(geyser_fit: gb.GMMFit, found: gb.Partition) -> None:
    for given in (None, found):
        ax = gb.plots.plot_coassignment(geyser_fit, partition=given, max_rows=50, legend=False)
        (image,) = by_gid(ax, "coassignment")
        assert image.get_array().shape == (50, 50)
        assert ax.get_xlabel() == "rows by cluster (50 of 272 shown)"
        assert ax.figure.axes == [ax]


def test_colours_and_marks(geyser_fit: gb.GMMFit, found: gb.Partition) -> None:
    ax = gb.plots.plot_partition(geyser_fit, partition=found)
    labels, probability = found.labels.values, found.probability.values
    assert (probability < 0.95).any()
    for cluster in range(2):
        (scatter,) = by_gid(ax, f"rows of cluster {cluster}")
        np.testing.assert_allclose(scatter.get_facecolors()[0, :3], to_rgb(COLOURS[cluster]))
        mine = labels == cluster
        np.testing.assert_array_equal(
            np.sort(np.asarray(scatter.get_offsets()), axis=0),
            np.sort(geyser_fit.X.values[mine], axis=0),
        )
        unsure = np.asarray(scatter.get_sizes()) > 50
        assert unsure.sum() == (probability[mine] < 0.95).sum()
        np.testing.assert_array_equal(unsure, np.asarray(scatter.get_linewidths()) > 0)
        offsets = np.asarray(scatter.get_offsets())[unsure]
        wanted = geyser_fit.X.values[mine & (probability < 0.95)]
        np.testing.assert_array_equal(np.sort(offsets, axis=0), np.sort(wanted, axis=0))
    sizes = found.sizes
    assert legend_texts(ax) == [
        f"cluster 0: {sizes[0]} rows",
        f"cluster 1: {sizes[1]} rows",
        "probability below 0.95",
    ]
    assert gb.plots.plot_partition(geyser_fit, partition=found, legend=False).get_legend() is None


def test_one_feature_against_the_probability(waiting_fit: gb.GMMFit) -> None:
    found = gb.partition(waiting_fit)
    xy, _, _ = points(gb.plots.plot_partition(waiting_fit))
    np.testing.assert_allclose(np.sort(xy[:, 1]), np.sort(found.probability.values))


def test_features_and_thinning(iris_fit: gb.GMMFit) -> None:
    names = iris_fit.feature_names
    ax = gb.plots.plot_partition(iris_fit, features=(names[3], names[1]), max_rows=40)
    assert (ax.get_xlabel(), ax.get_ylabel()) == (names[3], names[1])
    assert len(points(ax)[0]) == 40
    assert "40 of 150 rows shown" in legend_texts(ax)


def test_switched_labels_do_not_matter(switched_fit: gb.GMMFit, geyser_fit: gb.GMMFit) -> None:
    one, other = (
        np.asarray(by_gid(gb.plots.plot_coassignment(fit), "coassignment")[0].get_array())
        for fit in (switched_fit, geyser_fit)
    )
    np.testing.assert_allclose(np.sort(one.ravel()), np.sort(other.ravel()), atol=1e-5)


def test_given_axes_are_used(geyser_fit: gb.GMMFit, found: gb.Partition) -> None:
    figure, axes = plt.subplots(1, 2)
    assert gb.plots.plot_coassignment(geyser_fit, partition=found, ax=axes[0]) is axes[0]
    assert gb.plots.plot_partition(geyser_fit, partition=found, ax=axes[1]) is axes[1]
    assert plt.get_fignums() == [figure.number]


@pytest.mark.parametrize("plot", [gb.plots.plot_coassignment, gb.plots.plot_partition])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_rows": 0}, ValueError, "max_rows must be at least 1"),
        ({"seed": "a"}, TypeError, "seed must be an integer"),
        ({"ax": [1]}, TypeError, "ax must be one matplotlib Axes or None, got list"),
        ({"partition": [0, 1]}, TypeError, "partition must be a Partition or None, got list"),
    ],
)
def test_bad_options(
    geyser_fit: gb.GMMFit,
    plot: Any,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        plot(geyser_fit, **options)
    assert plt.get_fignums() == []


def test_a_partition_of_other_rows_is_refused(
    geyser_fit: gb.GMMFit, found: gb.Partition, iris_fit: gb.GMMFit
) -> None:
    for plot in (gb.plots.plot_coassignment, gb.plots.plot_partition):
        with pytest.raises(ValueError, match="of the 150 training rows, got one of 272 rows"):
            plot(iris_fit, partition=found)
