"""A job that was killed or interrupted: what is kept of it, how it stands, how it goes on."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from gmm_bayes.errors import FileFormatError
from gmm_bayes.files.locks import is_locked
from gmm_bayes.files.replace import write_text
from gmm_bayes.jobs.job_file.config import load_config
from gmm_bayes.jobs.journal import COMPLETE, last_report
from gmm_bayes.jobs.output import CHECKPOINT, POSTERIOR_FILE, REPORT_FILE
from gmm_bayes.jobs.preparation import Job, prepare

__all__ = [
    "begin_checkpoint",
    "can_resume",
    "chains_directory",
    "describe_state",
    "is_complete",
    "is_unfinished",
    "job_file",
    "prepare_again",
    "remove_checkpoint",
]

# In the job's checkpoint: the job file with every setting, and the chains' own.
_JOB_FILE, _CHAINS = "job.toml", "chains"


def chains_directory(directory: Path) -> Path:
    """Where the chains of a job are kept."""
    return directory / CHECKPOINT / _CHAINS


def job_file(directory: Path) -> Path:
    """Where the job file of a run that can go on is kept."""
    return directory / CHECKPOINT / _JOB_FILE


def begin_checkpoint(job: Job) -> None:
    """Make the checkpoint of a new run."""
    (job.directory / CHECKPOINT).mkdir()
    write_text(job_file(job.directory), job.resolved)


def remove_checkpoint(directory: Path) -> None:
    """Delete the checkpoint of a job, if there is one."""
    checkpoint = directory / CHECKPOINT
    if checkpoint.is_symlink():
        # What it leads to is not ours.
        checkpoint.unlink()
    elif checkpoint.is_dir():
        # First what says that there is a run.
        (checkpoint / _JOB_FILE).unlink(missing_ok=True)
        shutil.rmtree(checkpoint)


def can_resume(directory: Path) -> bool:
    """Whether there is a run in a directory that can go on."""
    return job_file(directory).is_file()


def is_complete(directory: Path) -> bool:
    """Whether a run has written all its results."""
    return (directory / POSTERIOR_FILE).is_file() and (directory / REPORT_FILE).is_file()


def prepare_again(directory: Path) -> Job:
    """Read and check again what a run was given, so that it can go on.

    Raises
    ------
    FileNotFoundError, FileFormatError
        If there is no run to go on with.
    DataError, ConfigError, DeviceError, OutputError
        As `prepare` does.
    """
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise FileNotFoundError(f"{directory} {what}; name the directory of a run")
    if not can_resume(directory):
        raise FileFormatError(
            f"there is no run to go on with in {directory}: it has no {CHECKPOINT}/{_JOB_FILE}"
        )
    job = prepare(load_config(job_file(directory)), directory, force=True)
    # As it was written, whatever the directory is called from here.
    return replace(job, resolved=job_file(directory).read_text("utf-8"), resumes=True)


def is_unfinished(directory: Path) -> bool:
    """Whether a run goes on in a directory, or has stopped there before it had results."""
    report = last_report(directory)
    if is_locked(directory) or report is None:
        return is_locked(directory) or can_resume(directory)
    return report.get("phase") != COMPLETE


def describe_state(directory: Path) -> str:
    """Return in two lines whether an unfinished run goes on or has stopped, and how far it is."""
    running = is_locked(directory)
    if running:
        state = "running"
    elif can_resume(directory):
        state = f"stopped; go on with: gmm-bayes resume {directory}"
    else:
        state = "stopped, without a checkpoint; start it again"
    report = last_report(directory)
    lines = [f"run: {state}"]
    if report is not None:
        lines.append(f"at {report.get('time')}: {_how_far(report, running)}")
    return "\n".join(lines)


def _how_far(report: dict[str, Any], running: bool) -> str:
    words = [str(report.get("phase"))]
    if "draws" in report:
        words.append(f"{report['draws']} of {report.get('of')} draws")
        words.append(f"{report.get('divergences')} divergences")
        step_size = report.get("step_size")
        if isinstance(step_size, float):
            words.append(f"step size {step_size:.3g}")
    words.append(f"{report.get('seconds')} s")
    if running and "expected_end" in report:
        words.append(f"sampling expected to end at {report['expected_end']}")
    return ", ".join(words)
