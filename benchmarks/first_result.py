"""From a cold process to a converged posterior, then a second fit in the same process.

The clock starts when the process is launched and stops when `fit` has returned with its verdict.
Methods and states of the compilation cache take turns, so that a busy moment strikes all of them.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import record

NAME = "first_result"
CACHES = ("off", "empty", "filled")
# name -> (size, priors of ours)
PROBLEMS = {"blobs": ((500, 8, 2), "fixed"), "old-faithful": ((272, 2, 2), "default")}
MAX_RHAT, MIN_ESS = 1.01, 400
_SECONDS = ("first_result_seconds", "second_fit_seconds", "import_seconds", "compile_seconds")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--caches", nargs="+", choices=CACHES, default=list(CACHES))
    parser.add_argument("--envs", default=Path(tempfile.gettempdir()) / "gmm_bayes_peers")
    parser.add_argument("--no-peer", action="store_true", help="leave BayesForge out")
    parser.add_argument("--rows", default=record.ROWS, help="folder of the rows")
    args = parser.parse_args()
    peer_python = Path(args.envs) / "bayesforge" / "bin" / "python"
    for problem in args.problems:
        with tempfile.TemporaryDirectory() as folder:
            file = make_problem(problem, Path(folder))
            jobs = {("gmm_bayes", cache): [] for cache in args.caches}
            if problem == "blobs" and not args.no_peer:
                jobs["bayesforge, cores=4", None] = []
            for i in range(args.repeats):
                # A cache is filled by the run before it, which found it empty.
                home = Path(folder) / f"cache-{i}"
                if "filled" in args.caches and "empty" not in args.caches:
                    run_ours(problem, file, "empty", home)
                for (method, cache), results in jobs.items():
                    if method == "gmm_bayes":
                        results.append(run_ours(problem, file, cache, home))
                    else:
                        results.append(run_peer(file, peer_python, Path(folder) / "unused"))
            for (method, cache), results in jobs.items():
                record.emit(NAME, make_row(problem, method, cache, results), args.rows)


def make_problem(problem, folder):
    import gmm_bayes as gb

    blobs = problem == "blobs"
    X = gb.datasets.make_blobs().X if blobs else gb.datasets.load_old_faithful().to_numpy()
    (_, k, d), _ = PROBLEMS[problem]
    path = folder / "problem.npz"
    # Both methods find their own centroids; only how many there are is read from these.
    np.savez(path, X=X, centroids=np.zeros((k, d)))
    return path


def run_ours(problem, file, cache, home):
    env = {"XDG_CACHE_HOME": str(home), "JAX_PLATFORMS": "cpu"}
    if cache == "off":
        env["GMM_BAYES_CACHE"] = "off"
    script = [sys.executable, record.HERE / "fit_ours.py"]
    return _run(script, file, ["--priors", PROBLEMS[problem][1]], env)


def run_peer(file, python, home):
    script = [python, record.HERE / "peers" / "bayesforge_cores.py"]
    return _run(script, file, ["--built-in"], {"XDG_CACHE_HOME": str(home)})


def _run(script, file, arguments, env):
    """Launch a process and note the time: (its record with the quality of its draws)."""
    out = file.parent / "out.npz"
    begin = time.perf_counter()
    words = [*script, file, out, *arguments, "--started", repr(time.time())]
    record.run_child(words, env=env)
    process_seconds = time.perf_counter() - begin
    with np.load(out) as stored:
        draws = {name: stored[name] for name in ("weights", "means", "scales")}
        values = json.loads(str(stored["record"]))
    return {**values, "process_seconds": process_seconds, **record.quality(draws)}


def make_row(problem, method, cache, results):
    """Medians of the seconds, the worst of the qualities."""
    seconds = {name: _median([r.get(name) for r in results]) for name in _SECONDS}
    phases = {}
    for which in ("phases_first_fit", "phases_last_fit"):
        if which in results[0]:
            phases[which] = {
                name: _median([r[which].get(name) for r in results]) for name in results[0][which]
            }
    if phases:
        known = seconds["import_seconds"] + sum(phases["phases_first_fit"].values())
        phases["rest_seconds"] = seconds["first_result_seconds"] - known
    worst_ess = min(r["min_bulk_ess"] for r in results)
    worst_rhat = max(r["max_rhat"] for r in results)
    return record.make_row(
        NAME,
        method,
        PROBLEMS[problem][0],
        problem=problem,
        cache=cache,
        repeats=len(results),
        converged=bool(worst_rhat < MAX_RHAT and worst_ess > MIN_ESS),
        min_bulk_ess=worst_ess,
        max_rhat=worst_rhat,
        divergences=max(r["divergences"] for r in results),
        all_first_result_seconds=[r["first_result_seconds"] for r in results],
        peak_memory_mb=max(r["peak_memory_mb"] for r in results),
        **seconds,
        **phases,
        **{
            name: results[-1][name]
            for name in (
                "num_gradients",
                "num_gradients_sampling",
                "num_chains",
                "num_samples",
                "versions",
            )
        },
    )


def _median(values):
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


if __name__ == "__main__":
    main()
