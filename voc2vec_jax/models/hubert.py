"""HuBERT: the shared encoder and the prediction of a cluster for every masked frame."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from voc2vec_jax import losses
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.models import wav2vec2


@dataclasses.dataclass(frozen=True)
class Config:
    """One HuBERT model with its pre-training objective; the defaults are fairseq's base recipe."""

    encoder: encoders.EncoderConfig = encoders.EncoderConfig()
    classes: int = 504  # clusters, and the four unused symbols of fairseq's dictionary
    target_width: int = 256  # where predictions and class embeddings are compared
    label_rate_hz: float = 50.0
    feature_gradient_scale: float = 0.1
    mask_share: float = 0.8
    mask_frames: int = 10
    min_masks: int = 2
    logit_temperature: float = 0.1
    feature_penalty_weight: float = 10.0


class Model(nn.Module):
    """HuBERT encoder alone: (audio, lengths) -> (contextual frames, intermediates)."""

    config: Config

    @nn.compact
    def __call__(self, audio: Float[Array, "b s"], lengths: Int[Array, "b"], **options):
        return encoders.Encoder(self.config.encoder, name="encoder")(audio, lengths, **options)


class PreTraining(nn.Module):
    """Encoder, projection and class embeddings: a score for every class at every masked frame."""

    config: Config

    @nn.compact
    def __call__(
        self,
        audio: Float[Array, "b s"],
        lengths: Int[Array, "b"],
        index: Int[Array, "b m"],
        masked_valid: Bool[Array, "b m"],
        noise: encoders.Noise | None,
    ) -> dict:
        """The encoder's intermediates and `logits` [b, m, v]: cosine similarities over the temperature.

        `index` are each row's masked frames, real where `masked_valid`.
        """
        c, e = self.config, self.config.encoder
        x, out = encoders.Encoder(e, name="encoder")(
            audio,
            lengths,
            noise=noise,
            masked=wav2vec2.scatter_mask(index, masked_valid, e.frames(audio.shape[1])),
            feature_gradient_scale=c.feature_gradient_scale,
        )
        x = x[jnp.arange(x.shape[0])[:, None], index]
        context = encoders.projection(e, e.width, c.target_width, "project_context")(x)
        classes = self.param("label_embeddings", nn.initializers.uniform(1.0), (c.classes, c.target_width))
        logits = jnp.einsum("bmd,vd->bmv", losses.unit(context), losses.unit(classes)) / c.logit_temperature
        return {**out, "logits": logits}
