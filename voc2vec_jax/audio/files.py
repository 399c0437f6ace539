"""A file as the C code of a decoder sees it."""

import io
import os

BUFFER_BYTES = 1 << 16  # C code asks for few bytes at a time, and each time Python is called


class Calm(io.BufferedReader):
    """Seeking to where there is nothing changes nothing, and closing leaves the file open.

    An error would be printed and not raised, as it is C code that calls.
    """

    def __init__(self, file: io.IOBase):
        super().__init__(file, BUFFER_BYTES)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The place afterwards."""
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return self.tell()

    def close(self) -> None:
        """Nothing: the file belongs to whom opened it."""
