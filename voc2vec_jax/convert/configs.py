"""Model configurations: transformers' `config.json` and fairseq's `cfg` or `args` -> our frozen Configs, and back."""

import dataclasses
import importlib
import math
from collections.abc import Mapping
from typing import Any

from voc2vec_jax import errors, printable
from voc2vec_jax.convert import conv_spec, fields, limits

_ENCODER = (
    fields.Field("conv_bias", "conv_bias", "conv_bias", fields.FLAG),
    fields.Field("width", "encoder_embed_dim", "hidden_size", fields.WHOLE),
    fields.Field("depth", "encoder_layers", "num_hidden_layers", fields.WHOLE),
    fields.Field("heads", "encoder_attention_heads", "num_attention_heads", fields.WHOLE),
    fields.Field("inner_width", "encoder_ffn_embed_dim", "intermediate_size", fields.WHOLE),
    fields.Field("norm_first", "layer_norm_first", "do_stable_layer_norm", fields.FLAG),
    fields.Field("positional_kernel", "conv_pos", "num_conv_pos_embeddings", fields.WHOLE),
    fields.Field("positional_groups", "conv_pos_groups", "num_conv_pos_embedding_groups", fields.WHOLE),
    fields.Field("positional_depth", "pos_conv_depth", None, fields.WHOLE),
    fields.Field("norm_eps", None, "layer_norm_eps", fields.NUMBER),
    fields.Field("dropout", "dropout", "hidden_dropout", fields.NUMBER),
    fields.Field("attention_dropout", "attention_dropout", "attention_dropout", fields.NUMBER),
    fields.Field("activation_dropout", "activation_dropout", "activation_dropout", fields.NUMBER, 0.1),
    fields.Field("input_dropout", "dropout_input", "feat_proj_dropout", fields.NUMBER, 0.0),
    fields.Field("layerdrop", "encoder_layerdrop", "layerdrop", fields.NUMBER, 0.1),
)
_HF_STEM = (
    fields.Field("conv_channels", None, "conv_dim", fields.WHOLES),
    fields.Field("conv_kernels", None, "conv_kernel", fields.WHOLES),
    fields.Field("conv_strides", None, "conv_stride", fields.WHOLES),
)
_HUBERT_HF = (fields.Field("feature_norm", None, "feat_proj_layer_norm", fields.FLAG),)
_WHISPER_HF = (
    fields.Field("mel_bands", None, "num_mel_bins", fields.WHOLE),
    fields.Field("positions", None, "max_source_positions", fields.WHOLE),
    fields.Field("width", None, "d_model", fields.WHOLE),
    fields.Field("depth", None, "encoder_layers", fields.WHOLE),
    fields.Field("heads", None, "encoder_attention_heads", fields.WHOLE),
    fields.Field("inner_width", None, "encoder_ffn_dim", fields.WHOLE),
    fields.Field("dropout", None, "dropout", fields.NUMBER),
    fields.Field("attention_dropout", None, "attention_dropout", fields.NUMBER),
    fields.Field("activation_dropout", None, "activation_dropout", fields.NUMBER),
    fields.Field("layerdrop", None, "encoder_layerdrop", fields.NUMBER),
)
_DATA2VEC_HF = {  # its stack of positional convolutions has other names; every block is post-LN
    "positional_kernel": "conv_pos_kernel_size",
    "positional_depth": "num_conv_pos_embeddings",
    "norm_first": None,
}
_MASKING = (
    fields.Field("mask_share", "mask_prob", "mask_time_prob", fields.NUMBER, 0.05),
    fields.Field("mask_frames", "mask_length", "mask_time_length", fields.WHOLE),
    fields.Field("min_masks", None, "mask_time_min_masks", fields.COUNT),
)
_FIELDS: dict[str, tuple[fields.Field, ...]] = {
    "wav2vec2": (
        fields.Field("codebook_groups", "latent_groups", "num_codevector_groups", fields.WHOLE),
        fields.Field("codebook_entries", "latent_vars", "num_codevectors_per_group", fields.WHOLE),
        fields.Field("codebook_width", None, "codevector_dim", fields.WHOLE),
        fields.Field("target_width", None, "proj_codevector_dim", fields.WHOLE),
        fields.Field("quantizer_dropout", "dropout_features", "feat_quantizer_dropout", fields.NUMBER, 0.0),
        fields.Field("feature_gradient_scale", "feature_grad_mult", None, fields.NUMBER),
        fields.Field("negatives", "num_negatives", "num_negatives", fields.WHOLE),
        fields.Field("logit_temperature", "logit_temp", "contrastive_logits_temperature", fields.NUMBER),
        fields.Field("diversity_weight", None, "diversity_loss_weight", fields.NUMBER),
        *_MASKING,
    ),
    "hubert": (
        fields.Field("label_rate_hz", "label_rate", None, fields.NUMBER),
        fields.Field("feature_gradient_scale", "feature_grad_mult", None, fields.NUMBER),
        fields.Field("logit_temperature", "logit_temp", None, fields.NUMBER),
        *_MASKING,
    ),
    "wavlm": (
        fields.Field("relative_buckets", "num_buckets", "num_buckets", fields.WHOLE),
        fields.Field("relative_distance", "max_distance", "max_bucket_distance", fields.WHOLE),
        *_MASKING,
    ),
    "data2vec": _MASKING,
    "whisper": (),
    "emotion2vec": (fields.Field("extra_tokens", "num_extra_tokens", None, fields.WHOLE),),
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
# What the outputs of a head say, and transformers' `problem_type` for it.
KINDS = {
    "classes": "single_label_classification",
    "multilabel": "multi_label_classification",
    "regression": "regression",
}


def _default(family: str) -> Any:
    return importlib.import_module(f"voc2vec_jax.models.{family}").Config()


def _hf_encoder(family: str) -> tuple[fields.Field, ...]:
    if family == "whisper":
        return _WHISPER_HF
    renamed = _DATA2VEC_HF if family == "data2vec" else {}
    own = _HUBERT_HF if family == "hubert" else ()
    return tuple(dataclasses.replace(f, hf=renamed.get(f.ours, f.hf)) for f in (*_ENCODER, *_HF_STEM, *own))


def from_hf(family: str, values: Mapping[str, Any], origin: str) -> Any:
    """The family's Config from the contents of a transformers `config.json`. Raises InputError."""
    raw, base = fields.Raw(values, origin), _default(family)
    if family == "whisper":
        raw.demand("activation_function", "gelu")
        taken = fields.taken(_WHISPER_HF, "hf", raw, base.encoder)
        config = dataclasses.replace(base, encoder=dataclasses.replace(base.encoder, **taken))
        return limits.check(family, config, origin)
    raw.demand("hidden_act", "gelu")
    raw.demand("feat_extract_activation", "gelu")
    raw.demand("add_adapter", False, None)
    raw.demand("adapter_attn_dim", None, remedy="take a model without adapters of languages, such as facebook/mms-1b")
    raw.demand("conv_pos_batch_norm", False)
    if family != "hubert":
        raw.demand("feat_proj_layer_norm", True)
    norm = "layer" if family == "data2vec" else raw.demand("feat_extract_norm", "group", "layer")
    taken = fields.taken(_hf_encoder(family), "hf", raw, base.encoder)
    if family == "data2vec" and taken["positional_depth"] == 1:
        raise errors.InputError(f"{origin}: num_conv_pos_embeddings is 1, but a data2vec stack needs at least 2")
    encoder = dataclasses.replace(base.encoder, conv_norm=norm, **taken)
    config = dataclasses.replace(base, encoder=encoder, **fields.taken(_FIELDS[family], "hf", raw, base))
    return limits.check(family, config, origin)


def to_hf(family: str, config: Any) -> dict[str, Any]:
    """The fields of transformers' `config.json` that describe `config`."""
    values = {"activation_function": "gelu"}
    if family != "whisper":
        values = {"hidden_act": "gelu", "feat_extract_activation": "gelu"}
    if family not in ("data2vec", "whisper"):
        values["feat_extract_norm"] = config.encoder.conv_norm
    for found, owner in ((_hf_encoder(family), config.encoder), (_FIELDS[family], config)):
        values |= {f.hf: _json(getattr(owner, f.ours)) for f in found if f.hf}
    return values


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def from_fairseq(family: str, values: Mapping[str, Any], origin: str) -> Any:
    """The family's Config from fairseq's model configuration (`cfg["model"]` or `args`). Raises InputError."""
    base = _default(family)
    if family == "emotion2vec":
        values = _flat_emotion2vec(values, origin)
    raw = fields.Raw(values, origin)
    raw.demand("activation_fn", "gelu")
    raw.demand("layer_type", "transformer")
    raw.demand("conv_pos_batch_norm", False)
    raw.demand("pos_enc_type", "abs", "")
    mode = raw.demand("extractor_mode", "default", "layer_norm")
    taken = fields.taken(_ENCODER, "fairseq", raw, base.encoder)
    if taken["positional_depth"] > 1:
        taken["positional_kernel"] = max(3, taken["positional_kernel"] // taken["positional_depth"])
    taken["norm_eps"] = raw.take("norm_eps", fields.NUMBER, base.encoder.norm_eps)
    e = base.encoder
    stem = raw.take("conv_feature_layers", fields.STEM, (e.conv_channels, e.conv_kernels, e.conv_strides))
    encoder = dataclasses.replace(
        e,
        conv_norm={"default": "group", "layer_norm": "layer"}[mode],
        **dict(zip(("conv_channels", "conv_kernels", "conv_strides"), stem)),
        **taken,
    )
    extras = _EXTRAS.get(family, lambda raw, encoder: {})(raw, encoder)
    own = fields.taken(_FIELDS[family], "fairseq", raw, base) | extras
    return limits.check(family, dataclasses.replace(base, encoder=encoder, **own), origin)


def _wav2vec2_extras(raw: fields.Raw, encoder: Any) -> dict[str, Any]:
    target = raw.take("final_dim", fields.COUNT, 0) or encoder.width
    names = ("gumbel_start", "gumbel_end", "gumbel_decay")
    temperatures = raw.take("latent_temp", fields.THREE_NUMBERS, (2.0, 0.5, 0.999995))
    return {
        "target_width": target,
        "codebook_width": raw.take("latent_dim", fields.COUNT, 0) or target,
        **dict(zip(names, temperatures)),
    }


def _wavlm_extras(raw: fields.Raw, encoder: Any) -> dict[str, Any]:
    raw.demand("relative_position_embedding", True)
    raw.demand("gru_rel_pos", True)
    return {}


_EXTRAS = {
    "wav2vec2": _wav2vec2_extras,
    "hubert": lambda raw, encoder: {"target_width": raw.take("final_dim", fields.COUNT, 0) or encoder.width},
    "wavlm": _wavlm_extras,
    "emotion2vec": lambda raw, encoder: {"prenet_depth": raw.values["prenet_depth"]},
}


def _flat_emotion2vec(values: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """data2vec 2.0's nested configuration, flattened to the names of the other families."""
    modalities = values.get("modalities")
    audio = modalities.get("audio") if isinstance(modalities, Mapping) else None
    if not isinstance(audio, Mapping):
        raise errors.InputError(f"{origin}: its configuration has no modalities.audio, so it is not emotion2vec")
    raw = fields.Raw({**values, **{f"audio.{key}": value for key, value in audio.items()}}, origin)
    raw.demand("audio.use_alibi_encoder", True)
    raw.demand("audio.learned_alibi_scale", True)
    raw.demand("audio.learned_alibi_scale_per_head", True)
    raw.demand("audio.learned_alibi_scale_per_layer", False)
    raw.demand("audio.learned_alibi", False)
    raw.demand("audio.conv_pos_pre_ln", False)
    raw.demand("norm_affine", True)
    prenet, depth = (raw.take(key, fields.WHOLE, 4 + 4 * at) for at, key in enumerate(("audio.prenet_depth", "depth")))
    width = raw.take("embed_dim", fields.WHOLE, 768)
    flat = {ours: values.get(theirs) for ours, theirs in _EMOTION2VEC.items()}
    flat |= {ours: audio.get(theirs) for ours, theirs in _EMOTION2VEC_AUDIO.items()}
    kept = ("extractor_mode", "num_extra_tokens", "conv_pos_groups")
    flat |= {key: audio[key] for key in kept if key in audio}
    kept = ("attention_dropout", "activation_dropout", "dropout_input", "layer_norm_first")
    flat |= {key: values[key] for key in kept if key in values}
    flat["norm_eps"] = values.get("norm_eps", 1e-6)
    inner = int(width * raw.take("mlp_ratio", fields.RATIO, 4.0))
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
    for found, owner in ((_ENCODER, e), (_FIELDS[family], config)):
        values |= {f.fairseq: getattr(owner, f.ours) for f in found if f.fairseq}
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
        raise errors.InputError(f"{origin}: encoder is {printable.value(encoder)} where an object is needed")
    if encoder.get("attention") == "own":  # the name of "auto" in version 0.1.0
        encoder = {**encoder, "attention": "auto"}
    encoder = _replaced(base.encoder, encoder, origin)
    return limits.check(family, _replaced(base, {**plain, "encoder": encoder}, origin), origin)


def _replaced(base: Any, values: Mapping[str, Any], origin: str) -> Any:
    known = dict(_items(base))
    changes = {}
    for key, value in values.items():
        value = tuple(value) if isinstance(value, list) else value
        kinds = (type(known.get(key)), *([int] if type(known.get(key)) is float else []))
        whole = not isinstance(value, tuple) or all(type(item) is int for item in value)
        if key not in known or type(value) not in kinds or not whole:
            raise errors.InputError(
                f"{origin}: {printable.name(key)}={printable.value(value)} is not a field of {type(base).__qualname__}"
            )
        changes[key] = _as_float(value) if type(known[key]) is float else value
    return dataclasses.replace(base, **changes)


def _as_float(value: int | float) -> float:
    """The number as a float; infinite if it is larger than any."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def kind_of(raw: Mapping[str, Any], origin: str) -> str:
    """What a head's outputs say by transformers' config.json; InputError for a `problem_type` that there is not."""
    told = raw.get("problem_type")
    if told is not None and told not in KINDS.values():
        told = printable.value(told)
        raise errors.InputError(f"{origin}: problem_type {told} is none of {', '.join(KINDS.values())}")
    return next((kind for kind, theirs in KINDS.items() if theirs == told), "classes")


def checked_kind(said: Mapping[str, Any], origin: str) -> str:
    """What a head's outputs say by our own config.json; InputError for a kind that there is not."""
    kind = said.get("kind", "classes")
    if not isinstance(kind, str) or kind not in KINDS:
        raise errors.InputError(f"{origin}: kind {printable.value(kind)} is none of {', '.join(KINDS)}")
    return kind
