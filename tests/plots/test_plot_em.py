"""Maximum likelihood is drawn where one mixture is enough; what needs draws says so."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

import gmm_bayes as gb

from .drawn import by_gid, legend_texts


@pytest.fixture(scope="module")
def best() -> gb.EMFit:
    return gb.fit_em(gb.datasets.load_old_faithful(), 2, n_init=1, init="kmeans", seed=0)


def test_components_are_those_of_the_solution(best: gb.EMFit) -> None:
    ax = gb.plots.plot_components(best)
    for k in range(2):
        outline = by_gid(ax, f"ellipse {k}")[0].get_xydata()[:-1]
        np.testing.assert_allclose(outline.mean(axis=0), best.means[k], rtol=1e-6)
        mine = by_gid(ax, f"rows of component {k}")[0].get_offsets()
        np.testing.assert_array_equal(mine, best.table.values[best.labels == k])
    assert legend_texts(ax) == [
        *(f"component {k}, weight {w:.2f}" for k, w in enumerate(best.weights)),
        "bold: ellipse, 90 % inside",
        "paler: less sure",
    ]


def test_density_is_that_of_the_solution(best: gb.EMFit) -> None:
    ax = gb.plots.plot_density(best, features="waiting")
    x, y = ax.lines[0].get_data()
    sds = np.sqrt(best.covariances[:, 1, 1])
    z = (np.asarray(x)[:, None] - best.means[:, 1]) / sds
    wanted = np.exp(-(z**2) / 2) / (sds * np.sqrt(2 * np.pi)) @ best.weights
    np.testing.assert_allclose(y, wanted, rtol=1e-9)
    assert legend_texts(ax) == ["density, maximum likelihood", "rows"]


def test_rows_are_as_unsure_as_the_solution_says(best: gb.EMFit) -> None:
    gb.plots.plot_responsibilities(best)
    ax = gb.plots.plot_responsibilities(best, features="eruptions")
    shown = np.concatenate(
        [c.get_offsets() for k in (0, 1) for c in by_gid(ax, f"rows of component {k}")]
    )
    surest = best.predict_proba().max(axis=1)
    np.testing.assert_allclose(np.sort(shown[:, 1]), np.sort(surest), atol=1e-12)


def test_strange_rows_of_the_solution(best: gb.EMFit) -> None:
    ax = gb.plots.plot_anomalies(best, contamination=0.05, n_grid=20)
    strange = by_gid(ax, "strange rows")[0].get_offsets()
    scores = best.score_samples()
    low = best.table.values[scores <= np.sort(scores)[len(strange) - 1]]
    np.testing.assert_array_equal(np.sort(strange, axis=0), np.sort(low, axis=0))
    assert "density, maximum likelihood" in legend_texts(ax)


@pytest.mark.parametrize("structure", ["full", "tied", "diag", "spherical"])
def test_every_structure_is_drawn(structure: str) -> None:
    X = np.random.default_rng(0).normal(size=(40, 1))
    for columns in (X, np.hstack([X, X**2])):
        best = gb.fit_em(columns, 1, covariance_type=structure, n_init=1, init="kmeans")
        assert isinstance(gb.plots.plot_components(best), Axes)


# With what else each must be given; the others take a fit alone.
MORE: dict[str, tuple[Any, ...]] = {
    "conditional": ({"waiting": 80.0},),
    "conformal_p_values": ([[3.0, 70.0]], [[3.0, 70.0]]),
    "extend": (10,),
    "marginal": ("waiting",),
    "sample_predictive": (3,),
    "with_groups": ("prior",),
}
NAMES = [*(n for n in gb.__all__ if n != "plots"), *(f"plots.{n}" for n in gb.plots.__all__)]


def takes_a_fit(name: str) -> Callable[..., Any] | None:
    found = gb
    for part in name.split("."):
        found = getattr(found, part)
    if not inspect.isfunction(found):
        return None
    first = next(iter(inspect.signature(found).parameters), None)
    return found if first == "fit" else None


QUESTIONS = {name: takes_a_fit(name) for name in NAMES}
QUESTIONS = {name: function for name, function in QUESTIONS.items() if function is not None}
DRAWN = {"plot_components", "plot_density", "plot_responsibilities", "plot_anomalies"}


def test_there_are_questions() -> None:
    assert len(QUESTIONS) > 25
    assert {f"plots.{name}" for name in DRAWN} < set(QUESTIONS)


@pytest.mark.parametrize("name", QUESTIONS)
def test_what_needs_draws_says_what_it_takes(name: str, best: gb.EMFit) -> None:
    ask, more = QUESTIONS[name], MORE.get(name, ())
    wrong = {
        "posterior.nc": "got str; gmm_bayes.load reads a file",
        None: "got NoneType; gmm_bayes.fit makes one",
        gb.BayesianGMM(): "got BayesianGMM; give its attribute fit_",
    }
    for value, words in wrong.items():
        with pytest.raises(TypeError) as error:
            ask(value, *more)
        assert str(error.value).startswith(f"fit must be a GMMFit, {words}")
    if name.removeprefix("plots.") not in DRAWN:
        with pytest.raises(TypeError, match="got EMFit; maximum likelihood has one solution and"):
            ask(best, *more)
