"""The textbook model as anyone would write it in NumPyro, with NUTS as it comes."""

import os
import time

import peer

os.environ.setdefault("JAX_ENABLE_X64", "1")
args = peer.arguments(
    __doc__,
    ("--start", {"choices": ["default", "centroids"], "default": "default"}),
    ("--chain-method", {"choices": ["auto", "parallel", "sequential", "vectorized"]}),
)
X, centroids = peer.load(args.problem)
# Host devices run chains at once, but on larger problems they wait for each other for ever.
METHOD = args.chain_method or ("vectorized" if args.device == "gpu" else "auto")
if METHOD == "auto":
    METHOD = "parallel" if len(X) * centroids.size <= 50_000 else "sequential"

begin = time.perf_counter()
import numpyro  # noqa: E402

if METHOD == "parallel":
    numpyro.set_host_device_count(args.chains)
numpyro.set_platform(args.device)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpyro.distributions as dist  # noqa: E402
from numpyro.infer import MCMC, NUTS, init_to_uniform, init_to_value  # noqa: E402

IMPORT_SECONDS = time.perf_counter() - begin


def model(X, centroids):
    k, d = centroids.shape
    weights = numpyro.sample("weights", dist.Dirichlet(0.5 * jnp.ones(k)))
    with numpyro.plate("component", k):
        means = numpyro.sample("means", dist.MultivariateNormal(centroids, 0.1 * jnp.eye(d)))
        scales = numpyro.sample("scales", dist.HalfCauchy(1.0).expand([d]).to_event(1))
        correlation = numpyro.sample("correlation_cholesky", dist.LKJCholesky(d, 2.0))
    rows = dist.MixtureSameFamily(
        dist.Categorical(probs=weights),
        dist.MultivariateNormal(means, scale_tril=scales[..., None] * correlation),
    )
    with numpyro.plate("obs", len(X)):
        numpyro.sample("X", rows, obs=X)


def main():
    clock = peer.CompileClock()
    strategy = init_to_uniform
    if args.start == "centroids":
        strategy = init_to_value(values={"means": jnp.asarray(centroids)})
    kernel = NUTS(model, init_strategy=strategy, max_tree_depth=args.max_tree_depth)
    mcmc = MCMC(
        kernel,
        num_warmup=args.warmup,
        num_samples=args.draws,
        num_chains=args.chains,
        chain_method=METHOD,
        progress_bar=False,
    )
    data = (jnp.asarray(X), jnp.asarray(centroids))
    warmup_key, key = jax.random.split(jax.random.key(args.seed))
    begin = time.perf_counter()
    # Warm-up apart, so that its gradients can be counted. That compiles the loop once more.
    mcmc.warmup(warmup_key, *data, extra_fields=("num_steps",), collect_warmup=True)
    warmup_steps = int(mcmc.get_extra_fields()["num_steps"].sum())
    keys = jax.random.split(key, args.chains) if args.chains > 1 else key
    mcmc.run(keys, *data, extra_fields=("num_steps", "diverging"))
    fields = jax.device_get(mcmc.get_extra_fields())
    draws = jax.device_get(mcmc.get_samples(group_by_chain=True))
    wall, compiling = time.perf_counter() - begin, clock.seconds(begin)
    steps = int(fields["num_steps"].sum())
    peer.save(
        args.out,
        {name: draws[name] for name in ("weights", "means", "scales")},
        ("numpyro", "jax"),
        import_seconds=IMPORT_SECONDS,
        compile_seconds=compiling,
        sample_seconds=wall - compiling,
        fit_seconds=wall,
        num_gradients=warmup_steps + steps,
        num_gradients_sampling=steps,
        divergences=int(fields["diverging"].sum()),
        chain_method=METHOD,
    )


main()
