"""Work in threads. XLA lets go of the interpreter lock, so each thread uses a core."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax

from gmm_bayes.machine.devices import double_precision

__all__ = ["in_background", "run_in_threads"]


def run_in_threads(jobs: Sequence[Callable[..., Any]], workers: int, device: Any) -> list[Any]:
    """Run jobs, each of which is given an event that tells it to stop, and return their results."""
    stop = threading.Event()

    def run(job: Callable[..., Any]) -> Any:
        # Both settings belong to a thread, not to the process.
        with double_precision(), jax.default_device(device):
            return job(stop)

    # Even a single worker is a thread: an interrupt reaches this one, and the jobs learn of it
    # where they look for it, with all that they have in order.
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(run, job) for job in jobs]
        try:
            # One failed job ends the run; the others need not finish first.
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            stop.set()
        # Only of those that ended by themselves: a job that was told to stop raises too.
        failed = next((f for f in done if f.exception()), None)
        if failed is not None:
            pool.shutdown(cancel_futures=True)
            failed.result()
        return [future.result() for future in futures]


class _Later(NamedTuple):
    """A job that is done when its result is asked for, once."""

    result: Callable[[], Any]


@contextmanager
def in_background(
    job: Callable[[], Any], device: Any, *, alone: bool = False
) -> Iterator[Future | _Later]:
    """Run a job in a thread of its own while the body runs; if `alone`, when its result is needed.

    Of two programs that run on several devices at once, each would wait on some of them for what
    the other holds on others.
    """

    def run() -> Any:
        with double_precision(), jax.default_device(device):
            return job()

    if alone:
        yield _Later(run)
        return
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(run)
