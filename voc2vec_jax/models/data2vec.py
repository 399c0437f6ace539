"""data2vec-audio: the shared encoder, with a stack of five positional convolutions in place of one wide one."""

import dataclasses

import flax.linen as nn
from jaxtyping import Array, Float, Int

from voc2vec_jax.models import encoder as encoders


@dataclasses.dataclass(frozen=True)
class Config:
    """One data2vec-audio model; the defaults are base."""

    encoder: encoders.EncoderConfig = encoders.EncoderConfig(
        # Five convolutions of 19 taps in place of one of 128: a frame sees 1 + 5 * 18 = 91 frames, 1.8 s
        conv_norm="layer",
        positional_kernel=19,
        positional_depth=5,
    )
    mask_share: float = 0.05
    mask_frames: int = 10
    min_masks: int = 2


class Model(nn.Module):
    """data2vec-audio encoder alone: (audio, lengths) -> (contextual frames, intermediates)."""

    config: Config

    @nn.compact
    def __call__(self, audio: Float[Array, "b s"], lengths: Int[Array, "b"], **options):
        return encoders.Encoder(self.config.encoder, name="encoder")(audio, lengths, **options)
