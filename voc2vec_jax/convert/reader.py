"""Reads PyTorch checkpoints of the supported families into our configuration and parameters, without PyTorch.

`read` detects what a source is. `to_fairseq` and `to_hf` map names and arrays back; `writer` puts them into files.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from voc2vec_jax import errors, printable
from voc2vec_jax.convert import (
    configs,
    entries,
    extractors,
    fairseq,
    fields,
    funasr,
    head_labels,
    torch_files,
    weight_files,
    wrapping,
)
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.models import heads
from voc2vec_jax.runs import logs

OWN_FORMAT = "voc2vec_jax"
_CONFIG = "config.json"
HF_TYPES = {
    "wav2vec2": "wav2vec2",
    "hubert": "hubert",
    "wavlm": "wavlm",
    "data2vec-audio": "data2vec",
    "whisper": "whisper",
}
# Added to the variance of a clip that is normalised, by the programs that trained a checkpoint
TRANSFORMERS_EPS, FAIRSEQ_EPS = 1e-7, 1e-5
# The same by a pre-training recipe's `normalize`; None: the audio as it is
NORMALIZE_EPS = {"none": None, "clip": TRANSFORMERS_EPS, "clip_fairseq": FAIRSEQ_EPS}


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
    wrapper: str = ""  # what the source puts before the names of the model's tensors

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
        return float(share) if isinstance(share, int | float) and 0 <= share <= 1 else 0.0

    @property
    def parameters(self) -> int:
        return sum(int(np.size(array)) for array in convert_names.flatten(self.params).values())


@dataclasses.dataclass(frozen=True)
class _Source:
    """Stored tensors, named as the tables of `names` spell them, and their origin."""

    tensors: Mapping[str, Any]
    spelt: Mapping[str, str]  # the tables' spelling -> the file's
    layout: str
    prefix: str
    origin: str
    outside: Mapping[str, str]  # the file's name of a tensor of something else -> why we leave it out
    wrapper: str


def read(source: str | Path) -> ModelWeights:
    """Reads a folder of transformers or of `writer.write_jax`, a file of weights beside its config.json, or a
    checkpoint of fairseq, s3prl or FunASR.

    Every tensor of the source is used or listed in `unused` with the reason. Every parameter is filled or listed in
    `missing`. Raises InputError, in one sentence, for anything else.
    """
    source = Path(source)
    if source.is_dir():
        of_funasr = not (source / _CONFIG).exists() and (source / funasr.CONFIG).exists()
        return _read_torch(source / funasr.WEIGHTS) if of_funasr else _read_folder(source, None)
    if not source.exists():
        raise errors.InputError(f"{source} does not exist; give a folder of transformers or a checkpoint file")
    if source.suffix == ".safetensors" or (source.suffix == ".bin" and source.with_name(_CONFIG).exists()):
        return _read_folder(source.parent, [source])
    return _read_torch(source)


def _read_torch(path: Path) -> ModelWeights:
    """A file of torch.save: of fairseq, s3prl or FunASR, or weights beside the config.json of transformers."""
    tree = torch_files.load(path)
    checkpoint = fairseq.checkpoint(tree, path)
    if checkpoint is not None:
        return _read_fairseq(checkpoint, path)
    tensors = weight_files.only_tensors(weight_files.nested(tree), path)
    if funasr.holds(tensors):
        return _read_funasr(tensors, path)
    if path.with_name(_CONFIG).exists():
        return _read_folder(path.parent, [path])
    raise errors.InputError(
        f"{path} holds the tensors {wrapping.some(tensors)}, but neither cfg nor args, which say how its model is "
        f"built: put the {_CONFIG} that transformers has for it beside it"
    )


def _source(
    family: str, config: Any, tensors: Mapping[str, Any], layout: str, origin: str, *, any_attribute: bool = False
) -> _Source:
    """The tensors without what wraps the model. Those outside of it are named, and left out."""
    first = convert_names.first_conv(family, config, layout)
    inner = (f"{convert_names.HF_PREFIXES[family]}.",) if layout == "hf" else (fairseq.FINE_TUNED, funasr.PREFIX)
    bare = wrapping.bare(tensors, first, inner, any_attribute, origin)
    wrapper = printable.name(bare.wrapper)
    if bare.outside:
        logs.warn(
            f"{origin}: its model lies under {wrapper}, so the tensors {wrapping.some(bare.outside)} are left out"
        )
    outside = dict.fromkeys(bare.outside, f"outside {wrapper}, where the model lies")
    spelt = {entries.spell(name, layout): name for name in bare.tensors}
    if len(spelt) < len(bare.tensors):
        twice = printable.name(next(name for name in bare.tensors if spelt[entries.spell(name, layout)] != name))
        raise errors.InputError(f"{origin} has the tensor {twice} under two spellings of its name; keep one")
    prefix = next((start for start in inner if any(name.startswith(start) for name in spelt)), "")
    tensors = {name: bare.tensors[own] for name, own in spelt.items()}
    names = {name: bare.spelt[own] for name, own in spelt.items()}
    return _Source(tensors, names, layout, prefix, origin, outside, bare.wrapper)


def _read_folder(folder: Path, files: list[Path] | None) -> ModelWeights:
    raw = weight_files.read_json(folder / _CONFIG)
    tensors: dict[str, Any] = {}
    if raw.get("format") == OWN_FORMAT:
        return _read_own(folder, raw, files)
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in HF_TYPES:
        known, kind = ", ".join(HF_TYPES), printable.value(kind)
        raise errors.InputError(f"{folder / 'config.json'}: model_type is {kind}, but only {known} are supported")
    family = HF_TYPES[kind]
    config = configs.from_hf(family, raw, str(folder / _CONFIG))
    tensors, attribute = _opened(folder, files or weight_files.of_folder(folder))
    _check_family(family, tensors, folder)
    origin = str(files[0] if files else folder)
    source = _source(family, config, tensors, "hf", origin, any_attribute=attribute)
    head = _find_head(source, raw)
    extractor, place = extractors.read(folder)
    if family == "whisper":
        extractors.check_whisper(config, extractor, place)
    return dataclasses.replace(
        _filled(family, config, source, head),
        normalize=False if family == "whisper" else extractors.normalizes(extractor, place),
        labels=head_labels.read(raw, head.classes, str(folder / _CONFIG)) if head else (),
        kind=configs.kind_of(raw, str(folder / _CONFIG)) if head else "classes",
        raw_config=raw,
        preprocessor=extractor,
    )


def _opened(folder: Path, files: list[Path]) -> tuple[dict[str, Any], bool]:
    """The tensors of a folder's files, and whether their names begin with an attribute of Lightning's user."""
    tensors: dict[str, Any] = {}
    attribute = False
    for file in files:
        opened, of_lightning = weight_files.opened(file)
        attribute |= of_lightning
        if twice := opened.keys() & tensors.keys():
            name = printable.name(min(twice))
            raise errors.InputError(f"{folder} has the tensor {name} in two of its shards; fetch it again")
        tensors |= opened
    return tensors, attribute


def _check_family(family: str, tensors: Mapping[str, Any], folder: Path) -> None:
    starts = {wrapping.attribute(name) for name in tensors}
    for other, prefix in convert_names.HF_PREFIXES.items():
        if other != family and prefix in starts:
            raise errors.InputError(f"{folder} holds the tensors of a {other} model, but its config.json says {family}")


def _find_head(source: _Source, raw: Mapping[str, Any]) -> heads.Config | None:
    """The configuration of transformers' sequence-classification head, if the source has one."""
    names = source.tensors.keys()
    ends = [source.tensors.get(f"{name}.weight") for name in ("projector", "classifier")]
    if any(end is None or len(end.shape) != 2 for end in ends) or any(name.startswith("tdnn.") for name in names):
        return None
    summed = bool(raw.get("use_weighted_layer_sum"))
    if summed and "layer_weights" not in names:
        raise errors.InputError(
            f"{source.origin} lacks layer_weights, which use_weighted_layer_sum in its config calls for"
        )
    return heads.Config(classes=ends[1].shape[0], width=ends[0].shape[0], layer_sum=summed)


def _read_own(folder: Path, raw: dict[str, Any], files: list[Path] | None) -> ModelWeights:
    family, origin = raw.get("family"), str(folder / _CONFIG)
    if family not in convert_names.FAMILIES or not isinstance(raw.get("config"), dict):
        family = printable.value(family)
        raise errors.InputError(f"{origin}: family {family} is none of {', '.join(convert_names.FAMILIES)}")
    said = fields.Raw(raw, origin)
    config = configs.from_dict(family, raw["config"], origin)
    tensors, _ = weight_files.opened((files or [folder / "model.safetensors"])[0])
    source = _Source(tensors, {name: name for name in tensors}, "own", "", str(folder), {}, "")
    head, labels = own_head(source.tensors, raw, origin)
    extractor = said.take("preprocessor", fields.OBJECT, {})
    if family != "whisper":
        extractors.normalizes(extractor, f"preprocessor in {origin}")
    return dataclasses.replace(
        _filled(family, config, source, head),
        normalize=said.take("normalize", fields.FLAG, None),
        normalize_eps=said.take("normalize_eps", fields.SMALL, None),
        labels=labels,
        kind=configs.checked_kind(raw, origin),
        source_format="jax",
        raw_config=said.take("raw_config", fields.OBJECT, {}),
        preprocessor=extractor,
    )


def own_head(
    tensors: Mapping[str, Any], raw: Mapping[str, Any], origin: str
) -> tuple[heads.Config | None, tuple[str, ...]]:
    """The classification head among tensors in our own layout, if there is one, and the labels of its outputs."""
    classifier = tensors.get("head.classifier.kernel")
    head = None
    if classifier is not None and len(classifier.shape) == 2:
        names = [name.removeprefix("head.") for name in tensors]
        head = heads.Config.of(*classifier.shape, names)
    labels = head_labels.own(raw.get("labels"), origin)
    if head and len(labels) != head.classes:
        raise errors.InputError(f"{origin} names {len(labels)} labels, but the classifier has {head.classes} outputs")
    return head, labels


def _read_fairseq(tree: Mapping[str, Any], path: Path) -> ModelWeights:
    tensors = weight_files.only_tensors(tree["model"], path)
    model, task = fairseq.described(tree, path)
    family, name = fairseq.family(model)
    if family is None and funasr.holds(tensors):
        return _read_funasr(tensors, path)
    if family is None:
        raise fairseq.unknown(path, name)
    config = configs.from_fairseq(family, model, str(path))
    source = _source(family, config, tensors, "fairseq", str(path))
    labels = source.tensors.get("label_embs_concat")
    if family == "hubert" and labels is not None and len(labels.shape) == 2:
        config = dataclasses.replace(config, classes=labels.shape[0])
    return dataclasses.replace(
        _filled(family, config, source, None), normalize=fairseq.normalizes(task, path), raw_config=model
    )


def _read_funasr(tensors: Mapping[str, Any], path: Path) -> ModelWeights:
    """emotion2vec+, whose configuration and labels lie beside it."""
    raw, family = funasr.model_config(path.parent), "emotion2vec"
    config = configs.from_fairseq(family, raw, str(path.with_name(funasr.CONFIG)))
    source = _source(family, config, tensors, "fairseq", str(path))
    found = _filled(family, config, source, None)
    labels = funasr.labels(path.parent)
    if labels is not None and all(name in source.tensors for name in funasr.CLASSIFIER):
        head, labels = funasr.head(source.tensors, config.encoder.width, labels, str(path))
        used = [source.spelt[name] for name in funasr.CLASSIFIER]
        unused = {name: reason for name, reason in found.unused.items() if name not in used}
        params = {**found.params, "head": head}
        found = dataclasses.replace(found, params=params, unused=unused, labels=labels, mapped=found.mapped + len(used))
    return dataclasses.replace(found, normalize=raw["normalize"], raw_config=raw)


def _filled(family: str, config: Any, source: _Source, head: heads.Config | None) -> ModelWeights:
    """Fills the family's parameters from the source and accounts for every tensor."""
    table = convert_names.table(family, config, head)
    if source.layout == "own":
        table = tuple(entry.own() for entry in table)
    filled, missing, used = convert_names.fill(table, source.tensors, source.layout, source.prefix, source.origin)
    left = [name for name in source.tensors if name not in used]
    unused = {source.spelt[name]: convert_names.reason_unused(name, source.layout, family) for name in left}
    unused |= source.outside
    unexplained = [name for name, reason in unused.items() if reason is None]
    if unexplained:
        raise errors.InputError(
            f"{source.origin}: the tensors {wrapping.some(unexplained)} have no place in a {family} model of its config"
        )
    return ModelWeights(
        family=family,
        config=config,
        params=convert_names.unflatten(filled),
        missing=tuple(missing),
        unused=unused,
        source_format=source.layout,
        mapped=len(used),
        wrapper=source.wrapper,
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
