"""What the scripts that time EM have in common: arguments, the start, and seconds an iteration.

NumPy only, because it runs in environments that hold nothing of this package.
"""

import argparse
import time

import numpy as np


def arguments(description, *extra):
    """The common command line, and (flag, options) of a method's own."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("problem", help=".npz with X, weights, means and covariances")
    parser.add_argument("out", help=".npz to write")
    parser.add_argument("--few", type=int, default=2, help="iterations of the shorter run")
    parser.add_argument("--many", type=int, default=12, help="iterations of the longer run")
    parser.add_argument("--repeats", type=int, default=2)
    for flag, options in extra:
        parser.add_argument(flag, **options)
    return parser.parse_args()


def load(path, dtype="float64"):
    """Rows (N, D), and the start: weights (S, K), means (S, K, D), covariances (S, K, D, D)."""
    with np.load(path) as file:
        return [file[name].astype(dtype) for name in ("X", "weights", "means", "covariances")]


def seconds_per_iteration(run, args):
    """Seconds of an iteration, one for each repeat: run(n) makes n iterations and ends.

    What a run does beside its iterations is in the shorter one too, and cancels.
    """
    found = []
    for _ in range(args.repeats):
        begin = time.perf_counter()
        run(args.few)
        middle = time.perf_counter()
        run(args.many)
        end = time.perf_counter()
        found.append(((end - middle) - (middle - begin)) / (args.many - args.few))
    return found
