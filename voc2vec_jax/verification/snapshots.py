"""The files of a system: fetched from the Hub or found in its cache, with their sizes and hashes checked."""

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path

from voc2vec_jax import errors, opening
from voc2vec_jax.convert import sources
from voc2vec_jax.runs import extras, files, logs
from voc2vec_jax.verification import downloads, pins, rows

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REFUSALS = {
    401: "no such model, or it wants a login: `hf auth login`",
    403: "it is for those who accepted its terms: open its page, then `hf auth login`",
    404: "no such model or file",
}


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
    """A folder or file of the user's own. RunError if it lacks a file of the pin."""
    names = sources.wanted(sorted(p.name for p in path.iterdir())) if path.is_dir() else [path.name]
    _check_all(names, pin, str(path))
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
        return _cached(repository, revision, pin, "HF_HUB_OFFLINE is set: unset it to fetch them")
    listed = None
    try:
        listed = huggingface_hub.HfApi().model_info(repository, revision=revision)
        if not _COMMIT.fullmatch(str(listed.sha)):
            raise errors.RunError(
                f"{constants.ENDPOINT} names no commit of {repository}, so it is no Hub: mend HF_ENDPOINT, or unset it"
            )
        names = sources.wanted([sibling.rfilename for sibling in listed.siblings or ()])
        for file in names:
            downloads.fetch(repository, file, listed.sha)
        folder = huggingface_hub.snapshot_download(repository, revision=listed.sha, allow_patterns=names)
        downloads.name_commit(repository, revision, listed.sha)
    except errors.RunError:
        raise
    except Exception as fault:  # of requests, httpx or httpx2, by the version of huggingface_hub
        return _despite(fault, repository, listed.sha if listed else revision, pin, listed is not None)
    _check_all(names, pin, f"{repository} at {listed.sha[:12]}")
    return _checked(Path(folder), listed.sha, Path(folder), names, pin.files)


def _check_all(names: list[str], pin: pins.Pin, shown: str) -> None:
    """RunError if a file is missing that is known to be there: what lies in its place would go unchecked."""
    if lacking := sorted(pin.files.keys() - set(names)):
        raise errors.RunError(f"{shown} lacks {', '.join(lacking)}, which should be there")


def _despite(fault: Exception, repository: str, revision: str, pin: pins.Pin, answered: bool) -> Snapshot:
    """The cache's snapshot of this commit after a fault, with a warning.

    Without one, Absent if the Hub never answered, RunError if it refused, or a download broke off or had no room.
    """
    from huggingface_hub import constants

    status = getattr(getattr(fault, "response", None), "status_code", None)
    here = isinstance(fault, OSError) and (fault.filename is not None or fault.errno in files.FULL)
    text = f"{type(fault).__name__}: {(str(fault).strip().splitlines() or [''])[0]}"[:120].rstrip(": ")
    if here:
        text = f"{fault.strerror}: {fault.filename}" if fault.filename else fault.strerror
        why = f"{repository} cannot be kept in the Hub's cache ({text}): make room there, or name another by HF_HOME"
    elif type(fault).__name__ == "RevisionNotFoundError":
        why = f"the Hub has no revision {revision} of {repository}"
    elif status in _REFUSALS:
        why = f"the Hub answers {status} for {repository}: {_REFUSALS[status]}"
    elif status:
        why = f"the Hub answers {status} for {repository}: wait, and run again"
    elif answered:
        why = f"the download of {repository} broke off ({text}): run again, and it goes on"
    else:
        why = f"the Hub is out of reach at {constants.ENDPOINT} ({text}): connect, or name a mirror by HF_ENDPOINT"
    try:
        found = _cached(repository, revision, pin, why)
    except Absent:
        if status is None and not answered and not here:
            raise
        raise errors.RunError(why) from fault
    logs.warn(f"{why}; taken is what the cache has")
    return found


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
        blob = Path(os.path.realpath(file))
        if revision and downloads.is_tag(blob.name):
            against.append("the Hub's hash")
            own = sha256 if len(blob.name) == len(sha256) else downloads.hash_as(blob.name, file)
            if own != blob.name:
                faults.append(f"{name} is damaged, its hash is {own[:12]}...: delete {blob} and run again")
        found.append(rows.File(name, size, sha256, " and ".join(against)))
    return Snapshot(path, revision, tuple(found), faults[0] if faults else "")
