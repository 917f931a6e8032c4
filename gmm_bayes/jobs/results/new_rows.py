"""What a finished job says of new rows, which are read as its own were."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmm_bayes._validation import check_columns, check_data, check_near
from gmm_bayes.errors import ConfigError, LabelSwitchingError, OutputError
from gmm_bayes.files.replace import replace_file
from gmm_bayes.inference.verdict.measures import labels_switched
from gmm_bayes.jobs.job_file.config import build, load_config, override
from gmm_bayes.jobs.job_file.sections import DataSection, JobConfig
from gmm_bayes.jobs.output import CONFIG_FILE, POSTERIOR_FILE
from gmm_bayes.jobs.preparation import data_errors, read_rows
from gmm_bayes.jobs.results import tables
from gmm_bayes.jobs.table_files import column_names

if TYPE_CHECKING:
    import pandas as pd

    from gmm_bayes.inference.result.gmm_fit import GMMFit

__all__ = ["NewRows", "prepare_rows", "write_new_rows"]

# A smaller file is read at once, for it may have a single row.
_STAYS_IN_ITS_FILE = 2**20


@dataclass(frozen=True)
class NewRows:
    """New rows that have been checked, and where the answer goes.

    Attributes
    ----------
    fit : GMMFit
    rows : pandas.DataFrame, ndarray or RowFile
    target : Path
    left_out : tuple of str
        Columns of the file that the fit does not have.
    """

    fit: "GMMFit"
    rows: Any
    target: Path
    left_out: tuple[str, ...]


def prepare_rows(
    fit: "GMMFit",
    directory: Path,
    path: Path,
    out: Path | None = None,
    changes: Sequence[str] = (),
    *,
    force: bool = False,
) -> NewRows:
    """Read new rows and check everything that can be checked before work.

    Parameters
    ----------
    fit : GMMFit
        That of the job.
    directory : Path
        Of the job: its resolved job file says how rows are read.
    path : Path
        The new rows.
    out : Path, optional
        Where the answer goes. Default: `<stem of path>.responsibilities.csv` in the current
        directory.
    changes : sequence of str
        Changes of section [data], such as "data.delimiter=;".
    force : bool
        Replace a file that is there.

    Returns
    -------
    NewRows

    Raises
    ------
    LabelSwitchingError
        If the components of the fit changed places between draws.
    OutputError
        If the answer must not or cannot go there.
    ConfigError
        If the job file or a change is not usable.
    DataError
        If the rows cannot be read, or are not those of this fit.
    """
    target = Path(f"{path.stem}.responsibilities.csv") if out is None else out
    _check_target(target, path, force)
    _check_labels(fit, directory)
    config = _config(fit, directory, path, changes)
    with data_errors():
        names = column_names(path, config.data.delimiter, config.data.decimal, config.data.header)
        data = _choose(config.data, names, fit.feature_names)
        rows = read_rows(config.model_copy(update={"data": data}))
        for piece, at in tables.pieces(rows):
            name = f"{path} from row {at} on" if at else str(path)
            values = check_columns(check_data(piece, name=name), fit.feature_names, name=name)
            check_near(values, fit.X.values, fit.feature_names, name=name)
    taken = {data.index, *(names if data.columns is None else data.columns)}
    return NewRows(fit, rows, target, tuple(name for name in names if name not in taken))


def write_new_rows(new: NewRows) -> int:
    """Write who of the new rows belongs where, whole or not at all; return how many there are."""
    count = 0

    def frames() -> Iterator["pd.DataFrame"]:
        nonlocal count
        name = tables.index_name(new.rows)
        for frame in tables.responsibilities_frames(new.fit, new.rows, name):
            count += len(frame)
            yield frame

    replace_file(new.target, lambda part: tables.write_csv(part, frames()))
    return count


def _check_target(target: Path, path: Path, force: bool) -> None:
    if target.is_dir():
        raise OutputError(f"{target} is a directory; name a file in it with --out")
    if not target.parent.is_dir():
        raise OutputError(f"there is no directory {target.parent}; make it, or change --out")
    if target.exists():
        if path.exists() and target.samefile(path):
            raise OutputError(f"{target} holds the new rows; name another file with --out")
        if not force:
            raise OutputError(
                f"{target} exists; name another file with --out, or replace it with --force"
            )
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to {target.parent}: its permissions forbid it")


def _check_labels(fit: "GMMFit", directory: Path) -> None:
    if not labels_switched(fit):
        return
    why = "so that an average per component means nothing"
    if fit.alignment is None:
        raise LabelSwitchingError(
            f"the components in {directory} changed places between draws, {why}; run the job with "
            'labels.align = "ecr", or renumber them: gmm_bayes.align_labels(fit).save('
            f"{str(directory / POSTERIOR_FILE)!r})"
        )
    groups = "; ".join(" and ".join(map(str, group)) for group in fit.alignment["indistinct"])
    raise LabelSwitchingError(
        f"components {groups} in {directory} cannot be told apart, {why}; fit fewer components, or "
        "ask what does not depend on labels: gmm_bayes.log_predictive_density(fit, X)"
    )


def _config(fit: "GMMFit", directory: Path, path: Path, changes: Sequence[str]) -> JobConfig:
    """A job file whose data are the new rows, to be read by the rules of the job."""
    source = directory / CONFIG_FILE
    if not source.is_file():
        raise FileNotFoundError(
            f"there is no file {source}, which says how rows are read; run the job to its end"
        )
    data = load_config(source).data.of(path)
    if path.is_file() and path.stat().st_size < _STAYS_IN_ITS_FILE:
        data.pop("in_memory", None)
    raw: dict[str, Any] = {"data": data, "model": {"n_components": fit.n_components}}
    for change in changes:
        if not change.lstrip().startswith("data.") or change.lstrip().startswith("data.path"):
            raise ConfigError(
                "--set of predict must say how the new rows are read, such as "
                f"'data.delimiter=;', got {change!r}"
            )
        override(raw, change)
    return build(raw, source)


def _choose(data: DataSection, names: Sequence[str], expected: Sequence[str]) -> DataSection:
    """Take the columns of the fit by name, unless the fit or the file has no names."""
    if data.columns is not None or not names or not data.header:
        return data
    made_up = tuple(f"x{d}" for d in range(len(expected)))
    if tuple(expected) == made_up and not set(made_up) <= set(names):
        return data
    return data.model_copy(update={"columns": list(expected)})
