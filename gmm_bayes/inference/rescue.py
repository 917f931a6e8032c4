"""What has been drawn is not lost where what is made of it fails: it is written down first."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np

from gmm_bayes.files.replace import replace_file
from gmm_bayes.inference.result.gmm_fit import GMMFit
from gmm_bayes.inference.rows.standardization import Standardization
from gmm_bayes.inference.sampling.problem import Draws

__all__ = ["rescued", "rescuing_into", "save_arrays", "save_raw", "save_unjudged"]

_FOLDER: ContextVar[Path | None] = ContextVar("folder", default=None)


@contextmanager
def rescuing_into(folder: Path) -> Iterator[None]:
    """Have draws that must be rescued in the body written into a folder, rather than here."""
    token = _FOLDER.set(folder)
    try:
        yield
    finally:
        _FOLDER.reset(token)


@contextmanager
def rescued(
    what: str,
    suffix: str,
    save: Callable[[Path], str],
    failures: type[BaseException] = BaseException,
) -> Iterator[None]:
    """If the body fails, save what there is, and let the error say where.

    Parameters
    ----------
    what : str
        What failed, in words.
    suffix : str
        Of the file.
    save : callable
        Writes it to the path that it is given, and returns how to read it, in words.
    failures : type
        Of errors.
    """
    try:
        yield
    except failures as error:
        error.add_note(f"{what} failed after sampling: {_saved(suffix, save)}")
        raise


def save_raw(draws: Draws, units: Standardization, path: Path) -> str:
    """Write the arrays of a sampler as they are; return what they are, in words."""
    arrays = {
        **{f"sites.{name}": values for name, values in draws.sites.items()},
        **{f"stats.{name}": values for name, values in draws.stats.items()},
        "loc": units.loc,
        "scale": units.scale,
        "facts": np.array(json.dumps(draws.facts, default=str)),
    }
    return save_arrays(
        arrays,
        "sites.* of shape (chain, draw, ...) in standard units, of which a column of the data is "
        "loc + scale * z",
        path,
    )


def save_arrays(arrays: dict[str, np.ndarray], words: str, path: Path) -> str:
    """Write arrays to one npz file; return how to read it."""

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    replace_file(path, write)
    return f"numpy.load reads its arrays, {words}"


def save_unjudged(fit: GMMFit, path: Path) -> str:
    """Write a fit that has no verdict, and says so; return how to read it, in words."""
    tree = fit.datatree.copy()
    tree.attrs["problems"] = json.dumps(["they were not judged: the verdict failed"])
    GMMFit(tree).save(path)
    return "gmm_bayes.load reads it"


def _saved(suffix: str, save: Callable[[Path], str]) -> str:
    """Save into the first folder that takes it; return where, in words."""
    complaint = ""
    for folder in (_FOLDER.get(), Path.cwd(), Path(tempfile.gettempdir())):
        if folder is None:
            continue
        try:
            handle, name = tempfile.mkstemp(suffix, "gmm_bayes-rescued-", folder)
            os.close(handle)
        except OSError as error:
            complaint = str(error)
            continue
        path = Path(name)
        try:
            how = save(path)
        except Exception as error:
            path.unlink(missing_ok=True)
            complaint = f"{type(error).__name__}: {error}"
        else:
            return f"the draws are safe in {path}; {how}"
    return f"the draws could not be saved either ({complaint})"
