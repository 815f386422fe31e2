"""Samples of a batch over the axis "data" of a mesh."""

from typing import Any

import equinox as eqx
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from neurojax._check import brief

DATA = "data"


def batched(mesh: Mesh | None, tree: Any) -> Any:
    """Samples divided along the axis "data", where that divides them; called under `jit`."""
    if mesh is None:
        return tree
    at = NamedSharding(mesh, PartitionSpec(DATA))

    def one(x: Any) -> Any:
        fits = eqx.is_array(x) and x.ndim and x.shape[0] % mesh.shape[DATA] == 0
        return jax.lax.with_sharding_constraint(x, at) if fits else x

    return jax.tree.map(one, tree)


def alike(mesh: Mesh | None, tree: Any) -> Any:
    """The same on every device; called under `jit`."""
    if mesh is None:
        return tree
    at = NamedSharding(mesh, PartitionSpec())
    keep = lambda x: jax.lax.with_sharding_constraint(x, at) if eqx.is_array(x) else x  # noqa: E731
    return jax.tree.map(keep, tree)


def along_data(mesh: Any, batch_size: int) -> Mesh | None:
    """The mesh, refused unless it divides a batch."""
    if mesh is None:
        return None
    if not isinstance(mesh, Mesh) or DATA not in mesh.shape:
        raise TypeError(
            f'mesh must be a Mesh with an axis "{DATA}"; got {brief(mesh)}: pass'
            " nj.sharding.mesh(data=2)"
        )
    n = mesh.shape[DATA]
    if batch_size % n:
        raise ValueError(
            f'batch_size must be a multiple of {n}, the devices along "{DATA}"; got {batch_size}'
        )
    return mesh
