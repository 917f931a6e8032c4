"""EM by this package from given starts, or the memory of a whole gb.fit_em. Run by em.py."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "peers"))

import em_peer
import jax
import numpy as np
import peer
import record

import gmm_bayes as gb
from gmm_bayes.core.likelihood import block_rows
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.inference.em.steps import ROWS_PER_BLOCK, VARIANCE_FLOOR, e_step, maximise
from gmm_bayes.inference.potential import ModelSpec
from gmm_bayes.machine.devices import double_precision
from gmm_bayes.model.centres import few_threads

PACKAGES = ("gmm_bayes", "jax", "numpyro")
# The difference of two sums over rows is never as small as this.
_NEVER = -1.0


def main():
    args = em_peer.arguments(
        __doc__,
        ("--starts", {"type": int, "default": 1}),
        ("--memory", {"action": "store_true", "help": "of gb.fit_em as it comes"}),
    )
    if args.memory:
        memory(args)
    else:
        X, *start = em_peer.load(args.problem)
        with double_precision(), few_threads(X):
            iterations(X, [array[: args.starts] for array in start], args)


def iterations(X, start, args):
    """Time the compiled program on rows that are on the device, as fit_em calls it."""
    rows = jax.device_put(block_rows(X, rows_per_block=ROWS_PER_BLOCK))
    mixtures = jax.vmap(MixtureParameters.from_covariances)(*start)
    moments = jax.vmap(lambda mixture: e_step(mixture, rows)[1])(mixtures)
    arguments = (moments, rows, *jax.device_put((_NEVER, VARIANCE_FLOOR, args.many)))
    spec = ModelSpec(start[0].shape[1], "full")
    programs, compiling = {}, {}
    for n_iter in (args.few, args.many):
        begin = time.perf_counter()
        lowered = maximise.lower(*arguments, spec=spec, max_iter=n_iter)
        programs[n_iter] = lowered.compile()
        compiling[n_iter] = time.perf_counter() - begin

    def run(n_iter):
        return jax.block_until_ready(programs[n_iter](*arguments))

    run(args.few)
    end = run(args.many)
    assert np.all(np.asarray(end.n_iter) == args.many)
    first = jax.tree.map(lambda a: np.asarray(a)[0], end.mixture)
    peer.save(
        args.out,
        {
            "weights": first.weights,
            "means": first.means,
            "covariances": first.covariances,
        },
        PACKAGES,
        seconds_per_iteration=[s / args.starts for s in em_peer.seconds_per_iteration(run, args)],
        compile_seconds=compiling[args.many],
        temporary_mb=programs[args.many].memory_analysis().temp_size_in_bytes / 2**20,
    )


def memory(args):
    """Peak memory of a process in which everything was imported before."""
    import pandas  # noqa: F401
    import sklearn.cluster
    import sklearn.mixture  # noqa: F401
    from scipy.spatial import cKDTree  # noqa: F401

    jax.devices("cpu")
    with np.load(args.problem) as file:
        k = file["weights"].shape[1]
        after_import = record.memory_mb("VmRSS")
        X = file["X"]
    begin = time.perf_counter()
    fit = gb.fit_em(X, k, max_iter=args.many)
    seconds = time.perf_counter() - begin
    data_mb = X.nbytes / 2**20
    peer.save(
        args.out,
        {"weights": fit.weights, "means": fit.means, "covariances": fit.covariances},
        PACKAGES,
        fit_seconds=seconds,
        data_mb=data_mb,
        memory_beyond_data_mb=record.memory_mb("VmHWM") - after_import - data_mb,
    )


if __name__ == "__main__":
    main()
