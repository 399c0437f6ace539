"""The files of a data set: a folder, an archive or several of them, read in place."""

import contextlib
import dataclasses
import functools
import gzip
import io
import lzma
import os
import pathlib
import re
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

import numpy as np
from jaxtyping import Float32

from voc2vec_jax import audio, errors, opening, printable
from voc2vec_jax.datasets import folder_walk, listings
from voc2vec_jax.runs import files as run_files

TAR_SUFFIXES = (".tar", ".tgz", ".tar.gz")
ARCHIVE_SUFFIXES = (".zip", *TAR_SUFFIXES)
# Audio that is not read: it is locked, or no decoder is at hand.
UNSUPPORTED = (".m4p", ".aax", ".aa", ".silk", ".slk", ".ds2", ".dvf", ".msv", ".mid")

# An archive may expand to so many times its own bytes, or to this much; then it is made to fill a disk or a memory.
MOST_TIMES, MOST_BYTES = 20, 1 << 28
# It may hold so many members, or one for so many of its bytes; names and empty files compress to nothing.
MOST_MEMBERS, LEAST_MEMBER_BYTES = 20_000, 256
LONGEST_PATH, LONGEST_NAME = 4096, 255  # characters, as file systems have them
LONGEST_HEADER = 1 << 18  # bytes, of a tar; for the names of one file and what systems add to it
IN_MEMORY_BYTES = 1 << 25  # a longer member is unpacked to a temporary file
BLOCK_BYTES = 1 << 20

_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, RuntimeError, ValueError),
    *(OverflowError, MemoryError),
)
_TAR_ERRORS = (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError, MemoryError)


@dataclasses.dataclass(frozen=True)
class FolderTree(listings.Loader):
    """A folder of files, as `folder_walk.Walk` finds them."""

    root: pathlib.Path

    def files(self) -> Iterator[tuple[str, int]]:
        """(posix path below the root, bytes) of every file, in no particular order."""
        for name, entry in folder_walk.Walk(os.fspath(self.root)).files():
            yield name, folder_walk.look(entry)[0]

    def head(self, name: str, count: int) -> bytes:
        """The first bytes of a file; b"" if it cannot be read."""
        try:
            with opening.regular(self.root / name) as file:
                return file.read(count)
        except OSError:
            return b""

    def stream(
        self, locator: str, how: audio.Reading = audio.DEFAULT, remark: audio.Remark | None = None
    ) -> Iterator[Float32[np.ndarray, " _"]]:
        """The recording at a path below the root (or an absolute one), as `audio.stream`."""
        return audio.stream(self.root / locator, locator, how, remark, kept=True)

    def file(self, locator: str) -> str:
        """The path of a recording."""
        return os.path.join(self.root, locator)

    def read(self, name: str) -> bytes:
        """The bytes of a file."""
        try:
            return opening.read_bytes(self.root / name)
        except OSError as error:
            raise errors.InputError(f"{self.root / name} cannot be read ({error.strerror})") from error


@dataclasses.dataclass(frozen=True)
class ZipTree(listings.Loader):
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
            with self._archive.open(self._member(name)) as file:
                return file.read(count)
        except _ZIP_ERRORS:
            return b""

    def stream(
        self, locator: str, how: audio.Reading = audio.DEFAULT, remark: audio.Remark | None = None
    ) -> Iterator[Float32[np.ndarray, " _"]]:
        """The recording that is a member of the archive, as `audio.stream`."""
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(self._unpacked(locator))
            except _ZIP_ERRORS as error:
                raise audio.AudioError(locator, f"cannot be unpacked ({error})") from error
            yield from audio.stream(file, locator, how, remark, kept=True)

    def file(self, locator: str) -> str:
        """The archive, whichever the recording."""
        del locator
        return str(self.root)

    def read(self, name: str) -> bytes:
        """The bytes of a member."""
        try:
            with self._unpacked(name) as file:
                return file.read()
        except _ZIP_ERRORS as error:
            raise errors.InputError(f"{name} of {self.root} cannot be unpacked ({error}): download it again") from error

    def _member(self, name: str) -> zipfile.ZipInfo:
        """A member that can be unpacked; OSError for another, and for one that expands beyond measure."""
        member = self._members[name]
        if member.flag_bits & 1:
            raise OSError("it is encrypted")
        if member.file_size > _most_bytes(member.compress_size):
            raise OSError(f"{member.compress_size:,} bytes would expand to {member.file_size:,}")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # 600 bytes of bzip2 are 600 MB, and the library expands at once what it has read
            raise OSError("it is neither stored nor deflated: unpack the archive and give the folder")
        return member

    def _unpacked(self, name: str) -> io.IOBase:
        """A member as an open file, in memory if it is short."""
        member = self._member(name)
        file = io.BytesIO() if member.file_size <= IN_MEMORY_BYTES else tempfile.TemporaryFile()  # noqa: SIM115
        try:
            with self._archive.open(member) as packed:
                while block := packed.read(BLOCK_BYTES):
                    file.write(block)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    @functools.cached_property
    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(opening.checked(self.root))
        except OSError as error:
            raise _closed(self.root, error) from error
        except _ZIP_ERRORS as error:
            raise _damaged(self.root, "zip", error) from error

    @functools.cached_property
    def _members(self) -> dict[str, zipfile.ZipInfo]:
        members = self._archive.infolist()
        expanded, size = sum(member.file_size for member in members), self.root.stat().st_size
        if expanded > _most_bytes(size):
            raise _bomb(self.root, size, f"{expanded:,} bytes")
        return {_checked(self.root, member.filename): member for member in members}

    def __reduce__(self):
        return _restored, (ZipTree, self.root)


@dataclasses.dataclass(frozen=True)
class TarTree(listings.Loader):
    """A tar archive, read in place; a compressed one is first decompressed to a hidden tar beside it.

    Links and devices in it are ignored; `errors.InputError` if it is damaged or an entry leaves the folder.
    """

    root: pathlib.Path

    def files(self) -> Iterator[tuple[str, int]]:
        """(name with forward slashes, bytes) of every member."""
        for name, member in self._members.items():
            if _is_file(member) and not any(folder_walk.is_hidden(part) for part in name.split("/")):
                yield name, member.size

    def no_files(self) -> dict[str, str]:
        """What the archive holds besides files and folders."""
        return {
            name: "a link in the archive" if member.issym() or member.islnk() else "no file"
            for name, member in self._members.items()
            if not _is_file(member) and not member.isdir()
        }

    def head(self, name: str, count: int) -> bytes:
        """The first bytes of a member."""
        member = self._members[name]
        with opening.regular(self._plain) as file:
            file.seek(member.offset_data)
            return file.read(max(0, min(count, member.size, self._plain.stat().st_size - member.offset_data)))

    def stream(
        self, locator: str, how: audio.Reading = audio.DEFAULT, remark: audio.Remark | None = None
    ) -> Iterator[Float32[np.ndarray, " _"]]:
        """The recording that is a member of the archive, as `audio.stream`; it is read in place."""
        member = self._members[locator]
        with opening.regular(self._plain) as file:
            inside = audio.part(file, member.offset_data, member.offset_data + member.size)
            yield from audio.stream(inside, locator, how, remark, kept=True)

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
        plain = self._plain
        try:
            with opening.regular(plain) as file, tarfile.open(fileobj=_Headers(file), mode="r:") as archive:
                members = {_checked(self.root, member.name): member for member in self._in_order(archive)}
        except OSError as error:
            raise _closed(self.root, error) from error
        except _TAR_ERRORS as error:
            if plain != self.root:
                plain.unlink(missing_ok=True)
            raise error if isinstance(error, errors.InputError) else _damaged(self.root, "tar", error) from error
        return {name.removeprefix("./"): member for name, member in members.items()}

    def _in_order(self, archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
        """Every member; ReadError for one that does not lie behind the one before, as negative sizes make them."""
        end, count, size = -1, 0, self.root.stat().st_size
        while (member := archive.next()) is not None:
            count += 1
            if count > max(MOST_MEMBERS, size // LEAST_MEMBER_BYTES):
                raise _bomb(self.root, size, f"{count:,} files")
            if member.offset <= end or member.offset_data <= member.offset or member.size < 0:
                raise tarfile.ReadError("its members do not follow each other")
            end, member.pax_headers = member.offset, {}  # each has a copy of what stands before them all
            yield member

    def __reduce__(self):
        return _restored, (TarTree, self.root)


@dataclasses.dataclass(frozen=True)
class UnionTree(listings.Loader):
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

    def stream(
        self, locator: str, how: audio.Reading = audio.DEFAULT, remark: audio.Remark | None = None
    ) -> Iterator[Float32[np.ndarray, " _"]]:
        """The recording of that name, as `audio.stream`."""
        return self._owner[locator].stream(locator, how, remark)

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
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name):
        raise errors.InputError(f"{root} is refused: its entry {printable.value(entry)} leads out of the folder")
    if len(name) > LONGEST_PATH or max(map(len, parts)) > LONGEST_NAME:
        raise errors.InputError(
            f"{root} is refused: its entry {printable.value(entry)} has a name that is longer than that of any file"
        )
    return name


class _Headers:
    """An open tar of which headers alone are read, none of them long: one may claim any number of fields."""

    def __init__(self, file: IO[bytes]):
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, count: int) -> bytes:
        if count > LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {count} bytes")
        return self._file.read(count)


def _is_file(member: tarfile.TarInfo) -> bool:
    """Whether a member lies in the archive as it is: a sparse one may claim any size."""
    return member.isfile() and not member.issparse()


def _most_bytes(packed: int) -> int:
    return max(MOST_BYTES, MOST_TIMES * packed)


def _decompress(path: pathlib.Path, plain: pathlib.Path) -> None:
    try:
        with opening.regular(path) as source, gzip.open(source) as packed, run_files.atomic(plain) as file:
            written, size = 0, path.stat().st_size
            while block := packed.read(BLOCK_BYTES):
                written += len(block)
                if written > _most_bytes(size):
                    raise _bomb(path, size, f"{written:,} bytes")
                file.write(block)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(path, "gzip", error) from error
    except OSError as error:
        raise errors.InputError(
            f"{path} cannot be unpacked beside itself ({error.strerror}): unpack it elsewhere and give that folder"
        ) from error


def _bomb(path: pathlib.Path, size: int, expanded: str) -> errors.InputError:
    return errors.InputError(
        f"{path} ({size:,} bytes) is refused: it expands to {expanded} or more, which recordings do not; if "
        "you trust it, unpack it and give the folder"
    )


def _closed(path: pathlib.Path, error: OSError) -> errors.InputError:
    return errors.InputError(f"{path} cannot be opened ({error.strerror or error}): check it and its permissions")


def _damaged(path: pathlib.Path, kind: str, error: Exception) -> errors.InputError:
    size = path.stat().st_size
    return errors.InputError(f"{path} ({size} bytes) is not a complete {kind} archive ({error}): download it again")
