"""Rows: what one measurement is, how it is stored, and the one judge of draws for every method."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROWS = HERE / "rows"

# Two rows that agree in all of these measure the same thing; the newer one stays.
IDENTITY = (
    "benchmark",
    "method",
    "problem",
    "n_obs",
    "n_components",
    "n_features",
    "dtype",
    "seed",
    "num_chains",
    "blas_threads",
    "cache",
    "device",
)
# What every row says, measured or not.
ALWAYS = (
    "benchmark",
    "method",
    "n_obs",
    "n_components",
    "n_features",
    "dtype",
    "seed",
    "versions",
    "num_cores",
    "cpu",
    "device",
    "date",
)
# What a row also says when there are draws behind it.
QUALITY = (
    "min_bulk_ess",
    "max_rhat",
    "divergences",
    "num_gradients",
    "num_gradients_sampling",
    "peak_memory_mb",
)


def make_row(benchmark, method, size, *, device="cpu", dtype="float64", seed=0, **values):
    """One row. `size` is (n_obs, n_components, n_features)."""
    n, k, d = size
    return {
        "benchmark": benchmark,
        "method": method,
        "n_obs": int(n),
        "n_components": int(k),
        "n_features": int(d),
        "dtype": dtype,
        "seed": seed,
        "num_cores": len(os.sched_getaffinity(0)),
        "cpu": cpu_model(),
        "device": device,
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions("gmm_bayes", "jax", "numpyro"),
        **values,
    }


def identity(row):
    return tuple(str(row.get(key)) for key in IDENTITY)


def read_rows(name, folder=ROWS):
    """All rows of one benchmark, or an empty list."""
    path = Path(folder) / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write_rows(name, rows, folder=ROWS):
    """Add rows to a file; a row with the identity of an older one takes its place."""
    merged = {identity(row): row for row in [*read_rows(name, folder), *rows]}
    ordered = sorted(merged.values(), key=_order)
    path = Path(folder) / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in ordered))


def emit(name, row, folder=ROWS):
    """Print one row and store it."""
    print(json.dumps(row, sort_keys=True), flush=True)
    write_rows(name, [row], folder)


def _order(row):
    sizes = tuple(row[key] for key in ("n_obs", "n_components", "n_features"))
    return str(row.get("problem")), sizes, identity(row)


def versions(*packages):
    """Versions of packages and of Python; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def cpu_model():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def device_name(device):
    """`cpu`, or the name of the GPU that JAX sees."""
    if device == "cpu":
        return "cpu"
    import jax

    return jax.devices("gpu")[0].device_kind


def total_memory_bytes():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def quality(draws):
    """Worst bulk ESS and R-hat over weights, means and scales, each (chain, draw, ...).

    ArviZ's rank-normalised forms, computed here for every method, whatever the method itself says.
    """
    import xarray as xr

    from gmm_bayes.inference import arviz_bridge

    dataset = xr.Dataset(
        {
            name: (("chain", "draw", *(f"{name}_{i}" for i in range(values.ndim - 2))), values)
            for name, values in draws.items()
        }
    )
    ess, rhat = arviz_bridge.ess(dataset, "bulk"), arviz_bridge.rhat(dataset)
    return {
        "min_bulk_ess": min(float(ess[name].min(skipna=False)) for name in draws),
        "max_rhat": max(float(rhat[name].max(skipna=False)) for name in draws),
        "num_chains": int(dataset.sizes["chain"]),
        "num_samples": int(dataset.sizes["draw"]),
    }


def memory_mb(field):
    """`VmRSS` (now) or `VmHWM` (the peak) of this process in MB; None where /proc has no such line.

    Not getrusage: its peak begins at that of the process that started this one.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    return None


def run_child(command, *, timeout=None, env=None, cwd=None):
    """Run a script in a process of its own: its standard output, or None when it ran too long.

    Raises RuntimeError with the end of its error output when it fails.
    """
    environment = {**os.environ, **(env or {})}
    try:
        done = subprocess.run(
            [str(word) for word in command],
            env=environment,
            cwd=cwd,
            timeout=timeout,
            capture_output=True,
            text=True,
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        raise RuntimeError(f"{command[1]} failed ({done.returncode}): {done.stderr[-2000:]}")
    return done.stdout


def child_rows(script, *arguments, timeout=None, env=None):
    """Rows that one of our own scripts printed in a process of its own."""
    out = run_child([sys.executable, HERE / script, *arguments], timeout=timeout, env=env)
    lines = (out or "").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]
