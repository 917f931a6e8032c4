"""What a command says and how it ends: plain lines, and an exit code for each kind of error."""

import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from gmm_bayes.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DeviceError,
    FileFormatError,
    GMMBayesWarning,
    InferenceError,
    LabelSwitchingError,
    MissingDependencyError,
    OutputError,
)
from gmm_bayes.jobs import processes

__all__ = [
    "DATA",
    "NOT_BELIEVED",
    "USAGE",
    "Terminated",
    "complain",
    "exit_code",
    "plain_errors",
    "say",
]

logger = logging.getLogger(__name__)

NOT_BELIEVED, USAGE, DATA = 1, 2, 3
_TERMINATED = 128 + signal.SIGTERM
_INTERRUPTED = 128 + signal.SIGINT


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn errors into a line and an exit code, and the package's warnings into lines."""
    with warnings.catch_warnings(), _termination_as_an_exception():
        warnings.simplefilter("always", GMMBayesWarning)
        warnings.showwarning = _show_warning
        try:
            yield
        except (KeyboardInterrupt, Terminated) as error:
            complain("interrupted: the run is not complete")
            _complain_notes(error)
            code = _TERMINATED if isinstance(error, Terminated) else _INTERRUPTED
            raise typer.Exit(code) from None
        except Exception as error:
            lost = processes.why_lost(error)
            known = exit_code(error) if lost is None else NOT_BELIEVED
            if known is None:
                raise
            for line in (lost or str(error)).splitlines() or [type(error).__name__]:
                complain(f"error: {line}")
            _complain_notes(error)
            raise typer.Exit(known) from None


def _complain_notes(error: BaseException) -> None:
    for note in getattr(error, "__notes__", ()):
        complain(note)


def exit_code(error: Exception) -> int | None:
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
        LabelSwitchingError: DATA,
        FileNotFoundError: DATA,
        PermissionError: DATA,
        # Of what is left, mostly a full disk.
        OSError: USAGE,
        MemoryError: USAGE,
    }
    return next((code for kind, code in codes.items() if isinstance(error, kind)), None)


class Terminated(BaseException):
    """SIGTERM came. Like KeyboardInterrupt, not an Exception, so that nothing swallows it."""


def _terminate(*_: Any) -> None:
    raise Terminated


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
    checkpoint = sys.modules.get("gmm_bayes.inference.sampling.checkpoint.disk")
    if checkpoint is not None:
        checkpoint.save_soon()


def _show_warning(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
    if not processes.first():
        return
    if issubclass(category, GMMBayesWarning):
        complain(f"warning: {message}")
        logger.info("warning: %s", message)
    else:
        logger.debug("%s: %s", category.__name__, message)


def say(text: str) -> None:
    """Write to the standard output; of several processes, only the first does."""
    if processes.first():
        typer.echo(_visible(text))


def complain(line: str) -> None:
    """Write one line to the standard error."""
    typer.echo(_visible(" ".join(line.split())), err=True)


def _visible(text: str) -> str:
    """Spell out control characters: names come from files, and must not steer a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
