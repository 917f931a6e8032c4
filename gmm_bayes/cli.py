"""The command line: gmm-bayes run | resume | sweep | check | show | predict."""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gmm_bayes import __version__
from gmm_bayes.errors import ConfigError, FileFormatError
from gmm_bayes.jobs import processes
from gmm_bayes.jobs.terminal import NOT_BELIEVED, Terminated, complain, plain_errors, say

if TYPE_CHECKING:
    import pandas as pd

    from gmm_bayes.inference.result.gmm_fit import GMMFit
    from gmm_bayes.jobs.preparation import Job

__all__ = ["app", "main"]

# Everything heavy is imported when a command runs, so that --help is quick.
app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


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
        say(f"gmm-bayes {__version__}")
        raise typer.Exit


# Options of several commands.
_Out = Annotated[
    Path | None,
    typer.Option(help="Directory for the results, instead of the file's.", readable=False),
]
_Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a setting; repeatable."),
]
_Strict = Annotated[
    bool, typer.Option("--strict", help="Exit with 1 if the chains are not to be believed.")
]
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
    out: _Out = None,
    changes: _Changes = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check job file and data, then stop.")
    ] = False,
    strict: _Strict = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace results in the directory.")
    ] = False,
    distributed: _Distributed = False,
    coordinator: _Coordinator = None,
    num_processes: _NumProcesses = None,
    process_id: _ProcessId = None,
) -> None:
    """Fit the mixture that a job file describes and write the results."""
    with plain_errors():
        _join(distributed, coordinator, num_processes, process_id)
        from gmm_bayes.jobs import report
        from gmm_bayes.jobs.job_file.config import load_config
        from gmm_bayes.jobs.preparation import prepare

        # Pictures go to files only; a display may not be there.
        os.environ["MPLBACKEND"] = "Agg"
        job = prepare(load_config(config, changes or ()), out, force=force)
        say(report.describe_job(job))
        if dry_run:
            for caution in job.cautions:
                complain(f"warning: {caution}")
            say("dry run: nothing was sampled or written")
            return
        _execute(job, strict)


@app.command()
def resume(
    directory: Annotated[Path, typer.Argument(help="Directory of the run.", readable=False)],
    strict: _Strict = False,
    distributed: _Distributed = False,
    coordinator: _Coordinator = None,
    num_processes: _NumProcesses = None,
    process_id: _ProcessId = None,
) -> None:
    """Go on with a run that was killed or interrupted, to the results it would have had."""
    with plain_errors():
        _join(distributed, coordinator, num_processes, process_id)
        from gmm_bayes.jobs import report
        from gmm_bayes.jobs.resumption import can_resume, is_complete, prepare_again

        if is_complete(directory) and not can_resume(directory):
            say(f"the run in {directory} is complete: there is nothing to go on with")
            return
        os.environ["MPLBACKEND"] = "Agg"
        job = prepare_again(directory)
        say(report.describe_job(job))
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
    say("\n" + report.describe_outcome(job, outcome))
    if strict and not outcome.diagnosis.ok:
        complain("error: the chains are not to be believed (--strict)")
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
    out: _Out = None,
    changes: _Changes = None,
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
    with plain_errors():
        from gmm_bayes.jobs.sweep.config import load_sweep
        from gmm_bayes.jobs.sweep.sweep import plan_sweep, run_plan

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
            say(f"{plan}\ndry run: nothing was sampled or written")
            return
        try:
            table = run_plan(plan)
        except (KeyboardInterrupt, Terminated):
            complain("members that are finished are kept; the same command runs the others")
            raise
        _end_sweep(table, plan.directory, strict)


def _end_sweep(table: "pd.DataFrame", directory: Path, strict: bool) -> None:
    from gmm_bayes.jobs.sweep.table import FAILED, describe_table

    say(f"{describe_table(table)}, in {directory}")
    failed = int((table["status"] == FAILED).sum())
    doubted = sum(verdict is not None and not verdict for verdict in table["ok"])
    if failed:
        complain(f"error: {failed} of {len(table)} members failed")
    elif strict and doubted:
        complain(f"error: the chains of {doubted} members are not to be believed (--strict)")
    if failed or (strict and doubted):
        raise typer.Exit(NOT_BELIEVED)


@app.command()
def check(
    directory: Annotated[Path, typer.Argument(help="Results of a run.", readable=False)],
) -> None:
    """Judge again whether the chains of a run may be believed."""
    with plain_errors():
        from gmm_bayes.inference.verdict.diagnosis import diagnose

        diagnosis = diagnose(_load(directory))
        say(repr(diagnosis))
        say("\n" + diagnosis.table.round(3).to_string())
        if not diagnosis.ok:
            raise typer.Exit(NOT_BELIEVED)


@app.command()
def show(
    directory: Annotated[Path, typer.Argument(help="Results of a run.", readable=False)],
) -> None:
    """Say how far a run is; of a complete one, its fit, components and files; a sweep's table."""
    with plain_errors():
        from gmm_bayes.jobs.resumption import describe_state, is_unfinished

        if is_unfinished(directory):
            say(describe_state(directory))
            return
        from gmm_bayes.jobs.sweep import table

        if (directory / table.MEMBERS_FILE).is_file():
            members = table.read_members(directory)
            say(table.describe_table(table.collect(directory, members, {})))
            return
        fit = _load(directory)
        say(repr(fit))
        files = sorted(p.name for p in directory.iterdir() if not p.name.startswith("."))
        say(f"\nfiles in {directory}: {', '.join(files)}")


@app.command()
def predict(
    directory: Annotated[Path, typer.Argument(help="Results of a run.", readable=False)],
    rows: Annotated[
        Path,
        typer.Argument(
            help="New rows, .csv, .npy, .npz or .parquet, with the columns of the fit in any order "
            "and maybe others; they are read as the rows of the run were.",
            readable=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="File for the answer, instead of <name of the rows>.responsibilities.csv here.",
            readable=False,
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="data.KEY=VALUE", help="Read the new rows otherwise; repeatable."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
) -> None:
    """Say to which components of a finished run new rows belong.

    The table is that of responsibilities.csv: for each row the posterior probability of each
    component, the most probable one, and the log predictive density.
    """
    with plain_errors():
        from gmm_bayes.jobs.results.new_rows import prepare_rows, write_new_rows
        from gmm_bayes.jobs.resumption import is_unfinished

        if is_unfinished(directory):
            raise FileFormatError(
                f"the run in {directory} is not complete; gmm-bayes show {directory} says how far "
                "it is"
            )
        fit = _load(directory)
        new = prepare_rows(fit, directory, rows, out, changes or (), force=force)
        if fit.problems:
            complain(f"warning: do not believe these chains yet: {'; '.join(fit.problems)}")
        number = write_new_rows(new)
        if new.left_out:
            say(f"left out: columns that the fit does not have: {', '.join(new.left_out)}")
        say(f"written to {new.target}: {number} row{'s' * (number != 1)}")


def _load(directory: Path) -> "GMMFit":
    from gmm_bayes.inference.result.gmm_fit import load
    from gmm_bayes.jobs.output import POSTERIOR_FILE

    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise FileNotFoundError(f"{directory} {what}; name the directory of a run")
    return load(directory / POSTERIOR_FILE)
