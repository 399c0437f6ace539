"""Where arrays live: one mesh, and for each parameter a placement that depends on its name only."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from voc2vec_jax import errors

BATCH_AXES = ("replica", "fsdp")


def make_mesh(fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of all devices. Groups of `fsdp` devices share one copy of the parameters; the groups are replicas.

    Devices are ordered by process, so that each process reads the rows of its own devices.
    """
    devices = sorted(jax.devices() if devices is None else devices, key=lambda d: (d.process_index, d.id))
    if fsdp < 1 or len(devices) % fsdp:
        raise errors.InputError(f"fsdp {fsdp} does not divide the {len(devices)} devices; choose a divisor")
    grid = np.array(devices).reshape(-1, fsdp)
    return Mesh(grid, BATCH_AXES, axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh, axis: int) -> NamedSharding:
    """Array axis `axis` split over all devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, BATCH_AXES))


def path_name(path: Sequence[Any]) -> str:
    """A tree path as a name: ('encoder', 'norm', 'scale') -> 'encoder/norm/scale'."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def shard_tree(tree: Any, mesh: Mesh, rules: Sequence[tuple[str, int | None]]) -> Any:
    """A sharding for every array. The first rule whose regex matches the name says which axis `fsdp` splits.

    With an axis of None the array is replicated, as all scalars are. InputError for a name that no rule matches and
    for an axis that `fsdp` does not divide.
    """
    size = mesh.shape["fsdp"]

    def place(path: Sequence[Any], x: Any) -> NamedSharding:
        name = path_name(path)
        axis = next((axis for pattern, axis in rules if re.search(pattern, name)), "unmatched")
        if axis == "unmatched":
            raise errors.InputError(f"no sharding rule matches parameter {name}; add one to config.sharding_rules")
        if axis is None or size == 1 or x.ndim == 0:
            return replicated(mesh)
        if axis >= x.ndim or x.shape[axis] % size:
            raise errors.InputError(f"axis {axis} of {name} {x.shape} is not divisible by fsdp {size}; change its rule")
        return NamedSharding(mesh, PartitionSpec(*[None] * axis, "fsdp"))

    return jax.tree_util.tree_map_with_path(place, tree)
