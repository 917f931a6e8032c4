"""EM by scikit-learn's GaussianMixture from a given start."""

import warnings

import em_peer
import numpy as np
import peer
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

args = em_peer.arguments(__doc__)
X, weights, means, covariances = em_peer.load(args.problem)
PRECISIONS = np.linalg.inv(covariances[0])


def run(n_iter):
    """So many iterations: with tol=0 it never says that it has converged."""
    mixture = GaussianMixture(
        len(weights[0]),
        tol=0,
        max_iter=n_iter,
        weights_init=weights[0],
        means_init=means[0],
        precisions_init=PRECISIONS,
        init_params="random_from_data",
    )
    return mixture.fit(X)


def main():
    warnings.simplefilter("ignore", ConvergenceWarning)
    run(args.few)
    seconds = em_peer.seconds_per_iteration(run, args)
    end = run(args.many)
    assert end.n_iter_ == args.many
    peer.save(
        args.out,
        {"weights": end.weights_, "means": end.means_, "covariances": end.covariances_},
        ("scikit-learn", "numpy"),
        seconds_per_iteration=seconds,
        compile_seconds=None,
    )


main()
