"""Stan through PyStan: the mixture with the usual loop over rows."""

import time

import peer

args = peer.arguments(__doc__)

begin = time.perf_counter()
import numpy as np  # noqa: E402
import stan  # noqa: E402

IMPORT_SECONDS = time.perf_counter() - begin
# A build that takes less than this was found in PyStan's cache.
_CACHED_SECONDS = 3.0

PROGRAM = """
data {
  int<lower=1> N; int<lower=1> K; int<lower=1> D;
  array[N] vector[D] X;
  array[K] vector[D] centroids;
}
parameters {
  simplex[K] weights;
  array[K] vector[D] means;
  array[K] vector<lower=0>[D] scales;
  array[K] cholesky_factor_corr[D] correlation_cholesky;
}
model {
  array[K] matrix[D, D] tril;
  vector[K] log_weights = log(weights);
  weights ~ dirichlet(rep_vector(0.5, K));
  for (k in 1:K) {
    means[k] ~ normal(centroids[k], sqrt(0.1));
    scales[k] ~ cauchy(0, 1);
    correlation_cholesky[k] ~ lkj_corr_cholesky(2);
    tril[k] = diag_pre_multiply(scales[k], correlation_cholesky[k]);
  }
  for (n in 1:N) {
    vector[K] lp = log_weights;
    for (k in 1:K) lp[k] += multi_normal_cholesky_lpdf(X[n] | means[k], tril[k]);
    target += log_sum_exp(lp);
  }
}
"""


def by_chain(fit, name, shape):
    """Kept draws of one parameter as (chain, draw, ...)."""
    draws = np.moveaxis(fit[name], -1, 0)
    draws = draws.reshape(-1, args.chains, *shape)[args.warmup :]
    return np.moveaxis(draws, 1, 0)


def main():
    X, centroids = peer.load(args.problem)
    k, d = centroids.shape
    data = {"N": len(X), "K": k, "D": d, "X": X.tolist(), "centroids": centroids.tolist()}
    begin = time.perf_counter()
    posterior = stan.build(PROGRAM, data=data, random_seed=args.seed + 1)
    built = time.perf_counter()
    fit = posterior.sample(
        num_chains=args.chains,
        num_warmup=args.warmup,
        num_samples=args.draws,
        save_warmup=True,
        max_depth=args.max_tree_depth,
        init=[{"means": centroids.tolist()}] * args.chains,
    )
    end = time.perf_counter()
    steps = by_all(fit, "n_leapfrog__")
    peer.save(
        args.out,
        {
            "weights": by_chain(fit, "weights", (k,)),
            "means": by_chain(fit, "means", (k, d)),
            "scales": by_chain(fit, "scales", (k, d)),
        },
        ("pystan", "httpstan"),
        import_seconds=IMPORT_SECONDS,
        compile_seconds=built - begin if built - begin > _CACHED_SECONDS else None,
        sample_seconds=end - built,
        fit_seconds=end - begin,
        num_gradients=int(steps.sum()),
        num_gradients_sampling=int(steps[args.warmup :].sum()),
        divergences=int(by_all(fit, "divergent__")[args.warmup :].sum()),
        chain_method="processes",
        # Its chains are processes, and so was the C++ compiler, which is larger.
        **({"peak_memory_mb": None} if built - begin > _CACHED_SECONDS else {}),
    )


def by_all(fit, name):
    """A statistic of every transition, warm-up first, shape (draw, chain)."""
    return fit[name].reshape(-1, args.chains)


if __name__ == "__main__":
    main()
