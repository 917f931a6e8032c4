"""Cost per effective draw against N, K and D, one at a time, with the memory beside it.

Every point is a process of its own. Memory is the peak beyond what the process held after all
imports and beyond the bytes of the data.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import record

NAME = "scaling"
# What varies -> the sizes (N, K, D).
SWEEPS = {
    "N": [(n, 10, 10) for n in (1000, 10_000, 100_000, 1_000_000)],
    "K": [(10_000, k, 5) for k in (2, 5, 10, 20)],
    "D": [(10_000, 5, d) for d in (2, 5, 10, 20)],
}
QUICK = {"N": [(n, 10, 10) for n in (1000, 10_000)]}
GPU = {"N": [(n, 10, 10) for n in (100_000, 1_000_000)]}
# Above this the second fit, whose time is free of compilation, would only double the wait.
_LARGE = 300_000


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small N only")
    parser.add_argument("--size", type=int, nargs=3, metavar=("N", "K", "D"), help="one point only")
    parser.add_argument("--warmup", type=int)
    parser.add_argument("--draws", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--chains", type=int, nargs="+", default=[4])
    parser.add_argument("--rows", default=record.ROWS, help="folder of the rows")
    args = parser.parse_args()
    sweeps = QUICK if args.quick else SWEEPS if args.device == "cpu" else GPU
    with tempfile.TemporaryDirectory() as folder:
        for factor, sizes in sweeps.items():
            for size in sizes:
                if args.size and tuple(args.size) != size:
                    continue
                file = make_problem(size, Path(folder))
                for chains in args.chains:
                    record.emit(NAME, measure(factor, size, file, chains, args), args.rows)
                file.unlink()


def make_problem(size, folder):
    import gmm_bayes as gb

    n, k, d = size
    X = gb.datasets.make_mixture(n, k, d, seed=0).X
    path = folder / "problem.npz"
    np.savez(path, X=X, centroids=np.asarray(gb.Priors.fixed().with_centers(X, k).mean_loc))
    return path


def measure(factor, size, file, chains, args):
    """The row of one size."""
    out = file.parent / "out.npz"
    repeats = 1 if size[0] > _LARGE and args.device == "cpu" else 2
    words = [sys.executable, record.HERE / "fit_ours.py", file, out, "--load-first"]
    words += ["--repeats", repeats, "--chains", chains, "--seed", args.seed]
    words += ["--device", args.device]
    for flag, value in {"--warmup": args.warmup, "--draws": args.draws}.items():
        words += [flag, value] if value is not None else []
    env = {"JAX_PLATFORMS": "cpu"} if args.device == "cpu" else {}
    record.run_child(words, env=env)
    with np.load(out) as stored:
        draws = {name: stored[name] for name in ("weights", "means", "scales")}
        values = json.loads(str(stored["record"]))
    values |= record.quality(draws)
    whole = values["second_fit_seconds"] or values["fit_seconds"]
    return record.make_row(
        NAME,
        "gmm_bayes",
        size,
        problem=f"{factor}: " + " ".join(map(str, size)),
        factor=factor,
        seed=args.seed,
        device=record.device_name(args.device),
        data_mb=size[0] * size[2] * 8 / 2**20,
        seconds_per_effective_draw=values["sample_seconds"] / values["min_bulk_ess"],
        seconds_per_effective_draw_whole_fit=whole / values["min_bulk_ess"],
        **values,
    )


if __name__ == "__main__":
    main()
