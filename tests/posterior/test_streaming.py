"""What every question to a fit refuses."""

import numpy as np
import pytest
from hostile import small_fit

import gmm_bayes as gb

QUESTIONS = {
    "responsibilities": gb.responsibilities,
    "assign": gb.assign,
    "log_predictive_density": gb.log_predictive_density,
    "log_likelihood": gb.log_likelihood,
}


@pytest.mark.parametrize("ask", QUESTIONS.values(), ids=QUESTIONS)
def test_rows_beyond_float64_are_refused(faithful_fit, ask):
    """They would come back as NaN, or as the same -inf."""
    X = np.array([[3.0, 70.0], [3.0, 1e200]])
    with pytest.raises(ValueError) as error:
        ask(faithful_fit, X)
    assert str(error.value) == (
        "X must lie within 1e+140 standard deviations of the training rows, or densities overflow; "
        "got 1e+200 in row 1, column 'waiting'. Are the units those of the fit?"
    )


@pytest.mark.parametrize(
    "ask",
    [
        *QUESTIONS.values(),
        lambda fit: gb.sample_predictive(fit, 3),
        lambda fit: gb.with_groups(fit, "prior"),
        gb.diagnose,
    ],
)
def test_only_a_fit_can_be_asked(faithful, ask):
    with pytest.raises(TypeError) as error:
        ask(faithful)
    assert str(error.value) == "fit must be a GMMFit, got DataFrame; gmm_bayes.fit makes one"


@pytest.mark.filterwarnings("error")
def test_rows_far_but_not_too_far_are_answered(faithful_fit):
    far = np.array([[1e120, 1e120]])
    assert np.isfinite(gb.log_predictive_density(faithful_fit, far)).all()
    assert float(gb.responsibilities(faithful_fit, far).sum()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("ask", "instead"),
    [
        (gb.log_likelihood, "log_predictive_density(fit, X) holds no such array"),
        (lambda fit, X: gb.responsibilities(fit, X, reduce=None), "take the mean, reduce='mean'"),
    ],
    ids=["log_likelihood", "responsibilities"],
)
def test_an_array_beyond_the_memory_is_refused_before_it_is_made(
    faithful, monkeypatch, ask, instead
):
    fit = small_fit()
    # 272 rows, 120 draws and 2 components are at least a quarter of a MiB.
    monkeypatch.setattr("gmm_bayes.posterior.streaming.available_memory", lambda device: 2**18)
    monkeypatch.setattr("gmm_bayes.machine.row_blocks.map_rows", None)
    with pytest.raises(gb.errors.InsufficientMemoryError) as error:
        ask(fit, faithful.to_numpy())
    words = str(error.value)
    assert " MiB are free: give fewer rows at a time, as X[:" in words
    assert words.endswith(f"; or {instead}")
    monkeypatch.undo()
    rows = int(words.partition("X[:")[2].partition("]")[0])
    assert ask(fit, faithful.to_numpy()[:rows]).nbytes * 4 <= 2**18
