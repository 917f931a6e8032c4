"""What a job does: sample, and write what follows from the draws."""

import logging
import time
from typing import TYPE_CHECKING, Any

from gmm_bayes.errors import InferenceError, InsufficientMemoryError
from gmm_bayes.files.replace import write_text
from gmm_bayes.inference.sampling.checkpoint.files import holds_run
from gmm_bayes.jobs import processes
from gmm_bayes.jobs.journal import COMPLETE, journal
from gmm_bayes.jobs.outcome import Outcome
from gmm_bayes.jobs.output import (
    CONFIG_FILE,
    POSTERIOR_FILE,
    REPORT_FILE,
    claim,
    remove_stale,
)
from gmm_bayes.jobs.preparation import Job
from gmm_bayes.jobs.resumption import begin_checkpoint, chains_directory, remove_checkpoint
from gmm_bayes.machine.progress import listening
from gmm_bayes.model.priors import Priors

if TYPE_CHECKING:
    from gmm_bayes.inference.result.gmm_fit import GMMFit

__all__ = ["execute"]

logger = logging.getLogger(__name__)


def execute(job: Job) -> Outcome | None:
    """Sample, from where the job stopped if it resumes, and write the results.

    Of several processes, only the first writes.

    Parameters
    ----------
    job : Job

    Returns
    -------
    Outcome or None
        None in a process that does not write.

    Raises
    ------
    InferenceError
        If no chain could be started.
    OutputError, OSError
        If the results cannot be written. What was written before is whole.
    """
    from gmm_bayes.inference.rescue import rescuing_into
    from gmm_bayes.inference.verdict.diagnosis import diagnose
    from gmm_bayes.jobs import report

    if not processes.first():
        _sample(job)
        processes.part()
        return None
    with claim(job.directory), journal(job.directory, goes_on=job.resumes) as say:
        logger.info("\n%s", report.describe_job(job))
        say.phase("start")
        if not job.resumes:
            # One of an earlier run must not be taken for this one's.
            remove_checkpoint(job.directory)
            if job.config.runtime.checkpoint:
                begin_checkpoint(job)
        with listening(say), rescuing_into(job.directory):
            fit = _sample_or_give_up(job)
        processes.part()
        say.phase("results")
        begin = time.perf_counter()
        # Before anything that could fail is made of them, the draws are safe. What an earlier run
        # said of other draws must not stand beside them.
        fit.save(job.directory / POSTERIOR_FILE)
        remove_stale(job.directory)
        seconds = {"read": job.read_seconds, **fit.timings}
        outcome = Outcome(fit, diagnose(fit), seconds, [POSTERIOR_FILE])
        _write_what_follows(job, outcome)
        _write_text(job, outcome, CONFIG_FILE, job.resolved)
        seconds["results"] = time.perf_counter() - begin
        _write_text(job, outcome, REPORT_FILE, report.to_json(job, outcome))
        if not job.config.runtime.keep_checkpoint:
            remove_checkpoint(job.directory)
        logger.info("\n%s", report.describe_outcome(job, outcome))
        say.phase(COMPLETE)
    return outcome


def _write_what_follows(job: Job, outcome: Outcome) -> None:
    """Write the fit that answers by component, if one does, and what is made of it."""
    from gmm_bayes.inference.verdict.diagnosis import diagnose
    from gmm_bayes.jobs.results import following

    fit = following.aligned(job, outcome.fit, outcome.diagnosis)
    if fit is not outcome.fit:
        outcome.diagnosis = diagnose(fit)
    output = job.config.output
    if output.groups:
        from gmm_bayes.posterior.groups import with_groups

        try:
            fit = with_groups(fit, *output.groups, seed=job.config.runtime.seed)
        except InsufficientMemoryError as error:
            # All else is written all the same.
            outcome.left_out.update(dict.fromkeys(output.groups, str(error)))
    if fit is not outcome.fit:
        outcome.fit = fit
        fit.save(job.directory / POSTERIOR_FILE)
    following.write_rows(job, outcome)
    if output.partition:
        following.write_partition(job, outcome)
    if job.config.anomalies.given:
        following.write_anomalies(job, outcome)
    if output.plots:
        following.write_pictures(job, outcome)


def _sample_or_give_up(job: Job) -> "GMMFit":
    try:
        return _sample(job)
    except InferenceError:
        # It would end here again.
        remove_checkpoint(job.directory)
        raise


def _priors(job: Job) -> Priors | None:
    """The priors, None for the defaults of `fit`."""
    section, given = job.config.priors, job.config.priors.given
    if section.kind == "fixed":
        return Priors.fixed(**given)
    if not given:
        return None
    return Priors(**given).with_centers(job.some_rows, job.config.model.n_components)


def _sample(job: Job) -> "GMMFit":
    from gmm_bayes.inference import continuation, fit

    config, chains = job.config, chains_directory(job.directory)
    sampler = config.sampler.build()
    arguments: dict[str, Any] = {
        "covariance_type": config.model.covariance_type,
        "sampler": sampler,
        "init": config.init.method,
        "n_init": config.init.n_init,
        "survey": config.init.survey,
        "seed": config.runtime.seed,
        "device": config.runtime.device,
        "mesh": _mesh(job),
        "precision": config.runtime.precision,
    }
    how: dict[str, Any] = {
        "progress": config.runtime.progress,
        "checkpoint_seconds": config.runtime.checkpoint_seconds,
    }
    k = config.model.n_components
    # It may have been killed before the chains' checkpoint was made.
    if job.resumes and holds_run(chains):
        return continuation.resume(chains, job.rows, n_components=k, **arguments, **how)
    where = chains if config.runtime.checkpoint and sampler.can_resume else None
    return fit.fit(job.rows, k, priors=_priors(job), checkpoint=where, **arguments, **how)


def _mesh(job: Job) -> Any:
    """The devices over which the job is spread; of several processes, all if nothing is said."""
    from gmm_bayes.machine.devices import make_mesh

    runtime = job.config.runtime
    alone = 1 if processes.count() == 1 else None
    return make_mesh(runtime.data_parallel or alone, runtime.chain_parallel, runtime.device)


def _write_text(job: Job, outcome: Outcome, name: str, content: str) -> None:
    write_text(job.directory / name, content)
    outcome.files.append(name)
