"""The command line: gmm-bayes run | resume | sweep | check | show."""

import json
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
    CheckpointError,
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
    import pandas as pd

    from gmm_bayes.inference.result import GMMFit
    from gmm_bayes.jobs.preparation import Job

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


_Distributed = Annotated[
    bool,
    typer.Option(
        "--distributed", help="One of several processes of a SLURM or Open MPI job, or as below."
    ),
]
_Coordinator = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="Address of process 0.")
]
_NumProcesses = Annotated[int | None, typer.Option(help="How many processes run.")]
_ProcessId = Annotated[int | None, typer.Option(help="Which of them this is, from 0.")]


def _join(distributed: bool, *which: Any) -> None:
    if distributed or which != (None, None, None):
        processes.join(*which)


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
    distributed: _Distributed = False,
    coordinator: _Coordinator = None,
    num_processes: _NumProcesses = None,
    process_id: _ProcessId = None,
) -> None:
    """Fit the mixture that a job file describes and write the results."""
    with _plain_errors():
        _join(distributed, coordinator, num_processes, process_id)
        from gmm_bayes.jobs import report
        from gmm_bayes.jobs.config import load_config
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
        _execute(job, strict)


@app.command()
def resume(
    directory: Annotated[Path, typer.Argument(help="Directory of the run.", readable=False)],
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if the chains are not to be believed.")
    ] = False,
    distributed: _Distributed = False,
    coordinator: _Coordinator = None,
    num_processes: _NumProcesses = None,
    process_id: _ProcessId = None,
) -> None:
    """Go on with a run that was killed or interrupted, to the results it would have had."""
    with _plain_errors():
        _join(distributed, coordinator, num_processes, process_id)
        from gmm_bayes.jobs import report
        from gmm_bayes.jobs.resumption import can_resume, is_complete, prepare_again

        if is_complete(directory) and not can_resume(directory):
            _say(f"the run in {directory} is complete: there is nothing to go on with")
            return
        os.environ["MPLBACKEND"] = "Agg"
        job = prepare_again(directory)
        _say(report.describe_job(job))
        _execute(job, strict)


def _execute(job: "Job", strict: bool) -> None:
    from gmm_bayes.jobs import report
    from gmm_bayes.jobs.execution import execute
    from gmm_bayes.jobs.resumption import can_resume

    try:
        outcome = execute(job)
    except BaseException as error:
        if can_resume(job.directory):
            error.add_note(f"go on with: gmm-bayes resume {job.directory}")
        raise
    if outcome is None:
        # Of several processes this is not the one that writes.
        return
    _say("\n" + report.describe_outcome(job, outcome))
    if strict and not outcome.diagnosis.ok:
        _complain("error: the chains are not to be believed (--strict)")
        raise typer.Exit(NOT_BELIEVED)


_Index = Annotated[
    int | None, typer.Option(help="Run this member only, counted from 0: for job arrays.")
]
_Executor = Annotated[
    str | None, typer.Option(metavar="NAME", help="Where members run: serial, joblib or dask.")
]
_Workers = Annotated[
    int | None, typer.Option(metavar="N", help="Processes to start on this machine.")
]
_Dask = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="A Dask scheduler, tcp://HOST:PORT, or 'local'."),
]


@app.command()
def sweep(
    config: Annotated[
        Path, typer.Argument(help="Job file with a section [sweep] (TOML).", readable=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Directory for the results, instead of the file's.", readable=False),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a setting; repeatable."),
    ] = None,
    index: _Index = None,
    executor: _Executor = None,
    workers: _Workers = None,
    dask: _Dask = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and list the members, then stop.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if some chains are not to be believed.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace results of other settings or data.")
    ] = False,
) -> None:
    """Run the product of lists of settings as so many jobs; what is finished is skipped."""
    with _plain_errors():
        from gmm_bayes.jobs.sweep import plan_sweep, run_plan
        from gmm_bayes.jobs.sweep_config import load_sweep

        # Pictures go to files only; a display may not be there. Workers inherit it.
        os.environ["MPLBACKEND"] = "Agg"
        if dask is not None and executor not in (None, "dask"):
            raise ConfigError(f"--dask does not go with --executor {executor}")
        kind = executor if dask is None else "dask"
        options = {"executor": kind, "scheduler": dask, "workers": workers}
        asked = [f"sweep.{key}={json.dumps(v)}" for key, v in options.items() if v is not None]
        described = load_sweep(config, [*(changes or ()), *asked])
        plan = plan_sweep(described, out, index=index, force=force)
        if dry_run:
            _say(f"{plan}\ndry run: nothing was sampled or written")
            return
        try:
            table = run_plan(plan)
        except (KeyboardInterrupt, _Terminated):
            _complain("members that are finished are kept; the same command runs the others")
            raise
        _end_sweep(table, plan.directory, strict)


def _end_sweep(table: "pd.DataFrame", directory: Path, strict: bool) -> None:
    from gmm_bayes.jobs.sweep_table import FAILED, describe_table

    _say(f"{describe_table(table)}, in {directory}")
    failed = int((table["status"] == FAILED).sum())
    doubted = sum(verdict is not None and not verdict for verdict in table["ok"])
    if failed:
        _complain(f"error: {failed} of {len(table)} members failed")
    elif strict and doubted:
        _complain(f"error: the chains of {doubted} members are not to be believed (--strict)")
    if failed or (strict and doubted):
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
    """Say how far a run is; of a complete one, its fit, components and files; a sweep's table."""
    with _plain_errors():
        from gmm_bayes.jobs.resumption import describe_state, is_unfinished

        if is_unfinished(directory):
            _say(describe_state(directory))
            return
        from gmm_bayes.inference.measures import labels_switched
        from gmm_bayes.jobs import report, sweep_table

        if (directory / sweep_table.MEMBERS_FILE).is_file():
            members = sweep_table.read_members(directory)
            _say(sweep_table.describe_table(sweep_table.collect(directory, members, {})))
            return
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
            _complain_notes(error)
            code = _TERMINATED if isinstance(error, _Terminated) else _INTERRUPTED
            raise typer.Exit(code) from None
        except Exception as error:
            lost = processes.why_lost(error)
            known = _exit_code(error) if lost is None else NOT_BELIEVED
            if known is None:
                raise
            for line in (lost or str(error)).splitlines() or [type(error).__name__]:
                _complain(f"error: {line}")
            _complain_notes(error)
            raise typer.Exit(known) from None


def _complain_notes(error: BaseException) -> None:
    for note in getattr(error, "__notes__", ()):
        _complain(note)


def _exit_code(error: Exception) -> int | None:
    """The exit code of an error that is not a mistake in this program."""
    codes = {
        ConfigError: USAGE,
        OutputError: USAGE,
        DeviceError: USAGE,
        InferenceError: NOT_BELIEVED,
        DataError: DATA,
        CheckpointError: DATA,
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
    handlers = {"SIGTERM": _terminate, "SIGUSR1": _save_soon}
    # Not every system has both.
    numbers = {getattr(signal, name): do for name, do in handlers.items() if hasattr(signal, name)}
    before = {number: signal.signal(number, do) for number, do in numbers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _save_soon(*_: Any) -> None:
    """SIGUSR1 came: whatever runs saves its state."""
    checkpoint = sys.modules.get("gmm_bayes.inference.checkpoint")
    if checkpoint is not None:
        checkpoint.save_soon()


def _show_warning(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
    if not processes.first():
        return
    if issubclass(category, GMMBayesWarning):
        _complain(f"warning: {message}")
        logger.info("warning: %s", message)
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
