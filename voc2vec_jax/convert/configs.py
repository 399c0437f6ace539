"""Model configurations: transformers' `config.json` and fairseq's `cfg` or `args` -> our frozen Configs, and back."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from voc2vec_jax import errors
from voc2vec_jax.convert import conv_spec


@dataclasses.dataclass(frozen=True)
class _Raw:
    """A foreign configuration. Its values are checked when they are read."""

    values: Mapping[str, Any]
    origin: str

    def take(self, key: str, kind: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            return default
        try:
            return _CHECKS[kind](value)
        except (TypeError, ValueError) as fault:
            raise errors.InputError(f"{self.origin}: {key} is {value!r} where a {kind} is needed") from fault

    def demand(self, key: str, *allowed: Any) -> Any:
        """The value, by default the first of `allowed`. Raises InputError for one that is not in `allowed`."""
        value = self.values.get(key, allowed[0])
        if value not in allowed:
            choices = " or ".join(repr(choice) for choice in allowed)
            raise errors.InputError(f"{self.origin}: {key} is {value!r}, but only {choices} is supported")
        return value


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 < value <= conv_spec.LARGEST:
        raise ValueError(value)
    return value


def _count(value: Any) -> int:
    return 0 if value == 0 and type(value) is int else _whole(value)


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(value)
    return float(value)


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError(value)
    return value


def _wholes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)) or not 0 < len(value) <= conv_spec.MOST_LAYERS:
        raise ValueError(value)
    return tuple(_whole(item) for item in value)


def _numbers(value: Any) -> tuple[float, ...]:
    if isinstance(value, str):  # older checkpoints hold a tuple as text
        return tuple(float(part) for part in value.strip("()[] ").split(","))
    return tuple(_number(item) for item in value)


def _stem(value: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(zip(*conv_spec.parse(value)))


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "positive whole number": _whole,
    "whole number": _count,
    "number": _number,
    "boolean": _flag,
    "list of positive whole numbers": _wholes,
    "list of numbers": _numbers,
    "sum of lists of (channels, kernel, stride)": _stem,
}
_WHOLE, _COUNT, _NUMBER, _FLAG, _WHOLES, _NUMBERS, _STEM = _CHECKS


@dataclasses.dataclass(frozen=True)
class _Field:
    """One field of a Config and its names in other layouts; None: absent there, so our default applies."""

    ours: str
    fairseq: str | None
    hf: str | None
    kind: str
    hf_default: Any = None  # transformers' default where it differs from ours


_ENCODER = (
    _Field("conv_bias", "conv_bias", "conv_bias", _FLAG),
    _Field("width", "encoder_embed_dim", "hidden_size", _WHOLE),
    _Field("depth", "encoder_layers", "num_hidden_layers", _WHOLE),
    _Field("heads", "encoder_attention_heads", "num_attention_heads", _WHOLE),
    _Field("inner_width", "encoder_ffn_embed_dim", "intermediate_size", _WHOLE),
    _Field("norm_first", "layer_norm_first", "do_stable_layer_norm", _FLAG),
    _Field("positional_kernel", "conv_pos", "num_conv_pos_embeddings", _WHOLE),
    _Field("positional_groups", "conv_pos_groups", "num_conv_pos_embedding_groups", _WHOLE),
    _Field("positional_depth", "pos_conv_depth", None, _WHOLE),
    _Field("norm_eps", None, "layer_norm_eps", _NUMBER),
    _Field("dropout", "dropout", "hidden_dropout", _NUMBER),
    _Field("attention_dropout", "attention_dropout", "attention_dropout", _NUMBER),
    _Field("activation_dropout", "activation_dropout", "activation_dropout", _NUMBER, 0.1),
    _Field("input_dropout", "dropout_input", "feat_proj_dropout", _NUMBER, 0.0),
    _Field("layerdrop", "encoder_layerdrop", "layerdrop", _NUMBER, 0.1),
)
_HF_STEM = (
    _Field("conv_channels", None, "conv_dim", _WHOLES),
    _Field("conv_kernels", None, "conv_kernel", _WHOLES),
    _Field("conv_strides", None, "conv_stride", _WHOLES),
)
_DATA2VEC_HF = {  # its stack of positional convolutions has other names; every block is post-LN
    "positional_kernel": "conv_pos_kernel_size",
    "positional_depth": "num_conv_pos_embeddings",
    "norm_first": None,
}
_MASKING = (
    _Field("mask_share", "mask_prob", "mask_time_prob", _NUMBER, 0.05),
    _Field("mask_frames", "mask_length", "mask_time_length", _WHOLE),
    _Field("min_masks", None, "mask_time_min_masks", _COUNT),
)
_FIELDS: dict[str, tuple[_Field, ...]] = {
    "wav2vec2": (
        _Field("codebook_groups", "latent_groups", "num_codevector_groups", _WHOLE),
        _Field("codebook_entries", "latent_vars", "num_codevectors_per_group", _WHOLE),
        _Field("codebook_width", None, "codevector_dim", _WHOLE),
        _Field("target_width", None, "proj_codevector_dim", _WHOLE),
        _Field("quantizer_dropout", "dropout_features", "feat_quantizer_dropout", _NUMBER, 0.0),
        _Field("feature_gradient_scale", "feature_grad_mult", None, _NUMBER),
        _Field("negatives", "num_negatives", "num_negatives", _WHOLE),
        _Field("logit_temperature", "logit_temp", "contrastive_logits_temperature", _NUMBER),
        _Field("diversity_weight", None, "diversity_loss_weight", _NUMBER),
        *_MASKING,
    ),
    "hubert": (
        _Field("label_rate_hz", "label_rate", None, _NUMBER),
        _Field("feature_gradient_scale", "feature_grad_mult", None, _NUMBER),
        _Field("logit_temperature", "logit_temp", None, _NUMBER),
        *_MASKING,
    ),
    "wavlm": (
        _Field("relative_buckets", "num_buckets", "num_buckets", _WHOLE),
        _Field("relative_distance", "max_distance", "max_bucket_distance", _WHOLE),
        *_MASKING,
    ),
    "data2vec": _MASKING,
    "emotion2vec": (_Field("extra_tokens", "num_extra_tokens", None, _WHOLE),),
}
_EMOTION2VEC = {  # fairseq's usual name -> data2vec 2.0's
    "encoder_embed_dim": "embed_dim",
    "encoder_attention_heads": "num_heads",
    "dropout": "encoder_dropout",
    "encoder_layerdrop": "layerdrop",
}
_EMOTION2VEC_AUDIO = {
    "conv_feature_layers": "feature_encoder_spec",
    "conv_pos": "conv_pos_width",
    "pos_conv_depth": "conv_pos_depth",
}


def _default(family: str) -> Any:
    return importlib.import_module(f"voc2vec_jax.models.{family}").Config()


def _hf_encoder(family: str) -> tuple[_Field, ...]:
    renamed = _DATA2VEC_HF if family == "data2vec" else {}
    return tuple(dataclasses.replace(f, hf=renamed.get(f.ours, f.hf)) for f in (*_ENCODER, *_HF_STEM))


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
    for parts, name in ((encoder.heads, "attention heads"), (encoder.positional_groups, "positional groups")):
        if encoder.width % parts:
            raise errors.InputError(f"{origin}: width {encoder.width} is not divisible by {parts} {name}")
    return encoder


def from_hf(family: str, values: Mapping[str, Any], origin: str) -> Any:
    """The family's Config from the contents of a transformers `config.json`. Raises InputError."""
    raw, base = _Raw(values, origin), _default(family)
    raw.demand("hidden_act", "gelu")
    raw.demand("feat_extract_activation", "gelu")
    raw.demand("add_adapter", False, None)
    raw.demand("adapter_attn_dim", None)
    raw.demand("conv_pos_batch_norm", False)
    raw.demand("feat_proj_layer_norm", True)
    norm = "layer" if family == "data2vec" else raw.demand("feat_extract_norm", "group", "layer")
    taken = _taken(_hf_encoder(family), "hf", raw, base.encoder)
    if family == "data2vec" and taken["positional_depth"] == 1:
        raise errors.InputError(f"{origin}: num_conv_pos_embeddings is 1, but a data2vec stack needs at least 2")
    encoder = _checked(dataclasses.replace(base.encoder, conv_norm=norm, **taken), origin)
    return dataclasses.replace(base, encoder=encoder, **_taken(_FIELDS[family], "hf", raw, base))


def to_hf(family: str, config: Any) -> dict[str, Any]:
    """The fields of transformers' `config.json` that describe `config`."""
    values = {"hidden_act": "gelu", "feat_extract_activation": "gelu"}
    if family != "data2vec":
        values["feat_extract_norm"] = config.encoder.conv_norm
    for fields, owner in ((_hf_encoder(family), config.encoder), (_FIELDS[family], config)):
        values |= {f.hf: _json(getattr(owner, f.ours)) for f in fields if f.hf}
    return values


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def from_fairseq(family: str, values: Mapping[str, Any], origin: str) -> Any:
    """The family's Config from fairseq's model configuration (`cfg["model"]` or `args`). Raises InputError."""
    base = _default(family)
    if family == "emotion2vec":
        values = _flat_emotion2vec(values, origin)
    raw = _Raw(values, origin)
    raw.demand("activation_fn", "gelu")
    raw.demand("layer_type", "transformer")
    raw.demand("conv_pos_batch_norm", False)
    raw.demand("pos_enc_type", "abs", "")
    mode = raw.demand("extractor_mode", "default", "layer_norm")
    taken = _taken(_ENCODER, "fairseq", raw, base.encoder)
    if taken["positional_depth"] > 1:
        taken["positional_kernel"] = max(3, taken["positional_kernel"] // taken["positional_depth"])
    taken["norm_eps"] = raw.take("norm_eps", _NUMBER, base.encoder.norm_eps)
    e = base.encoder
    stem = raw.take("conv_feature_layers", _STEM, (e.conv_channels, e.conv_kernels, e.conv_strides))
    encoder = dataclasses.replace(
        e,
        conv_norm={"default": "group", "layer_norm": "layer"}[mode],
        **dict(zip(("conv_channels", "conv_kernels", "conv_strides"), stem)),
        **taken,
    )
    extras = _EXTRAS.get(family, lambda raw, encoder: {})(raw, encoder)
    own = _taken(_FIELDS[family], "fairseq", raw, base) | extras
    return dataclasses.replace(base, encoder=_checked(encoder, origin), **own)


def _wav2vec2_extras(raw: _Raw, encoder: Any) -> dict[str, Any]:
    target = raw.values.get("final_dim") or encoder.width
    names = ("gumbel_start", "gumbel_end", "gumbel_decay")
    temperatures = raw.take("latent_temp", _NUMBERS, (2.0, 0.5, 0.999995))
    return {
        "target_width": target,
        "codebook_width": raw.values.get("latent_dim") or target,
        **dict(zip(names, temperatures)),
    }


def _wavlm_extras(raw: _Raw, encoder: Any) -> dict[str, Any]:
    raw.demand("relative_position_embedding", True)
    raw.demand("gru_rel_pos", True)
    return {}


_EXTRAS = {
    "wav2vec2": _wav2vec2_extras,
    "hubert": lambda raw, encoder: {"target_width": raw.values.get("final_dim") or encoder.width},
    "wavlm": _wavlm_extras,
    "emotion2vec": lambda raw, encoder: {"prenet_depth": raw.values["prenet_depth"]},
}


def _flat_emotion2vec(values: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """data2vec 2.0's nested configuration, flattened to the names of the other families."""
    modalities = values.get("modalities")
    audio = modalities.get("audio") if isinstance(modalities, Mapping) else None
    if not isinstance(audio, Mapping):
        raise errors.InputError(f"{origin}: its configuration has no modalities.audio, so it is not emotion2vec")
    raw = _Raw({**values, **{f"audio.{key}": value for key, value in audio.items()}}, origin)
    raw.demand("audio.use_alibi_encoder", True)
    raw.demand("audio.learned_alibi_scale", True)
    raw.demand("audio.learned_alibi_scale_per_head", True)
    raw.demand("audio.learned_alibi_scale_per_layer", False)
    raw.demand("audio.learned_alibi", False)
    raw.demand("audio.conv_pos_pre_ln", False)
    raw.demand("norm_affine", True)
    prenet, depth = (raw.take(key, _WHOLE, 4 + 4 * at) for at, key in enumerate(("audio.prenet_depth", "depth")))
    width = raw.take("embed_dim", _WHOLE, 768)
    flat = {ours: values.get(theirs) for ours, theirs in _EMOTION2VEC.items()}
    flat |= {ours: audio.get(theirs) for ours, theirs in _EMOTION2VEC_AUDIO.items()}
    kept = ("extractor_mode", "num_extra_tokens", "conv_pos_groups")
    flat |= {key: audio[key] for key in kept if key in audio}
    kept = ("attention_dropout", "activation_dropout", "dropout_input", "layer_norm_first")
    flat |= {key: values[key] for key in kept if key in values}
    flat["norm_eps"] = values.get("norm_eps", 1e-6)
    inner = int(width * raw.take("mlp_ratio", _NUMBER, 4.0))
    return flat | {"encoder_layers": prenet + depth, "prenet_depth": prenet, "encoder_ffn_embed_dim": inner}


def to_fairseq(family: str, config: Any) -> dict[str, Any]:
    """fairseq's model configuration (`cfg["model"]`) that says what `config` says."""
    e = config.encoder
    values = {
        "_name": {"data2vec": "data2vec_audio", "emotion2vec": "data2vec_multi"}.get(family, family),
        "extractor_mode": {"group": "default", "layer": "layer_norm"}[e.conv_norm],
        "activation_fn": "gelu",
        "conv_feature_layers": conv_spec.text(e.conv_channels, e.conv_kernels, e.conv_strides),
    }
    for fields, owner in ((_ENCODER, e), (_FIELDS[family], config)):
        values |= {f.fairseq: getattr(owner, f.ours) for f in fields if f.fairseq}
    values["conv_pos"] *= e.positional_depth
    if family == "wav2vec2":
        temperatures = (config.gumbel_start, config.gumbel_end, config.gumbel_decay)
        values |= {"quantize_targets": True, "latent_temp": temperatures, "latent_dim": config.codebook_width}
    if family in ("wav2vec2", "hubert"):
        values["final_dim"] = config.target_width
    if family == "hubert":
        values["untie_final_proj"] = True
    if family == "wavlm":
        values |= {"relative_position_embedding": True, "gru_rel_pos": True}
    return _nested_emotion2vec(values, config) if family == "emotion2vec" else values


def _nested_emotion2vec(flat: dict[str, Any], config: Any) -> dict[str, Any]:
    """The inverse of `_flat_emotion2vec`."""
    alibi = dict.fromkeys(("use_alibi_encoder", "learned_alibi_scale", "learned_alibi_scale_per_head"), True)
    audio = {"type": "AUDIO", "prenet_depth": config.prenet_depth, "num_alibi_heads": config.encoder.heads, **alibi}
    audio |= {key: flat[key] for key in ("extractor_mode", "num_extra_tokens", "conv_pos_groups")}
    audio |= {theirs: flat[ours] for ours, theirs in _EMOTION2VEC_AUDIO.items()}
    values = {theirs: flat[ours] for ours, theirs in _EMOTION2VEC.items()}
    kept = ("_name", "attention_dropout", "activation_dropout", "dropout_input", "layer_norm_first")
    values |= {key: flat[key] for key in kept}
    values |= {
        "depth": config.encoder.depth - config.prenet_depth,
        "mlp_ratio": config.encoder.inner_width / config.encoder.width,
        "norm_eps": config.encoder.norm_eps,
        "norm_affine": True,
    }
    return values | {"modalities": {"_name": None, "audio": audio}}


def to_dict(config: Any) -> dict[str, Any]:
    """A Config as plain values for JSON."""
    return {key: _json(value) if key != "encoder" else to_dict(config.encoder) for key, value in _items(config)}


def _items(config: Any) -> list[tuple[str, Any]]:
    return [(field.name, getattr(config, field.name)) for field in dataclasses.fields(config)]


def from_dict(family: str, values: Mapping[str, Any], origin: str) -> Any:
    """The inverse of `to_dict`; raises InputError for a field that is unknown or of another type."""
    base = _default(family)
    encoder = values.get("encoder", {})
    plain = {key: value for key, value in values.items() if key != "encoder"}
    if not isinstance(encoder, Mapping):
        raise errors.InputError(f"{origin}: encoder is {encoder!r} where an object is needed")
    return _replaced(base, {**plain, "encoder": _checked(_replaced(base.encoder, encoder, origin), origin)}, origin)


def _replaced(base: Any, values: Mapping[str, Any], origin: str) -> Any:
    known = dict(_items(base))
    changes = {}
    for key, value in values.items():
        value = tuple(value) if isinstance(value, list) else value
        if key not in known or type(value) not in (type(known[key]), *([int] if type(known[key]) is float else [])):
            raise errors.InputError(f"{origin}: {key}={value!r} is not a field of {type(base).__qualname__}")
        changes[key] = float(value) if type(known[key]) is float else value
    return dataclasses.replace(base, **changes)
