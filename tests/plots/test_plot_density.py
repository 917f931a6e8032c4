"""plot_density draws the predictive density, whatever the labels."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.contour import ContourSet
from mpl_toolkits.mplot3d import Axes3D
from scipy.stats import multivariate_normal, norm

import gmm_bayes as gb
from gmm_bayes.plots import density

from .drawn import by_gid, legend_texts


def mesh_of(ax: Any) -> tuple[np.ndarray, np.ndarray]:
    """Centres (n_y, n_x, 2) and values (n_y, n_x) of a heat map."""
    (mesh,) = [c for c in ax.collections if isinstance(c, QuadMesh)]
    corners = mesh.get_coordinates()
    centres = (corners[1:, 1:] + corners[:-1, :-1]) / 2
    return centres, np.asarray(mesh.get_array()).reshape(centres.shape[:2])


def curve_of(ax: Any) -> np.ndarray:
    (found,) = [entry for entry in ax.lines if "density" in str(entry.get_label())]
    return np.asarray(found.get_xydata())


def test_heatmap_holds_the_predictive_density(geyser_fit: gb.GMMFit) -> None:
    ax = gb.plots.plot_density(geyser_fit, n_grid=40)
    centres, values = mesh_of(ax)
    assert values.shape == (40, 40)
    expected = np.exp(gb.log_predictive_density(geyser_fit, centres.reshape(-1, 2)).values)
    np.testing.assert_allclose(values.ravel(), expected, rtol=1e-7)
    cell = np.prod(centres[1, 1] - centres[0, 0])
    assert 0.97 < values.sum() * cell < 1.001
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("eruptions", "waiting")
    (bar,) = [other for other in ax.figure.axes if other is not ax]
    assert bar.get_ylabel() == "posterior predictive density"


def test_rows_on_the_heatmap(geyser_fit: gb.GMMFit) -> None:
    ax = gb.plots.plot_density(geyser_fit, n_grid=5)
    (scatter,) = by_gid(ax, "rows")
    np.testing.assert_array_equal(scatter.get_offsets(), geyser_fit.X.values)
    ax = gb.plots.plot_density(geyser_fit, n_grid=5, rows=False, legend=False)
    assert by_gid(ax, "rows") == []
    assert legend_texts(ax) == []
    few = gb.plots.plot_density(geyser_fit, n_grid=5, max_rows=20)
    assert legend_texts(few) == ["20 of 272 rows shown"]
    assert len(by_gid(few, "rows")[0].get_offsets()) == 20
    assert ax.figure.axes == [ax]


def test_marginal_of_two_features(iris_fit: gb.GMMFit) -> None:
    names = iris_fit.feature_names
    centres, values = mesh_of(
        gb.plots.plot_density(iris_fit, features=(names[3], names[0]), n_grid=12)
    )
    draws = iris_fit.parameters()
    covariances = draws.covariances[..., [3, 0], :][..., [3, 0]]
    expected = np.mean(
        [
            sum(
                draws.weights[s, k]
                * multivariate_normal(draws.means[s, k, [3, 0]], covariances[s, k]).pdf(centres)
                for k in range(2)
            )
            for s in range(len(draws.weights))
        ],
        axis=0,
    )
    np.testing.assert_allclose(values, expected, rtol=1e-9)


def test_marginal_is_the_integral_of_the_joint(geyser_fit: gb.GMMFit) -> None:
    x, y = curve_of(gb.plots.plot_density(geyser_fit, features="eruptions")).T
    other = np.linspace(0, 150, 601)
    some = x[::60]
    points = np.stack(np.meshgrid(some, other, indexing="ij"), axis=-1)
    joint = np.exp(gb.log_predictive_density(geyser_fit, points.reshape(-1, 2)).values)
    integral = joint.reshape(len(some), -1).sum(axis=1) * (other[1] - other[0])
    np.testing.assert_allclose(y[::60], integral, rtol=1e-6)


def test_one_feature_is_a_curve_inside_its_band(waiting_fit: gb.GMMFit) -> None:
    ax = gb.plots.plot_density(waiting_fit, interval=0.8)
    x, y = curve_of(ax).T
    np.testing.assert_allclose(
        y, np.exp(gb.log_predictive_density(waiting_fit, x[:, None]).values), rtol=1e-10
    )
    (band,) = [c for c in ax.collections if isinstance(c, PolyCollection)]
    draws = waiting_fit.parameters()
    sd = draws.scale_tril[..., 0, 0]
    each = (draws.weights * norm.pdf(x[:, None, None], draws.means[..., 0], sd)).sum(axis=2)
    lower, upper = np.quantile(each, [0.1, 0.9], axis=1)
    outline = band.get_paths()[0].vertices
    for edge in (lower, upper):
        wanted = np.column_stack([x, edge]) / [1, y.max()]
        gap = abs(wanted[:, None] - outline / [1, y.max()]).max(axis=2).min(axis=1)
        assert gap.max() < 1e-2
    inside = (lower <= y) & (y <= upper)
    assert inside[y > 0.05 * y.max()].all()
    assert 0.99 < np.trapezoid(y, x) < 1.001
    assert legend_texts(ax) == [
        "posterior predictive density",
        "80 % of draws, point by point",
        "rows",
    ]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("waiting", "density")


def test_curve_without_band_or_rows(waiting_fit: gb.GMMFit) -> None:
    ax = gb.plots.plot_density(waiting_fit, interval=None, rows=False)
    assert not ax.collections
    assert len(ax.lines) == 1
    rug = gb.plots.plot_density(waiting_fit, max_rows=30)
    (marks,) = [entry for entry in rug.lines if entry.get_label() == "rows"]
    assert len(marks.get_xdata()) == 30
    assert set(marks.get_xdata()) <= set(waiting_fit.X.values[:, 0])
    assert "30 of 272 rows shown" in legend_texts(rug)


def test_contours_enclose_their_share(geyser_fit: gb.GMMFit) -> None:
    ax = gb.plots.plot_density(geyser_fit, kind="contour", inside=(0.9, 0.5))
    (lines,) = [c for c in ax.get_children() if isinstance(c, ContourSet)]
    assert (np.diff(lines.levels) > 0).all()
    rows = gb.sample_predictive(geyser_fit, 20_000, seed=1).values
    heights = np.exp(gb.log_predictive_density(geyser_fit, rows).values)
    shares = [(heights > level).mean() for level in lines.levels]
    np.testing.assert_allclose(shares, [0.9, 0.5], atol=0.02)
    assert legend_texts(ax) == [
        "50 % of the probability inside",
        "90 % of the probability inside",
    ]
    shown = [handle.get_color() for handle in ax.get_legend().legend_handles]
    np.testing.assert_allclose(shown, lines.get_edgecolor()[::-1])


def test_highest_density_levels() -> None:
    values = np.array([[1.0, 4.0], [3.0, 2.0]])
    np.testing.assert_array_equal(
        density.highest_density_levels(values, [0.3, 0.4001, 0.75, 0.95]), [4, 3, 2, 1]
    )


def test_levels_that_coincide_on_a_coarse_grid(geyser_fit: gb.GMMFit) -> None:
    ax = gb.plots.plot_density(geyser_fit, kind="contour", n_grid=4, inside=(0.01, 0.02, 0.9))
    assert legend_texts(ax) == ["90 % of the probability inside"]


def test_surface(geyser_fit: gb.GMMFit, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def spy(self: Axes3D, x: Any, y: Any, z: Any, **options: Any) -> Any:
        drawn.append(np.stack([x, y, z], axis=-1))
        return real(self, x, y, z, **options)

    real = Axes3D.plot_surface
    monkeypatch.setattr(Axes3D, "plot_surface", spy)
    ax = gb.plots.plot_density(geyser_fit, kind="surface", n_grid=20)
    ax.figure.canvas.draw()
    (surface,) = drawn
    assert surface.shape == (20, 20, 3)
    points = surface.reshape(-1, 3)
    expected = np.exp(gb.log_predictive_density(geyser_fit, points[:, :2]).values)
    np.testing.assert_allclose(points[:, 2], expected, rtol=1e-7)
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_zlabel()) == (
        "eruptions",
        "waiting",
        "density",
    )
    given = plt.figure().add_subplot(projection="3d")
    assert gb.plots.plot_density(geyser_fit, kind="surface", n_grid=5, ax=given) is given


@pytest.mark.parametrize("kind", ["heatmap", "contour"])
def test_given_axes_are_used(geyser_fit: gb.GMMFit, waiting_fit: gb.GMMFit, kind: Any) -> None:
    figure, ax = plt.subplots()
    assert gb.plots.plot_density(geyser_fit, kind=kind, n_grid=10, ax=ax) is ax
    assert gb.plots.plot_density(waiting_fit, ax=ax) is ax
    assert plt.get_fignums() == [figure.number]


def test_switched_labels_do_not_matter(geyser_fit: gb.GMMFit, switched_fit: gb.GMMFit) -> None:
    values = [
        mesh_of(gb.plots.plot_density(fit, n_grid=10))[1] for fit in (geyser_fit, switched_fit)
    ]
    np.testing.assert_allclose(*values, rtol=1e-10)


@pytest.mark.parametrize("kind", ["heatmap", "contour", "surface"])
def test_units_far_apart(odd_units_fit: gb.GMMFit, kind: Any) -> None:
    ax = gb.plots.plot_density(odd_units_fit, kind=kind, n_grid=30)
    ax.figure.canvas.draw()
    if kind == "heatmap":
        centres, values = mesh_of(ax)
        cell = np.prod(centres[1, 1] - centres[0, 0])
        assert 0.97 < values.sum() * cell < 1.001


@pytest.mark.parametrize("power", [12, -12])
def test_curve_in_odd_units(odd_units_fit: gb.GMMFit, power: int) -> None:
    name = "eruptions" if power > 0 else "waiting"
    ax = gb.plots.plot_density(odd_units_fit, features=name)
    ax.figure.canvas.draw()
    x, y = curve_of(ax).T
    assert 0.97 < np.trapezoid(y, x) < 1.001


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kind": "contours"}, ValueError, "kind must be one of heatmap.*did you mean 'contour'"),
        ({"n_grid": 1}, ValueError, "n_grid must be at least 2, got 1"),
        ({"inside": (0.5, 95)}, ValueError, "inside must be strictly between 0 and 1, got 95"),
        ({"inside": ()}, ValueError, "inside must hold at least one probability"),
        ({"interval": 2}, ValueError, "interval must be strictly between 0 and 1, got 2"),
        ({"max_rows": 0}, ValueError, "max_rows must be at least 1"),
        ({"features": ("waiting", "x")}, ValueError, "features must be one of eruptions, waiting"),
    ],
)
def test_bad_options(
    geyser_fit: gb.GMMFit, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        gb.plots.plot_density(geyser_fit, **options)
    assert plt.get_fignums() == []


def test_too_many_features_must_be_chosen(iris_fit: gb.GMMFit) -> None:
    with pytest.raises(ValueError, match=r"draws one or two features, but the fit has 4 .*choose"):
        gb.plots.plot_density(iris_fit)


def test_axes_of_the_wrong_kind(geyser_fit: gb.GMMFit) -> None:
    figure = plt.figure()
    with pytest.raises(ValueError, match="ax must be a 3-D Axes for kind='surface', got a 2-D"):
        gb.plots.plot_density(geyser_fit, kind="surface", ax=figure.add_subplot())
    with pytest.raises(ValueError, match="ax must be a 2-D Axes for this picture, got a 3-D"):
        gb.plots.plot_density(geyser_fit, ax=figure.add_subplot(projection="3d"))
