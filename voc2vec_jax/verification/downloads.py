"""A file of the Hub into the Hub's own cache, resumed where an earlier attempt ended, and checked by its hash.

`huggingface_hub` drops what it has of a file when a download breaks off for good, and compares only the size of what it
got. Here the part stays as `blobs/TAG.part`, and becomes `blobs/TAG`, where `huggingface_hub` looks first, once its
hash is right. The tag of a file is its SHA-256 if the Hub keeps it as a large one, else git's hash of it.
"""

import fcntl
import hashlib
import os
import re
import urllib.parse
from pathlib import Path
from typing import Any

from voc2vec_jax import errors, opening
from voc2vec_jax.runs import files, logs

_TAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PART = ".part"
_BLOCK = 1 << 20


def repository(name: str) -> Path:
    """The folder of a repository in the Hub's cache, which HF_HUB_CACHE or HF_HOME names."""
    from huggingface_hub import constants, file_download

    return Path(constants.HF_HUB_CACHE) / file_download.repo_folder_name(repo_id=name, repo_type="model")


def part(name: str, tag: str) -> int:
    """The bytes of a file that an earlier attempt left."""
    path = repository(name) / "blobs" / f"{tag}{_PART}"
    return path.stat().st_size if path.is_file() else 0


def name_commit(name: str, revision: str, commit: str) -> None:
    """Notes which commit a branch stands for, as `huggingface_hub` does, so that it is found offline too."""
    path = repository(name) / "refs" / revision
    if revision != commit and (not path.is_file() or opening.read_text(path) != commit):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(path, commit.encode())


def fetch(name: str, file: str, commit: str) -> None:
    """Fetches one file, if the Hub says its size and its hash; others are left to `huggingface_hub`.

    Raises RunError for other bytes than the Hub's own hash tells, and what `huggingface_hub` raises.
    """
    import huggingface_hub

    url = huggingface_hub.hf_hub_url(name, file, revision=commit)
    facts = huggingface_hub.get_hf_file_metadata(url)
    if not facts.size or not is_tag(facts.etag or ""):
        return
    blob = repository(name) / "blobs" / facts.etag
    blob.parent.mkdir(parents=True, exist_ok=True)
    if not blob.exists():
        _fill(blob, facts, url, f"{name}/{file}")


def is_tag(text: str) -> bool:
    """Whether this is a hash by which the Hub names files."""
    return _TAG.fullmatch(text) is not None


def hash_as(tag: str, path: Path) -> str:
    """The hash of a file, of the kind that `tag` is."""
    if len(tag) == 64:
        return files.sha256(path)
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with opening.regular(path) as file:
        while data := file.read(_BLOCK):
            digest.update(data)
    return digest.hexdigest()


def _fill(blob: Path, facts: Any, url: str, shown: str) -> None:
    from huggingface_hub import file_download, utils

    headers = utils.build_hf_headers()
    if urllib.parse.urlparse(facts.location).netloc != urllib.parse.urlparse(url).netloc:
        headers.pop("authorization", None)  # a token is for the Hub alone
    beside = blob.with_name(f"{blob.name}{_PART}")
    with beside.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # another process may fetch the same
        if blob.exists():
            return
        have = file.seek(0, os.SEEK_END)
        if have > facts.size:
            have = file.truncate(0)
        if have:
            logs.say(f"{shown}: goes on after {have:,} of {facts.size:,} bytes")
        file_download.http_get(
            facts.location,
            file,
            resume_size=have,
            headers=headers,
            expected_size=facts.size,
            displayed_filename=shown,
        )
        files.sync_file(file)
        found = hash_as(blob.name, beside)
        if found != blob.name:
            file.truncate(0)  # and not removed, because another process may wait with it open
            raise errors.RunError(
                f"{shown} came with the hash {found[:12]}... where the Hub names {blob.name[:12]}...: a proxy or "
                "mirror changed it, or the part from before was damaged; it was thrown away, so run again"
            )
        os.replace(beside, blob)
