"""Fetching a data set from a plain public link: resumed where it stopped, checked before it counts."""

import fcntl
import fnmatch
import hashlib
import http.client
import json
import pathlib
import shutil
import time
import urllib.error
import urllib.request
import zipfile
from typing import Any, NamedTuple

from voc2vec_jax import errors
from voc2vec_jax.datasets import progress as progresses

ZENODO = "https://zenodo.org/api/records"
TIMEOUT_SECONDS = 60
ATTEMPTS = 4
BLOCK_BYTES = 1 << 20


class File(NamedTuple):
    """One file to fetch: `checksum` is `md5:...` or `sha256:...` of its bytes, or "" where nobody publishes one."""

    url: str
    name: str
    checksum: str = ""
    bytes: int | None = None


class Remote(NamedTuple):
    """Where a set may be had: files of a Zenodo record that match `wanted`, or one `file`.

    `folder` is the folder for them below that of all downloads. An archive that is packed anew for everyone
    (GitHub's) is checked by `contents`, the `contents_digest` of its wav files below `root`.
    """

    record: int | None = None
    wanted: tuple[str, ...] = ()
    file: File | None = None
    contents: str = ""
    root: str = ""
    folder: str = ""


def fetch(remote: Remote, downloads_dir: pathlib.Path, progress: bool = True) -> list[pathlib.Path]:
    """Downloads and checks the files of `remote`; files that are there are kept. Returns their paths.

    `errors.RunError` when a link fails, a checksum differs or the disk is too small.
    """
    folder = downloads_dir / remote.folder
    files = _record_files(remote) if remote.record else [remote.file]
    missing = [file for file in files if not (folder / file.name).exists()]
    folder.mkdir(parents=True, exist_ok=True)
    _check_space(missing, folder)
    for file in missing:
        _fetch_file(file, folder, remote, progress)
    return [folder / file.name for file in files]


def contents_digest(archive: pathlib.Path, root: str) -> str:
    """SHA-256 of names, sizes and CRCs of the wav files of a zip below a folder, whatever it was packed with."""
    lines = []
    with zipfile.ZipFile(archive) as members:
        for member in members.infolist():
            name = f"/{member.filename}"
            if f"/{root}/" in name and name.lower().endswith(".wav"):
                lines.append(f"{name.split(f'/{root}/', 1)[1]} {member.file_size} {member.CRC:08x}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _record_files(remote: Remote) -> list[File]:
    """The wanted files of a Zenodo record, with the sizes and checksums that it publishes."""
    url = f"{ZENODO}/{remote.record}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            entries = json.load(answer)["files"]
        files = [_record_file(entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException) as error:
        raise errors.RunError(f"{url} does not list its files ({error}): try again later") from error
    wanted = [file for file in files if any(fnmatch.fnmatch(file.name.lower(), pattern) for pattern in remote.wanted)]
    if not wanted:
        raise errors.RunError(f"{url} has no file like {', '.join(remote.wanted)}: its record has changed")
    return wanted


def _record_file(entry: dict[str, Any]) -> File:
    name = pathlib.PurePosixPath(entry["key"]).name
    return File(entry["links"]["self"], name, entry["checksum"], int(entry["size"]))


def _check_space(files: list[File], folder: pathlib.Path) -> None:
    needed, free = sum(file.bytes or 0 for file in files), shutil.disk_usage(folder).free
    if needed > free:
        raise errors.RunError(
            f"{folder} has {free / 1e9:.2f} GB free and the download takes {needed / 1e9:.2f} GB: free the disk or "
            f"choose another --manual_dir"
        )


def _fetch_file(file: File, folder: pathlib.Path, remote: Remote, progress: bool) -> None:
    part = folder / f"{file.name}.part"
    with part.open("ab") as mine:
        try:
            fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise errors.RunError(f"{part} is being downloaded by another process: wait for it") from error
        _fetch_checked(file, part, remote, progress)


def _fetch_checked(file: File, part: pathlib.Path, remote: Remote, progress: bool) -> None:
    for attempt in range(ATTEMPTS):
        try:
            _transfer(file, part, progress)
            break
        except (OSError, http.client.HTTPException) as error:
            if attempt == ATTEMPTS - 1 or isinstance(error, urllib.error.HTTPError):
                raise errors.RunError(f"{file.url} cannot be downloaded ({error}): run again to go on") from error
            time.sleep(2**attempt)
    fault = _fault(file, part, remote)
    if fault:
        part.unlink()
        raise errors.RunError(f"{file.url} {fault}: what was downloaded has been deleted, try again")
    part.rename(part.with_name(file.name))


def _transfer(file: File, part: pathlib.Path, progress: bool) -> None:
    """Appends to `part` what is missing of it, or starts over where the server cannot go on."""
    there = part.stat().st_size if part.exists() else 0
    if file.bytes is not None and there == file.bytes:
        return
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={there}-"} if there else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        goes_on = answer.status == 206
        start = there if goes_on else 0
        total = start + int(answer.headers.get("Content-Length") or 0)
        with part.open("ab" if goes_on else "wb") as out:
            with progresses.shown(file.name, total, start, "bytes", progress) as advance:
                while block := answer.read(BLOCK_BYTES):
                    out.write(block)
                    advance(len(block))
        if part.stat().st_size < total:
            raise http.client.IncompleteRead(b"", total - part.stat().st_size)


def _fault(file: File, path: pathlib.Path, remote: Remote) -> str:
    """What is wrong with a downloaded file, "" when it is what it should be."""
    if file.checksum:
        kind, _, expected = file.checksum.partition(":")
        with path.open("rb") as opened:
            found = hashlib.file_digest(opened, kind).hexdigest()
        return "" if found == expected else f"gave {kind}:{found} and not {file.checksum}"
    if not zipfile.is_zipfile(path):
        return f"gave {path.stat().st_size} bytes that are no zip archive"
    found = contents_digest(path, remote.root)
    return "" if found == remote.contents else f"gave recordings with the digest {found} and not {remote.contents}"
