"""BayesForge with cores=4: its own mixture, or the same with the LKJ prior of the other methods."""

import time

import peer

args = peer.arguments(
    __doc__,
    ("--built-in", {"action": "store_true", "help": "its own gmm: LKJ(1), its own k-means"}),
    ("--chain-method", {"choices": ["auto", "parallel", "sequential", "vectorized"]}),
    ("--started", {"type": float, "default": None, "help": "time.time() at the launch"}),
)
X, centroids = peer.load(args.problem)
METHOD = args.chain_method or "auto"
if METHOD == "auto":
    METHOD = "parallel" if len(X) * centroids.size <= 50_000 else "sequential"

begin = time.perf_counter()
import jax.numpy as jnp  # noqa: E402
from BayesForge import bf  # noqa: E402

m = bf(platform=args.device, cores=4, rand_seed=args.seed, print_devices_found=False)
IMPORT_SECONDS = time.perf_counter() - begin


def recipe(data, K, initial_means):
    """BayesForge's gmm line by line, with concentration 2 where that has 1."""
    d = data.shape[1]
    weights = m.dist.dirichlet(concentration=0.5 * jnp.ones(K), name="weights")
    with m.dist.plate("components", K):
        mu = m.dist.multivariate_normal(
            loc=initial_means, covariance_matrix=0.1 * jnp.eye(d), name="mu"
        )
        sigma = m.dist.half_cauchy(1, shape=(d,), event=1, name="sigma")
        correlation = m.dist.lkj_cholesky(dimension=d, concentration=2.0, name="Lcorr")
        tril = sigma[..., None] * correlation
    m.dist.mixture_same_family(
        mixing_distribution=m.dist.categorical(probs=weights, create_obj=True),
        component_distribution=m.dist.multivariate_normal(loc=mu, scale_tril=tril, create_obj=True),
        name="obs",
        obs=data,
    )


def fit(seed):
    """Seconds of one fit and of its compilation."""
    data = {"data": jnp.asarray(X), "K": len(centroids)}
    if not args.built_in:
        data["initial_means"] = jnp.asarray(centroids)
    m.data_on_model = data
    begin = time.perf_counter()
    m.fit(
        m.gmm if args.built_in else recipe,
        num_warmup=args.warmup,
        num_samples=args.draws,
        num_chains=args.chains,
        max_tree_depth=args.max_tree_depth,
        chain_method=METHOD,
        progress_bar=False,
        seed=seed,
    )
    for values in m.posteriors.values():
        values.block_until_ready()
    return time.perf_counter() - begin, begin


def main():
    clock = peer.CompileClock()
    wall, begin = fit(args.seed)
    first_result = None if args.started is None else time.time() - args.started
    compiling = clock.seconds(begin)
    draws, fields = dict(m.posteriors_by_chain), dict(m.extra_fields_by_chain)
    second = fit(args.seed + 1)[0] if args.started is not None else None
    peer.save(
        args.out,
        {"weights": draws["weights"], "means": draws["mu"], "scales": draws["sigma"]},
        ("BayesForge", "numpyro", "jax"),
        import_seconds=IMPORT_SECONDS,
        compile_seconds=compiling,
        sample_seconds=wall - compiling,
        fit_seconds=wall,
        first_result_seconds=first_result,
        second_fit_seconds=second,
        num_gradients=None,
        num_gradients_sampling=int(fields["num_steps"].sum()),
        divergences=int(fields["diverging"].sum()),
        chain_method=METHOD,
    )


main()
