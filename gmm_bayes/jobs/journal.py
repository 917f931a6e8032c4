"""What a run says while it goes on: a log for people, and a line of JSON now and then for programs.

Neither may end a run: where a line cannot be written, it is not.
"""

import json
import logging
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

__all__ = ["COMPLETE", "LOG_FILE", "PROGRESS_FILE", "journal", "last_report"]

LOG_FILE, PROGRESS_FILE = "run.log", "progress.jsonl"
# The last phase of a run.
COMPLETE = "complete"
_TAIL = 2**16

logger = logging.getLogger(__name__)


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: the disk is full, or the directory gone."""


class Journal:
    """The progress file of a run; calling it writes a report."""

    def __init__(self, file: IO[str] | None) -> None:
        self._file = file
        self._begin = time.monotonic()
        self._phase: str | None = None

    def __call__(self, report: dict[str, Any]) -> None:
        """Write a report, with the time, and the expected end where it is known."""
        now = datetime.now(UTC)
        line = {"time": _stamp(now), **report}
        if "seconds_left" in report:
            line["expected_end"] = _stamp(now + timedelta(seconds=report["seconds_left"]))
        if self._file is not None:
            with suppress(OSError, ValueError):
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()
        if report["phase"] != self._phase:
            self._phase = report["phase"]
            logger.info("phase: %s", self._phase)

    def phase(self, name: str) -> None:
        """Write that a phase begins."""
        self({"phase": name, "seconds": round(time.monotonic() - self._begin, 3)})


@contextmanager
def journal(directory: Path, *, goes_on: bool) -> Iterator[Journal]:
    """Write the log and the progress of a run into its directory while the body runs.

    Parameters
    ----------
    directory : Path
    goes_on : bool
        Add to what there is of an earlier part of the run, rather than begin anew.
    """
    mode = "a" if goes_on else "w"
    package = logging.getLogger("gmm_bayes")
    level, handler, file = package.level, None, None
    with suppress(OSError):
        handler = _LogFile(directory / LOG_FILE, mode, encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        package.addHandler(handler)
        package.setLevel(min(package.getEffectiveLevel(), logging.INFO))
        file = (directory / PROGRESS_FILE).open(mode, encoding="utf-8")
    try:
        from gmm_bayes import __version__

        logger.info(
            "gmm_bayes %s on %s, Python %s", __version__, platform.node(), platform.python_version()
        )
        yield Journal(file)
    except BaseException as error:
        logger.info("ended by %s: %s", type(error).__name__, error)
        raise
    finally:
        if file is not None:
            with suppress(OSError):
                file.close()
        if handler is not None:
            package.removeHandler(handler)
            package.setLevel(level)
            with suppress(OSError):
                handler.close()


def last_report(directory: Path) -> dict[str, Any] | None:
    """Return the last whole line of a progress file; None if there is none."""
    try:
        with (directory / PROGRESS_FILE).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        with suppress(ValueError, RecursionError):
            report = json.loads(line)
            if isinstance(report, dict):
                return report
    return None


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
