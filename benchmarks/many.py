"""Thousands of small mixtures: `gb.fit_many` against a Python loop over `gb.fit`, in one process.

The sets are of 30 to 60 rows in two groups, with D = 2 and K = 2, and both methods take the same
sampler. The loop is measured twice: on sets of one length, after a fit of that length, so that
nothing compiles, which is the fairest to it; and on sets of as many lengths as there are sets,
each of which compiles, with no cache on disk, which is what a loop over such data does. Of
`fit_many` the second call counts; the first, which compiles, is in the row too.
"""

import argparse
import os
import time
import warnings

# A loop that finds the programs of an earlier run would not be the loop that is asked about.
os.environ["GMM_BAYES_CACHE"] = "off"

import numpy as np
import record

import gmm_bayes as gb

NAME = "many"
K, D = 2, 2
SHORTEST, LONGEST = 30, 60


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--loop", type=int, default=50, help="fits of the loop that is warm")
    parser.add_argument("--cold", type=int, default=8, help="fits of the loop that compiles")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--warmup", type=int, help="default: the sampler's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--rows", default=record.ROWS, help="folder of the rows")
    args = parser.parse_args()
    warnings.simplefilter("ignore", gb.errors.GMMBayesWarning)
    sampler = gb.NUTS(num_samples=args.draws, num_warmup=args.warmup)
    rng = np.random.default_rng(args.seed)
    lengths = rng.integers(SHORTEST, LONGEST + 1, args.sets)
    tables = [two_groups(n, rng) for n in lengths]
    together(tables, sampler, args)
    same = [two_groups(LONGEST, rng) for _ in range(args.loop)]
    gb.fit(two_groups(LONGEST, rng), K, sampler=sampler, device=args.device, progress=False)
    loop("loop over fit, nothing compiles", same, sampler, args)
    other = [two_groups(LONGEST + 1 + i, rng) for i in range(args.cold)]
    loop("loop over fit, each length compiles", other, sampler, args)


def two_groups(n_obs, rng):
    second = rng.random(n_obs) < 0.4
    noise = rng.standard_normal((n_obs, D)) * np.where(second, 1.0, 0.6)[:, None]
    return noise + 6 * second[:, None]


def together(tables, sampler, args):
    clocks = []
    for _ in range(2):
        begin = (time.perf_counter(), time.process_time())
        fits = gb.fit_many(tables, K, sampler=sampler, device=args.device, progress=False)
        clocks.append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    table, stats = fits.table(), fits.draws.stats
    emit(
        "fit_many",
        clocks[1],
        len(tables),
        args,
        first_call_seconds=clocks[0][0],
        phases=fits.draws.seconds,
        min_bulk_ess=float(table["ess_bulk"].median()),
        max_rhat=float(table["rhat"].median()),
        divergences=int(stats["diverging"].sum()),
        num_gradients=int(table["n_gradients"].sum()),
        num_gradients_sampling=int(stats["n_steps"].sum()),
        share_ok=float(table["ok"].mean()),
        share_adapted=float(table["adapted"].mean()),
    )


def loop(method, tables, sampler, args):
    begin = (time.perf_counter(), time.process_time())
    fits = [gb.fit(X, K, sampler=sampler, device=args.device, progress=False) for X in tables]
    clock = (time.perf_counter() - begin[0], time.process_time() - begin[1])
    # By the same quantities as in the table of fit_many, the worst of each fit.
    names = ["log_likelihood", "lp", "sorted_weights", "mixture_mean", "mixture_covariance"]
    judged = [gb.diagnose(fit).table.loc[names] for fit in fits]
    emit(
        method,
        clock,
        len(tables),
        args,
        min_bulk_ess=float(np.median([found["ess_bulk"].min() for found in judged])),
        max_rhat=float(np.median([found["rhat"].max() for found in judged])),
        divergences=sum(int(fit.sample_stats["diverging"].sum()) for fit in fits),
        num_gradients=sum(fit.run["n_gradients"] for fit in fits),
        num_gradients_sampling=sum(int(fit.sample_stats["n_steps"].sum()) for fit in fits),
        share_adapted=float(np.mean([fit.run["preconditioning"] == "laplace" for fit in fits])),
    )


def emit(method, clock, n_sets, args, **values):
    """Store a row: seconds are those of one fit; ESS and R-hat are medians of the sets' worst."""
    row = record.make_row(
        NAME,
        method,
        (LONGEST, K, D),
        problem=f"{args.draws} draws, warm-up {args.warmup or 'default'}",
        seed=args.seed,
        device=record.device_name(args.device),
        num_chains=4,
        num_samples=args.draws,
        num_sets=n_sets,
        seconds=clock[0] / n_sets,
        cpu_seconds=clock[1] / n_sets,
        peak_memory_mb=record.memory_mb("VmHWM"),
        **values,
    )
    record.emit(NAME, row, args.rows)


if __name__ == "__main__":
    main()
