"""PyMC with nutpie on numba: the marginal density written by hand."""

import time

import peer

args = peer.arguments(__doc__)

begin = time.perf_counter()
import numpy as np  # noqa: E402
import nutpie  # noqa: E402
import pymc as pm  # noqa: E402
import pytensor.tensor as pt  # noqa: E402
from pytensor.tensor.slinalg import solve_triangular  # noqa: E402

IMPORT_SECONDS = time.perf_counter() - begin


def correlation_cholesky(k, d, eta):
    """LKJ(eta) Cholesky factors (k, d, d) from partial correlations, for all components at once.

    PyMC's own LKJCholeskyCov makes one matrix at a time, and its graph of K of them takes minutes
    to compile. The partial correlation in column j has the density (1 - z^2)^(beta - 1) with
    beta = eta + (d - 2 - j) / 2 (Lewandowski, Kurowicka and Joe 2009); tanh adds a factor 1 - z^2.
    """
    rows, columns = np.tril_indices(d, -1)
    free = pm.Flat("partial", shape=(k, len(rows)))
    z = pt.zeros((k, d, d))[:, rows, columns].set(pt.tanh(free))
    log_rest = pt.log1p(-(z**2))
    beta = eta + (d - 2 - columns) / 2
    pm.Potential("lkj", (beta * log_rest[:, rows, columns]).sum())
    # Entry (i, j) is z_ij, or 1 on the diagonal, times the root of prod_{m < j} (1 - z_im^2).
    before = pt.dot(log_rest.reshape((k * d, d)), np.triu(np.ones((d, d)), 1))
    return (z + np.eye(d)) * pt.exp(0.5 * before.reshape((k, d, d)))


def build(X, centroids):
    """The model, whitened by one matrix product for each feature."""
    k, d = centroids.shape
    n = len(X)
    with pm.Model() as model:
        weights = pm.Dirichlet("weights", 0.5 * np.ones(k))
        means = pm.Normal("means", centroids, np.sqrt(0.1), shape=(k, d))
        scales = pm.HalfCauchy("scales", 1.0, shape=(k, d))
        tril = scales[:, :, None] * correlation_cholesky(k, d, 2.0)
        identity = np.broadcast_to(np.eye(d), (k, d, d)).copy()
        whiten = solve_triangular(tril, identity, lower=True, b_ndim=2)
        shift = (whiten * means[:, None, :]).sum(axis=-1)
        # One direction at a time: numba fuses these, but is slow to sum over a short last axis.
        squared = sum((pt.dot(X, whiten[:, i, :].T) - shift[:, i]) ** 2 for i in range(d))
        log_det = pt.log(pt.diagonal(tril, axis1=1, axis2=2)).sum(axis=-1)
        scores = pt.log(weights) - log_det - 0.5 * squared
        total = pt.logsumexp(scores, axis=-1).sum()
        pm.Potential("rows", total - 0.5 * n * d * np.log(2 * np.pi))
    return model


def main():
    X, centroids = peer.load(args.problem)
    begin = time.perf_counter()
    compiled = nutpie.compile_pymc_model(build(X, centroids), backend="numba")
    built = time.perf_counter()
    trace = nutpie.sample(
        compiled,
        draws=args.draws,
        tune=args.warmup,
        chains=args.chains,
        cores=min(args.chains, peer.cores()),
        seed=args.seed,
        maxdepth=args.max_tree_depth,
        save_warmup=True,
        progress_bar=False,
    )
    end = time.perf_counter()
    stats, warmup = trace.sample_stats, trace.warmup_sample_stats
    steps = int(stats["n_steps"].sum())
    peer.save(
        args.out,
        {name: trace.posterior[name].values for name in ("weights", "means", "scales")},
        ("pymc", "nutpie", "pytensor", "numba"),
        import_seconds=IMPORT_SECONDS,
        compile_seconds=built - begin,
        sample_seconds=end - built,
        fit_seconds=end - begin,
        num_gradients=steps + int(warmup["n_steps"].sum()),
        num_gradients_sampling=steps,
        divergences=int(stats["diverging"].sum()),
        chain_method="threads",
    )


if __name__ == "__main__":
    main()
