"""Does it fit? Memory counted before the run, and what is there."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import psutil

from gmm_bayes._vocabulary import Precision
from gmm_bayes.core.likelihood import rows_in_blocks
from gmm_bayes.core.unconstrained import Space
from gmm_bayes.errors import InsufficientMemoryError

__all__ = ["MemoryPlan", "ProblemSize", "available_memory", "device_memory", "plan_memory"]

_DOUBLE = 8
# What a first run takes beside its arrays: libraries, the compiler, its programs. A later one has
# them already, so that they speak in the choice but are no reason to refuse.
_PROGRAMS = 350 * 2**20
# Blocks are not made smaller than this for want of memory.
_FEWEST_ROWS = 2**11
# Share of the free memory that a choice may fill; what does not fit into all of it is refused.
_COMFORTABLE = 0.8
_LARGEST_LIMIT = 2**60
_CGROUPS, _MEMBERSHIP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


class ProblemSize(NamedTuple):
    """What the memory of a fit depends on.

    Attributes
    ----------
    n_obs, n_features, n_components, dimension : int
        Rows, columns, components and unconstrained parameters.
    num_chains, num_samples : int
    max_tree_depth : int
    dense_mass : bool
    block_draws : int
        Draws in a buffer on the device.
    precision : {"float64", "float32"}
    n_shares, n_groups : int
        Devices that share the rows, and groups of devices that share the chains.
    n_replicas : int
        Of each chain, in one program.
    """

    n_obs: int
    n_features: int
    n_components: int
    dimension: int
    num_chains: int
    num_samples: int
    max_tree_depth: int = 10
    dense_mass: bool = False
    block_draws: int = 50
    precision: Precision = "float64"
    n_shares: int = 1
    n_groups: int = 1
    n_replicas: int = 1

    @classmethod
    def of(
        cls, n_obs: int, space: Space, num_chains: int, num_samples: int, **more: Any
    ) -> "ProblemSize":
        """Of so many rows, and a model's unconstrained parameters."""
        shape = (n_obs, space.n_features, space.n_components, space.dimension)
        return cls(*shape, num_chains, num_samples, **more)


class MemoryPlan(NamedTuple):
    """How a fit is cut so that it fits.

    Attributes
    ----------
    rows_per_block : int
    grouping : tuple of int
        Chains in one program, and programs at once.
    device, host : dict of int
        Bytes by what they are for: on each device, and on the host beside it. On a CPU all is on
        the host.
    """

    rows_per_block: int
    grouping: tuple[int, int]
    device: dict[str, int]
    host: dict[str, int]

    @property
    def needed(self) -> int:
        """Bytes on one device and its host together."""
        return sum(self.device.values()) + sum(self.host.values())

    @property
    def facts(self) -> dict[str, int]:
        """What is recorded of the plan."""
        return {"rows_per_block": self.rows_per_block, "memory_needed": self.needed}


def plan_memory(
    size: ProblemSize,
    groupings: Iterator[tuple[int, int]],
    rows_per_block: int,
    device: jax.Device,
    n_local: int = 1,
) -> MemoryPlan:
    """Choose the largest blocks and the most chains at once that fit.

    Parameters
    ----------
    size : ProblemSize
    groupings : iterator of (int, int)
        Chains in a program and programs at once, the fastest first.
    rows_per_block : int
        What is fastest.
    device : jax.Device
    n_local : int
        Devices of this process that take part.

    Raises
    ------
    InsufficientMemoryError
        If nothing fits: how many bytes are needed for what, how many are there, what to do.
    """
    free = available_memory(device)
    room = {"host": available_memory(None), "device": free}
    plan = None
    for grouping in groupings:
        for rows in _smaller(rows_per_block):
            plan = _count(size, grouping, rows, device.platform == "cpu", n_local)
            if _fits(plan, room, _COMFORTABLE):
                return plan
    assert plan is not None
    plan.host.pop("programs")
    if not _fits(plan, room, 1.0):
        raise InsufficientMemoryError(_complaint(plan, room, device))
    return plan


def available_memory(device: jax.Device | None) -> int | None:
    """Return the bytes that are free on a device, or, for None or a CPU, for this process.

    None if that cannot be known.
    """
    if device is not None and device.platform != "cpu":
        stats = _stats(device)
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0) if stats else None
    found = [psutil.virtual_memory().available, _left_of_address_space(), *_left_of_groups()]
    return max(min(number for number in found if number is not None), 0)


def device_memory(device: jax.Device) -> int | None:
    """Return the bytes of memory that a device has, a CPU being the machine; None if unknown."""
    if device.platform != "cpu":
        return _stats(device).get("bytes_limit")
    return psutil.virtual_memory().total


def _count(
    size: ProblemSize, grouping: tuple[int, int], rows_per_block: int, on_cpu: bool, n_local: int
) -> MemoryPlan:
    """Bytes at the worst moment, by what they are for."""
    k, d, z = size.n_components, size.n_features, size.dimension
    real = {"float64": 8, "float32": 4}[size.precision]
    n_blocks, length = rows_in_blocks(size.n_obs, rows_per_block, size.n_shares)
    shift = _DOUBLE * (d + 1) ** 2 * (size.precision == "float32")
    rows = n_blocks * (length * ((d + 1) * real + _DOUBLE) + shift)
    share = rows // size.n_shares

    chains, programs = grouping
    chains = -(-chains // size.n_groups)
    features = (d + 1) * (d + 2) // 2
    # Scores, shares and what a product makes of them; the features and their transpose.
    together = chains * size.n_replicas
    block = real * length * (2 * features + 4 * together * k)
    metric = z * z if size.dense_mass else z
    state = together * (z * (20 + 2 * size.max_tree_depth) + 3 * metric) + 2 * min(z, 3000) * z
    buffers = 2 * size.block_draws * chains * (2 * z + 8)
    program = programs * (block + _DOUBLE * (state + buffers))

    draws = size.num_chains * size.num_samples
    # Coordinates and slopes, joined; then the parameters, with what covariances are made of.
    kept = _DOUBLE * draws * (4 * z + 6 * k * d * d + 2 * k * (d + 1) + 8 + size.n_replicas)
    curvature = _DOUBLE * 6 * min(z, 3000) ** 2
    single = _DOUBLE * size.n_obs * (d + 4) * (size.precision == "float32")
    host = {"draws": kept, "curvature at the mode": curvature, "programs": _PROGRAMS}
    device = {"rows": share, "chains at once": program}
    if on_cpu:
        # All of it in one memory; rows are there twice while they are put in place.
        merged = {"rows": rows + n_local * share + single, "chains at once": n_local * program}
        return MemoryPlan(rows_per_block, grouping, {}, {**merged, **host})
    return MemoryPlan(rows_per_block, grouping, device, {"rows": rows + single, **host})


def _fits(plan: MemoryPlan, room: Mapping[str, int | None], share: float) -> bool:
    needed = {"device": plan.device, "host": plan.host}
    return all(
        free is None or sum(needed[where].values()) <= share * free for where, free in room.items()
    )


def _smaller(rows_per_block: int) -> Iterator[int]:
    """Lengths of blocks, each half of the one before."""
    yield rows_per_block
    while rows_per_block >= 2 * _FEWEST_ROWS:
        rows_per_block //= 2
        yield rows_per_block


def _complaint(plan: MemoryPlan, room: Mapping[str, int | None], device: jax.Device) -> str:
    short, free = plan.host, room["host"]
    name = "the machine's memory"
    on_device = sum(plan.device.values())
    if room["device"] is not None and on_device > room["device"]:
        short, free, name = plan.device, room["device"], f"the memory of {device}"
    needed = sum(short.values())
    parts = sorted(short.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{what} {_size(number)}" for what, number in parts)
    advice = {
        "rows": "take fewer rows, precision='float32', or spread them over devices (mesh=4)",
        "draws": "take fewer draws or chains",
        "chains at once": "take fewer components",
        "curvature at the mode": "take fewer components or preconditioning='none'",
    }[parts[0][0]]
    return (
        f"this fit needs about {_size(needed)} of {name} ({listed}), but {_size(free or 0)} are "
        f"free; {advice}"
    )


def _size(number: int) -> str:
    return f"{number / 2**30:,.1f} GiB" if number >= 2**30 else f"{number / 2**20:,.0f} MiB"


def _stats(device: jax.Device) -> dict[str, Any]:
    try:
        return device.memory_stats() or {}
    except Exception:
        # Not every backend can say.
        return {}


def _left_of_address_space() -> int | None:
    process = psutil.Process()
    # Only Linux can say.
    if not hasattr(process, "rlimit"):
        return None
    limit = process.rlimit(psutil.RLIMIT_AS)[0]
    if limit == psutil.RLIM_INFINITY:
        return None
    return limit - process.memory_info().vms


def _left_of_groups() -> Iterator[int]:
    """What the control groups of the process leave, as containers and batch systems set them.

    psutil knows the machine and the process, but not these.
    """
    names = (
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    )
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for controller, limit, usage, cached in names:
            if controller not in controllers.split(","):
                continue
            folder = _CGROUPS / controller / path.lstrip("/")
            while folder.is_relative_to(_CGROUPS / controller):
                try:
                    most, used = ((folder / name).read_text().strip() for name in (limit, usage))
                    if most != "max" and int(most) < _LARGEST_LIMIT:
                        stat = dict(
                            entry.split()
                            for entry in (folder / "memory.stat").read_text().splitlines()
                        )
                        yield int(most) - int(used) + int(stat.get(cached, 0))
                except (OSError, ValueError):
                    pass
                folder = folder.parent
