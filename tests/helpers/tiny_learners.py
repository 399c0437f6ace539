"""Random clips and a small model to fine-tune on them."""

import dataclasses
import pathlib

import numpy as np
import tiny_whisper

from voc2vec_jax import models
from voc2vec_jax.finetuning import engine as fold_engine
from voc2vec_jax.finetuning import learners, settings
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.models import heads
from voc2vec_jax.runs import configuration

CLASSES = 3
CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "finetune.py"


class Clips:
    """Random clips with the interface that `resident.Resident` reads."""

    def __init__(self, n: int, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.samples = rng.integers(700, 2400, n).astype(np.int32)
        self.labels = rng.integers(0, CLASSES, n).astype(np.int32)
        self.audio = [rng.integers(-9000, 9000, s).astype(np.int16) for s in self.samples]

    def __len__(self):
        return len(self.samples)

    def read(self, rows):
        return [self.audio[row] for row in rows]


def tiny_learner(sub_batches, **options) -> learners.Finetuner:
    encoder = encoders.EncoderConfig(
        conv_channels=(8, 8), conv_kernels=(10, 3), conv_strides=(5, 2), width=16, depth=2, heads=2, inner_width=24,
        positional_kernel=4, positional_groups=2, layerdrop=0.2,
    )  # fmt: skip
    config = models.FAMILIES["wav2vec2"].Config(encoder=encoder)
    augment = learners.SpecAugment(0.1, 3, 1)
    return learners.Finetuner(
        "wav2vec2", config, heads.Config(CLASSES, 8), sub_batches, normalize=True, augment=augment, **options
    )


def whisper_learner(context: str, sub_batches, **options) -> learners.Finetuner:
    """As `tiny_learner`, with Whisper's encoder."""
    config = tiny_whisper.config(context, width=16, depth=2, heads=2, inner_width=24, layerdrop=0.2, dropout=0.1)
    augment = learners.SpecAugment(0.2, 3, 1)
    return learners.Finetuner(
        "whisper", config, heads.Config(CLASSES, 8), sub_batches, normalize=False, augment=augment, **options
    )


def recipe(**changes) -> fold_engine.FineTuningRecipe:
    """The recipe of configs/finetune.py, with changes."""
    config = configuration.load(f"{CONFIG}:synthetic")
    return dataclasses.replace(settings.fold_recipe(config), **changes)
