"""plot_components draws the rows, the posterior means and the draws it says it draws."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from scipy.stats import chi2, norm

import gmm_bayes as gb
from gmm_bayes.plots.style import COLOURS, row_colours

from .drawn import by_gid, fans, legend_texts, line, made_up_fit, points


def sorted_rows(xy: np.ndarray, colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((*colours.T, *xy.T))
    return xy[order], colours[order]


def test_rows_have_the_colours_of_their_responsibilities(geyser_fit: gb.GMMFit) -> None:
    xy, colours, _ = points(gb.plots.plot_components(geyser_fit))
    expected = row_colours(gb.responsibilities(geyser_fit).values)
    rows, expected = sorted_rows(geyser_fit.X.values, expected)
    np.testing.assert_array_equal(xy, rows)
    np.testing.assert_allclose(colours, expected, atol=1e-12)


@pytest.mark.parametrize("probability", [0.5, 0.9])
def test_mean_ellipses_are_contours_of_the_posterior_means(
    geyser_fit: gb.GMMFit, probability: float
) -> None:
    ax = gb.plots.plot_components(geyser_fit, probability=probability)
    draws = geyser_fit.parameters()
    assert len(by_gid(ax, "ellipse")) == 2
    for k in range(2):
        mean, covariance = draws.means[:, k].mean(0), draws.covariances[:, k].mean(0)
        outline = line(ax, f"ellipse {k}")
        np.testing.assert_allclose(outline[:-1].mean(axis=0), mean, rtol=1e-10)
        away = outline - mean
        squared = np.einsum("nd,de,ne->n", away, np.linalg.inv(covariance), away)
        np.testing.assert_allclose(squared, chi2.ppf(probability, 2), rtol=1e-10)
        assert by_gid(ax, f"ellipse {k}")[0].get_color() == COLOURS[k]
        (number,) = [text for text in ax.texts if text.get_text() == str(k)]
        np.testing.assert_allclose(number.get_position(), mean)
    assert f"bold: mean ellipse, {100 * probability:g} % inside" in legend_texts(ax)


def test_fan_is_made_of_posterior_draws(geyser_fit: gb.GMMFit) -> None:
    ax = gb.plots.plot_components(geyser_fit, n_draws=7)
    draws = geyser_fit.parameters()
    assert [len(fan) for fan in fans(ax)] == [7, 7]
    picked = []
    for k, fan in enumerate(fans(ax)):
        centres = fan[:, :-1].mean(axis=1)
        distance = np.linalg.norm((draws.means[:, k] - centres[:, None]) / [1, 10], axis=-1)
        which = distance.argmin(axis=1)
        picked.append(which)
        np.testing.assert_allclose(centres, draws.means[which, k], rtol=1e-10)
        away = fan - centres[:, None]
        squared = np.einsum(
            "snd,sde,sne->sn", away, np.linalg.inv(draws.covariances[which, k]), away
        )
        np.testing.assert_allclose(squared, chi2.ppf(0.9, 2), rtol=1e-9)
    assert len(set(picked[0].tolist())) == 7
    np.testing.assert_array_equal(picked[0], picked[1])
    assert "thin: 7 posterior draws" in legend_texts(ax)


def test_seed_picks_the_draws(geyser_fit: gb.GMMFit) -> None:
    first, again, other = (
        np.array(fans(gb.plots.plot_components(geyser_fit, n_draws=5, seed=seed))[0])
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_no_fan(geyser_fit: gb.GMMFit, waiting_fit: gb.GMMFit) -> None:
    for fit in (geyser_fit, waiting_fit):
        ax = gb.plots.plot_components(fit, n_draws=0)
        assert sum(map(len, fans(ax))) == 0
        assert not [text for text in legend_texts(ax) if "draws" in text]


def test_one_feature_draws_mean_weighted_densities(waiting_fit: gb.GMMFit) -> None:
    ax = gb.plots.plot_components(waiting_fit, n_draws=4)
    draws = waiting_fit.parameters()
    total: Any = 0
    for k in range(2):
        x, y = line(ax, f"component {k}").T
        sd = draws.scale_tril[:, k, 0, 0]
        each = draws.weights[:, k] * norm.pdf(x[:, None], draws.means[:, k, 0], sd)
        np.testing.assert_allclose(y, each.mean(axis=1), rtol=1e-10, atol=1e-300)
        total = total + y
        for curve in fans(ax)[k]:
            np.testing.assert_array_equal(curve[:, 0], x)
            nearest = abs(each - curve[:, 1:]).max(axis=0).min()
            assert nearest < 1e-10 * y.max()
    x, y = line(ax, "mixture").T
    np.testing.assert_allclose(y, total)
    np.testing.assert_allclose(y, np.exp(gb.log_predictive_density(waiting_fit, x[:, None])))
    assert [len(fan) for fan in fans(ax)] == [4, 4]
    assert ax.get_ylabel() == "density"


def test_one_feature_shows_rows_and_their_histogram(waiting_fit: gb.GMMFit) -> None:
    ax = gb.plots.plot_components(waiting_fit)
    xy, colours, _ = points(ax)
    expected = row_colours(gb.responsibilities(waiting_fit).values)
    rows, expected = sorted_rows(waiting_fit.X.values, expected)
    np.testing.assert_array_equal(xy[:, 0], rows[:, 0])
    np.testing.assert_allclose(colours, expected, atol=1e-12)
    bars = [patch for patch in ax.patches if patch.get_gid() == "histogram"]
    np.testing.assert_allclose(sum(bar.get_width() * bar.get_height() for bar in bars), 1)
    assert ax.get_ylim()[1] > max(bar.get_height() for bar in bars)


def test_outlier_does_not_ask_for_a_million_bins() -> None:
    X = np.random.default_rng(0).standard_normal((60, 1))
    X[0] = 1e9
    ax = gb.plots.plot_components(made_up_fit(X, 2))
    assert 10 <= len(ax.patches) <= 60


def test_grid(iris_fit: gb.GMMFit) -> None:
    axes = gb.plots.plot_components(iris_fit, n_draws=3)
    names = iris_fit.feature_names
    assert axes.shape == (4, 4)
    for row in range(4):
        for column in range(4):
            assert axes[row, column].get_visible() == (column <= row)
    assert [axes[3, j].get_xlabel() for j in range(4)] == list(names)
    assert [axes[i, 0].get_ylabel() for i in range(4)] == ["density", *names[1:]]
    xy, colours, _ = points(axes[3, 1])
    expected = row_colours(gb.responsibilities(iris_fit).values)
    rows, expected = sorted_rows(iris_fit.X.values[:, [1, 3]], expected)
    np.testing.assert_array_equal(xy, rows)
    np.testing.assert_allclose(colours, expected, atol=1e-12)
    means = iris_fit.parameters().means.mean(axis=0)
    for k in range(2):
        centre = line(axes[3, 1], f"ellipse {k}")[:-1].mean(axis=0)
        np.testing.assert_allclose(centre, means[k, [1, 3]], rtol=1e-10)
    x, y = line(axes[2, 2], "mixture").T
    draws = iris_fit.parameters()
    sd = np.sqrt(draws.covariances[:, :, 2, 2])
    each = draws.weights * norm.pdf(x[:, None, None], draws.means[:, :, 2], sd)
    np.testing.assert_allclose(y, each.sum(axis=2).mean(axis=1), rtol=1e-9, atol=1e-12)
    assert len(axes[0, 0].figure.legends) == 1


def test_columns_of_a_grid_share_their_axis(iris_fit: gb.GMMFit) -> None:
    axes = gb.plots.plot_components(iris_fit, features=iris_fit.feature_names[:3], n_draws=0)
    assert axes.shape == (3, 3)
    assert axes[0, 0].get_xlim() == axes[1, 0].get_xlim() == axes[2, 0].get_xlim()
    np.testing.assert_allclose(axes[2, 0].get_ylim(), axes[2, 1].get_ylim())
    (title,) = axes[0, 0].figure.texts
    assert title.get_text().startswith("3 of 4 features: sepal length (cm), sepal width")


def test_many_features_are_capped_and_named() -> None:
    X = np.random.default_rng(0).standard_normal((40, 6))
    axes = gb.plots.plot_components(made_up_fit(X, 1, "diag"), n_draws=1)
    assert axes.shape == (5, 5)
    assert axes[0, 0].figure.texts[0].get_text() == "5 of 6 features: x0, x1, x2, x3, x4"


def test_features_choose_and_order(iris_fit: gb.GMMFit) -> None:
    names = iris_fit.feature_names
    ax = gb.plots.plot_components(iris_fit, features=(names[3], names[0]), n_draws=1)
    assert (ax.get_xlabel(), ax.get_ylabel()) == (names[3], names[0])
    np.testing.assert_array_equal(
        np.sort(points(ax)[0], axis=0), np.sort(iris_fit.X.values[:, [3, 0]], axis=0)
    )
    assert gb.plots.plot_components(iris_fit, features=names[1]).get_xlabel() == names[1]


def test_given_axes_are_used(geyser_fit: gb.GMMFit, waiting_fit: gb.GMMFit) -> None:
    figure, (left, right) = plt.subplots(1, 2)
    plt.sca(right)
    for fit, ax in ((geyser_fit, left), (waiting_fit, right)):
        assert gb.plots.plot_components(fit, ax=ax) is ax
    assert plt.get_fignums() == [figure.number]
    assert plt.gca() is right
    assert (left.get_xlabel(), left.get_ylabel()) == ("eruptions", "waiting")
    assert right.get_xlabel() == "waiting"


def test_subsample_says_so(geyser_fit: gb.GMMFit) -> None:
    ax = gb.plots.plot_components(geyser_fit, max_rows=50)
    xy, _, _ = points(ax)
    assert len(xy) == 50
    known = {tuple(row) for row in geyser_fit.X.values}
    assert all(tuple(row) in known for row in xy)
    assert "50 of 272 rows shown" in legend_texts(ax)
    assert all(a.get_rasterized() for a in by_gid(ax, "rows"))
    full = gb.plots.plot_components(geyser_fit)
    assert not [text for text in legend_texts(full) if "rows shown" in text]


def test_legend(geyser_fit: gb.GMMFit) -> None:
    weights = geyser_fit.parameters().weights.mean(axis=0)
    texts = legend_texts(gb.plots.plot_components(geyser_fit))
    assert texts[:2] == [f"component {k}, weight {weights[k]:.2f}" for k in range(2)]
    assert legend_texts(gb.plots.plot_components(geyser_fit, legend=False)) == []


def test_legend_is_beside_own_axes_and_within_given_ones(geyser_fit: gb.GMMFit) -> None:
    for given in (None, plt.figure().add_subplot()):
        ax = gb.plots.plot_components(geyser_fit, ax=given)
        ax.figure.canvas.draw()
        legend, frame = ax.get_legend().get_window_extent(), ax.get_window_extent()
        if given is None:
            assert legend.x0 >= frame.x1
            assert legend.x1 <= ax.figure.bbox.x1 + 1
        else:
            assert frame.x0 <= legend.x0 < legend.x1 <= frame.x1


def test_units_far_apart(odd_units_fit: gb.GMMFit) -> None:
    ax = gb.plots.plot_components(odd_units_fit)
    ax.figure.canvas.draw()
    draws = odd_units_fit.parameters()
    for k in range(2):
        outline = line(ax, f"ellipse {k}") - draws.means[:, k].mean(0)
        half = np.sqrt(chi2.ppf(0.9, 2) * np.diagonal(draws.covariances[:, k].mean(0)))
        np.testing.assert_allclose(abs(outline).max(axis=0), half, rtol=2e-3)
    low, high = np.array([ax.get_xlim(), ax.get_ylim()]).T
    X = odd_units_fit.X.values
    assert ((low < X.min(axis=0)) & (X.max(axis=0) < high)).all()
    assert (high - low < 2 * np.ptp(X, axis=0)).all()


def test_switched_labels_are_refused_and_leave_no_figure(switched_fit: gb.GMMFit) -> None:
    with pytest.raises(gb.errors.LabelSwitchingError):
        gb.plots.plot_components(switched_fit)
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_draws": -1}, ValueError, "n_draws must be at least 0, got -1"),
        ({"n_draws": 2.5}, TypeError, "n_draws must be an integer"),
        ({"probability": 90}, ValueError, "probability must be strictly between 0 and 1, got 90"),
        ({"max_rows": 0}, ValueError, "max_rows must be at least 1, got 0"),
        ({"seed": -1}, ValueError, "seed must be in"),
        ({"features": "nothing"}, ValueError, "features must be one of eruptions, waiting"),
        ({"ax": "left"}, TypeError, "ax must be one matplotlib Axes or None, got str"),
    ],
)
def test_bad_options(
    geyser_fit: gb.GMMFit, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        gb.plots.plot_components(geyser_fit, **options)
    assert plt.get_fignums() == []


def test_axes_that_do_not_fit(geyser_fit: gb.GMMFit, iris_fit: gb.GMMFit) -> None:
    figure = plt.figure()
    with pytest.raises(ValueError, match=r"ax must be None for a grid of 4 x 4 axes.*features="):
        gb.plots.plot_components(iris_fit, ax=figure.add_subplot())
    with pytest.raises(ValueError, match="ax must be a 2-D Axes for this picture, got a 3-D one"):
        gb.plots.plot_components(geyser_fit, ax=figure.add_subplot(projection="3d"))


def test_fan_does_not_move_the_limits(geyser_fit: gb.GMMFit) -> None:
    without = gb.plots.plot_components(geyser_fit, n_draws=0)
    ax = gb.plots.plot_components(geyser_fit, n_draws=100)
    assert ax.get_xlim() == without.get_xlim()
    assert [c for c in ax.collections if isinstance(c, LineCollection)]


def test_more_components_than_colours() -> None:
    X = np.random.default_rng(0).standard_normal((300, 2))
    ax = gb.plots.plot_components(made_up_fit(X, 11), n_draws=2)
    ax.figure.canvas.draw()
    outlines = [by_gid(ax, f"ellipse {k}")[-1] for k in (0, 8)]
    assert outlines[0].get_color() == outlines[1].get_color()
    assert [o.get_linestyle() for o in outlines] == ["-", "--"]
    assert len([text for text in legend_texts(ax) if text.startswith("component")]) == 11


def test_all_covariance_types() -> None:
    X = np.random.default_rng(0).standard_normal((30, 2)) * [1.0, 50.0]
    for covariance_type in ("full", "tied", "diag", "spherical"):
        fit = made_up_fit(X, 2, covariance_type)
        ax = gb.plots.plot_components(fit, n_draws=2)
        half = np.ptp(line(ax, "ellipse 0"), axis=0) / 2
        variance = fit.parameters().covariances.mean(axis=0)[0].diagonal()
        np.testing.assert_allclose(half, np.sqrt(chi2.ppf(0.9, 2) * variance), rtol=2e-3)
