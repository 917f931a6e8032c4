"""Columns recorded in steps, and components narrower than these."""

import numpy as np
import pytest
from made_up import COVARIANCE_STRUCTURES, as_fit

import gmm_bayes as gb
from gmm_bayes._ties import recording_steps


def test_the_step_of_a_column_with_ties():
    rng = np.random.default_rng(0)
    exact = rng.standard_normal(200)
    tenths = np.round(exact, 1)
    zeros = np.where(rng.random(200) < 0.4, 0.0, exact)
    X = np.column_stack([exact, tenths, 1e6 + 60 * np.round(exact * 5), zeros, tenths * 3])
    distinct = np.unique(zeros)
    np.testing.assert_allclose(
        recording_steps(X), [0, 0.1, 60, np.diff(distinct).min(), 0.3], rtol=1e-9
    )


@pytest.mark.parametrize(("name", "shape"), [("diag", (2, 1)), ("spherical", (2,))])
def test_a_component_narrower_than_the_recording_is_noted(name, shape):
    rng = np.random.default_rng(1)
    X = np.round(rng.normal(np.repeat([0.0, 40.0], 30), 2.0))[:, None]
    draws, centres = (2, 60), np.array([[0.0], [40.0]])
    sites = {
        "weights": np.full((*draws, 2), 0.5),
        "means": centres + 0.3 * rng.standard_normal((*draws, 2, 1)),
    }

    def notes(rows, sds):
        scales = np.array(sds) * np.exp(0.1 * rng.standard_normal((*draws, 2)))
        sites["scales"] = scales.reshape(*draws, *shape)
        fit = as_fit(
            rows, sites, COVARIANCE_STRUCTURES[name], prior_centres=np.array([[0.0], [40.0]])
        )
        return [note for note in gb.diagnose(fit).notes if "narrower than a step" in note]

    assert notes(X, [2.0, 2.0]) == []
    assert notes(X + 0.01 * rng.random(X.shape), [2.0, 0.2]) == []
    (note,) = notes(X, [2.0, 0.2])
    assert note.startswith("column 'x0' has equal values and steps of 1 between others, and")
    assert "component 1 is narrower than a step in 100% of draws" in note
