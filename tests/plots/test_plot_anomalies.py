"""plot_anomalies marks exactly the rows that flag_anomalies flags."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.contour import ContourSet

import gmm_bayes as gb
from gmm_bayes.plots.style import ANOMALY_STYLES

from .drawn import by_gid, legend_texts

RULES: dict[str, Any] = {"contamination": 0.05, "min_responsibility": 0.95}


def marked(ax: Any) -> dict[str, np.ndarray]:
    """Offsets (n, 2) of the rows of each kind."""
    return {kind: offsets(ax, kind) for kind in ANOMALY_STYLES}


def offsets(ax: Any, kind: str) -> np.ndarray:
    found = by_gid(ax, f"{kind} rows")
    return np.asarray(found[0].get_offsets()) if found else np.empty((0, 2))


def test_rows_are_marked_as_they_are_flagged(geyser_fit: gb.GMMFit) -> None:
    rules = {"contamination": 0.008, "min_responsibility": 0.999}
    ax = gb.plots.plot_anomalies(geyser_fit, **rules, n_grid=20)
    flags, X = gb.flag_anomalies(geyser_fit, **rules), geyser_fit.X.values
    strange = flags["low_density"].values
    unsure = flags["unsure"].values & ~strange
    assert strange.sum() > 1
    assert unsure.sum() > 1
    rows = marked(ax)
    np.testing.assert_array_equal(rows["strange"], X[strange])
    np.testing.assert_array_equal(rows["unsure"], X[unsure])
    np.testing.assert_array_equal(rows["normal"], X[~(strange | unsure)])
    assert legend_texts(ax) == [
        "posterior predictive density",
        "threshold",
        f"normal ({(~(strange | unsure)).sum()})",
        f"unsure ({unsure.sum()})",
        f"strange ({strange.sum()})",
    ]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("eruptions", "waiting")


def test_the_threshold_is_a_line_of_the_density(geyser_fit: gb.GMMFit) -> None:
    ax = gb.plots.plot_anomalies(geyser_fit, contamination=0.05, n_grid=80)
    (lines,) = [c for c in ax.get_children() if isinstance(c, ContourSet)]
    points = np.concatenate([path.vertices for path in lines.get_paths()])
    logs = gb.log_predictive_density(geyser_fit, points).values
    threshold = gb.flag_anomalies(geyser_fit, contamination=0.05).attrs["threshold"]
    np.testing.assert_allclose(logs, threshold, atol=0.15)


def test_one_feature(waiting_fit: gb.GMMFit) -> None:
    rules = {"contamination": 0.05, "min_responsibility": 0.8}
    ax = gb.plots.plot_anomalies(waiting_fit, **rules)
    flags = gb.flag_anomalies(waiting_fit, **rules)
    rows = marked(ax)
    np.testing.assert_array_equal(
        rows["strange"][:, 0], waiting_fit.X.values[flags["low_density"].values, 0]
    )
    heights = {kind: set(points[:, 1]) for kind, points in rows.items()}
    assert all(len(height) == 1 for height in heights.values())
    (line,) = by_gid(ax, "threshold")
    assert line.get_ydata()[0] == pytest.approx(np.exp(flags.attrs["threshold"]))
    assert [c for c in ax.collections if isinstance(c, PolyCollection)]
    assert min(ax.get_yticks()) == 0
    assert ax.get_ylim()[0] < 0
    plain = gb.plots.plot_anomalies(waiting_fit, contamination=0.05, interval=None)
    assert not [c for c in plain.collections if isinstance(c, PolyCollection)]


def test_new_rows_and_those_far_out(geyser_fit: gb.GMMFit) -> None:
    new = [[4.4, 80.0], [3.0, 40.0], [400.0, 70.0], [401.0, 70.0]]
    ax = gb.plots.plot_anomalies(geyser_fit, new, contamination=0.05, n_grid=20)
    np.testing.assert_array_equal(marked(ax)["strange"], new[1:])
    assert legend_texts(ax)[-1] == "2 rows outside the picture"
    assert ax.get_xlim()[1] < 15
    low, high = ax.get_ylim()
    assert low < 40 < 80 < high


@pytest.mark.parametrize(
    "features", [("petal width (cm)", "sepal length (cm)"), "petal width (cm)"]
)
def test_flags_are_of_all_features(iris_fit: gb.GMMFit, features: Any) -> None:
    ax = gb.plots.plot_anomalies(iris_fit, contamination=0.05, features=features, n_grid=20)
    flags = gb.flag_anomalies(iris_fit, contamination=0.05)["flag"].values
    columns = [3, 0] if isinstance(features, tuple) else [3]
    shown = marked(ax)["strange"][:, : len(columns)]
    np.testing.assert_array_equal(shown, iris_fit.X.values[flags][:, columns])
    # The threshold is a density of four features.
    assert "threshold" not in legend_texts(ax)


def test_flagged_rows_are_drawn_first(geyser_fit: gb.GMMFit) -> None:
    ax = gb.plots.plot_anomalies(geyser_fit, contamination=0.05, max_rows=30, n_grid=20)
    rows, n_strange = (
        marked(ax),
        int(gb.flag_anomalies(geyser_fit, contamination=0.05)["flag"].sum()),
    )
    assert len(rows["strange"]) == n_strange
    assert len(rows["normal"]) == 30 - n_strange
    assert legend_texts(ax)[2:] == [
        f"normal ({272 - n_strange})",
        f"strange ({n_strange})",
        "30 of 272 rows shown",
    ]
    few = gb.plots.plot_anomalies(geyser_fit, contamination=0.05, max_rows=5, n_grid=20)
    assert [len(points) for points in marked(few).values()] == [0, 0, 5]


def test_small_components_are_strange(geyser_fit: gb.GMMFit) -> None:
    ax = gb.plots.plot_anomalies(geyser_fit, threshold=-1e5, min_weight=0.5, n_grid=20)
    assert 90 < len(marked(ax)["strange"]) < 105
    # No point of the picture lies below such a threshold.
    assert "threshold" not in legend_texts(ax)


def test_given_axes_are_used_and_the_legend_can_be_left_out(geyser_fit: gb.GMMFit) -> None:
    _, ax = plt.subplots()
    drawn = gb.plots.plot_anomalies(geyser_fit, contamination=0.05, ax=ax, n_grid=20, legend=False)
    assert drawn is ax
    assert legend_texts(ax) == []


@pytest.mark.parametrize("name", ["eruptions", "waiting", None])
def test_units_far_apart(odd_units_fit: gb.GMMFit, name: Any) -> None:
    ax = gb.plots.plot_anomalies(odd_units_fit, contamination=0.05, features=name, n_grid=20)
    ax.figure.canvas.draw()


def test_switched_labels_matter_only_for_unsure_rows(switched_fit: gb.GMMFit) -> None:
    gb.plots.plot_anomalies(switched_fit, contamination=0.05, n_grid=20)
    plt.close("all")
    with pytest.raises(gb.errors.LabelSwitchingError):
        gb.plots.plot_anomalies(switched_fit, **RULES)
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "give exactly one of contamination and threshold, got neither"),
        ({"contamination": 2}, ValueError, "contamination must be strictly between 0 and 1"),
        ({**RULES, "n_grid": 1}, ValueError, "n_grid must be at least 2, got 1"),
        ({**RULES, "interval": 2}, ValueError, "interval must be strictly between 0 and 1, got 2"),
        ({**RULES, "max_rows": 0}, ValueError, "max_rows must be at least 1"),
        ({**RULES, "features": "wating"}, ValueError, "did you mean 'waiting'"),
        ({**RULES, "ax": 3}, TypeError, "ax must be one matplotlib Axes or None, got int"),
        ({**RULES, "X": [[1.0]]}, ValueError, "X must have the 2 columns of the fit"),
    ],
)
def test_bad_options(
    geyser_fit: gb.GMMFit, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        gb.plots.plot_anomalies(geyser_fit, **options)
    assert plt.get_fignums() == []


def test_flags_of_more_features_than_are_shown_are_said(iris_fit: gb.GMMFit) -> None:
    shown = gb.plots.plot_anomalies(iris_fit, contamination=0.05, n_grid=10)
    assert "flags use all 4 features, 2 shown" in legend_texts(shown)
    one = gb.plots.plot_anomalies(iris_fit, contamination=0.05, features="petal length (cm)")
    assert "flags use all 4 features, 1 shown" in legend_texts(one)
