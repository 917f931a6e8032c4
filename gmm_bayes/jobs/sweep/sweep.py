"""sweep(): many jobs from one file, in one directory, in one table."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmm_bayes._validation import check_integer, warn_data
from gmm_bayes.checking.tasks import check_executor, run_tasks
from gmm_bayes.errors import ConfigError, OutputError
from gmm_bayes.files.replace import replace_file
from gmm_bayes.jobs.output import CONFIG_FILE, check_directory
from gmm_bayes.jobs.preparation import prepare, read_data
from gmm_bayes.jobs.sweep.config import Member, Sweep, load_sweep
from gmm_bayes.jobs.sweep.executors import check_options, open_executor, processes
from gmm_bayes.jobs.sweep.members import (
    differences,
    fingerprint,
    finished_elsewhere,
    key_of,
    one_line,
    read_report,
    read_scores,
    run_member,
)
from gmm_bayes.jobs.sweep.table import MEMBERS_FILE, TABLE_FILE, collect, write_members
from gmm_bayes.machine.progress import wanted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Plan", "plan_sweep", "run_plan", "sweep"]


def sweep(
    config: str | Path,
    out: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    index: int | None = None,
    executor: Any = None,
    force: bool = False,
    progress: bool | None = None,
) -> "pd.DataFrame":
    """Run every job that the file of a sweep stands for; those that are finished are skipped.

    Parameters
    ----------
    config : path
        A job file with a section `[sweep]`: lists of values, such as
        `model.n_components = [1, 2, 3]`, whose product is run; and how.
    out : path, optional
        Directory for the results instead of the one that the file names. Each member has a
        directory of its own in it.
    overrides : sequence of str
        Changes of the file such as "sampler.num_samples=2000" or "sweep.runtime.seed=[1, 2]".
    index : int, optional
        Run this member only, counted from 0, here: for job arrays. No table is written.
    executor : str or Dask client, optional
        Where the members run: the name of a joblib backend, or a cluster whose workers see the
        same files. None does as the file says.
    force : bool
        Run members again whose directory holds the results of other settings or data.
    progress : bool, optional
        Draw a bar that counts members. None draws one on a terminal or in a notebook.

    Returns
    -------
    pandas.DataFrame, shape (n_members, n_columns)
        One row a member: its name, what was swept, `status` ("finished", "failed" or "waiting"),
        the verdict `ok` and its `problems`, `rhat`, `ess_bulk`, `ess_tail`, `divergences`, mean
        number of `occupied` components, mean `log_likelihood` (nats), `elpd_loo` with its standard
        error (nats; larger is better, among members with the same data) and the share
        `pareto_k_high` of rows for which it cannot be relied on, `seconds`, `error`. It is also in
        sweep.csv.

    Raises
    ------
    ConfigError
        If the file, an option or a combination is not usable.
    DataError
        If data cannot be read or fitted.
    OutputError
        If the results cannot be written, or a directory holds those of something else.
    MissingDependencyError
        If Dask is asked for and not there.

    Warns
    -----
    DataWarning
        Once for each thing that some data cannot teach.

    Notes
    -----
    Nothing is fitted before every member has been checked. A member that fails does not end the
    sweep. Processes start as a fresh Python that imports the calling script, so that a script needs
    `if __name__ == "__main__":` around the call.
    """
    check_executor(executor)
    plan = plan_sweep(load_sweep(config, overrides), out, index=index, force=force)
    return run_plan(plan, executor, progress=progress)


@dataclass(frozen=True)
class Plan:
    """A sweep, after every member has been checked.

    Attributes
    ----------
    sweep : Sweep
    directory : Path
    members : tuple of Member
        Those that this call is about: all, or the one of `index`.
    index : int or None
    tasks : dict
        What `run_member` is given, by name, for those that are not finished.
    moves : dict
        Where those are, by name, that were finished under another name.
    """

    sweep: Sweep
    directory: Path
    members: tuple[Member, ...]
    index: int | None
    tasks: dict[str, dict[str, Any]]
    moves: dict[str, Path]

    def __str__(self) -> str:
        """Return the members with their numbers, one to a line."""
        places = {member.name: i for i, member in enumerate(self.sweep.members)}
        width = len(str(len(places)))
        return "\n".join(
            f"{places[m.name]:>{width}}  {m.name}{'' if m.name in self.tasks else '  (finished)'}"
            for m in self.members
        )


def plan_sweep(
    sweep: Sweep, out: str | Path | None = None, *, index: int | None = None, force: bool = False
) -> Plan:
    """Check every member before any is fitted, and find those that are finished.

    Parameters
    ----------
    sweep : Sweep
    out : path, optional
    index : int, optional
    force : bool
        These three as in `sweep`.

    Returns
    -------
    Plan

    Raises
    ------
    ConfigError, DataError, DeviceError, MissingDependencyError, OutputError
    """
    members = sweep.members
    if index is not None:
        if check_integer(index, "index", 0) >= len(members):
            raise ConfigError(
                f"index must be below the number of members, {len(members)}, got {index}"
            )
        members = (members[index],)
    check_options(sweep.options)
    # Workers may have another current directory.
    directory = Path(sweep.directory if out is None else out).absolute()
    check_directory(directory, force=force or (directory / MEMBERS_FILE).is_file())
    cautions: dict[str, str] = {}
    tasks: dict[str, dict[str, Any]] = {}
    moves: dict[str, Path] = {}
    others = finished_elsewhere(directory, {member.name for member in sweep.members})
    for group in _with_equal_data(members):
        data = read_data(group[0].config)
        sha = fingerprint(data[1].values, data[1].feature_names)
        for member in group:
            home = directory / member.name
            if not home.exists():
                home = _under_another_name(member, others, sha, loo=sweep.options.loo) or home
                if home.name != member.name:
                    moves[member.name] = home
                    continue
            if _is_done(member, home, sha, loo=sweep.options.loo, force=force):
                continue
            job = prepare(member.config, home, force=True, data=data)
            cautions |= {c: member.name for c in job.cautions if c not in cautions}
            tasks[member.name] = {
                "directory": str(home),
                "config": member.config.model_dump(exclude_none=True),
                "data": sha,
                "loo": sweep.options.loo,
            }
    for caution, name in cautions.items():
        warn_data(f"{name}: {caution}")
    in_order = {m.name: tasks[m.name] for m in members if m.name in tasks}
    return Plan(sweep, directory, members, index, in_order, moves)


def run_plan(plan: Plan, executor: Any = None, *, progress: bool | None = None) -> "pd.DataFrame":
    """Run the members that are not finished, and put the table together.

    Parameters
    ----------
    plan : Plan
    executor : str or Dask client, optional
    progress : bool, optional
        As in `sweep`.

    Returns
    -------
    pandas.DataFrame, shape (n_members, n_columns)
    """
    options, directory = plan.sweep.options, plan.directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {directory}: {error.strerror}") from None
    for name, home in plan.moves.items():
        home.rename(directory / name)
    write_members(directory, {m.name: m.settings for m in plan.sweep.members})
    errors: dict[str, str] = {}
    if plan.tasks:
        given = executor is not None or plan.index is not None
        with nullcontext(executor) if given else open_executor(options) as where:
            said = run_tasks(
                [partial(run_member, task) for task in plan.tasks.values()],
                where,
                shown=wanted(progress),
                unit="member",
                workers=processes(options),
                lost=_lost,
            )
        errors = {name: what for name, what in zip(plan.tasks, said, strict=True) if what}
    table = collect(directory, {m.name: m.settings for m in plan.members}, errors)
    if plan.index is None:
        replace_file(directory / TABLE_FILE, partial(table.to_csv, index=False))
    return table


def _lost(error: Exception) -> str:
    return f"the process that ran it died: {one_line(error)}"


def _with_equal_data(members: Sequence[Member]) -> list[list[Member]]:
    """Members in groups, so that each table is read once and only one is held."""
    groups: dict[str, list[Member]] = {}
    for member in members:
        groups.setdefault(member.config.data.model_dump_json(), []).append(member)
    return list(groups.values())


def _under_another_name(
    member: Member, others: dict[str, list[Path]], data: str, *, loo: bool
) -> Path | None:
    """The directory of a job with the settings and the data of a member, which takes it."""
    there = others.get(key_of(member.config), [])
    for home in there:
        scores = read_scores(home) or {}
        if scores.get("data_sha256") == data and ("elpd_loo" in scores or not loo):
            there.remove(home)
            return home
    return None


def _is_done(member: Member, directory: Path, data: str, *, loo: bool, force: bool) -> bool:
    """Whether a directory holds a member; complain if it holds something else."""
    if read_report(directory) is None:
        return False
    scores = read_scores(directory) or {}
    other = differences(directory / CONFIG_FILE, member.config)
    if not other and scores.get("data_sha256", data) != data:
        other = ["its data have changed since"]
    if not other:
        return "data_sha256" in scores and ("elpd_loo" in scores or not loo)
    if not force:
        raise OutputError(
            f"{directory} holds other results: {'; '.join(other[:3])}{'; ...' * (len(other) > 3)}. "
            "Name another directory with --out, or replace results with --force"
        )
    return False
