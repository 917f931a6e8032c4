"""The directory of a job's results: claimed by one run, its files replaced whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gmm_bayes.errors import OutputError

__all__ = [
    "CONFIG_FILE",
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
CONFIG_FILE = "config.resolved.toml"
REPORT_FILE = "report.json"
# By the function of `gmm_bayes.plots` that draws them.
PICTURES = {
    "plot_components": "components.png",
    "plot_density": "density.png",
    "plot_responsibilities": "responsibilities.png",
    "plot_diagnostics": "diagnostics.png",
}
_LOCK_FILE = ".gmm-bayes.lock"


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
    if _LOCK_FILE in files and _is_held(directory / _LOCK_FILE):
        raise OutputError(
            f"another run is writing to {directory}; if it is dead, delete {directory / _LOCK_FILE}"
        )
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


@contextmanager
def claim(directory: Path) -> Iterator[None]:
    """Make a directory and keep other runs out of it; an empty one is removed again at the end.

    Raises
    ------
    OutputError
        If it cannot be made or written to, or another run is in it.
    """
    existed, lock = directory.exists(), directory / _LOCK_FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if lock.exists() and not _is_held(lock):
            lock.unlink(missing_ok=True)
        with lock.open("x") as file:
            file.write(f"{os.getpid()}\n")
    except FileExistsError:
        raise OutputError(
            f"another run is writing to {directory}; if it is dead, delete {lock}"
        ) from None
    except OSError as error:
        raise OutputError(f"cannot write to {directory}: {error.strerror}") from None
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        if not existed and not any(directory.iterdir()):
            directory.rmdir()


def _is_held(lock: Path) -> bool:
    """Whether the process that made a lock may still be alive."""
    try:
        os.kill(int(lock.read_text()), 0)
    except (ProcessLookupError, FileNotFoundError):
        return False
    except (OSError, ValueError, OverflowError):
        return True
    return True


def remove_stale(directory: Path) -> None:
    """Delete what an earlier run wrote beside its posterior."""
    for name in (RESPONSIBILITIES_FILE, CONFIG_FILE, REPORT_FILE, *PICTURES.values()):
        (directory / name).unlink(missing_ok=True)
