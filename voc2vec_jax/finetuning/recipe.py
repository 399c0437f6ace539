"""Completes and checks the recipe that a fine-tuning configuration states."""

import math
import pathlib
import re
from collections.abc import Sequence

import ml_collections

from voc2vec_jax import audio, errors
from voc2vec_jax.datasets import catalog
from voc2vec_jax.finetuning import adaptation, batches, copies, folds, kept_models, tasks
from voc2vec_jax.inference import answers
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.models import heads, whisper
from voc2vec_jax.ops import attention as attention_ops
from voc2vec_jax.ops import dropout, metrics
from voc2vec_jax.runs import cli, configuration

HOW = ("auto", "finetune", "features", "probe")

# What a configuration must state itself: a reader looks for it there, with its source.
STATED = ("datasets", "protocol", "folds", "validation_share", "max_seconds", "scale", "head_width", "hidden_width")
STATED += ("epochs", "patience", "batch_clips", "peak_lr", "warmup_steps", "weight_decay", "clip_norm")
STATED += ("class_weights", "pooling", "dropouts", "mask_share", "mask_frames", "min_masks", "seed")
STATED += ("stopping", "masks")
STATED += ("sampling", "augment_speed", "augment_shift", "augment_noise", "augment_gain", "noise_snr", "mixup")
STATED += ("freeze", "freeze_updates", "layer_decay", "lora_rank", "lora_alpha", "lora_targets")


def complete(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The fields that are no part of the recipe, beside those that `config` states; InputError for one it lacks."""
    for name in STATED:
        if name not in config:
            raise errors.InputError(f"the configuration does not state {name}: set it as configs/finetune.py does")
    c = ml_collections.ConfigDict()
    c.model = ""  # one system: a name of the paper's tables, a Hub id, a folder, a checkpoint file or a run folder
    c.systems = ()  # several systems in place of `model`; "paper" is all of tables III and IV
    c.name = ""  # of the one system in tables; empty: its name in the paper, or the last part of its path
    # Of the data set `folder`: class folders, a manifest (csv: path,label[,group,split,start,end]) or label files
    c.data = ""
    c.validation_data = ""  # with test_data: the clips that choose the epoch; may be empty
    c.test_data = ""  # of the data set `folder`: clips to test, so that `data` is for training alone
    # What labels are: "classes" | "multilabel": any number of them, as a|b | "regression": numbers
    c.target = "classes"
    # How recordings of sets that are not prepared yet are read, as by the flags of tools/prepare.py
    c.channel = "mean"  # what several channels become: "mean" | "first" | "loudest"
    c.on_truncated = "warn"  # recordings that end early: "warn": used as far as they go | "refuse": cannot be used
    c.rescale_float = False  # divide floats in the scale of whole numbers by it, which cannot be used otherwise
    c.data_dir = "data"  # folder of the prepared sets
    c.manual_dir = ""  # folder of publishers' archives, from which sets are prepared when needed
    c.on_unreadable = "stop"  # "stop" | "drop": what to do about clips that cannot be used
    # Recall and F1 are averaged over the classes that have clips in the scored part ("tested"), or over those among
    # labels or predictions ("occurring"), as in the official script. "auto": the former in strict, the latter in paper
    c.averaged_classes = "auto"
    c.rare = "auto"  # classes too small for the folds: "stop" | "keep" | "auto": keep only in the paper's sets
    c.split_seed = 0  # of the draw of strict folds
    c.group_copies = "auto"  # "true": copies and slices of one recording are one group | "false" | "auto": if strict
    # One run for each, such as "0,1,2", in place of `seed`. The folds stay the same, so that their spread is that of
    # training; empty: one run
    c.seeds = ""

    # "auto": as the paper uses the system | "finetune": train all parameters | "features": two linear layers over
    # fixed features | "probe": one linear layer over each of `layers`
    c.how = "auto"
    c.layers = "all"  # of a probe: "all", or numbers separated by commas
    c.features = ""  # in place of a model's or of openSMILE: ComParE_2016 or eGeMAPSv02; or an .npz of ids and vectors
    c.layer_sum = False  # classify a learned average of all layers instead of the last one
    # What Whisper sees behind a clip: "padded": silence up to 30 s, as in transformers | "cut": nothing, and it costs
    # what the clip's length costs | "auto": cut to fine-tune under `strict`, else as the source was trained
    c.context = "auto"
    c.fresh = False  # random weights instead of the source's: the same architecture from scratch

    c.dtype = "float32"  # of the computation: "float32" | "bfloat16" | "auto": the latter on accelerators
    c.matmul_precision = "highest"  # of float32 products: "highest" is exact, "default" allows TF32
    c.deterministic = False  # the same bits on every run on a GPU too, where it costs speed
    c.remat = "none"  # what the backward pass recomputes to save memory: "none" | "layer": blocks | "products": less
    c.attention = "auto"  # "auto" | "plain" | "xla" | "cudnn": the latter two without attention_dropout
    c.dropout_bits = "hash"  # what draws the masks of dropout; "threefry": as runs of version 0.1.0 do
    c.folds_at_once = 0  # 0: as many as fit
    c.fold_axis = "auto"  # "vmap": folds in one batch | "map": folds in turn | "auto": in turn on CPUs and TPUs
    c.checkpoint_every_epochs = 1  # epochs between two saves of the folds in progress
    # "best": the model of the fold with the best validation score | "all" | "none" | "lora": each fold's adapters and
    # head, which need the source beside them | "auto": "lora" with lora_rank, else "best"
    c.save_models = "auto"
    c.final = False  # after the folds, one model trained on all clips for RUN/final
    c.leaks = True  # look for identical and near-identical clips on both sides of a fold
    c.update(config)
    return c


# What a resumed run may change, because it does not change what the run computes.
MAY_DIFFER = ("data_dir", "manual_dir", "folds_at_once", "fold_axis", "checkpoint_every_epochs", "save_models", "final")
MAY_DIFFER += ("remat", "attention", "deterministic", "leaks")
# What version 0.1.0 did where its configuration says nothing
EARLIER = {"dropout_bits": "threefry", "pooling": "mean", "sampling": "all", "mixup": 0.0, "noise_snr": (10.0, 40.0)}
EARLIER |= {"target": "classes"}
EARLIER |= dict.fromkeys(("augment_speed", "augment_shift", "augment_noise", "augment_gain"), 0.0)
EARLIER |= {"averaged_classes": "occurring"}
EARLIER |= {"group_copies": "false", "validation_data": "", "test_data": ""}
EARLIER |= audio.DEFAULT._asdict()  # of sets to prepare; those of earlier runs are on disk
EARLIER |= {"stopping": "published", "masks": "published"}
EARLIER |= {"seeds": "", "context": "auto"}
EARLIER |= {"freeze": "none", "freeze_updates": 0, "layer_decay": 1.0, "lora_rank": 0}
EARLIER |= {"lora_alpha": 16.0, "lora_targets": "query,value"}


def _is_range(pair: Sequence[float]) -> bool:
    return len(pair) == 2 and all(map(math.isfinite, pair)) and pair[0] <= pair[1]


_AT_LEAST_ONE = ("epochs", "patience", "batch_clips", "hidden_width", "head_width", "checkpoint_every_epochs")
_LIMITS = (
    ("1 or more", lambda x: x >= 1, _AT_LEAST_ONE),
    ("2 or more", lambda x: x >= 2, ("folds",)),
    ("0 or more", lambda x: 0 <= x < math.inf, ("warmup_steps", "weight_decay", "clip_norm", "folds_at_once")),
    ("0 or more", lambda x: 0 <= x < math.inf, ("augment_gain", "mixup")),
    ("from 0 to 0.5", lambda x: 0 <= x <= 0.5, ("augment_speed",)),
    ("from 0 to 1", lambda x: 0 <= x <= 1, ("augment_noise", "augment_shift")),
    ("of two numbers, the lower one first", _is_range, ("noise_snr",)),
    ("above 0", lambda x: 0 < x < math.inf, ("peak_lr", "max_seconds")),
    ("0 or more", lambda x: 0 <= x < math.inf, ("freeze_updates", "lora_rank")),
    ("above 0", lambda x: 0 < x < math.inf, ("lora_alpha",)),
    ("above 0 and at most 1", lambda x: 0 < x <= 1, ("layer_decay",)),
    ("under 1", lambda x: x < 1, ("mask_share",)),
    ("1 or more, or under 0", lambda x: x != 0, ("mask_frames",)),
    ("above 0 and at most 0.5", lambda x: 0 < x <= 0.5, ("validation_share",)),
    ("from 0 to 2**32 - 1", lambda x: 0 <= x < 2**32, ("seed", "split_seed")),
)
_CHOICES = {
    "on_unreadable": tasks.ON_UNREADABLE,
    "rare": ("auto", *folds.RARE),
    "averaged_classes": ("auto", *metrics.AVERAGED),
    "group_copies": copies.GROUP_COPIES,
    "how": HOW,
    "scale": ("none", "standard"),
    "pooling": heads.POOLINGS,
    "target": answers.KINDS,
    "channel": audio.CHANNELS,
    "on_truncated": audio.ON_TRUNCATED,
    "sampling": batches.SAMPLINGS,
    "protocol": folds.PROTOCOLS,
    "dtype": ("auto", "float32", "bfloat16"),
    "matmul_precision": ("highest", "high", "default"),
    "remat": tuple(encoders.REMAT),
    "attention": attention_ops.IMPLEMENTATIONS,
    "dropout_bits": dropout.BITS,
    "stopping": ("auto", "published", "after_warmup"),
    "masks": ("auto", "published", "scaled"),
    "context": ("auto", *whisper.CONTEXTS),
    "freeze": adaptation.FREEZE,
    "fold_axis": ("auto", "map", "vmap"),
}


def check_kind(config: ml_collections.ConfigDict) -> None:
    """InputError for a recipe that is not one of fine-tuning."""
    if "protocol" not in config:
        what = "is a recipe of pre-training: run `voc2vec train` with it" if "family" in config else "has no protocol"
        raise errors.InputError(f"this {what}; fine-tuning takes --config=finetune:DATASET")


RECIPES = cli.Recipes(("finetune",), "finetune:folder", ("voc2vec_jax.finetuning.recipe",), check_kind)


def check(config: ml_collections.ConfigDict) -> None:
    """InputError for the first field whose value makes no sense, before any work begins."""
    check_kind(config)
    values = dict(configuration.fields(config))
    for words, holds, names in _LIMITS:
        for name in names:
            if not holds(values[name]):
                raise errors.InputError(f"{name} is {values[name]}: set it to a value {words}")
    for name, allowed in _CHOICES.items():
        if values[name] not in allowed:
            raise errors.InputError(f"{name} {values[name]!r} is none of {', '.join(allowed)}")
    seeds(config)
    if config.sampling == "balanced" and config.target != "classes":
        raise errors.InputError(
            f"--config.sampling=balanced draws classes evenly, and --config.target={config.target} has none: "
            "leave one out"
        )
    _check_model(config)
    _check_data(config)
    adaptation.check(config)
    kept_models.check(config)
    if config.group_copies == "true" and config.protocol == "paper":
        raise errors.InputError(
            "--config.group_copies=true needs --config.protocol=strict: the paper's folds do not keep groups together"
        )


def groups_copies(config: ml_collections.ConfigDict) -> bool:
    """Whether clips that are copies or slices of one recording become one group."""
    return config.group_copies == "true" or (config.group_copies == "auto" and config.protocol == "strict")


def seeds(config: ml_collections.ConfigDict) -> list[int]:
    """The seeds to run, empty for the one `seed`; InputError for what is no list of different seeds."""
    found = [configuration.parse_value("--config.seeds", item, int) for item in config.seeds.split(",") if item.strip()]
    for seed in found:
        if not 0 <= seed < 2**32:
            raise errors.InputError(f"--config.seeds={config.seeds}: {seed} is not from 0 to 2**32 - 1")
        if found.count(seed) > 1:
            raise errors.InputError(f"--config.seeds={config.seeds} names {seed} twice: give each seed once")
    return found


def _check_model(config: ml_collections.ConfigDict) -> None:
    if not (config.model or config.systems):
        raise errors.InputError("there is no model to fine-tune: give --config.model=SRC or --config.systems=a,b")
    if config.name and not config.model:
        raise errors.InputError(f"name {config.name!r} names one model: give it with --config.model")
    if not re.fullmatch(r"[\w.+ -]*", config.name) or config.name.startswith("."):
        raise errors.InputError(f"name {config.name!r} must be letters, digits, dots, dashes and spaces")
    if config.model and config.systems:
        raise errors.InputError(f"model {config.model} and systems {','.join(config.systems)} are both set: give one")


def _check_data(config: ml_collections.ConfigDict) -> None:
    if not config.datasets:
        raise errors.InputError("datasets is empty: name at least one data set")
    for name in config.datasets:
        if name not in catalog.CATALOG and pathlib.Path(name).is_dir():
            raise errors.InputError(
                f"there is no data set {name!r}, but a folder: give --config=finetune:folder --config.data={name}"
            )
    for name in ("validation_data", "test_data"):
        if config[name] and tuple(config.datasets) != ("folder",):
            raise errors.InputError(f"{name} {config[name]} belongs to the data set folder: give --config=...:folder")
    if config.data and tuple(config.datasets) != ("folder",):
        raise errors.InputError(f"data {config.data} belongs to the data set folder: give --config=...:folder")
    if tuple(config.datasets) == ("folder",) and not config.data:
        raise errors.InputError("the data set folder needs --config.data=PATH: class folders or a manifest")
