"""How long a FLAC is by its last frame: where its encoder wrote to a pipe, its header does not know.

The layout is that of RFC 9639. Where header and frames disagree, the decoder gets a header with the length of the
frames; the file itself is never changed.
"""

import functools
import io
import os
import re
from typing import NamedTuple

import numpy as np
import soundfile

from voc2vec_jax.audio import reading, wav

HEADER_BYTES = 42  # the marker and STREAMINFO
_BUFFER_BYTES = 1 << 16  # more than libFLAC reads ahead
_ANOTHER = "holds another FLAC from byte {} on, which is not read"
UNKNOWN = (0, (1 << 36) - 1)
_MOST_BLOCKS = 128  # of metadata before the first frame
_LEAST_HEADER_BYTES, _MOST_HEADER_BYTES = 6, 16
_TRIED = 4  # bytes at the end that look like a frame's header; where one is a frame's, more are not needed
_SYNC = re.compile(rb"\xff[\xf8\xf9]")
_WINDOWS = (1 << 16, 1 << 20, 1 << 23)  # bytes at the end of a file that are searched for frames


class Frame(NamedTuple):
    """A frame by its header: where it begins in the file, and the samples (of each channel) that it covers."""

    at: int
    first: int
    stop: int


def corrected(file: io.IOBase, reporter: reading.Reporter) -> io.IOBase:
    """The file at its beginning, or a view of it whose header has the right length.

    Told are `truncated`, where frames are missing at the end, and `length`, where there are more than the header says
    or another FLAC follows. Anything but FLAC is left as it is.
    """
    size = file.seek(0, os.SEEK_END)
    begin = _behind_tag(file)
    file.seek(begin)
    header = file.read(HEADER_BYTES)
    if header[:4] == b"fLaC" and len(header) == HEADER_BYTES:
        promised = int.from_bytes(header[21:26]) & UNKNOWN[1]
        least, most, block = (int.from_bytes(header[8:10]), int.from_bytes(header[10:12]), _block_frames(file, begin))
        lies = block and block != promised and least == most != block
        if lies:  # libFLAC takes frames from wrong places by it
            header = header[:8] + block.to_bytes(2) * 2 + header[12:]
        frames, whole = _last_frames(file, size, block or most)
        if frames and not (whole and frames[-1].stop == promised):
            return _mended(file, begin, size, header, frames, whole, reporter)
        if lies:
            return _with_length(file, begin, size, header, promised)
    file.seek(0)
    return file


def _mended(
    file: io.IOBase,
    begin: int,
    size: int,
    header: bytes,
    frames: list[Frame],
    whole: bool,
    reporter: reading.Reporter,
) -> io.IOBase:
    """The file with another length in its header: that of its frames without an incomplete last one."""
    if another := _another(file, begin + HEADER_BYTES, size):
        reporter.tell("length", _ANOTHER.format(another))
        return corrected(wav.View(file, b"", begin, another), reporter)
    promised, frames_there = int.from_bytes(header[21:26]) & UNKNOWN[1], frames[-1].stop
    view = _with_length(file, begin, size, header, frames_there)
    if not whole and not _decodes(view, frames[-1]):
        frames_there = frames[-1].first
        view = _with_length(file, begin, size, header, frames_there)
    if promised in UNKNOWN and frames_there < frames[-1].stop:
        reporter.ends_early(f"is truncated: it ends within a frame of its coding, {frames_there} frames are there")
    elif promised not in UNKNOWN and promised > frames_there:
        reporter.ends_early(f"is truncated: its header promises {promised} frames, {frames_there} are there")
    elif promised not in UNKNOWN and promised < frames_there:
        reporter.tell("length", f"holds {frames_there} frames, and its header gives {promised}: all are read")
    return view


def _with_length(file: io.IOBase, begin: int, size: int, header: bytes, frames: int) -> wav.View:
    length = (header[21] & 0xF0) << 32 | frames
    return wav.View(file, header[:21] + length.to_bytes(5) + header[26:], begin + HEADER_BYTES, size)


def _decodes(view: wav.View, frame: Frame) -> bool:
    """Whether a frame is there as a whole."""
    try:
        with soundfile.SoundFile(view) as flac:
            flac.seek(frame.first)
            return len(flac.read(frame.stop - frame.first)) == frame.stop - frame.first
    except (soundfile.LibsndfileError, RuntimeError):
        return False
    finally:
        view.seek(0)


def _behind_tag(file: io.IOBase) -> int:
    """Where a file begins, which an ID3 tag may precede."""
    file.seek(0)
    head = file.read(10)
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << 7 * (3 - k) for k, byte in enumerate(head[6:]))


def tell_another(file: io.IOBase, reporter: reading.Reporter) -> None:
    """Tells of a FLAC behind the one that was read to its end."""
    read = file.tell()
    begin = max(_behind_tag(file) + HEADER_BYTES, read - _BUFFER_BYTES)
    if another := _another(file, begin, file.seek(0, os.SEEK_END)):
        reporter.tell("length", _ANOTHER.format(another))


def _another(file: io.IOBase, at: int, size: int) -> int:
    """Where the next FLAC begins, 0 for nowhere."""
    while at < size:
        file.seek(at)
        data = file.read(1 << 20)
        found = data.find(b"fLaC\0\0\0\x22")
        if found >= 0:
            return at + found
        at += max(1, len(data) - 7)
    return 0


def _block_frames(file: io.IOBase, begin: int) -> int:
    """Samples of the first frame, which all but the last have where that is fixed; 0 where no frame is found."""
    at, last = begin + 4, False
    for _ in range(_MOST_BLOCKS):
        file.seek(at)
        head = file.read(4)
        if last or len(head) < 4:
            break
        last, at = bool(head[0] & 0x80), at + 4 + int.from_bytes(head[1:])
    file.seek(at)
    frame = _frame(file.read(_MOST_HEADER_BYTES), 0, at, 0) if last else None
    return frame.stop - frame.first if frame else 0


def _last_frames(file: io.IOBase, size: int, block_frames: int) -> tuple[list[Frame], bool]:
    """Frames near the end in order, the last one of the file at the end, and whether that one is whole by its CRC."""
    for window in _WINDOWS:
        begin = max(0, size - window)
        file.seek(begin)
        data = file.read(size - begin)
        end = len(data) - 128 if data[-128:-125] == b"TAG" else len(data)
        looks = [match.start() for match in _SYNC.finditer(data)]
        for at in looks[: -_TRIED - 1 : -1]:
            if (frame := _frame(data, at, begin, block_frames)) and _remainder(data[at:end]) == 0:
                return [frame], True
        frames = [frame for at in looks if (frame := _frame(data, at, begin, block_frames))]
        # Bytes of samples that look like a header do not continue the frame before them
        frames = [frame for k, frame in enumerate(frames) if frame.first == (frames[k - 1].stop if k else 0)]
        if frames:
            return frames, False
    return [], False


def _frame(data: bytes, at: int, begin: int, block_frames: int) -> Frame | None:
    """The frame that begins there in the bytes of a file from `begin` on; None for what is none."""
    head = data[at : at + _MOST_HEADER_BYTES]
    if len(head) < _LEAST_HEADER_BYTES:
        return None
    size, rate, channels, bits = head[2] >> 4, head[2] & 15, head[3] >> 4, head[3] >> 1 & 7
    if not size or rate == 15 or channels > 10 or bits == 3 or head[3] & 1:
        return None
    more = 8 - (head[4] ^ 0xFF).bit_length()  # ones that lead, as in UTF-8
    if more == 1 or more == 8:
        return None
    number, used = head[4] & (0x7F >> more), 5
    for byte in head[5 : 4 + max(1, more)]:
        number, used = number << 6 | byte & 0x3F, used + 1
    if size in (6, 7):
        samples = int.from_bytes(head[used : used + size - 5]) + 1
        used += size - 5
    else:
        samples = 192 if size == 1 else 576 << size - 2 if size < 6 else 256 << size - 8
    used += {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if used >= len(head) or _crc8(head[:used]) != head[used]:
        return None
    first = number if head[1] & 1 else number * block_frames
    return Frame(begin + at, first, first + samples)


def _crc8(data: bytes) -> int:
    """With x^8 + x^2 + x + 1."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc << 1 ^ (0x107 if crc & 0x80 else 0)
    return crc


def _remainder(data: bytes) -> int:
    """Of a frame and its CRC, divided by x^16 + x^15 + x^2 + 1: 0 if the frame is whole."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    powers = _powers(max(1 << 17, 1 << len(bits).bit_length()))
    return int(np.bitwise_xor.reduce(powers[len(powers) - len(bits) :] * bits))


@functools.lru_cache(maxsize=2)
def _powers(count: int) -> np.ndarray:
    """The remainders of x^(count - 1), ..., x, 1."""
    powers = [1]
    while (after := powers[-1] << 1 ^ (0x18005 if powers[-1] & 0x8000 else 0)) != 1:
        powers.append(after)
    return np.resize(np.array(powers, np.uint16), count)[::-1].copy()
