"""Was the posterior looked for? What the survey of its modes says against a run, in words."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from gmm_bayes._vocabulary import SURVEY, TEMPERING
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.inference.verdict.thresholds import THRESHOLDS

__all__ = ["few", "least_e_bfmi", "pieces", "unseen", "what_was_seen"]

_LONGER = "Run more draws (num_samples)."
_LOOK_LONGER = "Look longer (init='auto', and n_init above {n})."


def pieces(fit: GMMFit) -> list[dict[str, Any]]:
    """The pieces of the posterior between which chains do not cross, as recorded, if several."""
    told = fit.run.get(SURVEY, {}).get("chains", [])
    worth = [one for one in told if one["share"] >= THRESHOLDS["mode_share"]]
    return worth if len(worth) > 1 else []


def least_e_bfmi(fit: GMMFit) -> float:
    """The least of the chains of all pieces; not a number where it is not known."""
    known = [one["e_bfmi"] for one in pieces(fit) if one["e_bfmi"] is not None]
    return min(known, default=np.nan)


def unseen(fit: GMMFit) -> Iterator[tuple[str, str]]:
    """(problem, advice) for what was not looked for, or found and not gone to."""
    survey = fit.run.get(SURVEY)
    if TEMPERING in fit.run:
        yield from _seldom(fit.run[TEMPERING])
        return
    if survey is None or not survey["modes"] or fit.n_components == 1:
        return
    modes, told = survey["modes"], survey.get("chains", [])
    main = told[0]["came_to"] if told else [0]
    n_starts, n_led = survey["n_starts"], sum(modes[i]["n_starts"] for i in main)
    if n_led <= 1 < n_starts:
        yield (
            f"where the chains are was found by {n_led} of {n_starts} starts: there may be better",
            _LOOK_LONGER.format(n=n_starts),
        )
    share = _shares(modes)
    gone_to = {0, *(i for one in told for i in (*one["began"], *one["came_to"]))}
    connected = len(told) == 1 and len(told[0]["began"]) > 1
    least = THRESHOLDS["small_mode_share" if connected else "mode_share"]
    missed = [i for i in range(len(modes)) if share[i] >= least and i not in gone_to]
    if missed:
        yield (
            f"{_modes(len(missed))} that may carry {few(share[missed], '.2g')} of the posterior "
            "(by Laplace's method) had no chains",
            "See modes(fit); sample with NUTS, or take fewer components.",
        )
    yield from _weights(fit, told)


def _seldom(replicas: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Whether replicas came from the prior too seldom to have found all modes."""
    n_trips, least = replicas["round_trips"], THRESHOLDS["round_trips"]
    if min(n_trips) < least:
        # Twice the sum of what is not exchanged is the number beyond which more help little.
        apart = (1 - np.array(replicas["exchanged"])).sum(axis=1).max()
        wanted, n_rungs = int(np.ceil(2 * apart)) + 1, len(replicas["powers"][0])
        yield (
            f"replicas came from the prior to the posterior {few(n_trips, 'd')} times in each "
            f"chain (should be at least {least})",
            f"Take NUTS(tempering={wanted})." if wanted > n_rungs else _LONGER,
        )


def _weights(fit: GMMFit, told: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """What is wrong with the pieces, and with what each is said to be worth."""
    # The chains of one run in one piece are judged as they are.
    for one in told if len(told) > 1 or any(one["rhat"] is not None for one in told) else []:
        # Not ">": what is not known is no better.
        agree = one["rhat"] is not None and one["rhat"] < THRESHOLDS["mode_rhat"]
        if one["share"] >= THRESHOLDS["mode_share"] and not agree:
            where = f"chains begun in {_numbers(one['began'])}"
            known = "not known" if one["rhat"] is None else f"{one['rhat']:.3f}"
            yield (
                f"{where} of modes(fit) do not agree: R-hat is {known} "
                f"(should be below {THRESHOLDS['mode_rhat']})",
                "Run more draws (num_warmup, num_samples).",
            )
    errors = [_share_error(one, pieces(fit)) for one in pieces(fit)]
    if errors and not max(errors) <= THRESHOLDS["mode_share_error"]:
        yield (
            f"what each mode is worth is not known: standard error {max(errors):.2f} of a share "
            f"(should be below {THRESHOLDS['mode_share_error']})",
            _LONGER,
        )


def what_was_seen(fit: GMMFit) -> Iterator[str]:
    """What is worth knowing of the search without being wrong."""
    if fit.n_components == 1:
        return
    survey, several = fit.run.get(SURVEY), pieces(fit)
    if TEMPERING in fit.run:
        trips = few(fit.run[TEMPERING]["round_trips"], "d")
        yield f"replicas came from the prior to the posterior {trips} times in each chain"
    elif survey is None or survey["n_starts"] == 1:
        yield "other modes were not looked for"
    if several:
        largest = max(_share_error(one, several) for one in several)
        yield (
            f"chains do not cross between modes that carry "
            f"{few([one['share'] for one in several], '.3f')} of the posterior (standard error "
            f"{largest:.1g}): draws are weighted by mass, and averages per component mix the modes"
        )


def few(values: Any, form: str) -> str:
    """At most five numbers in words: the table has all of them."""
    said = [format(value, form) for value in list(values)[:5]]
    return ", ".join([*said, "..."] if len(values) > 5 else said)


def _shares(modes: list[dict[str, Any]]) -> np.ndarray:
    """Of the posterior, by Laplace's method."""
    mass = np.array([-np.inf if m["log_mass"] is None else m["log_mass"] for m in modes])
    share = np.exp(mass)
    return share / share.sum() if share.any() else share


def _share_error(one: dict[str, Any], several: list[dict[str, Any]]) -> float:
    """The standard error of a share: the logs of the masses have errors of their own."""
    share = np.array([other["share"] for other in several])
    errors = [np.inf if other["error"] is None else other["error"] for other in several]
    slopes = one["share"] * (np.array([other is one for other in several]) - share)
    return float(np.sqrt(np.sum((slopes * errors) ** 2)))


def _modes(n: int) -> str:
    return "a mode" if n == 1 else f"{n} modes"


def _numbers(modes: list[int]) -> str:
    return f"mode {modes[0]}" if len(modes) == 1 else f"modes {few(modes, 'd')}"
