"""A large file of the Hub into the Hub's own cache, resumed where an earlier attempt ended, and checked by its SHA-256.

`huggingface_hub` drops what it has of a file when a download breaks off for good, and compares only the size of what it
got. Here the part stays as `blobs/SHA256.part`, and becomes `blobs/SHA256`, where `huggingface_hub` looks first, once
its hash is right.
"""

import fcntl
import os
import re
import urllib.parse
from pathlib import Path

from voc2vec_jax import errors
from voc2vec_jax.runs import files, logs

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PART = ".part"


def repository(name: str) -> Path:
    """The folder of a repository in the Hub's cache, which HF_HUB_CACHE or HF_HOME names."""
    from huggingface_hub import constants, file_download

    return Path(constants.HF_HUB_CACHE) / file_download.repo_folder_name(repo_id=name, repo_type="model")


def part(name: str, sha256: str) -> int:
    """The bytes of a file that an earlier attempt left."""
    path = repository(name) / "blobs" / f"{sha256}{_PART}"
    return path.stat().st_size if path.is_file() else 0


def fetch(name: str, file: str, commit: str) -> None:
    """Fetches a file that the Hub keeps as a large one, with a SHA-256 as its tag; leaves others to `huggingface_hub`.

    Raises RunError for other bytes than the Hub's own hash tells, and what `huggingface_hub` raises.
    """
    import huggingface_hub

    url = huggingface_hub.hf_hub_url(name, file, revision=commit)
    facts = huggingface_hub.get_hf_file_metadata(url)
    if not facts.size or not _SHA256.fullmatch(facts.etag or ""):
        return
    blob = repository(name) / "blobs" / facts.etag
    blob.parent.mkdir(parents=True, exist_ok=True)
    if not blob.exists():
        _fill(blob, facts, url, f"{name}/{file}")


def _fill(blob: Path, facts, url: str, shown: str) -> None:
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
        found = files.sha256(beside)
        if found != blob.name:
            file.truncate(0)  # and not removed, because another process may wait with it open
            raise errors.RunError(
                f"{shown} came with SHA-256 {found[:12]}... and the Hub names {blob.name[:12]}...: a proxy or mirror "
                "changed it; it was thrown away, so run again, with another mirror (HF_ENDPOINT) if it comes back"
            )
        os.replace(beside, blob)
