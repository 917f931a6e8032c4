"""Many short chains against a few long ones: effective draws for each gradient, and each in a row.

On a CPU what counts is gradients, on a GPU those that have to wait for each other: a batch of
chains takes one step in about the time of one chain. Each run is a process of its own.
"""

import argparse
import json
import subprocess
import sys
import warnings

import numpy as np
import record

NAME = "many_chains"
METHODS = {
    "NUTS": {"kind": "NUTS"},
    "NUTS, 128 chains": {
        "kind": "NUTS",
        "num_chains": 128,
        "num_samples": 50,
        "chain_method": "vectorized",
    },
    "ChEES": {"kind": "ChEES"},
}


def overlapping():
    """Two clusters that overlap so much that their labels switch: far from a normal posterior."""
    rng = np.random.default_rng(5)
    wide = 1.5 * rng.standard_normal((150, 2)) + [1.5, 0.5]
    return np.concatenate([rng.standard_normal((150, 2)), wide])


def problems(gb):
    """Name -> (rows, number of components, priors)."""
    return {
        "blobs": lambda: (gb.datasets.make_blobs().X, 8, gb.Priors.fixed()),
        "mixture-1e4": lambda: (gb.datasets.make_mixture(10_000, 6, 5, seed=1).X, 6, None),
        "overlapping": lambda: (overlapping(), 2, None),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", nargs="+", default=list(problems(None)))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--set", default="{}", help="JSON: other settings of the samplers")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", default=record.ROWS, help="folder of the rows")
    parser.add_argument("--one", nargs=2, metavar=("PROBLEM", "METHOD"), help="in this process")
    args = parser.parse_args()
    if args.one:
        record.emit(NAME, measure(*args.one, args), args.rows)
        return
    for problem in args.problems:
        for method in args.methods:
            words = [sys.executable, __file__, "--one", problem, method, "--set", args.set]
            words += ["--device", args.device, "--seed", str(args.seed), "--rows", str(args.rows)]
            subprocess.run(words, check=True)


def measure(problem, method, args):
    """The row of one sampler on one problem; of the second fit in the process."""
    import gmm_bayes as gb

    # The verdict is in the row.
    warnings.simplefilter("ignore", gb.errors.GMMBayesWarning)
    X, k, priors = problems(gb)[problem]()
    settings = {**METHODS[method], **json.loads(args.set)}
    sampler = getattr(gb, settings.pop("kind"))(**settings)
    fits = [
        gb.fit(X, k, priors=priors, sampler=sampler, seed=args.seed + i, device=args.device)
        for i in range(2)
    ]
    fit, found = fits[1], gb.diagnose(fits[1])
    draws = {name: fit.posterior[name].values for name in ("weights", "means", "scales")}
    free = found.table[found.table["label_free"].astype(bool)]
    judged = record.quality(draws)
    kept, everything = int(fit.sample_stats["n_steps"].sum()), fit.run["n_gradients"]
    label_free_ess = float(free["ess_bulk"].min())
    return record.make_row(
        NAME,
        method,
        (*X.shape[:1], k, X.shape[1]),
        problem=problem,
        seed=args.seed,
        device=record.device_name(args.device),
        **judged,
        num_warmup=fit.run["num_warmup"],
        num_superchains=found.num_superchains,
        label_free_ess=label_free_ess,
        nested_rhat=float(free["rhat"].max()) if found.num_superchains else None,
        switched=found.switched,
        verdict_ok=found.ok,
        divergences=found.n_divergences,
        num_gradients=everything,
        num_gradients_sampling=kept,
        ess_per_1000_gradients=1000 * label_free_ess / everything,
        ess_per_1000_gradients_sampling=1000 * label_free_ess / kept,
        ess_per_1000_in_a_row=1000 * label_free_ess * sampler.num_chains / everything,
        sample_seconds=fit.timings["sample"],
        compile_seconds=fits[0].timings["compile"],
        ess_per_second=label_free_ess / fit.timings["sample"],
        peak_memory_mb=record.memory_mb("VmHWM"),
    )


if __name__ == "__main__":
    main()
