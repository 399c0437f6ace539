"""A recipe for runs of several processes: eight loss groups of two lengths, so that eight devices share an update."""

import pathlib

from voc2vec_jax.runs import configuration


def get_config():
    c = configuration.load(str(pathlib.Path(__file__).parents[2] / "configs" / "voc125.py:tiny"))
    c.sets = ("synthetic",)
    c.crop_samples = 32_000
    c.bucket_samples = (16_000, 32_000)
    c.same_length_groups = 1
    c.group_rows = 2
    c.batch_seconds = 32.0
    c.total_steps = 12
    c.valid_share = 0.2
    c.checkpoint_every_steps = 2
    c.validate_every_steps = 6
    e = c.model.encoder
    e.conv_channels, e.conv_kernels, e.conv_strides = (16, 16, 16), (40, 8, 4), (20, 4, 4)
    e.width, e.depth, e.heads, e.inner_width = 16, 2, 2, 32
    e.layerdrop = e.dropout = 0.1
    e.positional_kernel, e.positional_groups = 8, 2
    c.model.mask_frames = 2
    c.model.codebook_width = c.model.target_width = 16
    c.model.negatives = 10
    return c
