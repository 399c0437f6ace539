"""voc2vec: wav2vec 2.0 base pre-trained on Voc125, the recipe of the ICASSP 2025 paper.

voc2vec prepare voc125 --manual_dir=DOWNLOADS --data_dir=data
voc2vec train --config=voc125 --workdir=runs/voc2vec            from scratch
voc2vec train --config=voc125:ls=SRC --workdir=runs/voc2vec-ls   continued from LibriSpeech
voc2vec train --config=voc125:as=SRC --workdir=runs/voc2vec-as   continued from AudioSet

The argument is any of these words, with commas between them:
  ls=SRC | as=SRC     continued from SRC: a Hub id, a transformers folder or a fairseq checkpoint
  one_gpu | two_gpus  batches of 640 or 1280 s, what such machines can have heard in the paper's time
  small | tiny        a small model, on a CPU; a smaller and faster one

Sources in the comments: "paper" is section III of the paper; "fairseq" is wav2vec2_base_librispeech.yaml, whose field
follows. The paper gives no batch size and no regularisation; its other values are fairseq's, so the rest is too.

The batch is not the paper's: 5120 s is fairseq's for 64 GPUs and 960 h of speech. 400,000 updates of it are 2.0e9
audio-seconds, some 3,700 passes over Voc125's 125 h as they are padded here: at 5,000 audio-seconds per second, 4.7
days. The paper's 10.6 days on two A6000 suggest three to four times less; see `sizes.BATCH_SECONDS`.
"""

import ml_collections

from voc2vec_jax import errors
from voc2vec_jax.datasets import catalog
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.pretraining import sizes


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`arg`: nothing, or words of `ls=SRC`, `as=SRC`, `one_gpu`, `two_gpus`, `small` and `tiny`."""
    c = ml_collections.ConfigDict()
    c.family = "wav2vec2"  # the objective: "wav2vec2" | "hubert"
    c.init_from = ""  # weights to continue from: Hub id, folder or file; empty: from scratch

    # Data
    c.sets = tuple(catalog.PRETRAINING)  # prepared sets; paper, table I: ten of 125 hours
    c.valid_share = 0.01  # of examples that validate: whole recordings of each set; ours
    c.crop_samples = 160_000  # longest crop; paper: 10 s (fairseq: task.max_sample_size 250000)
    # Lengths that clips are padded to; ours (fairseq crops instead)
    c.bucket_samples = (40_000, 80_000, 160_000)
    # Seconds of audio in one update; not in the paper; fairseq: 64 GPUs x max_tokens 1.4 million, 8 clips of 10 s
    c.batch_seconds = 5120.0
    c.group_rows = 8  # clips of full length in a loss group, which shares statistics; fairseq: one GPU's

    # Optimization
    c.total_steps = 400_000  # updates; paper; fairseq: optimization.max_update
    c.warmup_share = 0.08  # of the updates, then linear to 0; paper; fairseq: warmup_updates 32000
    c.peak_lr = 5e-4  # learning rate after the warm-up; paper; fairseq: optimization.lr
    c.adam_b1, c.adam_b2, c.adam_eps = 0.9, 0.98, 1e-6  # Adam; fairseq: adam_betas, adam_eps
    c.weight_decay = 0.01  # decoupled, on every parameter; fairseq: optimizer.weight_decay
    c.clip_norm = 0.0  # of the gradient, 0: no clipping; fairseq: optimization.clip_norm

    c.model = model()
    for word in arg.split(",") if arg else ():
        start, _, source = word.partition("=")
        if start in ("ls", "as") and source:
            c.init_from = source
        elif word in sizes.WORDS:
            sizes.WORDS[word](c)
        else:
            raise errors.InputError(f"the argument {word!r} is none of ls=SRC, as=SRC, {', '.join(sizes.WORDS)}")
    return pretraining_recipe.complete(c)


def model() -> ml_collections.ConfigDict:
    """wav2vec 2.0 base and its objective."""
    m = ml_collections.ConfigDict()
    m.mask_share = 0.65  # share of the frames that start a masked span; fairseq: mask_prob
    m.mask_frames, m.min_masks = 10, 2  # frames of a span, and the least number of spans; fairseq: mask_length
    m.codebook_groups, m.codebook_entries = 2, 320  # codebooks of the quantizer, entries of each; fairseq: latent_vars
    m.codebook_width = 256  # of the entries of all codebooks together; fairseq: latent_dim
    m.gumbel_start, m.gumbel_end = 2.0, 0.5  # first and last temperature of the Gumbel softmax; fairseq: latent_temp
    m.gumbel_decay = 0.999995  # factor of the temperature in an update; fairseq: latent_temp
    m.quantizer_dropout = 0.1  # on the features that the quantizer sees; fairseq: dropout_features

    # Objective: contrastive loss + 0.1 x diversity + 10 x mean square of the features
    m.target_width = 256  # where predictions and targets are compared; fairseq: final_dim
    m.negatives = 100  # distractors of a masked frame; fairseq: num_negatives
    m.logit_temperature = 0.1  # cosines are divided by it; fairseq: logit_temp
    m.diversity_weight = 0.1  # of the loss for unused codes; fairseq: loss_weights
    m.feature_penalty_weight = 10.0  # of the mean square of the features; fairseq: loss_weights
    m.feature_gradient_scale = 0.1  # of the stem's gradient; fairseq: feature_grad_mult

    # Encoder: paper, "base"; seven convolutions (49 frames a second) and twelve post-LN blocks
    m.encoder = e = ml_collections.ConfigDict()
    e.width = 768  # of the frames
    e.depth = 12  # number of blocks
    e.inner_width = 3072  # inside a block
    e.heads = 12  # of attention; fairseq; the paper says 8, but its published weights have 12
    e.dropout = 0.1  # behind attention and feed-forward parts; fairseq: dropout
    e.attention_dropout = 0.1  # of attention's weights; fairseq: attention_dropout
    e.input_dropout = 0.1  # behind the projection to the encoder's width; fairseq: dropout_input
    e.activation_dropout = 0.0  # inside the feed-forward part; fairseq: activation_dropout
    e.layerdrop = 0.05  # chance that a block is left out of an update; fairseq: encoder_layerdrop
    return m
