"""Recipes for less hardware: batches for one or two GPUs, and models that learn within minutes on a CPU."""

from collections.abc import Callable, Mapping

import ml_collections

# The paper's 400,000 updates took 10.6 days on two A6000, 2.29 s an update. wav2vec 2.0's own 400,000 updates of 5600 s
# took 1.6 days on 64 V100 (Baevski et al. 2020), 253 s of audio a second and GPU, in half precision. Two A6000, a
# little faster than V100 there, hear so 1160 to 1500 s in 2.29 s: a quarter of fairseq's batch fits, and half of that
# for one. The rate stays the paper's. Faster GPUs take less time, or a larger batch.
BATCH_SECONDS = {"one_gpu": 640.0, "two_gpus": 1280.0}


def small(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Turn `c` into a model of 0.9 million parameters that learns within some hundred updates on a laptop's CPU."""
    # Such a short run needs, as trials showed: few codes and short masks, so that targets can be predicted from
    # their neighbours from the start; pre-LN blocks; the whole gradient in the stem; no dropout.
    c.crop_samples = 24_000
    c.bucket_samples = (24_000,)
    c.batch_seconds, c.group_rows = 24.0, 16
    c.total_steps = 600
    c.peak_lr = 1e-3
    c.valid_share = 0.05
    c.checkpoint_every_steps = c.validate_every_steps = 100
    e = c.model.encoder
    e.conv_channels = (64,) * 7
    e.width, e.depth, e.heads, e.inner_width = 128, 4, 4, 512
    e.positional_kernel = 32
    e.norm_first = True
    e.dropout = e.attention_dropout = e.input_dropout = e.layerdrop = 0.0
    c.model.target_width = 64
    c.model.mask_share, c.model.mask_frames = 0.3, 3
    c.model.feature_gradient_scale = c.model.feature_penalty_weight = 1.0
    if c.family == "wav2vec2":
        c.model.codebook_entries, c.model.codebook_width = 8, 64
        c.model.quantizer_dropout, c.model.gumbel_decay = 0.0, 0.998
    return c


def tiny(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Turn `c` into a model of 0.2 million parameters with a thin stem of four layers, for experiments on a CPU."""
    # Ten folds of fine-tuning are a million audio-seconds, of which this model trains on hundreds a second.
    small(c)
    e = c.model.encoder
    e.conv_channels, e.conv_kernels, e.conv_strides = (32, 32, 48, 64), (40, 8, 4, 4), (20, 4, 2, 2)
    e.positional_kernel, e.positional_groups = 16, 4
    e.width, e.depth, e.heads, e.inner_width = 64, 2, 4, 256
    return c


def _with_batch(seconds: float) -> Callable[[ml_collections.ConfigDict], ml_collections.ConfigDict]:
    def change(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
        c.batch_seconds = seconds
        c.same_length_groups = 1  # of few groups, each has to mix the lengths, and so the data sets
        return c

    return change


# What a word in a recipe's argument does
WORDS: Mapping[str, Callable[[ml_collections.ConfigDict], ml_collections.ConfigDict]] = {
    **{word: _with_batch(seconds) for word, seconds in BATCH_SECONDS.items()},
    "small": small,
    "tiny": tiny,
}
