"""The table of a sweep, put together from what its members wrote, whoever ran them."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gmm_bayes.errors import FileFormatError
from gmm_bayes.files.replace import write_text
from gmm_bayes.jobs.sweep.config import short_names
from gmm_bayes.jobs.sweep.members import ERROR_FILE, read_report, read_scores

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "FAILED",
    "FINISHED",
    "MEMBERS_FILE",
    "TABLE_FILE",
    "collect",
    "describe_table",
    "read_members",
    "write_members",
]

MEMBERS_FILE = "sweep.json"
TABLE_FILE = "sweep.csv"
FINISHED, FAILED, WAITING = "finished", "failed", "waiting"

_FORMAT, _FORMAT_VERSION = "gmm_bayes.sweep", 1
_FROM_REPORT = {
    "rhat": "rhat",
    "ess_bulk": "ess_bulk",
    "ess_tail": "ess_tail",
    "divergences": "divergences",
    "occupied": "occupied_components",
}
_FROM_SCORES = ("elpd_loo", "elpd_loo_se", "pareto_k_high")
# Shown with so many digits behind the point.
_DIGITS = {
    "rhat": 3,
    "ess_bulk": 0,
    "ess_tail": 0,
    "divergences": 0,
    "occupied": 1,
    "log_likelihood": 1,
    "elpd_loo": 1,
    "elpd_loo_se": 1,
    "pareto_k_high": 3,
    "seconds": 1,
}


def collect(
    directory: Path, members: Mapping[str, Mapping[str, Any]], errors: Mapping[str, str]
) -> "pd.DataFrame":
    """Read the results of all members.

    Parameters
    ----------
    directory : Path
        Of the sweep.
    members : mapping
        The settings of every member, by its name.
    errors : mapping
        What went wrong with a member, by its name, where that is known.

    Returns
    -------
    pandas.DataFrame, shape (n_members, n_columns)
        In the order of `members`; see `gmm_bayes.sweep`.
    """
    import pandas as pd

    rows = [
        _row(name, settings, directory / name, errors.get(name))
        for name, settings in members.items()
    ]
    return pd.DataFrame(rows)


def _row(
    name: str, settings: Mapping[str, Any], directory: Path, error: str | None
) -> dict[str, Any]:
    report, scores = read_report(directory), read_scores(directory) or {}
    finished = report is not None
    known: Mapping[str, Any] = report or {}
    # Of a member that is finished, only the scores can have failed, or word of the end is missing.
    error = _first_line(directory / ERROR_FILE) or (None if finished and scores else error)
    likelihoods = [x for x in _list(known.get("mean_log_likelihood")) if _is_number(x)]
    seconds = known.get("seconds")
    times = [x for x in seconds.values() if _is_number(x)] if isinstance(seconds, dict) else []
    short = short_names(list(settings))
    return {
        "member": name,
        **{short[key]: _cell(value) for key, value in settings.items()},
        "status": FINISHED if finished and not error else FAILED if error else WAITING,
        "ok": known.get("verdict") == "ok" if finished else None,
        "problems": "; ".join(map(str, _list(known.get("problems")))),
        **{column: _number(known.get(key)) for column, key in _FROM_REPORT.items()},
        "log_likelihood": float(np.mean(likelihoods)) if likelihoods else math.nan,
        **{column: _number(scores.get(column)) for column in _FROM_SCORES},
        "seconds": float(sum(times)) if finished else math.nan,
        "error": error or "",
    }


def describe_table(table: "pd.DataFrame") -> str:
    """Return the table as lines of text, and what is wrong with members below it."""
    shown = table.drop(columns=["member", "problems", "error"])
    for column, digits in _DIGITS.items():
        shown[column] = [_rounded(value, digits) for value in shown[column]]
    shown["ok"] = ["" if v is None else "yes" if v else "NO" for v in shown["ok"]]
    if (shown["elpd_loo"] == "").all():
        shown = shown.drop(columns=list(_FROM_SCORES))
    lines = [shown.to_string(index=False)]
    for title, column in (("failed", "error"), ("problem", "problems")):
        said = table[table[column] != ""]
        lines += [
            f"{title}: {name}: {what}"
            for name, what in zip(said["member"], said[column], strict=True)
        ]
    done = int((table["status"] == FINISHED).sum())
    return "\n".join([*lines, f"{done} of {len(table)} members are finished"])


def write_members(directory: Path, members: Mapping[str, Mapping[str, Any]]) -> None:
    """Write down which members a sweep has, so that its directory can be read without its file."""
    listed = [{"name": name, "settings": settings} for name, settings in members.items()]
    content = {"format": _FORMAT, "format_version": _FORMAT_VERSION, "members": listed}
    text = json.dumps(content, indent=2, ensure_ascii=False, default=str)
    write_text(directory / MEMBERS_FILE, text + "\n")


def read_members(directory: Path) -> dict[str, dict[str, Any]]:
    """Read what `write_members` wrote.

    Raises
    ------
    FileFormatError
        If the file is damaged, or not of a sweep.
    """
    path = directory / MEMBERS_FILE
    try:
        content = json.loads(path.read_bytes())
        if (content["format"], content["format_version"]) != (_FORMAT, _FORMAT_VERSION):
            raise ValueError("another format")
        members = {str(m["name"]): dict(m["settings"]) for m in content["members"]}
        # A name must not lead out of the directory.
        if not members or not all(re.fullmatch(r"[\w.+=-]*=[\w.+=-]*", name) for name in members):
            raise ValueError("not the names of members")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FileFormatError(
            f"{path} is damaged, or not of a sweep; the sweep writes it again"
        ) from None
    return members


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").partition("\n")[0] or None
    except OSError:
        return None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(value: Any) -> float:
    return float(value) if _is_number(value) else math.nan


def _cell(value: Any) -> Any:
    """A swept value as it stands in a cell."""
    return value if isinstance(value, (str, int, float)) else json.dumps(value, default=str)


def _rounded(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"
