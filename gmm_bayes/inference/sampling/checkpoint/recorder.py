"""What a run keeps while it goes on: the plan, the draws so far, and the state to go on from.

A sampler asks for its plan and hands over its draws; where these live, in memory or on disk
(`disk`), and whether the run began here or goes on, is none of its business.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import numpy as np

from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.errors import CheckpointError
from gmm_bayes.inference.sampling.plan import Plan

__all__ = ["GroupRecord", "MemoryGroup", "MemoryRecorder", "Recorder", "pack_state", "unpack_state"]

Arrays = dict[str, np.ndarray]


class GroupRecord(Protocol):
    """What is kept of the chains of one group."""

    @property
    def done(self) -> int:
        """Draws that each chain has made, warm-up included."""
        ...

    @property
    def divergences(self) -> int:
        """Divergences among those of them that are kept."""
        ...

    def begin(self, blank: Any) -> tuple[Any, int]:
        """Return the state to go on from and the draws made, or `blank` and 0."""
        ...

    def add(self, made: Arrays) -> None:
        """Keep draws, arrays (chain, draw, ...)."""
        ...

    def is_due(self) -> bool:
        """Whether it is time to save, or somebody has asked for it."""
        ...

    def save(self, state: Any, done: int, n_divergences: int) -> None:
        """Make safe the state, of host arrays, after `done` draws, and the draws so far."""
        ...

    def draws(self) -> Arrays:
        """All draws that were added, earlier ones included, joined along the axis of draws."""
        ...

    def final_state(self) -> Arrays:
        """The state that was saved last, as arrays by name."""
        ...


class Recorder(Protocol):
    """What is kept of a run."""

    n_draws_before: int
    earlier_seconds: float
    n_resumed: int

    def start(self, find: Callable[[], MixtureParameters]) -> MixtureParameters:
        """The mixture from which to start: the one that is kept, or what `find` finds."""
        ...

    def plan(self, find: Callable[[], Plan]) -> Plan:
        """The plan that is kept, or what `find` finds, which is kept from now on."""
        ...

    def fixed(self, name: str, usual: int) -> int:
        """A number on which the last digits of draws depend: the one that is kept, or `usual`."""
        ...

    def group(self, first: int) -> GroupRecord:
        """What is kept of the group whose first chain is that one."""
        ...

    def branch(self, name: str) -> "Recorder":
        """What is kept of other chains of the same run, with a start and a plan of their own."""
        ...


class MemoryGroup:
    """The chains of one group, in memory: a `GroupRecord`."""

    divergences = 0

    def __init__(self, state: Arrays | None = None, done: int = 0) -> None:
        self._arrays, self.done = state, done
        self._state: Any = None
        self._blocks: dict[str, list[np.ndarray]] = {}

    def begin(self, blank: Any) -> tuple[Any, int]:
        """As `GroupRecord` says."""
        return (blank if self._arrays is None else unpack_state(self._arrays, blank)), self.done

    def add(self, made: Arrays) -> None:
        """As `GroupRecord` says."""
        for name, values in made.items():
            self._blocks.setdefault(name, []).append(values)

    def is_due(self) -> bool:
        """As `GroupRecord` says."""
        return False

    def save(self, state: Any, done: int, n_divergences: int) -> None:
        """As `GroupRecord` says."""
        self._state = state

    def draws(self) -> Arrays:
        """As `GroupRecord` says."""
        return {name: np.concatenate(parts, axis=1) for name, parts in self._blocks.items()}

    def final_state(self) -> Arrays:
        """As `GroupRecord` says."""
        return pack_state(self._state)


class MemoryRecorder:
    """A run in memory: a `Recorder`.

    Parameters
    ----------
    plan : Plan, optional
        Of the run that goes on; None is a new run.
    fixed : dict of int, optional
        The numbers that must stay as they were: `group_size`, `rows_per_block`.
    state : dict of ndarray, shape (num_chains, ...), optional
        Where its chains ended.
    done : int
        Draws that each has made, warm-up included.
    n_draws_before : int
        Those that were kept.
    start : MixtureParameters, optional
        Where the run began.
    """

    earlier_seconds = 0.0
    n_resumed = 0

    def __init__(
        self,
        plan: Plan | None = None,
        fixed: dict[str, int] | None = None,
        state: Arrays | None = None,
        done: int = 0,
        n_draws_before: int = 0,
        start: MixtureParameters | None = None,
    ) -> None:
        self._start = start
        self._plan, self._fixed, self._state, self._done = plan, fixed or {}, state, done
        self.n_draws_before = n_draws_before

    def start(self, find: Callable[[], MixtureParameters]) -> MixtureParameters:
        """As `Recorder` says."""
        return find() if self._start is None else self._start

    def plan(self, find: Callable[[], Plan]) -> Plan:
        """As `Recorder` says."""
        return find() if self._plan is None else self._plan

    def fixed(self, name: str, usual: int) -> int:
        """As `Recorder` says."""
        return self._fixed.setdefault(name, usual)

    def group(self, first: int) -> MemoryGroup:
        """As `Recorder` says."""
        if self._state is None:
            return MemoryGroup()
        chains = slice(first, first + self._fixed["group_size"])
        return MemoryGroup({k: v[chains] for k, v in self._state.items()}, self._done)

    def branch(self, name: str) -> "MemoryRecorder":
        """As `Recorder` says."""
        return MemoryRecorder()


def pack_state(state: Any) -> Arrays:
    """Return the leaves of a kernel's state by name, such as `adapt_state.step_size`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {_name(path): np.asarray(leaf) for path, leaf in leaves}


def unpack_state(arrays: Mapping[str, np.ndarray], blank: Any) -> Any:
    """Build a state like `blank` from the leaves of another.

    Raises
    ------
    CheckpointError
        If they are not the leaves of such a state.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(blank)
    wanted = {_name(path): (leaf.shape, leaf.dtype) for path, leaf in leaves}
    got = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    if wanted != got:
        names = sorted(k for k in wanted.keys() | got.keys() if wanted.get(k) != got.get(k))
        raise CheckpointError(
            f"the state of the chains is not one of this sampler: {', '.join(names)} differ"
        )
    return jax.tree_util.tree_unflatten(structure, [arrays[name] for name in wanted])


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
