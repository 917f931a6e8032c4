"""Seconds of an EM iteration: ours, scikit-learn's and gmmx's, from one start; and our memory.

Every run is a process of its own. The methods take turns, and each ends at parameters whose log
density is judged here by the same code.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import record

NAME = "em"
SIZES = ((10_000, 6, 5), (100_000, 16, 16), (1_000_000, 10, 10))
# The smaller one says what the libraries and the compiler take.
MEMORY_SIZES = ((1000, 10, 10), (1_000_000, 10, 10))
PEERS = record.HERE / "peers"
STARTS = 10
# name -> (environment, script, arguments, dtype); an environment of None is this one.
METHODS = {
    "gmm_bayes": (None, "../em_ours.py", [], "float64"),
    "gmm_bayes, ten starts": (None, "../em_ours.py", ["--starts", STARTS], "float64"),
    "scikit-learn": (None, "sklearn_em.py", [], "float64"),
    "gmmx": ("gmmx", "gmmx_em.py", [], "float64"),
    "gmmx float32": ("gmmx", "gmmx_em.py", ["--dtype", "float32"], "float32"),
}
# An iteration is the mean over so many, so that short ones are not lost in the noise.
_FEW, _MOST, _LEAST = 2, 300, 4
_FLOPS = 1e10


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="*", metavar="N,K,D", help="default: the issue's sizes")
    parser.add_argument("--memory-sizes", nargs="*", metavar="N,K,D")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--threads", nargs="+", default=["1", "default"], help="OpenBLAS threads")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every method")
    parser.add_argument("--envs", default=Path(tempfile.gettempdir()) / "gmm_bayes_peers")
    parser.add_argument("--rows", default=record.ROWS, help="folder of the rows")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes(args.sizes, SIZES):
            for row in measure(size, args, Path(folder)):
                record.emit(NAME, row, args.rows)
        for size in sizes(args.memory_sizes, MEMORY_SIZES):
            record.emit(NAME, memory_row(size, args, Path(folder)), args.rows)


def sizes(texts, default):
    if texts is None:
        return default
    return [tuple(int(float(x)) for x in text.split(",")) for text in texts]


def make_problem(size, folder):
    """The file of rows in standard units and of starts: random rows as means, unit covariances."""
    import gmm_bayes as gb

    n, k, d = size
    path = folder / "problem-{}-{}-{}.npz".format(*size)
    if not path.exists():
        X = gb.datasets.make_mixture(n, k, d, seed=0).X
        X -= X.mean(axis=0)
        X /= X.std(axis=0)
        rng = np.random.default_rng(0)
        means = np.stack([X[rng.choice(n, k, replace=False)] for _ in range(STARTS)])
        weights = np.full((STARTS, k), 1 / k)
        covariances = np.broadcast_to(np.eye(d), (STARTS, k, d, d))
        np.savez(path, X=X, weights=weights, means=means, covariances=covariances)
    return path


def iterations(size):
    n, k, d = size
    flops = 4 * n * k * (d + 1) * (d + 2) / 2
    return _FEW, _FEW + int(np.clip(_FLOPS / flops, _LEAST, _MOST))


def measure(size, args, folder):
    """Rows of one size: every method with every number of threads, taking turns."""
    problem = make_problem(size, folder)
    results = {}
    for _ in range(args.rounds):
        for method in args.methods:
            for threads in args.threads:
                found = results.setdefault((method, threads), [])
                # One that has failed is not tried again.
                if not any("failed" in values for values, _ in found):
                    found.append(run(method, problem, threads, iterations(size), args))
    heights = {key: judged(problem, found[0][1]) for key, found in results.items()}
    ours = next((heights[key] for key in heights if key[0] == "gmm_bayes"), None)
    return [
        make_row(size, method, threads, found, heights[method, threads], ours)
        for (method, threads), found in results.items()
    ]


def run(method, problem, threads, n_iter, args, extra=()):
    """Run a method's script: (what it recorded, where it ended)."""
    environment, script, words, _ = METHODS[method]
    python = sys.executable
    if environment:
        python = Path(args.envs).absolute() / environment / "bin" / "python"
    out = problem.parent / "out.npz"
    out.unlink(missing_ok=True)
    env = {"JAX_PLATFORMS": "cpu", "GMM_BAYES_CACHE": "off"}
    if threads != "default":
        env["OPENBLAS_NUM_THREADS"] = threads
    command = [python, PEERS / script, problem, out, *words, *extra]
    try:
        record.run_child([*command, "--few", n_iter[0], "--many", n_iter[1]], env=env)
    except (RuntimeError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return {"failed": str(error).splitlines()[-1][:200]}, None
    with np.load(out) as file:
        end = {name: file[name] for name in ("weights", "means", "covariances")}
        return json.loads(str(file["record"])), end


def judged(problem, end):
    """Mean log density of a row, in nats, row by row and not by the kernel that is measured."""
    if end is None:
        return None
    import jax

    from gmm_bayes.core.mixture import MixtureParameters, log_density
    from gmm_bayes.machine.row_blocks import map_rows

    with np.load(problem) as file:
        X = file["X"]
    covariances = np.asarray(end["covariances"], dtype=float)
    mixture = MixtureParameters(
        *(np.asarray(end[name], dtype=float) for name in ("weights", "means")),
        np.linalg.cholesky(covariances),
    )
    return float(map_rows(jax.jit(log_density), mixture, X).mean())


def make_row(size, method, threads, found, height, ours):
    """Median over rounds and repeats, with the log density at the end beside it."""
    values = dict(found[-1][0])
    seconds = [s for record_, _ in found for s in record_.get("seconds_per_iteration", [])]
    known = height is not None and ours is not None
    values |= {
        "seconds": float(np.median(seconds)) if seconds else None,
        "seconds_best": min(seconds, default=None),
        "rounds": len(seconds),
        "iterations": iterations(size)[1],
        "log_likelihood_per_row": height,
        "log_likelihood_difference": height - ours if known else None,
    }
    values.pop("seconds_per_iteration", None)
    return record.make_row(
        NAME,
        method,
        size,
        dtype=METHODS[method][3],
        blas_threads=threads if threads == "default" else int(threads),
        openblas_num_threads=None if threads == "default" else threads,
        num_starts=STARTS if "ten" in method else 1,
        **values,
    )


def memory_row(size, args, folder):
    """Peak memory of gb.fit_em beyond the data and what was imported, in a process of its own."""
    problem = make_problem(size, folder)
    values, end = run("gmm_bayes", problem, "default", (1, 5), args, ["--memory"])
    height = judged(problem, end)
    return record.make_row(
        NAME,
        "gmm_bayes, fit_em",
        size,
        blas_threads="default",
        openblas_num_threads=os.environ.get("OPENBLAS_NUM_THREADS"),
        **{"seconds": None, "iterations": 5, "log_likelihood_per_row": height, **values},
    )


if __name__ == "__main__":
    main()
