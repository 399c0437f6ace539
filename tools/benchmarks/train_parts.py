"""Where a pre-training step's time goes: each part alone, forward and backward, with its least possible time."""

from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import measuring
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.models import flops, wav2vec2
from voc2vec_jax.ops import optim


def figures(model: Any, rows: int, samples: int, passes: int, rate: float) -> Iterator[dict[str, Any]]:
    """The median time of each part of wav2vec 2.0's step alone; "floor_seconds" is its products at `rate`.

    The parts do not add up to a step: the encoder's input norm and projection are left out, and each part reads its
    input from memory and writes its result there.
    """
    operations = {name: rows * count for name, count in flops.training(model, samples).items()}
    for name, (function, arguments) in _parts(model, rows, samples).items():
        compiled = jax.jit(function).lower(*arguments).compile()

        def run(count, compiled=compiled, arguments=arguments):
            for _ in range(count):
                jax.block_until_ready(compiled(*arguments))

        yield _figure(name, run, passes, operations.get(name, 0.0) / rate)
    clips = np.random.default_rng(0).integers(-9000, 9000, (rows, samples)).astype(np.int16)

    def upload(count):
        for _ in range(count):
            jax.block_until_ready(jax.device_put(clips))

    yield _figure("input to the device", upload, passes, 0.0)


def _figure(name: str, run: Callable[[int], None], passes: int, floor: float) -> dict[str, Any]:
    seconds = [measuring.steady_seconds(run) for _ in range(passes)]
    return {
        "figure": f"train part: {name}",
        "part_seconds": float(f"{np.median(seconds):.3g}"),
        "spread": round(max(seconds) / min(seconds), 2),
        "floor_seconds": float(f"{floor:.3g}"),
    }


class _Compared(nn.Module):
    """Quantizer and projections of `wav2vec2.PreTraining`, with parameters of the same names."""

    config: wav2vec2.Config

    @nn.compact
    def __call__(self, *arguments):
        return wav2vec2.compared(self.config, *arguments)


def _parts(model: Any, rows: int, samples: int) -> dict[str, tuple[Callable, tuple]]:
    e = model.encoder
    t, dtype = e.frames(samples), e.compute_dtype
    keys = jax.random.split(jax.random.key(0), rows)
    noise, step = encoders.Noise(keys, keys), jnp.zeros([], jnp.int32)
    params = jax.jit(lambda: wav2vec2.init_params(model, jax.random.key(0)))()
    clips, lengths = 0.1 * jax.random.normal(keys[0], (rows, samples)), jnp.full((rows,), samples)
    x = jax.random.normal(keys[0], (rows, t, e.width), dtype)
    features = jax.random.normal(keys[0], (rows, t, e.conv_channels[-1]), dtype)
    valid, keep = jnp.ones((rows, t), bool), jnp.ones((e.depth, rows), bool)
    inner = params["encoder"]
    optimizer = optim.fairseq_adam(lambda _: 1e-4, b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.01, clip_norm=0.0)

    def stem(params, clips):
        return encoders.ConvStem(e).apply({"params": params}, clips, lengths)

    def positional(params, x):
        return encoders.PositionalConv(e).apply({"params": params}, x, valid)

    def blocks(params, x):
        stack = encoders.block_stack(e)
        return stack.apply({"params": params}, (x, jnp.full((rows,), t), noise), jnp.arange(e.depth), keep, None)[0][0]

    def objective(params, x, features):
        draws = wav2vec2.draw(model, noise, jnp.full((1, rows), t), t, train=True, equal_masks=False)
        out = _Compared(model).apply({"params": params}, x, features, draws, noise, step)
        return wav2vec2.objective(model, {**out, "conv_features": features, "valid": valid}, draws, 1)[0]

    def optimize(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    outer = {name: params[name] for name in params if name != "encoder"}
    return {
        "conv stem": (_gradient(stem, 0), (inner["conv_stem"], clips)),
        "positional conv": (_gradient(positional, (0, 1)), (inner["positional_conv"], x)),
        "blocks": (_gradient(blocks, (0, 1)), (inner["layers"], x)),
        "objective": (jax.grad(objective, (0, 1, 2)), (outer, x, features)),
        "optimizer": (optimize, (params, jax.jit(optimizer.init)(params), params)),
    }


def _gradient(forward: Callable, by: int | tuple[int, ...]) -> Callable:
    """Forward pass and gradients from a cotangent that varies, as in a whole step."""

    def loss(*arguments):
        out = forward(*arguments).astype(jnp.float32)
        return jnp.sum(out * out)

    return jax.grad(loss, by)
