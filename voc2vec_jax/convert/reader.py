"""Reads PyTorch checkpoints of the supported families into our configuration and parameters, without PyTorch.

`read` detects what a source is. `to_fairseq` and `to_hf` map names and arrays back; `writer` puts them into files.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from voc2vec_jax import errors
from voc2vec_jax.convert import configs, entries, fields, torch_files, torch_pickle
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.models import heads
from voc2vec_jax.ops import log_mel

OWN_FORMAT = "voc2vec_jax"
HF_TYPES = {
    "wav2vec2": "wav2vec2",
    "hubert": "hubert",
    "wavlm": "wavlm",
    "data2vec-audio": "data2vec",
    "whisper": "whisper",
}
_FAIRSEQ_NAMES = {
    "wav2vec2": "wav2vec2",
    "hubert": "hubert",
    "wavlm": "wavlm",
    "data2vec_audio": "data2vec",
    "data2vec_multi": "emotion2vec",
}
_FINE_TUNED = "w2v_encoder.w2v_model."  # fairseq's prefix of the pre-trained part of a recogniser
# Added to the variance of a clip that is normalised, by the programs that trained a checkpoint
TRANSFORMERS_EPS, FAIRSEQ_EPS = 1e-7, 1e-5
# The same by a pre-training recipe's `normalize`; None: the audio as it is
NORMALIZE_EPS = {"none": None, "clip": TRANSFORMERS_EPS, "clip_fairseq": FAIRSEQ_EPS}
_MOST_SHARING = 4  # how often a file's bytes may be used, on average
_DTYPES = {"BF16": ml_dtypes.bfloat16, "F16": "f2", "F32": "f4", "F64": "f8", "I64": "i8", "I32": "i4", "BOOL": "?"}


@dataclasses.dataclass(frozen=True)
class ModelWeights:
    """A model in our names and shapes, and what its source says about it."""

    family: str
    config: Any  # models.<family>.Config
    params: Mapping[str, Any]  # our tree, float32
    missing: tuple[str, ...] = ()  # our parameters that the source lacks, such as a quantizer's
    unused: Mapping[str, str] = dataclasses.field(default_factory=dict)  # tensor of the source -> why we leave it out
    normalize: bool | None = None  # clips to zero mean, unit variance; None: the source does not say
    normalize_eps: float | None = None  # added to the variance; None: that of the program whose checkpoint it is
    labels: tuple[str, ...] = ()  # of the classification head's outputs, in order
    kind: str = "classes"  # what the head's outputs say: one of `configs.KINDS`
    source_format: str = "jax"  # "hf" | "fairseq" | "jax"
    raw_config: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # the source's own configuration
    preprocessor: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # transformers' preprocessor_config.json
    mapped: int = 0  # number of the source's tensors that we use

    @property
    def head(self) -> heads.Config | None:
        """The configuration of the classification head, None without one."""
        head = self.params.get("head")
        if head is None:
            return None
        width, classes = np.shape(head["classifier"]["kernel"])
        return heads.Config.of(width, classes, head)

    @property
    def normalizes(self) -> bool:
        """`normalize`, or transformers' default if the source does not say."""
        return True if self.normalize is None else self.normalize

    @property
    def eps(self) -> float:
        """Added to the variance of a clip when it is normalised."""
        if self.normalize_eps is not None:
            return self.normalize_eps
        return TRANSFORMERS_EPS if "model_type" in self.raw_config else FAIRSEQ_EPS

    def in_context(self, context: str) -> "ModelWeights":
        """The same weights in one of `whisper.CONTEXTS`; "auto" changes nothing. InputError for other families."""
        if context == "auto":
            return self
        if self.family != "whisper":
            raise errors.InputError(f"context {context!r} is a choice for Whisper, and this is {self.family}: leave it")
        encoder = dataclasses.replace(self.config.encoder, context=context)
        return dataclasses.replace(self, config=dataclasses.replace(self.config, encoder=encoder))

    @property
    def feature_mask_share(self) -> float:
        """The share of channels whose spans the source's training hides: transformers' `mask_feature_prob`, fairseq's
        `mask_channel_prob`. Training here has no such masks."""
        if not self.raw_config.get("apply_spec_augment", self.family != "whisper"):
            return 0.0
        name = "mask_feature_prob" if "model_type" in self.raw_config else "mask_channel_prob"
        share = self.raw_config.get(name)
        return float(share) if isinstance(share, int | float) else 0.0

    @property
    def parameters(self) -> int:
        return sum(int(np.size(array)) for array in convert_names.flatten(self.params).values())


@dataclasses.dataclass(frozen=True)
class _SafeTensor:
    shape: tuple[int, ...]
    dtype: np.dtype
    handle: Any
    name: str

    def read(self) -> np.ndarray:
        return self.handle.get_tensor(self.name)


@dataclasses.dataclass(frozen=True)
class _Source:
    """Stored tensors, named as the tables of `names` spell them, and their origin."""

    tensors: Mapping[str, Any]
    spelt: Mapping[str, str]  # the tables' spelling -> the file's
    layout: str
    prefix: str
    origin: str


def read(source: str | Path) -> ModelWeights:
    """Reads a folder of transformers or of `writer.write_jax`, a `.safetensors` or `.bin` file beside its config.json,
    or a fairseq `.pt`.

    Every tensor of the source is used or listed in `unused` with the reason. Every parameter is filled or listed in
    `missing`. Raises InputError, in one sentence, for anything else.
    """
    source = Path(source)
    if source.is_dir():
        return _read_folder(source, None)
    if not source.exists():
        raise errors.InputError(f"{source} does not exist; give a folder of transformers or a checkpoint file")
    if source.suffix == ".safetensors" or (source.suffix == ".bin" and source.with_name("config.json").exists()):
        return _read_folder(source.parent, [source])
    return _read_fairseq(source)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises InputError."""
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise errors.InputError(f"{path.parent} has no {path.name}; put the model's own beside its weights") from None
    except (OSError, ValueError, RecursionError) as fault:
        raise errors.InputError(f"{path} is not readable JSON: {fault}") from fault
    if not isinstance(values, dict):
        raise errors.InputError(f"{path} holds a {type(values).__name__} where an object is needed")
    return values


def _weight_files(folder: Path) -> list[Path]:
    """A folder's weight files. Shards that an index names must lie in the folder itself."""
    for single in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{single}.index.json"
        if (folder / single).exists():
            return [folder / single]
        if index.exists():
            shards = read_json(index).get("weight_map")
            names = {str(name) for name in shards.values()} if isinstance(shards, dict) else {"weight_map"}
            for name in sorted(names):
                if Path(name).name != name or not (folder / name).is_file():
                    raise errors.InputError(f"{index} names the shard {name!r}, which does not lie beside it")
            return [folder / name for name in sorted(names)]
    raise errors.InputError(f"{folder} has neither model.safetensors nor pytorch_model.bin, whole or sharded")


def _open_weights(path: Path) -> dict[str, Any]:
    """Name -> tensor, read on demand."""
    if path.suffix != ".safetensors":
        tree = torch_files.load(path)
        nested = tree.get("state_dict", tree) if isinstance(tree, dict) else tree
        return _only_tensors(nested, path)
    try:
        handle = safetensors.safe_open(path, framework="np")
        parts = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118, not a dict
    except (safetensors.SafetensorError, OSError) as fault:
        raise errors.InputError(f"{path} is not a complete safetensors file ({fault}); fetch it again") from fault
    return {
        name: _SafeTensor(tuple(part.get_shape()), np.dtype(_DTYPES.get(part.get_dtype(), object)), handle, name)
        for name, part in parts.items()
    }


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Name -> array of a file of weights. Raises InputError."""
    return {name: tensor.read() for name, tensor in _open_weights(path).items()}


def _only_tensors(tree: Any, path: Path) -> dict[str, torch_pickle.Tensor]:
    if not isinstance(tree, dict) or not tree:
        raise errors.InputError(f"{path} holds no named tensors")
    for name, tensor in tree.items():
        if not isinstance(name, str) or not isinstance(tensor, torch_pickle.Tensor):
            raise errors.InputError(f"{path}: {name!r} is a {type(tensor).__name__} where a tensor is needed")
    needed = sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in tree.values())
    if needed > _MOST_SHARING * path.stat().st_size:
        raise errors.InputError(f"{path}: its tensors share their storages so often that they need {needed} bytes")
    return tree


def _source(tensors: Mapping[str, Any], layout: str, prefix: str, origin: str) -> _Source:
    spelt = {entries.spell(name, layout): name for name in tensors}
    if len(spelt) < len(tensors):
        twice = next(name for name in tensors if spelt[entries.spell(name, layout)] != name)
        raise errors.InputError(f"{origin} has the tensor {twice} under two spellings of its name; keep one")
    prefix = prefix if any(name.startswith(prefix) for name in spelt) else ""
    return _Source({name: tensors[own] for name, own in spelt.items()}, spelt, layout, prefix, origin)


def _read_folder(folder: Path, files: list[Path] | None) -> ModelWeights:
    raw = read_json(folder / "config.json")
    tensors: dict[str, Any] = {}
    if raw.get("format") == OWN_FORMAT:
        return _read_own(folder, raw, files)
    kind = raw.get("model_type")
    if kind not in HF_TYPES:
        known = ", ".join(HF_TYPES)
        raise errors.InputError(f"{folder / 'config.json'}: model_type is {kind!r}, but only {known} are supported")
    family = HF_TYPES[kind]
    config = configs.from_hf(family, raw, str(folder / "config.json"))
    for file in files or _weight_files(folder):
        opened = _open_weights(file)
        if twice := opened.keys() & tensors.keys():
            raise errors.InputError(f"{folder} has the tensor {min(twice)} in two of its shards; fetch it again")
        tensors |= opened
    _check_family(family, tensors, folder)
    source = _source(tensors, "hf", f"{convert_names.HF_PREFIXES[family]}.", str(folder))
    head = _find_head(source)
    preprocessor = folder / "preprocessor_config.json"
    preprocessor = read_json(preprocessor) if preprocessor.exists() else {}
    normalize = bool(preprocessor.get("do_normalize", True)) if preprocessor else None
    if family == "whisper":
        _check_extractor(config, preprocessor, folder)
        normalize = False
    return dataclasses.replace(
        _filled(family, config, source, head),
        normalize=normalize,
        labels=_labels(raw, head, folder) if head else (),
        kind=next(
            (kind for kind, theirs in configs.KINDS.items() if head and raw.get("problem_type") == theirs), "classes"
        ),
        raw_config=raw,
        preprocessor=preprocessor,
    )


def _check_family(family: str, tensors: Mapping[str, Any], folder: Path) -> None:
    for other, prefix in convert_names.HF_PREFIXES.items():
        if other != family and any(name.startswith(f"{prefix}.") for name in tensors):
            raise errors.InputError(f"{folder} holds the tensors of a {other} model, but its config.json says {family}")


def _check_extractor(config: Any, preprocessor: Mapping[str, Any], folder: Path) -> None:
    """Raises InputError for a spectrum that is not the one of `ops.log_mel`."""
    raw = fields.Raw(preprocessor, str(folder / "preprocessor_config.json"))
    raw.demand("feature_size", config.encoder.mel_bands)
    raw.demand("sampling_rate", log_mel.RATE_HZ)
    raw.demand("n_fft", log_mel.WINDOW)
    raw.demand("hop_length", log_mel.HOP)
    raw.demand("dither", 0.0)
    raw.demand("n_samples", config.encoder.window_samples)


def _find_head(source: _Source) -> heads.Config | None:
    """The configuration of transformers' sequence-classification head, if the source has one."""
    names = source.tensors.keys()
    ends = [source.tensors.get(f"{name}.weight") for name in ("projector", "classifier")]
    if any(end is None or len(end.shape) != 2 for end in ends) or any(name.startswith("tdnn.") for name in names):
        return None
    return heads.Config.of(ends[0].shape[0], ends[1].shape[0], names)


def _labels(raw: Mapping[str, Any], head: heads.Config, folder: Path) -> tuple[str, ...]:
    named = raw.get("id2label") or {str(i): f"LABEL_{i}" for i in range(head.classes)}
    labels = tuple(str(named.get(str(i))) for i in range(head.classes)) if isinstance(named, dict) else ()
    if len(labels) != len(named) or "None" in labels:
        raise errors.InputError(
            f"{folder / 'config.json'} names {len(named)} labels, but the classifier has {head.classes} outputs"
        )
    return labels


def _read_own(folder: Path, raw: dict[str, Any], files: list[Path] | None) -> ModelWeights:
    family, origin = raw.get("family"), str(folder / "config.json")
    if family not in convert_names.FAMILIES or not isinstance(raw.get("config"), dict):
        raise errors.InputError(f"{origin}: family {family!r} is none of {', '.join(convert_names.FAMILIES)}")
    config = configs.from_dict(family, raw["config"], origin)
    tensors = _open_weights((files or [folder / "model.safetensors"])[0])
    source = _source(tensors, "own", "", str(folder))
    classifier = source.tensors.get("head.classifier.kernel")
    head = None
    if classifier is not None and len(classifier.shape) == 2:
        names = [name.removeprefix("head.") for name in source.tensors]
        head = heads.Config.of(*classifier.shape, names)
    labels = tuple(str(label) for label in raw.get("labels") or ())
    if head and len(labels) != head.classes:
        raise errors.InputError(f"{origin} names {len(labels)} labels, but the classifier has {head.classes} outputs")
    return dataclasses.replace(
        _filled(family, config, source, head),
        normalize=raw.get("normalize"),
        normalize_eps=raw.get("normalize_eps"),
        labels=labels,
        kind=configs.checked_kind(raw, origin),
        source_format="jax",
        raw_config=raw.get("raw_config") or {},
        preprocessor=raw.get("preprocessor") or {},
    )


def _read_fairseq(path: Path) -> ModelWeights:
    tree = torch_files.load(path)
    if not isinstance(tree, dict) or not isinstance(tree.get("model"), dict):
        raise errors.InputError(f"{path} holds no 'model', so it is not a checkpoint of fairseq")
    model, task = _fairseq_configs(tree, path)
    name = model.get("_name") or model.get("arch") or ("wavlm" if model.get("gru_rel_pos") else None)
    if name not in _FAIRSEQ_NAMES:
        known = ", ".join(_FAIRSEQ_NAMES)
        raise errors.InputError(f"{path} is a fairseq checkpoint of {name!r}, but only {known} are supported")
    family = _FAIRSEQ_NAMES[name]
    config = configs.from_fairseq(family, model, str(path))
    source = _source(_only_tensors(tree["model"], path), "fairseq", _FINE_TUNED, str(path))
    labels = source.tensors.get("label_embs_concat")
    if family == "hubert" and labels is not None and len(labels.shape) == 2:
        config = dataclasses.replace(config, classes=labels.shape[0])
    return dataclasses.replace(
        _filled(family, config, source, None),
        normalize=bool(task.get("normalize", False)),  # fairseq's own default
        raw_config=model,
    )


def _fairseq_configs(tree: Mapping[str, Any], path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configurations of the model and of the task, from `cfg` (nested, or flat in WavLM) or the older `args`.

    A recogniser keeps the configurations of its pre-trained part in `w2v_args`.
    """
    cfg, args = tree.get("cfg"), tree.get("args")
    whole = cfg if isinstance(cfg, dict) else args
    if not isinstance(whole, dict):
        raise errors.InputError(f"{path} holds neither cfg nor args, which say how its model is built")
    model = whole["model"] if isinstance(whole.get("model"), dict) else whole
    task = whole["task"] if isinstance(whole.get("task"), dict) else whole
    if isinstance(model.get("w2v_args"), dict):
        return _fairseq_configs({"cfg": model["w2v_args"]}, path)
    return model, task


def _filled(family: str, config: Any, source: _Source, head: heads.Config | None) -> ModelWeights:
    """Fills the family's parameters from the source and accounts for every tensor."""
    table = convert_names.table(family, config, head)
    if source.layout == "own":
        table = tuple(entry.own() for entry in table)
    filled, missing, used = convert_names.fill(table, source.tensors, source.layout, source.prefix, source.origin)
    left = [name for name in source.tensors if name not in used]
    unused = {source.spelt[name]: convert_names.reason_unused(name, source.layout, family) for name in left}
    unexplained = [name for name, reason in unused.items() if reason is None]
    if unexplained:
        more = f" and {len(unexplained) - 3} more" if len(unexplained) > 3 else ""
        raise errors.InputError(
            f"{source.origin}: the tensors {', '.join(unexplained[:3])}{more} have no place in a {family} model "
            "of its config"
        )
    return ModelWeights(
        family=family,
        config=config,
        params=convert_names.unflatten(filled),
        missing=tuple(missing),
        unused=unused,
        source_format=source.layout,
        mapped=len(used),
    )


def to_fairseq(family: str, config: Any, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """fairseq's names -> float32 arrays: the inverse of what `read` does with a fairseq file."""
    return convert_names.spread(convert_names.table(family, config), convert_names.flatten(params), "fairseq", "")


def to_hf(
    family: str, config: Any, params: Mapping[str, Any], head: heads.Config | None = None, *, prefixed: bool
) -> dict[str, np.ndarray]:
    """transformers' names -> float32 arrays: the inverse of what `read` does with its folder.

    With `prefixed`, the encoder's names start with the family's, as they do beside a head.
    """
    prefix = f"{convert_names.HF_PREFIXES[family]}." if prefixed else ""
    table = convert_names.table(family, config, head)
    return convert_names.spread(table, convert_names.flatten(params), "hf", prefix)
