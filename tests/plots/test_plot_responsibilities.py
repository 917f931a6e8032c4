"""plot_responsibilities shows who is sure and who is not."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

import gmm_bayes as gb
from gmm_bayes.plots.style import COLOURS

from .drawn import by_gid, legend_texts, points


def test_the_less_sure_the_larger(geyser_fit: gb.GMMFit) -> None:
    xy, _, areas = points(gb.plots.plot_responsibilities(geyser_fit))
    X, sure = geyser_fit.X.values, gb.responsibilities(geyser_fit).values.max(axis=1)
    order = np.lexsort((1 - sure, *X.T))
    np.testing.assert_array_equal(np.sort(xy, axis=0), np.sort(X, axis=0))
    # Rows that tie in both features have one responsibility, so sizes follow the values alone.
    by_value = np.lexsort(xy.T)
    np.testing.assert_array_equal(xy[by_value], X[order])
    np.testing.assert_allclose(areas[by_value], 12 + 208 * (1 - sure[order]), rtol=1e-9)
    assert np.ptp(areas) > 10


def test_colours_are_of_the_most_probable_component(geyser_fit: gb.GMMFit) -> None:
    ax = gb.plots.plot_responsibilities(geyser_fit)
    labels = gb.assign(geyser_fit).values
    for k in range(2):
        (scatter,) = by_gid(ax, f"rows of component {k}")
        np.testing.assert_allclose(scatter.get_facecolors()[0, :3], to_rgb(COLOURS[k]))
        mine = geyser_fit.X.values[labels == k]
        np.testing.assert_array_equal(
            np.sort(np.asarray(scatter.get_offsets()), axis=0), np.sort(mine, axis=0)
        )
        assert (np.diff(scatter.get_sizes()) <= 0).all()
        rims = np.asarray(scatter.get_linewidths()) > 0
        np.testing.assert_array_equal(rims, scatter.get_sizes() > 12 + 208 * 0.05)


def test_one_feature_against_the_probability(waiting_fit: gb.GMMFit) -> None:
    ax = gb.plots.plot_responsibilities(waiting_fit)
    xy, _, _ = points(ax)
    expected = np.column_stack(
        [waiting_fit.X.values, gb.responsibilities(waiting_fit).values.max(axis=1)]
    )
    order, wanted = np.lexsort(xy.T), np.lexsort(expected.T)
    np.testing.assert_allclose(xy[order], expected[wanted], rtol=1e-12)
    assert ax.get_xlabel() == "waiting"
    assert ax.get_ylabel() == "probability of the most probable component"
    assert ax.get_ylim()[0] < 0.5 < 1 < ax.get_ylim()[1]
    (chance,) = [entry for entry in ax.lines if np.allclose(entry.get_ydata(), 0.5)]
    assert chance.get_linestyle() == ":"
    assert "all equally probable" in legend_texts(ax)


def test_features(iris_fit: gb.GMMFit) -> None:
    names = iris_fit.feature_names
    ax = gb.plots.plot_responsibilities(iris_fit)
    assert (ax.get_xlabel(), ax.get_ylabel()) == names[:2]
    ax = gb.plots.plot_responsibilities(iris_fit, features=(names[3], names[1]))
    assert (ax.get_xlabel(), ax.get_ylabel()) == (names[3], names[1])
    np.testing.assert_array_equal(
        np.sort(points(ax)[0], axis=0), np.sort(iris_fit.X.values[:, [3, 1]], axis=0)
    )
    with pytest.raises(ValueError, match="at most 2 names for this picture, got 3"):
        gb.plots.plot_responsibilities(iris_fit, features=names[:3])


def test_legend_shows_components_and_sizes(geyser_fit: gb.GMMFit) -> None:
    ax = gb.plots.plot_responsibilities(geyser_fit)
    assert legend_texts(ax) == [
        "component 0",
        "component 1",
        "probability 1",
        "probability 0.75",
        "probability 0.5",
    ]
    sizes = [handle.get_markersize() ** 2 for handle in ax.get_legend().legend_handles[2:]]
    np.testing.assert_allclose(sizes, [12, 64, 116])
    assert ax.get_legend() is not None
    assert gb.plots.plot_responsibilities(geyser_fit, legend=False).get_legend() is None


def test_subsample_says_so(geyser_fit: gb.GMMFit) -> None:
    ax = gb.plots.plot_responsibilities(geyser_fit, max_rows=40)
    assert len(points(ax)[0]) == 40
    assert "40 of 272 rows shown" in legend_texts(ax)
    assert all(a.get_rasterized() for a in by_gid(ax, "rows"))


def test_given_axes_are_used(geyser_fit: gb.GMMFit) -> None:
    figure, ax = plt.subplots()
    assert gb.plots.plot_responsibilities(geyser_fit, ax=ax) is ax
    assert plt.get_fignums() == [figure.number]


def test_units_far_apart(odd_units_fit: gb.GMMFit) -> None:
    ax = gb.plots.plot_responsibilities(odd_units_fit)
    ax.figure.canvas.draw()
    low, high = np.array([ax.get_xlim(), ax.get_ylim()]).T
    X = odd_units_fit.X.values
    assert ((low < X.min(axis=0)) & (X.max(axis=0) < high)).all()


def test_switched_labels_are_refused(switched_fit: gb.GMMFit) -> None:
    with pytest.raises(gb.errors.LabelSwitchingError):
        gb.plots.plot_responsibilities(switched_fit)
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_rows": 0}, ValueError, "max_rows must be at least 1"),
        ({"seed": "a"}, TypeError, "seed must be an integer"),
        ({"ax": [1]}, TypeError, "ax must be one matplotlib Axes or None, got list"),
    ],
)
def test_bad_options(
    geyser_fit: gb.GMMFit, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        gb.plots.plot_responsibilities(geyser_fit, **options)
    assert plt.get_fignums() == []
