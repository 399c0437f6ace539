"""Files of `torch.save` from before PyTorch 1.6: pickles one behind the other, then the bytes of the storages.

magic number | version | the machine | the object | keys of its storages | of each: number of elements, elements
"""

import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from voc2vec_jax import errors, opening
from voc2vec_jax.convert import torch_pickle

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_VERSION = 1001
_COUNT_BYTES = 8


class _Storages:
    """The storages that the object names, and where they lie once their keys are read."""

    def __init__(self, data: mmap.mmap, origin: str):
        self._data, self._origin = data, origin
        self._wanted: dict[str, tuple[int, np.dtype]] = {}
        self._places: dict[str, tuple[int, int]] = {}

    def open(self, key: str, size: int, dtype: np.dtype) -> Callable[[], memoryview]:
        """As `torch_pickle.OpenStorage`. What it gives may be called after `find`."""
        if self._wanted.setdefault(key, (size, dtype)) != (size, dtype):
            raise errors.InputError(f"{self._origin}: storage {key} has two sizes or types, so the file is damaged")
        return lambda: memoryview(self._data)[slice(*self._places[key])]

    def find(self, keys: Any) -> None:
        """Finds the storages behind the present position. InputError unless all lie in the file."""
        start = self._data.tell()
        for key in keys if isinstance(keys, list) else ():
            size, dtype = self._wanted.get(key, (-1, None)) if isinstance(key, str) else (-1, None)
            begin = start + _COUNT_BYTES
            if size < 0 or int.from_bytes(self._data[start:begin], "little") != size:
                raise errors.InputError(f"{self._origin}: its storages are not those of its tensors; fetch it again")
            start = begin + size * dtype.itemsize
            self._places[key] = begin, start
            if start > len(self._data):
                raise errors.InputError(f"{self._origin} ends inside storage {key}; fetch it again")
        if absent := self._wanted.keys() - self._places.keys():
            raise errors.InputError(f"{self._origin} lacks storage {min(absent)}; fetch it again")


def load(path: Path) -> Any:
    """The object in a file, as `torch_files.load`."""
    origin = str(path)
    with opening.regular(path) as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def without_storages(*_: Any) -> Any:
        raise ValueError("a tensor where there is none")

    _, version, machine = (torch_pickle.loads(data, origin, without_storages) for _ in range(3))
    if version != _VERSION or not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise errors.InputError(f"{path} is not of the layout {_VERSION} of PyTorch, or of a big-endian machine")
    storages = _Storages(data, origin)
    tree = torch_pickle.loads(data, origin, storages.open)
    storages.find(torch_pickle.loads(data, origin, without_storages))
    return tree
