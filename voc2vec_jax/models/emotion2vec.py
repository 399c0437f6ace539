"""emotion2vec: the shared encoder with extra tokens and learned linear attention biases (data2vec 2.0)."""

import dataclasses
import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from voc2vec_jax import errors
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.models import layers


@dataclasses.dataclass(frozen=True)
class Config:
    """One emotion2vec model; the defaults are base."""

    encoder: encoders.EncoderConfig = encoders.EncoderConfig(
        conv_norm="layer", positional_kernel=19, positional_depth=5, input_dropout=0.0, layerdrop=0.0
    )
    prenet_depth: int = 4  # of the encoder's blocks, those that the reference keeps in its modality encoder
    extra_tokens: int = 10
    mask_share: float = 0.05
    mask_frames: int = 10
    min_masks: int = 2

    def __post_init__(self):
        if self.encoder.norm_first:
            raise errors.InputError("norm_first is True, but emotion2vec is built with norms after the branches only")

    @property
    def parts(self) -> encoders.Parts:
        return encoders.Parts(
            position_bias=LinearBias(self.extra_tokens),
            extra_tokens=self.extra_tokens,
            mask_embedding=False,
            hide_padding=False,
            feature_norm_eps=layers.CONV_NORM_EPS,
        )


def slopes(heads: int) -> Float[np.ndarray, "{heads}"]:
    """How fast each head's attention falls with distance, before it is scaled: powers of two, each below 1.

    For 2**n heads a geometric series from 2**(-8 / 2**n); others take every second slope of the next longer one.
    """
    whole = 2 ** math.floor(math.log2(heads))
    # 8 heads: 1/2, 1/4 ... 1/256; 12 heads: these and 2^-0.5, 2^-1.5, 2^-2.5, 2^-3.5 of the series for 16
    series = [2 ** (-8 * (i + 1) / whole) for i in range(whole)]
    between = [2 ** (-8 * (i + 0.5) / whole) for i in range(heads - whole)]
    return np.array(series + between)


@dataclasses.dataclass(frozen=True)
class LinearBias:
    """A penalty that grows with distance, each head's slope times a learned scale (none below zero).

    Pairs with an extra token have none.
    """

    extra_tokens: int

    def __call__(self, encoder: nn.Module, length: int) -> Float[Array, "h {length} {length}"]:
        heads = encoder.config.heads
        scale = encoder.param("alibi_scale", nn.initializers.ones, (heads,))
        # bias[h, i, j] = -max(0, scale[h]) * slopes[h] * |i - j|
        slope = jnp.where(scale >= 0, scale, 0) * jnp.asarray(slopes(heads), scale.dtype)
        position = jnp.arange(length - self.extra_tokens)
        distance = jnp.abs(position[None] - position[:, None])
        # Zero rows and columns for the extra tokens, which have no position
        distance = jnp.pad(distance, ((self.extra_tokens, 0), (self.extra_tokens, 0)))
        return -slope[:, None, None] * distance[None].astype(scale.dtype)


class Model(nn.Module):
    """emotion2vec encoder alone: (audio, lengths) -> (contextual frames, intermediates),
    `with_extra_tokens` among them."""

    config: Config

    @nn.compact
    def __call__(self, audio: Float[Array, "b s"], lengths: Int[Array, "b"], **options):
        c = self.config
        return encoders.Encoder(c.encoder, c.parts, name="encoder")(audio, lengths, **options)
