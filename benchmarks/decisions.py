"""What align_labels, coassignment and partition cost in time and memory as the rows grow.

4000 draws of one posterior, their components put in random order, so that there is something to
align and the right answer is known. Every point is a process of its own.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import record

NAME = "decisions"
SIZES = (500, 5000, 50_000)
N_COMPONENTS, N_FEATURES, N_DRAWS = 5, 2, 4000
# Of the means, in sds of a component: far enough for the normal approximation to be good draws.
_SEPARATION = 10.0
# Above this the full matrix would be refused: all rows are compared with so many of them.
_MOST_ROWS, _LANDMARKS = 20_000, 1000
# Rows whose coassignment is computed plainly, to compare.
_CHECKED = 40


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of rows")
    parser.add_argument("--draws", type=int, default=N_DRAWS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--rows", default=record.ROWS, help="folder of the rows")
    parser.add_argument("--child", nargs=2, metavar=("METHOD", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        method, folder = args.child
        print(json.dumps(measure(method, Path(folder))))
        return
    for n in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            pareto_k = make_problem(n, args.draws, Path(folder))
            for method in args.methods:
                (values,) = record.child_rows("decisions.py", "--child", method, folder)
                row = record.make_row(
                    NAME,
                    method,
                    (n, N_COMPONENTS, N_FEATURES),
                    num_draws=args.draws,
                    pareto_k=pareto_k,
                    openblas_num_threads=None,
                    **values,
                )
                record.emit(NAME, row, args.rows)


def make_problem(n, n_draws, folder):
    """Write a posterior with shuffled components, and the truth, to a folder."""
    import gmm_bayes as gb

    truth = gb.datasets.make_mixture(n, N_COMPONENTS, N_FEATURES, separation=_SEPARATION, seed=0)
    fit = gb.fit(truth.X, N_COMPONENTS, sampler=gb.Laplace(num_samples=n_draws), seed=0)
    rng = np.random.default_rng(0)
    orders = rng.permuted(np.tile(np.arange(N_COMPONENTS), (1, n_draws, 1)), axis=2)

    def shuffled(value):
        if "component" not in value.dims:
            return value
        places = orders.reshape(*orders.shape, *[1] * (value.ndim - 3))
        return value.copy(data=np.take_along_axis(value.values, places, axis=2))

    fit.with_group("posterior", fit.posterior.map(shuffled)).save(folder / "posterior.nc")
    np.savez(folder / "truth.npz", orders=orders, labels=truth.labels)
    return fit.run["pareto_k"]


def measure(method, folder):
    """Seconds and peak memory of a first call, which compiles, and of a second; the quality."""
    import sklearn.metrics  # noqa: F401

    import gmm_bayes as gb

    fit = gb.load(folder / "posterior.nc")
    gb.diagnose(fit)
    run, judge = METHODS[method]
    with np.load(folder / "truth.npz") as truth:
        truth = dict(truth)
    first, first_peak, answer = called(lambda: run(gb, fit))
    second, second_peak, _ = called(lambda: run(gb, fit))
    return {
        "seconds": second,
        "memory_mb": second_peak,
        "first_call_seconds": first,
        "first_call_memory_mb": first_peak,
        **judge(gb, fit, answer, truth),
    }


def called(function):
    """Seconds of a call, its peak memory in MB beyond the start, and its answer."""
    # Else the peak would be that of reading the file.
    Path("/proc/self/clear_refs").write_text("5")
    before, begin = record.memory_mb("VmRSS"), time.perf_counter()
    answer = function()
    return time.perf_counter() - begin, record.memory_mb("VmHWM") - before, answer


def align(gb, fit):
    return gb.align_labels(fit)


def judge_alignment(gb, fit, aligned, truth):
    """Share of draws whose components stand in one and the same order of the unshuffled ones."""
    numbering = aligned.sample_stats["numbering"].transpose("chain", "draw", "component").values
    unshuffled = np.take_along_axis(truth["orders"], numbering, axis=2).reshape(-1, N_COMPONENTS)
    _, counts = np.unique(unshuffled, axis=0, return_counts=True)
    return {
        "quality": float(counts.max() / counts.sum()),
        "unambiguous": aligned.alignment["unambiguous"],
        "result_mb": 0.0,
    }


def coassign(gb, fit):
    landmarks = _LANDMARKS if fit.n_obs > _MOST_ROWS else None
    return gb.coassignment(fit, landmarks=landmarks)


def judge_coassignment(gb, fit, matrix, truth):
    """Largest error of some entries against the plain mean of products of responsibilities."""
    places = np.linspace(0, matrix.shape[1] - 1, _CHECKED).astype(int)
    columns = matrix.isel(obs2=places)
    rows = fit.X.sel(obs=columns["obs2"].values)
    r = gb.responsibilities(fit, rows, reduce=None).transpose("chain", "draw", "obs", "component")
    r = r.values.reshape(-1, _CHECKED, N_COMPONENTS)
    plain = np.einsum("sik,sjk->ij", r, r) / len(r)
    np.fill_diagonal(plain, 1)
    ours = columns.sel(obs=columns["obs2"].values).values
    return {"quality": float(abs(ours - plain).max()), "result_mb": matrix.nbytes / 2**20}


def partition(gb, fit):
    return gb.partition(fit)


def judge_partition(gb, fit, found, truth):
    """Adjusted Rand index with the components that the rows came from."""
    from sklearn.metrics import adjusted_rand_score

    return {
        "quality": float(adjusted_rand_score(truth["labels"], found.labels.values)),
        "expected_loss": found.expected_loss,
        "n_clusters": found.n_clusters,
        "result_mb": 0.0,
    }


METHODS = {
    "align_labels": (align, judge_alignment),
    "coassignment": (coassign, judge_coassignment),
    "partition": (partition, judge_partition),
}


if __name__ == "__main__":
    main()
