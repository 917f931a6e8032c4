"""A run that was killed goes on where it was: its plan, its draws and its chains' states on disk.

A directory holds `manifest.json`, written last and replaced whole, and the files that it names,
each with its hash. What it does not name is what a killed run was about to write. Every file but
the manifest is written once: draws in one file for every save of a group of chains, so that no
more of them is held in memory than one save's.
"""

import copy
import itertools
import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.errors import CheckpointError, CheckpointWarning
from gmm_bayes.inference.sampling.checkpoint import files
from gmm_bayes.inference.sampling.checkpoint.directory import (
    FORMAT,
    FORMAT_VERSION,
    INPUTS,
    refuse_differences,
    remove_strays,
)
from gmm_bayes.inference.sampling.checkpoint.recorder import Arrays, pack_state, unpack_state
from gmm_bayes.inference.sampling.plan import Plan
from gmm_bayes.machine.versions import versions

__all__ = ["DiskRecorder", "save_soon"]

# What the bits of a draw depend on.
_PACKAGES = ("gmm_bayes", "jax", "jaxlib", "numpyro")
_PLAN = "plan.npz"
_requests = itertools.count(1)
_last_request = 0


def save_soon(*_: Any) -> None:
    """Let every run of this process that has a checkpoint save as soon as it can.

    It takes the arguments of a signal's handler: `signal.signal(signal.SIGUSR1, save_soon)`.
    """
    global _last_request
    _last_request = next(_requests)


class DiskRecorder:
    """A run in a directory: a `Recorder`.

    Parameters
    ----------
    directory : Path
        Locked by this process.
    manifest : dict
        Empty for a new run.
    seconds : float
        Between two saves of a group of chains.
    writes : bool
        Of several processes that run together, only the first does.
    """

    n_draws_before = 0

    def __init__(
        self, directory: Path, manifest: dict[str, Any], seconds: float, *, writes: bool = True
    ) -> None:
        self.directory, self.manifest, self.seconds = directory, manifest, seconds
        self.writes = writes
        self.lock = threading.Lock()
        self.opened = time.monotonic()
        self.earlier_seconds = float(manifest.get("seconds", 0.0))
        self.n_resumed = int(manifest.get("resumed", 0))
        self.warned = False
        self.prefix = ""
        self._start: MixtureParameters | None = None

    def branch(self, name: str) -> "DiskRecorder":
        """As `Recorder` says: in the same directory and manifest, under names of its own."""
        other = copy.copy(self)
        other.prefix, other._start = f"{self.prefix}{name}-", None
        return other

    @property
    def _plan_name(self) -> str:
        return f"{self.prefix}{_PLAN}"

    def create(self, inputs: Arrays, data: str, config: Mapping[str, Any], device: str) -> None:
        """Write what a new run was given.

        Raises
        ------
        CheckpointError
            If it cannot be written.
        """
        self.manifest |= {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "versions": versions(_PACKAGES),
            "device": device,
            "data": data,
            "config": dict(config),
            "fixed": {},
            "groups": {},
            "files": {},
        }
        try:
            self.write(INPUTS, files.to_npz(inputs))
            self.commit()
        except OSError as error:
            raise CheckpointError(
                f"cannot write to {self.directory}: {error.strerror or error}"
            ) from None

    def inputs(self) -> Arrays:
        """What `create` was given."""
        return self.arrays(INPUTS)

    def check(self, device: str) -> None:
        """Raise unless every file is whole, and the run can go on here with the same draws."""
        here = {**versions(_PACKAGES), "device": device}
        then = {**self.manifest["versions"], "device": self.manifest["device"]}
        refuse_differences(self.directory, then, here)
        for name, expected in self.manifest["files"].items():
            files.check_file(self.directory / name, expected)
        if self.writes:
            remove_strays(self.directory, self.manifest["files"])
        self.manifest["resumed"] = self.n_resumed = self.n_resumed + 1

    def start(self, find: Callable[[], MixtureParameters]) -> MixtureParameters:
        """As `Recorder` says."""
        if self._plan_name in self.manifest["files"]:
            arrays = self.arrays(self._plan_name)
            return MixtureParameters(*(arrays[f"start.{n}"] for n in MixtureParameters._fields))
        self._start = find()
        return self._start

    def plan(self, find: Callable[[], Plan]) -> Plan:
        """As `Recorder` says."""
        if self._plan_name in self.manifest["files"]:
            return Plan.from_arrays(self.arrays(self._plan_name))
        plan = find()
        assert self._start is not None
        start = {f"start.{name}": np.asarray(a) for name, a in self._start._asdict().items()}
        with self.lock, self.going_on():
            self.write(self._plan_name, files.to_npz({**plan.to_arrays(), **start}))
            self.commit()
        return plan

    def fixed(self, name: str, usual: int) -> int:
        """As `Recorder` says."""
        return int(self.manifest["fixed"].setdefault(f"{self.prefix}{name}", usual))

    def group(self, first: int) -> "DiskGroup":
        """As `Recorder` says."""
        return DiskGroup(self, first)

    def write(self, name: str, content: bytes) -> None:
        """Write one file; the manifest, which is not written yet, names it from now on."""
        if not self.writes:
            return
        self.manifest["files"][name] = files.write_file(self.directory / name, content)

    def commit(self) -> None:
        """Write the manifest: from now on the run is as it says."""
        if not self.writes:
            return
        self.manifest["seconds"] = self.earlier_seconds + time.monotonic() - self.opened
        content = json.dumps(self.manifest, indent=1, allow_nan=False).encode()
        files.write_file(self.directory / files.MANIFEST, content)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Warn where the disk fails, and go on: the draws are in memory."""
        before = json.dumps(self.manifest)
        try:
            yield
        except OSError as error:
            # In place: branches share it.
            self.manifest.clear()
            self.manifest.update(json.loads(before))
            if not self.warned:
                self.warned = True
                warnings.warn(
                    f"the checkpoint in {self.directory} could not be written "
                    f"({error.strerror or error}): the run goes on in memory and tries again",
                    CheckpointWarning,
                    stacklevel=2,
                )

    def arrays(self, name: str) -> Arrays:
        """Return what is in one of the npz files."""
        path = self.directory / name
        return files.from_npz(files.read_file(path, self.manifest["files"][name]), path)


class DiskGroup:
    """The chains of one group, on disk: a `GroupRecord`."""

    def __init__(self, recorder: DiskRecorder, first: int) -> None:
        self._recorder, self._name = recorder, f"{recorder.prefix}{first}"
        self._pending: dict[str, list[np.ndarray]] = {}
        self._state: Any = None
        self._divergences = self._entry["divergences"]
        self._last_save, self._request = time.monotonic(), _last_request

    @property
    def _entry(self) -> dict[str, Any]:
        empty: dict[str, Any] = {"done": 0, "divergences": 0, "state": None, "draws": []}
        return self._recorder.manifest["groups"].get(self._name, empty)

    @property
    def done(self) -> int:
        """As `GroupRecord` says."""
        return int(self._entry["done"])

    @property
    def divergences(self) -> int:
        """As `GroupRecord` says."""
        return int(self._entry["divergences"])

    def begin(self, blank: Any) -> tuple[Any, int]:
        """As `GroupRecord` says."""
        self._last_save = time.monotonic()
        state = unpack_state(self.final_state(), blank) if self.done else blank
        return state, self.done

    def add(self, made: Arrays) -> None:
        """As `GroupRecord` says."""
        for name, values in made.items():
            # A copy, because the values are a view of a whole output buffer.
            self._pending.setdefault(name, []).append(np.array(values))

    def is_due(self) -> bool:
        """As `GroupRecord` says."""
        late = time.monotonic() - self._last_save >= self._recorder.seconds
        return late or self._request != _last_request

    def save(self, state: Any, done: int, n_divergences: int) -> None:
        """As `GroupRecord` says."""
        self._state = state
        if done == self._entry["done"] or not self._recorder.writes:
            return
        self._request = _last_request
        recorder, old = self._recorder, self._entry
        with recorder.lock, recorder.going_on():
            state_name = f"state-{self._name}-{done}.npz"
            draws_name = f"draws-{self._name}-{old['done']}.nc"
            recorder.write(draws_name, files.to_netcdf(self._joined()))
            recorder.write(state_name, files.to_npz(pack_state(state)))
            recorder.manifest["groups"][self._name] = {
                "done": done,
                "divergences": self._divergences + n_divergences,
                "state": state_name,
                "draws": [*old["draws"], draws_name],
            }
            recorder.manifest["files"].pop(old["state"], None)
            recorder.commit()
            self._pending = {}
            if old["state"]:
                (recorder.directory / old["state"]).unlink(missing_ok=True)
        self._last_save = time.monotonic()

    def draws(self) -> Arrays:
        """As `GroupRecord` says."""
        parts: dict[str, list[np.ndarray]] = {}
        for name in self._entry["draws"]:
            path = self._recorder.directory / name
            content = files.read_file(path, self._recorder.manifest["files"][name])
            for key, values in files.from_netcdf(content, path).items():
                parts.setdefault(key, []).append(values)
        for key, more in self._pending.items():
            parts.setdefault(key, []).extend(more)
        return {key: np.concatenate(values, axis=1) for key, values in parts.items()}

    def final_state(self) -> Arrays:
        """As `GroupRecord` says."""
        if self._state is not None:
            return pack_state(self._state)
        return self._recorder.arrays(self._entry["state"])

    def _joined(self) -> Arrays:
        return {key: np.concatenate(values, axis=1) for key, values in self._pending.items()}
