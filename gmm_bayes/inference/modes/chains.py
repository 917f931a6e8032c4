"""Chains in every mode worth having; where they do not cross, each mode's draws by its mass.

Chains that begin in one mode of a mixture's posterior seldom leave it. So chains are made to begin
in each that is worth having, unless others came to it by themselves: short ones, which show whether
they stay and what the mode is worth. Chains that came to the same modes are in one piece of the
posterior. The mass of each piece is the integral of the density over the mixtures that are nearer
to its modes than to another's, by bridge sampling. Where a piece is worth having, whole chains are
drawn in it, and draws are picked from the pieces by their masses.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np

from gmm_bayes._vocabulary import SURVEY, WEIGHTS
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.modes.bridge import Bridge
from gmm_bayes.inference.modes.draws import mixed, mixtures_of_draws, so_many, stacked
from gmm_bayes.inference.modes.mass import mass_of
from gmm_bayes.inference.modes.nearest import Chain, Nearest, came_to, counted, pieces_of, speaking
from gmm_bayes.inference.modes.survey import are_worth_chains
from gmm_bayes.inference.rows.placement import agree
from gmm_bayes.inference.sampling.checkpoint.recorder import Recorder
from gmm_bayes.inference.sampling.problem import Draws, Problem
from gmm_bayes.inference.sampling.sampler import Sampler
from gmm_bayes.model.priors import PriorArrays

__all__ = ["draw_from_modes", "seen_by"]

Judge = Callable[[dict[str, Any], np.ndarray, dict[str, Any], int | None], dict[str, float | None]]

# Runs of the sampler, at most, and those of them that look for modes.
_MOST_RUNS, _MOST_LOOKING = 10, 6
# Of those, the share of a run's draws that they make, and the least number, kept and not kept.
_OF_A_RUN, _FEWEST = 5, 100
# Modes from which chains came to one piece that say that chains go from mode to mode.
_FEW_MODES = 3
# Share of the posterior below which a piece is told of, and its draws are left out.
_LEAST_SHARE = 1e-3
# Nats below the others of a mode without a mass of its own.
_NO_MASS = 700.0


def draw_from_modes(
    sampler: Sampler,
    problem: Problem,
    first: Draws,
    modes: list[MixtureParameters],
    X: np.ndarray,
    prior: PriorArrays,
    seeds: list[np.random.SeedSequence],
    judge: Judge,
    *,
    progress: bool = False,
) -> Draws:
    """Draw from every mode worth having.

    Parameters
    ----------
    sampler : Sampler
        Of chains.
    problem : Problem
    first : Draws
        Of chains that began in the first mode, or in those that the facts of the run say (`began`).
    modes : list of MixtureParameters
        In standard units, that of most mass first.
    X : ndarray, shape (rows, D)
        Rows by which mixtures are compared, in standard units.
    prior : PriorArrays
        In standard units.
    seeds : list of numpy.random.SeedSequence
        Of each chain.
    judge : callable
        Says how the chains of a piece agree: R-hat and E-BFMI from sites, covariances, statistics
        and the number of superchains.
    progress : bool

    Returns
    -------
    Draws
        Those that were given, where all chains are in one piece; otherwise as many, each piece of
        the posterior with its share. The facts of the survey have `chains`, an entry for each
        piece, that of most mass first: the modes where its chains `began` and those they
        `came_to`, its `share` of the posterior, the standard `error` of its log mass, `rhat` of its
        chains, and the least `e_bfmi`; None for what is not known, or of a single run's chains in
        one piece.
    """
    near = Nearest.of(modes, X)
    survey = first.facts[SURVEY]
    runs = [first]
    chains = near.chains(problem, first, first.facts.get("began", [0] * sampler.num_chains))

    def run_from(mode: int, by: Sampler) -> list[Chain]:
        recorder = problem.recorder.branch(f"mode{len(runs)}")
        there = _begun_in(modes[mode], problem, recorder, seeds, len(runs))
        runs.append(by.run(there, progress=progress))
        return near.chains(problem, runs[-1], [mode] * by.num_chains, whole=by is sampler)

    # Of several processes all go where the first does.
    one_for_all = partial(_one_for_all, problem)
    agreement_of = partial(_judged, problem, sampler, judge)

    while len(runs) < _MOST_LOOKING and (mode := one_for_all(_unseen(chains, survey))) >= 0:
        chains += run_from(mode, _briefly(sampler, first))
    rng = np.random.default_rng(np.random.SeedSequence(seeds[0].entropy, spawn_key=(0, 0, 0)))
    gone_to: set[int] = set()
    while len(pieces := pieces_of(counted(chains))) > 1:
        masses, share = _weighed(problem, prior, pieces, near, survey, rng)
        heavy = [pieces[i] for i in np.flatnonzero(share >= _LEAST_SHARE)]
        mode = one_for_all(_poorly_known(heavy, sampler.num_chains, gone_to))
        if mode < 0 or len(runs) == _MOST_RUNS:
            break
        gone_to.add(mode)
        chains += run_from(mode, sampler)
    else:
        # Of a single run the verdict will see all chains.
        several = sum(chain.whole for chain in chains) > sampler.num_chains
        whole = _facts(pieces[0], _WHOLE, 1.0, agreement_of if several else _unjudged)
        return _with(first, runs, {**survey, "chains": [whole]})
    order = np.argsort(-share, kind="stable")
    told = [_facts(pieces[i], masses[i], float(share[i]), agreement_of) for i in order]
    kept = [i for i in order if share[i] >= _LEAST_SHARE]
    shape = (sampler.num_chains, sampler.num_samples)
    parts = [so_many([chain.draws for chain in speaking(pieces[i])], *shape) for i in kept]
    picked = mixed(parts, share[kept], rng)
    # Chains that were put together cannot go on.
    return _with(first._replace(**picked, state={}), runs, {**survey, "chains": told})


def seen_by(
    problem: Problem, draws: Draws, modes: list[MixtureParameters], X: np.ndarray
) -> dict[str, Any]:
    """The facts of the survey where chains went from mode to mode by themselves: one piece."""
    began = [0] * len(draws.stats["potential"])
    chains = Nearest.of(modes, X).chains(problem, draws, began)
    return {**draws.facts[SURVEY], "chains": [_facts(chains, _WHOLE, 1.0, _unjudged)]}


def _one_for_all(problem: Problem, number: Any) -> int:
    """A number that the first of several processes tells the others."""
    return int(agree(np.asarray(number), problem.mesh))


def _unseen(chains: list[Chain], survey: dict[str, Any]) -> int:
    """A mode worth having where no chain has been; -1 if there is none."""
    begun = sorted({chain.began for chain in chains})
    connected = len(begun) >= _FEW_MODES and len(pieces_of(chains)) == 1
    seen = came_to(chains) | ~are_worth_chains(survey, connected=connected)
    seen[begun] = True
    return -1 if seen.all() else int(seen.argmin())


def _poorly_known(heavy: list[list[Chain]], n_chains: int, gone_to: set[int]) -> int:
    """A mode of a piece that has not as many whole chains as if it were the whole posterior.

    Or -1 if there is none where chains have not gone for that.
    """
    poor = (piece for piece in heavy if sum(chain.whole for chain in piece) < n_chains)
    modes = (int(came_to(piece).argmax()) for piece in poor)
    return next((mode for mode in modes if mode not in gone_to), -1)


def _briefly(sampler: Sampler, first: Draws) -> Sampler:
    """The sampler of chains that show where they go, made of that of a run."""
    lengths = {"num_samples": sampler.num_samples, "num_warmup": first.facts.get("num_warmup")}
    settings = {field.name for field in fields(sampler)}  # type: ignore[arg-type]
    brief = {
        name: min(number, max(_FEWEST, number // _OF_A_RUN))
        for name, number in lengths.items()
        if number is not None and name in settings
    }
    return replace(sampler, **brief)  # type: ignore[type-var]


# A posterior in one piece.
_WHOLE = Bridge(0.0, 0.0, 0, np.inf, True)


def _with(draws: Draws, runs: list[Draws], survey: dict[str, Any]) -> Draws:
    """Draws with what was found of the modes, and what all runs cost."""
    names = {name for run in runs for name in run.seconds}
    seconds = {name: sum(run.seconds.get(name, 0.0) for run in runs) for name in names}
    if "earlier" in draws.seconds:
        seconds["earlier"] = draws.seconds["earlier"]
    cost = {"n_gradients": sum(run.facts["n_gradients"] for run in runs)}
    return draws._replace(facts={**draws.facts, **cost, SURVEY: survey}, seconds=seconds)


def _begun_in(
    mixture: MixtureParameters,
    problem: Problem,
    recorder: Recorder,
    seeds: list[np.random.SeedSequence],
    number: int,
) -> Problem:
    """The problem of chains that begin in one mode, with random numbers of their own."""
    rngs = [
        np.random.default_rng(np.random.SeedSequence(s.entropy, spawn_key=(*s.spawn_key, number)))
        for s in seeds
    ]

    def start() -> MixtureParameters:
        return recorder.start(lambda: MixtureParameters(*agree(mixture, problem.mesh)))

    return problem._replace(
        find_start=start, find_others=list, rngs=rngs, recorder=recorder, looked_for={}
    )


def _weighed(
    problem: Problem,
    prior: PriorArrays,
    pieces: list[list[Chain]],
    near: Nearest,
    survey: dict[str, Any],
    rng: np.random.Generator,
) -> tuple[list[Bridge], np.ndarray]:
    """The mass of each piece, and its share of all; by Laplace's method if one is not known."""
    owner = np.full(len(near.log_density), -1)
    for i, piece in enumerate(pieces):
        owner[came_to(piece)] = i
    masses = [
        mass_of(problem, prior, piece, near, ~np.isin(owner, (-1, i)), rng)
        for i, piece in enumerate(pieces)
    ]
    log_mass = np.array([mass.log_constant for mass in masses])
    if np.isnan(log_mass).any():
        laplace = [survey["modes"][came_to(piece).argmax()]["log_mass"] for piece in pieces]
        log_mass = np.array([-_NO_MASS if mass is None else mass for mass in laplace])
    share = np.exp(log_mass - log_mass.max())
    return masses, share / share.sum()


def _facts(
    piece: list[Chain],
    mass: Bridge,
    share: float,
    agreement_of: Callable[[Draws], dict[str, float | None]],
) -> dict[str, Any]:
    """What is recorded of a piece."""
    return {
        "began": sorted({chain.began for chain in piece}),
        "came_to": np.flatnonzero(came_to(piece)).tolist(),
        "n_chains": len(speaking(piece)),
        "share": share,
        "error": float(mass.error) if np.isfinite(mass.error) else None,
        **agreement_of(stacked([chain.draws for chain in speaking(piece)])),
    }


def _unjudged(draws: Draws) -> dict[str, float | None]:
    return {"rhat": None, "e_bfmi": None}


def _judged(
    problem: Problem, sampler: Sampler, judge: Judge, draws: Draws
) -> dict[str, float | None]:
    """How the chains of a piece agree."""
    n_chains, groups = len(draws.stats["potential"]), sampler.num_superchains
    if groups is not None:
        # A whole number of superchains, if there are any.
        whole = n_chains % (sampler.num_chains // groups) == 0
        groups = n_chains * groups // sampler.num_chains if whole else None
    tril = mixtures_of_draws(problem, draws).scale_tril
    covariances = (tril @ tril.swapaxes(-1, -2)).reshape(
        *draws.sites[WEIGHTS].shape, *tril.shape[-2:]
    )
    return judge(draws.sites, covariances, draws.stats, groups)
