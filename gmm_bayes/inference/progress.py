"""One bar for long work, for a person who is watching."""

import os
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

__all__ = ["Progress", "steps", "wanted"]


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

    Parameters
    ----------
    total : int
        Draws of all chains, warm-up included.
    shown : bool
    """

    def __init__(self, total: int, *, shown: bool) -> None:
        self._lock = threading.Lock()
        self._divergences = 0
        self._bar = None
        if shown:
            self._bar = _tqdm()(total=total, unit="draw", desc="warm-up", leave=True)

    def update(self, n_draws: int, *, sampling: bool, n_divergences: int = 0) -> None:
        """Report draws that one chain has made."""
        if self._bar is None:
            return
        with self._lock:
            self._bar.update(n_draws)
            if sampling:
                self._divergences += n_divergences
                self._bar.set_description("sampling", refresh=False)
            self._bar.set_postfix(divergences=self._divergences, refresh=False)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
