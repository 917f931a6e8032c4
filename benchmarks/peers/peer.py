"""What every peer's script has in common: its arguments, the problem, and the file it leaves.

NumPy only, because it runs in environments that hold nothing of this package.
"""

import argparse
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np


def arguments(description, *extra):
    """The common command line, and (flag, options) of a peer's own."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("problem", help=".npz with X and centroids")
    parser.add_argument("out", help=".npz to write")
    parser.add_argument("--warmup", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--max-tree-depth", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    for flag, options in extra:
        parser.add_argument(flag, **options)
    return parser.parse_args()


def load(path):
    """Rows X and centroids of a problem."""
    with np.load(path) as file:
        return file["X"], file["centroids"]


def save(path, draws, packages, **values):
    """Write draws (chain, draw, ...) and everything else that is known as one JSON text."""
    record = {
        "versions": {
            "python": sys.version.split()[0],
            **{package: version(package) for package in packages},
        },
        "peak_memory_mb": peak_memory_mb(),
        **values,
    }
    arrays = {name: np.asarray(value) for name, value in draws.items()}
    np.savez(path, record=json.dumps(record), **arrays)


def peak_memory_mb():
    """Peak memory of this process and, for those that sample in children, of the largest child."""
    import resource

    status = Path("/proc/self/status").read_text().splitlines()
    own = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


class CompileClock:
    """Seconds in which JAX traced, lowered or compiled: the union of what it reports.

    The events overlap (a trace inside a trace), so their sum would count some seconds twice.
    """

    def __init__(self):
        import jax

        self.spans = []
        jax.monitoring.register_event_duration_secs_listener(self._note)

    def _note(self, event, seconds, **_):
        if event.startswith("/jax/core/compile"):
            end = time.perf_counter()
            self.spans.append((end - seconds, end))

    def seconds(self, begin=0.0):
        """Length of the union of all spans since `begin`, a value of time.perf_counter()."""
        total, reached = 0.0, begin
        for start, end in sorted(self.spans):
            total += max(0.0, end - max(start, reached))
            reached = max(reached, end)
        return total


def cores():
    return len(os.sched_getaffinity(0))
