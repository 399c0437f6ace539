"""How many folds the devices can train at once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from voc2vec_jax.finetuning import engine as fold_engine
from voc2vec_jax.finetuning import settings
from voc2vec_jax.planning import devices as plans
from voc2vec_jax.runs import memory

SHARE = 0.85  # of the free memory that is planned with; allocators lose some to gaps
CPU_SHARE = 0.4  # the rest is for the step, which is not measured on CPUs


def choose_slots(
    setting: settings.CrossValidationSetting,
    abstract: fold_engine.FoldState,
    pending: int,
    machine: plans.Machine | None = None,
) -> tuple[list[jax.Device], int]:
    """The devices to use and the number of slots, a multiple of the devices.

    As many slots as the setting asks for, else as memory allows, and no more than `pending` folds need. `abstract` is
    the shape of one fold's state, `machine` what is planned for in place of the local devices.
    """
    devices = list(machine.devices) if machine else jax.local_devices()
    if devices[0].platform == "cpu":  # all CPU devices share the machine's memory
        fitting = setting.folds_at_once or fitting_on_cpu(memory.bytes_free(devices[0]), tree_bytes(abstract))
        wanted = min(fitting, pending)
        devices = devices[:wanted]
    else:
        # A device without a fold would compute an empty slot.
        devices = devices[:pending]
        fitting = setting.folds_at_once or len(devices) * fitting_beside_data(
            setting, abstract, devices[0], machine.free_bytes if machine else memory.bytes_free(devices[0])
        )
        wanted = min(fitting, pending)
    # Seven folds on four devices: eight slots, two on each; the eighth stays empty.
    return devices, -(-wanted // len(devices)) * len(devices)


def fitting_beside_data(
    setting: settings.CrossValidationSetting, abstract: fold_engine.FoldState, device: jax.Device, free_bytes: int
) -> int:
    """The folds that one accelerator with `free_bytes` holds beside the task's clips."""
    data = dict(setting.trained.data)
    fold = {name: value[0] for name, value in setting.fold_batch([0]).items()}
    step = step_bytes(setting.trained.learner, setting.recipe, abstract, fold, data, device)
    return fitting(free_bytes - tree_bytes(data), tree_bytes(abstract), step, setting.axis)


def fitting(free_bytes: int, state_bytes: int, step_bytes: int, axis: str) -> int:
    """The folds that fit into `free_bytes`, at least 1.

    Each needs its state twice, because a save and a step make a copy. Under "vmap" each needs a step's memory as well;
    under "map" the folds take turns with it:

        map   n = (SHARE free - step) / (2 state)         vmap   n = SHARE free / (2 state + step)
    """
    room = SHARE * free_bytes
    if axis == "map":
        return max(1, int((room - step_bytes) // (2 * state_bytes)))
    return max(1, int(room // (2 * state_bytes + step_bytes)))


def fitting_on_cpu(free_bytes: int, state_bytes: int) -> int:
    """The folds that fit on a machine's CPU devices, at least 1."""
    return max(1, int(CPU_SHARE * free_bytes // (2 * state_bytes)))


def tree_bytes(tree: Any) -> int:
    """The size of all arrays of a tree; they may be abstract."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def step_bytes(
    learner: fold_engine.Learner,
    recipe: fold_engine.FineTuningRecipe,
    state: Any,
    fold: dict[str, Any],
    data: Any,
    device: jax.Device,
) -> int:
    """What one fold's step needs besides its state and the data.

    `state` is abstract, `fold` holds the arrays of one fold.
    """
    # The compiler knows what it will allocate: no estimate from shapes, and no trial that runs out of memory.
    engine = fold_engine.Engine(learner, recipe, 1, "map", [device])

    def abstract(x, sharding):
        return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x), sharding=sharding)

    def slotted(x):
        return jax.ShapeDtypeStruct((1, *jnp.shape(x)), jnp.result_type(x), sharding=engine.sharded)

    rows = slotted(np.zeros((1, recipe.batch_clips), np.int32))
    shared = jax.tree.map(lambda x: abstract(x, engine.replicated), data)
    lowered = engine.train.lower(jax.tree.map(slotted, state), jax.tree.map(slotted, fold), rows, shared)
    return lowered.compile().memory_analysis().temp_size_in_bytes
