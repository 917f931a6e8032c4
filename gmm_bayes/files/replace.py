"""A file is replaced whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["replace_file", "write_text"]


def replace_file(target: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its target and rename it, so that a reader never sees half of it.

    Parameters
    ----------
    target : Path
    write : callable
        Writes to the path that it is given. If it raises, the target stays as it was.
    """
    part = _temporary_beside(target)
    try:
        write(part)
        # A temporary file is for its owner only; a result has the permissions of any other file.
        part.chmod(0o666 & ~_umask())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    replace_file(target, lambda part: part.write_text(text, encoding="utf-8"))


def _temporary_beside(target: Path) -> Path:
    """An empty file in the same directory, so that it can be renamed onto the target."""
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    except OSError as error:
        raise type(error)(
            f"cannot save to {target}: no file can be made in {target.parent} "
            f"({error.strerror}); choose another directory"
        ) from error
    os.close(handle)
    return Path(name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
