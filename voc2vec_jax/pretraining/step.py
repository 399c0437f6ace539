"""The training step: one update and one evaluation, compiled over a mesh.

A batch is [d, a, g, ...]: d * a * g loss groups in the order of the plan. Axis d lies over the devices, axis a is
computed sequentially, the g groups of a micro-batch at once. A group's audio is a flat buffer of int16 samples. The
groups of a micro-batch share a length, so that they become rows [g, r, s]; another micro-batch, and another device,
may have another length. With L_i the loss sum and w_i the weight (masked frames) of group i, the gradient is

    sum_i grad L_i / sum_i w_i

divided once. How groups are spread over devices and accumulation changes nothing. Random numbers are keyed by
(seed, step, group or row).
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key

from voc2vec_jax import audio
from voc2vec_jax.models import encoder, flops
from voc2vec_jax.ops import optim
from voc2vec_jax.pretraining import batch_layout
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.runs import sharding

TRAIN, VALIDATION = 0, 1
GROUPS, ROWS = 0, 1


def init_state(
    family: ModuleType, model: Any, optimizer: optax.GradientTransformation, seed: int, *, ema: bool = False
) -> dict:
    """A fresh training state, from random parameters; see `start_state`."""
    params = family.init_params(model, jax.random.key(seed))
    return start_state(optimizer, params, ema=ema)


def start_state(optimizer: optax.GradientTransformation, params: Any, *, ema: bool = False) -> dict:
    """The state before the first update from given parameters.

    `params`, `opt_state`, `step`: the updates that took place, and `bad_in_row`: those that were skipped since. With
    `ema` also that: the moving average of the parameters, which begins at them.
    """
    zero = jnp.zeros([], jnp.int32)
    state = {"params": params, "opt_state": optimizer.init(params), "step": zero, "bad_in_row": zero}
    return with_ema(state) if ema else state


def with_ema(state: dict) -> dict:
    """A state whose moving average of the parameters, `ema`, begins at the parameters."""
    return {**state, "ema": state["params"]}


def averaged(state: dict) -> Any:
    """The parameters that are validated and exported: their moving average where the state has one."""
    return state.get("ema", state["params"])


def noise(key: Key[Array, ""], groups: Int[Array, "g"], rows: int, most_rows: int | None = None) -> encoder.Noise:
    """Keys of the rows of the given loss groups. They depend neither on the device nor on other groups.

    No group of the update has more than `most_rows`; None: all have `rows`.
    """
    # Rows are numbered through all groups, of groups of 4 rows at most:   0 1 2 3 | 4 5 - - | 8 9 10 11
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    numbers = (groups[:, None] * (most_rows or rows) + jnp.arange(rows)[None]).reshape(-1)
    group_keys = jnp.repeat(fold(jax.random.fold_in(key, GROUPS), groups), rows, total_repeat_length=numbers.size)
    return encoder.Noise(fold(jax.random.fold_in(key, ROWS), numbers), group_keys)


def loss_sums(
    family: ModuleType,
    model: Any,
    params: Any,
    micro: dict[str, Array],
    keys: encoder.Noise,
    step: Int[Array, ""],
    *,
    train: bool,
    equal_masks: bool,
) -> tuple[Array, dict[str, Array]]:
    """(loss sum, metric sums with `weight`) of loss groups [g, r, s] of int16, normalised if `micro` says how."""
    clips = audio.from_int16(micro["audio"])
    if "mean" in micro:
        clips = normalised(clips, micro["lengths"], micro["mean"], micro["factor"])
    batch = {**micro, "audio": clips}
    loss, weight, sums = family.loss_fn(model, params, batch, keys, step, train=train, equal_masks=equal_masks)
    return loss, {**sums, "weight": weight}


def operations(model: Any, shape: tuple[int, int, int]) -> Float[Array, ""]:
    """Operations of the products in forward and backward pass of groups [g, r, s], padding included."""
    groups, rows, samples = shape
    return jnp.float32(groups * rows * sum(flops.training(model, samples).values()))


def normalised(
    clips: Float[Array, "g r s"], lengths: Int[Array, "g r"], mean: Float[Array, "g r"], factor: Float[Array, "g r"]
) -> Float[Array, "g r s"]:
    """(x - mean) * factor of each row; padding stays zero."""
    valid = jnp.arange(clips.shape[2])[None, None] < lengths[..., None]
    return jnp.where(valid, (clips - mean[..., None]) * factor[..., None], 0)


def as_rows(layout: batch_layout.BatchLayout, model: Any, micro: dict[str, Array], bucket: int) -> dict[str, Array]:
    """The loss groups of a micro-batch, all of bucket number `bucket`, as rows: audio [g, r, s], units [g, r, t]."""
    rows, samples = layout.group_rows_of(bucket), layout.bucket_samples[bucket]
    shapes = {"audio": (rows, samples), **dict.fromkeys(("lengths", "index", "mean", "factor"), (rows,))}
    if "units" in micro:
        shapes["units"] = (rows, model.encoder.frames(samples))

    def cut(x, shape):
        return x[:, : math.prod(shape)].reshape(-1, *shape)

    return {name: cut(x, shapes[name]) if name in shapes else x for name, x in micro.items()}


def by_length(layout: batch_layout.BatchLayout, model: Any, of_rows: Callable) -> Callable:
    """`f(params, micro, step)` for micro-batches of any length, from `of_rows(params, micro, step)` for rows."""

    def of_bucket(bucket, params, micro, step):
        return of_rows(params, as_rows(layout, model, micro, bucket), step)

    branches = [functools.partial(of_bucket, bucket) for bucket in range(len(layout.bucket_samples))]

    def of_micro(params, micro, step):
        # The branches hold no collectives: devices may take different ones.
        return jax.lax.switch(micro["bucket"][0], branches, params, micro, step)

    return of_micro


def make_update(
    family: ModuleType,
    model: Any,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    layout: batch_layout.BatchLayout,
    mesh: Mesh,
    rules: sharding.Rules = sharding.UNCUT,
    *,
    seed: int,
    equal_masks: bool,
    max_bad: int = 10,
    ema_decay: float = 0.0,
) -> Callable:
    """`update(state, batch) -> (state, row)`: one optimizer step and the step's logged numbers.

    The state lies on `mesh` as `rules` say. Devices exchange gradients once an update, whatever the accumulation. A
    moving average of the parameters in the state follows them by `ema_decay`.

    An update whose loss or gradient is not finite leaves all but `bad_in_row` as it was. After `max_bad` of them in a
    row nothing changes the state any more. In the row, `bad_in_row` counts them, and `bad_groups`, in the plan's order,
    is above 0 for the loss groups that were computed together with one whose loss is not finite.
    """

    # Where all groups of an update share a length they are numbered without gaps, as version 0.1.0 does.
    most_rows = layout.most_rows if layout.step_units > 1 else None

    def update(state, batch):
        step, params = state["step"], state["params"]
        places = batch["lengths"].shape[:3]
        batch = {**batch, "group": jnp.arange(math.prod(places)).reshape(places)}
        specs = sharding.specs(params, mesh, rules)
        gradient = functools.partial(_gradient, family, model, seed, equal_masks, layout.groups, most_rows)
        of_micro = by_length(layout, model, gradient)
        grads, sums = over_groups(of_micro, mesh, specs, (specs, sharding.WHOLE))(params, batch, step)
        weight = jnp.maximum(sums["weight"], 1)  # a batch of empty rows divides by 1
        grads = jax.tree.map(lambda x: x / weight, grads)
        # A gradient with a finite norm has finite squares: neither moments nor parameters overflow.
        norm = optax.tree.norm(grads)
        good = jnp.isfinite(sums["loss"]) & jnp.isfinite(norm)
        updates, opt_state = optimizer.update(grads, state["opt_state"], params)
        after = {"params": optax.apply_updates(params, updates), "opt_state": opt_state, "step": step + 1}
        if "ema" in state:
            after["ema"] = optim.moving_average(state["ema"], after["params"], ema_decay)
        after = _unless_bad(state, after, good, max_bad)
        row = {
            **family.summary(sums),
            **family.schedules(model, step),
            "lr": schedule(step),
            "audio_seconds": sums["audio_seconds"],
            "flops": sums["flops"],
            "grad_norm": norm,
            "bad_in_row": after["bad_in_row"],
            "bad_groups": sums["bad_groups"],
        }
        return after, row

    return update


def _gradient(family, model, seed, equal_masks, groups, most_rows, params, micro, step):
    """Gradients and metric sums of a micro-batch; of `groups` in all, those with a loss that is not finite."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), TRAIN), step)
    keys = noise(key, micro["group"], micro["lengths"].shape[1], most_rows)

    def loss(params):
        return loss_sums(family, model, params, micro, keys, step, train=True, equal_masks=equal_masks)

    (value, sums), grads = jax.value_and_grad(loss, has_aux=True)(params)
    seconds = jnp.sum(micro["lengths"]).astype(jnp.float32) / audio.RATE_HZ
    bad = jnp.zeros(groups, jnp.float32).at[micro["group"]].set(~jnp.isfinite(value))
    operations_done = operations(model, micro["audio"].shape)
    return grads, {**sums, "audio_seconds": seconds, "flops": operations_done, "bad_groups": bad}


def _unless_bad(state: dict[str, Any], after: dict[str, Any], good: Bool[Array, ""], max_bad: int) -> dict[str, Any]:
    """The state `after` an update that is `good`, else `state` as it was; both with the count of bad ones in a row."""
    ended = state["bad_in_row"] >= max_bad
    taken = good & ~ended
    kept = {name: jax.tree.map(functools.partial(jnp.where, taken), x, state[name]) for name, x in after.items()}
    return {**kept, "bad_in_row": jnp.where(taken, 0, state["bad_in_row"] + ~ended)}


def over_groups(of_micro: Callable, mesh: Mesh, specs: Any, results: Any) -> Callable:
    """`f(params, batch, step)`: sums of `of_micro(params, micro-batch, step)` over all groups [d, a, g, ...].

    `specs` say how `params` lie on the mesh, `results` how the sums do. A device computes its own groups alone; the
    parameters are gathered before, and the sums exchanged after, all of them.
    """

    def of_device(params, batch, step):
        params = sharding.gathered(params, specs)
        batch = jax.tree.map(lambda x: x[0], batch)
        return sharding.summed(accumulate(lambda micro: of_micro(params, micro, step), batch), results)

    # Under automatic partitioning XLA reduces each layer's gradient of each micro-batch, in the compute dtype. So would
    # check_vma: the gradient of what all devices share is then reduced where it arises. It also refuses loops whose
    # carry starts the same on all devices.
    return jax.shard_map(
        of_device, mesh=mesh, in_specs=(specs, sharding.OVER_BATCH, sharding.WHOLE), out_specs=results, check_vma=False
    )


def accumulate(of_micro: Callable, batch: dict):
    """Sum of `of_micro(micro-batch)` over axis 0 of the batch [a, g, ...], one micro-batch in memory at a time."""
    if batch["lengths"].shape[0] == 1:
        return of_micro(jax.tree.map(lambda x: x[0], batch))
    of_micro = jax.jit(of_micro)  # so that eval_shape and the scan share one trace
    first = jax.eval_shape(of_micro, jax.tree.map(lambda x: x[0], batch))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)

    def add(total, micro):
        return jax.tree.map(jnp.add, total, of_micro(micro)), None

    return jax.lax.scan(add, zeros, batch)[0]


def make_evaluate(
    family: ModuleType,
    model: Any,
    layout: batch_layout.BatchLayout,
    mesh: Mesh,
    rules: sharding.Rules = sharding.UNCUT,
    *,
    seed: int,
    equal_masks: bool,
) -> Callable:
    """`evaluate(params, batch) -> metric sums`, without dropout. A clip has the same masks at every validation.

    Its key comes from its row in the corpus (`index` [d, a, g, r]), so that it does not depend on the batch.
    """

    def of_rows(params, micro, step):
        key = jax.random.fold_in(jax.random.key(seed), VALIDATION)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, micro["index"].reshape(-1))
        keys = encoder.Noise(keys, keys)
        return loss_sums(family, model, params, micro, keys, step, train=False, equal_masks=equal_masks)[1]

    def evaluate(params, batch):
        specs = sharding.specs(params, mesh, rules)
        of_micro = by_length(layout, model, of_rows)
        return over_groups(of_micro, mesh, specs, sharding.WHOLE)(params, batch, jnp.zeros([], jnp.int32))

    return evaluate


@dataclasses.dataclass(frozen=True)
class TrainingFunctions:
    """All that a run computes, jitted for one mesh. Each function compiles at its first call."""

    family: ModuleType
    model: Any
    state: Any  # shapes, dtypes and shardings of the training state; nothing is allocated
    init: Callable  # () -> state
    start: Callable  # (params) -> state
    begin_average: Callable  # (a state without `ema`) -> one with it
    update: Callable  # (state, batch) -> (state, row); the old state is donated
    evaluate: Callable  # (params, batch) -> metric sums
    summary: Callable  # (metric sums) -> row


def on_mesh(config: ml_collections.ConfigDict, family: ModuleType, model: Any, mesh: Mesh) -> TrainingFunctions:
    """The functions of a configuration; InputError when its sharding rules do not fit the parameters."""
    optimizer, schedule = pretraining_recipe.build_optimizer(config)
    layout = pretraining_recipe.batch_layout(config, pretraining_recipe.loss_groups(config, mesh.size)[0])
    averages = {"ema": config.ema_decay > 0}
    init = functools.partial(init_state, family, model, optimizer, config.seed, **averages)
    rules = tuple((pattern, None if axis < 0 else axis) for pattern, axis in config.sharding_rules)
    shapes = jax.eval_shape(init)
    # Adam's moments have the names of their parameters within their own paths: the same rules place both.
    places, everywhere = sharding.shard_tree(shapes, mesh, rules), sharding.replicated(mesh)
    # fairseq's collater crops a batch to its shortest clip and then hides equally many frames in each row.
    options = {"seed": config.seed, "equal_masks": config.batching == "crop"}
    kept = {"max_bad": config.max_bad_updates, "ema_decay": config.ema_decay}
    update = make_update(family, model, optimizer, schedule, layout, mesh, rules, **kept, **options)
    evaluate = make_evaluate(family, model, layout, mesh, rules, **options)
    return TrainingFunctions(
        family,
        model,
        state=jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, places),
        init=jax.jit(init, out_shardings=places),
        start=jax.jit(functools.partial(start_state, optimizer, **averages), out_shardings=places),
        begin_average=jax.jit(with_ema, out_shardings=places),
        update=jax.jit(update, donate_argnums=0, out_shardings=(places, everywhere)),
        evaluate=jax.jit(evaluate, out_shardings=everywhere),
        summary=jax.jit(family.summary),
    )
