"""One job of a sweep: what its directory holds, and how it gets there, in whatever process."""

import hashlib
import json
import logging
import math
import threading
import traceback
import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gmm_bayes.errors import CheckpointError, ConfigError, ConvergenceWarning, DataWarning
from gmm_bayes.files.locks import is_locked
from gmm_bayes.files.replace import write_text
from gmm_bayes.jobs.job_file.config import load_config
from gmm_bayes.jobs.job_file.sections import JobConfig
from gmm_bayes.jobs.output import CONFIG_FILE, POSTERIOR_FILE, REPORT_FILE, remove_stale

if TYPE_CHECKING:
    from gmm_bayes.inference.result.gmm_fit import GMMFit
    from gmm_bayes.jobs.preparation import Job

__all__ = [
    "ERROR_FILE",
    "SCORES_FILE",
    "differences",
    "fingerprint",
    "finished_elsewhere",
    "key_of",
    "one_line",
    "read_report",
    "read_scores",
    "run_member",
]

logger = logging.getLogger(__name__)

SCORES_FILE = "scores.json"
ERROR_FILE = "error.txt"
# What may differ between two jobs that give the same results: data are known by their fingerprint.
_IMMATERIAL = {
    "data.path",
    "output.directory",
    "runtime.progress",
    "runtime.checkpoint",
    "runtime.checkpoint_seconds",
    "runtime.keep_checkpoint",
}
_LONGEST_ERROR = 300
# Two fits in two threads of one process would compute the same more slowly, and share pyplot.
_one_at_a_time = threading.Lock()


def fingerprint(values: np.ndarray, names: Sequence[str]) -> str:
    """SHA-256 of a table of float64 numbers (n_obs, n_features) and the names of its columns."""
    digest = hashlib.sha256(json.dumps([list(names), values.shape]).encode())
    digest.update(np.ascontiguousarray(values, "<f8").data)
    return digest.hexdigest()


def read_report(directory: Path) -> dict[str, Any] | None:
    """Return the report of a finished job; None if it is not whole, or a file it names is gone."""
    report = _read_json(directory / REPORT_FILE)
    if report is None or not isinstance(files := report.get("files"), list):
        return None
    there = all(isinstance(name, str) and (directory / name).is_file() for name in files)
    return report if there else None


def read_scores(directory: Path) -> dict[str, Any] | None:
    """Return what was computed of a finished job beside its report, None if it is not whole."""
    return _read_json(directory / SCORES_FILE)


def differences(path: Path, config: JobConfig) -> list[str]:
    """Settings of the job file at `path` that are not those of `config`."""
    try:
        there = _settings(load_config(path))
    except ConfigError as error:
        return [str(error)]
    here = _settings(config)
    return [
        f"{name} = {json.dumps(there.get(name))} there, {json.dumps(here.get(name))} here"
        for name in {**here, **there}
        if there.get(name) != here.get(name)
    ]


def key_of(config: JobConfig) -> str:
    """Equal for two jobs that give the same results from the same data."""
    return json.dumps(_settings(config), sort_keys=True)


def finished_elsewhere(directory: Path, names: Collection[str]) -> dict[str, list[Path]]:
    """Finished jobs in a sweep's directory that have another name than its members, by `key_of`.

    A list of values that is added to a sweep, or taken away, renames all its members.
    """
    found: dict[str, list[Path]] = {}
    for home in sorted(directory.iterdir()) if directory.is_dir() else ():
        if home.name in names or home.is_symlink() or is_locked(home) or not read_report(home):
            continue
        with suppress(ConfigError):
            found.setdefault(key_of(load_config(home / CONFIG_FILE)), []).append(home)
    return found


def run_member(task: Mapping[str, Any]) -> str | None:
    """Bring the results of one job into its directory, unless they are there.

    Parameters
    ----------
    task : mapping
        `directory`, an absolute path; `config`, a `JobConfig` as a dict; `data`, the fingerprint of
        its data; `loo`, whether to compute scores.

    Returns
    -------
    str or None
        What went wrong, in one line. It is also in a file, with where it was raised.
    """
    directory = Path(task["directory"])
    with _one_at_a_time, warnings.catch_warnings():
        # The table says whether to believe a member; the data were judged before the sweep began.
        for kind in (ConvergenceWarning, DataWarning):
            warnings.simplefilter("ignore", kind)
        try:
            (directory / ERROR_FILE).unlink(missing_ok=True)
            config = JobConfig.model_validate(task["config"])
            fit = _fitted(directory, config, task["data"])
            _write_scores(directory, fit, loo=task["loo"])
        except Exception as error:
            logger.info("%s failed", directory, exc_info=True)
            what = one_line(error)
            with suppress(OSError):
                directory.mkdir(parents=True, exist_ok=True)
                write_text(directory / ERROR_FILE, f"{what}\n\n{traceback.format_exc()}")
            return what
    return None


def one_line(error: Exception) -> str:
    """Return an error as one line of a table."""
    words = " ".join(str(error).split()) or type(error).__name__
    if not type(error).__module__.startswith("gmm_bayes") and not isinstance(error, OSError):
        words = f"{type(error).__name__}: {words}"
    return words if len(words) <= _LONGEST_ERROR else words[:_LONGEST_ERROR] + "..."


def _fitted(directory: Path, config: JobConfig, data: str) -> "GMMFit":
    """The fit of a job: the one that is there, or a new one."""
    from gmm_bayes.inference.result.gmm_fit import load
    from gmm_bayes.jobs.preparation import prepare
    from gmm_bayes.jobs.resumption import can_resume, job_file, prepare_again

    if read_report(directory) is not None and not differences(directory / CONFIG_FILE, config):
        fit = load(directory / POSTERIOR_FILE)
        if fingerprint(fit.X.values, fit.feature_names) == data:
            return fit
    if can_resume(directory) and not differences(job_file(directory), config):
        try:
            return _run(prepare_again(directory))
        except CheckpointError as error:
            logger.info("%s begins again: %s", directory, error)
    # What another job left there goes first: its report, last written, vouches for all of it.
    remove_stale(directory)
    (directory / SCORES_FILE).unlink(missing_ok=True)
    return _run(prepare(config, directory, force=True))


def _run(job: "Job") -> "GMMFit":
    from gmm_bayes.jobs.execution import execute

    outcome = execute(job)
    assert outcome is not None, "a member runs in one process"
    return outcome.fit


def _write_scores(directory: Path, fit: "GMMFit", *, loo: bool) -> None:
    from gmm_bayes.jobs.report import plain

    scores: dict[str, Any] = {"data_sha256": fingerprint(fit.X.values, fit.feature_names)}
    if loo:
        from gmm_bayes.checking.prediction import leave_one_out
        from gmm_bayes.inference.verdict.diagnosis import THRESHOLDS

        found = leave_one_out(fit)
        n_obs = len(found.loo)
        scores["elpd_loo"] = float(found.loo.sum())
        scores["elpd_loo_se"] = math.sqrt(n_obs * found.loo.var(ddof=1))
        scores["pareto_k_high"] = float(np.mean(found.pareto_k > THRESHOLDS["pareto_k"]))
    text = json.dumps(plain(scores), indent=2, allow_nan=False)
    write_text(directory / SCORES_FILE, text + "\n")


def _settings(config: JobConfig) -> dict[str, Any]:
    """All settings that matter, by section.key."""
    return {
        f"{section}.{key}": value
        for section, values in config.model_dump(mode="json").items()
        for key, value in values.items()
        if f"{section}.{key}" not in _IMMATERIAL
    }


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
