"""Cross-validation as one program: several folds side by side, each with its own parameters, optimizer and clock.

A fold is an index array. Folds sit in *slots*, the first axis of every array of the state; a slot whose fold has
ended takes the next one. What a fold computes depends on the seed and its number alone, not on its neighbours.
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
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Int64, Key

AXIS = "fold"
EMPTY = -1  # a row of a batch without a clip
_ORDER = 7  # the purpose of the random order of clips, in Philox's key


@runtime_checkable
class Learner(Protocol):
    """What is trained: pure functions of parameters, of a fold's own arrays and of those that all folds share.

    `rows` are clips, EMPTY for none; its parts may be computed at different lengths.
    """

    def init(self, key: Key[Array, ""]) -> Any:
        """Fresh parameters."""

    def loss(self, params: Any, fold: Any, data: Any, rows: Int[Array, "r"], key: Key[Array, ""]) -> tuple:
        """(sum, weight) of the training loss of a batch."""

    def outputs(self, params: Any, fold: Any, data: Any, rows: Int[Array, "r"]) -> tuple:
        """Logits [r, v] and features [r, d], without noise."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a fold is trained; the defaults are the paper's."""

    epochs: int = 50
    batch_clips: int = 16
    peak_lr: float = 1e-4
    warmup_steps: int = 500
    patience: int = 5  # epochs without improvement after which a fold ends
    clip_norm: float = 1.0  # 0: no clipping
    weight_decay: float = 0.0
    seed: int = 0


class FoldState(NamedTuple):
    """One fold on the device (a slot axis in front where folds are stacked); `best` are the selected parameters."""

    params: Any
    moments: Any
    steps: Int[Array, "*f"]
    best: Any


def optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """torch's AdamW without its rate, behind a clipped gradient."""
    parts = [optax.clip_by_global_norm(recipe.clip_norm)] if recipe.clip_norm else []
    parts += [optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)]
    parts += [optax.add_decayed_weights(recipe.weight_decay)] if recipe.weight_decay else []
    return optax.chain(*parts)


def rate(recipe: Recipe, steps: Int[Array, ""], total: Int[Array, ""]) -> Float[Array, ""]:
    """The learning rate after `steps` updates: linear from 0 to the peak, then linearly to 0 at `total`.

    As transformers' linear schedule: with fewer steps than the warm-up the peak is not reached.
    """
    rise = steps / max(1, recipe.warmup_steps)
    fall = (total - steps) / jnp.maximum(1, total - recipe.warmup_steps)
    return recipe.peak_lr * jnp.where(steps < recipe.warmup_steps, rise, jnp.maximum(fall, 0))


def start(learner: Learner, recipe: Recipe, fold: int | Int[Array, ""], initial: Any = None) -> FoldState:
    """The state of a fold before its first step: `initial` parameters, completed by fresh ones (jittable)."""
    params = _merged(learner.init(jax.random.fold_in(jax.random.key(recipe.seed), fold)), initial)
    return FoldState(params, optimizer(recipe).init(params), jnp.zeros([], jnp.int32), params)


def _merged(fresh: Any, initial: Any) -> Any:
    """`fresh` with the leaves that `initial` has; ValueError for one that has no place."""
    if initial is None:
        return fresh
    if not isinstance(fresh, dict):
        return jnp.asarray(initial, fresh.dtype)
    if unknown := initial.keys() - fresh.keys():
        raise ValueError(f"{', '.join(sorted(unknown))} has no place among {', '.join(sorted(fresh))}")
    return {name: _merged(value, initial.get(name)) for name, value in fresh.items()}


def update(learner: Learner, recipe: Recipe, state: FoldState, fold: Any, data: Any, rows: Int[Array, "r"]):
    """One step on one batch: the new state and the batch's mean loss; a batch without clips changes nothing.

    `fold` holds `number`, `total_steps` and what the learner needs.
    """

    def train(state: FoldState):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(recipe.seed), fold["number"]), state.steps)

        def objective(params):
            total, weight = learner.loss(params, fold, data, rows, key)
            return total / weight

        loss, grads = jax.value_and_grad(objective)(state.params)
        direction, moments = optimizer(recipe).update(grads, state.moments, state.params)
        lr = rate(recipe, state.steps, fold["total_steps"])
        params = jax.tree.map(lambda p, d: p - lr * d, state.params, direction)
        return FoldState(params, moments, state.steps + 1, state.best), loss

    return jax.lax.cond(jnp.any(rows >= 0), train, lambda state: (state, jnp.zeros([], jnp.float32)), state)


class Engine:
    """The compiled programs over all slots: `axis` "map" runs the slots of a device in turn, "vmap" as one batch.

    Slots are spread over `devices`; `slots` is a multiple of their number.
    """

    def __init__(self, learner: Learner, recipe: Recipe, slots: int, axis: str, devices: Sequence[jax.Device]):
        self.slots = slots
        self.mesh = Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))
        self.sharded = NamedSharding(self.mesh, PartitionSpec(AXIS))
        self.replicated = NamedSharding(self.mesh, PartitionSpec())

        def steps(state, fold, rows, data):
            return jax.lax.scan(lambda s, r: update(learner, recipe, s, fold, data, r), state, rows)

        def outputs(params, fold, rows, data):
            def batch(rows):
                empty = jax.eval_shape(learner.outputs, params, fold, data, rows)
                zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), empty)
                return jax.lax.cond(
                    jnp.any(rows >= 0), lambda r: learner.outputs(params, fold, data, r), lambda _: zeros, rows
                )

            return jax.lax.map(batch, rows)

        self.train = jax.jit(self._over_slots(steps, axis), donate_argnums=0)
        self.outputs = jax.jit(self._over_slots(outputs, axis))
        self.keep = jax.jit(_keep, donate_argnums=0)
        self.place = jax.jit(_place, donate_argnums=0, out_shardings=self.sharded)
        self.take = jax.jit(lambda state, slot: jax.tree.map(lambda x: x[slot], state), out_shardings=self.replicated)

    def _over_slots(self, program, axis: str):
        """`program(state, fold, rows, data)` for every slot; `data` is shared."""

        def local(state, fold, rows, data):
            if axis == "vmap":
                return jax.vmap(program, in_axes=(0, 0, 0, None))(state, fold, rows, data)
            return jax.lax.map(lambda slot: program(*slot, data), (state, fold, rows))

        slots, shared = PartitionSpec(AXIS), PartitionSpec()
        specs = dict(in_specs=(slots, slots, slots, shared), out_specs=slots)
        return jax.shard_map(local, mesh=self.mesh, check_vma=False, **specs)

    def empty(self, abstract: FoldState) -> FoldState:
        """Zeros for every slot, shaped like the state of one fold."""
        make = functools.partial(_zeros, abstract, self.slots)
        return jax.jit(make, out_shardings=self.sharded)()

    def put(self, tree: Any) -> Any:
        """Host arrays with a slot axis, each slot to its device."""
        return jax.tree.map(lambda x: jax.device_put(x, self.sharded), tree)


def _zeros(abstract: FoldState, slots: int) -> FoldState:
    return jax.tree.map(lambda x: jnp.zeros((slots, *x.shape), x.dtype), abstract)


def _keep(state: FoldState, better: Bool[Array, "f"]) -> FoldState:
    """The present parameters become the best ones of the slots that are better."""
    choose = lambda new, old: jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)  # noqa: E731
    return state._replace(best=jax.tree.map(choose, state.params, state.best))


def _place(states: FoldState, slot: Int[Array, ""], state: FoldState) -> FoldState:
    """`state` in the place of one slot."""
    return jax.tree.map(lambda all_, one: all_.at[slot].set(one), states, state)


def parts(samples: Sequence[Int32[np.ndarray, "_"]], batch_clips: int, step: int) -> tuple[tuple[int, int], ...]:
    """(rows, samples) of the parts of a batch that holds one clip of every length stratum, longest first.

    `samples` are the lengths of each set of clips that is cut into batches by `batches`. One, two or four parts:
    the fewest whose audio is within 15 % of what four need. Lengths are multiples of `step`.
    """
    longest = np.max([_longest(lengths, batch_clips) for lengths in samples], axis=0)
    longest = -(-longest // step) * step
    cuts = [count for count in (1, 2, 4) if batch_clips % count == 0]

    def cut(count: int) -> tuple[tuple[int, int], ...]:
        rows = batch_clips // count
        return tuple((rows, int(longest[part * rows])) for part in range(count))

    def cost(count: int) -> int:
        return sum(rows * length for rows, length in cut(count))

    return next(cut(count) for count in cuts if cost(count) <= 1.15 * cost(cuts[-1]))


def _longest(lengths: Int32[np.ndarray, "n"], batch_clips: int) -> Int64[np.ndarray, "r"]:
    """The longest clip of each stratum, 0 for those without clips."""
    steps = -(-len(lengths) // batch_clips)
    ordered = np.zeros(batch_clips * steps, np.int64)
    ordered[: len(lengths)] = np.sort(lengths)[::-1]
    return ordered[::steps]


def batches(
    rows: Int64[np.ndarray, "n"],
    samples: Int32[np.ndarray, "m"],
    batch_clips: int,
    *,
    stratified: bool,
    key: tuple[int, int, int] | None,
) -> Int32[np.ndarray, "k r"]:
    """`rows` in batches, each once, EMPTY where a batch is not full; in random order, or with key None in a fixed one.

    `stratified`: row r of every batch is of the r-th length stratum, longest first, so that batches are alike;
    otherwise clips are shuffled and the last batch takes the rest. `key` is (seed, fold, epoch).
    """
    steps = -(-len(rows) // batch_clips)
    rng = None if key is None else _generator(key)
    if not stratified:
        ordered = rows if rng is None else rng.permutation(rows)
        filled = np.full(steps * batch_clips, EMPTY, np.int32)
        filled[: len(rows)] = ordered
        return filled.reshape(steps, batch_clips)
    filled = np.full(steps * batch_clips, EMPTY, np.int32)
    filled[: len(rows)] = rows[np.argsort(-samples[rows], kind="stable")]
    strata = filled.reshape(batch_clips, steps)
    if rng is not None:
        strata = rng.permuted(strata, axis=1)
    return np.ascontiguousarray(strata.T)


def _generator(key: tuple[int, int, int]) -> np.random.Generator:
    seed, fold, epoch = key
    words = np.array([seed | _ORDER << 32, fold << 32 | epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=words))


def chunks(planned: Sequence[Int32[np.ndarray, "_k r"]], size: int) -> list[Int32[np.ndarray, "f c r"]]:
    """The batches of all slots in pieces of `size` steps, EMPTY where a slot has fewer."""
    rows = planned[0].shape[1]
    count = -(-max(len(one) for one in planned) // size)
    filled = np.full((len(planned), count * size, rows), EMPTY, np.int32)
    for slot, one in enumerate(planned):
        filled[slot, : len(one)] = one
    return [filled[:, k * size : (k + 1) * size] for k in range(count)]


def by_row(
    rows: Int32[np.ndarray, "k r"], values: Float32[np.ndarray, "k r d"], wanted: Int64[np.ndarray, "n"]
) -> Float32[np.ndarray, "n d"]:
    """The values of batches in the order of the clips `wanted`, each of which is in `rows`."""
    flat = rows.reshape(-1)
    place = np.full(int(max(flat.max(), wanted.max())) + 1, EMPTY, np.int64)
    place[flat[flat >= 0]] = np.flatnonzero(flat >= 0)
    return values.reshape(-1, values.shape[-1])[place[wanted]]
