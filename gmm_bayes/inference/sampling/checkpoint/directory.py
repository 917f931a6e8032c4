"""The directory of a checkpoint: whether a run may begin or go on in it."""

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from gmm_bayes._validation import check_positive
from gmm_bayes.errors import CheckpointError
from gmm_bayes.files.claim import claim
from gmm_bayes.files.locks import LOCK_FILE
from gmm_bayes.inference.sampling.checkpoint import files

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "INPUTS",
    "check_options",
    "claim_empty",
    "refuse_differences",
    "refuse_lack_of_room",
    "remove_strays",
    "reopen",
]

FORMAT, FORMAT_VERSION = "gmm_bayes.checkpoint", 1
INPUTS = "inputs.npz"
_INSTEAD = "another directory"


def check_options(checkpoint: Any, seconds: Any) -> Path:
    """Return the path of a checkpoint, after checking that it is a path, and the seconds."""
    check_positive(seconds, "checkpoint_seconds", {(): "one number of seconds"})
    if not isinstance(checkpoint, str | os.PathLike):
        raise TypeError(f"checkpoint must be a path, got {type(checkpoint).__name__}")
    return Path(checkpoint)


@contextmanager
def claim_empty(directory: Path) -> Iterator[None]:
    """Make a directory for a new run, and keep other runs out of it.

    Raises
    ------
    CheckpointError
        If there is a run in it, or something else, or it cannot be written to.
    """
    with claim(directory, CheckpointError, _INSTEAD):
        if (directory / files.MANIFEST).exists():
            raise CheckpointError(
                f"{directory} holds a run already: go on with it by gmm_bayes.resume"
                f"({str(directory)!r}), or name another directory"
            )
        foreign = [p.name for p in directory.iterdir() if not _may_go(p.name)]
        if foreign:
            some = ", ".join(sorted(foreign)[:3])
            raise CheckpointError(
                f"{directory} is not empty ({some}); name another directory for the checkpoint"
            )
        remove_strays(directory, named=())
        yield


@contextmanager
def reopen(directory: Path, *, keeps_others_out: bool = True) -> Iterator[dict[str, Any]]:
    """Yield the manifest of the run in a directory, and keep other runs out of it if told to.

    Raises
    ------
    FileNotFoundError
        If there is no run in it.
    CheckpointError
        If it is damaged, of another version of the format, or in use.
    """
    if not directory.is_dir():
        what = "is not a directory" if directory.exists() else "does not exist"
        raise FileNotFoundError(f"{directory} {what}; name the checkpoint of a run")
    # Before the lock's file is made in it.
    files.read_manifest(directory)
    with claim(directory, CheckpointError, _INSTEAD) if keeps_others_out else nullcontext():
        manifest = files.read_manifest(directory)
        _check_manifest(manifest, directory)
        yield manifest


def _may_go(name: str) -> bool:
    return name == LOCK_FILE or files.is_ours(name)


def remove_strays(directory: Path, named: Collection[str]) -> None:
    """Remove what a killed run was about to write."""
    for path in directory.iterdir():
        if path.name not in named and files.is_ours(path.name):
            path.unlink()


def _check_manifest(manifest: Mapping[str, Any], directory: Path) -> None:
    """Refuse what is not a manifest of this version, whole and naming files of ours alone."""
    path = directory / files.MANIFEST
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not the manifest of a run: it has no format tag {FORMAT}")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {manifest.get('format_version')}, this gmm_bayes reads "
            f"version {FORMAT_VERSION}; go on with the version that wrote it"
        )
    try:
        named = manifest["files"]
        used = [group["state"] for group in manifest["groups"].values()]
        used += [name for group in manifest["groups"].values() for name in group["draws"]]
        sound = (
            all(files.is_ours(name) and not name.startswith(".") for name in named)
            and all(name in named for name in (INPUTS, *used))
            and all(isinstance(value, str) for value in named.values())
            and {"config", "data", "versions", "device", "fixed"} <= manifest.keys()
        )
    except (KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise CheckpointError(f"{path} is damaged: it is not the manifest of a run")


def refuse_differences(directory: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise if anything in `now` is not as it was `then`."""
    different = [name for name, value in now.items() if then.get(name) != value]
    if different:
        words = "; ".join(
            f"{name} was {_short(then.get(name))}, now {_short(now[name])}" for name in different
        )
        raise CheckpointError(f"the run in {directory} is not the one to go on with: {words}")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def refuse_lack_of_room(directory: Path, needed: int) -> None:
    """Raise if a disk has not so many bytes left."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise CheckpointError(
            f"the checkpoint needs about {needed / 2**20:,.0f} MiB, {free / 2**20:,.0f} MiB are "
            f"free in {directory}"
        )
