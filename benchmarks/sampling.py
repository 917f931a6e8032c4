"""The same posterior by us and by everyone else: effective draws per second, compilation apart.

Every method gets the same rows and the same centroids, in a process of its own, and its draws are
judged here by the same code. A method that would need more than --max-seconds is run in full on
fewer rows and briefly on all of them, and its row says that it was extrapolated.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import record

NAME = "sampling"
PEERS = record.HERE / "peers"

# name -> (environment, script, arguments); an environment of None is this one.
METHODS = {
    "gmm_bayes": (None, "../fit_ours.py", []),
    "numpyro": ("numpyro", "numpyro_plain.py", ["--start", "default"]),
    "numpyro, centroid start": ("numpyro", "numpyro_plain.py", ["--start", "centroids"]),
    "pymc, nutpie": ("pymc", "pymc_nutpie.py", []),
    "stan": ("stan", "stan_rows.py", []),
    "bayesforge, cores=4": ("bayesforge", "bayesforge_cores.py", []),
}
# name -> (size, row counts on which a slow method is tried first)
PROBLEMS = {
    "blobs": ((500, 8, 2), ()),
    "mixture-1e4": ((10_000, 6, 5), (1000,)),
    "mixture-1e5": ((100_000, 10, 10), (1000, 10_000)),
    "mixture-1e6": ((1_000_000, 10, 10), (1000, 10_000, 100_000)),
}
DATA_SEEDS = {"mixture-1e4": 1, "mixture-1e5": 0, "mixture-1e6": 0}
# A timing run on all rows should take about this long.
_PROBE_SECONDS = 120.0
_PROBE_DEPTH = 3
# Threads of OpenBLAS spin in the small solves of every JAX peer: with one they are ten times
# faster here. All methods get the same.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS)
    parser.add_argument("--envs", default=Path(tempfile.gettempdir()) / "gmm_bayes_peers")
    parser.add_argument("--max-seconds", type=float, default=1200.0)
    parser.add_argument("--warmup", type=int, help="default: 1000, and ours as it comes")
    parser.add_argument("--draws", type=int, help="default: 1000, and ours as it comes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--chains", type=int, nargs="+", default=[4])
    parser.add_argument("--rows", default=record.ROWS, help="folder of the rows")
    args = parser.parse_args()
    on_cpu = args.device == "cpu"
    problems = args.problems or (list(PROBLEMS)[:3] if on_cpu else list(PROBLEMS)[2:])
    # On a GPU, the peers that have one.
    methods = [m for m in args.methods if on_cpu or m.startswith(("gmm_bayes", "numpyro"))]
    with tempfile.TemporaryDirectory() as folder:
        for problem in problems:
            for method in methods:
                for chains in args.chains:
                    runner = Runner(method, problem, chains, args, Path(folder))
                    record.emit(NAME, runner.row_or_failure(), args.rows)


def make_problem(problem, n_obs, folder):
    """The file of a problem: rows, and the centroids of the k-means of all of them."""
    path = folder / f"{problem}-{n_obs}.npz"
    if not path.exists():
        import gmm_bayes as gb

        (n, k, d), _ = PROBLEMS[problem]
        if problem == "blobs":
            X = gb.datasets.make_blobs().X
        else:
            X = gb.datasets.make_mixture(n, k, d, seed=DATA_SEEDS[problem]).X
        centroids = np.asarray(gb.Priors.fixed().with_centers(X, k).mean_loc)
        np.savez(path, X=X[:n_obs], centroids=centroids)
    return path


class Runner:
    """One method on one problem."""

    def __init__(self, method, problem, chains, args, folder):
        self.method, self.problem, self.chains = method, problem, chains
        self.args, self.folder = args, folder
        self.size, self.smaller = PROBLEMS[problem]
        self.ours = METHODS[method][0] is None

    def row_or_failure(self):
        """The row; one method that fails does not keep the others from being measured."""
        try:
            return self.row()
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return self.make(None, failed=str(error).splitlines()[-1][:200])

    def row(self):
        """The row: of a full run if it fits into the time, else extrapolated, else a failure."""
        n_obs = self.size[0]
        # Ours is expected to be quick; the smaller sizes are there to foresee a long run.
        sizes = (n_obs,) if self.ours else (*self.smaller, n_obs)
        last = None
        for n in sizes:
            if last and self.expected(last, n) > self.args.max_seconds:
                break
            result = self.run(n)
            if result is None:
                break
            last = (n, result)
        if last is None:
            return self.make(None, failed=f"no result within {self.limit():.0f} s on {n} rows")
        if last[0] == n_obs:
            return self.make(last[1])
        return self.extrapolated(*last)

    def limit(self):
        return 1.5 * self.args.max_seconds

    @staticmethod
    def expected(last, n_obs):
        """Seconds of a run if they grow with the rows."""
        n, (values, _) = last
        return values["sample_seconds"] * n_obs / n

    def run(self, n_obs, extra=(), warmup=None, draws=None):
        """Run the method's script: (record, draws), or None if it took too long."""
        environment, script, arguments = METHODS[self.method]
        python = sys.executable
        if environment:
            python = Path(self.args.envs).absolute() / environment / "bin" / "python"
        out = self.folder / "out.npz"
        out.unlink(missing_ok=True)
        words = [python, PEERS / script, make_problem(self.problem, n_obs, self.folder), out]
        words += [*arguments, *extra, "--chains", self.chains, "--seed", self.args.seed]
        words += ["--device", self.args.device]
        for flag, value in {
            "--warmup": warmup or self.args.warmup,
            "--draws": draws or self.args.draws,
        }.items():
            words += [flag, value] if value is not None else []
        # PyStan and PyTensor keep what they compiled in the user's folders; here it must be made.
        env = {
            **_ENVIRONMENT,
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "PYTENSOR_FLAGS": f"base_compiledir={self.folder / 'pytensor'}",
        }
        if self.args.device == "cpu":
            env["JAX_PLATFORMS"] = "cpu"
        # In a folder of its own: PyStan leaves what it built in the working directory.
        if record.run_child(words, timeout=self.limit(), env=env, cwd=self.folder) is None:
            return None
        with np.load(out) as file:
            draws = {name: file[name] for name in ("weights", "means", "scales")}
            return json.loads(str(file["record"])), draws

    def extrapolated(self, n_small, result):
        """Seconds a gradient on all rows, times the gradients of a full run on fewer."""
        small, draws = result
        probe, total = self.probe(n_small, small), _gradients(small)
        if probe is None:
            return self.make(None, failed=f"no timing within {self.limit():.0f} s on all rows")
        per_gradient = probe["sample_seconds"] / _gradients(probe)
        values = {
            **small,
            "chain_method": probe["chain_method"],
            "sample_seconds": per_gradient * total,
            "fit_seconds": None,
            "compile_seconds": None,
            "second_fit_seconds": None,
            "peak_memory_mb": None,
        }
        return self.make(
            (values, draws),
            extrapolated=True,
            quality_from_n_obs=n_small,
            seconds_per_gradient=per_gradient,
            how=f"seconds a gradient measured on all rows in a short run, times the gradients "
            f"and effective draws of a full run on {n_small} rows of the same K and D",
        )

    def probe(self, n_small, small):
        """What a short run on all rows, with short trajectories, says of its seconds."""
        gradients = _gradients(small)
        if gradients is None:
            return None
        guess = small["sample_seconds"] / gradients * self.size[0] / n_small
        per_draw = self.chains * (2**_PROBE_DEPTH - 1)
        half = int(np.clip(_PROBE_SECONDS / (2 * per_draw * guess), 2, 50))
        probe = self.run(self.size[0], ("--max-tree-depth", _PROBE_DEPTH), warmup=half, draws=half)
        return None if probe is None else probe[0]

    def make(self, result, **extra):
        """The row of a run, judged."""
        values, draws = result or ({}, None)
        empty = dict.fromkeys((*record.QUALITY, "sample_seconds"))
        judged = record.quality(draws) if draws is not None else {}
        values = {**empty, **values, **judged}
        row = record.make_row(
            NAME,
            self.method,
            self.size,
            problem=self.problem,
            seed=self.args.seed,
            device=record.device_name(self.args.device),
            **{"num_chains": self.chains, **values, **extra},
        )
        if draws is not None:
            row["ess_per_second"] = row["min_bulk_ess"] / row["sample_seconds"]
        if row.get("sample_phase_seconds"):
            row["ess_per_second_sample_phase"] = row["min_bulk_ess"] / row["sample_phase_seconds"]
        if row.get("second_fit_seconds"):
            row["ess_per_second_whole_fit"] = row["min_bulk_ess"] / row["second_fit_seconds"]
        return row


def _gradients(values):
    """All gradients; where the warm-up's are not known, twice those of as many kept draws."""
    if values["num_gradients"] is not None:
        return values["num_gradients"]
    sampling = values["num_gradients_sampling"]
    return None if sampling is None else 2 * sampling


if __name__ == "__main__":
    main()
