"""Compiled forward passes of pre-trained and fine-tuned models: frames, pooled features, logits.

b, n = rows, s = samples, t = frames, l = layers, d = width, k = classes and one more column.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from voc2vec_jax import models
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.convert import reader
from voc2vec_jax.models import heads
from voc2vec_jax.ops import cpu
from voc2vec_jax.runs import sharding


@functools.partial(jax.jit, static_argnums=(0, 1))
def forward(family: str, config: Any, params: Any, audio: Float[Array, "b s"], lengths: Int[Array, "b"]):
    """The last frames and all hidden states."""
    x, out = models.FAMILIES[family].Model(config).apply({"params": params}, audio, lengths, collect=True)
    states = list(out["hidden_states"])
    if config.encoder.padding == "exact":
        x, *states = (jnp.where(out["valid"][..., None], state, 0) for state in (x, *states))
    return x, states


@functools.cache
def compiled_embed(platform: str, mesh: Mesh | None = None) -> Callable[..., Float[Array, "b *l d"]]:
    """`embed_batch`, jitted with the compiler options of a platform; its rows are cut over the devices of a mesh."""

    def embed(family, config, layers, pool, params, *batch):
        whole = functools.partial(embed_batch, family, config, layers, pool)
        if mesh is None or mesh.size == 1:
            return whole(params, *batch)
        # Each device computes its own rows: XLA cannot cut kernels, and would gather the rows of some convolutions.
        whole = jax.shard_map(
            whole,
            mesh=mesh,
            in_specs=(sharding.WHOLE, sharding.OVER_BATCH, sharding.OVER_BATCH, sharding.OVER_BATCH),
            out_specs=sharding.OVER_BATCH,
            check_vma=False,  # it refuses loops whose carry starts the same on all devices
        )
        return whole(params, *batch)

    return jax.jit(embed, static_argnums=(0, 1, 2, 3), compiler_options=cpu.forward_options(platform))


def embed_batch(
    family: str,
    config: Any,
    layers: tuple[int, ...],
    pool: str | None,
    params: Any,
    audio: Float[Array, "b s"],
    lengths: Int[Array, "b"],
    kept: Int[Array, "b 2"],
) -> Float[Array, "b *l d"]:
    """The `layers` pooled over frames kept[:, 0] to kept[:, 1] as [b, l, d], or all frames as [b, t, l, d].

    Layers 0 to depth are the hidden states; depth + 1 is the model's last frames.
    """
    last = config.encoder.depth + 1
    collect = layers != (last,)
    x, out = models.FAMILIES[family].Model(config).apply({"params": params}, audio, lengths, collect=collect)
    chosen = [x if layer == last else out["hidden_states"][layer] for layer in layers]
    frames = jnp.stack(chosen, axis=2).astype(jnp.float32)
    first = kept[:, 0]
    if pool is None:
        return frames
    if pool == "first":
        return jnp.take_along_axis(frames, first[:, None, None, None], axis=1)[:, 0]
    t = jnp.arange(frames.shape[1])[None]
    inside = ((t >= first[:, None]) & (t < kept[:, 1:]))[..., None, None]
    if pool == "max":
        return jnp.where(inside, frames, -jnp.inf).max(1)
    return jnp.where(inside, frames, 0).sum(1) / jnp.maximum(inside.sum(1), 1)


def kept_by_head(
    encoder: Any, lengths: Int[Array | np.ndarray, "b"], kept: Int[Array | np.ndarray, "b 2"]
) -> Int[Array | np.ndarray, "b 2"]:
    """The frames of each window that a classification head sees: `kept`, and the silence that the encoder adds.

    In Whisper's padded context transformers' heads are trained with the mean over all frames.
    """
    if not encoder.pads:
        return kept
    ends = kept[:, 1] == encoder.frames(lengths)
    return jnp.stack([kept[:, 0], jnp.where(ends, encoder.frames(encoder.window_samples), kept[:, 1])], axis=1)


@functools.partial(jax.jit, static_argnums=0)
def classify(
    config: heads.Config, params: Any, pooled: Float[Array, "n l d"], kept: Int[Array, "n 2"]
) -> Float[Array, "n k"]:
    """Logits of means over the frames kept[:, 0] to kept[:, 1], and behind them the logarithm of their number.

    The head's projection is linear, so it may come after the mean.
    """
    valid = jnp.ones((pooled.shape[0], 1), bool)
    states = pooled.transpose(1, 0, 2)[:, :, None]
    logits = heads.Classifier(config).apply({"params": params}, states[-1], valid, states)
    return jnp.concatenate([logits, jnp.log((kept[:, 1:] - kept[:, :1]).astype(logits.dtype))], axis=1)


@functools.partial(jax.jit, static_argnums=0)
def classify_frames(
    config: heads.Config, params: Any, frames: Float[Array, "n t l d"], kept: Int[Array, "n 2"]
) -> Float[Array, "n k"]:
    """As `classify`, for a head that weighs the frames; the last column is the logarithm of their weight."""
    t = jnp.arange(frames.shape[1])[None]
    inside = (t >= kept[:, :1]) & (t < kept[:, 1:])
    states = frames.transpose(2, 0, 1, 3)
    head = heads.Classifier(config)
    logits, weight = head.apply({"params": params}, states[-1], inside, states, method="weighed")
    return jnp.concatenate([logits, weight[:, None]], axis=1)


def complete(checkpoint: reader.ModelWeights) -> Any:
    """The encoder's parameters; zeros where the source lacks one that features do not need (mask embedding)."""
    flat = convert_names.flatten(checkpoint.params["encoder"])
    for entry in convert_names.table(checkpoint.family, checkpoint.config):
        name = entry.ours.removeprefix("encoder/")
        if name != entry.ours and name not in flat:
            flat[name] = np.zeros(entry.full_shape, np.float32)
    return convert_names.unflatten(flat)
