"""Reads and writes PyTorch's files (`.pt`, `.bin`) without PyTorch.

Such a file is a zip archive of one pickle and of the tensors' bytes, which we map instead of copying.
"""

import functools
import mmap
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from voc2vec_jax import errors, opening, printable
from voc2vec_jax.convert import torch_legacy, torch_pickle
from voc2vec_jax.runs import files

_ALIGNMENT = 64


class _Archive:
    """A zip file in the layout of `torch.save`: ROOT/data.pkl and ROOT/data/KEY, all uncompressed."""

    def __init__(self, path: Path):
        self.path = path
        with opening.regular(path) as file:
            try:
                infos = zipfile.ZipFile(file).infolist()
            except (zipfile.BadZipFile, ValueError, OSError, EOFError, RuntimeError) as fault:
                raise errors.InputError(f"{path} is truncated: {fault}; fetch it again") from fault
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        roots = [i.filename.removesuffix("data.pkl") for i in infos if i.filename.split("/")[1:] == ["data.pkl"]]
        if len(roots) != 1:
            raise errors.InputError(f"{path} is a zip file without one data.pkl, so torch.save did not write it")
        self._members = {i.filename.removeprefix(roots[0]): i for i in infos if i.filename.startswith(roots[0])}

    def has(self, name: str) -> bool:
        return name in self._members

    def open(self, name: str) -> tuple[int, Callable[[], memoryview]]:
        """A member's size and a function that maps it. The first call verifies the checksum."""
        if name not in self._members:
            raise errors.InputError(f"{self.path} lacks its member {name}; fetch it again")
        info = self._members[name]
        return info.file_size, functools.cache(lambda: self._verified(info))

    def storage(self, key: str, size: int, dtype: np.dtype) -> Callable[[], memoryview]:
        """As `torch_pickle.OpenStorage`."""
        held, view = self._storage(key)
        if size * dtype.itemsize > held:
            raise errors.InputError(
                f"{self.path}: storage {key} should hold {size} elements of {dtype} but has {held} bytes"
            )
        return view

    @functools.cached_property
    def _storage(self) -> Callable[[str], tuple[int, Callable[[], memoryview]]]:
        return functools.cache(lambda key: self.open(f"data/{key}"))

    def read(self, name: str) -> bytes:
        return bytes(self.open(name)[1]())

    def _verified(self, info: zipfile.ZipInfo) -> memoryview:
        start = self._start(info)
        data = memoryview(self._map)[start : start + info.file_size]
        if zlib.crc32(data) != info.CRC:
            raise errors.InputError(
                f"{self.path}: member {_shown(info)} does not match its checksum, so the file is damaged; "
                "fetch it again"
            )
        return data

    def _start(self, info: zipfile.ZipInfo) -> int:
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise errors.InputError(
                f"{self.path}: member {_shown(info)} is compressed or encrypted; write the file again with torch.save"
            )
        header = self._map[info.header_offset : info.header_offset + 30]
        start = info.header_offset + 30 + sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        if header[:4] != b"PK\3\4" or start + info.file_size > len(self._map):
            raise errors.InputError(f"{self.path}: member {_shown(info)} lies outside the file, which is truncated")
        return start


def _shown(member: zipfile.ZipInfo) -> str:
    return printable.name(member.filename)


def load(path: str | Path) -> Any:
    """The object in a file of `torch.save`: plain containers, tensors that are read on demand, inert records.

    `torch_pickle.loads` describes the values; `torch_legacy` reads the layout from before PyTorch 1.6. InputError
    for a damaged file, and for a pickle that names anything but tensors and containers.
    """
    path = Path(path)
    try:
        with opening.regular(path) as file:
            start = file.read(len(torch_legacy.MAGIC))
    except OSError as fault:
        raise errors.InputError(f"{path} cannot be read: {fault.strerror}") from fault
    if start == torch_legacy.MAGIC:
        return torch_legacy.load(path)
    if start[:2] != b"PK":
        raise errors.InputError(f"{path} is not a file of torch.save: it starts with {start[:8]!r}")
    archive = _Archive(path)
    if archive.has("byteorder") and archive.read("byteorder") != b"little":
        raise errors.InputError(f"{path} was written on a big-endian machine; write it again on a little-endian one")
    return torch_pickle.loads(archive.read("data.pkl"), str(path), archive.storage)


def save(path: str | Path, value: Any) -> None:
    """Writes containers, numbers, text, and arrays as tensors, for `torch.load(weights_only=True)`.

    The file gets its name only when it is complete. Raises OSError when it cannot be written.
    """
    path = Path(path)
    storages: list[np.ndarray] = []
    pickled = torch_pickle.dumps(value, storages)
    with files.atomic(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, f"{path.stem}/data.pkl", pickled)
        _add(archive, f"{path.stem}/byteorder", b"little")
        for key, array in enumerate(storages):
            _add(archive, f"{path.stem}/data/{key}", np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        _add(archive, f"{path.stem}/version", b"3\n")


def _add(archive: zipfile.ZipFile, name: str, data: bytes | memoryview) -> None:
    """Adds a member whose bytes start at a multiple of 64, as torch.save places them for mapping."""
    info = zipfile.ZipInfo(name)  # with the zip format's own first date, so that equal content gives equal files
    gap = -(archive.fp.tell() + 30 + len(name.encode()) + 4) % _ALIGNMENT
    info.extra = b"FB" + gap.to_bytes(2, "little") + b"Z" * gap
    archive.writestr(info, data)
