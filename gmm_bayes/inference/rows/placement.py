"""Rows and priors onto one device, or spread over several."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from scipy.spatial import cKDTree

from gmm_bayes._row_files import RowFile
from gmm_bayes._vocabulary import CHAINS_AXIS, ROWS_AXIS, Precision
from gmm_bayes.core.likelihood import ROWS_PER_BLOCK, RowBlocks, block_rows
from gmm_bayes.core.mixture import MixtureParameters
from gmm_bayes.core.sharding import Split
from gmm_bayes.inference.rows.file_blocks import FileBlocks
from gmm_bayes.inference.rows.standardization import Standardization
from gmm_bayes.machine.devices import find_device, find_mesh, make_mesh
from gmm_bayes.machine.memory import MemoryPlan, ProblemSize, device_memory, plan_memory

__all__ = ["Placement", "agree", "agree_on_record", "on_host", "spread", "spread_chains"]

# A GPU wants large products, and has the memory for them.
_GPU_ROWS_PER_BLOCK = 2**15


class Placement(NamedTuple):
    """Where a fit runs.

    Attributes
    ----------
    device : jax.Device
        The one device, or the first of this process's devices in the mesh.
    mesh : jax.sharding.Mesh, optional
        Devices with the axes "chains" and "rows".
    """

    device: jax.Device
    mesh: Mesh | None = None

    @classmethod
    def of(cls, device: str, mesh: Any = None) -> "Placement":
        """Find the devices.

        Raises
        ------
        TypeError, ValueError
            If either is not an option.
        DeviceError
            If they are not there.
        """
        found = find_mesh(mesh, device)
        if found is None:
            return cls(find_device(device))
        own = [d for d in found.devices.flat if d.process_index == jax.process_index()]
        return cls(own[0], found)

    @classmethod
    def of_shape(cls, device: str, shape: Mapping[str, int] | None) -> "Placement":
        """Find the devices of a mesh of a given shape.

        Raises
        ------
        DeviceError
            If they are not there.
        """
        if shape is None:
            return cls.of(device)
        return cls.of(device, make_mesh(shape[ROWS_AXIS], shape[CHAINS_AXIS], device))

    @property
    def shape(self) -> dict[str, int] | None:
        """Sizes of the axes of the mesh."""
        return None if self.mesh is None else dict(self.mesh.shape)

    @property
    def is_shared(self) -> bool:
        """Whether several processes run this together."""
        return self.mesh is not None and self.mesh.is_multi_process

    @property
    def n_shares(self) -> int:
        """Number of shares that the rows are cut into."""
        return 1 if self.mesh is None else self.mesh.shape[ROWS_AXIS]

    @property
    def facts(self) -> dict[str, Any]:
        """What is recorded of the devices: how many, in how many processes, with what memory."""
        facts: dict[str, Any] = {"device_memory": device_memory(self.device)}
        if self.mesh is not None:
            facts["mesh"] = self.shape
            facts["n_processes"] = len({d.process_index for d in self.mesh.devices.flat})
        return facts

    def plan(
        self, size: ProblemSize, groupings: Iterator[tuple[int, int]], precision: Precision
    ) -> MemoryPlan:
        """Choose the length of blocks and the number of chains at once.

        Raises
        ------
        InsufficientMemoryError
            If the fit cannot fit.
        """
        size, n_local = size._replace(precision=precision, n_shares=self.n_shares), 1
        if self.mesh is not None:
            size = size._replace(n_groups=self.mesh.shape[CHAINS_AXIS])
            n_local = len(self.mesh.local_devices)
        on_cpu = self.device.platform == "cpu"
        wanted = ROWS_PER_BLOCK[size.precision] if on_cpu else _GPU_ROWS_PER_BLOCK
        return plan_memory(size, groupings, wanted, self.device, n_local)

    def blocks(
        self,
        X: np.ndarray,
        units: Standardization,
        precision: Precision,
        rows_per_block: int | None,
        find_start: Callable[[], MixtureParameters],
    ) -> RowBlocks:
        """Rows in standard units, as the kernel wants them, on their devices."""
        groups = None
        if precision == "float32":
            # Rows near each other share a block, so that its centre is near all of them.
            groups = cKDTree(find_start().means).query(units.apply(X))[1]
        rows = block_rows(
            X,
            precision=precision,
            groups=groups,
            rows_per_block=rows_per_block,
            transform=units.apply,
            multiple=self.n_shares,
        )
        if self.mesh is None:
            # Not tied to the device, which is the default: else the second call of a program,
            # whose state would be, would compile it again.
            return jax.device_put(rows)
        return spread(rows, self.mesh, ROWS_AXIS)._replace(split=Split(self.mesh))

    def file_blocks(
        self,
        rows: RowFile,
        units: Standardization,
        precision: Precision,
        rows_per_block: int | None,
        find_start: Callable[[], MixtureParameters],
    ) -> RowBlocks:
        """As `blocks`, of rows in a file: each device's are read when they are put there."""
        wanted = rows_per_block or ROWS_PER_BLOCK[precision]
        centres = find_start().means if precision == "float32" else None
        found = FileBlocks.plan(rows, units, wanted, self.n_shares, centres)
        if self.mesh is None:
            return jax.device_put(found.read(0))
        return _spread_file(found, self.mesh)._replace(split=Split(self.mesh))

    def everywhere(self, tree: Any) -> Any:
        """Arrays on the device, which must be the default, or on all of them."""
        return jax.device_put(tree) if self.mesh is None else spread(tree, self.mesh)


def spread(tree: Any, mesh: Mesh, axis: str | None = None) -> Any:
    """Put host arrays, equal in every process, onto a mesh: the leading axis along one of its."""
    sharding = NamedSharding(mesh, P(axis))

    def put(array: Any) -> jax.Array:
        array = np.asarray(array)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(put, tree)


def _spread_file(rows: FileBlocks, mesh: Mesh) -> RowBlocks:
    """Blocks of rows on the devices of a mesh, each share read once and by its own process only."""
    sharding = NamedSharding(mesh, P(ROWS_AXIS))
    n_blocks = rows.per_share * rows.n_shares
    shares: dict[int, list[jax.Device]] = {}
    for device, index in sharding.addressable_devices_indices_map((n_blocks,)).items():
        assert index is not None
        shares.setdefault(index[0].indices(n_blocks)[0] // rows.per_share, []).append(device)
    on_devices = []
    for share, devices in shares.items():
        blocks = rows.read(share)
        on_devices += [jax.device_put(blocks, device) for device in devices]

    def join(*arrays: jax.Array) -> jax.Array:
        shape = (n_blocks, *arrays[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, sharding, list(arrays))

    return jax.tree.map(join, *on_devices)


def spread_chains(tree: Any, split: Split | None) -> Any:
    """Put arrays with a leading axis of chains where those chains run, if there is a mesh."""
    return tree if split is None else spread(tree, split.mesh, CHAINS_AXIS)


def on_host(array: Any) -> np.ndarray:
    """Return the whole of an array, wherever its parts are."""
    if isinstance(array, np.ndarray) or array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return multihost_utils.process_allgather(array, tiled=True)


def agree(tree: Any, mesh: Mesh | None) -> Any:
    """Return the first process's numbers in every process of a mesh.

    Processes that differ in a last digit would go different ways and then wait for each other.
    """
    if mesh is None or not mesh.is_multi_process:
        return tree
    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(tree))


def agree_on_record(record: dict[str, Any], mesh: Mesh | None) -> dict[str, Any]:
    """Return the first process's record, of what JSON knows, in every process of a mesh.

    Its lists may have other lengths there: its length is agreed on, then its text.
    """
    if mesh is None or not mesh.is_multi_process:
        return record
    text = np.frombuffer(json.dumps(record).encode(), np.uint8)
    told = np.zeros(int(agree(np.asarray(len(text)), mesh)), np.uint8)
    told[: len(text)] = text[: len(told)]
    agreed: dict[str, Any] = json.loads(agree(told, mesh).tobytes())
    return agreed
