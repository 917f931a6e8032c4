"""Where the numbers live: devices and the precision, without touching global settings."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from gmm_bayes._validation import check_device, check_integer
from gmm_bayes._vocabulary import CHAINS_AXIS, ROWS_AXIS
from gmm_bayes.errors import DeviceError
from gmm_bayes.machine.forks import refuse_forked

__all__ = ["cpu_cores", "double_precision", "find_device", "find_mesh", "first_device", "make_mesh"]


@contextmanager
def double_precision() -> Iterator[None]:
    """Compute in float64 in this thread, whatever the user's settings; they come back after.

    Type promotion and the kind of random key are pinned too: NumPyro breaks under strict promotion,
    and a seed must mean the same draws under every setting. Checks that do not change a number are
    for the user's own programs: ours compute -inf and NaN on the way, and add ranks, on purpose.
    """
    refuse_forked()
    with (
        jax.debug_nans(False),
        jax.debug_infs(False),
        jax.numpy_rank_promotion("allow"),
        jax.transfer_guard("allow"),
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
        jax.default_prng_impl("threefry2x32"),
    ):
        yield


def find_device(device: str) -> jax.Device:
    """Return a device of this process.

    Parameters
    ----------
    device : {"auto", "cpu", "gpu"} or such a kind with an index, as "gpu:1"
        "auto" is what JAX would take: the user's `jax_default_device`, else a GPU if it sees one.

    Raises
    ------
    DeviceError
        If a GPU is asked for and none is there, or there are fewer devices of that kind.
    """
    kind, index = check_device(device)
    if kind == "auto":
        chosen = jax.config.values["jax_default_device"]
        if isinstance(chosen, jax.Device):
            return chosen
        return jax.local_devices(backend=chosen)[0]
    found = _of_kind(kind, device, everywhere=False)
    if index is not None and index >= len(found):
        raise DeviceError(
            f"device={device!r} was asked for, but there {_are(len(found), kind)}, counted from "
            f"{kind}:0"
        )
    return found[index or 0]


def find_mesh(mesh: Any, device: str) -> Mesh | None:
    """Return the mesh over which data and chains are spread, None for one device.

    Parameters
    ----------
    mesh : int or jax.sharding.Mesh, optional
        A number of devices to spread the rows over, or a mesh whose axes are called "rows" or
        "chains" or both.
    device : str
        As for `find_device`: of which kind the devices are.

    Raises
    ------
    TypeError, ValueError
        If it is not one.
    DeviceError
        If there are not as many devices.
    """
    if mesh is None:
        return None
    if not isinstance(mesh, Mesh):
        return make_mesh(check_integer(mesh, "mesh", 1), 1, device)
    sizes = dict(mesh.shape)
    if not sizes.keys() <= {CHAINS_AXIS, ROWS_AXIS}:
        raise ValueError(
            f"mesh must have no axes but {ROWS_AXIS!r} and {CHAINS_AXIS!r}, got {mesh.axis_names}; "
            f"make it by jax.make_mesh((4,), ({ROWS_AXIS!r},)), or give the number of devices"
        )
    devices = mesh.devices
    if mesh.axis_names == (ROWS_AXIS, CHAINS_AXIS):
        devices = devices.T
    return _mesh(devices.reshape(sizes.get(CHAINS_AXIS, 1), sizes.get(ROWS_AXIS, 1)))


def make_mesh(data_parallel: int | None, chain_parallel: int, device: str = "auto") -> Mesh | None:
    """Return a mesh of the first devices of a kind, None if that is one device of one process.

    Parameters
    ----------
    data_parallel : int, optional
        Number of devices that share the rows; None takes all that there are.
    chain_parallel : int
        Number of groups of chains, each with devices of its own.
    device : str
        A kind of device.

    Raises
    ------
    ValueError
        If `device` names a single device.
    DeviceError
        If there are not as many, or not the same number in every process.
    """
    kind, index = check_device(device)
    single = data_parallel == chain_parallel == 1 and jax.process_count() == 1
    if index is not None and not single:
        raise ValueError(
            f"device must be a kind of device where work is spread over several, got {device!r}; "
            f"give device={kind!r}"
        )
    if single:
        return None
    kind = find_device("auto").platform if kind == "auto" else kind
    found = _of_kind(kind, device, everywhere=True)
    rows = len(found) // chain_parallel if data_parallel is None else data_parallel
    wanted, n_processes = max(rows, 1) * chain_parallel, jax.process_count()
    if wanted > len(found):
        advice = (
            f"; set XLA_FLAGS=--xla_force_host_platform_device_count={wanted} before JAX starts"
        )
        raise DeviceError(
            f"{wanted} devices were asked for, but there {_are(len(found), kind)}"
            f"{advice * (kind == 'cpu' and n_processes == 1)}"
        )
    if wanted % n_processes:
        raise DeviceError(
            f"{wanted} devices were asked for in {n_processes} processes; take as many of each: a "
            f"multiple of {n_processes}"
        )
    each = wanted // n_processes
    chosen = [
        [d for d in found if d.process_index == process][:each] for process in range(n_processes)
    ]
    if any(len(own) < each for own in chosen):
        raise DeviceError(f"{each} devices of each process were asked for, but one has fewer")
    # Rows of a mesh stay in one process as far as they fit.
    return _mesh(np.concatenate(chosen).reshape(chain_parallel, rows))


def first_device(array: jax.Array) -> jax.Device:
    """Return the first of this process's devices that hold an array."""
    devices: set[Any] = array.sharding.addressable_devices
    return min(devices, key=lambda d: d.id)


def cpu_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _of_kind(kind: str, asked: str, *, everywhere: bool) -> Sequence[jax.Device]:
    """Devices of a kind, of this process or of all."""
    try:
        return jax.devices(kind) if everywhere else jax.local_devices(backend=kind)
    except RuntimeError:
        raise DeviceError(
            f"device={asked!r} was asked for, but JAX sees only "
            f"{', '.join(sorted({d.platform for d in jax.devices()}))}. Install the extra for your "
            "CUDA (pip install 'gmm-bayes[cuda12]' or 'gmm-bayes[cuda13]') and check the driver, "
            "or give device='auto'."
        ) from None


def _are(number: int, kind: str) -> str:
    return f"{'is' if number == 1 else 'are'} {number} {kind} device{'s' * (number != 1)}"


def _mesh(devices: np.ndarray) -> Mesh:
    """Of axes that the compiler handles, which is all that NumPyro works with."""
    processes = {d.process_index for d in devices.flat}
    if len(processes) < jax.process_count() and len(processes) > 1:
        raise DeviceError(
            f"the mesh has devices of {len(processes)} processes, but {jax.process_count()} run"
        )
    return Mesh(devices, (CHAINS_AXIS, ROWS_AXIS))
