"""Many short chains: the posterior of NUTS, one compilation, nested R-hat in the verdict."""

import dataclasses
import importlib.util
import math

import jax
import numpy as np
import pytest
import xarray as xr
from scipy.special import ndtri
from scipy.stats import rankdata
from test_same_posterior import label_free, overlapping

import gmm_bayes as gb
from gmm_bayes.inference import arviz_bridge
from gmm_bayes.inference.sampling import sampler as contract
from gmm_bayes.inference.sampling.drivers import chees as many_chains
from gmm_bayes.inference.sampling.drivers.nuts import draws_per_call
from gmm_bayes.inference.verdict import measures
from gmm_bayes.inference.verdict.diagnosis import THRESHOLDS

MANY = gb.ChEES(num_samples=100, num_chains=32)


@pytest.fixture(scope="module")
def many_fit(faithful):
    return gb.fit(faithful, 2, sampler=MANY, seed=3)


@pytest.fixture
def compilations():
    """A list that grows by one with every program that is compiled."""
    found = []

    def listen(name, *_, **__):
        if name == "/jax/core/compile/backend_compile_duration":
            found.append(name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def assert_equal_means(ours, theirs, least=200):
    """Means, and means of squares, of (chain, draw) arrays within five Monte-Carlo errors."""
    for name in ours:
        for power in (1, 2):
            draws = [np.asarray(v[name]) ** power for v in (ours, theirs)]
            found = [ess(v) for v in draws]
            assert min(found) > least, (name, found)
            error = math.hypot(*(v.std() / e**0.5 for v, e in zip(draws, found, strict=True)))
            assert abs(draws[0].mean() - draws[1].mean()) < 5 * error, (name, power)


def ess(values):
    as_dataset = xr.Dataset({"x": (("chain", "draw"), values)})
    return min(float(arviz_bridge.ess(as_dataset, "bulk")["x"]), values.size)


def entries(fit):
    """Every entry of the weights, means and scales: (chain, draw) arrays."""
    found = {"log_likelihood": fit.sample_stats["total_log_likelihood"].values}
    for site in ("weights", "means", "scales"):
        values = fit.posterior[site].values
        flat = values.reshape(*values.shape[:2], -1)
        found.update({f"{site} {i}": flat[..., i] for i in range(flat.shape[-1])})
    return found


# -- the posterior --------------------------------------------------------------------------------


def test_the_posterior_is_that_of_nuts(many_fit, faithful_fit):
    assert many_fit.run["preconditioning"] == "laplace"
    assert_equal_means(entries(many_fit), entries(faithful_fit))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::gmm_bayes.errors.ConvergenceWarning")
def test_it_is_where_it_is_far_from_normal():
    """Labels switch there, so what does not depend on them is compared."""
    X, k, _ = overlapping()
    ours = gb.fit(X, k, sampler=gb.ChEES(num_samples=200), seed=1)
    assert ours.run["departure_from_normal"] > 1
    assert ours.run["num_warmup"] == 1000
    assert not ours.problems
    assert ours.switched
    sampler = gb.NUTS(num_samples=4000, preconditioning="none")
    theirs = gb.fit(X, k, sampler=sampler, seed=2)
    assert_equal_means(label_free(ours), label_free(theirs))


def test_energy_is_that_of_the_trajectory(many_fit):
    """Minus the log density plus the kinetic energy of momenta from N(0, I)."""
    stats = many_fit.sample_stats
    kinetic = stats["energy"][:, 1:].values + stats["lp"][:, :-1].values
    dimension = 11
    assert kinetic.min() > 0
    assert abs(kinetic.mean() - dimension / 2) < 5 * math.sqrt(dimension / 2 / kinetic.size)
    # The leapfrog keeps the energy, or the proposal is not taken.
    assert 0.75 < stats["acceptance_rate"].mean() < 0.95


# -- one program ----------------------------------------------------------------------------------


def test_a_second_fit_of_the_same_shape_compiles_nothing(many_fit, faithful, compilations):
    shorter = dataclasses.replace(MANY, num_samples=60, target_accept_prob=0.9)
    again = gb.fit(faithful, 2, sampler=shorter, seed=4)
    assert again.posterior.sizes["draw"] == 60
    assert compilations == []
    jax.jit(lambda x: x + 3)(1.0)
    assert len(compilations) == 1, "else this counts nothing"


def test_the_same_seed_gives_the_same_draws(many_fit, faithful):
    assert gb.fit(faithful, 2, sampler=MANY, seed=3).posterior.identical(many_fit.posterior)


def test_all_chains_take_the_same_steps(many_fit):
    steps = many_fit.sample_stats["n_steps"].values
    assert (steps == steps[0]).all()
    assert len(np.unique(steps)) > 1, "but not always the same"
    assert many_fit.run["n_gradients"] > steps.sum()


def test_calls_return_no_more_than_memory_holds():
    assert draws_per_call(4, 47) == 50
    assert 2 * 8 * 1024 * 659 * draws_per_call(1024, 659) <= 2**26
    assert draws_per_call(10**6, 10**4) == 1


def test_draws_do_not_depend_on_the_size_of_a_block(many_fit, faithful, monkeypatch):
    """Blocks are a matter of the host: with small ones the draws are the same."""
    monkeypatch.setattr(many_chains, "draws_per_call", lambda *_: 7)
    assert gb.fit(faithful, 2, sampler=MANY, seed=3).posterior.identical(many_fit.posterior)


# -- the verdict ----------------------------------------------------------------------------------


def by_hand(values, groups):
    """Nested R-hat (Margossian et al. 2024), split and rank-normalised, of (chain, draw)."""

    def ranked(halves):
        scores = (rankdata(halves).reshape(halves.shape) - 3 / 8) / (halves.size + 1 / 4)
        return ndtri(scores)

    half = values.shape[1] // 2
    members = np.repeat(np.arange(groups), len(values) // groups)
    halves = np.concatenate([values[:, :half], values[:, -half:]])
    members = np.tile(members, 2)
    found = []
    for z in (ranked(halves), ranked(abs(halves - np.median(halves)))):
        superchains = [z[members == g] for g in range(groups)]
        between = np.var([s.mean() for s in superchains], ddof=1)
        within = np.mean(
            [s.mean(axis=1).var(ddof=1) + s.var(axis=1, ddof=1).mean() for s in superchains]
        )
        found.append(math.sqrt(1 + between / within))
    return max(found)


def test_nested_rhat_is_that_of_the_paper(many_fit):
    log_likelihood = many_fit.sample_stats["total_log_likelihood"]
    table = measures.agreement_table(many_fit)
    assert MANY.num_superchains == 4
    expected = by_hand(log_likelihood.values, 4)
    np.testing.assert_allclose(table["rhat"]["log_likelihood"], expected, rtol=1e-12)


def test_superchains_start_at_one_point_each(faithful, monkeypatch):
    seen, real = [], many_chains.Program.run
    monkeypatch.setattr(
        many_chains.Program,
        "run",
        lambda self, start, *a: seen.append(start) or real(self, start, *a),
    )
    gb.fit(faithful, 2, sampler=MANY, seed=3)
    superchains = seen[0].reshape(4, 8, -1)
    assert (superchains == superchains[:, :1]).all()
    apart = superchains[:, 0] - superchains[:, :1].mean(axis=0)
    # Draws of N(0, I), in the coordinates of the normal approximation.
    assert 0.5 < apart.std() < 1.5
    assert len(np.unique(superchains[:, 0, 0])) == 4


def test_the_verdict_is_of_superchains(many_fit):
    found = gb.diagnose(many_fit)
    assert found.ok
    assert found.num_superchains == 4
    assert found.e_bfmi.shape == found.repeated_share.shape == (4,)
    assert found.log_likelihood.shape == (32,)
    assert found.n_max_tree_depth == 0
    assert found.ess_needed == THRESHOLDS["ess_many_chains"] == 400
    assert "nested R-hat 1.0" in repr(found)
    # Draws could not have an ESS of 100 a chain, nor do they repeat as rarely as those of NUTS.
    assert found.ess_bulk < 100 * 32
    assert found.repeated_share.min() > 0.05


def planted(fit, change):
    """A copy of a fit in which something has been changed in the draws of sample_stats."""
    stats, posterior = fit.sample_stats.copy(deep=True), fit.posterior.copy(deep=True)
    change(stats, posterior)
    return fit.with_group("sample_stats", stats).with_group("posterior", posterior)


def test_superchains_that_did_not_forget_their_starts_are_found(many_fit):
    def shift(stats, posterior):
        sd = float(posterior["means"][..., 0, 0].std())
        posterior["means"][8:16, :, 0, 0] += sd

    found = gb.diagnose(planted(many_fit, shift))
    assert not found.ok
    assert found.problems[0].startswith("nested R-hat is 1.")
    assert found.table["rhat"]["means"] > 1.05


def test_one_chain_of_many_in_a_worse_mode_is_found(many_fit):
    def worse(stats, posterior):
        stats["total_log_likelihood"][5] -= 50

    assert gb.diagnose(planted(many_fit, worse)).worse_chains == (5,)


def test_short_chains_are_not_taken_for_worse_ones(many_fit):
    """Means of eight draws scatter; the sd is that of a superchain."""
    values = many_fit.sample_stats["total_log_likelihood"].values
    for first in range(0, 96, 8):
        assert measures.worse_chains(values[:, first : first + 8], 3.0, 4.0, 4) == ()
    # One of 32 may rightly be where there is a 32nd of the posterior.
    superchains = values.reshape(4, -1)
    best = superchains[superchains.mean(axis=1).argmax()]
    rare = values.copy()
    rare[5] += best.mean() - 3 * best.std() - np.log(32) - rare[5].mean()
    assert measures.worse_chains(rare, 3.0, 0.0, 4) == ()
    assert measures.worse_chains(rare, 3.0, 0.0) == (5,)


def test_the_picture_is_of_superchains(many_fit):
    axes = gb.plots.plot_diagnostics(many_fit)
    assert axes["energy"].get_xlabel() == "superchain"
    assert axes["chains"].get_xlabel() == "chain"
    assert [line.get_xdata()[0] for line in axes["ess"].lines] == [400]
    axes["energy"].figure.clear()


# -- around it ------------------------------------------------------------------------------------


def test_it_is_saved_with_its_settings(many_fit, tmp_path):
    again = gb.load(many_fit.save(tmp_path / "fit.nc"))
    assert again == many_fit
    assert again.sampler == MANY
    assert gb.diagnose(again).rhat == gb.diagnose(many_fit).rhat
    assert "tree_depth" not in again.sample_stats


def test_what_takes_chains_takes_these(many_fit, faithful_fit):
    ours, theirs = gb.log_evidence(many_fit), gb.log_evidence(faithful_fit)
    assert abs(ours.log_evidence - theirs.log_evidence) < 5 * math.hypot(ours.error, theirs.error)
    assert gb.responsibilities(many_fit).sizes["obs"] == 272


def test_settings():
    assert gb.ChEES().num_superchains == 16
    assert gb.ChEES(num_chains=1024).num_superchains == 16
    assert gb.ChEES(num_chains=4).num_superchains == 4
    assert gb.ChEES(num_chains=37).num_superchains == 37
    assert gb.ChEES(**dataclasses.asdict(MANY)) == MANY
    for settings, complaint in {
        ("num_chains", 1): "num_chains must be at least 2",
        ("num_superchains", 5): "num_superchains must divide num_chains, got 5 and 128",
        ("num_superchains", 1): "num_superchains must be at least 2",
        ("target_accept_prob", 1.0): "target_accept_prob must be",
        ("max_leapfrog_steps", 0): "max_leapfrog_steps must be at least 1",
    }.items():
        with pytest.raises(ValueError, match=f"^{complaint}"):
            gb.ChEES(**dict([settings]))


def test_without_the_engine(faithful, monkeypatch):
    """Its settings can be written and read, but a fit says at once what to install."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        contract, "find_spec", lambda name: None if name == "blackjax" else real(name)
    )
    monkeypatch.setattr("gmm_bayes.model.priors.kmeans_centers", None)
    sampler = gb.ChEES()
    with pytest.raises(gb.errors.MissingDependencyError) as raised:
        gb.fit(faithful, 2, sampler=sampler)
    assert str(raised.value) == (
        "the sampler ChEES needs blackjax; install it with pip install 'gmm-bayes[engines]', or "
        "take sampler=NUTS()"
    )


@pytest.mark.filterwarnings("ignore::gmm_bayes.errors.ConvergenceWarning")
def test_a_batch_of_nuts(faithful, faithful_fit):
    """64 chains in one program; verdict and draws are those of chains."""
    sampler = gb.NUTS(num_samples=120, num_chains=64, chain_method="vectorized")
    fit = gb.fit(faithful, 2, sampler=sampler, seed=6)
    assert fit.chain_method == "vectorized"
    found = gb.diagnose(fit)
    assert found.num_superchains is None
    assert found.ess_needed == 6400
    assert found.e_bfmi.shape == (64,)
    assert_equal_means(entries(fit), entries(faithful_fit))
