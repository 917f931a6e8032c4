"""plot_calibration draws the curves that the verdict is about, and names what is wrong."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from made_up_ranks import NUM_RANKED, made_up_calibration, normal_ranks
from matplotlib.colors import to_hex

import gmm_bayes as gb
from gmm_bayes.plots.calibration import _OUTSIDE_COLOUR
from gmm_bayes.plots.style import DATA_COLOUR

from .drawn import by_gid, legend_texts, line


@pytest.fixture(scope="module")
def faulty() -> gb.Calibration:
    ranks = {
        "log_likelihood": normal_ranks(1000, seed=1),
        "means[0, 0]": normal_ranks(1000, seed=2),
        "means[0, 1]": normal_ranks(1000, sd=0.75, seed=3),
        "scales[0]": normal_ranks(1000, shift=0.4, seed=4),
    }
    ranks |= {f"scales[{i}]": normal_ranks(1000, shift=0.4, seed=4 + i) for i in range(1, 5)}
    return made_up_calibration(ranks)


def test_a_panel_for_each_name_and_a_curve_for_each_entry(faulty: gb.Calibration) -> None:
    axes = gb.plots.plot_calibration(faulty)
    assert [ax.get_title() for ax in axes] == ["log_likelihood", "means", "scales"]
    share = np.arange(NUM_RANKED + 2) / (NUM_RANKED + 1)
    for ax, names in zip(axes, (1, 2, 5), strict=True):
        drawn = [a for a in ax.lines if a.get_gid() in faulty.ranks]
        assert len(drawn) == names
        for curve in drawn:
            ranks = faulty.ranks[curve.get_gid()].to_numpy()
            # A rank r takes the place of the interval from r to r + 1 of the 100 equal ones.
            below = np.array([(ranks < i).mean() for i in range(NUM_RANKED + 2)])
            np.testing.assert_allclose(curve.get_xdata(), share, atol=1e-12)
            np.testing.assert_allclose(curve.get_ydata(), below - share, atol=1e-12)


def test_the_band_is_that_of_the_verdict(faulty: gb.Calibration) -> None:
    ax = gb.plots.plot_calibration(faulty)[0]
    (band,) = by_gid(ax, "band")
    low, high = band.get_paths()[0].get_extents().intervaly
    assert low == pytest.approx((faulty.band.low - faulty.band.points).min())
    assert high == pytest.approx((faulty.band.high - faulty.band.points).max())
    limits = ax.get_ylim()
    assert limits[0] == -limits[1]
    assert limits[1] > max(high, abs(line(ax, "log_likelihood")[:, 1]).max())


def test_what_is_outside_is_coloured_and_named(faulty: gb.Calibration) -> None:
    fine, means, scales = gb.plots.plot_calibration(faulty)
    for ax in (fine, means, scales):
        for curve in (a for a in ax.lines if a.get_gid() in faulty.ranks):
            good = faulty.table.loc[curve.get_gid(), "ok"]
            assert to_hex(curve.get_color()).upper() == (DATA_COLOUR if good else _OUTSIDE_COLOUR)
    assert legend_texts(fine) == []
    assert legend_texts(means) == ["[0, 1] too narrow"]
    assert legend_texts(scales) == ["[0] biased high", "[1] biased high", "and 3 more"]
    assert fine.title.get_color() == "black"
    assert means.title.get_color() == scales.title.get_color() == _OUTSIDE_COLOUR


def test_words_do_not_cover_curves(faulty: gb.Calibration) -> None:
    axes = gb.plots.plot_calibration(faulty)
    figure = axes[0].figure
    figure.canvas.draw()
    for ax in axes[1:]:
        box = ax.get_legend().get_window_extent()
        for curve in (a for a in ax.lines if a.get_gid() in faulty.ranks):
            points = ax.transData.transform(curve.get_xydata())
            assert not any(box.contains(*point) for point in points)


def test_the_key_says_what_this_is(faulty: gb.Calibration) -> None:
    figure = gb.plots.plot_calibration(faulty)[0].figure
    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words[0] == "95% band of all 8 quantities together"
    assert words[-1] == "1,000 simulations"
    assert figure.get_supxlabel() == "rank of the truth among its draws, as a share"


def test_a_choice_of_quantities(faulty: gb.Calibration) -> None:
    (ax,) = gb.plots.plot_calibration(faulty, quantities=["scales"])
    assert ax.get_title() == "scales"
    assert len(plt.gcf().axes) == 1


def test_every_column_has_its_tick_labels() -> None:
    """Also where the last row is not full."""
    found = made_up_calibration({f"q{i}": normal_ranks(50, seed=i) for i in range(6)})
    axes = gb.plots.plot_calibration(found)
    labelled = [bool(ax.xaxis.get_tick_params()["labelbottom"]) for ax in axes]
    assert labelled == [False, False, True, True, True, True]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"quantities": ["mean"]}, ValueError, "did you mean 'means'"),
        ({"quantities": []}, ValueError, "at least one of log_likelihood, means, scales, got none"),
    ],
)
def test_bad_choices(faulty, options, error, message) -> None:
    with pytest.raises(error, match=message):
        gb.plots.plot_calibration(faulty, **options)


def test_not_a_calibration() -> None:
    with pytest.raises(TypeError, match="calibration must be a Calibration, got int"):
        gb.plots.plot_calibration(3)
