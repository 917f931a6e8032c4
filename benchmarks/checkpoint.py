"""What a checkpoint costs: fits with and without one take turns in one process.

The ratio of two times on a noisy machine is noise; the share of the chains' time that they spend
saving is less so, and the share of the CPU's time not at all: both are measured inside the same
fits.
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
from gmm_bayes.inference.sampling.checkpoint import disk as checkpoint


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
    times, saved, saved_cpu, written, n_saves = {}, {}, {}, {}, {}
    for _ in range(args.repeats):
        for every in (None, *args.every):
            saving.clear()
            with tempfile.TemporaryDirectory() as folder:
                options = {} if every is None else {"checkpoint": Path(folder) / "run"}
                if every is not None:
                    options["checkpoint_seconds"] = every
                begin, begin_cpu = time.perf_counter(), time.process_time()
                fit = gb.fit(X, k, sampler=sampler, **options)
                times.setdefault(every, []).append(time.perf_counter() - begin)
                cpu = time.process_time() - begin_cpu
                files = [p.stat().st_size for p in Path(folder).rglob("*") if p.is_file()]
            # Chains of one thread wait for each other's disk, as they do for their own.
            workers = min(args.chains, len(os.sched_getaffinity(0)))
            share = sum(wall for wall, _ in saving) / (fit.timings["sample"] * workers)
            saved.setdefault(every, []).append(share)
            saved_cpu.setdefault(every, []).append(sum(used for _, used in saving) / cpu)
            written[every], n_saves[every] = sum(files) / 2**20, len(saving)
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
            saving_cpu_share=statistics.median(saved_cpu[every]),
            num_saves=n_saves[every],
            written_mb=written[every],
        )
        record.emit("checkpoint", row, args.rows)


def watch_saves():
    """A list to which every save of a group of chains adds its seconds: (wall, CPU)."""
    seconds, lock, save = [], threading.Lock(), checkpoint.DiskGroup.save

    def timed(self, *arguments, **options):
        begin, begin_cpu, done = time.perf_counter(), time.thread_time(), self.done
        save(self, *arguments, **options)
        if self.done > done:
            used = (time.perf_counter() - begin, time.thread_time() - begin_cpu)
            with lock:
                seconds.append(used)

    checkpoint.DiskGroup.save = timed
    return seconds


if __name__ == "__main__":
    main()
