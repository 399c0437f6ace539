"""The files of a data set: a folder, an archive or several of them, read in place."""

import dataclasses
import functools
import gzip
import io
import os
import pathlib
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32

from voc2vec_jax import audio, errors
from voc2vec_jax.datasets import folder_walk
from voc2vec_jax.runs import files as run_files

TAR_SUFFIXES = (".tar", ".tgz", ".tar.gz")
ARCHIVE_SUFFIXES = (".zip", *TAR_SUFFIXES)
# Audio that is not read: it is locked, or no decoder is at hand.
UNSUPPORTED = (".m4p", ".aax", ".aa", ".silk", ".slk", ".ds2", ".dvf", ".msv", ".mid")

_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)


@dataclasses.dataclass(frozen=True)
class FolderTree:
    """A folder of files, as `folder_walk.Walk` finds them."""

    root: pathlib.Path

    def files(self) -> Iterator[tuple[str, int]]:
        """(posix path below the root, bytes) of every file, in no particular order."""
        for name, entry in folder_walk.Walk(os.fspath(self.root)).files():
            yield name, folder_walk.look(entry)[0]

    def head(self, name: str, count: int) -> bytes:
        """The first bytes of a file; b"" if it cannot be read."""
        try:
            with (self.root / name).open("rb") as file:
                return file.read(count)
        except OSError:
            return b""

    def load(
        self, locator: str, how: audio.Reading = audio.DEFAULT, remark: audio.Remark | None = None
    ) -> Float32[np.ndarray, " s"]:
        """The recording at a path below the root (or an absolute one), as `audio.load`."""
        return audio.load(self.root / locator, locator, how, remark)

    def file(self, locator: str) -> str:
        """The path of a recording."""
        return os.path.join(self.root, locator)

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        try:
            return (self.root / name).read_bytes()
        except OSError as error:
            raise errors.InputError(f"{self.root / name} cannot be read ({error.strerror})") from error


@dataclasses.dataclass(frozen=True)
class ZipTree:
    """A zip archive, read in place; `errors.InputError` if it is damaged or an entry leaves the folder."""

    root: pathlib.Path

    def files(self) -> Iterator[tuple[str, int]]:
        """(name with forward slashes, unpacked bytes) of every member."""
        for name, member in self._members.items():
            if not member.is_dir() and not any(folder_walk.is_hidden(part) for part in name.split("/")):
                yield name, member.file_size

    def head(self, name: str, count: int) -> bytes:
        """The first bytes of a member; b"" if it cannot be unpacked."""
        try:
            with self._archive.open(self._members[name]) as file:
                return file.read(count)
        except _ZIP_ERRORS:
            return b""

    def load(
        self, locator: str, how: audio.Reading = audio.DEFAULT, remark: audio.Remark | None = None
    ) -> Float32[np.ndarray, " s"]:
        """The recording that is a member of the archive, as `audio.load`."""
        try:
            data = self._archive.read(self._members[locator])
        except _ZIP_ERRORS as error:
            raise audio.AudioError(locator, f"cannot be unpacked ({error})") from error
        return audio.load(io.BytesIO(data), locator, how, remark)

    def file(self, locator: str) -> str:
        """The archive, whichever the recording."""
        del locator
        return str(self.root)

    def read(self, name: str) -> bytes:
        """The bytes of a member."""
        try:
            return self._archive.read(self._members[name])
        except _ZIP_ERRORS as error:
            raise errors.InputError(f"{name} of {self.root} cannot be unpacked ({error}): download it again") from error

    @functools.cached_property
    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.root)
        except (zipfile.BadZipFile, EOFError) as error:
            raise _damaged(self.root, "zip", error) from error
        except OSError as error:
            raise errors.InputError(
                f"{self.root} cannot be opened ({error.strerror}): check its permissions"
            ) from error

    @functools.cached_property
    def _members(self) -> dict[str, zipfile.ZipInfo]:
        return {_checked(self.root, member.filename): member for member in self._archive.infolist()}

    def __reduce__(self):
        return _restored, (ZipTree, self.root)


@dataclasses.dataclass(frozen=True)
class TarTree:
    """A tar archive, read in place; a compressed one is first decompressed to a hidden tar beside it.

    Links and devices in it are ignored; `errors.InputError` if it is damaged or an entry leaves the folder.
    """

    root: pathlib.Path

    def files(self) -> Iterator[tuple[str, int]]:
        """(name with forward slashes, bytes) of every member."""
        for name, member in self._members.items():
            if member.isfile() and not any(folder_walk.is_hidden(part) for part in name.split("/")):
                yield name, member.size

    def no_files(self) -> dict[str, str]:
        """What the archive holds besides files and folders."""
        return {
            name: "a link in the archive" if member.issym() or member.islnk() else "no file"
            for name, member in self._members.items()
            if not member.isfile() and not member.isdir()
        }

    def head(self, name: str, count: int) -> bytes:
        """The first bytes of a member."""
        member = self._members[name]
        with self._plain.open("rb") as file:
            file.seek(member.offset_data)
            return file.read(min(count, member.size))

    def load(
        self, locator: str, how: audio.Reading = audio.DEFAULT, remark: audio.Remark | None = None
    ) -> Float32[np.ndarray, " s"]:
        """The recording that is a member of the archive, as `audio.load`."""
        return audio.load(io.BytesIO(self.read(locator)), locator, how, remark)

    def file(self, locator: str) -> str:
        """The archive, whichever the recording."""
        del locator
        return str(self.root)

    def read(self, name: str) -> bytes:
        """The bytes of a member."""
        return self.head(name, self._members[name].size)

    @functools.cached_property
    def _plain(self) -> pathlib.Path:
        if self.root.suffix.lower() == ".tar":
            return self.root
        stat = self.root.stat()
        plain = self.root.with_name(f".{self.root.name}.{stat.st_size}.{stat.st_mtime_ns}.tar")
        if not plain.exists():
            _decompress(self.root, plain)
        return plain

    @functools.cached_property
    def _members(self) -> dict[str, tarfile.TarInfo]:
        try:
            with tarfile.open(self._plain, "r:") as archive:
                members = archive.getmembers()
        except (tarfile.TarError, EOFError) as error:
            raise _damaged(self.root, "tar", error) from error
        except OSError as error:
            raise errors.InputError(
                f"{self.root} cannot be opened ({error.strerror}): check its permissions"
            ) from error
        return {_checked(self.root, member.name).removeprefix("./"): member for member in members}

    def __reduce__(self):
        return _restored, (TarTree, self.root)


@dataclasses.dataclass(frozen=True)
class UnionTree:
    """Several trees as one, for a set in several archives; the first tree wins where names are equal."""

    parts: tuple["Tree", ...]

    @property
    def root(self) -> pathlib.Path:
        """The root of the first tree."""
        return self.parts[0].root

    def files(self) -> Iterator[tuple[str, int]]:
        """(name, bytes) of every file of every tree; equal names come more than once."""
        for part in self.parts:
            yield from part.files()

    def load(
        self, locator: str, how: audio.Reading = audio.DEFAULT, remark: audio.Remark | None = None
    ) -> Float32[np.ndarray, " s"]:
        """The recording of that name, as `audio.load`."""
        return self._owner[locator].load(locator, how, remark)

    def file(self, locator: str) -> str:
        """The file that holds the recording of that name."""
        return self._owner[locator].file(locator)

    def read(self, name: str) -> bytes:
        """The bytes of the file of that name."""
        return self._owner[name].read(name)

    def head(self, name: str, count: int) -> bytes:
        """The first bytes of the file of that name."""
        return self._owner[name].head(name, count)

    @functools.cached_property
    def _owner(self) -> dict[str, "Tree"]:
        return {name: part for part in reversed(self.parts) for name, _ in part.files()}

    def __reduce__(self):
        return _restored, (UnionTree, self.parts)


Tree = FolderTree | ZipTree | TarTree | UnionTree


def archive_tree(path: pathlib.Path) -> ZipTree | TarTree:
    """The tree of an archive, chosen by its ending."""
    return TarTree(path) if path.name.lower().endswith(TAR_SUFFIXES) else ZipTree(path)


@functools.lru_cache(maxsize=16)
def _restored(kind: type, of: pathlib.Path | tuple["Tree", ...]) -> "Tree":
    """One tree for all jobs of a process, so that each process lists its contents only once."""
    return kind(of)


def is_audio(name: str) -> bool:
    """Whether a file name has an ending that `audio` reads."""
    return name.lower().endswith(audio.SUFFIXES)


def _checked(root: pathlib.Path, entry: str) -> str:
    """An archive's entry with forward slashes; `errors.InputError` if it leaves the folder."""
    name = entry.replace("\\", "/")
    if name.startswith("/") or ".." in name.split("/") or re.match("[A-Za-z]:", name):
        raise errors.InputError(f"{root} is refused: its entry {entry!r} leads out of the folder")
    return name


def _decompress(path: pathlib.Path, plain: pathlib.Path) -> None:
    try:
        with gzip.open(path) as packed, run_files.atomic(plain) as file:
            shutil.copyfileobj(packed, file, 1 << 20)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(path, "gzip", error) from error
    except OSError as error:
        raise errors.InputError(
            f"{path} cannot be unpacked beside itself ({error.strerror}): unpack it elsewhere and give that folder"
        ) from error


def _damaged(path: pathlib.Path, kind: str, error: Exception) -> errors.InputError:
    size = path.stat().st_size
    return errors.InputError(f"{path} ({size} bytes) is not a complete {kind} archive ({error}): download it again")
