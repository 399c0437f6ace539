"""The smallest recipe that exercises everything: two buckets, accumulation, dropout, LayerDrop, validation."""

import pathlib

from voc2vec_jax.runs import configuration


def get_config():
    c = configuration.load(str(pathlib.Path(__file__).parents[2] / "configs" / "voc125.py"))
    c.sets = ("synthetic",)
    c.valid_share = 0.2
    c.crop_samples = 16_000
    c.bucket_samples = (8_000, 16_000)
    c.group_rows = 2
    c.batch_seconds = 8.0
    c.groups_per_device = 2
    c.total_steps = 24
    c.peak_lr = 1e-3
    c.checkpoint_every_steps = 3
    c.validate_every_steps = 5
    c.log_every_steps = 4
    c.model.encoder.conv_channels = (8,) * 7
    c.model.encoder.width = 16
    c.model.encoder.depth = 2
    c.model.encoder.heads = 2
    c.model.encoder.inner_width = 32
    c.model.encoder.layerdrop = 0.3
    c.model.encoder.positional_kernel = 16
    c.model.encoder.positional_groups = 2
    c.model.codebook_entries = 8
    c.model.codebook_width = 16
    c.model.target_width = 16
    c.model.negatives = 10
    return c
