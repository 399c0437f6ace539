"""voc2vec: wav2vec 2.0 base pre-trained on Voc125, the recipe of the ICASSP 2025 paper.

python tools/prepare.py voc125 --manual_dir=DOWNLOADS --data_dir=data
python -m voc2vec_jax.train --config=configs/voc125.py --workdir=runs/voc2vec            from scratch
python -m voc2vec_jax.train --config=configs/voc125.py:ls=SRC --workdir=runs/voc2vec-ls   continued from LibriSpeech
python -m voc2vec_jax.train --config=configs/voc125.py:as=SRC --workdir=runs/voc2vec-as   continued from AudioSet

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
    c.family = "wav2vec2"
    c.init_from = ""  # from scratch

    # Data
    c.sets = tuple(catalog.PRETRAINING)  # paper, table I: ten sets, 125 hours
    c.valid_share = 0.01  # ours; whole recordings, equally many of each set
    c.crop_samples = 160_000  # paper: 10 s at 16 kHz (fairseq: task.max_sample_size 250000)
    c.bucket_samples = (40_000, 80_000, 160_000)  # ours: clips are padded to one of these (fairseq crops instead)
    # Not in the paper. fairseq: 64 GPUs x max_tokens 1.4 million, in whole clips of 10 s: 64 x 8 x 10 s
    c.batch_seconds = 5120.0
    c.group_rows = 8  # clips that share batch statistics: those of one fairseq GPU

    # Optimization
    c.total_steps = 400_000  # paper; fairseq: optimization.max_update
    c.warmup_share = 0.08  # paper; fairseq: warmup_updates 32000. Then linear to zero
    c.peak_lr = 5e-4  # paper; fairseq: optimization.lr
    c.adam_b1, c.adam_b2, c.adam_eps = 0.9, 0.98, 1e-6  # fairseq: adam_betas, adam_eps
    c.weight_decay = 0.01  # fairseq: optimizer.weight_decay; decoupled, on every parameter
    c.clip_norm = 0.0  # fairseq: optimization.clip_norm, whose default 0 does not clip

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
    # Masking: a share of the frames starts a span
    m.mask_share, m.mask_frames, m.min_masks = 0.65, 10, 2  # fairseq: mask_prob, mask_length
    # Quantizer
    m.codebook_groups, m.codebook_entries, m.codebook_width = 2, 320, 256  # fairseq: latent_groups, _vars, _dim
    m.gumbel_start, m.gumbel_end, m.gumbel_decay = 2.0, 0.5, 0.999995  # fairseq: latent_temp
    m.quantizer_dropout = 0.1  # fairseq: dropout_features
    # Objective: contrastive loss + 0.1 x diversity + 10 x mean square of the features
    m.target_width, m.negatives, m.logit_temperature = 256, 100, 0.1  # fairseq: final_dim, num_negatives, logit_temp
    m.diversity_weight, m.feature_penalty_weight = 0.1, 10.0  # fairseq: loss_weights
    m.feature_gradient_scale = 0.1  # fairseq: feature_grad_mult
    # Encoder: paper, "base"; seven convolutions (49 frames a second) and twelve post-LN blocks
    m.encoder = e = ml_collections.ConfigDict()
    e.width, e.depth, e.inner_width = 768, 12, 3072
    e.heads = 12  # fairseq; the paper says 8, but its published weights have 12
    e.dropout = e.attention_dropout = e.input_dropout = 0.1  # fairseq: dropout, attention_dropout, dropout_input
    e.activation_dropout, e.layerdrop = 0.0, 0.05  # fairseq: activation_dropout, encoder_layerdrop
    return m
