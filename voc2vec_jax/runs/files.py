"""Files that survive a kill or a power cut: atomic replacement, synced folders, content hashes; and similar names."""

import contextlib
import difflib
import errno
import hashlib
import io
import os
import pathlib
import secrets
from collections.abc import Iterator
from typing import IO, Any

from voc2vec_jax import errors, opening

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room for what is written


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


@contextlib.contextmanager
def temporary(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A name beside `path` that no other thread, process or host uses; its file is removed at the end."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        yield beside
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_path(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary name to write to; at the end its file replaces `path`, durably. After an error `path` is untouched.

    A reader sees the old bytes or the new ones, never a mixture. Raises OSError; that of a full disk names `path`.
    """
    try:
        with temporary(path) as beside:
            yield beside
            with open(beside, "rb+") as file:
                sync_file(file)
            os.replace(beside, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno in FULL:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def atomic(path: pathlib.Path, mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """As `atomic_path`, with the temporary file opened; `options` are those of `open`."""
    with atomic_path(path) as beside, open(beside, mode, **options) as file:
        yield file


def write_atomic(path: pathlib.Path, data: bytes) -> None:
    """Replace the content of `path` by `data`, as `atomic_path` does."""
    with atomic(path) as file:
        file.write(data)


def check_folder(shown: str, folder: pathlib.Path) -> None:
    """InputError where `folder` can neither be made nor written in, before hours are spent on what goes there."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), None)
    if there is not None and not there.is_dir():
        raise errors.InputError(f"{shown}: {there} is a file; give a folder, it is made")
    if there is not None and not os.access(there, os.W_OK):
        raise errors.InputError(f"{shown} cannot be written: give a folder that can")


def sha256(path: pathlib.Path, *, sync: bool = False) -> str:
    """SHA-256 of a file in hexadecimal. With `sync`, its bytes become durable too."""
    with opening.regular(path) as file:
        if sync:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def similar(path: pathlib.Path, pattern: str = "*") -> str:
    """A hint for a sentence about an absent path: the most similar name beside it, or that its folder is absent."""
    if not path.parent.is_dir():
        return f" (nor a folder {path.parent})"
    near = difflib.get_close_matches(path.name, sorted(other.name for other in path.parent.glob(pattern)), n=1)
    return f" (did you mean {path.parent / near[0]}?)" if near else ""
