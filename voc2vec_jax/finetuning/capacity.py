"""How many folds a device can train at once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from voc2vec_jax.finetuning import engine as fold_engine

SHARE = 0.85  # of the free memory that is planned with; allocators lose some to gaps
CPU_SHARE = 0.4  # where the step is not measured


def fitting(free_bytes: int, state_bytes: int, step_bytes: int, axis: str) -> int:
    """The folds that fit, 1 at least: each its state twice (a save and a step make a copy), and what a step computes.

    With `axis` "map" the folds of a device are computed in turn, so that there is one step at a time.
    """
    room = SHARE * free_bytes
    if axis == "map":
        return max(1, int((room - step_bytes) // (2 * state_bytes)))
    return max(1, int(room // (2 * state_bytes + step_bytes)))


def fitting_on_cpu(free_bytes: int, state_bytes: int) -> int:
    """The same for CPU devices, whose step has memory enough in what is left."""
    return max(1, int(CPU_SHARE * free_bytes // (2 * state_bytes)))


def tree_bytes(tree: Any) -> int:
    """The size of all arrays of a tree, abstract ones too."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def step_bytes(
    learner: fold_engine.Learner,
    recipe: fold_engine.Recipe,
    state: Any,
    fold: dict[str, Any],
    data: Any,
    device: jax.Device,
) -> int:
    """What one fold's step needs besides its state and the data, as the compiler plans it.

    `state` is abstract, `fold` holds the arrays of one fold.
    """
    engine = fold_engine.Engine(learner, recipe, 1, "map", [device])

    def abstract(x, sharding):
        return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x), sharding=sharding)

    def slotted(x):
        return jax.ShapeDtypeStruct((1, *jnp.shape(x)), jnp.result_type(x), sharding=engine.sharded)

    rows = slotted(np.zeros((1, recipe.batch_clips), np.int32))
    shared = jax.tree.map(lambda x: abstract(x, engine.replicated), data)
    lowered = engine.train.lower(jax.tree.map(slotted, state), jax.tree.map(slotted, fold), rows, shared)
    return lowered.compile().memory_analysis().temp_size_in_bytes
