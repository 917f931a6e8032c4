"""What follows from the draws of a job: tables by rows and pictures, or why they are left out."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmm_bayes._row_files import RowFile
from gmm_bayes.errors import LabelSwitchingError
from gmm_bayes.files.replace import replace_file
from gmm_bayes.inference.verdict.findings import can_be_aligned
from gmm_bayes.jobs.job_file.results import AnomaliesSection
from gmm_bayes.jobs.outcome import Outcome
from gmm_bayes.jobs.output import (
    ANOMALIES_FILE,
    ANOMALIES_PICTURE,
    PARTITION_FILE,
    PARTITION_PICTURE,
    PICTURES,
    RESPONSIBILITIES_FILE,
)
from gmm_bayes.jobs.preparation import Job
from gmm_bayes.jobs.results import tables

if TYPE_CHECKING:
    import pandas as pd

    from gmm_bayes.inference.result.gmm_fit import GMMFit
    from gmm_bayes.inference.verdict.diagnosis import Diagnosis

__all__ = ["aligned", "write_anomalies", "write_partition", "write_pictures", "write_rows"]


def aligned(job: Job, fit: "GMMFit", diagnosis: "Diagnosis") -> "GMMFit":
    """Renumber the components where they changed places, unless the job forbids it."""
    method = job.config.labels.align
    numbers = {"switched": diagnosis.switched, "rhat": diagnosis.rhat, "table": diagnosis.table}
    if method == "none" or not can_be_aligned(fit, numbers):
        return fit
    from gmm_bayes.posterior.labels.alignment import align_labels

    return align_labels(fit, method=method)


def _rows(job: Job) -> tuple[Any, str]:
    """Rows that are not those of the fit, and the name of their labels."""
    rows = job.rows if isinstance(job.rows, RowFile) else None
    return rows, tables.index_name(job.rows)


def _switched(outcome: Outcome) -> str:
    """Why there is no answer by component."""
    alignment = outcome.fit.alignment
    if alignment is None:
        return (
            "components changed places between draws, so that an average per component means "
            'nothing; labels.align = "ecr" renumbers them'
        )
    groups = "; ".join(" and ".join(map(str, group)) for group in alignment["indistinct"])
    return (
        f"components {groups} cannot be told apart, so that an average per component means "
        "nothing; what does not depend on labels is written"
    )


def write_rows(job: Job, outcome: Outcome) -> None:
    """Write who belongs where."""
    _write_table(
        job,
        outcome,
        RESPONSIBILITIES_FILE,
        lambda: tables.responsibilities_frames(outcome.fit, *_rows(job)),
    )


def write_partition(job: Job, outcome: Outcome) -> None:
    """Write the one partition that is closest to all draws, and draw it."""
    pictured = {PARTITION_PICTURE} if job.config.output.plots else set()
    if isinstance(job.rows, RowFile):
        why = "a partition is of rows that are in memory together"
        outcome.left_out.update(dict.fromkeys([PARTITION_FILE, *pictured], why))
        return
    from gmm_bayes.posterior.partitions.partition import partition

    found = partition(outcome.fit, seed=job.config.runtime.seed)
    outcome.partition = found
    name = tables.index_name(job.rows)
    _write_table(
        job, outcome, PARTITION_FILE, lambda: [tables.partition_frame(outcome.fit, found, name)]
    )
    if pictured:
        _draw(job, outcome, PARTITION_PICTURE, "plot_partition", partition=found)


def write_anomalies(job: Job, outcome: Outcome) -> None:
    """Write which rows the job's rules flag, and draw them."""
    rules: AnomaliesSection = job.config.anomalies
    counts = {"flagged": 0, "threshold": tables.threshold(outcome.fit, rules)}

    def frames() -> "Iterable[pd.DataFrame]":
        rows, name = _rows(job)
        for frame in tables.anomalies_frames(outcome.fit, rows, rules, counts["threshold"], name):
            counts["flagged"] += int(frame["flag"].sum())
            yield frame

    if not _write_table(job, outcome, ANOMALIES_FILE, frames):
        return
    outcome.anomalies = counts
    if job.config.output.plots:
        _draw(job, outcome, ANOMALIES_PICTURE, "plot_anomalies", **rules.given)


def write_pictures(job: Job, outcome: Outcome) -> None:
    """Draw what can be drawn."""
    for function, name in PICTURES.items():
        if function == "plot_density" and len(job.feature_names) > 2:
            outcome.left_out[name] = "a density is drawn over one or two columns"
            continue
        if function == "plot_diagnostics" and outcome.fit.sampler.judged_by != "chains":
            outcome.left_out[name] = f"draws of {outcome.fit.sampler.kind} are not chains"
            continue
        _draw(job, outcome, name, function)


def _draw(job: Job, outcome: Outcome, name: str, function: str, **options: Any) -> None:
    from gmm_bayes import plots
    from gmm_bayes.plots.axes import save_picture

    try:
        axes = getattr(plots, function)(outcome.fit, **options)
    except LabelSwitchingError:
        outcome.left_out[name] = _switched(outcome)
        return
    replace_file(job.directory / name, partial(save_picture, axes))
    outcome.files.append(name)


def _write_table(
    job: Job, outcome: Outcome, name: str, frames: "Callable[[], Iterable[pd.DataFrame]]"
) -> bool:
    """Write a table piece by piece; whether it could be made."""

    def write(part: Path) -> None:
        tables.write_csv(part, frames())

    try:
        replace_file(job.directory / name, write)
    except LabelSwitchingError:
        outcome.left_out[name] = _switched(outcome)
        return False
    outcome.files.append(name)
    return True
