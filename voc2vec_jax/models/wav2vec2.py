"""wav2vec 2.0: the shared encoder, a Gumbel quantizer and the contrastive objective."""

import dataclasses

from voc2vec_jax.models import encoder


@dataclasses.dataclass(frozen=True)
class Config:
    """One wav2vec 2.0 model with its pre-training objective; the defaults are fairseq's base recipe."""

    encoder: encoder.EncoderConfig = encoder.EncoderConfig()
    codebook_groups: int = 2
    codebook_entries: int = 320  # per group
    codebook_width: int = 256  # of the concatenated entries of all groups
    target_width: int = 256  # where predictions and targets are compared
    quantizer_dropout: float = 0.1  # on the features that the quantizer sees
    feature_gradient_scale: float = 0.1
    mask_share: float = 0.65
    mask_frames: int = 10
    min_masks: int = 2
    negatives: int = 100
    logit_temperature: float = 0.1
    gumbel_start: float = 2.0
    gumbel_end: float = 0.5
    gumbel_decay: float = 0.999995
    diversity_weight: float = 0.1
    feature_penalty_weight: float = 10.0
