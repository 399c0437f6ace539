"""Downloads of data sets that have a plain public link.

pooch retries a broken transfer and moves a complete file into place. It can neither resume a transfer nor lock a
file, so both are done here, and files are checked here before pooch moves them.
"""

import contextlib
import fcntl
import fnmatch
import functools
import hashlib
import http.client
import json
import os
import pathlib
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from voc2vec_jax import errors, opening
from voc2vec_jax.datasets import progress as progresses

ZENODO = "https://zenodo.org/api/records"
TIMEOUT_SECONDS = 60
ATTEMPTS = 4
BLOCK_BYTES = 1 << 20


class File(NamedTuple):
    """One file to fetch: `checksum` is `md5:...` or `sha256:...`, or "" where none is published."""

    url: str
    name: str
    checksum: str = ""
    bytes: int | None = None


class Remote(NamedTuple):
    """Where to download a set: the files of a Zenodo record that match `wanted`, or one `file`.

    `folder` is their folder inside the folder of all downloads. GitHub packs an archive anew for everyone, so that it
    has no checksum: it is checked by `contents`, the `contents_digest` of its wav files below `root`.
    """

    record: int | None = None
    wanted: tuple[str, ...] = ()
    file: File | None = None
    contents: str = ""
    root: str = ""
    folder: str = ""


def fetch(remote: Remote, downloads_dir: pathlib.Path, progress: bool = True) -> list[pathlib.Path]:
    """Downloads and checks the files of `remote`, except those that are there. Returns their paths.

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
    """SHA-256 of names, sizes and CRCs of the wav files below a folder of a zip: it does not depend on the packer."""
    lines = []
    with zipfile.ZipFile(opening.checked(archive)) as members:
        for member in members.infolist():
            name = f"/{member.filename}"
            if f"/{root}/" in name and name.lower().endswith(".wav"):
                lines.append(f"{name.split(f'/{root}/', 1)[1]} {member.file_size} {member.CRC:08x}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _record_files(remote: Remote) -> list[File]:
    """The wanted files of a Zenodo record, with their published sizes and checksums."""
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
    import pooch  # imported late: it brings requests, and most programs download nothing

    pooch.get_logger().setLevel("ERROR")
    known = {file.name: None}  # no checksum for pooch: `_download` checks the file before it leaves its `.part`
    store = pooch.create(folder, "", registry=known, urls={file.name: file.url}, retry_if_failed=ATTEMPTS - 1)
    part = folder / f"{file.name}.part"
    download = functools.partial(_download, file=file, part=part, remote=remote, progress=progress)
    with _locked(part):
        try:
            store.fetch(file.name, downloader=download)
        except ValueError as error:
            raise errors.RunError(str(error)) from error


@contextlib.contextmanager
def _locked(part: pathlib.Path) -> Iterator[None]:
    """Creates `part` and refuses a second download of it; removes it again when nothing was transferred."""
    with part.open("ab") as mine:
        try:
            fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise errors.RunError(f"{part} is being downloaded by another process: wait for it") from error
        try:
            yield
        finally:
            if part.exists() and not part.stat().st_size:
                part.unlink()


def _download(
    url: str, output: str, store: Any, *, file: File, part: pathlib.Path, remote: Remote, progress: bool
) -> None:
    """pooch's downloader: completes `part`, checks it and hands it over as `output`.

    A ValueError makes pooch try again, a RunError does not.
    """
    there = part.stat().st_size
    if file.bytes is not None and there > file.bytes:
        os.truncate(part, 0)
    try:
        _transfer(file, part, progress)
    except (OSError, http.client.HTTPException) as error:
        final = isinstance(error, urllib.error.HTTPError)
        sentence = f"{url} cannot be downloaded ({error}): run again to go on"
        raise (errors.RunError if final else ValueError)(sentence) from error
    fault = _fault(file, part, remote)
    if fault:
        os.truncate(part, 0)
        # A part that an earlier run left may be of another file: only a file fetched as a whole is at fault.
        sentence = f"{url} {fault}: what was downloaded has been deleted, try again"
        raise (ValueError if there else errors.RunError)(sentence)
    os.replace(part, output)


def _transfer(file: File, part: pathlib.Path, progress: bool) -> None:
    """Appends the missing rest to `part`, or starts over where the server cannot resume."""
    there = part.stat().st_size
    if there == file.bytes:
        return
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={there}-"} if there else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        resumed = answer.status == 206
        start = there if resumed else 0
        total = start + int(answer.headers.get("Content-Length") or 0)
        with part.open("ab" if resumed else "wb") as out:
            with progresses.shown(file.name, total, start, "bytes", progress) as advance:
                while block := answer.read(BLOCK_BYTES):
                    out.write(block)
                    advance(len(block))
        if part.stat().st_size < total:
            raise http.client.IncompleteRead(b"", total - part.stat().st_size)


def _fault(file: File, path: pathlib.Path, remote: Remote) -> str:
    """What is wrong with a downloaded file, or ""."""
    import pooch

    if file.checksum:
        kind, _, expected = file.checksum.partition(":")
        found = pooch.file_hash(str(path), alg=kind)
        return "" if found == expected else f"gave {kind}:{found} and not {file.checksum}"
    if not zipfile.is_zipfile(path):
        return f"gave {path.stat().st_size} bytes that are not a zip archive"
    found = contents_digest(path, remote.root)
    return "" if found == remote.contents else f"gave recordings with the digest {found} and not {remote.contents}"
