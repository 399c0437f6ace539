"""A first run on embedded data: a small wav2vec 2.0 on synthetic vocalizations, minutes on a laptop CPU.

python -m voc2vec_jax.train --config=configs/quickstart.py --workdir=runs/quickstart
python -m voc2vec_jax.train --config=configs/quickstart.py --workdir=RUN --config.sets=donateacry,human_voice
"""

import ml_collections

from voc2vec_jax import recipes


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: nothing."""
    if arg:
        raise ValueError("this recipe takes no argument")
    c = recipes.pretraining("wav2vec2")
    c.sets = ("synthetic",)
    c.valid_share = 0.05
    c.crop_samples = 32_000
    c.bucket_samples = (16_000, 32_000)
    c.batch_seconds = 32.0
    c.group_rows = 16
    c.total_steps = 400
    c.peak_lr = 2e-3
    c.checkpoint_every_steps = 100
    c.validate_every_steps = 50
    c.model.encoder.conv_channels = (64,) * 7
    c.model.encoder.width = 128
    c.model.encoder.depth = 4
    c.model.encoder.heads = 4
    c.model.encoder.inner_width = 512
    c.model.encoder.positional_kernel = 32
    c.model.codebook_entries = 64
    c.model.codebook_width = 64
    c.model.target_width = 64
    c.model.gumbel_decay = 0.998
    return c
