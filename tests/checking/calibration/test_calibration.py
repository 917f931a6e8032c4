"""A right sampler passes, a wrong one is caught, and the verdict says what is wrong."""

import numpy as np
import pandas as pd
import pytest
from made_up_ranks import NUM_RANKED, PRIORS, made_up_calibration, normal_ranks

import gmm_bayes as gb
from gmm_bayes.checking.calibration import calibration, simulated_posteriors
from gmm_bayes.checking.calibration.simulated_posteriors import (
    draw_posteriors,
    rank_truths,
    simulate,
)
from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
from gmm_bayes.core.likelihood import block_rows
from gmm_bayes.inference.potential import ModelSpec
from gmm_bayes.machine.devices import find_device

SPEC, N_OBS, NUM_SIMULATIONS = ModelSpec(2, "spherical"), 25, 64
SAMPLER = gb.NUTS(num_warmup=200, num_samples=150, num_chains=1)
STRUCTURE = COVARIANCE_STRUCTURES[SPEC.covariance_type]


@pytest.fixture(scope="module")
def simulated():
    prior = PRIORS.arrays(2, 2)
    return simulate(prior, SPEC, N_OBS, NUM_SIMULATIONS, np.random.SeedSequence(1))


def ranks_by_machine(simulated, seed=2):
    """The ranks of the truths among what the sampler draws."""
    truths, X = simulated
    prior = PRIORS.arrays(2, 2)
    draws, facts = draw_posteriors(
        X,
        [prior] * len(X),
        SPEC,
        SAMPLER,
        np.random.SeedSequence(seed),
        device=find_device("cpu"),
        shown=False,
    )
    ranks, ess, facts["truth_lead"] = rank_truths(
        truths, X, draws, prior, STRUCTURE, NUM_RANKED, np.random.SeedSequence(3)
    )
    settings = {**SPEC._asdict(), "n_features": 2, "n_obs": N_OBS}
    return gb.Calibration(ranks, ess, facts, NUM_RANKED, len(X), PRIORS, PRIORS, settings)


def test_the_machine_is_right(simulated):
    found = ranks_by_machine(simulated)
    assert found.ranks.shape == (NUM_SIMULATIONS, 18)
    assert found.table["ok"].all(), found


def test_a_sampler_without_likelihood_is_caught(simulated, monkeypatch):
    """By the ranks of the log-likelihood: its draws are those of the prior."""

    def weightless(X):
        rows = block_rows(X)
        return rows._replace(weights=0 * rows.weights)

    monkeypatch.setattr(simulated_posteriors, "block_rows", weightless)
    found = ranks_by_machine(simulated)
    assert not found.ok
    assert found.table.loc["log_likelihood", "finding"] == "biased low"
    assert found.table.loc["log_likelihood", "adjusted_p"] < 1e-6
    # The parameters alone would have passed.
    parameters = found.table[found.table.index.str.startswith(("weights", "means", "scales"))]
    assert len(parameters) == 7
    assert parameters["ok"].all()


def test_a_narrow_component_beside_a_wide_one_gets_its_number():
    """The mean of ten wide rows is anywhere: it must not decide which component is which."""
    rng = np.random.default_rng(8)
    scales, means = np.array([1.0, 60.0]), np.array([[-4.0, 0.0], [4.0, 0.0]])
    labels = np.repeat([0, 1], [15, 10])
    noise = rng.standard_normal((NUM_SIMULATIONS, N_OBS, 2))
    X = means[labels] + scales[labels][:, None] * noise
    sites = {"weights": np.array([0.6, 0.4]), "means": means, "scales": scales}
    truths = {name: np.stack([value] * NUM_SIMULATIONS) for name, value in sites.items()}
    found = ranks_by_machine((truths, X))
    # In some sets EM does not find the narrow component. With means taken as exact, 21 are astray.
    assert found.num_astray <= 8, found.facts["truth_lead"].round()


def test_ranks_among_draws_of_the_prior(simulated):
    """Truths of other simulations are exact draws of the prior: what ignores data is uniform."""
    truths, X = simulated
    others = {
        name: np.stack([np.delete(values, i, axis=0)[None] for i in range(len(X))])
        for name, values in truths.items()
    }
    prior = PRIORS.arrays(2, 2)
    ranks, *_ = rank_truths(truths, X, others, prior, STRUCTURE, 40, np.random.SeedSequence(0))
    assert ranks.to_numpy().min() >= 0
    assert ranks.to_numpy().max() <= 40
    assert abs(ranks[["means[0, 0]", "scales[1]", "log_prior"]].to_numpy().mean() - 20) < 3
    assert (ranks["log_likelihood"] > 35).all()


def test_a_set_that_could_not_be_sampled_is_left_out_and_said(simulated):
    truths, X = ({n: v[:30] for n, v in simulated[0].items()}, simulated[1][:30])
    draws = {n: np.repeat(v[:, None, None], 50, axis=2) for n, v in truths.items()}
    draws["means"] = draws["means"].copy()
    draws["means"][7, 0, 3] = np.nan
    prior = PRIORS.arrays(2, 2)
    ranks, ess, lead = rank_truths(
        truths, X, draws, prior, STRUCTURE, 40, np.random.SeedSequence(0)
    )
    assert list(ranks.index) == [i for i in range(30) if i != 7]
    assert ess.shape == ranks.shape
    assert lead.index.equals(ranks.index)
    np.testing.assert_allclose(lead, 0, atol=1e-9)
    # All draws are ties with the truth: any rank is as good as another.
    assert set(range(0, 41, 10)) == {r // 10 * 10 for r in ranks.to_numpy().ravel()}
    record = made_up_calibration(normal_ranks(29)[:, None], asked=30)
    assert "1 of 30 posteriors could not be sampled" in record.problems
    nothing = {name: np.full_like(values, np.nan) for name, values in draws.items()}
    with pytest.raises(gb.errors.InferenceError, match="no posterior has finite draws"):
        rank_truths(truths, X, nothing, prior, STRUCTURE, 40, np.random.SeedSequence(0))


def test_a_right_posterior_passes():
    columns = {f"q[{i}]": normal_ranks(1000, seed=i) for i in range(10)}
    found = made_up_calibration(columns)
    assert found.ok
    assert found.problems == []
    assert "ok: 10 quantities within the 95% bands" in repr(found)


def test_the_verdict_names_quantity_and_direction():
    columns = {f"q[{i}]": normal_ranks(1000, seed=i) for i in range(10)}
    columns |= {"narrow": normal_ranks(1000, sd=0.85, seed=22)}
    columns |= {"low": normal_ranks(1000, shift=-0.4, seed=21)}
    found = made_up_calibration(columns)
    assert not found.ok
    low, narrow = found.problems
    assert low == "low: the posterior is biased low (adjusted p < 1e-10)"
    assert narrow.startswith("narrow: the posterior is too narrow (adjusted p = ")
    assert low in repr(found)
    assert narrow in repr(found)
    assert found.table["ok"].sum() == 10
    np.testing.assert_allclose(found.table["adjusted_p"], np.minimum(1, 12 * found.table.p_value))


def test_false_alarms_are_as_rare_as_promised():
    """Of 100 right samplers, each with 10 quantities, one in twenty is doubted."""
    rng = np.random.default_rng(5)
    doubted = sum(
        not made_up_calibration(rng.integers(0, NUM_RANKED + 1, (100, 10))).table["ok"].all()
        for _ in range(100)
    )
    assert doubted <= 13, "4 binomial standard errors above 5"


def test_the_picture_and_the_verdict_are_one():
    """A quantity is outside its band if and only if it is not ok."""
    sds = np.linspace(0.75, 1.3, 12)
    found = made_up_calibration({f"q[{i}]": normal_ranks(1000, sd=sd) for i, sd in enumerate(sds)})
    band = found.band
    ecdf = np.array(
        [[(found.ranks[n] < i).mean() for i in range(1, NUM_RANKED + 1)] for n in found.ranks]
    )
    inside = ((ecdf >= band.low - 1e-12) & (ecdf <= band.high + 1e-12)).all(axis=1)
    np.testing.assert_array_equal(inside, found.table["ok"])
    assert 0 < inside.sum() < 12


def test_dependent_draws_are_said():
    ranks = {f"q[{i}]": normal_ranks(1000, seed=i) for i in range(3)}
    few = made_up_calibration(ranks, ess=np.full(40, 10.0))
    assert few.num_dependent == 40
    assert few.ok
    many = made_up_calibration(ranks, ess=np.full(60, 10.0))
    (problem,) = many.problems
    assert problem.startswith("60 of 1000 chains have fewer than 99 effective draws (fewest: 10)")
    assert "num_samples" in problem


def test_chains_that_stayed_in_the_wrong_mode_are_counted():
    """From the lead of the truth: alone it is no problem, the ranks say when there are too many."""
    record = made_up_calibration({"q": normal_ranks(1000)})
    assert record.num_astray == 0
    record.facts.loc[[3, 17, 40], "truth_lead"] = [9.0, 11.0, 300.0]
    assert record.num_astray == 2
    assert record.ok
    assert "over 10 nats too low: 2" in repr(record)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_components": 0}, ValueError, "n_components must be at least 1"),
        ({"n_components": 3, "n_obs": 2}, ValueError, "at most the number of rows"),
        ({"n_features": 1.5}, TypeError, "n_features must be an integer"),
        ({"n_obs": 1}, ValueError, "n_obs must be at least 2"),
        ({"covariance_type": "ful"}, ValueError, "did you mean 'full'"),
        ({"num_simulations": 19}, ValueError, "num_simulations must be at least 20"),
        ({"sampler": gb.Laplace()}, TypeError, "sampler must be a gmm_bayes.NUTS"),
        ({"sampler": gb.NUTS(num_samples=30, num_chains=3)}, ValueError, "at least 99 draws"),
        ({"priors": gb.Priors()}, ValueError, "priors must have mean_loc"),
        ({"priors": "wide"}, TypeError, "priors must be a gmm_bayes.Priors, got str"),
        ({"sampling_priors": gb.Priors()}, ValueError, "sampling_priors must have mean_loc"),
        ({"priors": gb.Priors.fixed(np.zeros((3, 2)))}, ValueError, "mean_loc must have shape"),
        ({"seed": -1}, ValueError, "seed"),
        ({"device": "tpu"}, ValueError, "device must be one of"),
    ],
)
def test_bad_options_are_refused_before_long_work(monkeypatch, options, error, message):
    def refuse(*args):
        raise AssertionError("work was begun")

    monkeypatch.setattr(calibration, "simulate", refuse)
    with pytest.raises(error, match=message):
        gb.simulation_based_calibration(**options)


def test_it_hands_its_options_on(monkeypatch):
    """To the steps that the other tests run: nothing is compiled here."""
    seen = {}

    def simulate(prior, spec, n_obs, n_sets, seed):
        seen.update(prior=prior, spec=spec, n_obs=n_obs)
        return {}, np.zeros((n_sets, n_obs, 2))

    def draw(X, priors, spec, sampler, seed, *, device, shown):
        seen.update(given=priors, sampler=sampler, n_sets=len(X))
        return {}, pd.DataFrame()

    def rank(truths, X, draws, prior, structure, num_ranked, seed):
        seen.update(ranked=prior, structure=structure.name)
        frame = pd.DataFrame({"q": normal_ranks(len(X))})
        return frame, frame + 200.0, frame["q"] - 200.0

    for name, step in (("simulate", simulate), ("draw_posteriors", draw), ("rank_truths", rank)):
        monkeypatch.setattr(calibration, name, step)
    wrong = PRIORS.replace(scale_scale=0.8)
    found = gb.simulation_based_calibration(
        num_simulations=30, n_obs=12, covariance_type="tied", priors=PRIORS, sampling_priors=wrong
    )
    assert seen["spec"] == ModelSpec(2, "tied")
    assert (seen["n_obs"], seen["n_sets"], seen["structure"]) == (12, 30, "tied")
    assert (seen["prior"].scale_scale == 1).all()
    assert (seen["ranked"].scale_scale == 1).all()
    assert all((one.scale_scale == 0.8).all() for one in seen["given"])
    assert seen["sampler"].num_chains == 1
    assert (found.priors, found.sampling_priors) == (PRIORS, wrong)
    assert found.settings["n_obs"] == 12
    assert (found.facts["truth_lead"] < 0).all()


@pytest.mark.slow
def test_a_thousand_simulations_are_within_the_bands():
    found = gb.simulation_based_calibration(seed=1)
    assert found.ok, found
