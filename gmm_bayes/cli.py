"""The command line: gmm-bayes run | check | show."""

import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gmm_bayes import __version__
from gmm_bayes.errors import (
    ConfigError,
    DataError,
    DeviceError,
    FileFormatError,
    GMMBayesWarning,
    InferenceError,
    MissingDependencyError,
    OutputError,
)
from gmm_bayes.jobs import processes

if TYPE_CHECKING:
    from gmm_bayes.inference.result import GMMFit

__all__ = ["app", "main"]

logger = logging.getLogger(__name__)

# Everything heavy is imported when a command runs, so that --help is quick.
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

NOT_BELIEVED, USAGE, DATA = 1, 2, 3
_TERMINATED = 128 + signal.SIGTERM
_INTERRUPTED = 128 + signal.SIGINT


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        # A column's name must not end a run on a terminal that cannot show it.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except SystemExit as end:
        if end.code:
            # Of several processes, one that fails must not wait for the others.
            processes.leave_at_once(int(end.code))
        raise
    except Exception:
        if processes.count() > 1:
            traceback.print_exc()
            processes.leave_at_once(NOT_BELIEVED)
        raise


@app.callback(invoke_without_command=True)
def gmm_bayes(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Bayesian Gaussian mixtures from a job file.

    Exit codes: 0 fine, 1 not to be believed (check, run --strict) or not sampled, 2 wrong usage or
    job file, 3 wrong data or result file.
    """
    if version:
        _say(f"gmm-bayes {__version__}")
        raise typer.Exit


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="Job file (TOML).", readable=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="Directory for the results, instead of the job file's.", readable=False),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a setting; repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check job file and data, then stop.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if the chains are not to be believed.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace results in the directory.")
    ] = False,
    distributed: Annotated[
        bool,
        typer.Option(
            "--distributed",
            help="One of several processes of a SLURM or Open MPI job, or as below.",
        ),
    ] = False,
    coordinator: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Address of process 0.")
    ] = None,
    num_processes: Annotated[int | None, typer.Option(help="How many processes run.")] = None,
    process_id: Annotated[int | None, typer.Option(help="Which of them this is, from 0.")] = None,
) -> None:
    """Fit the mixture that a job file describes and write the results."""
    with _plain_errors():
        if distributed or (coordinator, num_processes, process_id) != (None, None, None):
            processes.join(coordinator, num_processes, process_id)
        from gmm_bayes.jobs import report
        from gmm_bayes.jobs.config import load_config
        from gmm_bayes.jobs.execution import execute
        from gmm_bayes.jobs.preparation import prepare

        # Pictures go to files only; a display may not be there.
        os.environ["MPLBACKEND"] = "Agg"
        job = prepare(load_config(config, changes or ()), out, force=force)
        _say(report.describe_job(job))
        if dry_run:
            for caution in job.cautions:
                _complain(f"warning: {caution}")
            _say("dry run: nothing was sampled or written")
            return
        outcome = execute(job)
        if outcome is None:
            return
        _say("\n" + report.describe_outcome(job, outcome))
        if strict and not outcome.diagnosis.ok:
            _complain("error: the chains are not to be believed (--strict)")
            raise typer.Exit(NOT_BELIEVED)


@app.command()
def check(
    directory: Annotated[Path, typer.Argument(help="Results of a run.", readable=False)],
) -> None:
    """Judge again whether the chains of a run may be believed."""
    with _plain_errors():
        from gmm_bayes.inference.diagnostics import diagnose

        diagnosis = diagnose(_load(directory))
        _say(repr(diagnosis))
        _say("\n" + diagnosis.table.round(3).to_string())
        if not diagnosis.ok:
            raise typer.Exit(NOT_BELIEVED)


@app.command()
def show(
    directory: Annotated[Path, typer.Argument(help="Results of a run.", readable=False)],
) -> None:
    """Summarise a run: its fit, its components and its files."""
    with _plain_errors():
        from gmm_bayes.inference.measures import labels_switched
        from gmm_bayes.jobs import report

        fit = _load(directory)
        _say(repr(fit))
        _say("\n" + report.component_table(fit, switched=labels_switched(fit)))
        files = sorted(p.name for p in directory.iterdir() if not p.name.startswith("."))
        _say(f"\nfiles in {directory}: {', '.join(files)}")


def _load(directory: Path) -> "GMMFit":
    from gmm_bayes.inference.result import load
    from gmm_bayes.jobs.output import POSTERIOR_FILE

    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise FileNotFoundError(f"{directory} {what}; name the directory of a run")
    return load(directory / POSTERIOR_FILE)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Turn errors into a line and an exit code, and the package's warnings into lines."""
    with warnings.catch_warnings(), _termination_as_an_exception():
        warnings.simplefilter("always", GMMBayesWarning)
        warnings.showwarning = _show_warning
        try:
            yield
        except (KeyboardInterrupt, _Terminated) as error:
            _complain("interrupted: the run is not complete")
            code = _TERMINATED if isinstance(error, _Terminated) else _INTERRUPTED
            raise typer.Exit(code) from None
        except Exception as error:
            lost = processes.why_lost(error)
            known = _exit_code(error) if lost is None else NOT_BELIEVED
            if known is None:
                raise
            for line in (lost or str(error)).splitlines() or [type(error).__name__]:
                _complain(f"error: {line}")
            raise typer.Exit(known) from None


def _exit_code(error: Exception) -> int | None:
    """The exit code of an error that is not a mistake in this program."""
    codes = {
        ConfigError: USAGE,
        OutputError: USAGE,
        DeviceError: USAGE,
        InferenceError: NOT_BELIEVED,
        DataError: DATA,
        MissingDependencyError: DATA,
        FileFormatError: DATA,
        FileNotFoundError: DATA,
        PermissionError: DATA,
        # Of what is left, mostly a full disk.
        OSError: USAGE,
        MemoryError: USAGE,
    }
    return next((code for kind, code in codes.items() if isinstance(error, kind)), None)


class _Terminated(BaseException):
    """SIGTERM came. Like KeyboardInterrupt, not an Exception, so that nothing swallows it."""


def _terminate(*_: Any) -> None:
    raise _Terminated


@contextmanager
def _termination_as_an_exception() -> Iterator[None]:
    """Let SIGTERM unwind as Ctrl-C does, so that no half-written file or lock stays behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show_warning(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
    if not processes.first():
        return
    if issubclass(category, GMMBayesWarning):
        _complain(f"warning: {message}")
    else:
        logger.debug("%s: %s", category.__name__, message)


def _say(text: str) -> None:
    if processes.first():
        typer.echo(_visible(text))


def _complain(line: str) -> None:
    typer.echo(_visible(" ".join(line.split())), err=True)


def _visible(text: str) -> str:
    """Spell out control characters: names come from files, and must not steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
