"""The potential's gradient with the rows on one host device and on several, a core for each.

Every number of devices is a process of its own. Seconds are those of the fastest of many rounds, of
one call; on one device the kernel's blocks are too small for the products to take more than a core.
"""

import argparse
import json
import os
import sys
import time

import record

NAME = "devices"
SIZES = ((10_000, 10, 10), (100_000, 10, 10))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to try, each")
    parser.add_argument("--rows", default=record.ROWS, help="folder of the rows")
    parser.add_argument("--child", type=int, nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(gradient_seconds(*args.child, args.seconds)))
        return
    for size in SIZES:
        for n_devices in args.devices:
            words = [sys.executable, __file__, "--seconds", args.seconds, "--child"]
            env = {
                "JAX_PLATFORMS": "cpu",
                "OPENBLAS_NUM_THREADS": "1",
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={n_devices}",
            }
            done = record.run_child([*words, n_devices, *size], env=env)
            values = json.loads(done.splitlines()[-1])
            method = f"{n_devices} device{'s' * (n_devices > 1)}"
            row = record.make_row(NAME, method, size, problem="gradient", **values)
            record.emit(NAME, row, args.rows)


def gradient_seconds(n_devices, n, k, d, seconds):
    """The fastest call, and the median, of what can be made in so many seconds."""
    import jax
    import numpy as np

    import gmm_bayes as gb
    from gmm_bayes.core.covariance import COVARIANCE_STRUCTURES
    from gmm_bayes.core.mixture import MixtureParameters
    from gmm_bayes.inference.potential import Data, ModelSpec, log_prior, site_values, space
    from gmm_bayes.inference.rows.placement import Placement
    from gmm_bayes.inference.rows.standardization import Standardization
    from gmm_bayes.inference.sampling.mode import value_and_gradient
    from gmm_bayes.machine.devices import double_precision

    truth, spec = gb.datasets.make_mixture(n, k, d, seed=0), ModelSpec(k, "full")
    where = Placement.of("cpu", n_devices)
    prior = gb.Priors.fixed(truth.means).arrays(k, d)
    units = Standardization.of(truth.X, COVARIANCE_STRUCTURES["full"])
    mixture = MixtureParameters(truth.weights, truth.means, np.linalg.cholesky(truth.covariances))
    with double_precision():
        rows = where.blocks(truth.X, units, "float64", None, lambda: None)
        data = Data(rows, where.everywhere(log_prior(prior, spec)))
        z = space(spec, d).vector(site_values(units.apply_to_parameters(mixture), spec))
        z = where.everywhere(z)
        value = jax.block_until_ready(value_and_gradient(z, data, spec))[0]
        taken, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end:
            begin = time.perf_counter()
            jax.block_until_ready(value_and_gradient(z, data, spec))
            taken.append(time.perf_counter() - begin)
    return {
        "seconds": min(taken),
        "median_seconds": float(np.median(taken)),
        "num_calls": len(taken),
        "load": os.getloadavg()[0],
        "value": float(value),
    }


if __name__ == "__main__":
    main()
