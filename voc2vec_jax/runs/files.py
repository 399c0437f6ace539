"""Writing that survives a kill or a power cut (atomic replacement, synced folders, content hashes), and names."""

import csv
import difflib
import hashlib
import io
import os
import pathlib
from typing import Any, NamedTuple


def sync_folder(folder: pathlib.Path) -> None:
    """Make the names inside `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(file: io.RawIOBase | io.BufferedIOBase) -> None:
    """Make the bytes of an open file durable."""
    file.flush()
    os.fsync(file.fileno())


def write_atomic(path: pathlib.Path, data: bytes) -> None:
    """Replace `path` by `data` so that a reader sees the old bytes or the new ones, never a mixture.

    The temporary file lies beside `path` and is removed when writing fails (OSError).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            sync_file(file)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sha256(path: pathlib.Path, *, sync: bool = False) -> str:
    """SHA-256 of a file in hexadecimal; `sync` also makes its bytes durable."""
    with open(path, "rb") as file:
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def similar(path: pathlib.Path, pattern: str = "*") -> str:
    """For a sentence about a path that is absent: the name beside it that is most like it, or that there is none."""
    if not path.parent.is_dir():
        return f" (nor a folder {path.parent})"
    near = difflib.get_close_matches(path.name, sorted(other.name for other in path.parent.glob(pattern)), n=1)
    return f" (did you mean {path.parent / near[0]}?)" if near else ""


def csv_writer(file: io.TextIOBase) -> Any:
    """`csv.writer` with lines that end in a line feed; a carriage return in a field is quoted all the same."""
    return csv.writer(_Lines(file))


class _Lines(NamedTuple):
    file: io.TextIOBase

    def write(self, line: str) -> None:
        self.file.write(line.removesuffix("\r\n") + "\n")
