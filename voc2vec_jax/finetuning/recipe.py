"""What a fine-tuning configuration holds: every field with the paper's value."""

import math
import re

import ml_collections

from voc2vec_jax import errors
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.ops import attention as attention_ops
from voc2vec_jax.runs import configuration

TASKS = ("asvp_esd", "asvp_esd_babies", "cnvve", "donateacry", "nonverbal_vocalization", "vivae")
PAPER_SYSTEMS = ("opensmile", "emotion2vec", "data2vec", "wavlm", "wavlm-plus", "wav2vec2-ls", "wav2vec2-as")
PAPER_SYSTEMS += ("hubert-ls", "hubert-as", "voc2vec", "voc2vec-as", "voc2vec-ls")
HOW = ("auto", "finetune", "features", "probe")


def finetuning() -> ml_collections.ConfigDict:
    """The recipe of the paper, every field of which can be overridden."""
    c = ml_collections.ConfigDict()
    c.datasets = ("synthetic",)  # several: RUN/<data set>/<system>/ each
    c.model = ""  # one system: a name of table IV, a Hub id, a folder, a checkpoint file, a run folder
    c.systems = ()  # several systems, in place of `model`; "paper" is all of table IV
    c.name = ""  # of the one system, in tables; empty: its name in table IV or the last part of its path
    c.data = ""  # of the data set `folder`: a folder of class folders, or a manifest (csv: path,label[,group])
    c.data_dir = "data"
    c.manual_dir = ""  # where archives lie that are prepared on the fly
    c.on_unreadable = "stop"  # "stop" | "drop": what to do with clips that cannot be used

    # "auto": as the system is used in the paper | "finetune": all parameters | "features": two linear layers over
    # fixed features | "probe": one linear layer over each of `layers`
    c.how = "auto"
    c.layers = "all"  # of a probe: "all" or numbers, separated by commas
    c.features = ""  # of openSMILE: ComParE_2016 or eGeMAPSv02; or an .npz of ids and vectors
    c.scale = "standard"  # of features: "none" | "standard": mean and deviation of the training clips
    c.hidden_width = 256  # between the two linear layers over features
    c.head_width = 256  # of the projection in front of the classifier
    c.layer_sum = False  # a learned average of all layers instead of the last one
    c.fresh = False  # random weights instead of the source's: the same architecture from scratch

    c.protocol = "strict"  # "strict": stratified, grouped, inner validation, exact padding | "paper": the official's
    c.folds = 10
    c.split_seed = 0  # of strict folds
    c.validation_share = 0.1  # of what is not tested, for the selection of the epoch
    # Classes with fewer clips or groups than folds: "stop" | "keep" | "auto": kept in the sets of the paper alone
    c.rare = "auto"
    c.max_seconds = 7.0  # of a clip, from its start

    c.epochs = 50
    c.patience = 5
    c.batch_clips = 16
    c.peak_lr = 1e-4
    c.warmup_steps = 500
    c.weight_decay = 0.0
    c.clip_norm = 1.0
    c.class_weights = True  # the loss of a clip times n / (classes * clips of its class)
    c.dropouts = True  # those of the checkpoint's configuration
    # SpecAugment's masks in time; under 0: as the checkpoint's config.json says, else 0.05, 10 and 2; share 0: none
    c.mask_share, c.mask_frames, c.min_masks = -1.0, -1, -1
    c.seed = 0

    c.dtype = "float32"  # "float32" | "bfloat16": of the computation
    c.matmul_precision = "highest"  # of float32 products: "highest" is exact, "default" allows TF32
    c.deterministic = True  # the same bits on every run, on a GPU too
    c.remat = "none"  # what the backward pass recomputes to save memory: "none" | "layer": blocks | "products": less
    c.attention = "own"  # "own" | "xla" | "cudnn": the latter two without attention_dropout
    c.folds_at_once = 0  # 0: as many as fit
    c.fold_axis = "auto"  # "vmap": folds computed together | "map": in turn | "auto": in turn on CPUs
    c.checkpoint_every_epochs = 1
    c.save_models = True  # each fold's model, as from_pretrained reads it
    c.leaks = True  # look for identical and near-identical clips across the splits
    return c


# What may change between a run and its resumption without changing what it computes.
MAY_DIFFER = ("data_dir", "manual_dir", "folds_at_once", "fold_axis", "checkpoint_every_epochs", "save_models")
MAY_DIFFER += ("remat", "leaks")

_LIMITS = (
    (
        "1 or more",
        lambda x: x >= 1,
        ("epochs", "patience", "batch_clips", "hidden_width", "head_width", "checkpoint_every_epochs"),
    ),
    ("2 or more", lambda x: x >= 2, ("folds",)),
    (
        "0 or more",
        lambda x: 0 <= x < math.inf,
        ("warmup_steps", "weight_decay", "clip_norm", "folds_at_once"),
    ),
    ("above 0", lambda x: 0 < x < math.inf, ("peak_lr", "max_seconds")),
    ("under 1", lambda x: x < 1, ("mask_share",)),
    ("1 or more, or under 0", lambda x: x != 0, ("mask_frames",)),
    ("above 0 and at most 0.5", lambda x: 0 < x <= 0.5, ("validation_share",)),
    ("from 0 to 2**32 - 1", lambda x: 0 <= x < 2**32, ("seed", "split_seed")),
)
_CHOICES = {
    "on_unreadable": ("stop", "drop"),
    "rare": ("auto", "stop", "keep"),
    "how": HOW,
    "scale": ("none", "standard"),
    "protocol": ("paper", "strict"),
    "dtype": ("float32", "bfloat16"),
    "matmul_precision": ("highest", "high", "default"),
    "remat": tuple(encoders.REMAT),
    "attention": attention_ops.IMPLEMENTATIONS,
    "fold_axis": ("auto", "map", "vmap"),
}


def check(config: ml_collections.ConfigDict) -> None:
    """InputError for the first field whose value makes no sense, before anything is done with it."""
    values = dict(configuration.fields(config))
    for words, holds, names in _LIMITS:
        for name in names:
            if not holds(values[name]):
                raise errors.InputError(f"{name} is {values[name]}: set it to a value {words}")
    for name, allowed in _CHOICES.items():
        if values[name] not in allowed:
            raise errors.InputError(f"{name} {values[name]!r} is none of {', '.join(allowed)}")
    if not config.datasets:
        raise errors.InputError("datasets is empty: name at least one data set")
    if not (config.model or config.systems):
        raise errors.InputError("there is no model to fine-tune: give --config.model=SRC or --config.systems=a,b")
    if config.name and not config.model:
        raise errors.InputError(f"name {config.name!r} names one model: give it with --config.model")
    if not re.fullmatch(r"[\w.+ -]*", config.name) or config.name.startswith("."):
        raise errors.InputError(f"name {config.name!r} must be letters, digits, dots, dashes and spaces")
    if config.model and config.systems:
        raise errors.InputError(f"model {config.model} and systems {','.join(config.systems)} are both set: give one")
    if config.data and tuple(config.datasets) != ("folder",):
        raise errors.InputError(f"data {config.data} belongs to the data set folder: give --config=...:folder")
    if tuple(config.datasets) == ("folder",) and not config.data:
        raise errors.InputError("the data set folder needs --config.data=PATH: class folders or a manifest")
