"""Where arrays live: one mesh, and for each parameter a placement that depends on its name only."""

import collections
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from voc2vec_jax import errors

BATCH_AXES = ("replica", "fsdp")
WHOLE = PartitionSpec()
OVER_BATCH = PartitionSpec(BATCH_AXES)  # the first axis of an array split over all devices

Rules = Sequence[tuple[str, int | None]]  # regex on a name, array axis that `fsdp` cuts; the first match decides
UNCUT: Rules = ((".*", None),)


def make_mesh(fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of all devices. Groups of `fsdp` devices share one copy of the parameters; the groups are replicas."""
    devices = jax.devices() if devices is None else devices
    return Mesh(grid(devices, fsdp), BATCH_AXES, axis_types=(AxisType.Auto,) * 2)


def grid(devices: Sequence[Any], fsdp: int) -> np.ndarray:
    """Devices as [replica, fsdp], a process's own side by side, so that each process reads the rows of its own devices.

    Parameters go to and fro within groups of `fsdp` devices, and only parts of gradients between them, so a group must
    not cut through an island (`islands`): it lies inside of one, or is several. On the torus of a TPU the devices of
    neighbouring processes make a box, which a group takes as it comes.

        two slices of two hosts of four, fsdp 8:   replica 0 | slice 0: host 0  0 1 2 3  host 1  4 5 6 7
                                                   replica 1 | slice 1: host 2  8 ...    host 3  ...

    InputError for a group that would not fit.
    """
    if fsdp < 1 or len(devices) % fsdp:
        raise errors.InputError(f"fsdp {fsdp} does not divide the {len(devices)} devices; choose a divisor")
    kind, numbers = islands(devices)
    places = sorted(zip(numbers, devices, strict=True), key=lambda x: (x[0], x[1].process_index, x[1].id))
    sizes = collections.Counter(numbers)
    for i in range(0, len(places), fsdp):
        inside = collections.Counter(number for number, _ in places[i : i + fsdp])
        if len(inside) > 1 and any(inside[number] < sizes[number] for number in inside):
            raise errors.InputError(
                f"fsdp {fsdp} cuts through {kind} of {min(sizes.values())} devices, between which links are slow; "
                f"choose a divisor of {math.gcd(*sizes.values())}"
            )
    ordered = np.empty(len(places), object)
    ordered[:] = [device for _, device in places]
    return ordered.reshape(-1, fsdp)


def islands(devices: Sequence[Any]) -> tuple[str, list[int]]:
    """What the devices come in, and its number for each: within an island links are fast, between islands slow."""
    slices = [getattr(device, "slice_index", None) for device in devices]
    if len(set(slices)) > 1:
        return "slices", slices
    # The links of a TPU's slice join its hosts too, those of GPUs end with the host.
    return "hosts", [0 if device.platform == "tpu" else device.process_index for device in devices]


def place_of_process(devices: Sequence[Any], process: int) -> tuple[int, int]:
    """(i, n): the devices of a process are the i-th of n equal parts of a mesh's `devices`, in the mesh's order."""
    order = list(dict.fromkeys(device.process_index for device in devices))
    return order.index(process), len(order)


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
    """Inside `shard_map`: whole arrays from those that `fsdp` cuts."""

    def gather(spec: PartitionSpec, x: jax.Array) -> jax.Array:
        axis = _cut_axis(spec)
        return x if axis is None else jax.lax.all_gather(x, "fsdp", axis=axis, tiled=True)

    return jax.tree.map(gather, specs, tree)


def summed(tree: Any, specs: Any) -> Any:
    """Inside `shard_map`: sums over all devices, of which each device keeps its cut where `specs` cut.

    `specs` may be a prefix of `tree`. Whole arrays take one all-reduce, each cut one a reduce-scatter, and between
    replicas the cuts take one all-reduce.
    """
    leaves, treedef = jax.tree.flatten(tree)
    axes = [_cut_axis(spec) for spec in jax.tree.leaves(jax.tree.broadcast(specs, tree))]
    whole = iter(_over(BATCH_AXES, [x for x, axis in zip(leaves, axes) if axis is None]))
    # Array by array: XLA combines what it sends as far as that pays. Joined by hand into one array, the gradients of
    # the base model on v5e:2x4 are copied twice and all-reduced after all: 7.8 M cycles for 1.1 M, as compiled.
    cut = [
        jax.lax.psum_scatter(x, "fsdp", scatter_dimension=axis, tiled=True)
        for x, axis in zip(leaves, axes)
        if axis is not None
    ]
    cut = iter(_over(("replica",), cut))
    return jax.tree.unflatten(treedef, [next(whole if axis is None else cut) for axis in axes])


def _over(axes: Sequence[str], tree: Any) -> Any:
    """Sums over mesh axes in one call, which becomes one all-reduce; CPUs would copy what one device sums alone."""
    axes = [axis for axis in axes if jax.lax.axis_size(axis) > 1]
    return jax.lax.psum(tree, axes) if axes else tree


def _cut_axis(spec: PartitionSpec) -> int | None:
    """The array axis that `fsdp` cuts."""
    return spec.index("fsdp") if "fsdp" in spec else None
