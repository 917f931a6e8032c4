"""Fit one problem with this package, once or twice in one process, and leave draws and timings.

Run by sampling.py, first_result.py and scaling.py, each time in a process of its own. It leaves
the same file as the scripts in peers/.
"""

import argparse
import json
import sys
import time
from pathlib import Path

BEGIN = time.perf_counter()

import gmm_bayes as gb  # noqa: E402

IMPORT_SECONDS = time.perf_counter() - BEGIN

import numpy as np  # noqa: E402

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "peers"))

import peer  # noqa: E402
import record  # noqa: E402

# Phases that do not count as sampling. All the others do, the start too: the mode and the curvature
# there stand in for a warm-up.
_NOT_SAMPLING = {"import", "compile", "summarise"}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problem")
    parser.add_argument("out")
    parser.add_argument("--warmup", type=int, help="default: the sampler's own")
    parser.add_argument("--draws", type=int, help="default: the sampler's own")
    parser.add_argument("--chains", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=2, help="fits in this process")
    parser.add_argument("--priors", choices=["fixed", "centroids", "default"], default="centroids")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--started", type=float, help="time.time() when this process was launched")
    parser.add_argument("--load-first", action="store_true", help="import all that a fit imports")
    args = parser.parse_args()
    if args.load_first:
        load_everything()
    after_import = record.memory_mb("VmRSS")
    X, centroids = peer.load(args.problem)
    settings = {"num_warmup": args.warmup, "num_samples": args.draws, "num_chains": args.chains}
    sampler = gb.NUTS(**{name: value for name, value in settings.items() if value is not None})
    priors = {
        "fixed": gb.Priors.fixed(),
        "centroids": gb.Priors.fixed(centroids),
        "default": None,
    }[args.priors]

    fits, seconds, first_result = [], [], None
    for i in range(args.repeats):
        begin = time.perf_counter()
        fit = gb.fit(
            X,
            len(centroids),
            priors=priors,
            sampler=sampler,
            seed=args.seed + i,
            device=args.device,
            progress=False,
        )
        seconds.append(time.perf_counter() - begin)
        if i == 0 and args.started is not None:
            first_result = time.time() - args.started
        fits.append(dict(fit.timings))
    peak = record.memory_mb("VmHWM")
    stats = fit.sample_stats
    run = json.loads(fit.datatree.attrs.get("run", "{}"))
    peer.save(
        args.out,
        {name: fit.posterior[name].values for name in ("weights", "means", "scales")},
        ("gmm_bayes", "jax", "numpyro"),
        import_seconds=IMPORT_SECONDS,
        compile_seconds=fits[0].get("compile"),
        # Of the last fit in the process: of the second, in which nothing is compiled.
        sample_seconds=sum(s for phase, s in fits[-1].items() if phase not in _NOT_SAMPLING),
        sample_phase_seconds=fits[-1]["sample"],
        fit_seconds=seconds[0],
        second_fit_seconds=seconds[1] if args.repeats > 1 else None,
        first_result_seconds=first_result,
        phases_first_fit=fits[0],
        phases_last_fit=fits[-1],
        num_fits=args.repeats,
        run=run,
        num_gradients=run.get("n_gradients"),
        num_gradients_sampling=int(stats["n_steps"].sum()),
        divergences=int(stats["diverging"].sum()),
        verdict_ok=not json.loads(fit.datatree.attrs["problems"]),
        chain_method=fit.chain_method,
        memory_beyond_data_mb=peak - after_import - X.nbytes / 2**20,
        memory_after_import_mb=after_import,
    )


def load_everything():
    """Import what a fit imports as it goes, so that libraries are not taken for its memory."""
    import jax

    from gmm_bayes.inference import arviz_bridge

    arviz_bridge.import_arviz()
    jax.block_until_ready(jax.numpy.zeros(1) + 1)
    np.zeros(1)


if __name__ == "__main__":
    main()
