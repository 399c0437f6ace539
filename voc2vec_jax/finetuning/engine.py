"""How a fold is trained: one step, and the compiled programs that run many folds side by side.

A fold is an index array. Folds sit in *slots*, the first axis of every array of the state; when a fold ends, the next
one takes its slot. What a fold computes depends on the seed and the fold's number only, never on its neighbours.

r = rows of a batch, k = batches, f = slots, d = width, v = classes.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key

from voc2vec_jax.finetuning import adaptation

AXIS = "fold"


@runtime_checkable
class Learner(Protocol):
    """What is trained: pure functions of the parameters, one fold's own arrays, and the arrays that all folds share.

    `rows` index the task's clips; `batches.EMPTY` marks a row without one.
    """

    def init(self, key: Key[Array, ""]) -> Any:
        """Random parameters, of what is trained."""

    def rates(self, params: Any) -> Any:
        """A factor of the learning rate for each parameter, of a shape that broadcasts; None: 1 for all."""

    def loss(self, params: Any, fold: Any, data: Any, rows: Int[Array, "r"], key: Key[Array, ""]) -> tuple:
        """Sum and weight of a batch's training loss."""

    def outputs(self, params: Any, fold: Any, data: Any, rows: Int[Array, "r"]) -> tuple:
        """Logits [r, v] and features [r, d], without dropout and masks."""


@dataclasses.dataclass(frozen=True)
class FineTuningRecipe:
    """How one fold is trained; configs/finetune.py states the values and their sources."""

    epochs: int
    batch_clips: int
    peak_lr: float
    warmup_steps: int
    patience: int  # epochs without improvement after which a fold ends
    short_warmup: bool  # the warm-up is at most a tenth of a fold's updates, and patience counts only behind it
    clip_norm: float | int  # of the gradient over all parameters; 0: no clipping
    weight_decay: float | int
    seed: int
    freeze_updates: int = 0  # of the first updates, which train the head alone


class FoldState(NamedTuple):
    """One fold on the device, or with a slot axis in front all of them; `best` are the parameters of the best epoch.

    It holds what is trained alone; frozen parameters are shared by all folds, among the `data`.
    """

    params: Any
    moments: Any
    steps: Int[Array, "*f"]
    best: Any


def optimizer(recipe: FineTuningRecipe) -> optax.GradientTransformation:
    """Clip the gradient, then torch's AdamW up to its learning rate, which `update` applies."""
    parts = [optax.clip_by_global_norm(recipe.clip_norm)] if recipe.clip_norm else []
    parts += [optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)]
    # Behind Adam's scaling, so that the decay is not divided by the second moment: the W of AdamW.
    parts += [optax.add_decayed_weights(recipe.weight_decay)] if recipe.weight_decay else []
    if recipe.freeze_updates:
        # Each part counts its own updates, as torch's does: Adam corrects its moments by the number of updates.
        clip, adam = parts[: bool(recipe.clip_norm)], optax.chain(*parts[bool(recipe.clip_norm) :])
        parts = [*clip, optax.partition({"held": adam, "free": adam}, _held)]
    return optax.chain(*parts)


def _held(params: Any) -> Any:
    """Which parameters stand still in the first updates: "held" or "free" for each."""
    return {
        name: jax.tree.map(lambda _: "held" if name in adaptation.HELD else "free", value)  # noqa: B023
        for name, value in params.items()
    }


def warmup(recipe: FineTuningRecipe, total: int | Int[Array, ""]) -> int | Int[Array, ""]:
    """The updates of the warm-up of a fold of `total` updates."""
    return jnp.minimum(recipe.warmup_steps, total // 10) if recipe.short_warmup else recipe.warmup_steps


def rate(recipe: FineTuningRecipe, steps: Int[Array, ""], total: Int[Array, ""]) -> Float[Array, ""]:
    """The learning rate after `steps` updates: linear from 0 to the peak, then linear to 0 at `total`.

    transformers' `get_linear_schedule_with_warmup`, with the fold's `warmup`: unless it is short, a fold of fewer
    updates never reaches the peak.
    """
    rising = warmup(recipe, total)
    rise = steps / jnp.maximum(1, rising)
    fall = (total - steps) / jnp.maximum(1, total - rising)
    return recipe.peak_lr * jnp.where(steps < rising, rise, jnp.maximum(fall, 0))


def start(learner: Learner, recipe: FineTuningRecipe, fold: int | Int[Array, ""], initial: Any = None) -> FoldState:
    """The state of a fold before its first step; jittable.

    `initial` holds the pre-trained part of the parameters; what it lacks, such as the head, is random.
    """
    # The key holds the fold's number, so that its head is the same in any slot and in any process.
    params = _merged(learner.init(jax.random.fold_in(jax.random.key(recipe.seed), fold)), initial)
    return FoldState(params, optimizer(recipe).init(params), jnp.zeros([], jnp.int32), params)


def _merged(fresh: Any, initial: Any) -> Any:
    """`fresh`, overwritten by the leaves of `initial`; ValueError for a name that `fresh` does not have."""
    if initial is None:
        return fresh
    if not isinstance(fresh, dict):
        return jnp.asarray(initial, fresh.dtype)
    if unknown := initial.keys() - fresh.keys():
        raise ValueError(f"{', '.join(sorted(unknown))} has no place among {', '.join(sorted(fresh))}")
    return {name: _merged(value, initial.get(name)) for name, value in fresh.items()}


def update(learner: Learner, recipe: FineTuningRecipe, state: FoldState, fold: Any, data: Any, rows: Int[Array, "r"]):
    """One step on one batch: the new state and the batch's mean loss; a batch without clips changes nothing.

    `fold` holds `number`, `total_steps` and what the learner needs.
    """

    def train(state: FoldState):
        # The key depends on the fold and its own step, not on the slot or the time, so that a fold draws the same
        # noise beside any neighbours and after any resume.
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(recipe.seed), fold["number"]), state.steps)

        def objective(params):
            total, weight = learner.loss(params, fold, data, rows, key)
            return total / weight

        loss, grads = _gradient(recipe, objective, state)
        direction, moments = _direction(recipe, grads, state)
        lr = rate(recipe, state.steps, fold["total_steps"])
        # The rate depends on the fold's own length, so it multiplies here and not inside the shared optimizer.
        rates = learner.rates(state.params)
        if rates is not None:
            direction = jax.tree.map(jnp.multiply, direction, rates)
        params = jax.tree.map(lambda p, d: p - lr * d, state.params, direction)
        return FoldState(params, moments, state.steps + 1, state.best), loss

    # Folds of different sizes share a chunk: the short ones are padded with empty batches, which must not even
    # decay Adam's moments.
    return jax.lax.cond(jnp.any(rows >= 0), train, lambda state: (state, jnp.zeros([], jnp.float32)), state)


def _gradient(recipe: FineTuningRecipe, objective, state: FoldState) -> tuple[Float[Array, ""], Any]:
    """A loss and its gradient; in the first `freeze_updates` that of held parameters is 0, and costs nothing."""
    if not recipe.freeze_updates:
        return jax.value_and_grad(objective)(state.params)

    def of_head(params):
        free = {name: value for name, value in params.items() if name not in adaptation.HELD}
        loss, grads = jax.value_and_grad(lambda free: objective({**params, **free}))(free)
        return loss, {**jax.tree.map(jnp.zeros_like, params), **grads}

    # Under "vmap" both are computed, since folds of a batch may be at different updates.
    held = state.steps < recipe.freeze_updates
    return jax.lax.cond(held, of_head, jax.value_and_grad(objective), state.params)


def _direction(recipe: FineTuningRecipe, grads: Any, state: FoldState) -> tuple[Any, Any]:
    """The optimizer's direction and new moments; held parameters keep theirs, their count of updates too."""
    direction, moments = optimizer(recipe).update(grads, state.moments, state.params)
    if not recipe.freeze_updates:
        return direction, moments
    held = state.steps < recipe.freeze_updates
    still = {
        name: jax.tree.map(lambda d: jnp.where(held, 0, d), value) if name in adaptation.HELD else value
        for name, value in direction.items()
    }
    old, new = (one[-1].inner_states for one in (state.moments, moments))
    kept = {**new, "held": jax.tree.map(lambda o, n: jnp.where(held, o, n), old["held"], new["held"])}
    return still, (*moments[:-1], moments[-1]._replace(inner_states=kept))


class Engine:
    """The compiled programs over all slots. `axis`: "map" runs a device's slots in turn, "vmap" runs them as one batch.

    Slots are spread over `devices`, and `slots` is a multiple of their number:

        device 0   device 1
        slot 0 1   slot 2 3     each device holds its slots' states, and all of `data`
    """

    def __init__(
        self, learner: Learner, recipe: FineTuningRecipe, slots: int, axis: str, devices: Sequence[jax.Device]
    ):
        self.slots = slots
        self.mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
        self.sharded = NamedSharding(self.mesh, PartitionSpec(AXIS))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())

        def steps(state, fold, rows, data):
            return jax.lax.scan(lambda s, r: update(learner, recipe, s, fold, data, r), state, rows)

        def outputs(params, fold, rows, data):
            def batch(rows):
                # An empty batch costs nothing under "map"; its zeros are never read.
                empty = jax.eval_shape(learner.outputs, params, fold, data, rows)
                zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), empty)
                return jax.lax.cond(
                    jnp.any(rows >= 0), lambda r: learner.outputs(params, fold, data, r), lambda _: zeros, rows
                )

            return jax.lax.map(batch, rows)

        # Donated: a state is parameters, two moments and the best parameters, which must not be held twice.
        self.train = jax.jit(self._over_slots(steps, axis), donate_argnums=0)
        self.outputs = jax.jit(self._over_slots(outputs, axis))
        self.keep = jax.jit(_keep, donate_argnums=0)
        # Under plain jit both would gather every slot on every device.
        slots, shared = PartitionSpec(AXIS), PartitionSpec()
        place = self._on_devices(_place, (slots, shared, shared), slots)
        take = self._on_devices(_take, (slots, shared), shared)
        self.place, self.take = jax.jit(place, donate_argnums=0), jax.jit(take)

    def _on_devices(self, program, in_specs, out_specs):
        """`program` on each device for its own slots."""
        return jax.shard_map(program, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)

    def _over_slots(self, program, axis: str):
        """`program(state, fold, rows, data)` for every slot; all slots share `data`."""

        def local(state, fold, rows, data):
            if axis == "vmap":
                return jax.vmap(program, in_axes=(0, 0, 0, None))(state, fold, rows, data)
            return jax.lax.map(lambda slot: program(*slot, data), (state, fold, rows))

        # A map over a sharded axis gathers every slot on every device under plain jit.
        slots, shared = PartitionSpec(AXIS), PartitionSpec()
        return self._on_devices(local, (slots, slots, slots, shared), slots)

    def empty(self, abstract: FoldState) -> FoldState:
        """Zeros for every slot; `abstract` is the state of one fold."""
        make = functools.partial(_zeros, abstract, self.slots)
        return jax.jit(make, out_shardings=self.sharded)()

    def put(self, tree: Any) -> Any:
        """Send host arrays with a slot axis to the devices, each slot to its own."""
        return jax.tree.map(lambda x: jax.device_put(x, self.sharded), tree)


def _zeros(abstract: FoldState, slots: int) -> FoldState:
    return jax.tree.map(lambda x: jnp.zeros((slots, *x.shape), x.dtype), abstract)


def _keep(state: FoldState, better: Bool[Array, "f"]) -> FoldState:
    """In the slots that are better, the present parameters become the best ones."""
    # better [f] against parameters [f, ...]
    choose = lambda new, old: jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)  # noqa: E731
    return state._replace(best=jax.tree.map(choose, state.params, state.best))


def _own(states: Any, slot: Int[Array, ""]) -> tuple[Int[Array, ""], Bool[Array, ""]]:
    """Inside `shard_map`: a slot's place among those of this device, and whether it is one of them."""
    count = jax.tree.leaves(states)[0].shape[0]
    place = slot - jax.lax.axis_index(AXIS) * count
    return jnp.clip(place, 0, count - 1), (place >= 0) & (place < count)


def _place(states: FoldState, slot: Int[Array, ""], state: FoldState) -> FoldState:
    """Put the state of one fold into a slot."""
    place, own = _own(states, slot)
    return jax.tree.map(lambda all_, one: all_.at[place].set(jnp.where(own, one, all_[place])), states, state)


def _take(states: Any, slot: Int[Array, ""]) -> Any:
    """What a slot holds, on every device."""
    place, own = _own(states, slot)

    def taken(x: Array) -> Array:
        # Bits are summed, as a sum of floats with zeros loses the sign of -0.0.
        bits = jnp.where(own, x[place].view(f"uint{8 * x.dtype.itemsize}"), 0)
        return jax.lax.psum(bits, AXIS).view(x.dtype)

    return jax.tree.map(taken, states)
