"""What a checkpoint costs: fits with and without one take turns in one process.

The ratio of two times on a noisy machine is noise; the share of the chains' time that they spend
saving is not, so that it is measured as well, inside the same fits.
"""

import argparse
import os
import statistics
import tempfile
import threading
import time
import warnings
from pathlib import Path

import record

import gmm_bayes as gb
from gmm_bayes.inference import checkpoint


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="10000,6,5", help="N,K,D")
    parser.add_argument("--draws", type=int, default=1500)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--every", type=float, nargs="+", default=[30.0, 1.0], help="seconds")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=Path, default=record.ROWS)
    args = parser.parse_args()
    warnings.simplefilter("ignore", gb.errors.GMMBayesWarning)
    n, k, d = size = tuple(int(part) for part in args.size.split(","))
    X = gb.datasets.make_mixture(n, k, d, seed=0).X
    sampler = gb.NUTS(num_samples=args.draws, num_chains=args.chains)
    saving = watch_saves()
    # Everything is compiled before the clock starts.
    gb.fit(X, k, sampler=gb.NUTS(num_samples=5, num_chains=args.chains))
    times, saved, written = {}, {}, {}
    for _ in range(args.repeats):
        for every in (None, *args.every):
            saving.clear()
            with tempfile.TemporaryDirectory() as folder:
                options = {} if every is None else {"checkpoint": Path(folder) / "run"}
                if every is not None:
                    options["checkpoint_seconds"] = every
                begin = time.perf_counter()
                fit = gb.fit(X, k, sampler=sampler, **options)
                times.setdefault(every, []).append(time.perf_counter() - begin)
                files = [p.stat().st_size for p in Path(folder).rglob("*") if p.is_file()]
            # Chains of one thread wait for each other's disk, as they do for their own.
            share = sum(saving) / (
                fit.timings["sample"] * min(args.chains, len(os.sched_getaffinity(0)))
            )
            saved.setdefault(every, []).append(share)
            written[every] = sum(files) / 2**20
    plain = statistics.median(times[None])
    for every, seconds in times.items():
        row = record.make_row(
            "checkpoint",
            "no checkpoint" if every is None else f"every {every:g} s",
            size,
            num_chains=args.chains,
            num_samples=args.draws,
            seconds=statistics.median(seconds),
            seconds_each=seconds,
            ratio=statistics.median(seconds) / plain,
            saving_share=statistics.median(saved[every]),
            written_mb=written[every],
        )
        record.emit("checkpoint", row, args.rows)


def watch_saves():
    """A list to which every save of a group of chains adds the seconds that it took."""
    seconds, lock, save = [], threading.Lock(), checkpoint.DiskGroup.save

    def timed(self, *arguments, **options):
        begin = time.perf_counter()
        save(self, *arguments, **options)
        with lock:
            seconds.append(time.perf_counter() - begin)

    checkpoint.DiskGroup.save = timed
    return seconds


if __name__ == "__main__":
    main()
