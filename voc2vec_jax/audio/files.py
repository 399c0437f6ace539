"""A file as the C code of a decoder sees it, and signals that come while it runs."""

import contextlib
import io
import os
import signal
import threading
from collections.abc import Iterator

BUFFER_BYTES = 1 << 16  # C code asks for few bytes at a time, and each time Python is called
CALLS = 100_000  # more than these, and one for each byte, are those of a loop without end
_BEHIND = 1 << 62
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Calm(io.BufferedReader):
    """Seeking to where there is nothing changes nothing, and closing leaves the file open.

    An error would be printed and not raised, as it is C code that calls. Once the file is `ended`, which too many calls
    do, there is nothing to read and the place is far behind the end: what C code waits for where it does not stop.
    """

    def __init__(self, file: io.IOBase):
        super().__init__(file, BUFFER_BYTES)
        self.ended = False
        self._calls = CALLS + super().seek(0, os.SEEK_END)
        super().seek(0)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The place afterwards."""
        if self._has_ended():
            return _BEHIND
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return super().tell()

    def tell(self) -> int:
        return _BEHIND if self._has_ended() else super().tell()

    def read(self, size: int | None = -1) -> bytes:
        return b"" if self._has_ended() else super().read(size)

    def readinto(self, buffer) -> int:
        return 0 if self._has_ended() else super().readinto(buffer)

    def close(self) -> None:
        """Nothing: the file belongs to whom opened it."""

    def end(self) -> None:
        """Give no more from here on."""
        self.ended = True

    def _has_ended(self) -> bool:
        self._calls -= 1
        self.ended = self.ended or self._calls < 0
        return self.ended


@contextlib.contextmanager
def stoppable(file: Calm) -> Iterator[None]:
    """C code that reads `file` runs within. A signal ends the file, and its handler runs after the code has returned.

    What a handler raises while C code calls Python is printed and lost.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        came.append(number)
        file.end()

    before = {number: handler for number in _SIGNALS if callable(handler := signal.getsignal(number))}
    for number in before:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            before[number](number, None)
