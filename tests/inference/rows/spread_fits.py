"""Fits on one, two and four devices, in a process of its own that has four: prints what they say.

Run as a program by test_sharding.py.
"""

import json
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"
# Devices are threads already.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import jax
import numpy as np
from jax import monitoring
from jax.sharding import Mesh

import gmm_bayes as gb
from gmm_bayes.core.likelihood import ComponentScores, block_rows, sum_log_density
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.core.sharding import Split
from gmm_bayes.inference.rows.placement import spread

COLLECTIVES = ("all-reduce", "all-gather", "collective-permute", "all-to-all", "reduce-scatter")


def two_groups(n_obs):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_obs, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
    X[n_obs // 2 :] += [7.0, -6.0]
    return X


def kernel(precision):
    """The gradient on one device and on four: the largest relative error, and what is sent."""
    rng, (n, k, d) = np.random.default_rng(1), (4001, 3, 3)
    scores = ComponentScores(rng.normal(size=k), rng.normal(size=(k, d, d + 1)))
    rows = block_rows(rng.normal(size=(n, d)), precision=precision, rows_per_block=300, multiple=4)
    mesh = Mesh(np.array(jax.devices()).reshape(1, 4), ("chains", "rows"))
    with jax.enable_x64(True):
        gradient = jax.jit(jax.value_and_grad(sum_log_density))
        one = gradient(scores, jax.device_put(rows))
        many = spread(rows, mesh, "rows")._replace(split=Split(mesh))
        text = gradient.lower(scores, many).compile().as_text()
        four = jax.tree.map(np.asarray, gradient(scores, many))
        one = jax.tree.map(np.asarray, one)
    own = [shard.data.shape[0] for shard in many.values.addressable_shards]
    return {
        "error": max(
            float(np.max(np.abs(a - b)) / np.max(np.abs(b)))
            for a, b in zip(jax.tree.leaves(four), jax.tree.leaves(one), strict=True)
        ),
        "sent": re.findall(rf"= (\S+) (?:{'|'.join(COLLECTIVES)})(?:-start)?\(", text),
        "kinds": [name for name in COLLECTIVES if re.search(rf"\s{name}(?:-start)?\(", text)],
        "blocks": own,
    }


def programs():
    """Names of the programs that were compiled, as they are."""
    seen = []

    def listen(event, seconds, **facts):
        if "backend_compile" in event:
            seen.append(str(facts.get("fun_name")))

    monitoring.register_event_duration_secs_listener(listen)
    return seen


def compare(fit, one):
    over = ("chain", "draw")
    return {
        "means apart": max(
            float(
                (abs(fit.posterior[name].mean(over) - values.mean(over)) / values.std(over)).max()
            )
            for name, values in one.posterior[["weights", "means", "scales"]].items()
        ),
        "difference": max(
            float(abs(fit.posterior[name] - one.posterior[name]).max()) for name in one.posterior
        ),
        "run": fit.run,
        "device": fit.device,
    }


def from_a_file(X, samplers, start):
    """Fits of rows that stay in a file: the difference from the table's, and the rows read."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "rows.npy", X)
        rows, read = gb.RowFile(Path(folder) / "rows.npy"), []
        pieces = rows.pieces

        def watched(begin=0, end=None):
            read.append((begin, end))
            return pieces(begin, end)

        rows.pieces = watched
        found = {}
        for precision, sampler in samplers.items():
            options = {"sampler": sampler, "seed": 1, "precision": precision, "init": start}
            one = gb.fit(X, 2, **options)
            for name, mesh in {"4": 4, "both": jax.make_mesh((2, 2), ("rows", "chains"))}.items():
                read.clear()
                fit = gb.fit(rows, 2, mesh=mesh, **options)
                found[f"{name}, {precision}"] = {**compare(fit, one), "read": list(read)}
        return found


def main():
    warnings.simplefilter("ignore", gb.errors.GMMBayesWarning)
    X = two_groups(2000)
    sampler = gb.NUTS(num_warmup=30, num_samples=50, num_chains=2, chain_method="vectorized")
    found = {"float64": kernel("float64"), "float32": kernel("float32")}
    one = gb.fit(X, 2, sampler=sampler, seed=1)
    seen = programs()
    meshes = {
        "2": 2,
        "4": 4,
        # The other order of axes, and of the kind that NumPyro cannot use.
        "both": jax.make_mesh((2, 2), ("rows", "chains")),
    }
    for name, mesh in meshes.items():
        seen.clear()
        found[name] = compare(gb.fit(X, 2, sampler=sampler, seed=1, mesh=mesh), one)
        found[name]["drivers"] = sum("advance" in program for program in seen)
    approximate = gb.Laplace(num_samples=100)
    start = MixtureParameters.from_covariances(
        np.array([0.5, 0.5]), np.array([[0.0, 0.0], [7.0, -6.0]]), np.array([np.eye(2)] * 2)
    )
    fits = [
        gb.fit(X, 2, sampler=approximate, seed=1, precision="float32", init=start, mesh=mesh)
        for mesh in (None, 3)
    ]
    found["single precision"] = compare(fits[1], fits[0])
    found["file"] = from_a_file(X, {"float64": sampler, "float32": approximate}, start)
    found["indexed"] = gb.machine.devices.find_device("cpu:3").id
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
