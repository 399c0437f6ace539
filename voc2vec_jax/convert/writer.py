"""Writes a `reader.ModelWeights` as a folder for transformers, as a fairseq `.pt`, or as a folder in our own layout."""

import errno
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from voc2vec_jax import errors
from voc2vec_jax.convert import configs, extractors, reader, torch_files
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.ops import log_mel
from voc2vec_jax.runs import files

_CLASSES = {
    "wav2vec2": "Wav2Vec2",
    "hubert": "Hubert",
    "wavlm": "WavLM",
    "data2vec": "Data2VecAudio",
    "whisper": "Whisper",
}
_CLASSIFIERS = {"whisper": "ForAudioClassification"}  # "ForSequenceClassification" in other families
_MASK = "encoder/mask_embedding"
# Fields that say how to compute, not what; a cut context is told among what is dropped
_RUNTIME = ("dtype", "padding", "remat", "attention", "context")


def write_hf(folder: str | Path, weights: reader.ModelWeights) -> dict[str, str]:
    """Writes config.json, preprocessor_config.json, model.safetensors and README.md for transformers.

    We choose the architecture that keeps most parameters: ForSequenceClassification (Whisper: ForAudioClassification)
    for a classification head, ForPreTraining when wav2vec 2.0's quantizer and projections are complete, else the bare
    model, which Whisper does not have without its decoder. Returns what transformers cannot hold, each with the reason.
    Raises InputError for a family or an encoder that transformers does not have and for a folder with a processor's
    file that would hide the extractor, OSError when the folder cannot be written.
    """
    if weights.family not in _CLASSES:
        raise errors.InputError(f"transformers has no {weights.family}; convert it to fairseq or jax")
    if weights.head and weights.head.pooling != "mean":
        raise errors.InputError("transformers has no classification head with attentive pooling; convert it to jax")
    if weights.family == "whisper" and not weights.head:
        raise errors.InputError(
            "transformers has no Whisper encoder without a decoder or a classification head; convert it to jax, or "
            "fine-tune it first"
        )
    flat = convert_names.flatten(weights.params)
    architecture = _architecture(weights, flat)
    config = _hf_config(weights, architecture, _MASK in flat)
    dropped = _dropped(weights, flat, architecture, config)
    if getattr(weights.config.encoder, "context", "padded") != "padded":
        dropped["encoder/context"] = "it is cut, and transformers fills up every clip with silence"
    kept = convert_names.unflatten({path: array for path, array in flat.items() if path not in dropped})
    head = weights.head if "head" in kept else None
    prefixed = architecture != "Model" and weights.family != "whisper"
    arrays = reader.to_hf(weights.family, weights.config, kept, head, prefixed=prefixed)
    folder = Path(folder)
    extractors.check_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_safetensors(folder / "model.safetensors", arrays)
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", _preprocessor(weights))
    files.write_atomic(folder / "README.md", _card(weights, architecture).encode())
    return dropped


def _architecture(weights: reader.ModelWeights, flat: Mapping[str, Any]) -> str:
    if weights.head:
        return _CLASSIFIERS.get(weights.family, "ForSequenceClassification")
    entries = convert_names.table(weights.family, weights.config)
    objective = [entry.ours for entry in entries if not entry.needed and entry.hf and entry.ours != _MASK]
    return "ForPreTraining" if objective and all(path in flat for path in objective) else "Model"


def _hf_config(weights: reader.ModelWeights, architecture: str, has_mask: bool) -> dict[str, Any]:
    """The source's own config.json if it has one that still agrees with the Config, else a new one."""
    family, raw = weights.family, dict(weights.raw_config)
    kind = next(kind for kind, name in reader.HF_TYPES.items() if name == family)
    if raw.get("model_type") != kind:
        raw = {"model_type": kind, "mask_feature_prob": 0.0}
    described = "hidden_size" in raw or "d_model" in raw
    if not described or configs.from_hf(family, raw, "config.json") != weights.config:
        raw |= configs.to_hf(family, weights.config)
    raw.pop("torch_dtype", None)
    raw |= {"architectures": [_CLASSES[family] + architecture], "dtype": "float32"}
    if not has_mask and family != "whisper":  # else transformers would report the embedding as missing
        raw |= {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}
    _check_expressible("transformers", configs.from_hf(family, raw, "config.json"), weights)
    if weights.head:
        raw |= {
            "id2label": {str(i): label for i, label in enumerate(weights.labels)},
            "label2id": {label: i for i, label in enumerate(weights.labels)},
            "classifier_proj_size": weights.head.width,
            "use_weighted_layer_sum": weights.head.layer_sum,
        }
        if weights.kind != "classes" or raw.get("problem_type"):  # the source may have had a head of another kind
            raw["problem_type"] = configs.KINDS[weights.kind]
    return raw


def _check_expressible(layout: str, said: Any, weights: reader.ModelWeights) -> None:
    """Raises InputError if the written configuration would describe another encoder."""
    for field, value in vars(weights.config.encoder).items():
        if field not in _RUNTIME and getattr(said.encoder, field) != value:
            raise errors.InputError(
                f"{layout} cannot express {field}={value!r} in a {weights.family} model; convert it to jax"
            )


def _dropped(
    weights: reader.ModelWeights, flat: Mapping[str, Any], architecture: str, config: Mapping[str, Any]
) -> dict[str, str]:
    dropped = {}
    for entry in convert_names.table(weights.family, weights.config, weights.head):
        if entry.ours not in flat:
            continue
        in_encoder = entry.ours.startswith("encoder/")
        if not entry.hf:
            dropped[entry.ours] = "transformers has no place for it"
        elif entry.ours == _MASK and not (config.get("mask_time_prob", 0.05) or config.get("mask_feature_prob")):
            dropped[entry.ours] = "its config masks nothing, and transformers then has no mask embedding"
        elif not in_encoder and architecture == "Model":
            dropped[entry.ours] = "the pre-training objective is incomplete, so only the encoder is written"
        elif not in_encoder and weights.head and not entry.ours.startswith("head/"):
            dropped[entry.ours] = "transformers does not keep a pre-training objective beside a classification head"
    return dropped


def _preprocessor(weights: reader.ModelWeights) -> dict[str, Any]:
    if weights.family == "whisper":
        return _whisper_extractor(weights.config.encoder) | dict(weights.preprocessor)
    built = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": weights.config.encoder.conv_norm == "layer",
        "sampling_rate": 16000,
    }
    return built | dict(weights.preprocessor) | {"do_normalize": weights.normalizes}


def _whisper_extractor(encoder: Any) -> dict[str, Any]:
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": encoder.mel_bands,
        "sampling_rate": log_mel.RATE_HZ,
        "n_fft": log_mel.WINDOW,
        "hop_length": log_mel.HOP,
        "chunk_length": encoder.window_samples // log_mel.RATE_HZ,
        "n_samples": encoder.window_samples,
        "nb_max_frames": log_mel.frames(encoder.window_samples),
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
    }


def write_fairseq(path: str | Path, weights: reader.ModelWeights) -> dict[str, str]:
    """Writes a `.pt` in fairseq's layout (`cfg`, `model`) that torch.load(weights_only=True) can read.

    Returns the parameters that fairseq cannot hold, each with the reason. Raises InputError for an encoder that
    fairseq cannot express, OSError when the file cannot be written.
    """
    family, config = weights.family, weights.config
    if family == "whisper":
        raise errors.InputError("fairseq has no whisper; convert it to jax, or to hf once it has a classification head")
    raw = {key: value for key, value in weights.raw_config.items() if _is_plain(value)}
    if weights.source_format != "fairseq":
        raw = {}
    if not raw or configs.from_fairseq(family, raw, str(path)) != config:
        raw |= configs.to_fairseq(family, config)
        _check_expressible("fairseq", configs.from_fairseq(family, raw, str(path)), weights)
    task = {"_name": "hubert_pretraining" if family == "hubert" else "audio_pretraining"}
    cfg = {"task": {**task, "normalize": weights.normalizes, "sample_rate": 16000}, "model": raw}
    if family == "wavlm":  # WavLM's repository uses one flat configuration
        cfg = {**raw, "normalize": weights.normalizes}
    model = reader.to_fairseq(family, config, weights.params)
    extra = {"optimizer_history": [], "extra_state": {}, "last_optimizer_state": None}
    torch_files.save(path, {"args": None, "cfg": cfg, "model": model, **extra})
    entries = convert_names.table(family, config, weights.head)
    flat = convert_names.flatten(weights.params)
    return {e.ours: "fairseq has no place for it" for e in entries if e.ours in flat and not e.fairseq}


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_plain(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (str, int, float, bool))


def write_jax(folder: str | Path, weights: reader.ModelWeights) -> dict[str, str]:
    """Writes config.json, model.safetensors (our tree, names with dots) and README.md; `reader.read` reads it back."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    flat = convert_names.flatten(weights.params)
    arrays = {path.replace("/", "."): np.asarray(array, np.float32) for path, array in flat.items()}
    save_safetensors(folder / "model.safetensors", arrays)
    is_hf = "model_type" in weights.raw_config
    config = {
        "format": reader.OWN_FORMAT,
        "family": weights.family,
        "config": configs.to_dict(weights.config),
        "normalize": weights.normalize,
        "normalize_eps": weights.normalize_eps,
        "labels": list(weights.labels),
        "kind": weights.kind,
        "raw_config": dict(weights.raw_config) if is_hf else {},
        "preprocessor": dict(weights.preprocessor),
    }
    write_json(folder / "config.json", config)
    files.write_atomic(folder / "README.md", _card(weights, None).encode())
    return {}


def save_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays; the file appears under its name only when it is complete. Raises OSError."""
    dense = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in sorted(arrays.items())}
    with files.atomic_path(path) as temporary:
        try:
            safetensors.numpy.save_file(dense, temporary, metadata={"format": "pt"})
        except safetensors.SafetensorError as fault:
            raise OSError(errno.EIO, str(fault), str(path)) from fault


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes an object as sorted JSON; the file appears when it is complete. Raises OSError."""
    files.write_atomic(path, (json.dumps(values, indent=2, sort_keys=True) + "\n").encode())


def _card(weights: reader.ModelWeights, architecture: str | None) -> str:
    """The README.md of a model: what it is, how its input is treated, how it is loaded."""
    e = weights.config.encoder
    library = "transformers" if architecture else "voc2vec_jax"
    task = "audio-classification" if weights.head else "feature-extraction"
    normalize = {True: "each clip is normalised to zero mean and unit variance", False: "as it is, not normalised"}
    stated = normalize.get(weights.normalize, "the source does not say whether it is normalised")
    load = "import voc2vec_jax as v2v\nmodel = v2v.from_pretrained(FOLDER)"
    if architecture:
        name = _CLASSES[weights.family] + architecture
        load = f"import transformers\nmodel = transformers.{name}.from_pretrained(FOLDER)\n\n{load}"
    labels = f"- labels: {', '.join(weights.labels)}\n" if weights.labels else ""
    return (
        f"---\nlibrary_name: {library}\npipeline_tag: {task}\ntags:\n- audio\n- {weights.family}\n---\n\n"
        f"# {weights.family}\n\n"
        f"- {weights.parameters:,} parameters: {e.depth} blocks of width {e.width} with {e.heads} heads\n"
        f"- input: mono audio at 16 kHz; {stated}\n{labels}"
        f"- converted by voc2vec_jax from a checkpoint in the {weights.source_format} layout; "
        "the terms of that checkpoint apply\n\n"
        f"```python\n{load}\n```\n"
    )
