"""Where a pre-training step's time goes: forward and backward of its parts alone, and the floor of each."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from voc2vec_jax import optim, work
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.models import wav2vec2

REST = "rest (projections, quantizer, masks, loss)"


def figures(
    model: Any, rows: int, samples: int, passes: int, rate: float, gradient_seconds: float
) -> Iterator[dict[str, Any]]:
    """The median time of each part of wav2vec 2.0's step, alone, with its operations at the rate `rate` as floor.

    The rest is what the stem, the positional convolution and the blocks leave of `gradient_seconds`, a whole forward
    and backward pass.
    """
    operations = {name: rows * count for name, count in work.training(model, samples).items()}
    left = gradient_seconds
    for name, (function, arguments) in _parts(model, rows, samples).items():
        compiled = jax.jit(function).lower(*arguments).compile()
        jax.block_until_ready(compiled(*arguments))
        seconds = float(np.median([_seconds(compiled, arguments) for _ in range(passes)]))
        left -= seconds if name in operations else 0.0
        yield _figure(name, seconds, operations.get(name, 0.0) / rate)
    yield _figure(REST, left, (operations["projection"] + operations["objective"]) / rate)


def _figure(name: str, seconds: float, floor: float) -> dict[str, Any]:
    return {"figure": f"train part: {name}", "part_seconds": round(seconds, 4), "floor_seconds": round(floor, 4)}


def _seconds(compiled: Callable, arguments: tuple) -> float:
    began = time.perf_counter()
    jax.block_until_ready(compiled(*arguments))
    return time.perf_counter() - began


def _parts(model: Any, rows: int, samples: int) -> dict[str, tuple[Callable, tuple]]:
    e = model.encoder
    t, dtype = e.frames(samples), e.compute_dtype
    keys = jax.random.split(jax.random.key(0), rows)
    noise = encoders.Noise(keys, keys)
    params = jax.jit(lambda: wav2vec2.init_params(model, jax.random.key(0)))()
    clips, lengths = 0.1 * jax.random.normal(keys[0], (rows, samples)), jnp.full((rows,), samples)
    x = jax.random.normal(keys[0], (rows, t, e.width), dtype)
    valid, keep = jnp.ones((rows, t), bool), jnp.ones((e.depth, rows), bool)
    inner = params["encoder"]
    optimizer = optim.fairseq_adam(lambda _: 1e-4, b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.01, clip_norm=0.0)

    def stem(params, clips):
        return encoders.ConvStem(e).apply({"params": params}, clips, lengths)

    def positional(params, x):
        return encoders.PositionalConv(e).apply({"params": params}, x, valid)

    def blocks(params, x):
        stack = encoders.block_stack(e)
        return stack.apply({"params": params}, (x, valid, noise), jnp.arange(e.depth), keep, None)[0][0]

    def optimize(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return {
        "conv stem": (_gradient(stem, 0), (inner["conv_stem"], clips)),
        "positional conv": (_gradient(positional, (0, 1)), (inner["positional_conv"], x)),
        "blocks": (_gradient(blocks, (0, 1)), (inner["layers"], x)),
        "optimizer": (optimize, (params, jax.jit(optimizer.init)(params), params)),
    }


def _gradient(forward: Callable, by: int | tuple[int, ...]) -> Callable:
    """Forward pass and gradients from a cotangent that is no constant, as in a whole step."""

    def loss(*arguments):
        out = forward(*arguments).astype(jnp.float32)
        return jnp.sum(out * out)

    return jax.grad(loss, by)
