"""One tree in one netCDF file: written whole or not at all, checked when read."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gmm_bayes._vocabulary import (
    CONSTANT_DATA,
    COVARIANCES,
    DATA,
    MEANS,
    OBSERVED_DATA,
    POSTERIOR,
    SAMPLE_STATS,
    SCALES,
    TOTAL_LOG_LIKELIHOOD,
    WEIGHTS,
)
from gmm_bayes.errors import FileFormatError
from gmm_bayes.files.replace import replace_file
from gmm_bayes.model.priors import Priors

__all__ = ["FORMAT", "FORMAT_VERSION", "build", "check", "groups", "open_tree", "read", "write"]

FORMAT = "gmm_bayes.GMMFit"
FORMAT_VERSION = 2
# What sample_stats had in version 1 by another name, which ArviZ misread.
_RENAMED = {"log_likelihood": TOTAL_LOG_LIKELIHOOD}
_ENGINE = "h5netcdf"
# What every result holds.
_CONTENTS = {
    POSTERIOR: {WEIGHTS, MEANS, SCALES, COVARIANCES},
    SAMPLE_STATS: {"lp", TOTAL_LOG_LIKELIHOOD, "n_occupied"},
    OBSERVED_DATA: {DATA},
    CONSTANT_DATA: {field.name for field in fields(Priors)},
}
ATTRIBUTES = {"n_components", "covariance_type", "sampler", "seed", "timings", "problems"}
# What only some results have: those that were aligned or resampled, and those of later versions.
OPTIONAL_ATTRIBUTES = {"about_k", "advice", "alignment", "prior_decides", "stacking", "switched"}


def write(
    tree: xr.DataTree, target: Path, read_back: Callable[[Path], xr.DataTree] | None = None
) -> Path:
    """Write a tree beside its target, read it back, compare and rename.

    Read back by `read`, which is for trees of a fit, or by the reader that is given.

    Raises
    ------
    OSError
        If the directory is missing, read-only or too full. What was there before is untouched.
    """
    if not target.parent.is_dir():
        what = "is not a directory" if target.parent.exists() else "does not exist"
        raise FileNotFoundError(
            f"cannot save to {target}: directory {target.parent} {what}; make it first"
        )
    if target.is_dir():
        raise IsADirectoryError(f"cannot save to {target}: it is a directory; name a file in it")
    needed = int(1.2 * tree.nbytes) + 2**20
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise OSError(
            f"cannot save to {target}: about {needed / 2**20:.0f} MiB are needed, "
            f"{free / 2**20:.0f} MiB are free"
        )

    def write_and_compare(part: Path) -> None:
        tree.to_netcdf(  # type: ignore[call-overload]
            part, engine=_ENGINE, encoding=_checksums(tree)
        )
        with part.open("rb") as file:
            os.fsync(file.fileno())
        if not _holds(part, tree, read_back or read):
            raise OSError(
                f"cannot save to {target}: the file does not read back as written; "
                "is the disk full?"
            )

    replace_file(target, write_and_compare)
    return target


def read(source: Path) -> xr.DataTree:
    """Read a tree that `write` wrote, after checking that it is one and whole.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        If there is no such file or it may not be read.
    FileFormatError
        If the file is damaged, not a result, or of another format version.
    """
    return check(open_tree(source), source)


def open_tree(source: Path) -> xr.DataTree:
    """Read whatever tree a file holds.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        If there is no such file or it may not be read.
    FileFormatError
        If the file is damaged.
    """
    if source.is_dir():
        raise IsADirectoryError(f"{source} is a directory; name the .nc file in it")
    if not source.is_file():
        raise FileNotFoundError(f"there is no file {source}")
    if not os.access(source, os.R_OK):
        raise PermissionError(f"{source} may not be read: its permissions forbid it")
    try:
        with xr.open_datatree(source, engine=_ENGINE) as stored:
            return stored.load()
    except Exception as error:
        raise FileFormatError(
            f"{source} is not a readable netCDF file: it is damaged or was not "
            f"written by GMMFit.save ({type(error).__name__})"
        ) from error


def check(tree: xr.DataTree, source: Path) -> xr.DataTree:
    """Return the tree of a fit, after checking that it is one and whole.

    Raises
    ------
    FileFormatError
        If it is not, or of another format version.
    """
    if tree.attrs.get("format") != FORMAT:
        raise FileFormatError(
            f"{source} is not a result of gmm_bayes: it has no format tag {FORMAT!r}"
        )
    if tree.attrs.get("format_version") not in (1, FORMAT_VERSION):
        raise FileFormatError(
            f"{source} has format version {tree.attrs.get('format_version')}, "
            f"this gmm_bayes reads versions 1 and {FORMAT_VERSION}; load it with the "
            "version that wrote it"
        )
    tree = _brought_up_to_date(tree)
    missing = set(_CONTENTS) - set(tree.children)
    missing |= {f"{g}/{v}" for g in _CONTENTS if g in tree for v in _CONTENTS[g] - set(tree[g])}
    missing |= {f"attribute {name}" for name in ATTRIBUTES - set(tree.attrs)}
    if missing:
        raise FileFormatError(
            f"{source} is damaged: it lacks {', '.join(sorted(missing))}; save the fit again"
        )
    return build(groups(tree), tree.attrs)


def _brought_up_to_date(tree: xr.DataTree) -> xr.DataTree:
    """The tree as this version writes it."""
    if tree.attrs["format_version"] == FORMAT_VERSION:
        return tree
    found = groups(tree)
    stats = found.get(SAMPLE_STATS, xr.Dataset())
    found[SAMPLE_STATS] = stats.rename({a: b for a, b in _RENAMED.items() if a in stats})
    return build(found, {**tree.attrs, "format_version": FORMAT_VERSION})


def build(groups: Mapping[str, xr.Dataset], attrs: Mapping[Any, Any]) -> xr.DataTree:
    """Build the one labelled tree. Attributes are strings and integers, so they survive a file."""
    tree = xr.DataTree.from_dict(dict(groups))
    tree.attrs = {
        name: int(value) if isinstance(value, (int, np.integer)) else value
        for name, value in attrs.items()
    }
    return tree


def groups(tree: xr.DataTree) -> dict[str, xr.Dataset]:
    """Return the groups of a tree by name."""
    return {str(name): node.to_dataset() for name, node in tree.children.items()}


def _checksums(tree: xr.DataTree) -> dict[str, dict[str, dict[str, bool]]]:
    """HDF5's checksums, so that a flipped bit is an error and not another posterior."""
    return {
        f"/{group}": {
            str(name): {"fletcher32": True}
            for name, variable in dataset.variables.items()
            if variable.ndim and variable.dtype.kind in "iufbM"
        }
        for group, dataset in groups(tree).items()
    }


def _holds(path: Path, tree: xr.DataTree, read_back: Callable[[Path], xr.DataTree]) -> bool:
    """Whether a file reads back as the tree."""
    try:
        return read_back(path).identical(tree)
    except FileFormatError:
        return False
