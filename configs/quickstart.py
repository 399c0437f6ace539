"""A first run on embedded data: a tiny wav2vec 2.0 on synthetic vocalizations, minutes on a laptop's CPU.

voc2vec train --config=quickstart --workdir=runs/quickstart

Expect the contrastive loss to leave 6.66 bits (chance) within some hundred updates. `bash tools/quickstart.sh` goes on
from here to ten folds of fine-tuning and a report.

All values are ours, found by trying; configs/voc125.py is the paper's recipe. The model is that of voc125.py:tiny.
"""

import ml_collections

from voc2vec_jax.pretraining import recipe as pretraining_recipe


def get_config() -> ml_collections.ConfigDict:
    """A model of 0.2 million parameters on 240 synthetic clips."""
    c = ml_collections.ConfigDict()
    c.family, c.init_from = "wav2vec2", ""
    c.sets = ("synthetic",)
    c.valid_share = 0.05
    c.crop_samples = 24_000  # longest crop: 1.5 s
    c.bucket_samples = (24_000,)  # lengths that clips are padded to
    c.batch_seconds, c.group_rows = 24.0, 16
    c.total_steps, c.warmup_share, c.peak_lr = 400, 0.08, 1e-3
    c.adam_b1, c.adam_b2, c.adam_eps = 0.9, 0.98, 1e-6
    c.weight_decay, c.clip_norm = 0.01, 0.0
    c.checkpoint_every_steps = c.validate_every_steps = 100
    c.model = model()
    return pretraining_recipe.complete(c)


def model() -> ml_collections.ConfigDict:
    """Few codes and short masks: targets can be predicted from their neighbours from the first update on."""
    m = ml_collections.ConfigDict()
    m.mask_share, m.mask_frames, m.min_masks = 0.3, 3, 2
    m.codebook_groups, m.codebook_entries, m.codebook_width = 2, 8, 64
    m.gumbel_start, m.gumbel_end = 2.0, 0.5  # first and last temperature of the Gumbel softmax
    m.gumbel_decay = 0.998  # factor of the temperature in an update: it reaches its end within 700
    m.quantizer_dropout = 0.0
    m.target_width, m.negatives, m.logit_temperature = 64, 100, 0.1
    m.diversity_weight, m.feature_penalty_weight = 0.1, 1.0
    m.feature_gradient_scale = 1.0  # of the stem's gradient: it learns at full speed
    m.encoder = e = ml_collections.ConfigDict()
    # Of each layer of the stem: a hop of 20 x 4 x 2 x 2 = 320 samples, as in the base model, with four layers
    e.conv_channels, e.conv_kernels, e.conv_strides = (32, 32, 48, 64), (40, 8, 4, 4), (20, 4, 2, 2)
    e.positional_kernel, e.positional_groups = 16, 4
    e.width, e.depth, e.heads, e.inner_width = 64, 2, 4, 256
    e.norm_first = True  # pre-LN blocks and a final norm, which need no long warm-up
    e.dropout = e.attention_dropout = e.activation_dropout = e.input_dropout = e.layerdrop = 0.0
    return m
