"""Standard output and error that may be closed: what is printed is lost then, and nothing else changes."""

import errno
import io
import os
import sys
from typing import Any

_CLOSED = (errno.EPIPE, errno.EIO, errno.EBADF)  # a reader that left, a terminal that is gone, no file
_faults: list[str] = []


class _Lasting(io.FileIO):
    """A stream whose writes never raise. Once it cannot be written, it is the null device."""

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            if self.fileno() == 1 and error.errno not in _CLOSED:
                _faults.append(os.strerror(error.errno))
            _open_null(self.fileno())
            return memoryview(data).nbytes


def keep() -> None:
    """Make `sys.stdout` and `sys.stderr` streams whose writes never raise, and open those that are closed.

    A closed one would be taken by the next file that is opened, and what libraries print would be written into that.
    Streams that are neither 1 nor 2 of this process, such as those of a test, stay as they are.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            _open_null(number)
    sys.stdout, sys.stderr = _lasting(sys.stdout, 1), _lasting(sys.stderr, 2)


def lost() -> str | None:
    """Why something printed on stdout is lost, though somebody waits for it; None for a closed stream."""
    return _faults[0] if _faults else None


def _open_null(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
    os.set_inheritable(number, True)


def _lasting(stream: Any, number: int) -> Any:
    if stream is None:  # it was closed when Python began
        return io.TextIOWrapper(io.BufferedWriter(_Lasting(number, "w", closefd=False)), "utf-8", line_buffering=True)
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    if type(raw) is not io.FileIO or raw.fileno() != number:
        return stream
    stream.flush()
    lasting = _Lasting(number, "w", closefd=False)
    return io.TextIOWrapper(
        lasting if buffer is raw else io.BufferedWriter(lasting),
        stream.encoding,
        stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
