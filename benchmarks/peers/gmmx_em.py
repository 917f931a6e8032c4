"""EM by gmmx's EMFitter from a given start.

gmmx refuses float64, though it computes with it: its check of the type is switched off for that.
"""

import em_peer
import jax
import numpy as np
import peer

args = em_peer.arguments(
    __doc__, ("--dtype", {"choices": ["float64", "float32"], "default": "float64"})
)
jax.config.update("jax_enable_x64", args.dtype == "float64")

import gmmx.gmm  # noqa: E402
from gmmx import EMFitter, GaussianMixtureModelJax  # noqa: E402

if args.dtype == "float64":
    gmmx.gmm.check_shape = lambda array, expected: None


def main():
    X, weights, means, covariances = em_peer.load(args.problem, args.dtype)
    start = GaussianMixtureModelJax.from_squeezed(
        means=jax.numpy.asarray(means[0]),
        covariances=jax.numpy.asarray(covariances[0]),
        weights=jax.numpy.asarray(weights[0]),
    )
    X = jax.numpy.asarray(X)
    assert X.dtype == args.dtype

    def run(n_iter):
        # A tolerance that no difference is below.
        return jax.block_until_ready(EMFitter(max_iter=n_iter, tol=-1.0).fit(X, start))

    run(args.few)
    clock = peer.CompileClock()
    end = run(args.many)
    compile_seconds = clock.seconds()
    assert int(end.n_iter) == args.many
    seconds = em_peer.seconds_per_iteration(run, args)
    peer.save(
        args.out,
        {
            "weights": end.gmm.weights_numpy,
            "means": end.gmm.means_numpy,
            "covariances": np.asarray(end.gmm.covariances.values_dense)[0],
        },
        ("gmmx", "jax"),
        seconds_per_iteration=seconds,
        compile_seconds=compile_seconds,
    )


main()
