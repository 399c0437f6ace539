"""Files of weights: which of a folder's are a model's, and the tensors in them, read on demand."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from voc2vec_jax import errors, opening, printable
from voc2vec_jax.convert import torch_files, torch_pickle

TEACHER = "_ema"  # data2vec's key of a dict of tensors inside the dict of tensors
# Where programs put a model's tensors in a file of torch.save, beside their optimizer's
_NESTED = ("state_dict", "model_state_dict", "model", "module", "model_weight")
MOST_JSON_BYTES = 4_000_000  # of a configuration or an index; Whisper's preprocessor_config.json has 340,000
MOST_TENSORS = 50_000  # of a file of safetensors; the largest published model has 800
_MOST_SHARING = 4  # how often a file's bytes may be used, on average
_POINTER = b"version https://git-lfs"
_DTYPES = {"BF16": ml_dtypes.bfloat16, "F16": "f2", "F32": "f4", "F64": "f8", "BOOL": "?"}
_DTYPES |= {f"{kind.upper()}{8 * size}": f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}


@dataclasses.dataclass(frozen=True)
class _SafeTensor:
    shape: tuple[int, ...]
    dtype: np.dtype
    handle: Any
    name: str

    def read(self) -> np.ndarray:
        return self.handle.get_tensor(self.name)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises InputError."""
    if not path.exists():
        raise errors.InputError(f"{path.parent} has no {path.name}; put the model's own beside its weights")
    return opening.read_object(path, MOST_JSON_BYTES)


def of_folder(folder: Path) -> list[Path]:
    """A folder's weight files. Shards that an index names must lie in the folder itself."""
    for single in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{single}.index.json"
        if (folder / single).exists():
            return [folder / single]
        if index.exists():
            shards = read_json(index).get("weight_map")
            names = {str(name) for name in shards.values()} if isinstance(shards, dict) else {"weight_map"}
            for name in sorted(names):
                if not 0 < len(name) < 256 or Path(name).name != name or not (folder / name).is_file():
                    raise errors.InputError(
                        f"{index} names the shard {printable.value(name)}, which does not lie beside it"
                    )
            return [folder / name for name in sorted(names)]
    others = sorted(path for kind in ("ckpt", "pt", "pth", "bin", "safetensors") for path in folder.glob(f"*.{kind}"))
    remedy = f"; give the file itself, such as {others[0]}" if others else ""
    raise errors.InputError(f"{folder} has neither model.safetensors nor pytorch_model.bin, whole or sharded{remedy}")


def _is_pointer(path: Path) -> bool:
    """Whether Git LFS has left a text in place of the file."""
    if not path.is_file():
        return False
    with opening.regular(path) as file:
        return file.read(len(_POINTER)) == _POINTER


def opened(path: Path) -> tuple[dict[str, Any], bool]:
    """Name -> tensor, read on demand; and whether Lightning wrote them, which puts a user's attribute before names."""
    if _is_pointer(path):
        raise errors.InputError(f"{path} is a pointer of Git LFS: fetch the weights themselves with `git lfs pull`")
    if path.suffix != ".safetensors":
        tree = torch_files.load(path)
        of_lightning = isinstance(tree, dict) and "pytorch-lightning_version" in tree
        return only_tensors(nested(tree), path), of_lightning
    try:
        handle = safetensors.safe_open(opening.checked(path), framework="np")
        names = handle.keys()
        if len(names) > MOST_TENSORS:
            raise errors.InputError(f"{path} holds {len(names):,} tensors, more than any model: check what it is")
        parts = {name: handle.get_slice(name) for name in names}
    except errors.InputError:
        raise
    except (safetensors.SafetensorError, OSError) as fault:
        reason = printable.name(str(fault), 120)
        raise errors.InputError(f"{path} is not a complete safetensors file ({reason}); fetch it again") from fault
    _check_names(path)
    return {
        name: _SafeTensor(tuple(part.get_shape()), np.dtype(_DTYPES.get(part.get_dtype(), object)), handle, name)
        for name, part in parts.items()
    }, False


def _check_names(path: Path) -> None:
    """InputError for a header that names a tensor twice, of which the library takes one and other programs another."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))
            raise errors.InputError(f"{path}: its header names {printable.name(twice)} twice: take another copy")
        return found

    with opening.regular(path) as file:
        json.loads(file.read(int.from_bytes(file.read(8), "little")), object_pairs_hook=once)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Name -> array of a file of weights. Raises InputError."""
    return {name: tensor.read() for name, tensor in opened(path)[0].items()}


def nested(tree: Any) -> Any:
    """The dict of tensors in the object of a file of torch.save: under one of the usual keys, else the object."""
    if not isinstance(tree, dict):
        return tree
    return next((tree[key] for key in _NESTED if isinstance(tree.get(key), dict)), tree)


def only_tensors(tree: Any, path: Path) -> dict[str, torch_pickle.Tensor]:
    """The tensors of a dict by their names, those of a teacher as `_ema.NAME`. InputError for any other value."""
    if not isinstance(tree, dict) or not tree:
        raise errors.InputError(f"{path} holds no named tensors, so no weights of a model: give the file of weights")
    flat = {}
    for name, value in tree.items():
        is_teacher = isinstance(value, dict) and str(name).split(".")[-1] == TEACHER
        flat |= {f"{name}.{inner}": tensor for inner, tensor in value.items()} if is_teacher else {name: value}
    for name, tensor in flat.items():
        if not isinstance(name, str) or not isinstance(tensor, torch_pickle.Tensor):
            kind = type(tensor).__name__
            raise errors.InputError(f"{path}: {printable.value(name)} is a {kind} where a tensor is needed")
    needed = sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in flat.values())
    if needed > _MOST_SHARING * path.stat().st_size:
        raise errors.InputError(f"{path}: its tensors share their storages so often that they need {needed} bytes")
    return flat
