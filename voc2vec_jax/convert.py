"""PyTorch checkpoints of the supported families -> our configuration and parameters, and back, without PyTorch."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from voc2vec_jax import convert_configs, convert_names, errors, torch_files

_HF_TYPES = {"wav2vec2": "wav2vec2", "hubert": "hubert", "wavlm": "wavlm", "data2vec-audio": "data2vec"}
_FAIRSEQ_NAMES = {
    "wav2vec2": "wav2vec2",
    "hubert": "hubert",
    "data2vec_audio": "data2vec",
    "data2vec_multi": "emotion2vec",
}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A model read from elsewhere, in our own terms."""

    family: str
    config: Any  # models.<family>.Config
    params: dict[str, Any]  # our tree, float32
    missing: list[str]  # our parameters that the source lacks (a quantizer, say), to be initialised afresh
    unused: dict[str, str]  # tensor of the source -> why it has no place in our tree
    normalize: bool | None  # whether the input is normalised to zero mean and unit variance; None: the source is silent
    source_format: str  # "hf" | "fairseq"
    raw_config: dict[str, Any]  # what the source says of itself
    mapped: int  # tensors of the source that were used


@dataclasses.dataclass(frozen=True)
class _SafeTensor:
    shape: tuple[int, ...]
    dtype: np.dtype
    handle: Any
    name: str

    def read(self) -> np.ndarray:
        return self.handle.get_tensor(self.name)


def read(source: str | Path) -> Checkpoint:
    """Reads a transformers folder (safetensors or `pytorch_model.bin`, sharded or not), a `.safetensors` or `.bin`
    file with its config.json beside it, or a fairseq `.pt`. Raises InputError, in one sentence, for anything else.
    """
    source = Path(source)
    if source.is_dir():
        return _read_hf(source, _weight_files(source))
    if not source.exists():
        raise errors.InputError(f"{source} does not exist; give a folder of transformers or a checkpoint file")
    if source.suffix == ".safetensors" or (source.with_name("config.json").exists() and source.suffix == ".bin"):
        return _read_hf(source.parent, [source])
    return _read_fairseq(source)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise errors.InputError(f"{path.parent} has no {path.name}; put the model's own beside its weights") from None
    except (OSError, ValueError) as fault:
        raise errors.InputError(f"{path} is not readable JSON: {fault}") from fault
    if not isinstance(values, dict):
        raise errors.InputError(f"{path} holds a {type(values).__name__} where an object is needed")
    return values


def _weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights; an index names the shards, which must lie in the folder itself."""
    for single in ("model.safetensors", "pytorch_model.bin"):
        if (folder / single).exists():
            return [folder / single]
        index = folder / f"{single}.index.json"
        if index.exists():
            shards = _read_json(index).get("weight_map")
            names = set(shards.values()) if isinstance(shards, dict) else {None}
            for name in names:
                if not isinstance(name, str) or Path(name).name != name or not (folder / name).exists():
                    raise errors.InputError(f"{index} names the shard {name!r}, which does not lie beside it")
            return [folder / name for name in sorted(names)]
    raise errors.InputError(f"{folder} has neither model.safetensors nor pytorch_model.bin, whole or sharded")


def _open_weights(path: Path) -> dict[str, Any]:
    """Name -> tensor that is read on demand."""
    if path.suffix != ".safetensors":
        tree = torch_files.load(path)
        return _only_tensors(tree, path)
    try:
        handle = safetensors.safe_open(path, framework="np")
        names = list(handle.keys())
        slices = {name: handle.get_slice(name) for name in names}
    except (safetensors.SafetensorError, OSError) as fault:
        raise errors.InputError(f"{path} is not a complete safetensors file ({fault}); fetch it again") from fault
    return {
        name: _SafeTensor(tuple(part.get_shape()), _dtype(part.get_dtype()), handle, name)
        for name, part in slices.items()
    }


def _dtype(name: str) -> np.dtype:
    return np.dtype({"BF16": "bfloat16", "F16": "f2", "F32": "f4", "F64": "f8"}.get(name, "i8"))


def _only_tensors(tree: Any, path: Path) -> dict[str, torch_files.Tensor]:
    if not isinstance(tree, dict) or not tree:
        raise errors.InputError(f"{path} holds a {type(tree).__name__} where named tensors are needed")
    for name, tensor in tree.items():
        if not isinstance(name, str) or not isinstance(tensor, torch_files.Tensor):
            raise errors.InputError(f"{path}: {name!r} is a {type(tensor).__name__} where a tensor is needed")
    return tree


def _read_hf(folder: Path, files: list[Path]) -> Checkpoint:
    raw = _read_json(folder / "config.json")
    kind = raw.get("model_type")
    if kind not in _HF_TYPES:
        raise errors.InputError(
            f"{folder / 'config.json'}: model_type is {kind!r}, but only {', '.join(_HF_TYPES)} are supported"
        )
    family = _HF_TYPES[kind]
    tensors: dict[str, Any] = {}
    for file in files:
        tensors |= _open_weights(file)
    config = convert_configs.from_hf(family, raw, str(folder / "config.json"))
    prefix = f"{convert_names.HF_PREFIXES[family]}."
    prefix = prefix if any(name.startswith(prefix) for name in tensors) else ""
    preprocessor = folder / "preprocessor_config.json"
    normalize = _read_json(preprocessor).get("do_normalize") if preprocessor.exists() else None
    return _checkpoint(family, config, tensors, "hf", prefix, str(folder), normalize, raw)


def _read_fairseq(path: Path) -> Checkpoint:
    tree = torch_files.load(path)
    if not isinstance(tree, dict) or not isinstance(tree.get("model"), dict):
        raise errors.InputError(f"{path} holds no 'model'; it is not a checkpoint of fairseq")
    cfg, args = tree.get("cfg"), tree.get("args")
    model = cfg.get("model") if isinstance(cfg, dict) else args
    task = cfg.get("task") if isinstance(cfg, dict) else args
    if not isinstance(model, dict):
        raise errors.InputError(f"{path} holds neither cfg nor args, which say how its model is built")
    name = model.get("_name") or model.get("arch")
    if name not in _FAIRSEQ_NAMES:
        known = ", ".join(_FAIRSEQ_NAMES)
        raise errors.InputError(f"{path} is a fairseq checkpoint of {name!r}, but only {known} are supported")
    family = _FAIRSEQ_NAMES[name]
    config = convert_configs.from_fairseq(family, model, str(path))
    normalize = task.get("normalize") if isinstance(task, dict) else None
    raw = {"cfg": cfg, "args": args}
    return _checkpoint(family, config, _only_tensors(tree["model"], path), "fairseq", "", str(path), normalize, raw)


def _checkpoint(
    family: str,
    config: Any,
    tensors: Mapping[str, Any],
    layout: str,
    prefix: str,
    origin: str,
    normalize: Any,
    raw: dict[str, Any],
) -> Checkpoint:
    spelt = {convert_names.spell(name, layout): name for name in tensors}
    stored = {name: tensors[original] for name, original in spelt.items()}
    entries = convert_names.table(family, config)
    filled, missing, used = convert_names.fill(entries, stored, layout, prefix, origin)
    unused = {spelt[name]: convert_names.reason_unused(name, layout) for name in stored if name not in used}
    unexplained = [name for name, reason in unused.items() if reason is None]
    if unexplained:
        more = f" and {len(unexplained) - 3} more" if len(unexplained) > 3 else ""
        raise errors.InputError(
            f"{origin}: the tensors {', '.join(unexplained[:3])}{more} have no place in a {family} model of its config"
        )
    return Checkpoint(
        family=family,
        config=config,
        params=convert_names.unflatten(filled),
        missing=missing,
        unused=unused,
        normalize=normalize if isinstance(normalize, bool) else None,
        source_format=layout,
        raw_config=raw,
        mapped=len(used),
    )


def to_fairseq(family: str, config: Any, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """fairseq's parameter names -> arrays; the inverse of what `read` does with a fairseq file."""
    flat = convert_names.flatten(params)
    return convert_names.spread(convert_names.table(family, config), flat, "fairseq", "")
