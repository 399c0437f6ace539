"""A pre-training configuration completed and checked, and what it describes: model, optimizer, loss groups.

The recipes themselves are in configs/. A recipe states what results depend on; this module adds the rest.
"""

import dataclasses
import difflib
import math
from types import ModuleType
from typing import Any

import ml_collections
import optax

from voc2vec_jax import audio, errors, models
from voc2vec_jax.convert import reader
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.ops import attention as attention_ops
from voc2vec_jax.ops import dropout, optim
from voc2vec_jax.pretraining import batch_layout as layouts
from voc2vec_jax.runs import cli, configuration, runtime

# Fields of the encoder that say how it is computed: they are fields of the whole configuration, or fixed.
OF_COMPUTATION = ("dtype", "remat", "attention", "padding", "dropout_bits", "feature_norm")
REFERENCE_BATCH = {  # of fairseq's recipes for speech: GPUs of 1.4 million samples each
    "wav2vec2": f"fairseq's for speech is {64 * 1.4e6 / audio.RATE_HZ:,.0f} s on 64 GPUs",
    "hubert": f"fairseq's for speech is {32 * 1.4e6 / audio.RATE_HZ:,.0f} s on 32 GPUs",
}


# What a recipe must state, because results depend on it.
STATED = ("family", "init_from", "sets", "valid_share", "crop_samples", "bucket_samples", "batch_seconds", "group_rows")
STATED += ("total_steps", "warmup_share", "peak_lr", "adam_b1", "adam_b2", "adam_eps", "weight_decay", "clip_norm")
STATED += ("model.mask_share", "model.mask_frames", "model.encoder.width", "model.encoder.depth")

# Fields that may change when a run is resumed, because they do not change what it computes.
MAY_DIFFER = ("data_dir", "input", "workers", "checkpoint_every_steps", "keep_checkpoints", "keep_every_steps")
MAY_DIFFER += ("tensorboard", "stop_on_collapse", "log_every_steps", "groups_per_device", "remat", "attention", "fsdp")
MAY_DIFFER += ("deterministic", "max_bad_updates", "wandb")
# What version 0.1.0 did where its configuration says nothing
EARLIER = {"dropout_bits": "threefry", "exclude": "", "ema_decay": 0.0, "same_length_groups": 0, "normalize": "none"}
RESUMING = {"may_differ": MAY_DIFFER, "earlier": EARLIER}  # for `folder.claim`


def technical() -> dict[str, Any]:
    """The fields that say how a recipe is computed, watched and kept, with their defaults."""
    return {
        "set_weights": (),  # copies of each set's examples per epoch, in the order of `sets`; empty: one each
        "exclude": "",  # a file of clip ids that are left out: one a line, or a CSV with a column id
        "data_dir": "data",  # folder of the prepared sets
        "input": "stream",  # "stream" from disk | "resident": the prepared corpus lives on the devices
        "workers": 0,  # reading processes; 0 reads in threads
        "batching": "pad",  # "pad": exact | "crop": a group is cut to its shortest clip, as fairseq does
        "normalize": "auto",  # "none" | "clip": zero mean, unit variance | "clip_fairseq" | "auto": as in `init_from`
        "groups_per_device": 0,  # loss groups a device computes at once; the rest is accumulated. 0: as many as fit
        "same_length_groups": 4,  # loss groups in a row of one length, the unit of mixing; 0: all, as version 0.1.0
        "seed": 0,  # of weights, batches and masks
        "dtype": "auto",  # of the computation: "float32" | "bfloat16" | "auto": the latter on accelerators
        "matmul_precision": "highest",  # of float32 products: "highest" is exact, "default" allows TF32
        "deterministic": False,  # the same bits on every run on a GPU too, where it costs speed
        "remat": "auto",  # what the backward pass recomputes: "none" | "layer": blocks | "products" | "auto": by memory
        "attention": "auto",  # "auto" | "plain" | "xla" | "cudnn": the latter two without attention_dropout
        "dropout_bits": "hash",  # what draws the masks of dropout; "threefry": as runs of version 0.1.0 do
        "ema_decay": 0.0,  # of a moving average of the parameters, validated and exported in their place; 0: none
        "fsdp": 0,  # devices that share one copy of the parameters; 0: as few as their memory allows
        "sharding_rules": SHARDING_RULES,  # (pattern, array axis that fsdp cuts): the first match decides
        "log_every_steps": 10,  # lines on the console; metrics.jsonl has every step
        "checkpoint_every_steps": 1000,  # updates between two saves
        "validate_every_steps": 1000,  # updates between two validations, each with a curve
        "keep_checkpoints": 3,  # the newest ones
        "keep_every_steps": 0,  # checkpoints at multiples of this are kept for good; 0: none
        "max_bad_updates": 10,  # in a row, of a loss or gradient that is not finite, before the run stops
        "stop_on_collapse": False,  # stop, not only warn, when codes or negatives collapse for 20 steps
        "tensorboard": False,  # write TensorBoard events too
        "wandb": False,  # Weights & Biases; project, name and mode by its own environment variables
    }


# (regex on a parameter's name, array axis that fsdp cuts or -1 for none); the first match decides
SHARDING_RULES = (
    (r"layers/.*kernel$", 1),
    (r"(feature_projection|project_context|project_quantized)/kernel$", 0),
    (r"positional_conv/.*(v|kernel)$", 2),
    (r"quantizer/codebook$", 0),
    (r"conv_[1-9]/kernel$", 1),
    (r".*", -1),
)


def complete(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Adds what a recipe leaves out: technical fields, and fields of the model that keep their family's default.

    InputError when it leaves out what it must state, or holds a field that the model does not have.
    """
    missing = [name for name in STATED if name not in dict(configuration.fields(c))]
    if missing:
        raise errors.InputError(f"the recipe does not state {', '.join(missing)}: add what it leaves out")
    for name, value in technical().items():
        if name not in c:
            c[name] = value
    _add_defaults(c.model, dataclasses.asdict(family_of(c.family).Config()), "model")
    return c


def _add_defaults(group: ml_collections.ConfigDict, defaults: dict[str, Any], prefix: str) -> None:
    unknown = [name for name in group if name not in defaults or name in OF_COMPUTATION]
    if unknown:
        raise errors.InputError(f"the recipe's {prefix}.{unknown[0]} is no field of the model: correct or remove it")
    for name, value in defaults.items():
        if isinstance(value, dict):
            _add_defaults(group[name], value, f"{prefix}.{name}")
        elif name not in group and name not in OF_COMPUTATION:
            group[name] = value


_DROPOUTS = ("dropout", "attention_dropout", "activation_dropout", "input_dropout")
_SIZES = ("width", "depth", "heads", "inner_width", "positional_kernel", "positional_groups", "positional_depth")
# Limits of numbers: (in words, test, fields). Fields that a family lacks are skipped.
_LIMITS = (
    (
        "1 or more",
        lambda x: x >= 1,
        ("total_steps", "checkpoint_every_steps", "validate_every_steps", "log_every_steps", "keep_checkpoints")
        + ("max_bad_updates",)
        + ("group_rows", "crop_samples")
        + tuple(f"model.encoder.{name}" for name in _SIZES)
        + tuple(f"model.{name}" for name in ("codebook_groups", "codebook_entries", "codebook_width", "target_width"))
        + tuple(f"model.{name}" for name in ("mask_frames", "min_masks", "negatives", "classes")),
    ),
    (
        "0 or more",
        lambda x: 0 <= x < math.inf,
        (
            "workers",
            "keep_every_steps",
            "groups_per_device",
            "same_length_groups",
            "fsdp",
            "weight_decay",
            "clip_norm",
            "model.diversity_weight",
        )
        + ("model.feature_penalty_weight", "model.feature_gradient_scale"),
    ),
    (
        "above 0",
        lambda x: 0 < x < math.inf,
        ("batch_seconds", "adam_eps", "model.logit_temperature", "model.gumbel_start", "model.gumbel_end")
        + ("model.label_rate_hz",),
    ),
    (
        "at least 0 and under 1",
        lambda x: 0 <= x < 1,
        ("valid_share", "warmup_share", "adam_b1", "adam_b2", "ema_decay", "model.quantizer_dropout")
        + tuple(f"model.encoder.{name}" for name in _DROPOUTS),
    ),
    ("from 0 to 1", lambda x: 0 <= x <= 1, ("model.encoder.layerdrop",)),
    # Adam's direction is about 1: a rate above 1 is a slip, and may overflow
    ("above 0 and at most 1", lambda x: 0 < x <= 1, ("peak_lr", "model.mask_share", "model.gumbel_decay")),
    ("from 0 to 2**32 - 1", lambda x: 0 <= x < 2**32, ("seed",)),
)
_CHOICES = {
    "input": ("stream", "resident"),
    "batching": ("pad", "crop"),
    "normalize": ("auto", *reader.NORMALIZE_EPS),
    "matmul_precision": ("highest", "high", "default"),
    "dropout_bits": dropout.BITS,
    "dtype": ("auto", "float32", "bfloat16"),
    "remat": ("auto", *encoders.REMAT),
}


def check_kind(config: ml_collections.ConfigDict) -> None:
    """InputError for a recipe that is not one of pre-training."""
    if "family" not in config:
        what = "is a recipe of fine-tuning: run `voc2vec finetune` with it" if "protocol" in config else "has no family"
        raise errors.InputError(f"this {what}; pre-training takes --config=voc125, say")


RECIPES = cli.Recipes(
    ("voc125", "voc125_hubert", "quickstart"),
    "voc125",
    tuple(
        f"voc2vec_jax.{name}" for name in ("pretraining.recipe", "models.wav2vec2", "models.hubert", "models.encoder")
    ),
    check_kind,
)


def check(config: ml_collections.ConfigDict) -> None:
    """InputError for the first field whose value makes no sense."""
    check_kind(config)
    values = dict(configuration.fields(config))
    for words, holds, names in _LIMITS:
        for name in names:
            if name in values and not holds(values[name]):
                raise errors.InputError(f"{name} is {values[name]}: set it to a value {words}")
    for name in ("conv_channels", "conv_kernels", "conv_strides"):
        if min(values.get(f"model.encoder.{name}", (1,)), default=0) < 1:
            raise errors.InputError(
                f"model.encoder.{name} is {values[f'model.encoder.{name}']}: each must be 1 or more"
            )
    for name, allowed in _CHOICES.items():
        if values[name] not in allowed:
            raise errors.InputError(f"{name} {values[name]!r} is none of {', '.join(allowed)}")
    if values.get("model.mask_share", 0) >= values.get("model.mask_frames", 1):
        raise errors.InputError(
            f"model.mask_share {values['model.mask_share']} of single frames would mask all: set it under 1"
        )


def family_of(name: str) -> ModuleType:
    """The module of a model family; InputError when the family is unknown or has no pre-training objective."""
    trainable = [family for family, module in models.FAMILIES.items() if hasattr(module, "loss_fn")]
    if name not in trainable:
        near = difflib.get_close_matches(name, trainable, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise errors.InputError(f"config.family {name!r} cannot be pre-trained: choose {', '.join(trainable)}{hint}")
    return models.FAMILIES[name]


def build_model(config: ml_collections.ConfigDict) -> tuple[ModuleType, Any]:
    """(family module, frozen Config) of a configuration; InputError when the shapes do not fit together."""
    family = family_of(config.family)
    fields = config.model.to_dict()
    how = {
        "dtype": runtime.computed_in(config.dtype, runtime.platform()),
        "remat": "none" if config.remat == "auto" else config.remat,
        "attention": config.attention,
        "dropout_bits": config.dropout_bits,
    }
    encoder = {**fields.pop("encoder"), **how}
    if fields.keys() - vars(family.Config()).keys():
        raise errors.InputError(
            f"family {config.family!r} has no {min(fields.keys() - vars(family.Config()).keys())}: "
            "take a recipe of that family"
        )
    model = family.Config(encoder=type(family.Config().encoder)(**encoder), **fields)
    _check_encoder(model.encoder)
    if config.crop_samples < model.min_samples:
        raise errors.InputError(
            f"crop_samples {config.crop_samples} leaves clips too short to mask: set it to {model.min_samples} or more"
        )
    groups = getattr(model, "codebook_groups", 1)
    if getattr(model, "codebook_width", 0) % groups:
        raise errors.InputError(
            f"codebook_groups {groups} does not divide codebook_width {model.codebook_width}: choose a divisor"
        )
    return family, model


def normalize_eps(config: ml_collections.ConfigDict) -> float | None:
    """The `eps` of `audio.normalising`; None for audio as it is, as which an "auto" counts that no run has settled."""
    return reader.NORMALIZE_EPS.get(config.normalize)


def build_optimizer(config: ml_collections.ConfigDict) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer of a configuration and its learning rate after k completed updates."""
    schedule = optim.linear_schedule(config.peak_lr, config.total_steps, config.warmup_share)
    optimizer = optim.fairseq_adam(
        schedule,
        b1=config.adam_b1,
        b2=config.adam_b2,
        eps=config.adam_eps,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
    )
    return optimizer, schedule


def _check_encoder(e) -> None:
    layers = {len(e.conv_channels), len(e.conv_kernels), len(e.conv_strides)}
    if len(layers) != 1:
        raise errors.InputError(
            f"conv_channels, conv_kernels and conv_strides have {len(e.conv_channels)}, {len(e.conv_kernels)} and "
            f"{len(e.conv_strides)} entries: give one of each per layer"
        )
    for name in ("heads", "positional_groups"):
        if getattr(e, name) < 1 or e.width % getattr(e, name):
            raise errors.InputError(f"{name} {getattr(e, name)} does not divide width {e.width}: choose a divisor")
    for name, value, allowed in (
        ("dtype", e.dtype, ("float32", "bfloat16")),
        ("remat", e.remat, tuple(encoders.REMAT)),
        ("conv_norm", e.conv_norm, ("group", "layer")),
    ):
        if value not in allowed:
            raise errors.InputError(f"{name} {value!r} is none of {', '.join(allowed)}")
    attention_ops.check(e.attention, e.dtype, e.attention_dropout > 0)


def batch_layout(config: ml_collections.ConfigDict, groups: int) -> layouts.BatchLayout:
    """The shapes of the batches of a configuration with `groups` loss groups."""
    buckets = tuple(config.bucket_samples)
    return layouts.BatchLayout(groups, config.group_rows, config.crop_samples, buckets, config.same_length_groups)


def loss_groups(config: ml_collections.ConfigDict, devices: int) -> tuple[int, int]:
    """(loss groups of an update, micro-batches of a device) on so many devices; InputError when they do not divide."""
    seconds = config.group_rows * config.crop_samples / audio.RATE_HZ
    groups = max(1, round(config.batch_seconds / seconds))
    each = config.groups_per_device or 1
    at_once = devices * each
    if groups % at_once:
        nearest = max(1, round(groups / at_once)) * at_once * seconds
        raise errors.InputError(
            f"batch_seconds {config.batch_seconds:g} makes {groups} loss groups of {seconds:g} s, which {devices} "
            f"devices times groups_per_device {each} do not divide: set batch_seconds={nearest:g}"
        )
    unit = batch_layout(config, groups).unit
    if unit % each:
        raise errors.InputError(
            f"groups_per_device {each} does not divide the {unit} loss groups in a row that share a length: "
            f"set same_length_groups={each}, or groups_per_device to a divisor of {unit}"
        )
    return groups, groups // at_once
