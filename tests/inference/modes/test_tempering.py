"""Replicas that exchange points: masses and evidence of an importance sampler, ladder, verdict."""

import json
import warnings
from types import SimpleNamespace

import arviz as az
import numpy as np
import pytest
from hostile import raises_exactly
from two_ways import by_importance, four_groups, is_left_and_right

import gmm_bayes as gb
from gmm_bayes.errors import CheckpointError, GMMBayesWarning
from gmm_bayes.inference.continuation import _pooled
from gmm_bayes.inference.sampling.checkpoint import files
from gmm_bayes.inference.sampling.drivers.tempered import first_powers, log_evidence, refined

SAMPLER = gb.NUTS(num_warmup=300, num_samples=1000, tempering=10, target_accept_prob=0.9)
SHORT = gb.NUTS(num_warmup=300, num_samples=20, tempering=10, target_accept_prob=0.9)
OPTIONS = {"covariance_type": "diag", "seed": 1}


def quiet(function, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GMMBayesWarning)
        return function(*arguments, **options)


@pytest.fixture(scope="module")
def tempered():
    return quiet(gb.fit, four_groups(), 2, sampler=SAMPLER, **OPTIONS)


@pytest.fixture(scope="module")
def witness(tempered):
    return by_importance(tempered)


def test_modes_are_visited_as_often_as_they_have_mass(tempered, witness):
    (expected, error), _ = witness
    inside = is_left_and_right(tempered).astype(float)
    assert az.ess(inside) > 100
    assert abs(inside.mean() - expected) < 5 * np.hypot(az.mcse(inside), error)
    # No chain stayed where it was.
    assert (inside.mean(axis=1) > 0.5).all()
    assert (inside.mean(axis=1) < 1).all()


def test_the_evidence_comes_with_it(tempered, witness):
    _, (expected, error) = witness
    found = tempered.run["tempering"]
    both = np.hypot(error, found["log_evidence_error"])
    assert both < 0.3
    assert abs(found["log_evidence"] - expected) < 5 * both
    assert error < 0.1


def test_neighbours_exchange_equally_often(tempered):
    found = tempered.run["tempering"]
    powers, exchanged = np.array(found["powers"]), np.array(found["exchanged"])
    assert powers.shape == (4, 10)
    assert (powers[:, 0] == 0).all()
    assert (powers[:, -1] == 1).all()
    assert (np.diff(powers) > 0).all()
    assert exchanged.min() > 0.25
    assert exchanged.max() < 0.75
    assert min(found["round_trips"]) >= 5


def test_a_ladder_is_made_even():
    """Where what neighbours reject is a difference of one function, in one step."""
    rejected = np.diff(3 * first_powers(200) ** 0.25)
    even = refined(first_powers(200), rejected)
    np.testing.assert_allclose(even, np.linspace(0, 1, 200) ** 4, atol=0.02)
    lopsided = np.linspace(0, 1, 200)
    found = refined(lopsided, np.diff(3 * lopsided**0.25))
    # The first two of these are 0.8 apart, and what is between them is not known.
    np.testing.assert_allclose(np.diff(3 * found**0.25)[80:], 3 / 199, rtol=0.1)


def test_the_evidence_of_normal_rungs_is_their_closed_form():
    """A standard normal prior, and a likelihood exp(-x^2 / 2): log Z is -log(2) / 2."""
    rng = np.random.default_rng(0)
    powers = np.tile([0.0, 0.1, 0.4, 1.0], (4, 1))
    x = rng.standard_normal((4, 4000, 4)) / np.sqrt(1 + powers[:, None])
    value, error = log_evidence(-0.5 * x**2, powers)
    assert error < 0.02
    assert abs(value + 0.5 * np.log(2)) < 5 * error
    assert np.isnan(log_evidence(-0.5 * x[:1] ** 2, powers[:1])[1])


def test_the_verdict_says_how_often_replicas_came(tempered):
    found = gb.diagnose(tempered)
    trips = ", ".join(map(str, tempered.run["tempering"]["round_trips"]))
    assert f"replicas came from the prior to the posterior {trips} times in each chain" in (
        found.notes
    )
    assert not any("chains" in problem for problem in found.problems)
    seldom = with_trips(tempered, [9, 4, 9, 9])
    (problem,) = (p for p in seldom.problems if "replicas" in p)
    assert problem == (
        "replicas came from the prior to the posterior 9, 4, 9, 9 times in each chain "
        "(should be at least 5)"
    )
    assert not seldom.ok


def with_trips(fit, trips):
    """The verdict, had replicas come so often."""
    tree = fit.datatree.copy()
    run = {**fit.run, "tempering": {**fit.run["tempering"], "round_trips": trips}}
    tree.attrs["run"] = json.dumps(run)
    return gb.diagnose(gb.GMMFit(tree))


def test_a_killed_run_of_replicas_goes_on_to_the_same_draws(tmp_path, monkeypatch):
    fit = quiet(gb.fit, four_groups(), 2, sampler=SHORT, **OPTIONS)
    write, n_written = files.write_file, 0

    def deadly(path, content):
        nonlocal n_written
        n_written += 1
        if n_written == 12:
            raise KeyboardInterrupt
        return write(path, content)

    monkeypatch.setattr(files, "write_file", deadly)
    how = {"checkpoint": tmp_path / "run", "checkpoint_seconds": 0.01}
    with pytest.raises((KeyboardInterrupt, CheckpointError)):
        quiet(gb.fit, four_groups(), 2, sampler=SHORT, **OPTIONS, **how)
    monkeypatch.setattr(files, "write_file", write)
    again = quiet(gb.resume, tmp_path / "run")
    assert again.run["resumed"] == 1
    assert again.run["tempering"] == fit.run["tempering"]
    for name, values in fit.posterior.items():
        np.testing.assert_array_equal(again.posterior[name], values)
    before, longer = fit.run["tempering"], quiet(gb.extend, fit, 5)
    assert longer.posterior.sizes["draw"] == 25
    now = longer.run["tempering"]
    # Of all draws, of which five say little.
    assert abs(now["log_evidence"] - before["log_evidence"]) < 5 * before["log_evidence_error"]
    assert min(np.subtract(now["round_trips"], before["round_trips"])) >= 0
    message = "many data sets are not sampled by replicas; leave tempering out"
    with raises_exactly(ValueError, message):
        gb.fit_many([four_groups()] * 2, 2, sampler=SHORT)


def test_evidence_of_draws_one_after_the_other_is_weighted_by_their_numbers():
    told = [
        {"log_evidence": -1.0, "log_evidence_error": 0.1},
        {"log_evidence": -4.0, "log_evidence_error": 0.3},
    ]
    found = _pooled(told, [300, 100])
    assert found["log_evidence"] == pytest.approx(-1.75)
    assert found["log_evidence_error"] == pytest.approx(np.hypot(0.075, 0.075))
    none = {"log_evidence": None, "log_evidence_error": None}
    assert _pooled([told[0], none], [300, 100]) == told[0]
    assert _pooled([none, none], [3, 1]) == none


def test_a_likelihood_beyond_measure_has_no_evidence():
    values = np.full((2, 10, 2), -1.0)
    values[0, 3, 0] = -np.inf
    assert np.isnan(log_evidence(values, np.array([[0.0, 1.0]] * 2))[0])


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_each_chain_of_replicas_is_a_program_of_its_own(platform):
    device = SimpleNamespace(platform=platform)
    assert {size for size, _ in gb.NUTS(tempering=4).groupings(device, None)} == {1}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tempering": 1}, "tempering must be at least 2, got 1"),
        (
            {"tempering": 4, "preconditioning": "laplace"},
            "preconditioning must not be 'laplace' with tempering; leave it out",
        ),
        (
            {"tempering": 4, "chain_method": "vectorized"},
            "chain_method must not be 'vectorized' with tempering; leave it out",
        ),
    ],
)
def test_settings_that_do_not_go_with_replicas(settings, message):
    with pytest.raises(ValueError, match=message):
        gb.NUTS(**settings)
