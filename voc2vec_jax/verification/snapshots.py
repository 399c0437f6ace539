"""The files of a system: fetched from the Hub or found in its cache, with their sizes and hashes checked."""

import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from voc2vec_jax import errors, opening
from voc2vec_jax.convert import sources
from voc2vec_jax.runs import extras, files
from voc2vec_jax.verification import downloads, pins, rows

_BLOCK = 1 << 20
_COMMIT = re.compile(r"[0-9a-f]{40}")


class Absent(errors.InputError):
    """What is needed is not on this machine, and could not be asked for."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A system's folder or file, its commit ("" if it is not from the Hub), and its files.

    `fault` names a file that is not what its hash promises; "" without one.
    """

    path: Path
    revision: str
    files: tuple[rows.File, ...]
    fault: str = ""


def local(path: Path, pin: pins.Pin) -> Snapshot:
    """A folder or file of the user's own."""
    names = sources.wanted(sorted(p.name for p in path.iterdir())) if path.is_dir() else [path.name]
    return _checked(path, "", path if path.is_dir() else path.parent, names, pin.files)


def fetch(name: str, pin: pins.Pin) -> Snapshot:
    """The snapshot of a repository (`owner/model`, `owner/model@revision`) at the commit of `pin`, or the newest.

    Fetches what is not in the Hub's cache, resuming; with HF_HUB_OFFLINE, or if the Hub does not answer, takes the
    cache's. Raises Absent, which names each file that is missing, RunError if the Hub refuses or a download fails.
    """
    try:
        import huggingface_hub
        from huggingface_hub import constants
    except ImportError:
        raise Absent(f"fetching {name} needs huggingface_hub: {extras.command('hub')}") from None
    repository, _, asked = name.partition("@")
    revision = pin.revision or asked or "main"
    if constants.HF_HUB_OFFLINE:
        return _cached(repository, revision, pin, "HF_HUB_OFFLINE is set")
    try:
        listed = huggingface_hub.HfApi().model_info(repository, revision=revision)
        names = sources.wanted([sibling.rfilename for sibling in listed.siblings or ()])
        for file in names:
            downloads.fetch(repository, file, listed.sha)
        folder = huggingface_hub.snapshot_download(repository, revision=listed.sha, allow_patterns=names)
    except errors.RunError:
        raise
    except Exception as fault:  # of requests, httpx or httpx2, by the version of huggingface_hub
        return _despite(fault, repository, revision, pin)
    if lacking := sorted(pin.files.keys() - set(names)):
        raise errors.RunError(f"{repository} at {listed.sha[:12]} lacks {', '.join(lacking)}, which should be there")
    return _checked(Path(folder), listed.sha, Path(folder), names, pin.files)


def _despite(fault: Exception, repository: str, revision: str, pin: pins.Pin) -> Snapshot:
    """The cache's snapshot after a fault. Absent if the Hub did not answer, RunError if it refused."""
    status = getattr(getattr(fault, "response", None), "status_code", None)
    why = f"{type(fault).__name__}: {(str(fault).strip().splitlines() or [''])[0]}"[:120].rstrip(": ")
    refused = {
        401: "the Hub wants a login (or has no such model): `hf auth login`",
        403: "the Hub gives it only to those who accepted its terms: open its page, then `hf auth login`",
        404: "the Hub has no such model, revision or file",
    }.get(status, f"the Hub is out of reach or gives it not ({why})")
    try:
        return _cached(repository, revision, pin, refused)
    except Absent as absent:
        if status is None and not isinstance(fault, OSError | ValueError):
            raise
        raise errors.RunError(str(absent)) from fault


def _cached(repository: str, revision: str, pin: pins.Pin, why: str) -> Snapshot:
    """The snapshot in the Hub's cache. Raises Absent with the files that it lacks, and `why` they are not fetched."""
    root = downloads.repository(repository)
    ref = root / "refs" / revision
    if not _COMMIT.fullmatch(revision) and ref.is_file():
        revision = opening.read_text(ref).strip()
    folder = root / "snapshots" / revision
    here = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    if missing := _missing(repository, here, pin):
        raise Absent(f"{repository} is not complete here: {'; '.join(missing)}; {why}")
    return _checked(folder, folder.name, folder, sources.wanted(here), pin.files)


def _missing(repository: str, here: list[str], pin: pins.Pin) -> list[str]:
    """What a snapshot lacks, one text a file."""
    lacking = []
    for name, (size, sha256) in pin.files.items():
        if name not in here:
            part = downloads.part(repository, sha256)
            lacking.append(f"no {name} ({size:,} bytes{f', {part:,} of them here' if part else ''})")
    named = " ".join(pin.files)
    if not any(name.endswith((".json", ".yaml", ".pt")) for name in here) and ".json" not in named:
        lacking.append("no config.json")
    if not any(name.endswith((".safetensors", ".bin", ".pt")) for name in here) and ".bin" not in named:
        lacking.append(f"no weights ({', '.join(sources.WEIGHTS)})")
    return lacking


def _checked(
    path: Path, revision: str, folder: Path, names: list[str], known: Mapping[str, tuple[int, str]]
) -> Snapshot:
    """Sizes and hashes of files, against what is known of them and against the names of the cache's blobs."""
    found, faults = [], []
    for name in names:
        file = folder / name
        size, sha256 = file.stat().st_size, files.sha256(file)
        against = []
        if name in known:
            against.append("pinned")
            if known[name] != (size, sha256):
                faults.append(
                    f"{name} has {size:,} bytes and SHA-256 {sha256[:12]}... where {known[name][0]:,} and "
                    f"{known[name][1][:12]}... are expected"
                )
        blob = os.path.basename(os.path.realpath(file)) if revision else ""
        if own := _as_tag(blob, file, sha256):
            against.append("the Hub's hash")
            if own != blob:
                faults.append(f"{name} has the hash {own[:12]}... where the Hub names {blob[:12]}...")
        found.append(rows.File(name, size, sha256, " and ".join(against)))
    fault = ""
    if faults:
        remedy = f"; delete {folder} and what its links point to, and run again" if revision else ""
        fault = f"{faults[0]}{remedy}"
    return Snapshot(path, revision, tuple(found), fault)


def _as_tag(blob: str, file: Path, sha256: str) -> str:
    """The file's own hash of the kind that a blob is named by: SHA-256, or git's. "" for other names."""
    if re.fullmatch(r"[0-9a-f]{64}", blob):
        return sha256
    if not _COMMIT.fullmatch(blob):
        return ""
    digest = hashlib.sha1(f"blob {file.stat().st_size}\0".encode(), usedforsecurity=False)
    with opening.regular(file) as opened:
        while data := opened.read(_BLOCK):
            digest.update(data)
    return digest.hexdigest()
