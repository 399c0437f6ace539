"""Model configurations: transformers' `config.json` and fairseq's `cfg` or `args` -> our frozen Configs, and back."""

import ast
import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from voc2vec_jax import errors

_MOST_LAYERS = 64  # of a convolutional stem; bounds what a `conv_feature_layers` may ask for
_LARGEST = 65536  # of any width, kernel or stride
_REQUIRED = object()


def parse_conv_layers(text: str) -> list[tuple[int, int, int]]:
    """fairseq's `conv_feature_layers`, such as "[(512, 10, 5)] + [(512, 3, 2)] * 4": (channels, kernel, stride) each.

    Only lists of triples of whole numbers, `+` and `* n` are understood; nothing is evaluated. Raises InputError.
    """

    def walk(node: ast.AST, depth: int = 0) -> list[tuple[int, ...]]:
        match node:
            case _ if depth > _MOST_LAYERS:
                raise ValueError("too deep")
            case ast.List(elts=items) if len(items) <= _MOST_LAYERS:
                return [triple(item) for item in items]
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                layers = walk(left, depth + 1) + walk(right, depth + 1)
            case ast.BinOp(left=left, op=ast.Mult(), right=ast.Constant(value=int(times))) if 0 < times <= _MOST_LAYERS:
                layers = walk(left, depth + 1) * times
            case _:
                raise ValueError(type(node).__name__)
        if len(layers) > _MOST_LAYERS:
            raise ValueError("too many layers")
        return layers

    def triple(node: ast.AST) -> tuple[int, ...]:
        if not isinstance(node, (ast.Tuple, ast.List)) or len(node.elts) != 3:
            raise ValueError("not a triple")
        values = [getattr(item, "value", None) for item in node.elts]
        if not all(type(value) is int and 0 < value <= _LARGEST for value in values):
            raise ValueError(f"{values}")
        return tuple(values)

    try:
        if len(text) > 2000:
            raise ValueError("too long")
        layers = walk(ast.parse(text, mode="eval").body)
        if not layers:
            raise ValueError("no layer")
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError) as fault:
        raise errors.InputError(
            f"conv_feature_layers {str(text)[:80]!r} is not a sum of lists of (channels, kernel, stride)"
        ) from fault
    return layers


def format_conv_layers(channels: tuple[int, ...], kernels: tuple[int, ...], strides: tuple[int, ...]) -> str:
    """The inverse of `parse_conv_layers`, without repeats."""
    return " + ".join(f"[({c}, {k}, {s})]" for c, k, s in zip(channels, kernels, strides))


@dataclasses.dataclass(frozen=True)
class _Raw:
    """A foreign configuration whose values are checked as they are taken."""

    values: Mapping[str, Any]
    origin: str

    def take(self, key: str, kind: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            if default is _REQUIRED:
                raise errors.InputError(f"{self.origin} lacks {key}, which its kind of model needs")
            return default
        try:
            return _CHECKS[kind](value)
        except (TypeError, ValueError) as fault:
            raise errors.InputError(f"{self.origin}: {key} is {value!r} where a {kind} is needed") from fault

    def demand(self, key: str, *allowed: Any, default: Any) -> Any:
        value = self.values.get(key, default)
        if value not in allowed:
            choices = " or ".join(repr(choice) for choice in allowed)
            raise errors.InputError(f"{self.origin}: {key} is {value!r}, but only {choices} is supported")
        return value


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 < value <= _LARGEST:
        raise ValueError(value)
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(value)
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _wholes(value: Any) -> tuple[int, ...]:
    if not 0 < len(value) <= _MOST_LAYERS or isinstance(value, str):
        raise ValueError(value)
    return tuple(_whole(item) for item in value)


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "positive whole number": _whole,
    "number": _number,
    "boolean": _flag,
    "list of positive whole numbers": _wholes,
}
_WHOLE, _NUMBER, _FLAG, _WHOLES = _CHECKS


@dataclasses.dataclass(frozen=True)
class _Field:
    """One field of a Config and its names elsewhere (None: fixed there, our default holds)."""

    ours: str
    fairseq: str | None
    hf: str | None
    kind: str
    hf_default: Any = None  # transformers' own, where it differs from ours


_ENCODER = (
    _Field("conv_bias", "conv_bias", "conv_bias", _FLAG),
    _Field("width", "encoder_embed_dim", "hidden_size", _WHOLE),
    _Field("depth", "encoder_layers", "num_hidden_layers", _WHOLE),
    _Field("heads", "encoder_attention_heads", "num_attention_heads", _WHOLE),
    _Field("inner_width", "encoder_ffn_embed_dim", "intermediate_size", _WHOLE),
    _Field("norm_first", "layer_norm_first", "do_stable_layer_norm", _FLAG),
    _Field("positional_kernel", "conv_pos", "num_conv_pos_embeddings", _WHOLE),
    _Field("positional_groups", "conv_pos_groups", "num_conv_pos_embedding_groups", _WHOLE),
    _Field("norm_eps", None, "layer_norm_eps", _NUMBER),
    _Field("dropout", "dropout", "hidden_dropout", _NUMBER),
    _Field("attention_dropout", "attention_dropout", "attention_dropout", _NUMBER),
    _Field("activation_dropout", "activation_dropout", "activation_dropout", _NUMBER, 0.1),
    _Field("input_dropout", "dropout_input", "feat_proj_dropout", _NUMBER, 0.0),
    _Field("layerdrop", "encoder_layerdrop", "layerdrop", _NUMBER, 0.1),
)
_FIELDS: dict[str, tuple[_Field, ...]] = {
    "wav2vec2": (
        _Field("codebook_groups", "latent_groups", "num_codevector_groups", _WHOLE),
        _Field("codebook_entries", "latent_vars", "num_codevectors_per_group", _WHOLE),
        _Field("codebook_width", None, "codevector_dim", _WHOLE),
        _Field("target_width", None, "proj_codevector_dim", _WHOLE),
        _Field("quantizer_dropout", "dropout_features", "feat_quantizer_dropout", _NUMBER, 0.0),
        _Field("feature_gradient_scale", "feature_grad_mult", None, _NUMBER),
        _Field("mask_share", "mask_prob", "mask_time_prob", _NUMBER, 0.05),
        _Field("mask_frames", "mask_length", "mask_time_length", _WHOLE),
        _Field("min_masks", None, "mask_time_min_masks", _WHOLE),
        _Field("negatives", "num_negatives", "num_negatives", _WHOLE),
        _Field("logit_temperature", "logit_temp", "contrastive_logits_temperature", _NUMBER),
        _Field("diversity_weight", None, "diversity_loss_weight", _NUMBER),
    ),
}


def _module(family: str) -> Any:
    return importlib.import_module(f"voc2vec_jax.models.{family}")


def _taken(fields: tuple[_Field, ...], layout: str, raw: _Raw, defaults: Any) -> dict[str, Any]:
    taken = {}
    for field in fields:
        name = getattr(field, layout)
        default = getattr(defaults, field.ours)
        if layout == "hf" and field.hf_default is not None:
            default = field.hf_default
        taken[field.ours] = default if name is None else raw.take(name, field.kind, default)
    return taken


def _checked(encoder: Any, origin: str) -> Any:
    lengths = {len(encoder.conv_channels), len(encoder.conv_kernels), len(encoder.conv_strides)}
    if len(lengths) > 1:
        raise errors.InputError(f"{origin}: its convolutions have {sorted(lengths)} channels, kernels and strides")
    for part, name in ((encoder.heads, "attention heads"), (encoder.positional_groups, "positional groups")):
        if encoder.width % part:
            raise errors.InputError(f"{origin}: width {encoder.width} is not divisible by {part} {name}")
    return encoder


def from_hf(family: str, values: Mapping[str, Any], origin: str) -> Any:
    """The family's Config from the contents of a transformers `config.json`. Raises InputError."""
    raw, base = _Raw(values, origin), _module(family).Config()
    raw.demand("hidden_act", "gelu", default="gelu")
    raw.demand("feat_extract_activation", "gelu", default="gelu")
    raw.demand("add_adapter", False, None, default=False)
    raw.demand("adapter_attn_dim", None, default=None)
    norm = raw.demand("feat_extract_norm", "group", "layer", default="group")
    encoder = dataclasses.replace(
        base.encoder,
        conv_channels=raw.take("conv_dim", _WHOLES, base.encoder.conv_channels),
        conv_kernels=raw.take("conv_kernel", _WHOLES, base.encoder.conv_kernels),
        conv_strides=raw.take("conv_stride", _WHOLES, base.encoder.conv_strides),
        conv_norm=norm,
        **_taken(_ENCODER, "hf", raw, base.encoder),
    )
    return dataclasses.replace(base, encoder=_checked(encoder, origin), **_taken(_FIELDS[family], "hf", raw, base))


def to_hf(family: str, config: Any) -> dict[str, Any]:
    """The fields of transformers' `config.json` that say what `config` says."""
    encoder = config.encoder
    values: dict[str, Any] = {
        "hidden_act": "gelu",
        "feat_extract_activation": "gelu",
        "feat_extract_norm": encoder.conv_norm,
        "conv_dim": list(encoder.conv_channels),
        "conv_kernel": list(encoder.conv_kernels),
        "conv_stride": list(encoder.conv_strides),
    }
    values |= {field.hf: getattr(encoder, field.ours) for field in _ENCODER if field.hf}
    return values | {field.hf: getattr(config, field.ours) for field in _FIELDS[family] if field.hf}


def from_fairseq(family: str, values: Mapping[str, Any], origin: str) -> Any:
    """The family's Config from fairseq's model configuration (`cfg["model"]` or `args`). Raises InputError."""
    raw, base = _Raw(values, origin), _module(family).Config()
    raw.demand("activation_fn", "gelu", default="gelu")
    raw.demand("layer_type", "transformer", default="transformer")
    raw.demand("conv_pos_batch_norm", False, default=False)
    mode = raw.demand("extractor_mode", "default", "layer_norm", default="default")
    layers = raw.values.get("conv_feature_layers")
    stem = zip(*parse_conv_layers(layers)) if layers is not None else ()
    names = ("conv_channels", "conv_kernels", "conv_strides")
    encoder = dataclasses.replace(
        base.encoder,
        conv_norm={"default": "group", "layer_norm": "layer"}[mode],
        **dict(zip(names, stem)),
        **_taken(_ENCODER, "fairseq", raw, base.encoder),
    )
    taken = _taken(_FIELDS[family], "fairseq", raw, base) | _FAIRSEQ_EXTRAS[family](raw, encoder)
    return dataclasses.replace(base, encoder=_checked(encoder, origin), **taken)


def _wav2vec2_extras(raw: _Raw, encoder: Any) -> dict[str, Any]:
    target = raw.values.get("final_dim") or encoder.width
    temperatures = raw.values.get("latent_temp") or (2.0, 0.5, 0.999995)
    if isinstance(temperatures, str):  # older checkpoints keep the tuple's text
        temperatures = [float(part) for part in temperatures.strip("()[] ").split(",")]
    names = ("gumbel_start", "gumbel_end", "gumbel_decay")
    return {
        "target_width": target,
        "codebook_width": raw.values.get("latent_dim") or target,
        **{name: float(value) for name, value in zip(names, temperatures, strict=True)},
    }


def _wav2vec2_fairseq(config: Any) -> dict[str, Any]:
    return {
        "final_dim": config.target_width,
        "latent_dim": config.codebook_width,
        "latent_temp": (config.gumbel_start, config.gumbel_end, config.gumbel_decay),
        "quantize_targets": True,
    }


_FAIRSEQ_EXTRAS = {"wav2vec2": _wav2vec2_extras}
_TO_FAIRSEQ_EXTRAS = {"wav2vec2": _wav2vec2_fairseq}


def to_fairseq(family: str, config: Any) -> dict[str, Any]:
    """fairseq's model configuration (`cfg["model"]`) that says what `config` says."""
    encoder = config.encoder
    values = {
        "_name": family,
        "extractor_mode": {"group": "default", "layer": "layer_norm"}[encoder.conv_norm],
        "activation_fn": "gelu",
        "layer_type": "transformer",
        "conv_feature_layers": format_conv_layers(encoder.conv_channels, encoder.conv_kernels, encoder.conv_strides),
    }
    values |= {field.fairseq: getattr(encoder, field.ours) for field in _ENCODER if field.fairseq}
    values |= {field.fairseq: getattr(config, field.ours) for field in _FIELDS[family] if field.fairseq}
    return values | _TO_FAIRSEQ_EXTRAS[family](config)
