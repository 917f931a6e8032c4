"""plot_modes shows what each mode is worth, and the first few of them."""

import json

import numpy as np
import pytest
from matplotlib.axes import Axes

import gmm_bayes as gb

from .drawn import by_gid


def told(log_mass: float | None, means: list[list[float]], n_starts: int = 12) -> dict:
    mixture = {"weights": [0.4, 0.6], "means": means, "scale_tril": [[[1.0, 0], [0.5, 3.0]]] * 2}
    return {
        "log_density": 0.0,
        "log_mass": log_mass,
        "n_starts": n_starts,
        "distance": 0.0,
        "weights": [0.4, 0.6],
        "mixture": mixture,
    }


@pytest.fixture
def several(geyser_fit: gb.GMMFit) -> gb.GMMFit:
    modes = [
        told(0.0, [[2.0, 55.0], [4.3, 80.0]]),
        told(-2.5, [[2.0, 80.0], [4.3, 80.0]], 1),
        told(-90.0, [[2.0, 55.0], [2.5, 60.0]]),
        told(None, [[3.0, 70.0], [3.0, 70.0]]),
    ]
    chains = [
        {"began": [0], "came_to": [0], "share": 0.9},
        {"began": [1], "came_to": [1], "share": 0.1},
    ]
    tree = geyser_fit.datatree.copy()
    run = {**geyser_fit.run, "survey": {"n_starts": 50, "modes": modes, "chains": chains}}
    tree.attrs = {**tree.attrs, "run": json.dumps(run)}
    return gb.GMMFit(tree)


def lengths(ax: Axes) -> list[float]:
    return [patch.get_x() + patch.get_width() for patch in ax.patches]


def test_bars_end_at_the_log_masses(several: gb.GMMFit) -> None:
    masses, *_ = gb.plots.plot_modes(several)
    # Those far below, or without a mass, end where the axis does.
    np.testing.assert_allclose(lengths(masses), [0, -2.5, -40, -40])
    words = [text.get_text() for i in range(4) for text in by_gid(masses, f"words {i}")]
    assert words == ["12 starts, share 0.900", "1 start, share 0.100", "12 starts", "12 starts"]
    colours = {patch.get_facecolor() for patch in masses.patches[:2]}
    assert len(colours) == 1
    assert masses.patches[2].get_facecolor() not in colours


def test_of_many_modes_the_first_have_bars(several: gb.GMMFit) -> None:
    tree = several.datatree.copy()
    modes = [told(-float(i), [[2.0, 55.0], [4.3, 80.0]]) for i in range(30)]
    tree.attrs = {**tree.attrs, "run": json.dumps({**several.run, "survey": {"modes": modes}})}
    masses, *_ = gb.plots.plot_modes(gb.GMMFit(tree))
    np.testing.assert_allclose(lengths(masses), -np.arange(12.0))
    assert masses.get_ylabel() == "mode, the first 12 of 30"


def test_the_first_modes_are_side_by_side(several: gb.GMMFit) -> None:
    _, *panels = gb.plots.plot_modes(several)
    assert [ax.get_title() for ax in panels] == ["mode 0", "mode 1", "mode 2"]
    assert [ax.get_xlabel() for ax in panels] == ["eruptions"] * 3
    assert panels[0].get_ylabel() == "waiting"
    numbers = [[text.get_position() for text in ax.texts] for ax in panels]
    assert numbers[0] == [(2.0, 55.0), (4.3, 80.0)]
    assert numbers[1] == [(2.0, 80.0), (4.3, 80.0)]
    for ax in panels:
        drawn = sum(len(c.get_offsets()) for c in ax.collections)
        assert drawn == several.n_obs
        (outline,) = by_gid(ax, "ellipse 0")
        # Nine tenths of a normal: the radius along x is that of its sd of one.
        x = outline.get_xdata()
        assert np.ptp(x) / 2 == pytest.approx(np.sqrt(-2 * np.log(0.1)), rel=1e-3)


def test_one_feature_has_curves(several: gb.GMMFit) -> None:
    _, panel = gb.plots.plot_modes(several, features="waiting", n_modes=1)
    (curve,), (whole,) = by_gid(panel, "curve 1"), by_gid(panel, "whole")
    x, y = curve.get_data()
    assert x[y.argmax()] == pytest.approx(80, abs=0.2)
    # Weight times density; sd sqrt(0.25 + 9) of the second column.
    assert y.max() == pytest.approx(0.6 / np.sqrt(2 * np.pi * 9.25), rel=1e-3)
    assert (whole.get_ydata() >= y).all()


def test_a_real_fit_can_be_drawn(geyser_fit: gb.GMMFit) -> None:
    masses, panel = gb.plots.plot_modes(geyser_fit)
    assert lengths(masses) == [0]
    assert len(panel.texts) == 2


def test_what_is_refused(several: gb.GMMFit, iris_fit: gb.GMMFit) -> None:
    names = list(iris_fit.feature_names)[:3]
    with pytest.raises(ValueError, match="features must be one or two, got 3: sepal"):
        gb.plots.plot_modes(iris_fit, features=names)
    with pytest.raises(ValueError, match="n_modes must be at least 1, got 0"):
        gb.plots.plot_modes(several, n_modes=0)
