"""The directory of a job's results: claimed by one run, its files replaced whole or not at all."""

import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from gmm_bayes.errors import OutputError
from gmm_bayes.files import claim as claims
from gmm_bayes.files.locks import LOCK_FILE, is_locked
from gmm_bayes.jobs.journal import LOG_FILE, PROGRESS_FILE

__all__ = [
    "ANOMALIES_FILE",
    "ANOMALIES_PICTURE",
    "CHECKPOINT",
    "CONFIG_FILE",
    "PARTITION_FILE",
    "PARTITION_PICTURE",
    "PICTURES",
    "POSTERIOR_FILE",
    "REPORT_FILE",
    "RESPONSIBILITIES_FILE",
    "check_directory",
    "claim",
    "remove_stale",
]

POSTERIOR_FILE = "posterior.nc"
RESPONSIBILITIES_FILE = "responsibilities.csv"
PARTITION_FILE, PARTITION_PICTURE = "partition.csv", "partition.png"
ANOMALIES_FILE, ANOMALIES_PICTURE = "anomalies.csv", "anomalies.png"
CONFIG_FILE = "config.resolved.toml"
REPORT_FILE = "report.json"
# By the function of `gmm_bayes.plots` that draws them.
PICTURES = {
    "plot_components": "components.png",
    "plot_density": "density.png",
    "plot_responsibilities": "responsibilities.png",
    "plot_diagnostics": "diagnostics.png",
}
CHECKPOINT = "checkpoint"
# What a run that came to nothing may leave; the next one replaces it.
_NO_RESULTS = {LOCK_FILE, LOG_FILE, PROGRESS_FILE}


def check_directory(directory: Path, *, force: bool, needed: int = 0) -> None:
    """Refuse a directory that results must not or cannot go to. Nothing is created.

    Parameters
    ----------
    directory : Path
        May not exist yet.
    force : bool
        Accept a directory with files in it.
    needed : int
        Bytes that must be free.

    Raises
    ------
    OutputError
    """
    try:
        there = next(p for p in (directory, *directory.absolute().parents) if p.exists())
        if not there.is_dir():
            raise OutputError(f"{there} is a file; name a directory with --out")
        files = sorted(p.name for p in directory.iterdir()) if directory.is_dir() else []
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"cannot use {directory}: {error.strerror}") from None
    if is_locked(directory):
        raise OutputError(claims.busy(directory))
    if CHECKPOINT in files and not force:
        raise OutputError(
            f"{directory} holds the checkpoint of a run; go on with: gmm-bayes resume "
            f"{directory}, or start anew with --force"
        )
    files = [name for name in files if name not in _NO_RESULTS]
    if files and not force:
        some = ", ".join(files[:3]) + ", ..." * (len(files) > 3)
        raise OutputError(
            f"{directory} is not empty ({some}); "
            "name another directory with --out, or replace results with --force"
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to {there}: its permissions forbid it")
    free = shutil.disk_usage(there).free
    if free < needed:
        raise OutputError(
            f"the results need about {needed / 2**20:,.0f} MiB, {free / 2**20:,.0f} MiB are free "
            f"in {there}"
        )


def claim(directory: Path) -> AbstractContextManager[None]:
    """Make a directory and keep other runs out of it; an empty one is removed again at the end.

    Raises
    ------
    OutputError
        If it cannot be made or written to, or another run is in it.
    """
    return claims.claim(directory, OutputError)


def remove_stale(directory: Path) -> None:
    """Delete what an earlier run wrote beside its posterior."""
    tables = (RESPONSIBILITIES_FILE, PARTITION_FILE, ANOMALIES_FILE, CONFIG_FILE, REPORT_FILE)
    for name in (*tables, PARTITION_PICTURE, ANOMALIES_PICTURE, *PICTURES.values()):
        (directory / name).unlink(missing_ok=True)
