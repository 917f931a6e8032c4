"""Where the numbers live: the device and the precision, without touching global settings."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from gmm_bayes._validation import check_choice
from gmm_bayes._vocabulary import DEVICES
from gmm_bayes.errors import DeviceError

__all__ = ["cpu_cores", "double_precision", "find_device"]


@contextmanager
def double_precision() -> Iterator[None]:
    """Compute in float64 in this thread, whatever the user's settings; they come back after.

    Type promotion and the kind of random key are pinned too: NumPyro breaks under strict promotion,
    and a seed must mean the same draws under every setting.
    """
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
        jax.default_prng_impl("threefry2x32"),
    ):
        yield


def find_device(device: str) -> jax.Device:
    """Return the first device of a kind.

    Parameters
    ----------
    device : {"auto", "cpu", "gpu"}
        "auto" is what JAX would take: the user's `jax_default_device`, else a GPU if it sees one.

    Raises
    ------
    DeviceError
        If a GPU is asked for and none is there.
    """
    check_choice(device, "device", DEVICES)
    if device == "auto":
        chosen = jax.config.values["jax_default_device"]
        if isinstance(chosen, jax.Device):
            return chosen
        return jax.devices(chosen)[0]
    try:
        return jax.devices(device)[0]
    except RuntimeError:
        raise DeviceError(
            f"device={device!r} was asked for, but JAX sees only "
            f"{', '.join(sorted({d.platform for d in jax.devices()}))}. Install the extra for your "
            "CUDA (pip install 'gmm-bayes[cuda12]' or 'gmm-bayes[cuda13]') and check the driver, "
            "or give device='auto'."
        ) from None


def cpu_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
