"""The files of a checkpoint: formats without code, written whole or not at all, known by hash.

A file is made in memory, because the HDF5 library may end the process when a disk is full, and
written beside its place, flushed to the disk and renamed.
"""

import hashlib
import io
import json
import os
import re
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from gmm_bayes._vocabulary import CHAIN, DRAW
from gmm_bayes.errors import CheckpointError
from gmm_bayes.files.replace import replace_file

__all__ = [
    "MANIFEST",
    "check_file",
    "from_netcdf",
    "from_npz",
    "holds_run",
    "is_ours",
    "read_file",
    "read_manifest",
    "to_netcdf",
    "to_npz",
    "write_file",
]

MANIFEST = "manifest.json"
_LARGEST_MANIFEST = 2**26
# Of chains that began in another mode, under its number.
_RUN_FILES = (
    r"(?:(?:mode\d+-)?plan\.npz|state-(?:mode\d+-)?\d+-\d+\.npz|draws-(?:mode\d+-)?\d+-\d+\.nc"
    r"|inputs\.npz)"
)
_OURS = re.compile(rf"{_RUN_FILES}|\.(?:manifest\.json|{_RUN_FILES})\..*\.tmp")

Arrays = dict[str, np.ndarray]


def is_ours(name: str) -> bool:
    """Whether a checkpoint could have a file of that name, the manifest aside."""
    return _OURS.fullmatch(name) is not None


def holds_run(directory: Path) -> bool:
    """Whether there is a run in a directory that could go on."""
    return (directory / MANIFEST).is_file()


def write_file(path: Path, content: bytes) -> str:
    """Write a file whole or not at all, so that it survives a crash of the machine; its hash."""

    def write(part: Path) -> None:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    replace_file(path, write)
    # The new name is on the disk when the directory is; some systems cannot open one.
    with suppress(OSError):
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    return hashlib.sha256(content).hexdigest()


def read_file(path: Path, expected: str) -> bytes:
    """Return what is in a file after checking its hash.

    Raises
    ------
    CheckpointError
        If it is missing, cannot be read, or is not what was written.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != expected:
        raise CheckpointError(f"{path} is damaged: it is not what the run wrote")
    return content


def check_file(path: Path, expected: str) -> None:
    """Raise unless a file is what was written."""
    read_file(path, expected)


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint, of whatever version.

    Raises
    ------
    FileNotFoundError
        If there is none.
    CheckpointError
        If it cannot be read.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{directory} holds no run: there is no {MANIFEST} in it")
    try:
        if path.stat().st_size > _LARGEST_MANIFEST:
            raise ValueError("too large")
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("no table")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path} is damaged: it is not the manifest of a run") from None
    return content


def to_npz(arrays: Arrays) -> bytes:
    """Arrays of numbers as an npz file, in which there is no pickle."""
    assert not any(array.dtype.hasobject for array in arrays.values())
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def from_npz(content: bytes, path: Path) -> Arrays:
    """Arrays of an npz file.

    Raises
    ------
    CheckpointError
        If it is none.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, TypeError, AttributeError, OSError, EOFError, zipfile.BadZipFile):
        raise CheckpointError(f"{path} is damaged: it is not an npz file of numbers") from None


def to_netcdf(arrays: Arrays) -> bytes:
    """Draws, arrays (chain, draw, ...) of numbers or truth values, as a netCDF file."""
    import h5netcdf

    file = io.BytesIO()
    with h5netcdf.File(file, "w") as group:
        for name, values in arrays.items():
            dims = [CHAIN, DRAW, *(f"{name}_{axis}" for axis in range(2, values.ndim))]
            # Draws of the warm-up may still be waiting beside those that are kept.
            if DRAW in group.dimensions and group.dimensions[DRAW].size != values.shape[1]:
                dims[1] = f"{name}_{DRAW}"
            for dim, size in zip(dims, values.shape, strict=True):
                if dim not in group.dimensions:
                    group.dimensions[dim] = size
            # netCDF has no truth values; xarray marks them in the same way.
            truth = values.dtype == bool
            variable = group.create_variable(
                name, dims, data=values.astype(np.int8) if truth else values
            )
            if truth:
                variable.attrs["dtype"] = "bool"
    return file.getvalue()


def from_netcdf(content: bytes, path: Path) -> Arrays:
    """Draws of a netCDF file.

    Raises
    ------
    CheckpointError
        If it is none.
    """
    import h5netcdf

    try:
        with h5netcdf.File(io.BytesIO(content), "r") as group:
            return {
                name: variable[...].astype(bool)
                if variable.attrs.get("dtype") == "bool"
                else variable[...]
                for name, variable in group.variables.items()
            }
    except Exception as error:
        raise CheckpointError(
            f"{path} is damaged: it is not a netCDF file ({type(error).__name__})"
        ) from error
