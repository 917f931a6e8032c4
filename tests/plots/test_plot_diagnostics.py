"""plot_diagnostics draws the numbers of the verdict, and says it."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
from made_up import made_up_fit, shuffled
from matplotlib.colors import to_hex

import gmm_bayes as gb
from gmm_bayes.inference.verdict.label_free import label_free_quantities
from gmm_bayes.plots.diagnostics import _BAD
from gmm_bayes.plots.style import COLOURS, DATA_COLOUR

from .drawn import by_gid

NAMES = ("log_likelihood", "largest_weight", "entropy")


@pytest.fixture(scope="module")
def good() -> gb.GMMFit:
    return made_up_fit([[0.0, 0.0], [3.0, 1.0]], n_draws=1000, noise=0.05)


@pytest.fixture(scope="module")
def stuck(good: gb.GMMFit) -> gb.GMMFit:
    posterior, stats = good.posterior.copy(deep=True), good.sample_stats.copy(deep=True)
    posterior["means"].values[1] += 5
    stats["total_log_likelihood"].values[1] -= 200
    stats["energy"].values[1] = np.sort(stats["energy"].values[1])
    return good.with_group("posterior", posterior).with_group("sample_stats", stats)


def texts(axes: dict) -> list[str]:
    return [text.get_text() for ax in axes["rhat"].figure.axes for text in ax.texts]


def marks(ax, place: int = 0) -> tuple[np.ndarray, list[str], list[str]]:
    """Positions, rims and fillings of the quantities, the first of the table first."""
    found = by_gid(ax, "marks")[place]
    edges, faces = ([to_hex(c) for c in f()] for f in (found.get_edgecolors, found.get_facecolors))
    return np.asarray(found.get_offsets())[::-1, 0], edges[::-1], faces[::-1]


def test_traces_and_ranks_are_of_the_draws(good: gb.GMMFit) -> None:
    axes = gb.plots.plot_diagnostics(good)
    found = label_free_quantities(good)
    values = (found["log_likelihood"], found["sorted_weights"][..., 0], found["entropy"])
    for name, expected in zip(NAMES, values, strict=True):
        for chain in range(2):
            (line,) = by_gid(axes[f"trace_{name}"], f"chain {chain}")
            np.testing.assert_array_equal(line.get_ydata(), expected[chain, ::2])
            assert line.get_color() == COLOURS[chain]
            (steps,) = by_gid(axes[f"rank_{name}"], f"chain {chain}")
            assert steps.get_data().values.sum() == 1000
    both = [by_gid(axes["rank_entropy"], f"chain {c}")[0].get_data().values for c in range(2)]
    np.testing.assert_array_equal(both[0] + both[1], 100)


def test_numbers_are_those_of_the_diagnosis(good: gb.GMMFit) -> None:
    axes, found = gb.plots.plot_diagnostics(good), gb.diagnose(good)
    rhat, edges, faces = marks(axes["rhat"])
    np.testing.assert_allclose(1 + rhat, np.maximum(found.table["rhat"], 1.0001))
    assert set(edges) == {DATA_COLOUR.lower()}
    assert [face == "#ffffff" for face in faces] == [not f for f in found.table["label_free"]]
    for place, kind in enumerate(("bulk", "tail")):
        np.testing.assert_allclose(marks(axes["ess"], place)[0], found.table[f"ess_{kind}"])
    energy = by_gid(axes["energy"], "marks")[0].get_offsets()
    np.testing.assert_allclose(energy[:, 1], found.e_bfmi)
    names = [label.get_text() for label in axes["rhat"].get_yticklabels()]
    assert names[::-1] == [name.replace("_", " ") for name in found.table.index]
    assert "believe it? yes" in texts(axes)


def test_a_stuck_chain_is_seen(stuck: gb.GMMFit) -> None:
    axes = gb.plots.plot_diagnostics(stuck)
    assert "believe it? NO" in texts(axes)
    assert any("chains [1] sit in a worse mode" in text for text in texts(axes))
    assert len(by_gid(axes["chains"], "worse")) == 1
    rims = dict(zip(gb.diagnose(stuck).table.index, marks(axes["rhat"])[1], strict=True))
    assert rims["log_likelihood"] == rims["means"] == _BAD.lower()
    assert rims["sorted_weights"] == DATA_COLOUR.lower()
    assert to_hex(by_gid(axes["energy"], "marks")[0].get_facecolors()[1]) == _BAD.lower()


def test_switched_labels_are_no_fault_of_the_chains(good: gb.GMMFit) -> None:
    axes = gb.plots.plot_diagnostics(shuffled(good, seed=3, chains_only=True)[0])
    # The likelihood of these draws is made up, so the prior is all that they follow.
    assert texts(axes)[0].startswith("believe it? yes, but not component by component")
    for panel in ("rhat", "ess"):
        assert set(marks(axes[panel])[1]) == {DATA_COLOUR.lower()}


def test_nothing_overlaps(stuck: gb.GMMFit) -> None:
    axes = gb.plots.plot_diagnostics(stuck)
    figure = axes["rhat"].figure
    figure.canvas.draw()
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    whole = figure.bbox
    for i, box in enumerate(boxes):
        assert box.x0 >= whole.x0 - 1
        assert box.x1 <= whole.x1 + 1
        assert not any(box.shrunk(0.97, 0.97).overlaps(other) for other in boxes[:i])
    assert len(plt.get_fignums()) == 1


def test_draws_that_are_not_finite_are_drawn(good: gb.GMMFit) -> None:
    posterior = good.posterior.copy(deep=True)
    posterior["means"].values[0, 3] = np.nan
    axes = gb.plots.plot_diagnostics(good.with_group("posterior", posterior))
    assert "believe it? NO" in texts(axes)
    assert _BAD.lower() in marks(axes["rhat"])[1]


@pytest.mark.parametrize("n_draws", [1, 5])
def test_few_draws_and_one_chain(good: gb.GMMFit, n_draws: int) -> None:
    few = gb.GMMFit(good.datatree.isel(chain=[0], draw=slice(n_draws)))
    assert "believe it? NO" in texts(gb.plots.plot_diagnostics(few))


def test_what_is_not_chains_is_refused(good: gb.GMMFit) -> None:
    with pytest.raises(TypeError, match="fit must be a GMMFit"):
        gb.plots.plot_diagnostics(3)
    laplace = gb.GMMFit(good.datatree.copy())
    laplace.datatree.attrs["sampler"] = json.dumps({"kind": "Laplace"})
    with pytest.raises(ValueError, match="plot_diagnostics must have chains"):
        gb.plots.plot_diagnostics(laplace)


def test_a_run_of_one_draw_is_drawn_without_complaint(good):
    one = gb.GMMFit(good.datatree.isel(chain=[0], draw=[0]))
    axes = gb.plots.plot_diagnostics(one)
    axes["ess"].figure.canvas.draw()
    assert any(text.startswith("believe it? NO") for text in texts(axes))
    plt.close("all")
