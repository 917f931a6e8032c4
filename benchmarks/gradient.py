"""Value and gradient of the summed log-likelihood: our kernel against NumPyro's mixture.

Each size and number of BLAS threads is a process of its own, in which the methods take turns and
the machine's own matrix-product rate is measured.
"""

import argparse
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import record

NAME = "gradient"
SIZES = (
    (500, 8, 2),
    (10_000, 6, 5),
    (10_000, 10, 10),
    (100_000, 10, 10),
    (1_000_000, 10, 10),
    (20_000, 20, 20),
)
GPU_SIZES = ((100_000, 10, 10), (1_000_000, 10, 10))
# Calls per program: enough work in one program that the call itself costs nothing beside it.
_FLOPS_PER_CALL = 2e8


def flops(size):
    """Two matrix products of N x F by F x K: 4 N K F."""
    n, k, d = size
    return 4 * n * k * (d + 1) * (d + 2) / 2


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", metavar="N,K,D", help="default: the issue's sizes")
    parser.add_argument("--threads", nargs="+", default=["1", "default"], help="OpenBLAS threads")
    parser.add_argument("--seconds", type=float, default=20.0, help="measuring time of a process")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--chains", type=int, nargs="+", default=[1])
    parser.add_argument("--rows", default=record.ROWS, help="folder of the rows")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    sizes = [tuple(int(float(x)) for x in size.split(",")) for size in args.sizes or []]
    sizes = sizes or (SIZES if args.device == "cpu" else GPU_SIZES)
    if args.child:
        for row in measure(sizes[0], args.threads[0], args.seconds, args.device, args.chains[0]):
            print(json.dumps(row))
        return
    threads = args.threads if args.device == "cpu" else ["default"]
    for size in sizes:
        for count in threads:
            for chains in args.chains:
                for row in _in_a_process(size, count, chains, args):
                    record.emit(NAME, row, args.rows)


def _in_a_process(size, threads, chains, args):
    env = {"JAX_ENABLE_X64": "1"}
    if threads != "default":
        env["OPENBLAS_NUM_THREADS"] = threads
    if args.device == "cpu":
        env["JAX_PLATFORMS"] = "cpu"
    words = ["--child", "--sizes", ",".join(map(str, size)), "--threads", threads]
    words += ["--seconds", args.seconds, "--device", args.device, "--chains", chains]
    return record.child_rows("gradient.py", *words, env=env)


def measure(size, threads, seconds, device, n_chains):
    """Rows of one process."""
    import numpy as np

    methods = build_methods(size, n_chains, device)
    limit = record.total_memory_bytes() / 2
    skipped = {m: p for m, p in methods.items() if device == "cpu" and p.temporary_bytes > limit}
    running = {m: p for m, p in methods.items() if m not in skipped}
    times = take_turns(running, seconds)
    rates = {f"matmul_gflops_{name}": matmul_rate(name) for name in ("float64", "float32")}
    gflops = flops(size) / 1e9
    rows = []
    for name, program in methods.items():
        values = {"temporary_mb": program.temporary_bytes / 2**20, **rates}
        if name in skipped:
            values |= {"seconds": None, "skipped": "needs more than half of the memory"}
        else:
            median = float(np.median(times[name]))
            rate = program.at_once * gflops / median
            values |= {
                "seconds": median,
                "seconds_best": float(min(times[name])),
                "rounds": len(times[name]),
                "gradients_at_once": program.at_once,
                "gflops": rate,
                "share_of_matmul": rate / rates[f"matmul_gflops_{program.dtype}"],
                **agreement(program, running["likelihood"]),
            }
            for other in ("kernel", "likelihood"):
                values[f"ratio_to_{other}"] = median / float(np.median(times[other]))
        rows.append(
            record.make_row(
                NAME,
                name,
                size,
                dtype=program.dtype,
                device=record.device_name(device),
                blas_threads=threads if threads == "default" else int(threads),
                openblas_num_threads=os.environ.get("OPENBLAS_NUM_THREADS"),
                num_chains=n_chains,
                **values,
            )
        )
    return rows


class Program:
    """A value and gradient, compiled, made `inner` times in one call."""

    def __init__(self, function, parameters, data, *, n_chains=1, inner=1):
        import jax
        import jax.numpy as jnp

        gradient = jax.value_and_grad(function)
        if n_chains > 1:
            gradient = jax.vmap(gradient, in_axes=(0, None))
            parameters = jax.tree.map(lambda a: jnp.stack([a] * n_chains), parameters)

        def repeated(parameters, data):
            # Each pass begins where the last one ended, so that none of them can be left out.
            def again(_, carry):
                value, slope = gradient(carry[0], data)
                moved = jax.tree.map(lambda p, g: p + 1e-30 * g, carry[0], slope)
                return moved, value, slope

            shapes = jax.eval_shape(gradient, parameters, data)
            blank = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
            return jax.lax.fori_loop(0, inner, again, (parameters, *blank))[1:]

        self.arguments, self.inner, self.at_once = (parameters, data), inner, n_chains
        self.dtype = str(jax.tree.leaves(data)[0].dtype)
        self.compiled = jax.jit(repeated).lower(*self.arguments).compile()
        self.temporary_bytes = int(self.compiled.memory_analysis().temp_size_in_bytes)

    def __call__(self):
        import jax

        return jax.block_until_ready(self.compiled(*self.arguments))


class OnEveryCore:
    """A program called from as many threads as there are cores."""

    def __init__(self, program):
        self.program, self.copies = program, len(os.sched_getaffinity(0))
        self.at_once = self.copies * program.at_once
        self.inner, self.dtype = program.inner, program.dtype
        self.temporary_bytes = self.copies * program.temporary_bytes
        self.pool = ThreadPoolExecutor(self.copies)

    def __call__(self):
        return next(iter(self.pool.map(lambda _: self.program(), range(self.copies))))


def build_methods(size, n_chains, device):
    """The programs by name. A new method is one more line of the dictionary below."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import numpyro.distributions as dist

    import gmm_bayes as gb
    from gmm_bayes.core.likelihood import block_rows, component_scores, sum_log_density
    from gmm_bayes.inference.potential import (
        Data,
        ModelSpec,
        log_prior,
        potential,
        site_values,
        space,
    )

    n, k, d = size
    truth = gb.datasets.make_mixture(n, k, d, seed=0)
    X = truth.X - truth.X.mean(axis=0)
    mixture = gb.MixtureParameters(
        truth.weights, truth.means - truth.X.mean(axis=0), np.linalg.cholesky(truth.covariances)
    )
    spec = ModelSpec(k, "full")
    prior = gb.Priors.fixed(mixture.means).arrays(k, d)
    chosen = jax.devices(device)[0]

    def likelihood(parameters, rows):
        return sum_log_density(component_scores(*parameters), rows)

    def minus_log_joint(z, data):
        return potential(z, data, spec)

    def numpyro_likelihood(parameters, X):
        weights, means, tril = parameters
        components = dist.MultivariateNormal(means, scale_tril=tril)
        mixed = dist.MixtureSameFamily(dist.Categorical(probs=weights), components)
        return mixed.log_prob(X).sum()

    with jax.default_device(chosen):
        parameters = tuple(jnp.asarray(a) for a in mixture)
        rows = jax.device_put(block_rows(X), chosen)
        # In single precision a block should hold rows of one group, as in a fit.
        single = block_rows(X, precision="float32", groups=truth.labels)
        single = jax.device_put(single, chosen)
        data = Data(rows, jax.tree.map(jnp.asarray, log_prior(prior, spec)))
        z = jnp.asarray(space(spec, d).vector(site_values(mixture, spec)))
        inner = int(np.clip(_FLOPS_PER_CALL / (n_chains * flops(size)), 1, 200))
        build = {
            "kernel": (sum_log_density, component_scores(*parameters), rows),
            "likelihood": (likelihood, parameters, rows),
            "likelihood float32": (likelihood, parameters, single),
            "potential": (minus_log_joint, z, data),
            "numpyro": (numpyro_likelihood, parameters, jnp.asarray(X)),
        }
        programs = {
            name: Program(*what, n_chains=n_chains, inner=inner) for name, what in build.items()
        }
    if device == "cpu":
        # As parallel chains run it: a gradient of its own on every core, all at once. Not for
        # NumPyro: two of its programs at once did not come to an end when it was tried.
        programs["likelihood, one per core"] = OnEveryCore(programs["likelihood"])
        pair = Program(*build["likelihood"], n_chains=2, inner=inner)
        programs["likelihood, two chains per core"] = OnEveryCore(pair)
    return programs


def take_turns(programs, seconds):
    """Seconds of one value and gradient, a list per method, the methods in turn."""
    for program in programs.values():
        program()
    times = {name: [] for name in programs}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 3:
        for name, program in programs.items():
            begin = time.perf_counter()
            program()
            times[name].append((time.perf_counter() - begin) / program.inner)
    return times


def matmul_rate(dtype):
    """Best GF/s of several products of two 2000 x 2000 matrices, on all cores."""
    import jax
    import jax.numpy as jnp

    a = jnp.ones((2000, 2000), dtype)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST))
    jax.block_until_ready(product(a, a))
    best = float("inf")
    for _ in range(10):
        begin = time.perf_counter()
        jax.block_until_ready(product(a, a))
        best = min(best, time.perf_counter() - begin)
    return 2 * 2000**3 / best / 1e9


def agreement(program, reference):
    """Relative differences of value and gradient, where the parameters are the same."""
    import jax
    import numpy as np

    (value, slope), (expected, expected_slope) = program(), reference()
    if jax.tree.structure(slope) != jax.tree.structure(expected_slope):
        return {}

    def flat(tree):
        # Weights count up to a factor, and nothing counts above a Cholesky factor's diagonal.
        weights, means, tril = (np.asarray(leaf, dtype=float) for leaf in tree)
        weights = weights - weights.mean(axis=-1, keepdims=True)
        return np.concatenate([leaf.ravel() for leaf in (weights, means, np.tril(tril))])

    a, b = flat(slope), flat(expected_slope)
    if a.shape != b.shape:
        return {}
    value, expected = np.asarray(value, dtype=float), np.asarray(expected, dtype=float)
    return {
        "value_difference": float(np.max(np.abs(value / expected - 1))),
        "gradient_difference": float(np.linalg.norm(a - b) / np.linalg.norm(b)),
    }


if __name__ == "__main__":
    main()
