"""Do the chains agree? Label-free first: a property of the run, so it lives with the run."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gmm_bayes._vocabulary import CHAIN, CONSTANT_DATA, DRAW, MEANS
from gmm_bayes.inference import measures, sensitivity
from gmm_bayes.inference.result import GMMFit, check_fit

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["THRESHOLDS", "Diagnosis", "diagnose", "record_verdict"]

# Vehtari, Gelman, Simpson, Carpenter, Buerkner (2021), Rank-normalization, folding, and
# localization: R-hat below 1.01 and an ESS of 100 per chain. Betancourt (2016), Diagnosing
# suboptimal cotangent disintegrations: an E-BFMI below 0.3 is suspicious. The others are ours: a
# chain is in another mode when its mean log-likelihood lies three sds of the best chain below that
# chain's; NUTS hardly ever returns the point it started from; and a component a ten-thousandth as
# wide as its column has collapsed.
# Many short chains: Vehtari et al. ask for an ESS of 400 in all, which was 100 of each of their
# four chains; 100 of each of a thousand may be more than there are draws. Nested R-hat (Margossian
# et al. 2024) has the threshold of R-hat. Where chains have forgotten their starts it is about
# sqrt(1 + 1 / n), n the effective draws of one superchain, so 1.01 asks for 50 of each.
# Vehtari, Simpson, Gelman, Yao, Gabry (2024), Pareto smoothed importance sampling: weights whose
# tail has a shape above 0.7 cannot be averaged with.
# Kallioinen, Paananen, Buerkner, Vehtari (2024), Detecting and diagnosing prior and likelihood
# sensitivity with power-scaling: a sensitivity of 0.05 is worth a look. Ours: a prior is strong
# where the posterior is at least half as sensitive to it as to the likelihood.
# Sivula, Magnusson, Matamoros, Vehtari (2020), Uncertainty in Bayesian leave-one-out cross-
# validation based model comparison: below four nats a difference is small, its error not known.
THRESHOLDS: Final = {
    "rhat": 1.01,
    "ess_per_chain": 100,
    "ess_many_chains": 400,
    "e_bfmi": 0.3,
    "worse_chain_sd": 3.0,
    "worse_chain_elpd": 4.0,
    "worse_chain_se": 3.0,
    "repeated_share": 0.1,
    "collapsed_scale": 1e-4,
    "min_draws": 8,
    "pareto_k": 0.7,
    "power_scaling": 0.05,
    "prior_share": 0.5,
}


@dataclass(frozen=True)
class Diagnosis:
    """Whether a run may be believed, and why not.

    Attributes
    ----------
    ok : bool
        True when the posterior may be believed: nothing was found that does not depend on how
        components are numbered.
    components_ok : bool
        True when what is said of single components may be believed too: `ok`, and they kept their
        places from draw to draw.
    problems, advice, notes : tuple of str
        What is wrong, what to do about it, and what is worth knowing without being wrong.
    rhat, ess_bulk, ess_tail : float
        The worst over all parameters and label-free quantities; over the latter alone where
        components changed places.
    table : pandas.DataFrame
        The worst R-hat and ESS of each quantity; label-free quantities first.
    n_divergences, n_max_tree_depth : int
        Draws after warm-up that diverged, or whose trajectory was cut at the maximum depth.
    num_superchains : int or None
        Groups of chains that began at one point each, as `ChEES` makes them: then `rhat` is nested
        R-hat. None where every chain had a start of its own.
    e_bfmi, repeated_share : ndarray, shape (num_chains,) or (num_superchains,)
        Energy's Bayesian fraction of missing information, and the share of draws equal to the one
        before, per chain, or per superchain where there are any.
    log_likelihood : ndarray, shape (num_chains,)
        Mean log-likelihood (nats), per chain.
    elpd : ndarray, shape (num_chains,)
        Expected log predictive density of all rows by each chain alone (nats), by leave-one-out on
        at most 256 of them; NaN where chains agree, or have too few draws to say.
    worse_chains : tuple of int
        Chains that sit in a worse mode: that predict left-out rows worse than the best chain does,
        or have a lower log-likelihood than the best of those that do not.
    n_occupied : float
        Median over draws of the number of components whose responsibilities add up to at least one
        row.
    switched : bool
        Whether components changed places between or within chains, or, in an aligned fit, cannot be
        told apart.
    collapsed : tuple of int
        Components that have shrunk onto a point, a line or a plane.
    pareto_k : float
        Shape of the tail of the importance weights of `Laplace`; NaN for chains. Draws that are not
        chains have no R-hat, energy or modes: those are NaN or empty, and the ESS is that of the
        weights.
    prior_sensitivity : float
        The largest power-scaling sensitivity to the priors, as by `prior_sensitivity`, of the log
        density at ten rows, the mixture's mean and, where components kept their places, the
        parameters of those with enough rows. Where it is above 0.05, and half of that to the
        likelihood, there is a note. NaN where there are problems, or no priors.
    """

    ok: bool
    components_ok: bool
    problems: tuple[str, ...]
    advice: tuple[str, ...]
    notes: tuple[str, ...]
    rhat: float
    ess_bulk: float
    ess_tail: float
    table: "pd.DataFrame"
    n_divergences: int
    n_max_tree_depth: int
    num_superchains: int | None
    e_bfmi: np.ndarray
    repeated_share: np.ndarray
    log_likelihood: np.ndarray
    elpd: np.ndarray
    worse_chains: tuple[int, ...]
    n_occupied: float
    switched: bool
    collapsed: tuple[int, ...]
    pareto_k: float
    prior_sensitivity: float

    @property
    def ess_needed(self) -> float:
        """The effective draws, bulk and tail, below which a run is too short."""
        return _ess_needed(len(self.log_likelihood), self.num_superchains)

    def __repr__(self) -> str:
        numbers = (
            f"{_rhat_name(self.num_superchains)} {self.rhat:.3f}, "
            f"bulk ESS {self.ess_bulk:.0f}, tail ESS {self.ess_tail:.0f}, "
            f"{self.n_divergences} divergences, E-BFMI {self.e_bfmi.min():.2f}"
            if np.isnan(self.pareto_k)
            else f"Pareto k {self.pareto_k:.2f}, ESS {self.ess_bulk:.0f}"
        )
        verdict = "ok" if self.ok else "NOT ok"
        if self.ok and not self.components_ok:
            verdict = "ok, but not component by component"
        lines = [f"Diagnosis: {verdict}", f"  {numbers}"]
        for title, entries in (
            ("problem", self.problems),
            ("advice", self.advice),
            ("note", self.notes),
        ):
            lines += [f"  {title}: {entry}" for entry in entries]
        return "\n".join(lines)


def diagnose(fit: GMMFit) -> Diagnosis:
    """Judge whether the chains of a fit agree and explored what they should.

    Parameters
    ----------
    fit : GMMFit

    Raises
    ------
    TypeError, ValueError
        If `fit` is not a GMMFit, or its draws were resampled by `stack_chains`.

    Returns
    -------
    Diagnosis
        `.ok`, `.problems`, `.advice` in words, and the numbers behind them; per-chain arrays have
        shape (num_chains,), log-likelihoods are in nats.

    Notes
    -----
    R-hat and ESS are rank-normalised [1]_. Of many short chains, such as those of `ChEES`, nested
    R-hat [2]_ compares groups that began at one point each. The label-free quantities come first:
    log-likelihood, log posterior, the weights in order of size, the mean and covariance of the
    whole mixture, the entropy of the responsibilities, and the log density at ten rows. Where draws
    match the best draw better with their components in another order, labels have switched: then
    the label-free quantities alone are judged. If they agree, `ok` is True and label-free answers
    may be believed, while `components_ok` is False; `align_labels` renumbers the components, and
    `diagnose` of its result judges their parameters. Draws of `Laplace` are judged by their
    importance weights.

    A strong prior does not make chains wrong: where one decides what the data should, that is a
    note, and `prior_sensitivity(fit)` has the rest.

    References
    ----------
    .. [1] A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Buerkner (2021). Rank-
       normalization, folding, and localization. Bayesian Analysis 16.
    .. [2] C. C. Margossian, M. D. Hoffman, P. Sountsov, L. Riou-Durand, A. Vehtari, A. Gelman
       (2024). Nested R-hat: assessing the convergence of Markov chain Monte Carlo when running many
       short chains. Bayesian Analysis.
    """
    check_fit(fit)
    if fit.stacking is not None:
        raise ValueError(
            "diagnose must have draws as they were sampled, got some resampled by stack_chains, "
            "which are chains no more; diagnose the fit that was stacked"
        )
    chains = fit.sampler.judged_by == "chains"
    numbers = {
        **(_of_chains(fit) if chains else _of_weights(fit)),
        "log_likelihood": fit.sample_stats["log_likelihood"].mean(DRAW).values,
        "n_occupied": float(fit.sample_stats["n_occupied"].median()),
        "collapsed": measures.collapsed_components(fit, THRESHOLDS["collapsed_scale"]),
    }
    found = list(_findings(fit, numbers) if chains else _findings_of_weights(numbers))
    # Of draws that are not believed there is nothing to say.
    leaning = None if found else _leaning(fit, switched=numbers["switched"])
    advice = [advice for _, advice in found] + [_ALIGN] * _can_be_aligned(fit, numbers)
    return Diagnosis(
        ok=not found,
        components_ok=not found and not numbers["switched"],
        problems=tuple(problem for problem, _ in found),
        advice=tuple(dict.fromkeys(advice)),
        notes=(*_notes(fit, numbers), *sensitivity.words(leaning, THRESHOLDS["power_scaling"])),
        prior_sensitivity=np.nan if leaning is None else leaning.highest,
        **numbers,
    )


def _leaning(fit: GMMFit, *, switched: bool) -> sensitivity.Leaning | None:
    """What follows the priors most; None where there are none."""
    if CONSTANT_DATA not in fit.datatree.children:
        return None
    return sensitivity.leaning(
        fit,
        parameters=not switched,
        threshold=THRESHOLDS["power_scaling"],
        share=THRESHOLDS["prior_share"],
    )


def record_verdict(fit: GMMFit) -> Diagnosis:
    """Diagnose, and write into the attributes of a fit what its repr says of it."""
    found = diagnose(fit)
    fit.datatree.attrs["problems"] = json.dumps(found.problems)
    fit.datatree.attrs["switched"] = json.dumps(found.switched)
    return found


def _of_chains(fit: GMMFit) -> dict[str, Any]:
    """The numbers that chains are judged by."""
    stats, groups = fit.sample_stats, measures.num_superchains(fit)
    table = measures.agreement_table(fit)
    switched = measures.labels_switched(fit)
    judged = table[table["label_free"].astype(bool)] if switched else table
    elpd, worse = _worse_chains(fit, table, groups)
    return {
        "rhat": float(judged["rhat"].max(skipna=False)),
        "ess_bulk": float(judged["ess_bulk"].min(skipna=False)),
        "ess_tail": float(judged["ess_tail"].min(skipna=False)),
        "table": table,
        "n_divergences": int(stats["diverging"].sum()),
        "n_max_tree_depth": measures.cut_trajectories(fit),
        "num_superchains": groups,
        "e_bfmi": measures.e_bfmi(stats["energy"].values, groups),
        "repeated_share": measures.repeated_share(fit.posterior[MEANS], groups),
        "elpd": elpd,
        "worse_chains": worse,
        "switched": switched,
        "pareto_k": np.nan,
    }


def _worse_chains(
    fit: GMMFit, table: "pd.DataFrame", groups: int | None
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Each chain's elpd in nats, and the chains in a worse mode.

    A chain may reach a high log-likelihood with a component that follows single rows. So those that
    predict worse are found first, and the others compared by their log-likelihood.
    """
    log_likelihood = fit.sample_stats["log_likelihood"].transpose(CHAIN, DRAW).values
    elpd = np.full(len(log_likelihood), np.nan)
    if groups:
        # Each chain has too few draws for a leave-one-out of its own.
        return elpd, measures.worse_chains(log_likelihood, THRESHOLDS["worse_chain_sd"], groups)
    by_elpd: tuple[int, ...] = ()
    # Chains that agree in what does not depend on labels predict alike.
    if table["rhat"][table["label_free"].astype(bool)].max() > THRESHOLDS["rhat"]:
        by_row = measures.chain_elpd(fit)
        by_elpd = measures.worse_by_elpd(
            by_row, fit.n_obs, THRESHOLDS["worse_chain_elpd"], THRESHOLDS["worse_chain_se"]
        )
        if by_row.size:
            elpd = by_row.mean(axis=1) * fit.n_obs
    rest = np.setdiff1d(np.arange(len(elpd)), by_elpd)
    lower = measures.worse_chains(log_likelihood[rest], THRESHOLDS["worse_chain_sd"])
    return elpd, tuple(sorted({*by_elpd, *rest[list(lower)].tolist()}))


def _of_weights(fit: GMMFit) -> dict[str, Any]:
    """The numbers that importance-weighted draws are judged by."""
    unknown = np.full(1, np.nan)
    return {
        "rhat": np.nan,
        "ess_bulk": fit.run["importance_ess"],
        "ess_tail": fit.run["importance_ess"],
        "table": measures.no_agreement(),
        "n_divergences": 0,
        "n_max_tree_depth": 0,
        "num_superchains": None,
        "e_bfmi": unknown,
        "repeated_share": unknown,
        "elpd": unknown,
        "worse_chains": (),
        "switched": fit.alignment is not None and measures.labels_switched(fit),
        "pareto_k": fit.run["pareto_k"],
    }


def _rhat_name(num_superchains: int | None) -> str:
    return "nested R-hat" if num_superchains else "R-hat"


def _ess_needed(num_chains: int, num_superchains: int | None) -> float:
    if num_superchains:
        return THRESHOLDS["ess_many_chains"]
    return THRESHOLDS["ess_per_chain"] * num_chains


_LONGER = "Run more draws (num_warmup, num_samples)."
_ALIGN = "Renumber the components with align_labels(fit), and diagnose the result."


def _findings(fit: GMMFit, n: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(problem, advice) for everything that is wrong, the worst first."""
    draws = fit.posterior.sizes[DRAW]
    if draws < THRESHOLDS["min_draws"]:
        yield f"{draws} draws a chain are too few to judge", _LONGER
        return
    yield from _disagreements(n)
    yield from _too_short(fit, n)
    yield from _bad_geometry(fit, n)


def _findings_of_weights(n: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(problem, advice) for draws of the normal approximation."""
    sample = "Sample instead: sampler=NUTS()."
    # Not ">": a NaN is no better.
    if not n["pareto_k"] <= THRESHOLDS["pareto_k"]:
        yield (
            f"Pareto k is {n['pareto_k']:.2f} (should be below {THRESHOLDS['pareto_k']}): the "
            "posterior is too far from a normal distribution for these draws",
            sample,
        )
    if not n["ess_bulk"] >= THRESHOLDS["ess_per_chain"]:
        yield (
            f"the weights are worth {n['ess_bulk']:.0f} draws (should be above "
            f"{THRESHOLDS['ess_per_chain']})",
            "Take a larger num_samples. " + sample,
        )
    yield from _collapse(n)


def _disagreements(n: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Chains, or parts of them, that are not about the same thing."""
    if not np.isfinite(n["rhat"]):
        yield (
            "R-hat cannot be computed: draws are not finite, or no chain moved",
            "Check the priors against the units of the data, and raise num_warmup.",
        )
    # A collapsed component has no bound to its likelihood; the other chains are not the worse ones.
    if n["worse_chains"] and not n["collapsed"]:
        means, elpd = (
            ", ".join(f"{value:.1f}" for value in n[name]) for name in ("log_likelihood", "elpd")
        )
        left_out = f"; of rows left out: {elpd}" * bool(np.isfinite(n["elpd"]).all())
        yield (
            f"chains {list(n['worse_chains'])} sit in a worse mode "
            f"(mean log-likelihood by chain: {means}{left_out})",
            "Start from a better solution (n_init, init) or take fewer components; to predict with "
            "these chains, weight them by stack_chains(fit).",
        )


def _too_short(fit: GMMFit, n: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Chains that have not said enough yet."""
    enough = _ess_needed(fit.posterior.sizes[CHAIN], n["num_superchains"])
    if n["rhat"] > THRESHOLDS["rhat"]:
        name = _rhat_name(n["num_superchains"])
        yield f"{name} is {n['rhat']:.3f} (should be below {THRESHOLDS['rhat']})", _LONGER
    for kind in ("bulk", "tail"):
        # Not "<": a NaN is not enough either.
        if not n[f"ess_{kind}"] >= enough:
            yield f"{kind} ESS is {n[f'ess_{kind}']:.0f} (should be above {enough})", _LONGER


def _bad_geometry(fit: GMMFit, n: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Signs that the sampler could not go everywhere."""
    total = fit.posterior.sizes[CHAIN] * fit.posterior.sizes[DRAW]
    repeated = n["repeated_share"].max()
    if n["n_divergences"]:
        yield (
            f"{n['n_divergences']} of {total} draws diverged",
            "Raise target_accept_prob, or take fewer components or a tighter prior.",
        )
    if n["n_max_tree_depth"]:
        yield (
            f"{n['n_max_tree_depth']} of {total} trajectories were cut at the maximum tree depth",
            "Raise num_warmup or max_tree_depth.",
        )
    if (n["e_bfmi"] < THRESHOLDS["e_bfmi"]).any():
        lowest = np.nanmin(n["e_bfmi"])
        yield f"E-BFMI is {lowest:.2f} (should be above {THRESHOLDS['e_bfmi']})", _LONGER
    if repeated > THRESHOLDS["repeated_share"] + fit.sampler.rejected_share:
        yield (
            f"{repeated:.0%} of a chain's draws repeat the one before",
            "Raise target_accept_prob and num_warmup.",
        )
    yield from _collapse(n)


def _collapse(n: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if n["collapsed"]:
        yield (
            f"components {list(n['collapsed'])} have shrunk onto a point, a line or a plane",
            "Look for repeated rows and for columns that depend on each other, or take fewer "
            "components.",
        )


def _can_be_aligned(fit: GMMFit, n: dict[str, Any]) -> bool:
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


def _notes(fit: GMMFit, n: dict[str, Any]) -> Iterator[str]:
    if n["switched"]:
        yield _where_labels_stand(fit)
    if not np.isnan(n["pareto_k"]):
        yield "draws of the normal approximation cannot show a mode other than the one they are at"
    elif fit.posterior.sizes[CHAIN] == 1:
        yield "one chain cannot show a mode that it missed: run several (num_chains)"
    empty = fit.n_components - n["n_occupied"]
    if empty >= 1:
        yield (
            f"{n['n_occupied']:.0f} of {fit.n_components} components are occupied; the "
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
