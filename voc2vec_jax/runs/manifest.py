"""The manifest of a checkpoint's folder: the SHA-256 of every file. Written last, it says that the folder is complete.

A folder without a manifest is half-written.
"""

import concurrent.futures
import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from voc2vec_jax import opening, printable
from voc2vec_jax.runs import files

NAME = "manifest.json"
_THREADS = 2
_LONGEST_NAME = 200  # bytes, below the folder; Orbax's have 60
_MOST_BYTES = 8_000_000  # of a manifest; a large model's of 64 processes has 200,000
# Files that file systems and managers put into folders, which nothing reads
_LEFT_BY_SYSTEMS = re.compile(r"\.DS_Store|\.nfs[0-9a-f]+|Thumbs\.db|desktop\.ini").fullmatch


def _manifest_bytes(content: Mapping[str, Any]) -> bytes:
    """The manifest with its own hash as last field."""
    digest = hashlib.sha256(json.dumps(content, indent=1).encode()).hexdigest()
    return (json.dumps({**content, "sha256": digest}, indent=1) + "\n").encode()


def _files_in(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / NAME)


def exists(folder: pathlib.Path) -> bool:
    """Whether a folder is complete. Its bytes are not checked."""
    return (folder / NAME).is_file()


def write(folder: pathlib.Path, step: int, kinds: Mapping[str, str]) -> None:
    """Sync and hash every file in the folder; only then write the manifest, which makes the checkpoint complete."""
    paths = _files_in(folder)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        hashes = list(pool.map(functools.partial(files.sha256, sync=True), paths))
    for inner in (path for path in folder.rglob("*") if path.is_dir()):
        files.sync_folder(inner)
    listed = {str(path.relative_to(folder)): value for path, value in zip(paths, hashes)}
    content = {"format": 1, "step": step, "files": listed, "leaves": dict(kinds)}
    files.write_atomic(folder / NAME, _manifest_bytes(content))
    files.sync_folder(folder.parent)


def read(folder: pathlib.Path) -> dict[str, Any] | None:
    """The manifest; None when it cannot be read, does not match its own hash or holds something else."""
    path = folder / NAME
    try:
        text = b"" if path.is_symlink() else opening.read_bytes(path, _MOST_BYTES)
        content = json.loads(text)
        content.pop("sha256")
        whole = _manifest_bytes(content) == text
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return None
    named = [content.get("files"), content.get("leaves")]
    texts = all(isinstance(each, dict) and all(isinstance(v, str) for v in each.values()) for each in named)
    return content if whole and texts else None


def fault(folder: str | pathlib.Path) -> str | None:
    """What is wrong with a checkpoint folder, naming the file at fault; None when every byte is as it was saved.

    The folder must hold the files that the manifest lists, all of them and no others: what reads them takes whatever
    lies there, by names that only it knows.
    """
    folder = pathlib.Path(folder)
    if not exists(folder):
        return f"{folder / NAME} is missing"
    manifest = read(folder)
    if manifest is None:
        return f"{folder / NAME} is damaged or unreadable"
    listed = manifest["files"]
    for name in listed:
        if not _is_place(name):
            return f"{folder / NAME} lists {printable.value(name)}, which is no place in its folder"
    if found := _unlisted(folder, listed):
        return found
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        faults = pool.map(lambda item: _file_fault(folder / item[0], item[1]), listed.items())
        return next((found for found in faults if found), None)


def _is_place(name: str) -> bool:
    """Whether this can be the name of a file below a folder."""
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:  # half of a character
        return False
    parts = pathlib.PurePosixPath(name).parts
    inside = parts and ".." not in parts and not name.startswith("/") and "/".join(parts) == name
    return bool(inside) and b"\0" not in encoded and len(encoded) <= _LONGEST_NAME


def _unlisted(folder: pathlib.Path, listed: Mapping[str, str]) -> str | None:
    """What lies in the folder and should not: another file than those listed, a link, a pipe."""
    for above, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = pathlib.Path(above, name)
            if path.is_symlink():
                return f"{path} is a link, and a checkpoint holds its own files"
        for name in names:
            path = pathlib.Path(above, name)
            if str(path.relative_to(folder)) not in listed and path != folder / NAME and not _LEFT_BY_SYSTEMS(name):
                return f"{path} is not listed in {NAME}"
            if not path.is_file():
                return f"{path} is no regular file"
    return None


def _file_fault(path: pathlib.Path, wanted: str) -> str | None:
    try:
        return None if files.sha256(path) == wanted else f"{path} is not what was saved (other SHA-256)"
    except FileNotFoundError:
        return f"{path} is missing"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
