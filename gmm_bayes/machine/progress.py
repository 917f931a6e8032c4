"""One bar for long work, for a person who is watching."""

import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

__all__ = ["Progress", "SetProgress", "listening", "steps", "wanted"]

_SECONDS_BETWEEN_REPORTS = 1.0
_LISTENER: ContextVar[Callable[[dict[str, Any]], object] | None] = ContextVar(
    "listener", default=None
)


def wanted(progress: bool | None) -> bool:
    """Whether to draw a bar: as told, else on a terminal or in a notebook, never in CI."""
    if progress is not None:
        return bool(progress)
    if os.environ.get("CI") or os.environ.get("PYTEST_CURRENT_TEST"):
        return False
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def steps(
    items: Iterable[Any], *, shown: bool, unit: str, total: int | None = None
) -> Iterator[Any]:
    """Go through items, with a bar that counts them if `shown`."""
    if not shown:
        yield from items
        return
    yield from _tqdm()(items, total=total, unit=unit, leave=True)


def _tqdm() -> Any:
    with warnings.catch_warnings():
        # Without ipywidgets a notebook gets a bar of text, which is fine.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

    return tqdm


class Progress:
    """A bar over the draws of all chains; silent if not wanted. Chains may report from threads.

    Whoever listens (see `listening`) is told as well, about once a second at most.

    Parameters
    ----------
    total : int
        Draws of all chains, warm-up included.
    shown : bool
    before : int
        Draws made by a run that this one goes on from.
    n_divergences : int
        Divergences among them.
    """

    def __init__(self, total: int, *, shown: bool, before: int = 0, n_divergences: int = 0) -> None:
        self._lock = threading.Lock()
        self._total, self._done, self._before = total, before, before
        self._divergences = n_divergences
        self._listener = _LISTENER.get()
        self._begin = self._reported = time.monotonic()
        self._bar = None
        if shown:
            self._bar = _tqdm()(
                total=total, initial=before, unit="draw", desc="warm-up", leave=True
            )

    def update(
        self,
        n_draws: int,
        *,
        sampling: bool,
        n_divergences: int = 0,
        step_size: float | None = None,
    ) -> None:
        """Report draws that one chain has made."""
        if self._bar is None and self._listener is None:
            return
        with self._lock:
            self._done += n_draws
            self._divergences += n_divergences
            if self._bar is not None:
                self._bar.update(n_draws)
                if sampling:
                    self._bar.set_description("sampling", refresh=False)
                self._bar.set_postfix(divergences=self._divergences, refresh=False)
            if self._listener is not None:
                self._report("sampling" if sampling else "warm-up", step_size)

    def _report(self, phase: str, step_size: float | None) -> None:
        now = time.monotonic()
        if now - self._reported < _SECONDS_BETWEEN_REPORTS and self._done < self._total:
            return
        self._reported, seconds = now, now - self._begin
        left = seconds * (self._total - self._done) / max(self._done - self._before, 1)
        assert self._listener is not None
        self._listener(
            {
                "phase": phase,
                "draws": self._done,
                "of": self._total,
                "divergences": self._divergences,
                "step_size": step_size,
                "seconds": round(seconds, 3),
                "seconds_left": round(left, 3),
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()


class SetProgress(Progress):
    """A bar over data sets that are finished, and beside it the share of the draws that are made.

    Parameters
    ----------
    n_sets : int
    total : int
        Draws of all chains of all sets, as far as is known.
    shown : bool
    """

    def __init__(self, n_sets: int, total: int, *, shown: bool) -> None:
        super().__init__(total, shown=False)
        if shown:
            self._bar = _tqdm()(total=n_sets, unit="set", desc="data sets", leave=True)

    def update(
        self,
        n_draws: int,
        *,
        sampling: bool,
        n_divergences: int = 0,
        step_size: float | None = None,
    ) -> None:
        """Report draws that some chains have made."""
        with self._lock:
            self._done += n_draws
            # Sets that are sampled again make more draws than were known of.
            self._total = max(self._total, self._done)
            self._divergences += n_divergences
            if self._bar is not None:
                self._bar.set_postfix_str(f"{self._done / self._total:.0%} of draws")
            if self._listener is not None:
                self._report("sampling" if sampling else "warm-up", step_size)

    def finish(self, n_sets: int) -> None:
        """Report sets that are done."""
        with self._lock:
            if self._bar is not None:
                self._bar.update(n_sets)


@contextmanager
def listening(listener: Callable[[dict[str, Any]], object]) -> Iterator[None]:
    """Have a function told how far the runs are that begin in the body.

    It is given a dict: the `phase` ("warm-up" or "sampling"), `draws` of all chains so far and `of`
    how many, `divergences` among those that are kept, the mean `step_size` of the chains that
    report, `seconds` since sampling began in this process, and about how many are left. Calls come
    from the threads of the chains, one at a time.
    """
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)
