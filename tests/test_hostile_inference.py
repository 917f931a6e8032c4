"""Runs that went wrong: counted, said, and never averaged away."""

import re

import numpy as np
import pytest
from hostile import (
    SHORT,
    quiet_fit,
    raises_exactly,
    repeated_row_fit,
    small_fit,
    two_groups,
)

import gmm_bayes as gb
from gmm_bayes.errors import ConvergenceWarning, InferenceError, LabelSwitchingError
from gmm_bayes.inference.sampling import nuts as samplers
from gmm_bayes.inference.sampling import starts as starting
from gmm_bayes.inference.verdict.advice import ADVICE

N_CHAINS, N_DRAWS = 4, 500
FLAWS = ("problems", "advice", "notes")


@pytest.fixture(scope="module")
def good():
    """A healthy fit: the small one's tree around draws that are independent by construction."""
    draws = small_fit().posterior.stack(s=("chain", "draw")).isel(s=slice(N_CHAINS * 20))
    rng = np.random.default_rng(0)
    shape = (N_CHAINS, N_DRAWS)
    centre = {name: value.mean("s").values for name, value in draws.data_vars.items()}
    scales = centre["scales"] * np.exp(0.1 * rng.standard_normal((*shape, 2, 2)))
    correlation = np.clip(0.5 + 0.1 * rng.standard_normal((*shape, 2)), -0.9, 0.9)
    cholesky = np.zeros((*shape, 2, 2, 2))
    cholesky[..., 0, 0] = 1
    cholesky[..., 1, 0], cholesky[..., 1, 1] = correlation, np.sqrt(1 - correlation**2)
    tril = scales[..., None] * cholesky
    weights = 0.5 + 0.05 * rng.standard_normal(shape)
    posterior = {
        "weights": np.stack([weights, 1 - weights], axis=-1),
        "means": centre["means"] + 0.2 * rng.standard_normal((*shape, 2, 2)),
        "scales": scales,
        "correlation_cholesky": cholesky,
        "covariances": tril @ tril.swapaxes(-1, -2),
    }
    normal = rng.standard_normal(shape)
    stats = {
        "lp": -200 + normal,
        "energy": 210 + 2 * rng.standard_normal(shape),
        "total_log_likelihood": -180 + normal + 0.1 * rng.standard_normal(shape),
        "acceptance_rate": np.full(shape, 0.9),
        "step_size": np.full(shape, 0.4),
        "n_steps": np.full(shape, 7),
        "n_occupied": np.full(shape, 2),
        "tree_depth": np.full(shape, 3),
        "diverging": np.zeros(shape, dtype=bool),
    }
    tree = small_fit().datatree.copy(deep=True)
    coords = {"chain": np.arange(N_CHAINS), "draw": np.arange(N_DRAWS)}
    for group, values in (("posterior", posterior), ("sample_stats", stats)):
        old = tree[group].to_dataset()
        kept = {k: v for k, v in old.coords.items() if k not in coords}
        dims = {name: old[name].dims for name in values}
        tree[group] = type(old)({n: (dims[n], v) for n, v in values.items()}, {**coords, **kept})
    return gb.GMMFit(tree)


def planted(fit, change):
    """The same fit after `change(posterior, sample_stats)` has written into a copy of its draws."""
    tree = fit.datatree.copy(deep=True)
    posterior, stats = (tree[g].to_dataset().copy(deep=True) for g in ("posterior", "sample_stats"))
    change(posterior, stats)
    tree["posterior"], tree["sample_stats"] = posterior, stats
    return gb.GMMFit(tree)


def permuted(fit, chains=slice(None), draws=slice(None)):
    """The same fit with its components exchanged in some of the draws."""

    def exchange(posterior, stats):
        for name in posterior.data_vars:
            values = posterior[name].values
            values[chains, draws] = values[chains, draws][:, :, ::-1].copy()

    return planted(fit, exchange)


def test_a_good_run_is_believed(good):
    found = gb.diagnose(good)
    assert found.ok, found
    assert not any(getattr(found, flaw) for flaw in FLAWS)
    assert not found.switched
    assert found.worse_chains == found.collapsed == ()
    assert found.n_occupied == 2
    assert found.rhat < 1.01


# What is planted, what is said of it, and what is advised.
LONGER = "Run more draws (num_warmup, num_samples)."


def _diverge(posterior, stats):
    stats["diverging"].values[[0, 0, 3], [5, 6, 7]] = True


def _deep(posterior, stats):
    stats["n_steps"].values[1, :4] = 2**10 - 1


def _worse_chain(posterior, stats):
    stats["total_log_likelihood"].values[2] -= 150
    stats["lp"].values[2] -= 150


def _shifted_chain(posterior, stats):
    posterior["means"].values[1] += 0.3


def _slow(posterior, stats):
    rng = np.random.default_rng(1)
    walk = np.empty((N_CHAINS, N_DRAWS))
    walk[:, 0] = rng.standard_normal(N_CHAINS)
    for t in range(1, N_DRAWS):
        walk[:, t] = 0.98 * walk[:, t - 1] + 0.2 * rng.standard_normal(N_CHAINS)
    posterior["weights"].values[..., 0] = 0.5 + 0.02 * walk
    posterior["weights"].values[..., 1] = 0.5 - 0.02 * walk


def _slow_energy(posterior, stats):
    energy = stats["energy"].values
    energy[1] = np.sort(energy[1])


def _stuck(posterior, stats):
    for name in posterior.data_vars:
        values = posterior[name].values
        values[3] = np.repeat(values[3, ::2], 2, axis=0)


def _collapse(posterior, stats):
    """Onto a line: both standard deviations are large, but the correlation is one."""
    posterior["correlation_cholesky"].values[0, :, 1, 1] = [
        np.sqrt(1 - 1e-12),
        1e-6,
    ]


def _not_a_number(posterior, stats):
    posterior["means"].values[0, 3, 1, 1] = np.nan


PLANTED = {
    "divergences": (
        _diverge,
        r"3 of 2000 draws diverged",
        "Raise target_accept_prob, or take fewer components or a tighter prior.",
    ),
    "tree depth": (
        _deep,
        r"4 of 2000 trajectories were cut at the maximum tree depth",
        "Raise num_warmup or max_tree_depth.",
    ),
    "worse mode": (
        _worse_chain,
        r"chains \[2\] sit in a worse mode \(mean log-likelihood by chain: "
        r"-180\.\d, -\d+\.\d, -330\.\d, -\d+\.\d; of rows left out: "
        r"-\d+\.\d, -\d+\.\d, -\d+\.\d, -\d+\.\d\)",
        "Start from a better solution (n_init, init) or take fewer components; to predict with "
        "these chains, weight them by stack_chains(fit).",
    ),
    "R-hat": (_shifted_chain, r"R-hat is 1\.[1-9]\d\d \(should be below 1\.01\)", ADVICE["apart"]),
    "ESS": (_slow, r"bulk ESS is \d\d \(should be above 400\)", LONGER),
    "E-BFMI": (_slow_energy, r"E-BFMI is 0\.0\d \(should be above 0\.3\)", LONGER),
    "repeats": (
        _stuck,
        r"50% of a chain's draws repeat the one before",
        "Raise target_accept_prob and num_warmup.",
    ),
    "collapse": (
        _collapse,
        r"components \[1\] have shrunk onto a point, a line or a plane",
        "Look for repeated rows and for columns that depend on each other, or take fewer "
        "components.",
    ),
    "NaN": (
        _not_a_number,
        r"R-hat cannot be computed: draws are not finite, or no chain moved",
        "Check the priors against the units of the data, and raise num_warmup.",
    ),
}
# What cannot be planted alone.
COMPANIONS = {
    "worse mode": {"R-hat", "bulk ESS", "tail ESS"},
    "R-hat": {"bulk ESS", "tail ESS"},
    "ESS": {"R-hat", "tail ESS"},
    "repeats": {"R-hat", "bulk ESS", "tail ESS"},
    "NaN": {"bulk ESS", "tail ESS"},
    "collapse": {"R-hat", "bulk ESS", "tail ESS"},
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_flaw_is_said_and_advised_on(good, name):
    change, problem, advice = PLANTED[name]
    found = gb.diagnose(planted(good, change))
    assert not found.ok
    said = [p for p in found.problems if re.fullmatch(problem, p)]
    assert len(said) == 1, found.problems
    assert advice in found.advice
    others = [p for p in found.problems if p not in said]
    assert all(any(p.startswith(c) for c in COMPANIONS.get(name, ())) for p in others), others
    assert not found.switched


def test_chains_in_modes_of_their_own_are_not_told_to_run_longer(good):
    """More draws join no modes; chains that are slow need them."""
    apart, slow = (gb.diagnose(planted(good, change)).advice for change in (_shifted_chain, _slow))
    assert apart == (ADVICE["apart"],)
    assert LONGER not in apart
    assert slow == (LONGER,)


def test_the_numbers_behind_the_words(good):
    assert gb.diagnose(planted(good, _diverge)).n_divergences == 3
    assert gb.diagnose(planted(good, _deep)).n_max_tree_depth == 4
    assert gb.diagnose(planted(good, _worse_chain)).worse_chains == (2,)
    assert gb.diagnose(planted(good, _collapse)).collapsed == (1,)
    np.testing.assert_allclose(
        gb.diagnose(planted(good, _stuck)).repeated_share, [0, 0, 0, 0.5], atol=2e-3
    )


def test_a_run_that_never_moved(good):
    def freeze(posterior, stats):
        for dataset in (posterior, stats):
            for name in dataset.data_vars:
                dataset[name].values[:] = dataset[name].values[:1, :1]

    found = gb.diagnose(planted(good, freeze))
    assert found.problems[0] == (
        "R-hat cannot be computed: draws are not finite, or no chain moved"
    )
    assert "100% of a chain's draws repeat the one before" in found.problems
    assert "Diagnosis: NOT ok" in repr(found)


def test_a_chain_in_a_worse_mode_is_not_hidden_by_exchanging_components(good):
    found = gb.diagnose(planted(permuted(good, chains=slice(2, 3)), _worse_chain))
    assert found.switched
    assert found.worse_chains == (2,)
    assert any(p.startswith("chains [2] sit in a worse mode") for p in found.problems)


def test_one_chain_is_judged_by_its_halves(good):
    one = gb.GMMFit(good.datatree.isel(chain=[0]))
    found = gb.diagnose(one)
    assert found.ok, found
    assert found.notes == ("one chain cannot show a mode that it missed: run several (num_chains)",)

    def drift(posterior, stats):
        posterior["means"].values[:] += np.linspace(0, 2, N_DRAWS)[:, None, None]

    assert gb.diagnose(planted(one, drift)).rhat > 1.5


@pytest.mark.parametrize("n_draws", [1, 2, 7])
def test_too_few_draws_to_judge(good, n_draws):
    found = gb.diagnose(gb.GMMFit(good.datatree.isel(draw=slice(n_draws))))
    assert found.problems == (f"{n_draws} draws a chain are too few to judge",)


# -- label switching ------------------------------------------------------------------------------

SWITCHES = {
    "between chains": {"chains": slice(1, 2)},
    "within a chain": {"chains": slice(0, 1), "draws": slice(300, None)},
    "within the last chain": {"chains": slice(3, 4), "draws": slice(0, 100)},
    "in every chain at once": {"draws": slice(250, None)},
}


@pytest.mark.parametrize("where", SWITCHES.values(), ids=SWITCHES)
def test_switched_labels_are_found_and_never_averaged(good, where):
    switched = permuted(good, **where)
    found = gb.diagnose(switched)
    assert found.switched
    assert (found.ok, found.components_ok, found.problems) == (True, False, ())
    assert found.notes[0].startswith("components changed places between draws (label switching): ")
    assert found.advice == (
        "Renumber the components with align_labels(fit), and diagnose the result.",
    )
    assert "Diagnosis: ok, but not component by component" in repr(found)
    # The label-free quantities still say that the chains agree.
    assert found.rhat == gb.diagnose(good).table.query("label_free")["rhat"].max()
    message = (
        "responsibilities averages over draws per component, but components changed places "
        "between draws. Renumber them with gmm_bayes.align_labels(fit); or use reduce=None for "
        "every draw by itself, or log_predictive_density, which does not depend on labels."
    )
    rows = two_groups(6, seed=9)
    for ask in (
        lambda: gb.responsibilities(switched),
        lambda: gb.responsibilities(switched, rows, interval=0.9),
        lambda: gb.assign(switched, rows),
    ):
        with raises_exactly(LabelSwitchingError, message):
            ask()
    each = gb.responsibilities(switched, rows, reduce=None)
    assert each.shape == (N_CHAINS, N_DRAWS, 6, 2)
    for label_free in (gb.log_predictive_density, gb.log_likelihood):
        np.testing.assert_allclose(
            label_free(switched, rows), label_free(good, rows), rtol=1e-10, atol=1e-10
        )


def test_all_chains_in_the_same_other_order_is_no_switch(good):
    exchanged = permuted(good)
    assert gb.diagnose(exchanged).ok
    np.testing.assert_array_equal(gb.assign(exchanged), 1 - gb.assign(good))


# -- what the sampler makes of bad data -----------------------------------------------------------


def test_a_component_that_shrinks_onto_a_repeated_row_is_reported():
    fit, caught = repeated_row_fit()
    found = gb.diagnose(fit)
    (component,) = found.collapsed
    problem = f"components [{component}] have shrunk onto a point, a line or a plane"
    assert problem in found.problems
    assert fit.problems == found.problems
    (warning,) = (w for w in caught if w.category is ConvergenceWarning)
    assert str(warning.message).startswith("do not believe these chains yet: ")
    assert problem in str(warning.message)
    assert f"no: {fit.problems[0]}" in repr(fit)
    assert fit.advice == found.advice
    assert f"\n  advice: {found.advice[0]}\n" in repr(fit)


def test_every_row_twice_is_fitted_without_a_collapse():
    X = np.concatenate([two_groups(), two_groups()])
    fit = quiet_fit(X)
    assert gb.diagnose(fit).collapsed == ()
    labels = gb.assign(fit).values
    np.testing.assert_array_equal(labels[:40], labels[40:])
    np.testing.assert_array_equal(labels[:40], gb.assign(small_fit()))
    # Twice the data, so narrower by the square root of two.
    sd = [f.posterior["means"].std(("chain", "draw")).mean() for f in (fit, small_fit())]
    assert sd[0] / sd[1] == pytest.approx(np.sqrt(0.5), rel=0.2)


def test_an_empty_component_is_counted_and_follows_its_prior():
    sampler = gb.NUTS(num_warmup=SHORT.num_warmup, num_samples=400, num_chains=2)
    fit = quiet_fit(two_groups(), 3, sampler=sampler, seed=1)
    found = gb.diagnose(fit)
    assert found.n_occupied == 2
    note = (
        r"2 of 3 components are occupied \(by the prior 2\.\d have a row\); the parameters of an "
        "empty one are the prior's"
    )
    assert any(re.fullmatch(note, said) for said in found.notes)
    draws = {
        name: value.values.reshape(-1, *value.shape[2:]) for name, value in fit.posterior.items()
    }
    emptiest = draws["weights"].argmin(axis=1)
    empty = draws["weights"].min(axis=1) < 0.01
    assert empty.mean() > 0.3
    each = np.arange(len(emptiest))
    scales = draws["scales"][each, emptiest][empty]
    # The median of a HalfCauchy is its scale; autocorrelation leaves some twenty draws.
    ratio = np.median(scales, axis=0) / fit.priors.scale_scale
    assert (ratio > 0.4).all(), ratio
    assert (ratio < 2.5).all(), ratio
    assert (np.quantile(scales, 0.9, axis=0) > 2 * fit.priors.scale_scale).all()
    means = draws["means"][each, emptiest][empty]
    spread = means.std(axis=0) / np.sqrt(np.diag(fit.priors.mean_covariance))
    assert (spread > 0.5).all(), spread
    assert (spread < 2).all(), spread


def test_log_densities_far_away_stay_logs_and_keep_their_order():
    fit = small_fit()
    distance = np.array([1e2, 1e3, 2e3, 1e6, 1e9, 1e100])
    far = np.column_stack([distance, -distance])
    density = gb.log_predictive_density(fit, far).values
    assert density[2] < -1e6
    assert np.isfinite(density).all()
    assert (np.diff(density) < 0).all()
    each = gb.log_likelihood(fit, far)
    assert np.isfinite(each).all()
    assert (each.diff("obs") < 0).all()
    np.testing.assert_allclose(gb.responsibilities(fit, far).sum("component"), 1.0)


# -- seeds and starts -----------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_draws_and_another_seed_others():
    again, other = quiet_fit(two_groups()), quiet_fit(two_groups(), seed=4)
    assert again.posterior.identical(small_fit().posterior)
    assert again.sample_stats.identical(small_fit().sample_stats)
    for name, values in other.posterior.items():
        assert not np.array_equal(values, small_fit().posterior[name]), name
    chains = small_fit().posterior["means"]
    assert not np.array_equal(chains[0], chains[1])


PLAIN = gb.NUTS(num_warmup=100, num_samples=60, num_chains=2, preconditioning="none")


def _starts_that_fail(monkeypatch, n_failures, what):
    """The second chain's start is no good, that many times."""
    evaluate, calls = starting.value_and_gradient, []

    def failing(z, data, spec):
        value, gradient = map(np.array, evaluate(z, data, spec))
        calls.append(z)
        if len(calls) <= 2 * n_failures and len(calls) % 2 == 0:
            {"potential": value, "gradient": gradient}[what].flat[-1] = np.nan
        return value, gradient

    monkeypatch.setattr(starting, "value_and_gradient", failing)
    return calls


@pytest.mark.parametrize("what", ["potential", "gradient"])
def test_other_starts_are_tried_when_one_is_not_finite(monkeypatch, what):
    calls = _starts_that_fail(monkeypatch, 2, what)
    fit = quiet_fit(two_groups(), sampler=PLAIN)
    assert len(calls) == 6
    assert not np.array_equal(calls[0], calls[4])
    np.testing.assert_array_equal(gb.assign(fit), gb.assign(small_fit()))


@pytest.mark.parametrize("what", ["potential", "gradient"])
def test_no_finite_start_is_a_named_error(monkeypatch, what):
    calls = _starts_that_fail(monkeypatch, 99, what)
    monkeypatch.setattr(samplers, "run_group", lambda *a, **k: pytest.fail("sampling has begun"))
    message = (
        "the log density is not finite at 5 sets of starting points near the EM solution: check "
        "the priors against the units of the data, or give init=MixtureParameters"
    )
    with raises_exactly(InferenceError, message):
        quiet_fit(two_groups(), sampler=PLAIN)
    assert len(calls) == 10


def test_without_finite_draws_of_the_approximation_chains_start_plainly(monkeypatch):
    """The probe of the approximation says nothing; a start in its coordinates is not finite."""
    monkeypatch.setattr(starting, "departure_from_normal", lambda *args: 0.0)
    calls = _starts_that_fail(monkeypatch, 5, "potential")
    fit = quiet_fit(two_groups())
    assert fit.run["preconditioning"] == "none"
    assert fit.run["reason"] == "the normal approximation leaves the support"
    assert len(calls) == 12
