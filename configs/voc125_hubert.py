"""voc2vec-hubert: HuBERT base pre-trained on Voc125 in two iterations, by fairseq's recipe for speech.

voc2vec prepare voc125 --manual_dir=DOWNLOADS --data_dir=data
voc2vec units mfcc100 --data_dir=data --sets=voc125                             the first iteration's units
voc2vec train --config=voc125_hubert --workdir=runs/hubert-1
voc2vec units layer6_500 --data_dir=data --sets=voc125 --model=runs/hubert-1 --layer=6 --clusters=500
voc2vec train --config=voc125_hubert:second --workdir=runs/hubert-2

The argument is any of these words, with commas between them:
  first | second       iteration: 100 clusters of MFCCs at 100 Hz, or 500 of the first one's layer 6 at 50 Hz
  ls=SRC               continued from SRC, a HuBERT of speech: a Hub id, a transformers folder or a fairseq checkpoint
  one_gpu | two_gpus   batches of 640 or 1280 s, as voc125.py's
  small | tiny         a small model, on a CPU; a smaller and faster one

250,000 updates of 2560 s of audio, then 400,000: 1.7e9 audio-seconds in all, at 5,000 a second 3.9 days.

Sources in the comments: "fairseq" is hubert_base_librispeech.yaml, whose field follows; "HuBERT" is the paper of
Hsu et al. (2021). How the published voc2vec-hubert was trained is not known.
"""

import ml_collections

from voc2vec_jax import errors
from voc2vec_jax.datasets import catalog
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.pretraining import sizes
from voc2vec_jax.pretraining.units import store as unit_store

WARMUP_STEPS = 32_000  # fairseq: lr_scheduler.warmup_updates
# iteration: (units, clusters, their rate in Hz, updates), as in HuBERT
ITERATIONS = {"first": ("mfcc100", 100, 100.0, 250_000), "second": ("layer6_500", 500, 50.0, 400_000)}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: nothing, or words of `first`, `second`, `ls=SRC` and those of `sizes.WORDS`."""
    c = ml_collections.ConfigDict()
    c.family = "hubert"  # the objective: "wav2vec2" | "hubert"
    c.init_from = ""  # weights to continue from: Hub id, folder or file; empty: from scratch

    # Data
    c.sets = tuple(catalog.PRETRAINING)  # prepared sets; ours: those of voc2vec
    c.valid_share = 0.01  # of examples that validate: whole recordings of each set; ours
    c.crop_samples = 160_000  # longest crop; as voc2vec: 10 s (fairseq: task.max_sample_size 250000)
    # Lengths that clips are padded to; ours (fairseq crops instead)
    c.bucket_samples = (40_000, 80_000, 160_000)
    # Seconds of audio in one update; fairseq: 32 GPUs x max_tokens 1.4 million, in clips of 10 s: 32 x 8 x 10 s
    c.batch_seconds = 2560.0
    c.group_rows = 8  # clips of full length in a loss group, which shares LayerDrop; fairseq: one GPU's

    # Optimization; `iterate` adds the steps and the warm-up
    c.peak_lr = 5e-4  # learning rate after the warm-up; fairseq: optimization.lr
    c.adam_b1, c.adam_b2, c.adam_eps = 0.9, 0.98, 1e-6  # Adam; fairseq: adam_betas, adam_eps
    c.weight_decay = 0.01  # decoupled, on every parameter; fairseq: optimizer.weight_decay
    c.clip_norm = 10.0  # of the gradient, 0: no clipping; fairseq: optimization.clip_norm

    c.model = model()
    words = arg.split(",") if arg else []
    iterate(c, "first")
    for word in words:
        if word in ITERATIONS:
            iterate(c, word)
        elif word.startswith("ls=") and word != "ls=":
            c.init_from = word.removeprefix("ls=")
        elif word not in sizes.WORDS:
            raise errors.InputError(f"the argument {word!r} is none of first, second, ls=SRC, {', '.join(sizes.WORDS)}")
    # Last: the iterations set steps that the smaller models change.
    for word in words:
        if word in sizes.WORDS:
            sizes.WORDS[word](c)
    return pretraining_recipe.complete(c)


def iterate(c: ml_collections.ConfigDict, iteration: str) -> None:
    """Set what the two iterations differ in."""
    units, clusters, rate_hz, steps = ITERATIONS[iteration]
    c.units = units  # the units to predict, made by `voc2vec units`
    c.model.label_rate_hz = rate_hz  # of the units
    c.model.classes = clusters + unit_store.FIRST_CLASS  # clusters, and four unused symbols of fairseq's dictionary
    c.total_steps = steps  # updates; HuBERT
    c.warmup_share = WARMUP_STEPS / c.total_steps  # of the updates, then linear to 0; fairseq: warmup_updates 32000


def model() -> ml_collections.ConfigDict:
    """HuBERT base and its objective."""
    m = ml_collections.ConfigDict()
    m.mask_share = 0.8  # share of the frames that start a masked span; fairseq: mask_prob
    m.mask_frames, m.min_masks = 10, 2  # frames of a span, and the least number of spans; fairseq: mask_length
    m.target_width = 256  # where predictions and classes are compared; fairseq: final_dim
    m.logit_temperature = 0.1  # cosines are divided by it; fairseq: logit_temp
    m.feature_penalty_weight = 10.0  # of the mean square of the features; fairseq: loss_weights
    m.feature_gradient_scale = 0.1  # of the stem's gradient; fairseq: feature_grad_mult
    m.encoder = e = ml_collections.ConfigDict()
    e.width = 768  # of the frames
    e.depth = 12  # number of blocks
    e.inner_width = 3072  # inside a block
    e.heads = 12  # of attention
    e.dropout = 0.1  # behind attention and feed-forward parts; fairseq: dropout
    e.attention_dropout = 0.1  # of attention's weights; fairseq: attention_dropout
    e.input_dropout = 0.1  # behind the projection to the encoder's width; fairseq: dropout_input
    e.activation_dropout = 0.0  # inside the feed-forward part; fairseq: activation_dropout
    e.layerdrop = 0.05  # chance that a block is left out of an update; fairseq: encoder_layerdrop
    return m
