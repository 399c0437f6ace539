"""What an update leaves open is chosen by the memory of a device: loss groups at once, recomputation, sharding."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh

from voc2vec_jax import errors
from voc2vec_jax.planning import compiling, report
from voc2vec_jax.pretraining import batch_layout
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.pretraining import step as training_step
from voc2vec_jax.runs import logs, memory, sharding

SHARE = 0.9  # of a device's memory that is planned with; allocators lose some to gaps
STATE_SHARE = 0.4  # of it that parameters, moments and gradients may take before devices share them
REMAT = ("none", "products", "layer")  # from the fastest to the smallest


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
    """One choice and what XLA plans for it, in bytes of a device."""

    groups_per_device: int
    remat: str
    fsdp: int
    copied: int = 0  # the state, which each checkpoint copies on the device
    compiled: compiling.Compiled | None = None  # the update

    def __str__(self) -> str:
        planned = f": {self.peak(self.groups_per_device) / 1e9:.1f} GB planned" if self.compiled else ""
        groups = f"{self.groups_per_device} loss group{'s' if self.groups_per_device > 1 else ''} at once"
        return f"{groups} on a device, remat {self.remat}, fsdp {self.fsdp}{planned}"

    def peak(self, groups: int) -> int:
        """An upper bound for so many groups at once, from this plan's: temporaries grow no faster than groups."""
        temporaries = self.compiled.temporary_bytes
        arguments = self.compiled.peak_bytes - temporaries
        return self.copied + arguments + temporaries * groups // self.groups_per_device


def settle(
    config: ml_collections.ConfigDict, devices: Sequence[jax.Device], room: int | float | None = None
) -> MemoryPlan | None:
    """Set `groups_per_device` where it is 0, `remat` where it is "auto" and `fsdp` where it is 0; None: nothing was.

    `room` are bytes of a device; with None the device says, and for CPUs nothing is compiled: one group at once suits
    their caches. An update that does not fit even so is warned about.
    """
    left_open = config.groups_per_device == 0 or config.remat == "auto" or config.fsdp == 0
    if not left_open:
        return None
    if room is None and devices[0].platform == "cpu":
        remat = "none" if config.remat == "auto" else config.remat
        chosen = MemoryPlan(config.groups_per_device or 1, remat, config.fsdp or 1)
    else:
        chosen = choose(config, devices, SHARE * (room or memory.bytes_limit(jax.local_devices()[0])))
    config.groups_per_device, config.remat, config.fsdp = chosen.groups_per_device, chosen.remat, chosen.fsdp
    return chosen


def choose(config: ml_collections.ConfigDict, devices: Sequence[jax.Device], room: int | float) -> MemoryPlan:
    """The fastest choice that fits into `room` bytes of a device, from the compiled update.

    First the sharding: parameters stay whole while they leave room. Then the least recomputation with which one loss
    group fits, and as many groups at once as fit beside the rest.
    """
    fsdp = config.fsdp or fitting_fsdp(config, devices, room)
    for remat in REMAT if config.remat == "auto" else (config.remat,):
        plan = compiled_plan(config, devices, MemoryPlan(config.groups_per_device or 1, remat, fsdp))
        if plan.peak(plan.groups_per_device) <= room:
            break
    else:
        logs.warn(
            f"an update takes {plan.peak(plan.groups_per_device) / 1e9:.1f} GB of a device that has {room / 1e9:.1f} "
            "to give: expect it to fail; set fsdp higher, or group_rows or crop_samples lower"
        )
    if config.groups_per_device:
        return plan
    most = largest_divisor(at_once(config, len(devices)), lambda count: plan.peak(count) <= room)
    return plan if most == 1 else compiled_plan(config, devices, dataclasses.replace(plan, groups_per_device=most))


def largest_divisor(number: int, fits: Callable[[int], bool]) -> int:
    """The largest divisor of `number` that fits; 1 if none does."""
    return max((count for count in range(1, number + 1) if number % count == 0 and fits(count)), default=1)


def at_once(config: ml_collections.ConfigDict, devices: int) -> int:
    """The most loss groups that a device may compute at once: its own, as far as they share a length in a row.

    Every divisor will do too. The configuration's own error where devices do not divide its groups.
    """
    one = ml_collections.ConfigDict({**config, "groups_per_device": 1})
    groups, own = pretraining_recipe.loss_groups(one, devices)
    return math.gcd(own, pretraining_recipe.batch_layout(config, groups).unit)


def fitting_fsdp(config: ml_collections.ConfigDict, devices: Sequence[jax.Device], room: int | float) -> int:
    """The fewest devices, of one host, that must share parameters to leave room; 1 while one can hold them all."""
    family, model = pretraining_recipe.build_model(_with(config, MemoryPlan(1, "none", 1)))
    shapes = jax.eval_shape(functools.partial(family.init_params, model), jax.random.key(0))
    size = sum(4 * math.prod(x.shape) for x in jax.tree.leaves(shapes))
    host = sum(device.process_index == devices[0].process_index for device in devices)
    for fsdp in range(1, host + 1):
        if host % fsdp == 0 and _splits(config, family, model, devices, fsdp):
            # Shared: parameters, both moments, perhaps an average. Whole: the gathered parameters and the gradient.
            whole = 2 * size if fsdp > 1 else size
            shared = 4 * size if config.ema_decay else 3 * size
            if shared / fsdp + whole <= STATE_SHARE * room:
                return fsdp
    return 1


def _splits(config, family, model, devices, fsdp):
    try:
        training_step.on_mesh(config, family, model, sharding.make_mesh(fsdp, devices))
    except errors.InputError:
        return False
    return True


def _with(config, plan):
    changed = {"groups_per_device": plan.groups_per_device, "remat": plan.remat, "fsdp": plan.fsdp}
    return ml_collections.ConfigDict({**config, **changed})


def compiled_plan(config: ml_collections.ConfigDict, devices: Sequence[jax.Device], plan: MemoryPlan) -> MemoryPlan:
    """`plan` with the memory of its compiled update."""
    config = _with(config, plan)
    family, model = pretraining_recipe.build_model(config)
    mesh = sharding.make_mesh(plan.fsdp, devices)
    groups, micros = pretraining_recipe.loss_groups(config, mesh.size)
    layout = pretraining_recipe.batch_layout(config, groups)
    functions = training_step.on_mesh(config, family, model, mesh)
    batch = batch_of(model, layout, micros, mesh, pretraining_recipe.normalize_eps(config))
    found = compiling.compile(functions.update.lower(functions.state, batch), cached=True)
    return dataclasses.replace(plan, copied=report.bytes_per_device(functions.state), compiled=found)


def batch_of(
    model: Any, layout: batch_layout.BatchLayout, micros: int, mesh: Mesh, eps: float | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and shardings of the arrays of a step, [d, a, g, ...] as `update` takes them; `eps` of normalised ones."""
    of_rows = ("lengths", "index") + ("mean", "factor") * (eps is not None)
    sizes = {"audio": (layout.buffer_samples,), **dict.fromkeys(of_rows, (layout.most_rows,))}
    sizes["bucket"] = ()
    if hasattr(model, "label_rate_hz"):
        buckets = enumerate(layout.bucket_samples)
        sizes["units"] = (max(layout.group_rows_of(b) * model.encoder.frames(samples) for b, samples in buckets),)
    shape, place = (mesh.size, micros, layout.groups // (mesh.size * micros)), sharding.over_batch(mesh, 0)
    types = {"audio": jnp.int16, "mean": jnp.float32, "factor": jnp.float32}
    return {
        name: jax.ShapeDtypeStruct((*shape, *size), types.get(name, jnp.int32), sharding=place)
        for name, size in sizes.items()
    }
