"""The links of an Ogg file: complete streams, one after the other. RFC 3533."""

import dataclasses
import io
import os
import zlib

_HEADER_BYTES = 27
_PAGE_BYTES = _HEADER_BYTES + 255 + 255 * 255  # of the longest
_BEGIN, _END = 2, 4
_WINDOW_BYTES = 16 * _PAGE_BYTES
_MOST_TRIED = 10  # times the file, bytes of what begins like a page and is none: then the rest is not searched
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclasses.dataclass
class Link:
    """Bytes `start` to `stop` of a file, with `pages`, of which `damaged` ones are missing or fail their checksum.

    `early` says in words how it ends before its last page, "" if it does not.
    """

    start: int
    stop: int
    pages: int = 0
    damaged: int = 0
    early: str = "its last page is missing"


def links(file: io.IOBase) -> list[Link]:
    """The links of an open Ogg file, by its pages. Reads the file once."""
    found: list[Link] = []
    at, in_headers, next_numbers, size = 0, False, {}, file.seek(0, os.SEEK_END)
    base, window, tried = 0, b"", 0
    while at < size and tried <= _MOST_TRIED * size:
        if at + _PAGE_BYTES > base + len(window) < size:
            file.seek(at)
            base, window = at, file.read(_WINDOW_BYTES)
            if not window:
                break
        place = at - base
        length = _length(window, place)
        if length > len(window) - place and base + len(window) >= size and found:
            found[-1].early, found[-1].stop = "its last page is cut off", size
            break
        page = window[place : place + length]
        if not length or not _is_whole(page):
            tried += length
            following = window.find(b"OggS", place + 1)
            at = base + (following if following > 0 else max(place + 1, len(window) - 3))
            continue
        flags, serial, number = page[5], page[14:18], int.from_bytes(page[18:22], "little")
        if not found or (flags & _BEGIN and not in_headers):
            found.append(Link(at, at))
            next_numbers = {}
        in_headers = bool(flags & _BEGIN)
        link = found[-1]
        link.damaged += max(0, number - next_numbers.get(serial, number))
        next_numbers[serial] = number + 1
        link.pages += 1
        link.stop = at = at + length
        if flags & _END:
            link.early = ""
    return found


def _length(window: bytes, at: int) -> int:
    """How long the page that begins at a place of these bytes is by its header; 0 if none begins."""
    if window[at : at + 5] != b"OggS\0" or len(window) - at < _HEADER_BYTES:
        return 0
    segments = window[at + _HEADER_BYTES : at + _HEADER_BYTES + window[at + 26]]
    return _HEADER_BYTES + len(segments) + sum(segments)


def _is_whole(page: bytes) -> bool:
    """Whether the checksum of a page is right: a CRC of 32 bits that takes the upper bit of each byte first."""
    bare = page[:22] + bytes(4) + page[26:]
    # zlib has that polynomial with the lower bit first, and inverts before and after
    reflected = zlib.crc32(bare.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2) == int.from_bytes(page[22:26], "little")
