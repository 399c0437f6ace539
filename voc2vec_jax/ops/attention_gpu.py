"""Attention for NVIDIA GPUs: Pallas kernels, compiled by Triton.

No array of score size exists (FlashAttention, Dao et al. 2022). A program holds a block of queries and goes through the
blocks of keys, or the other way round. It draws dropout's mask, and adds the position bias, where it computes a score.

    forward         grid (query block, head, row)       through the keys: softmax(q k' + gate bias) v
    backward        grid (block, head, row)             a block of keys through the queries: dk, dv;
                                                        a block of queries through the keys: dq, dgate
    bias backward   grid (query block, key block, head) through the rows: dbias

Each result has one program that writes it and a fixed order of sums. There are no atomics, so results repeat to the
bit. Keys past a row's frames are not read, and blocks of them are not computed. A program reads its head's part of
[b, t, h, c] in strides, so nothing is transposed, and nothing is padded. It reads all keys, or all queries, for each of
its blocks. Only the first of these reads is from memory: one head's keys and values of 10 s are 128 KB in bfloat16,
and stay in the L2 cache.

The compiler is Triton because it serves every card since Ampere; Pallas' other one, Mosaic GPU, serves Hopper and
later. JAX chooses by the type of `compiler_params`, whatever `jax_pallas_use_mosaic_gpu` says. JAX 0.11 calls its
Triton compiler deprecated: where it is gone, `supports` is False and the plain form is used.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Int

from voc2vec_jax.ops import dropout

try:
    from jax.experimental.pallas import triton
except ImportError:  # no longer part of JAX
    triton = None

HEAD_WIDTHS = (16, 32, 64, 128)  # tl.dot multiplies blocks of 16 or more, in powers of two
OLDEST = 8.0  # compute capability of Ampere, the first with products of bfloat16
LEAST = float(np.finfo(np.float32).min)  # not -inf: -inf - (-inf) is NaN


class Plan(NamedTuple):
    """What a kernel is compiled for."""

    length: int  # t
    drops: dropout.Rule | None
    block: int  # queries and keys of a block
    warps: int
    stages: int  # loads in flight
    interpret: bool


def supports(query: Float[Array, "b t h c"], bias: Float[Array, "h t t"] | None, drops: dropout.Rule | None) -> bool:
    """Whether the kernels compute this; shapes and types decide."""
    b, t, h, c = query.shape
    return (
        triton is not None
        and query.dtype in (jnp.float32, jnp.bfloat16)
        and (bias is None or bias.dtype in (jnp.float32, jnp.bfloat16))
        and (drops is None or drops.bits == "hash")
        and c in HEAD_WIDTHS
        and b * t * h > 0
        and max(b, h) < 2**16  # CUDA's limit for the grid's second and third axis
        and _knows_card()
    )


def _knows_card() -> bool:
    """Whether Triton compiles the kernels for the card at hand: Ampere or later, and JAX lowers them for it.

    JAX 0.11 and later find a card's compute capability in a list, which lacks some (RTX A6000). A process that has no
    GPU and compiles for one is refused too. Both are entered as the oldest card that the kernels are for. What JAX
    reads there concerns types of 8 bits only; XLA compiles the kernel for the card that the program is for.
    """
    device = jax.devices()[0]
    capability = device.compute_capability if device.platform == "gpu" else str(OLDEST)
    if capability.startswith("gfx") or float(capability) < OLDEST:  # gfx: an AMD card
        return False
    if not hasattr(triton, "get_gpu_info"):
        return True
    abstract = jax.sharding.get_abstract_mesh().abstract_device  # within shard_map, that of its devices
    try:
        from jax._src.pallas.triton import gpu_info

        oldest = triton.GpuInfo(gpu_version=None, arch_name=str(OLDEST), compute_capability=int(10 * OLDEST))
        for kind in {"cpu", device.device_kind, getattr(abstract, "device_kind", "cpu")}:
            gpu_info.registry.setdefault(kind, lambda: oldest)
        triton.get_gpu_info()
    except (ImportError, AttributeError, TypeError, ValueError):
        return False
    return True


def _plan(query, drops, interpret) -> Plan:
    # A block of 64 by 64 scores takes 32 registers of each thread of 4 warps. Float32 products run outside of tensor
    # cores, and their operands are in registers too.
    narrow = query.dtype == jnp.bfloat16
    warps = 4 if narrow and query.shape[3] <= 64 else 8
    return Plan(query.shape[1], drops, 64 if narrow else 32, warps, 2, interpret)


def _dot(x, y, over: tuple[int, int]):
    """The product of two blocks over an axis of each, in float32."""
    # Explicit, so that `jax_default_matmul_precision` changes neither type's products.
    precision = lax.Precision.HIGHEST if x.dtype == jnp.float32 else lax.Precision.DEFAULT
    dimensions = (((over[0],), (over[1],)), ((), ()))
    return lax.dot_general(x, y, dimensions, precision=precision, preferred_element_type=jnp.float32)


def _numbers(start, shape, axis):
    return start + lax.broadcasted_iota(jnp.int32, shape, axis)


def _load(ref, block: int, starts, ends, lead=(), other=0.0):
    """Blocks of a reference's first axes after `lead`, from `starts`; `other` where an index is not below its end."""
    sizes = (block,) * len(starts) + ref.shape[len(lead) + len(starts) :]
    index = (*lead, *(pl.ds(start, block) for start in starts), *(slice(None),) * (len(sizes) - len(starts)))
    inside = [_numbers(start, sizes, axis) < end for axis, (start, end) in enumerate(zip(starts, ends, strict=True))]
    return triton.load(ref.at[index], mask=functools.reduce(jnp.logical_and, inside), other=other)


def _store(ref, x, end):
    """The rows of x below `end`."""
    triton.store(ref.at[...], x.astype(ref.dtype), mask=_numbers(0, x.shape, 0) < end)


class Queries(NamedTuple):
    """A block of queries and what belongs to them; the last four for the backward pass only."""

    at: Int[Array, ""]
    query: Float[Array, "q c"]
    gate: Float[Array, "q"] | None
    gradient: Float[Array, "q c"] | None = None
    most: Float[Array, "q"] | None = None
    total: Float[Array, "q"] | None = None
    inner: Float[Array, "q"] | None = None


class Keys(NamedTuple):
    """A block of keys and their values."""

    at: Int[Array, ""]
    key: Float[Array, "k c"]
    value: Float[Array, "k c"]


def _queries(plan, given, at, lead=(), backward=True):
    load = functools.partial(_load, block=plan.block, starts=(at,), ends=(plan.length,), lead=lead)
    gate = load(given["gate"]).astype(jnp.float32) if "gate" in given else None
    if not backward:
        return Queries(at, load(given["query"]), gate)
    # Past the end: most 0 and total 1 give finite weights, and gradients of 0 make them count for nothing.
    numbers = (load(given[name], other=float(name == "total")) for name in ("most", "total", "inner"))
    return Queries(at, load(given["query"]), gate, load(given["gradient"]), *numbers)


def _keys(plan, given, at, frames, lead=()):
    load = functools.partial(_load, block=plan.block, starts=(at,), ends=(frames,), lead=lead)
    return Keys(at, load(given["key"]), load(given["value"]))


def _bias(plan, given, q_at, k_at):
    """[q, k] in float32, or None."""
    if "bias" not in given:
        return None
    return _load(given["bias"], plan.block, (q_at, k_at), (plan.length,) * 2).astype(jnp.float32)


def _scores(queries: Queries, keys: Keys, bias, frames) -> Float[Array, "q k"]:
    scores = _dot(queries.query, keys.key, (1, 1))
    if bias is not None:
        scores = scores + (bias if queries.gate is None else queries.gate[:, None] * bias)
    return jnp.where(_numbers(keys.at, scores.shape, 1) < frames, scores, LEAST)


def _mask(plan, key_data, head, queries: Queries, keys: Keys):
    """Which weights of a block are kept: `dropout.kept` of the row's [h, t, t]."""
    if plan.drops is None:
        return None
    shape = (plan.block, plan.block)
    q, k = _numbers(queries.at, shape, 0), _numbers(keys.at, shape, 1)
    bits = dropout.hashed(*key_data, (head * plan.length + q) * plan.length + k)
    # Comparing the upper 16 bits is the same as comparing all without sign, and int32 has a sign.
    return lax.shift_right_logical(bits, jnp.full(shape, 16, jnp.int32)) >= np.int32(plan.drops.threshold)


def _dropped(plan, kept, weights):
    return weights if kept is None else jnp.where(kept, weights * np.float32(plan.drops.scale), 0.0)


def _gradients(plan, row, head, queries: Queries, keys: Keys, bias):
    """(weights after dropout, gradient of the scores) of a block, in float32; `row` is (frames, its key's words)."""
    frames, *key_data = row
    weights = jnp.exp(_scores(queries, keys, bias, frames) - queries.most[:, None]) / queries.total[:, None]
    kept = _mask(plan, key_data, head, queries, keys)
    to_weights = _dropped(plan, kept, _dot(queries.gradient, keys.value, (1, 1)))
    return _dropped(plan, kept, weights), weights * (to_weights - queries.inner[:, None])


def _row(given, lead=()):
    """(frames, the two words of the row's key), int32."""
    return tuple(given["row"][(*lead, i)] for i in range(3))


def _blocks(plan, count):
    return lax.div(count + np.int32(plan.block - 1), np.int32(plan.block))


def _forward_kernel(given, out, *, plan):
    block, head = pl.program_id(0), pl.program_id(1)
    frames, *key_data = _row(given)
    queries = _queries(plan, given, block * plan.block, backward=False)

    def step(j, state):
        sums, most, total = state
        keys = _keys(plan, given, j * plan.block, frames)
        scores = _scores(queries, keys, _bias(plan, given, queries.at, keys.at), frames)
        largest = jnp.maximum(most, scores.max(1))
        # Sums so far were relative to the largest score so far.
        shrunk, weights = jnp.exp(most - largest), jnp.exp(scores - largest[:, None])
        total = total * shrunk + weights.sum(1)
        weights = _dropped(plan, _mask(plan, key_data, head, queries, keys), weights).astype(keys.value.dtype)
        return sums * shrunk[:, None] + _dot(weights, keys.value, (1, 0)), largest, total

    zeros = jnp.zeros((plan.block,), jnp.float32)
    start = jnp.zeros(queries.query.shape, jnp.float32), zeros + np.float32(LEAST), zeros
    sums, most, total = lax.fori_loop(np.int32(0), _blocks(plan, frames), step, start)
    total = jnp.where(total > 0, total, 1.0)  # a row without frames
    end = plan.length - queries.at
    _store(out["out"], sums / total[:, None], end)
    _store(out["most"], most, end)
    _store(out["total"], total, end)


def _backward_kernel(given, out, *, plan):
    block, head = pl.program_id(0), pl.program_id(1)
    row = _row(given)
    frames, at = row[0], block * plan.block
    end = plan.length - at

    keys = _keys(plan, given, at, frames)
    zeros = jnp.zeros(keys.key.shape, jnp.float32)

    def over_queries(i, state):
        queries = _queries(plan, given, i * plan.block)
        bias = _bias(plan, given, queries.at, at)
        weights, to_scores = (x.astype(keys.key.dtype) for x in _gradients(plan, row, head, queries, keys, bias))
        return state[0] + _dot(to_scores, queries.query, (0, 0)), state[1] + _dot(weights, queries.gradient, (0, 0))

    # Keys past the frames get zeros without a look at the queries.
    count = jnp.where(at < frames, _blocks(plan, np.int32(plan.length)), 0)
    to_key, to_value = lax.fori_loop(np.int32(0), count, over_queries, (zeros, zeros))
    _store(out["key"], to_key, end)
    _store(out["value"], to_value, end)

    queries = _queries(plan, given, at)

    def over_keys(j, state):
        keys = _keys(plan, given, j * plan.block, frames)
        bias = _bias(plan, given, at, keys.at)
        to_scores = _gradients(plan, row, head, queries, keys, bias)[1]
        to_query = state[0] + _dot(to_scores.astype(keys.key.dtype), keys.key, (1, 0))
        return (to_query, *(to_gate + (to_scores * bias).sum(1) for to_gate in state[1:]))

    to_gate = (jnp.zeros((plan.block,), jnp.float32),) if "gate" in given else ()
    to_query, *to_gate = lax.fori_loop(np.int32(0), _blocks(plan, frames), over_keys, (zeros, *to_gate))
    _store(out["query"], to_query, end)
    for x in to_gate:
        _store(out["gate"], x, end)


def _bias_kernel(given, out, *, plan):
    q_at, k_at, head = pl.program_id(0) * plan.block, pl.program_id(1) * plan.block, pl.program_id(2)
    bias = _bias(plan, given, q_at, k_at)

    def step(r, sums):
        row = _row(given, (r,))
        queries, keys = _queries(plan, given, q_at, (r,)), _keys(plan, given, k_at, row[0], (r,))
        to_scores = _gradients(plan, row, head, queries, keys, bias)[1]
        return sums + (to_scores if queries.gate is None else queries.gate[:, None] * to_scores)

    rows = given["row"].shape[0]
    sums = lax.fori_loop(np.int32(0), np.int32(rows), step, jnp.zeros((plan.block,) * 2, jnp.float32))
    inside = (_numbers(q_at, sums.shape, 0) < plan.length) & (_numbers(k_at, sums.shape, 1) < plan.length)
    triton.store(out["bias"].at[...], sums.astype(out["bias"].dtype), mask=inside)


def _given(query, key, value, bias, gate, frames, key_data, **others):
    """The arrays that a kernel reads, by name; `row` is [b, 3]: frames and the words of the key."""
    words = jnp.zeros((query.shape[0], 2), jnp.int32)
    words = words if key_data is None else lax.bitcast_convert_type(key_data, jnp.int32)
    row = jnp.concatenate([frames.astype(jnp.int32)[:, None], words], 1)
    arrays = {"row": row, "query": query, "key": key, "value": value, "bias": bias, "gate": gate, **others}
    return {name: x for name, x in arrays.items() if x is not None}


def _of_head(x, plan: Plan, own: bool) -> pl.BlockSpec:
    """What a program (block, head, row) sees of [b, t, h, c] or [b, h, t]: all of time, or its `own` block."""
    size = plan.block if own else x.shape[1 if x.ndim == 4 else 2]
    if x.ndim == 4:
        return pl.BlockSpec((None, size, None, x.shape[3]), lambda i, h, r: (r, i if own else 0, h, 0))
    return pl.BlockSpec((None, None, size), lambda i, h, r: (r, h, i if own else 0))


def _of_heads(x) -> pl.BlockSpec:
    """What a program (query block, key block, head) sees of [b, t, h, c] or [b, h, t]: all rows."""
    if x.ndim == 4:
        b, t, _, c = x.shape
        return pl.BlockSpec((b, t, None, c), lambda i, j, h: (0, 0, h, 0))
    b, _, t = x.shape
    return pl.BlockSpec((b, None, t), lambda i, j, h: (0, h, 0))


def _call(kernel, plan: Plan, grid, given, in_specs, out_specs, **like):
    """`kernel` on the arrays `given`; its results have the names, shapes and types of `like`."""
    # Within shard_map the results differ between devices as the queries do.
    varying = {"manual_axis_type": jax.typeof(given["query"]).manual_axis_type}
    return pl.pallas_call(
        functools.partial(kernel, plan=plan),
        grid=grid,
        in_specs=[in_specs],
        out_specs=out_specs,
        out_shape={name: jax.ShapeDtypeStruct(x.shape, x.dtype, **varying) for name, x in like.items()},
        compiler_params=triton.CompilerParams(num_warps=plan.warps, num_stages=plan.stages),
        interpret=plan.interpret,
        name=kernel.__name__.strip("_"),
    )(given)


def _by_row(kernel, plan: Plan, given, **like):
    """A kernel with the grid (block, head, row)."""
    b, t, h, _ = given["query"].shape
    specs = {name: _of_head(x, plan, own=False) for name, x in given.items() if name not in ("row", "bias")}
    specs["row"] = pl.BlockSpec((None, 3), lambda i, h, r: (r, 0))
    if "bias" in given:
        specs["bias"] = pl.BlockSpec((None, t, t), lambda i, h, r: (h, 0, 0))
    out_specs = {name: _of_head(x, plan, own=True) for name, x in like.items()}
    return _call(kernel, plan, (pl.cdiv(t, plan.block), h, b), given, specs, out_specs, **like)


def _to_bias(plan: Plan, given):
    b, t, h, _ = given["query"].shape
    specs = {name: _of_heads(x) for name, x in given.items() if name not in ("row", "bias")}
    specs["row"] = pl.BlockSpec((b, 3), lambda i, j, h: (0, 0))
    specs["bias"] = pl.BlockSpec((None, t, t), lambda i, j, h: (h, 0, 0))
    out_specs = {"bias": pl.BlockSpec((None, plan.block, plan.block), lambda i, j, h: (h, i, j))}
    blocks = pl.cdiv(t, plan.block)
    return _call(_bias_kernel, plan, (blocks, blocks, h), given, specs, out_specs, bias=given["bias"])["bias"]


@functools.partial(jax.jit, static_argnames=("drops", "interpret"))
def forward(query, key, value, bias, gate, frames, key_data, *, drops, interpret=False):
    """`attention.plain_forward` by a kernel; `interpret` runs it on a CPU. Where `frames` is 0, `out` is 0."""
    given = _given(query, key, value, bias, gate, frames, key_data)
    b, t, h, _ = query.shape
    numbers = jax.ShapeDtypeStruct((b, h, t), jnp.float32)
    found = _by_row(_forward_kernel, _plan(query, drops, interpret), given, out=value, most=numbers, total=numbers)
    return found["out"], found["most"], found["total"]


@functools.partial(jax.jit, static_argnames=("drops", "interpret"))
def backward(query, key, value, bias, gate, frames, key_data, out, most, total, gradient, *, drops, interpret=False):
    """`attention.plain_backward` by kernels."""
    # The sum of a row's weights times their gradients, as in the plain form.
    inner = (out.astype(jnp.float32) * gradient.astype(jnp.float32)).sum(-1).transpose(0, 2, 1)
    others = {"gradient": gradient, "most": most, "total": total, "inner": inner}
    given = _given(query, key, value, bias, gate, frames, key_data, **others)
    plan = _plan(query, drops, interpret)
    like = {"query": query, "key": key, "value": value} | ({} if gate is None else {"gate": gate})
    found = _by_row(_backward_kernel, plan, given, **like)
    to_bias = None if bias is None else _to_bias(plan, given)
    return found["query"], found["key"], found["value"], to_bias, found.get("gate")
