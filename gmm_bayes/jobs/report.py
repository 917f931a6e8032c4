"""What a run came to, in words, in tables and in JSON."""

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from gmm_bayes.inference.result.components import component_text, why_no_table
from gmm_bayes.jobs.journal import LOG_FILE, PROGRESS_FILE
from gmm_bayes.jobs.output import REPORT_FILE

if TYPE_CHECKING:
    from gmm_bayes.inference.result.gmm_fit import GMMFit
    from gmm_bayes.inference.sampling.sampler import Sampler
    from gmm_bayes.inference.verdict.diagnosis import Diagnosis
    from gmm_bayes.jobs.outcome import Outcome
    from gmm_bayes.jobs.preparation import Job

__all__ = [
    "component_table",
    "describe_job",
    "describe_outcome",
    "plain",
    "to_json",
]

# A row that sits in its cluster with less probability is not sure.
_SURE = 0.95


def to_json(job: "Job", outcome: "Outcome") -> str:
    """Everything that a person or a program wants to know of a run, as JSON.

    Parameters
    ----------
    job : Job
    outcome : Outcome

    Returns
    -------
    str
        Seconds, nats; a number that is not finite is null.
    """
    fit, d = outcome.fit, outcome.diagnosis
    content = {
        "verdict": "ok" if d.ok else "not ok",
        "components_ok": d.components_ok,
        "problems": d.problems,
        "advice": d.advice,
        "notes": d.notes,
        "rhat": d.rhat,
        "num_superchains": d.num_superchains,
        "ess_bulk": d.ess_bulk,
        "ess_tail": d.ess_tail,
        "divergences": d.n_divergences,
        "max_tree_depth_hits": d.n_max_tree_depth,
        "e_bfmi": d.e_bfmi.tolist(),
        "mean_log_likelihood": d.log_likelihood.tolist(),
        "worse_chains": d.worse_chains,
        "labels_switched": d.switched,
        "alignment": fit.alignment,
        "prior_sensitivity": d.prior_sensitivity,
        "prior_decides": d.prior_decides or None,
        **({"pareto_k": d.pareto_k} if fit.sampler.judged_by == "weights" else {}),
        "n_components": fit.n_components,
        "occupied_components": d.n_occupied,
        **_of_rows(outcome),
        "data": {
            "source": job.source,
            "n_obs": fit.n_obs,
            "n_kept": len(fit.X),
            "columns": fit.feature_names,
        },
        "seconds": outcome.seconds,
        "device": fit.device,
        "device_memory_bytes": fit.run.get("device_memory"),
        "devices": fit.run.get("mesh"),
        "processes": fit.run.get("n_processes", 1),
        "precision": fit.run.get("precision"),
        "chain_method": fit.chain_method,
        "seed": job.config.runtime.seed,
        "versions": fit.versions,
        "files": [*outcome.files, REPORT_FILE, LOG_FILE, PROGRESS_FILE],
        "left_out": outcome.left_out,
    }
    return json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _of_rows(outcome: "Outcome") -> dict[str, Any]:
    """What was found out of the rows, if it was asked."""
    found = outcome.partition
    partition = None
    if found is not None:
        sure = found.probability.values >= _SURE
        partition = {
            "n_clusters": found.n_clusters,
            "sizes": found.sizes.tolist(),
            "expected_loss": found.expected_loss,
            "unsure_rows": int((~sure).sum()),
        }
    return {"partition": partition, "anomalies": outcome.anomalies}


def plain(value: Any) -> Any:
    """Numbers of Python; JSON has none that are not finite."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def describe_job(job: "Job") -> str:
    """Return what a job will do, in a few lines."""
    config, names = job.config, job.feature_names
    model, sampler = config.model, config.sampler
    some = ", ".join(names[:6]) + ", ..." * (len(names) > 6)
    facts = {
        "data": f"{job.source}: {len(job.rows)} rows, {_count(len(names), 'column')} ({some})",
        "model": f"{_count(model.n_components, 'component')}, {model.covariance_type} "
        f"covariances, {job.n_parameters} parameters, {config.priors.kind} priors",
        "sampler": f"{_draws(sampler.build())} draws, seed {config.runtime.seed}, "
        f"device {config.runtime.device}",
        "output": str(job.directory),
    }
    return "\n".join(f"{name:<8} {fact}" for name, fact in facts.items())


def _draws(sampler: "Sampler") -> str:
    """How many draws a sampler makes, and which it is unless it is NUTS."""
    draws = str(sampler.num_samples)
    if sampler.warms_up:
        number = (
            "warm-up as needed" if sampler.num_warmup is None else f"{sampler.num_warmup} warm-up"
        )
        draws = f"({number} + {draws})"
    if sampler.judged_by == "chains":
        draws = f"{_count(sampler.num_chains, 'chain')} x {draws}"
    return draws if sampler.kind == "NUTS" else f"{sampler.kind}, {draws}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def describe_outcome(job: "Job", outcome: "Outcome") -> str:
    """Return what came out, in a few lines and one table."""
    seconds = ", ".join(f"{phase} {value:.1f}" for phase, value in outcome.seconds.items())
    lines = [
        component_table(outcome.fit, switched=outcome.diagnosis.switched),
        "",
        *_verdict(outcome.diagnosis, outcome.fit.n_components),
        *_describe_rows(outcome),
        f"seconds: {seconds}",
        f"written to {job.directory}: {', '.join(outcome.files)}",
    ]
    for reason in dict.fromkeys(outcome.left_out.values()):
        names = ", ".join(name for name, why in outcome.left_out.items() if why == reason)
        lines.append(f"left out: {names}: {reason}")
    return "\n".join(lines)


def _describe_rows(outcome: "Outcome") -> Iterator[str]:
    alignment, found = outcome.fit.alignment, _of_rows(outcome)
    if alignment is not None:
        yield (
            f"labels: aligned by {alignment['method']}, {alignment['unambiguous']:.1%} of draws "
            f"unambiguous; had moved at {alignment['moved_within']:.1%} of steps and between "
            f"{alignment['moved_between']:.0%} of pairs of chains"
        )
    if (clusters := found["partition"]) is not None:
        some = ", ".join(map(str, clusters["sizes"][:10])) + ", ..." * (clusters["n_clusters"] > 10)
        yield (
            f"partition: {_count(clusters['n_clusters'], 'cluster')} of {some} rows, "
            f"{clusters['unsure_rows']} of them not sure (below {_SURE:.0%})"
        )
    if (anomalies := found["anomalies"]) is not None:
        yield (
            f"anomalies: {_count(int(anomalies['flagged']), 'row')} flagged; too low is a log "
            f"density below {anomalies['threshold']:.4g}"
        )


def _verdict(diagnosis: "Diagnosis", n_components: int) -> Iterator[str]:
    d = diagnosis
    numbers = (
        f"{'nested ' * bool(d.num_superchains)}R-hat {d.rhat:.3f}, "
        f"ESS {d.ess_bulk:.0f} (bulk) {d.ess_tail:.0f} (tail), {d.n_divergences} divergences"
        if np.isnan(d.pareto_k)
        else f"Pareto k {d.pareto_k:.2f}, ESS {d.ess_bulk:.0f}"
    )
    yield f"{numbers}, {d.n_occupied:.0f} of {n_components} components occupied"
    yield f"believe it? {d.believe}"
    for title, entries in (("problem", d.problems), ("advice", d.advice), ("note", d.notes)):
        yield from (f"  {title}: {entry}" for entry in entries)


def component_table(fit: "GMMFit", *, switched: bool) -> str:
    """Posterior means +/- posterior sds of each component, one line per column of the data.

    Parameters
    ----------
    fit : GMMFit
    switched : bool
        Whether components changed places between draws.

    Returns
    -------
    str
        Weights, means and standard deviations of the components, in the units of the data.
    """
    if why := why_no_table(fit, switched=switched):
        return f"No table of components: {why}."
    return component_text(fit.posterior)
