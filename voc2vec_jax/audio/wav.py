"""Where the samples of a wav file end, by its header."""

import io
import os
import struct

# Lengths in the wav headers of writers that do not know the length, such as those that write to a pipe.
_UNKNOWN_LENGTHS = (0, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF)


def promised_bytes(file: io.IOBase) -> int:
    """Where a wav's data chunk should end, 0 if unknown. libsndfile silently shortens the chunk to what is there."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    form = file.read(12)
    if form[:4] not in (b"RIFF", b"RF64") or form[8:] != b"WAVE":
        return 0
    at, long_data = 12, 0
    while at + 8 <= size:
        file.seek(at)
        key, length = struct.unpack("<4sI", file.read(8))
        if key == b"ds64" and at + 24 <= size:
            _, long_data = struct.unpack("<QQ", file.read(16))
        if key == b"data":
            known = long_data or (0 if length in _UNKNOWN_LENGTHS else length)
            return at + 8 + known if known else 0
        at += 8 + length + (length & 1)
    return 0
