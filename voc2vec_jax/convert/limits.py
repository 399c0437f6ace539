"""Which numbers and choices of a model's configuration make sense, whoever wrote it.

They bound what a configuration of some bytes may ask for; `names.fill` compares sizes with the tensors at hand.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from voc2vec_jax import errors, printable
from voc2vec_jax.convert import conv_spec
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.ops import attention, dropout

MOST_BLOCKS = 1000  # the deepest published one has 48
MOST_HEADS = 64  # each has scores of its own, of all pairs of frames; the widest published one has 20
LONGEST_FRAME = 1 << 20  # samples that one frame sees, and that lie between two: a minute
_CHOICES = {
    "conv_norm": ("group", "layer"),
    "dtype": ("float32", "bfloat16", "float16"),
    "padding": ("exact", "legacy"),
    "remat": tuple(encoders.REMAT),
    "attention": attention.IMPLEMENTATIONS,
    "dropout_bits": dropout.BITS,
}
_Rule = tuple[str, Callable[[Any], bool]]
_SIZE: _Rule = (f"a number from 1 to {conv_spec.LARGEST}", lambda x: 1 <= x <= conv_spec.LARGEST)
_FINITE: _Rule = ("a finite number", math.isfinite)
_SHARE: _Rule = ("a number from 0 to 1", lambda x: 0 <= x <= 1)
_DROPPED: _Rule = ("a number from 0 to below 1", lambda x: 0 <= x < 1)
_ABOVE: _Rule = ("a number above 0", lambda x: 0 < x < math.inf)
_RULES: dict[str, _Rule] = {  # others: whole numbers are sizes, and broken ones finite
    "heads": (f"a number from 1 to {MOST_HEADS}", lambda x: 1 <= x <= MOST_HEADS),
    "depth": (f"a number from 1 to {MOST_BLOCKS}", lambda x: 1 <= x <= MOST_BLOCKS),
    **dict.fromkeys(("min_masks", "prenet_depth"), ("0 or more", lambda x: 0 <= x <= conv_spec.LARGEST)),
    "norm_eps": ("a number above 0 and below 1", lambda x: 0 < x < 1),
    **dict.fromkeys(("layerdrop", "mask_share"), _SHARE),
    **dict.fromkeys(("dropout", "attention_dropout", "activation_dropout", "input_dropout"), _DROPPED),
    "quantizer_dropout": _DROPPED,
    **dict.fromkeys(("logit_temperature", "gumbel_start", "gumbel_end"), _ABOVE),
    "gumbel_decay": ("a number above 0 and at most 1", lambda x: 0 < x <= 1),
}


def check(family: str, config: Any, origin: str) -> Any:
    """`config`, a family's. InputError for the first field that makes no sense, or not with another one."""
    for owner in (config.encoder, config):
        for field in dataclasses.fields(owner):
            if field.name != "encoder":
                _check_field(field.name, getattr(owner, field.name), origin)
    _check_encoder(family, config.encoder, origin)
    if family == "wavlm" and not 1 <= config.relative_buckets // 4 < config.relative_distance:
        raise errors.InputError(
            f"{origin}: {config.relative_buckets} buckets do not divide distances of {config.relative_distance} frames"
        )
    if family == "emotion2vec" and config.prenet_depth > config.encoder.depth:
        raise errors.InputError(f"{origin}: prenet_depth is {config.prenet_depth} of {config.encoder.depth} blocks")
    return config


def _check_field(name: str, value: Any, origin: str) -> None:
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            choices = ", ".join(_CHOICES[name])
            raise errors.InputError(f"{origin}: {name} is {printable.value(value)}, which is none of {choices}")
    elif isinstance(value, tuple):
        if not 0 < len(value) <= conv_spec.MOST_LAYERS:
            raise errors.InputError(f"{origin}: {name} has {len(value)} layers, not 1 to {conv_spec.MOST_LAYERS}")
        for item in value:
            _check_number(name, item, _SIZE, origin)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        default = _SIZE if isinstance(value, int) else _FINITE
        _check_number(name, value, _RULES.get(name, default), origin)


def _check_number(name: str, value: Any, rule: _Rule, origin: str) -> None:
    words, holds = rule
    if type(value) not in (int, float) or not holds(value):
        raise errors.InputError(f"{origin}: {name} is {printable.value(value)} where {words} is needed")


def _check_encoder(family: str, e: Any, origin: str) -> None:
    divisors = [(e.heads, "attention heads")]
    if family == "whisper":
        divisors += [(2, "to hold sines and cosines of each position")]
        if e.width < 4:
            raise errors.InputError(f"{origin}: width {e.width} has no room for sines and cosines of two rates")
    else:
        divisors += [(e.positional_groups, "positional groups")]
        _check_stem(e, origin)
    for parts, name in divisors:
        if e.width % parts:
            raise errors.InputError(f"{origin}: width {e.width} is not divisible by {parts} {name}")


def _check_stem(e: Any, origin: str) -> None:
    lengths = {len(e.conv_channels), len(e.conv_kernels), len(e.conv_strides)}
    if len(lengths) > 1:
        raise errors.InputError(f"{origin}: its convolutions have {sorted(lengths)} channels, kernels and strides")
    for kernel, stride in zip(e.conv_kernels, e.conv_strides):
        if stride > kernel:
            raise errors.InputError(f"{origin}: a convolution of {kernel} taps with stride {stride} skips samples")
    if math.prod(e.conv_strides) > LONGEST_FRAME or e.samples_for(1) > LONGEST_FRAME:
        raise errors.InputError(f"{origin}: one frame of its convolutions sees more than {LONGEST_FRAME} samples")
