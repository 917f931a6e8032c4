"""plot_n_components shows the winner, what ties with it and what does not."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

import gmm_bayes as gb
from gmm_bayes.checking.candidates import Candidate, Comparison, Scores, comparison

from .drawn import by_gid


@pytest.fixture(scope="module")
def made_up() -> Comparison:
    """Two structures with three sizes; the values are not those of any data."""
    X = gb.datasets.load_old_faithful()
    fit = gb.fit_em(X, 1, n_init=1)
    fits = {Candidate(k, t): fit for t in ("full", "tied") for k in (1, 2, 3)}
    rng = np.random.default_rng(0)
    rows = rng.standard_normal(272) + np.array([-1.0, 0, -0.01, -2, -1, -0.5])[:, None]
    rows += 0.3 * rng.standard_normal(rows.shape)
    rows[2] += rows[1].mean() - rows[2].mean() - 0.005
    bic = np.array([2600.0, 2322, 2330, 2700, 2400, np.nan])
    return comparison(fits, {}, {}, {"bic": Scores(bic), "cv": Scores(rows.sum(axis=1), rows)})


def points_of(ax: Any, gid: str) -> dict[float, float]:
    pairs = [np.transpose(line.get_data()) for line in by_gid(ax, gid)]
    return dict(np.concatenate(pairs).tolist())


def test_each_criterion_has_a_panel(made_up: Comparison) -> None:
    bic, cv = gb.plots.plot_n_components(made_up)
    assert [ax.get_title() for ax in (bic, cv)] == ["bic", "cv"]
    assert bic.get_ylabel() == "behind the winner (units of BIC)"
    assert cv.get_ylabel() == "behind the winner (nats)"
    assert {ax.get_xlabel() for ax in (bic, cv)} == {"components"}
    (ring,) = by_gid(bic, "winner")
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (2, 0)
    assert points_of(bic, "tied") == {2: 0}
    full, tied = by_gid(bic, "worse")
    assert dict(np.transpose(full.get_data()).tolist()) == {1: -278, 3: -8}
    assert dict(np.transpose(tied.get_data()).tolist()) == {1: -378, 2: -78}, "a NaN is left out"
    gaps = made_up.table["cv_gap"]["full"]
    inside = [k for k in (1, 2, 3) if Candidate(k, "full") in made_up.ties["cv"]]
    assert inside == [2, 3]
    drawn = points_of(cv, "tied")
    np.testing.assert_allclose([drawn[k] for k in inside], -gaps[inside])


def test_bars_are_standard_errors_of_the_difference(made_up: Comparison) -> None:
    _, cv = gb.plots.plot_n_components(made_up)
    segments = next(c for c in cv.collections if hasattr(c, "get_segments")).get_segments()
    half = [(high[1] - low[1]) / 2 for low, high in segments]
    np.testing.assert_allclose(half, made_up.table["cv_gap_se"]["full"], atol=1e-9)


def test_all_marks_are_inside(made_up: Comparison) -> None:
    for ax in gb.plots.plot_n_components(made_up):
        low, high = ax.get_ylim()
        for gid in ("winner", "tied", "worse"):
            for line in by_gid(ax, gid):
                assert ((line.get_ydata() > low) & (line.get_ydata() < high)).all()


def test_a_choice_of_criteria(made_up: Comparison) -> None:
    (ax,) = gb.plots.plot_n_components(made_up, criteria=("cv",))
    assert ax.get_title() == "cv"
    (legend,) = ax.figure.legends
    assert [t.get_text() for t in legend.get_texts()] == [
        "full covariances",
        "tied covariances",
        "within one standard error of the winner",
        "worse than that",
        "winner",
    ]
    plt.close("all")


def test_what_is_refused(made_up: Comparison) -> None:
    with pytest.raises(TypeError) as error:
        gb.plots.plot_n_components(made_up.table)  # type: ignore[arg-type]
    assert str(error.value) == (
        "comparison must be a Comparison, got DataFrame; gmm_bayes.compare_n_components makes one"
    )
    with pytest.raises(ValueError, match="criteria must be one of bic, cv, got 'loo'"):
        gb.plots.plot_n_components(made_up, criteria=("loo",))
