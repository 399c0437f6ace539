"""The only place that opens files for reading: a pipe is waited for without end, and a device may never end.

Whatever is to be read by path is opened by `regular`, or goes through `checked` where a library opens it itself.
"""

import errno
import io
import json
import os
import stat
from typing import IO, Any

from voc2vec_jax import errors, printable

MOST_BYTES = 1 << 28  # of a file that is read whole, such as a description; a sparse file may claim any size
_OF_SYSTEM_BYTES = 1 << 16  # files below /proc and /sys have no size
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NoFileError(errors.InputError, OSError):
    """A path that leads to a pipe, socket or device; `strerror` says to which."""

    def __init__(self, path: str, kind: str):
        errors.InputError.__init__(self, f"{path} is {kind} and no file: give a file")
        self.errno, self.strerror, self.filename = errno.EINVAL, f"it is {kind} and no file", path

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self):
        return NoFileError, (self.filename, self.strerror.removeprefix("it is ").removesuffix(" and no file"))


class LongFileError(errors.InputError, OSError):
    """A file that is longer than what is read whole."""

    def __init__(self, path: str, size: int, most: int):
        errors.InputError.__init__(self, f"{path} has {size:,} bytes, and {most:,} are read at most: check what it is")
        self.errno, self.strerror, self.filename = errno.EFBIG, f"it has {size:,} bytes, more than {most:,}", path
        self._of = size, most

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self):
        return LongFileError, (self.filename, *self._of)


def kind(mode: int) -> str:
    """What `st_mode` says that is neither a file nor a folder; "" for these two."""
    return _KINDS.get(stat.S_IFMT(mode), "")


def checked(path: str | os.PathLike) -> str:
    """The path, for a library that opens it; NoFileError for a pipe, socket or device. A folder passes, and nothing."""
    try:
        found = kind(os.stat(path).st_mode)
    except OSError:  # the library says what is wrong
        found = ""
    if found:
        raise NoFileError(os.fspath(path), found)
    return os.fspath(path)


def regular(path: str | os.PathLike, mode: str = "rb", **options: Any) -> IO[Any]:
    """A regular file open for reading; `mode` is "rb" or "r", `options` are those of `open`.

    It never waits. NoFileError for a pipe, socket or device, even one that takes the place of a file at this moment;
    any other OSError as `open`.
    """
    return open(path, mode, opener=_opener, **options)


def _opener(path: str, flags: int) -> int:
    checked(path)  # before opening: a device may act on that, and a socket gives no clear error
    handle = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if found := kind(os.fstat(handle).st_mode):
            raise NoFileError(os.fspath(path), found)
        os.set_blocking(handle, True)
    except BaseException:
        os.close(handle)
        raise
    return handle


def read_bytes(path: str | os.PathLike, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file. LongFileError for more than `most` bytes; else as `regular`."""
    with regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise LongFileError(os.fspath(path), size, most)
        return file.read(max(size, _OF_SYSTEM_BYTES))  # of a file that grows, what was there


def read_text(path: str | os.PathLike, encoding: str = "utf-8", errors: str = "strict", most: int = MOST_BYTES) -> str:
    """As `read_bytes`, decoded, with line ends as line feeds. ValueError for other text."""
    with io.TextIOWrapper(io.BytesIO(read_bytes(path, most)), encoding, errors) as text:
        return text.read()


def read_json(path: str | os.PathLike, most: int = MOST_BYTES) -> Any:
    """The value that a file of JSON holds, as `read_bytes`; ValueError for one that is damaged or nested too deep."""
    try:
        return json.loads(read_bytes(path, most))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_object(path: str | os.PathLike, most: int = MOST_BYTES) -> dict[str, Any]:
    """The object that a file of JSON holds. InputError for anything else, and for no file."""
    try:
        found = read_json(path, most)
    except errors.InputError:
        raise
    except OSError as fault:
        raise errors.InputError(f"{path} cannot be read: {fault.strerror}") from fault
    except ValueError as fault:
        raise errors.InputError(f"{path} is not readable JSON: {printable.name(str(fault), 100)}") from fault
    if not isinstance(found, dict):
        raise errors.InputError(f"{path} holds a {type(found).__name__} where an object is needed")
    return found
