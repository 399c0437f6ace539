"""WavLM: the shared encoder with a gated relative position bias in every attention."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.models import layers


@dataclasses.dataclass(frozen=True)
class Config:
    """One WavLM model; the defaults are base."""

    encoder: encoders.EncoderConfig = encoders.EncoderConfig()
    relative_buckets: int = 320
    relative_distance: int = 800  # frames; farther ones share a bucket
    mask_share: float = 0.05
    mask_frames: int = 10
    min_masks: int = 2

    @property
    def parts(self) -> encoders.Parts:
        bias = RelativeBias(self.relative_buckets, self.relative_distance)
        # transformers' first block makes the bias of all of them, so LayerDrop never skips it
        return encoders.Parts(position_bias=bias, position_gate=relative_gate, never_dropped=1)


def distance_buckets(length: int, buckets: int, distance: int) -> Int[np.ndarray, "n"]:
    """The bucket of each key position minus query position from 1 - length to length - 1.

    Half of the buckets are for keys to the right. In each half, near positions have a bucket each, and farther
    ones share buckets that widen up to `distance`. Single precision, as in transformers, decides the ties.
    """
    # Distance 0 .. exact - 1: a bucket each; up to `distance`: buckets of equal width in log(distance); then the last.
    #     320 buckets, distance 800:   keys to the left    0 ... 79 | 80 ... 159    buckets
    #                                  and the query's own 0 ... 79 | 80 ... 800    frames away
    #                                  keys to the right   160 more
    half = buckets // 2
    exact = half // 2
    offset = np.arange(1 - length, length)
    away = np.abs(offset)
    # log(0) is avoided where `away < exact` decides anyway
    far = np.log(np.maximum(away, 1).astype(np.float32) / np.float32(exact)) / np.float32(math.log(distance / exact))
    far = (exact + far * np.float32(half - exact)).astype(np.int64)
    return half * (offset > 0) + np.where(away < exact, away, np.minimum(far, half - 1))


@dataclasses.dataclass(frozen=True)
class RelativeBias:
    """A learned number per head and bucket of relative positions, shared by all blocks."""

    buckets: int
    distance: int

    def __call__(self, encoder: nn.Module, length: int) -> Float[Array, "h {length} {length}"]:
        heads = encoder.config.heads
        init = nn.initializers.glorot_normal()
        # The reference keeps one table in its first block and hands the bias on; here it stands beside the blocks
        table = nn.Embed(self.buckets, heads, embedding_init=init, name="relative_bias")
        return every_offset(table(distance_buckets(length, self.buckets, self.distance)).T, length)


def every_offset(by_offset: Float[Array, "h _n"], length: int) -> Float[Array, "h {length} {length}"]:
    """[h, i, j] -> by_offset[h, j - i + length - 1], for 2 * length - 1 offsets.

    We copy one row of 2 * length numbers below itself and read the copies in rows of one number less, so that each
    row begins one further left. The gradient of a copy is a sum over rows; an index would scatter length * length
    numbers instead.

        length 3, five offsets a..e:  c d e . a b | c d e . a b | c d e . a b  ->  c d e|. a
                                                                                   b c d|e .
                                                                                   a b c|d e
    """
    heads, row = by_offset.shape[0], max(0, 2 * length - 1)
    gap = jnp.zeros((heads, 1), by_offset.dtype)
    wrapped = jnp.concatenate([by_offset[:, length - 1 :], gap, by_offset[:, : length - 1]], axis=1)
    rows = jnp.broadcast_to(wrapped[:, None], (heads, length, wrapped.shape[1]))
    return rows.reshape(heads, rows.size // heads)[:, : length * row].reshape(heads, length, row)[:, :, :length]


def relative_gate(attention: nn.Module, x: Float[Array, "b t d"]) -> Float[Array, "b h t"]:
    """How much of the relative bias each query of each head takes, from what enters the attention."""
    c = attention.config
    b, t, _ = x.shape
    scale = attention.param("relative_scale", nn.initializers.ones, (c.heads,))
    # transformers' gru_rel_pos_linear, one for all heads; its `relative_scale` is gru_rel_pos_const
    gates = layers.dense(8, c.compute_dtype, "relative_gate")(x.reshape(b, t, c.heads, c.head_width))
    # Eight scores per query and head, four for each of two gates g1, g2; the factor is g1 (g2 s - 1) + 2
    gates = gates.astype(scale.dtype).reshape(b, t, c.heads, 2, 4).sum(-1)
    first, second = jnp.moveaxis(jax.nn.sigmoid(gates), -1, 0)
    return (first * (second * scale[None, None] - 1) + 2).transpose(0, 2, 1)


class Model(nn.Module):
    """WavLM encoder alone: (audio, lengths) -> (contextual frames, intermediates)."""

    config: Config

    @nn.compact
    def __call__(self, audio: Float[Array, "b s"], lengths: Int[Array, "b"], **options):
        c = self.config
        return encoders.Encoder(c.encoder, c.parts, name="encoder")(audio, lengths, **options)
