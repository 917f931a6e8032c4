"""Rows spread over devices: each sums its own blocks, and one sum crosses between them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from gmm_bayes._vocabulary import CHAINS_AXIS, ROWS_AXIS

__all__ = ["Split", "by_chain", "over_devices", "sum_over_devices"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Split:
    """How blocks of rows are spread: along their leading axis, over one axis of a mesh.

    Attributes
    ----------
    mesh : jax.sharding.Mesh
        With the axes "chains" and "rows". Rows are spread over the second, and repeated along the
        first.
    inside : bool
        Whether the code at hand is run by each device for itself, on its own blocks.
    """

    mesh: Mesh
    inside: bool = False


def over_devices(function: Callable[..., Any], scores: Any, rows: Any) -> Any:
    """Run a function of scores and blocks on every device's own blocks.

    Its result must be equal on all devices: what `sum_over_devices` makes.
    """
    split = rows.split
    own = rows._replace(split=replace(split, inside=True))
    specs = jax.tree.map(lambda _: P(ROWS_AXIS), own)
    mapped = _mapped(function, split.mesh, (P(), specs), P())
    return mapped(scores, own)


def by_chain(
    function: Callable[..., Any], split: Split, chained: tuple[Any, ...], shared: tuple[Any, ...]
) -> Any:
    """Run a function of chains on the devices of each of them, which see their own blocks only.

    Parameters
    ----------
    function : callable
        Of `chained` and `shared`.
    split : Split
    chained : tuple of pytrees
        With a leading axis of chains, which the mesh's axis of chains shares out.
    shared : tuple of pytrees
        Blocks of rows in them are told that they are inside; all else goes to every device.
    """
    inside = replace(split, inside=True)

    def is_rows(node: Any) -> bool:
        return getattr(node, "split", None) is not None

    def spec(node: Any) -> Any:
        return jax.tree.map(lambda _: P(ROWS_AXIS), node) if is_rows(node) else P()

    shared = jax.tree.map(
        lambda node: node._replace(split=inside) if is_rows(node) else node,
        shared,
        is_leaf=is_rows,
    )
    specs = jax.tree.map(spec, shared, is_leaf=is_rows)
    mapped = _mapped(function, split.mesh, (P(CHAINS_AXIS), specs), P(CHAINS_AXIS))
    return mapped(chained, shared)


def sum_over_devices(sums: Any, split: Split | None) -> Any:
    """Add up sums of one precision over devices, if rows are spread: one message for all."""
    if split is None:
        return sums
    leaves, tree = jax.tree.flatten(sums)
    flat = jax.lax.psum(jnp.concatenate([jnp.ravel(leaf) for leaf in leaves]), ROWS_AXIS)
    parts, begin = [], 0
    for leaf in leaves:
        parts.append(flat[begin : begin + leaf.size].reshape(leaf.shape))
        begin += leaf.size
    return jax.tree.unflatten(tree, parts)


def _mapped(function: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any) -> Any:
    # What is equal on all devices is so by construction; NUTS's loops keep no account of it.
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )
