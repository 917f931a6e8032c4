"""A directory that one run has to itself."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from gmm_bayes.files.locks import locked

__all__ = ["busy", "claim"]


def busy(directory: Path, instead: str = "another") -> str:
    """What to say of a directory that another run is in."""
    return f"another run is writing to {directory}; wait for it, or name {instead}"


@contextmanager
def claim(directory: Path, error: type[Exception], instead: str = "another") -> Iterator[None]:
    """Make a directory and keep other runs out of it; one made in vain is removed at the end.

    Parameters
    ----------
    directory : Path
    error : type
        Of the exception, if it cannot be made or written to, or another run is in it.
    instead : str
        What else could be named, for the message.
    """
    existed = directory.exists()
    with ExitStack() as stack:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if not existed:
                # At the very end, and only if nothing is in it: the run was refused.
                stack.push(lambda *_: _remove_if_empty(directory))
            stack.enter_context(locked(directory))
        except BlockingIOError:
            raise error(busy(directory, instead)) from None
        except OSError as problem:
            raise error(f"cannot write to {directory}: {problem.strerror}") from None
        yield


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()
