"""The manifest of a checkpoint's folder: the SHA-256 of every file. Written last, it says that the folder is complete.

A folder without a manifest is half-written.
"""

import concurrent.futures
import functools
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from voc2vec_jax import opening
from voc2vec_jax.runs import files

NAME = "manifest.json"
_THREADS = 2


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
    """The manifest; None when it cannot be read or does not match its own hash."""
    try:
        text = opening.read_bytes(folder / NAME)
        content = json.loads(text)
        content.pop("sha256")
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return content if _manifest_bytes(content) == text else None


def fault(folder: str | pathlib.Path) -> str | None:
    """What is wrong with a checkpoint folder, naming the file at fault; None when every byte is as it was saved."""
    folder = pathlib.Path(folder)
    if not exists(folder):
        return f"{folder / NAME} is missing"
    manifest = read(folder)
    if manifest is None:
        return f"{folder / NAME} is damaged or unreadable"
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        faults = pool.map(lambda item: _file_fault(folder / item[0], item[1]), manifest["files"].items())
        return next((found for found in faults if found), None)


def _file_fault(path: pathlib.Path, wanted: str) -> str | None:
    try:
        return None if files.sha256(path) == wanted else f"{path} is not what was saved (other SHA-256)"
    except FileNotFoundError:
        return f"{path} is missing"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
