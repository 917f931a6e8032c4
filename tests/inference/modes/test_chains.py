"""Chains in several modes, against an importance sampler that knows nothing of this package."""

import json
import warnings
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from hostile import two_groups
from scipy import stats
from two_ways import by_importance, four_groups, is_left_and_right

import gmm_bayes as gb
from gmm_bayes.errors import CheckpointError, GMMBayesWarning
from gmm_bayes.inference.modes import chains, mass
from gmm_bayes.inference.modes.draws import mixed, so_many
from gmm_bayes.inference.modes.nearest import Chain, counted, pieces_of, speaking
from gmm_bayes.inference.sampling import registry
from gmm_bayes.inference.sampling.checkpoint import files
from gmm_bayes.inference.sampling.problem import Draws, evaluate
from gmm_bayes.inference.sampling.sampler import AtLeast1, Sampler
from gmm_bayes.inference.sampling.starts import adapted_plan
from gmm_bayes.inference.verdict.looked_for import few

SAMPLER = gb.NUTS(num_warmup=300, num_samples=500)
OPTIONS = {"covariance_type": "diag", "sampler": SAMPLER}


def quiet(function, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GMMBayesWarning)
        return function(*arguments, **options)


WEIGHED = []


@pytest.fixture(scope="module")
def either_way(tmp_path_factory):
    """A fit whose posterior has two modes, and its checkpoint."""
    directory = tmp_path_factory.mktemp("either") / "run"
    options = {**OPTIONS, "checkpoint": directory, "checkpoint_seconds": 0.01}

    def spied(*arguments):
        WEIGHED.append(arguments)
        return mass.mass_of(*arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(chains, "mass_of", spied)
        fit = quiet(gb.fit, four_groups(), 2, **options)
    return fit, directory


def test_modes_that_chains_do_not_cross_have_the_masses_of_an_importance_sampler(either_way):
    fit, _ = either_way
    (expected, error), _ = by_importance(fit)
    assert 0.02 < expected < 0.98
    pieces = fit.run["survey"]["chains"]
    assert len(pieces) == 2
    found = {tuple(piece["began"]): piece for piece in pieces}
    modes = fit.run["survey"]["modes"]
    left = int(np.argmax(np.ptp(modes[0]["mixture"]["means"], axis=0)) == 1)
    piece = found[left,]
    both = np.hypot(*(p["error"] for p in pieces)) * piece["share"] * (1 - piece["share"])
    assert error < 0.01
    assert both < 0.01
    assert abs(piece["share"] - expected) < 5 * np.hypot(both, error)
    # And so have the draws, in every chain.
    share = is_left_and_right(fit).mean(axis=1)
    np.testing.assert_allclose(share, piece["share"], atol=2 / 500)


@pytest.mark.usefixtures("double")
def test_a_mass_is_the_same_where_chains_are_numbered_otherwise(either_way):
    """Chains may come to one piece under several numberings: the normal is of one."""
    problem, prior, piece, near, elsewhere, _ = WEIGHED[-1]
    numbered_otherwise = [renumbered(problem, chain) for chain in piece[:2]]
    expected = mass.mass_of(problem, prior, piece, near, elsewhere, np.random.default_rng(1))
    found = mass.mass_of(
        problem, prior, numbered_otherwise + piece[2:], near, elsewhere, np.random.default_rng(2)
    )
    error = np.hypot(found.error, expected.error)
    assert error < 0.1
    assert abs(found.log_constant - expected.log_constant) < 5 * error
    # Of draws that are all another piece's nothing is known.
    everywhere = np.ones_like(elsewhere)
    unknown = mass.mass_of(problem, prior, piece, near, everywhere, np.random.default_rng(3))
    assert unknown.error == np.inf


def renumbered(problem, chain):
    """The same mixtures, the components in another order."""
    sites = {name: values[..., ::-1] for name, values in chain.draws.sites.items()}
    for name in ("means", "scales"):
        sites[name] = chain.draws.sites[name][..., ::-1, :]
    one_by_one = [
        {name: v[0, t] for name, v in sites.items()} for t in range(len(sites["means"][0]))
    ]
    z = np.stack([problem.space.vector(values) for values in one_by_one])
    stats = {**chain.draws.stats, "potential": evaluate(problem, z)[0][None]}
    return chain._replace(draws=chain.draws._replace(sites=sites, stats=stats))


@dataclass(frozen=True)
class Stays(Sampler):
    """Draws of the normal approximation at the start, as if they were chains; it says nothing."""

    num_samples: AtLeast1 = 200
    num_chains: AtLeast1 = 4

    def run(self, problem, *, progress=False):
        plan = adapted_plan(problem, problem.find_start(), forced=True)
        shape = (self.num_samples, problem.space.dimension)
        eta = np.stack([rng.standard_normal(shape) for rng in problem.rngs])
        return Draws.at(problem, plan.affine.apply(eta), {})


def test_chains_go_to_every_mode_whatever_the_sampler_says(either_way, monkeypatch):
    monkeypatch.setattr(registry, "SAMPLERS", {**registry.SAMPLERS, "Stays": Stays})
    fit = quiet(gb.fit, four_groups(), 2, covariance_type="diag", sampler=Stays())
    shares = [piece["share"] for piece in fit.run["survey"]["chains"]]
    expected = [piece["share"] for piece in either_way[0].run["survey"]["chains"]]
    # What is drawn is a normal distribution in each.
    np.testing.assert_allclose(shares, expected, atol=0.1)
    inside = is_left_and_right(fit).mean()
    assert 0.02 < inside < 0.98


@pytest.mark.slow
def test_many_chains_go_to_every_mode():
    sampler = gb.ChEES(num_chains=64, num_samples=100)
    fit = quiet(gb.fit, four_groups(), 2, covariance_type="diag", sampler=sampler)
    (expected, error), _ = by_importance(fit)
    pieces = fit.run["survey"]["chains"]
    assert len(pieces) == 2
    both = np.hypot(*(p["error"] for p in pieces)) * expected * (1 - expected)
    assert both < 0.02
    assert abs(is_left_and_right(fit).mean() - expected) < 5 * np.hypot(both, error) + 1 / 100


def test_each_mode_has_a_partition(either_way):
    """Left from right, and the upper from the lower, by SciPy's densities of the modes."""
    fit, _ = either_way
    X = four_groups()
    table, record = gb.modes(fit), fit.run["survey"]["modes"]
    cuts = set()
    for mode, found in zip(record, table["partition"], strict=True):
        by_hand = [
            np.log(w) + stats.multivariate_normal(loc, np.dot(tril, np.transpose(tril))).logpdf(X)
            for w, loc, tril in zip(*mode["mixture"].values(), strict=True)
        ]
        np.testing.assert_array_equal(found, np.argmax(by_hand, axis=0))
        cuts |= {axis for axis in (0, 1) if abs(np.corrcoef(found, X[:, axis])[0, 1]) > 0.9}
    assert cuts == {0, 1}
    # A marginal has the modes of all features.
    assert "partition" not in gb.modes(gb.marginal(fit, ["x1"]))


def test_averages_over_modes_are_not_shown(either_way):
    fit, _ = either_way
    assert fit.mixes_modes
    assert "yes, but not component by component" in repr(fit)
    assert "No table of components: draws are of several modes" in repr(fit)
    with pytest.raises(gb.errors.LabelSwitchingError, match="draws are of several modes"):
        fit.summary()


def test_the_verdict_says_that_modes_were_weighted(either_way):
    fit, _ = either_way
    found = gb.diagnose(fit)
    assert found.ok
    assert not found.components_ok
    (said,) = (note for note in found.notes if note.startswith("chains do not cross"))
    shares = [piece["share"] for piece in fit.run["survey"]["chains"]]
    assert f"carry {shares[0]:.3f}, {shares[1]:.3f} of the posterior" in said
    assert all(piece["rhat"] < 1.01 for piece in fit.run["survey"]["chains"])
    assert np.isfinite(found.e_bfmi).all()


def test_another_seed_finds_the_same_posterior(either_way):
    fit, _ = either_way
    other = quiet(gb.fit, fit.X, 2, **OPTIONS, seed=7)
    one, two = (gb.coassignment(each) for each in (fit, other))
    assert float(abs(np.asarray(one) - np.asarray(two)).mean()) < 0.02
    shares = [each.run["survey"]["chains"][0]["share"] for each in (fit, other)]
    assert shares[0] == pytest.approx(shares[1], abs=0.02)


def test_a_killed_run_goes_on_in_every_mode(either_way, tmp_path, monkeypatch):
    fit, directory = either_way
    monkeypatch.chdir(tmp_path)
    names = {path.name for path in directory.iterdir()}
    assert {"plan.npz", "mode1-plan.npz"} < names
    for number in (2, len(names) // 2, len(names) - 2):
        run = tmp_path / f"run{number}"
        _killed_at(monkeypatch, number, run)
        again = quiet(gb.resume, run)
        assert again.run["survey"] == fit.run["survey"]
        for group in ("posterior", "sample_stats"):
            one, other = (each.datatree[group].to_dataset() for each in (fit, again))
            assert one.identical(other), group
    assert not list(tmp_path.glob("gmm_bayes-rescued-*")), "the checkpoint has the draws"


def _killed_at(monkeypatch, number, run):
    write, count = files.write_file, iter(range(1000))

    def deadly(path, content):
        if next(count) >= number:
            raise KeyboardInterrupt
        return write(path, content)

    monkeypatch.setattr(files, "write_file", deadly)
    with pytest.raises((KeyboardInterrupt, CheckpointError)):
        quiet(gb.fit, four_groups(), 2, **OPTIONS, checkpoint=run, checkpoint_seconds=0.01)
    monkeypatch.setattr(files, "write_file", write)


def test_a_mass_that_cannot_be_had_is_laplaces_and_not_believed(monkeypatch):
    monkeypatch.setattr(mass, "_FEWEST_EACH", 10**6)
    fit = quiet(gb.fit, four_groups(), 2, **OPTIONS)
    pieces, table = fit.run["survey"]["chains"], gb.modes(fit)
    assert [piece["error"] for piece in pieces] == [None, None]
    np.testing.assert_allclose([p["share"] for p in pieces], table["share"][:2], rtol=1e-3)
    found = gb.diagnose(fit)
    assert found.problems[0].startswith("what each mode is worth is not known")


def test_a_run_of_several_modes_is_not_extended(either_way):
    with pytest.raises(ValueError, match="weighted by the mass of their modes"):
        gb.extend(either_way[0], 10)


def test_the_record_survives_a_file(either_way, tmp_path):
    fit, _ = either_way
    again = gb.load(fit.save(tmp_path / "fit.nc"))
    assert again.run["survey"] == fit.run["survey"]
    json.dumps(fit.run["survey"], allow_nan=False)
    assert gb.diagnose(again).notes == gb.diagnose(fit).notes


def made_up_draws(value, n_chains=3, n_draws=200):
    shape = (n_chains, n_draws)
    sites = {"weights": np.full((*shape, 2), value)}
    return SimpleNamespace(sites=sites, stats={"potential": np.full(shape, value), "energy": 1})


def test_every_chain_has_its_share_of_each_piece():
    parts = [made_up_draws(value) for value in (0.0, 1.0, 2.0)]
    share = np.array([0.7, 0.25, 0.05])
    found = mixed(parts, share, np.random.default_rng(0))
    assert set(found["stats"]) == {"potential"}
    for chain in found["stats"]["potential"]:
        np.testing.assert_allclose(np.bincount(chain.astype(int)) / 200, share, atol=1 / 200)
        # In random order.
        assert 20 < np.count_nonzero(np.diff(chain)) < 150
    np.testing.assert_array_equal(found["sites"]["weights"][..., 1], found["stats"]["potential"])


def test_chains_are_in_one_piece_if_others_link_them():
    came = [(1, 0, 0, 0), (0, 1, 1, 0), (0, 0, 0, 1), (0, 0, 1, 0), (1, 1, 0, 0)]
    chains = [Chain(i, None, np.array(modes, bool)) for i, modes in enumerate(came)]
    numbers = [[chain.began for chain in piece] for piece in pieces_of(chains)]
    assert numbers == [[0, 4, 1, 3], [2]]


def test_short_chains_say_nothing_where_whole_ones_began():
    came = np.array([True, False])
    short = Chain(1, None, came, whole=False)
    first, other = Chain(0, None, came), Chain(2, None, came, whole=False)
    assert counted([first, short, other]) == [first, short, other]
    gone = Chain(1, None, came)
    assert counted([first, short, other, gone]) == [first, other, gone]
    # And are heard only where there are no whole ones.
    assert speaking([short, first]) == [first]
    assert speaking([short, other]) == [short, other]


@pytest.mark.parametrize(
    ("sampler", "warmup", "expected"),
    [
        (gb.NUTS(num_samples=1000), 1000, (200, 200)),
        (gb.NUTS(num_samples=150), 100, (100, 100)),
        (gb.NUTS(num_samples=30, num_warmup=10), 10, (10, 30)),
        (gb.ChEES(num_samples=1000, num_chains=64), 600, (120, 200)),
    ],
)
def test_chains_that_show_where_they_go_are_short(sampler, warmup, expected):
    brief = chains._briefly(sampler, SimpleNamespace(facts={"num_warmup": warmup}))
    assert (brief.num_warmup, brief.num_samples) == expected
    assert brief.num_chains == sampler.num_chains


def test_a_piece_with_few_draws_gives_them_twice():
    parts = [Draws(p.sites, {"potential": p.stats["potential"]}, {}, {}) for p in one_and_two()]
    found = so_many(parts, 3, 500)
    assert found.stats["potential"].shape == (3, 500)
    np.testing.assert_array_equal(found.stats["potential"][:, 0], [1.0, 2.0, 1.0])
    assert found.sites["weights"].shape == (3, 500, 2)


def one_and_two():
    return [made_up_draws(value, n_chains=1) for value in (1.0, 2.0)]


def surveyed(survey, n_components=2):
    """A believable fit about which a survey says that."""
    fit = quiet(gb.fit, two_groups(100), n_components, sampler=gb.Laplace(num_samples=200))
    attrs = fit.datatree.attrs
    attrs["run"] = json.dumps({**json.loads(attrs["run"]), "survey": survey})
    return gb.diagnose(gb.GMMFit(fit.datatree))


def mode(log_mass, n_starts=20):
    return {"log_mass": log_mass, "n_starts": n_starts}


SURVEYS = {
    "one": ({"n_starts": 100, "modes": [mode(0.0)]}, None),
    "far below": ({"n_starts": 100, "modes": [mode(0.0), mode(-8.0), mode(None)]}, None),
    "once": (
        {"n_starts": 100, "modes": [mode(0.0, 1), mode(-8.0)]},
        "where the chains are was found by 1 of 100 starts: there may be better",
    ),
    "not gone to": (
        {"n_starts": 100, "modes": [mode(0.0), mode(-2.0), mode(-2.0), mode(-9.0)]},
        "2 modes that may carry 0.11, 0.11 of the posterior (by Laplace's method) had no chains",
    ),
}


@pytest.mark.parametrize("name", SURVEYS)
def test_the_verdict_asks_what_was_looked_for(name):
    survey, problem = SURVEYS[name]
    found = surveyed(survey)
    assert found.problems == (() if problem is None else (problem,))


PIECE = {"began": [0], "came_to": [0], "share": 0.6, "error": 0.02, "rhat": 1.002, "e_bfmi": 0.9}
OTHER = {**PIECE, "began": [1], "came_to": [1], "share": 0.4}
PIECES = {
    "good": ([PIECE, OTHER], None),
    "a piece whose chains disagree": (
        [PIECE, {**OTHER, "rhat": 1.3}],
        "chains begun in mode 1 of modes(fit) do not agree: R-hat is 1.300",
    ),
    "one that matters little": ([{**PIECE, "share": 0.9996}, {**OTHER, "share": 4e-4}], None),
    "a mass that is not known": (
        [PIECE, {**OTHER, "error": None}],
        "what each mode is worth is not known: standard error inf of a share",
    ),
    "one that is hardly known": (
        [PIECE, {**OTHER, "error": 0.5}],
        "what each mode is worth is not known: standard error 0.12 of a share",
    ),
}


@pytest.mark.parametrize("name", PIECES)
def test_the_verdict_judges_each_piece(name):
    told, problem = PIECES[name]
    found = surveyed({"n_starts": 9, "modes": [mode(0.0), mode(-1.0)], "chains": told})
    if problem is None:
        assert found.problems == ()
    else:
        assert found.problems[0].startswith(problem)
    assert found.components_ok == (name == "one that matters little")


def test_a_sentence_has_five_numbers_at_most():
    assert few([1.0, 2.0], ".1f") == "1.0, 2.0"
    assert few(range(100), "d") == "0, 1, 2, 3, 4, ..."
