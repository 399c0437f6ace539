"""`attention.attend` as Pallas kernels for TPUs: scores and dropout's masks never leave the core's own memory.

A program computes the heads that share 128 lanes, for one row and one block of its queries, in a loop over blocks of
keys (Dao et al. 2022: a running maximum forward, weights from the kept maximum and sum backward). Arrays stay
[b, t, h * c], as dense layers give them. A head is its lanes: the products of one head have the lanes of the others
zeroed on one side, which a matrix unit of 128 x 128 does in the time of a narrow product.

Scores are held transposed, [keys, queries]: what belongs to a query (maximum, sum, gate, the inner product of output
and gradient) is a row of lanes, reductions over keys need no exchange between lanes, and of the backward pass's
products only the queries' gradient needs a transposition, that of the keys.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Int, UInt32

from voc2vec_jax.ops import attention_tpu_kernels as kernels
from voc2vec_jax.ops import dropout

LANES = 128
KEYS = 256  # of a step of the loop
QUERIES, BIASED_QUERIES = 1536, 512  # of a program at most
TOGETHER = 4  # heads of a program at most: it is written out for each
LONGEST = 4096  # keys and values of a row and their gradients are held whole
LARGEST = 2**20  # entries of the bias that a program holds at most
MEMORY = 16 * 2**20  # bytes of the core's own memory that a program may use at least; the default of v5e


def _together(heads: int, width: int) -> int | None:
    """How many heads a program computes: as many as fill the lanes, or all where they are fewer."""
    if heads * width <= LANES:
        return heads
    return LANES // width if LANES % width == 0 and heads % (LANES // width) == 0 else None


def supports(query: Float[Array, "b t h c"], bias: Float[Array, "h t t"] | None, drops: dropout.Rule | None) -> bool:
    """Whether the kernels compute this: types, widths and lengths, all known before anything is."""
    _, t, h, c = query.shape
    together = _together(h, c)
    return (
        query.dtype in (jnp.float32, jnp.bfloat16)
        and query.size > 0
        and c % 8 == 0
        and together is not None
        and together <= TOGETHER
        and t <= LONGEST
        and (bias is None or bias.dtype in (jnp.float32, jnp.bfloat16))
        and (bias is None or _whole(t) * LANES * together <= LARGEST)
        and (drops is None or drops.bits == "hash")
        and not jax.config.jax_enable_x64  # Pallas then gives indices 64 bits, which Mosaic refuses
    )


def _whole(length: int) -> int:
    return -(-length // LANES) * LANES


def _sizes(query, bias, gate, drops) -> kernels.Sizes:
    """`bias` is [groups, h, t, t]."""
    b, t, h, c = query.shape
    together, whole = _together(h, c), _whole(t)
    most = QUERIES if bias is None else min(BIASED_QUERIES, LARGEST // (whole * together))
    blocks = -(-whole // (most // LANES * LANES))
    queries = _whole(-(-whole // blocks))
    keys = -(-t // -(-t // KEYS) // 16) * 16  # 16 rows of bfloat16 are a tile
    rows = b if bias is None else b // bias.shape[0]
    return kernels.Sizes(t, h, c, together, queries, keys, rows, bias is not None, gate is not None, drops)


def _specs(sizes):
    """Blocks by what an array holds, for a grid of (rows' groups, programs of heads, blocks of queries, rows)."""
    together, whole = sizes.together, sizes.steps * sizes.keys

    def spec(shape, place):
        def index(group, heads, block, row, *_):
            return place(group, heads, block, group * sizes.rows + row)

        return pl.BlockSpec(shape, index)

    return {
        "queries": spec((1, sizes.queries, sizes.lanes), lambda group, heads, block, row: (row, block, heads)),
        "keys": spec((1, whole, sizes.lanes), lambda group, heads, block, row: (row, 0, heads)),
        "to_keys": spec((1, 1, whole, sizes.lanes), lambda group, heads, block, row: (block, row, 0, heads)),
        "bias": spec((1, together, whole, sizes.queries), lambda group, heads, block, row: (group, heads, 0, block)),
        "numbers": spec((1, 1, together, sizes.queries), lambda group, heads, block, row: (row, heads, 0, block)),
    }


def _memory(sizes, inputs, outputs, specs):
    """Bytes of the core's own memory that a program may use: blocks twice, as they are fetched ahead, and scores."""
    blocks = sum(np.prod(specs[kind].block_shape) * x.dtype.itemsize for kind, x in (*inputs, *outputs))
    return max(MEMORY, 2 * int(blocks) + 16 * 4 * sizes.keys * sizes.queries)


def _cost(sizes, products, inputs, outputs):
    """The arithmetic of so many products of scores' size, what is read and written, and one exponential a score."""
    scores = inputs[0][1].shape[0] * sizes.heads * sizes.length**2
    moved = sum(x.size * x.dtype.itemsize for _, x in (*inputs, *outputs))
    return pl.CostEstimate(flops=2 * products * scores * sizes.width, bytes_accessed=moved, transcendentals=scores)


def _call(kernel, name, products, sizes, frames, key_data, inputs, outputs, interpret):
    """Run a kernel; inputs and outputs are (kind of `_specs`, array or its shape)."""
    from jax.experimental.pallas import tpu as pltpu  # takes .1 s: not for who only imports the library

    b = frames.shape[0]
    key = jnp.zeros((b, 2), jnp.int32) if key_data is None else jax.lax.bitcast_convert_type(key_data, jnp.int32)
    specs = _specs(sizes)
    # Within shard_map, results vary over the axes that the queries vary over.
    varying = {"manual_axis_type": jax.typeof(inputs[0][1]).manual_axis_type}
    return pl.pallas_call(
        functools.partial(kernel, sizes=sizes),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(b // sizes.rows, sizes.heads // sizes.together, sizes.blocks, sizes.rows),
            in_specs=[specs[kind] for kind, _ in inputs],
            out_specs=[specs[kind] for kind, _ in outputs],
            scratch_shapes=[pltpu.VMEM((sizes.lanes, sizes.queries), jnp.float32)],
        ),
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype, **varying) for _, x in outputs],
        compiler_params=pltpu.CompilerParams(
            # Rows that share a bias add to its gradient one after the other.
            dimension_semantics=("parallel", "parallel", "parallel", "arbitrary"),
            vmem_limit_bytes=_memory(sizes, inputs, outputs, specs),
        ),
        cost_estimate=_cost(sizes, products, inputs, outputs),
        name=name,
        interpret=interpret,
    )(frames.astype(jnp.int32), key, *(x for _, x in inputs))


def _folded(x):
    """[b, t, h, c] as dense layers have it."""
    return x.reshape(*x.shape[:2], -1)


def _numbers(x, sizes):
    """[b, h, t] with the heads of a program together."""
    return x.reshape(x.shape[0], -1, sizes.together, x.shape[2])


def _inputs(query, key, value, bias, gate, sizes):
    inputs = [("queries", _folded(query)), ("keys", _folded(key)), ("keys", _folded(value))]
    inputs += [] if bias is None else [("bias", bias.swapaxes(-1, -2))]
    return inputs + ([] if gate is None else [("numbers", _numbers(gate, sizes))])


def _grouped_forward(query, key, value, bias, gate, frames, key_data, *, drops, interpret):
    """`forward` with a bias [groups, h, t, t], each for as many rows."""
    b, t, h, c = query.shape
    sizes = _sizes(query, bias, gate, drops)
    inputs = _inputs(query, key, value, bias, gate, sizes)
    numbers = jax.ShapeDtypeStruct((b, h // sizes.together, sizes.together, t), jnp.float32)
    outputs = [
        ("queries", jax.ShapeDtypeStruct((b, t, h * c), query.dtype)),
        ("numbers", numbers),
        ("numbers", numbers),
    ]
    found = _call(kernels.forward, "attention_forward", 2, sizes, frames, key_data, inputs, outputs, interpret)
    return tuple(x.reshape(shape) for x, shape in zip(found, (query.shape, (b, h, t), (b, h, t)), strict=True))


def _grouped_backward(query, key, value, bias, gate, frames, key_data, *rest, drops, interpret):
    """`backward` with a bias [groups, h, t, t]; its gradient has that shape."""
    b, t, h, c = query.shape
    out, most, total, gradient = rest
    sizes = _sizes(query, bias, gate, drops)
    inputs = _inputs(query, key, value, bias, gate, sizes)
    inputs += [("queries", _folded(out)), ("numbers", _numbers(most, sizes)), ("numbers", _numbers(total, sizes))]
    inputs += [("queries", _folded(gradient))]
    # Blocks of queries give parts of the keys' and values' gradients, which are summed after.
    part = jax.ShapeDtypeStruct((sizes.blocks, b, t, h * c), query.dtype if sizes.blocks == 1 else jnp.float32)
    outputs = [("queries", jax.ShapeDtypeStruct((b, t, h * c), query.dtype)), ("to_keys", part), ("to_keys", part)]
    outputs += [] if bias is None else [("bias", jax.ShapeDtypeStruct(bias.shape, jnp.float32))]
    outputs += [] if gate is None else [("numbers", jax.ShapeDtypeStruct(inputs[4][1].shape, jnp.float32))]
    found = _call(kernels.backward, "attention_backward", 5, sizes, frames, key_data, inputs, outputs, interpret)
    to_query, to_key, to_value, *more = found
    to_key, to_value = (x.sum(0).astype(query.dtype) for x in (to_key, to_value))
    to_bias = None if bias is None else more[0].swapaxes(-1, -2).astype(bias.dtype)
    to_gate = None if gate is None else more[1].reshape(b, h, t).astype(gate.dtype)
    return (*(x.reshape(query.shape) for x in (to_query, to_key, to_value)), to_bias, to_gate)


@functools.cache
def _mappable(function, drops, interpret):
    """`function` traced once for all calls of the same shapes; mapped over an axis, it takes that axis as more rows.

    Pallas itself would run a mapped kernel with scalars of its own in a loop over the axis.
    """
    run = jax.custom_batching.custom_vmap(jax.jit(functools.partial(function, drops=drops, interpret=interpret)))

    @run.def_vmap
    def mapped(size, batched, *arrays):
        def merged(x, mapped):
            x = x if mapped else jnp.broadcast_to(x[None], (size, *x.shape))
            return x.reshape(-1, *x.shape[2:])

        found = run(*jax.tree.map(merged, list(arrays), list(batched)))
        found = jax.tree.map(lambda x: x.reshape(size, -1, *x.shape[1:]), found)
        return found, jax.tree.map(lambda _: True, found)

    return run


def forward(
    query: Float[Array, "b t h c"],
    key: Float[Array, "b t h c"],
    value: Float[Array, "b t h c"],
    bias: Float[Array, "h t t"] | None,
    gate: Float[Array, "b h t"] | None,
    frames: Int[Array, "b"],
    key_data: UInt32[Array, "b 2"] | None,
    *,
    drops: dropout.Rule | None,
    interpret: bool = False,
) -> tuple[Float[Array, "b t h c"], Float[Array, "b h t"], Float[Array, "b h t"]]:
    """What `attention.plain_forward` gives, of arrays that `supports` accepts; `interpret`: on any platform."""
    grouped = None if bias is None else bias[None]
    return _mappable(_grouped_forward, drops, interpret)(query, key, value, grouped, gate, frames, key_data)


def backward(query, key, value, bias, gate, frames, key_data, out, most, total, gradient, *, drops, interpret=False):
    """What `attention.plain_backward` gives, of arrays that `supports` accepts."""
    grouped = None if bias is None else bias[None]
    arrays = (query, key, value, grouped, gate, frames, key_data, out, most, total, gradient)
    *found, to_bias, to_gate = _mappable(_grouped_backward, drops, interpret)(*arrays)
    return (*found, None if bias is None else to_bias[0], to_gate)
