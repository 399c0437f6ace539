"""Where arrays live: one mesh, and for each parameter a placement that depends on its name only."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from voc2vec_jax import errors

BATCH_AXES = ("replica", "fsdp")
WHOLE = PartitionSpec()
OVER_BATCH = PartitionSpec(BATCH_AXES)  # the first axis of an array split over all devices

Rules = Sequence[tuple[str, int | None]]  # regex on a name, array axis that `fsdp` cuts; the first match decides
UNCUT: Rules = ((".*", None),)


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


def shard_tree(tree: Any, mesh: Mesh, rules: Rules) -> Any:
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


def specs(params: Any, mesh: Mesh, rules: Rules) -> Any:
    """The partition spec of every parameter of a model, as `shard_tree` places it."""
    return jax.tree.map(lambda place: place.spec, shard_tree({"params": params}, mesh, rules)["params"])


def gathered(tree: Any, specs: Any) -> Any:
    """Inside `shard_map`: whole arrays from those that `fsdp` cuts, in one all-gather."""
    leaves, treedef = jax.tree.flatten(tree)
    axes = _cut_axes(specs, tree)
    if not (cut := [x.reshape(-1) for x, axis in zip(leaves, axes) if axis is not None]):
        return tree
    parts = jax.lax.all_gather(jnp.concatenate(cut), "fsdp")
    at = 0
    for i, (x, axis) in enumerate(zip(leaves, axes)):
        if axis is not None:
            part = parts[:, at : at + x.size].reshape(-1, *x.shape)
            whole = (*x.shape[:axis], -1, *x.shape[axis + 1 :])
            leaves[i], at = jnp.moveaxis(part, 0, axis).reshape(whole), at + x.size
    return jax.tree.unflatten(treedef, leaves)


def summed(tree: Any, specs: Any) -> Any:
    """Inside `shard_map`: sums over all devices, of which each device keeps its cut where `specs` cut.

    `specs` may be a prefix of `tree`. Whole arrays take one all-reduce, cut ones one reduce-scatter and, between
    replicas, one all-reduce of the cuts.
    """
    leaves, treedef = jax.tree.flatten(tree)
    axes = _cut_axes(specs, tree)
    whole = iter(_over(BATCH_AXES, [x for x, axis in zip(leaves, axes) if axis is None]))
    if cut := [(x, axis) for x, axis in zip(leaves, axes) if axis is not None]:
        size = jax.lax.axis_size("fsdp")
        parts = [x.reshape(*x.shape[:axis], size, -1, *x.shape[axis + 1 :]) for x, axis in cut]
        parts = [jnp.moveaxis(part, axis, 0) for part, (_, axis) in zip(parts, cut)]
        flat = jnp.concatenate([part.reshape(size, -1) for part in parts], axis=1)
        flat = _over(("replica",), jax.lax.psum_scatter(flat, "fsdp"))
        ends = np.cumsum([part[0].size for part in parts])[:-1]
        cut = iter([x.reshape(part.shape[1:]) for x, part in zip(jnp.split(flat, ends), parts)])
    return jax.tree.unflatten(treedef, [next(whole if axis is None else cut) for axis in axes])


def _over(axes: Sequence[str], tree: Any) -> Any:
    """Sums over mesh axes, in one all-reduce; CPUs would copy what one device sums with itself."""
    axes = [axis for axis in axes if jax.lax.axis_size(axis) > 1]
    return jax.lax.psum(tree, axes) if axes else tree


def _cut_axes(specs: Any, tree: Any) -> list[int | None]:
    """For each array of a tree the axis that `fsdp` cuts; `specs` may be a prefix of the tree."""
    every = jax.tree.leaves(jax.tree.broadcast(specs, tree))
    return [spec.index("fsdp") if "fsdp" in spec else None for spec in every]
