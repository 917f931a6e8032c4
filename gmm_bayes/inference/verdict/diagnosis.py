"""Do the chains agree? Label-free first: a property of the run, so it lives with the run."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gmm_bayes._vocabulary import CHAIN, CONSTANT_DATA, DRAW, MEANS, TOTAL_LOG_LIKELIHOOD
from gmm_bayes.inference.result.gmm_fit import GMMFit, check_fit
from gmm_bayes.inference.result.words import prior_words
from gmm_bayes.inference.verdict import measures, power_scaling
from gmm_bayes.inference.verdict.findings import (
    ALIGN,
    can_be_aligned,
    findings,
    findings_of_weights,
    notes,
    rhat_name,
)
from gmm_bayes.inference.verdict.how_many import about_k, words_about_k
from gmm_bayes.inference.verdict.looked_for import least_e_bfmi, pieces
from gmm_bayes.inference.verdict.thresholds import THRESHOLDS, ess_needed

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["THRESHOLDS", "Diagnosis", "diagnose", "record_verdict"]


@dataclass(frozen=True)
class Diagnosis:
    """Whether a run may be believed, and why not.

    Attributes
    ----------
    ok : bool
        True when the posterior may be believed: nothing was found that does not depend on how
        components are numbered.
    components_ok : bool
        True when what is said of single components may be believed too: `ok`, they kept their
        places from draw to draw, and the draws are of one mode.
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
        likelihood, there is a note. NaN where there are problems and `prior_decides` is empty, or
        no priors.
    prior_decides : str
        The site whose prior outweighs the data by far: to it something is at least twice as
        sensitive as to the likelihood. Empty if there is none. Few draws show it too.
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
    prior_decides: str = ""

    @property
    def believe(self) -> str:
        """The answer to "believe it?" in words: yes or NO, and what limits it."""
        if not self.ok:
            whole = "NO"
        elif self.components_ok:
            whole = "yes"
        else:
            whole = "yes, but not component by component"
        return whole + prior_words(self.prior_decides)

    @property
    def ess_needed(self) -> float:
        """The effective draws, bulk and tail, below which a run is too short."""
        return ess_needed(len(self.log_likelihood), self.num_superchains)

    def __repr__(self) -> str:
        # Not every sampler has an energy.
        energy = f", E-BFMI {self.e_bfmi.min():.2f}" * bool(np.isfinite(self.e_bfmi).all())
        numbers = (
            f"{rhat_name(self.num_superchains)} {self.rhat:.3f}, "
            f"bulk ESS {self.ess_bulk:.0f}, tail ESS {self.ess_tail:.0f}, "
            f"{self.n_divergences} divergences{energy}"
            if np.isnan(self.pareto_k)
            else f"Pareto k {self.pareto_k:.2f}, ESS {self.ess_bulk:.0f}"
        )
        verdict = "ok" if self.ok else "NOT ok"
        if self.ok and not self.components_ok:
            verdict = "ok, but not component by component"
        verdict += prior_words(self.prior_decides)
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

    Beside the verdict, a fit that is believed is asked about its number of components. There is a
    note where rows lie within components as those of normals do not (too few components, or groups
    of another shape), and where components can be merged without loss (too many).

    A strong prior does not make chains wrong: where one decides what the data should, that is a
    note, where it outweighs them by far, `prior_decides`, it is in the verdict's words too, and
    `prior_sensitivity(fit)` has the rest.

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
    judge, find = _JUDGES[fit.sampler.judged_by]
    numbers = {
        **judge(fit),
        "log_likelihood": fit.sample_stats[TOTAL_LOG_LIKELIHOOD].mean(DRAW).values,
        "n_occupied": float(fit.sample_stats["n_occupied"].median()),
        "collapsed": measures.collapsed_components(fit, THRESHOLDS["collapsed_scale"]),
    }
    found = list(find(fit, numbers))
    # Of draws that are not believed there is nothing to say, unless a prior outweighs the data by
    # far: few draws show that too, and more would not mend it.
    leaning = _leaning(fit, switched=numbers["switched"] or bool(pieces(fit)))
    decides = leaning.outweighs(THRESHOLDS["prior_outweighs"]) if leaning is not None else ""
    if found and not decides:
        leaning = None
    of_k = () if found else words_about_k(about_k(fit), fit.n_components)
    advice = [advice for _, advice in found] + [ALIGN] * can_be_aligned(fit, numbers)
    return Diagnosis(
        ok=not found,
        components_ok=not found and not numbers["switched"] and not pieces(fit),
        problems=tuple(problem for problem, _ in found),
        advice=tuple(dict.fromkeys(advice)),
        notes=(
            *notes(fit, numbers),
            *power_scaling.words(leaning, THRESHOLDS["power_scaling"]),
            *of_k,
        ),
        prior_sensitivity=np.nan if leaning is None else leaning.highest,
        prior_decides=decides,
        **numbers,
    )


def _leaning(fit: GMMFit, *, switched: bool) -> power_scaling.Leaning | None:
    """What follows the priors most; None where there are none, or draws that cannot show it."""
    sizes = fit.posterior.sizes
    enough = sizes[CHAIN] * sizes[DRAW] >= THRESHOLDS["prior_draws"]
    finite = all(np.isfinite(draws.values).all() for draws in fit.posterior.values())
    if CONSTANT_DATA not in fit.datatree.children or not enough or not finite:
        return None
    return power_scaling.leaning(
        fit,
        parameters=not switched,
        threshold=THRESHOLDS["power_scaling"],
        share=THRESHOLDS["prior_share"],
    )


def record_verdict(fit: GMMFit) -> Diagnosis:
    """Diagnose, and write into the attributes of a fit what its repr says of it."""
    found = diagnose(fit)
    # Aligned anew, or judged again, a fit says what was found last.
    fit.datatree.attrs["problems"] = json.dumps(found.problems)
    fit.datatree.attrs["switched"] = json.dumps(found.switched)
    fit.datatree.attrs["advice"] = json.dumps(found.advice)
    fit.datatree.attrs["prior_decides"] = json.dumps(found.prior_decides)
    fit.datatree.attrs["about_k"] = json.dumps([n for n in found.notes if n.startswith("K = ")])
    return found


def _of_chains(fit: GMMFit) -> dict[str, Any]:
    """The numbers that chains are judged by."""
    stats, groups = fit.sample_stats, fit.sampler.num_superchains
    table = measures.agreement_table(fit)
    switched = measures.labels_switched(fit)
    judged = table[table["label_free"].astype(bool)] if switched else table
    elpd, worse = _worse_chains(fit, table, groups)
    return {
        "rhat": float(judged["rhat"].max(skipna=False)),
        "ess_bulk": float(judged["ess_bulk"].min(skipna=False)),
        "ess_tail": float(judged["ess_tail"].min(skipna=False)),
        "table": table,
        "n_divergences": int(stats["diverging"].sum()) if "diverging" in stats else 0,
        "n_max_tree_depth": measures.cut_trajectories(fit),
        "num_superchains": groups,
        "e_bfmi": measures.e_bfmi(stats["energy"].values, groups)
        if "energy" in stats
        else np.full(groups or len(elpd), least_e_bfmi(fit)),
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
    log_likelihood = fit.sample_stats[TOTAL_LOG_LIKELIHOOD].transpose(CHAIN, DRAW).values
    elpd = np.full(len(log_likelihood), np.nan)
    errors = measures.errors_apart(THRESHOLDS["worse_chain_mcse"], len(elpd))
    allowed = (THRESHOLDS["worse_chain_sd"], errors)
    if groups:
        # Each chain has too few draws for a leave-one-out of its own.
        return elpd, measures.worse_chains(log_likelihood, *allowed, groups)
    by_elpd: tuple[int, ...] = ()
    # Chains that agree in what does not depend on labels predict alike.
    if table["rhat"][table["label_free"].astype(bool)].max() > THRESHOLDS["rhat"]:
        found = measures.chain_elpd(fit)
        limits = (THRESHOLDS["worse_chain_elpd"], THRESHOLDS["worse_chain_se"], errors)
        by_elpd = measures.worse_by_elpd(found, fit.n_obs, *limits)
        if found.by_row.size:
            elpd = found.by_row.mean(axis=1) * fit.n_obs
    rest = np.setdiff1d(np.arange(len(elpd)), by_elpd)
    lower = measures.worse_chains(log_likelihood[rest], *allowed)
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


# What draws are judged by, and what is found by it.
_JUDGES = {"chains": (_of_chains, findings), "weights": (_of_weights, findings_of_weights)}
