"""What is wrong with a run, and what to do about it: words for the numbers of a verdict."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from gmm_bayes._vocabulary import CHAIN, DRAW
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.inference.verdict import measures
from gmm_bayes.inference.verdict.advice import ADVICE, ALIGN
from gmm_bayes.inference.verdict.how_many import prior_expects
from gmm_bayes.inference.verdict.looked_for import few, unseen, what_was_seen
from gmm_bayes.inference.verdict.recording import narrower_than_recorded
from gmm_bayes.inference.verdict.thresholds import THRESHOLDS, ess_needed

__all__ = ["ALIGN", "can_be_aligned", "findings", "findings_of_weights", "notes", "rhat_name"]


def findings(fit: GMMFit, n: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(problem, advice) for everything that is wrong, the worst first."""
    draws = fit.posterior.sizes[DRAW]
    if draws < THRESHOLDS["min_draws"]:
        yield f"{draws} draws a chain are too few to judge", ADVICE["short"]
        return
    yield from _disagreements(fit, n)
    yield from unseen(fit)
    yield from _too_short(fit, n)
    yield from _bad_geometry(fit, n)


def findings_of_weights(fit: GMMFit, n: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(problem, advice) for draws of the normal approximation."""
    # Not ">": a NaN is no better.
    if not n["pareto_k"] <= THRESHOLDS["pareto_k"]:
        yield (
            f"Pareto k is {n['pareto_k']:.2f} (should be below {THRESHOLDS['pareto_k']}): the "
            "posterior is too far from a normal distribution for these draws",
            ADVICE["not normal"],
        )
    if not n["ess_bulk"] >= THRESHOLDS["ess_per_chain"]:
        yield (
            f"the weights are worth {n['ess_bulk']:.0f} draws (should be above "
            f"{THRESHOLDS['ess_per_chain']})",
            ADVICE["few weights"],
        )
    yield from unseen(fit)
    yield from _collapse(n)


def _disagreements(fit: GMMFit, n: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Chains, or parts of them, that are not about the same thing."""
    if not np.isfinite(n["rhat"]):
        yield (
            "R-hat cannot be computed: draws are not finite, or no chain moved",
            ADVICE["not finite"],
        )
    # A collapsed component has no bound to its likelihood; the other chains are not the worse ones.
    if n["worse_chains"] and not n["collapsed"]:
        means, elpd = (few(n[name], ".1f") for name in ("log_likelihood", "elpd"))
        left_out = f"; of rows left out: {elpd}" * bool(np.isfinite(n["elpd"]).all())
        yield (
            f"chains [{few(n['worse_chains'], 'd')}] sit in a worse mode "
            f"(mean log-likelihood by chain: {means}{left_out})",
            _why_short(fit, n),
        )


def _too_short(fit: GMMFit, n: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Chains that have not said enough yet, or never will."""
    advice = _why_short(fit, n)
    enough = ess_needed(fit.posterior.sizes[CHAIN], n["num_superchains"])
    if n["rhat"] > THRESHOLDS["rhat"]:
        name = rhat_name(n["num_superchains"])
        yield f"{name} is {n['rhat']:.3f} (should be below {THRESHOLDS['rhat']})", advice
    for kind in ("bulk", "tail"):
        # Not "<": a NaN is not enough either.
        if not n[f"ess_{kind}"] >= enough:
            yield f"{kind} ESS is {n[f'ess_{kind}']:.0f} (should be above {enough})", advice


def _why_short(fit: GMMFit, n: dict[str, Any]) -> str:
    """What to do about chains that disagree, or say little: it depends on why."""
    if n["collapsed"]:
        return ADVICE["collapse"]
    if can_be_aligned(fit, n) and not n["switched"]:
        return ADVICE["labels"]
    apart = measures.chains_apart(fit, n["table"], THRESHOLDS["rhat_apart"])
    cause = "worse mode" if n["worse_chains"] else "apart" if apart else "short"
    # Then draws are no cure by themselves, nor is another start.
    return " ".join([ADVICE[cause], *[ADVICE["many parameters"]] * _rows_are_few(fit)])


def _rows_are_few(fit: GMMFit) -> bool:
    """Fewer than two rows for each free parameter."""
    free = fit.structure.n_parameters(fit.n_components, fit.n_features)
    return bool(fit.n_obs < 2 * free)


def _bad_geometry(fit: GMMFit, n: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Signs that the sampler could not go everywhere."""
    total = fit.posterior.sizes[CHAIN] * fit.posterior.sizes[DRAW]
    repeated = n["repeated_share"].max()
    if n["n_divergences"]:
        yield (
            f"{n['n_divergences']} of {total} draws diverged",
            ADVICE["divergences"],
        )
    if n["n_max_tree_depth"]:
        yield (
            f"{n['n_max_tree_depth']} of {total} trajectories were cut at the maximum tree depth",
            ADVICE["deep trees"],
        )
    if (n["e_bfmi"] < THRESHOLDS["e_bfmi"]).any():
        lowest = np.nanmin(n["e_bfmi"])
        yield f"E-BFMI is {lowest:.2f} (should be above {THRESHOLDS['e_bfmi']})", _why_short(fit, n)
    if repeated > THRESHOLDS["repeated_share"] + fit.sampler.rejected_share:
        yield (
            f"{repeated:.0%} of a chain's draws repeat the one before",
            ADVICE["repeats"],
        )
    yield from _collapse(n)


def _collapse(n: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if n["collapsed"]:
        yield (
            f"components {list(n['collapsed'])} have shrunk onto a point, a line or a plane",
            ADVICE["collapse"],
        )


def can_be_aligned(fit: GMMFit, n: dict[str, Any]) -> bool:
    """Whether another numbering may put right what is wrong: switched labels, seen or not.

    Components that overlap may change places without a draw's best order being clear; then their
    parameters disagree while all that does not depend on labels agrees.
    """
    if fit.alignment is not None or fit.n_components == 1:
        return False
    if n["switched"] or not n["rhat"] > THRESHOLDS["rhat"]:
        return n["switched"]
    free = n["table"]["label_free"].astype(bool)
    return bool(n["table"]["rhat"][free].max() < THRESHOLDS["rhat"])


def notes(fit: GMMFit, n: dict[str, Any]) -> Iterator[str]:
    """What is worth knowing without being wrong."""
    if n["switched"]:
        yield _where_labels_stand(fit)
    if not np.isnan(n["pareto_k"]):
        yield "draws of the normal approximation cannot show a mode other than the one they are at"
    elif fit.posterior.sizes[CHAIN] == 1:
        yield "one chain cannot show a mode that it missed: run several (num_chains)"
    yield from what_was_seen(fit)
    yield from narrower_than_recorded(fit)
    empty = fit.n_components - n["n_occupied"]
    if empty >= 1:
        expected = prior_expects(fit)
        prior = "" if expected is None else f" (by the prior {expected:.1f} have a row)"
        yield (
            f"{n['n_occupied']:.0f} of {fit.n_components} components are occupied{prior}; the "
            "parameters of an empty one are the prior's"
        )


def _where_labels_stand(fit: GMMFit) -> str:
    if fit.alignment is None:
        return (
            "components changed places between draws (label switching): label-free answers, such "
            "as log_predictive_density, may be judged by the above, but averages per component "
            "mean nothing"
        )
    groups = "; ".join(" and ".join(map(str, group)) for group in fit.alignment["indistinct"])
    return (
        f"components {groups} cannot be told apart: averages of these over draws mean nothing; "
        "fit fewer components, or give a prior that tells them apart"
    )


def rhat_name(num_superchains: int | None) -> str:
    """What the R-hat of a run is called."""
    return "nested R-hat" if num_superchains else "R-hat"
