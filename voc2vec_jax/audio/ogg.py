"""The links of an Ogg file: complete streams, one after the other. RFC 3533."""

import dataclasses
import io
import os

_HEADER_BYTES = 27
_SEARCH_BYTES = 1 << 16
_CONTINUED, _BEGIN, _END = 1, 2, 4


@dataclasses.dataclass
class Link:
    """Bytes `start` to `stop` of a file; `early` says in words how it ends before its last page, "" if it does not."""

    start: int
    stop: int
    early: str = "its last page is missing"


def links(file: io.IOBase) -> list[Link]:
    """The links of an open Ogg file, by the headers of its pages; what lies between pages is passed over."""
    found: list[Link] = []
    at, in_headers, size = 0, False, file.seek(0, os.SEEK_END)
    while at < size:
        file.seek(at)
        header = file.read(_HEADER_BYTES + 255)
        if header[:4] != b"OggS" or len(header) < _HEADER_BYTES:
            at = _next_page(file, at + 1)
            continue
        flags, count = header[5], header[26]
        stop = at + _HEADER_BYTES + count + sum(header[_HEADER_BYTES : _HEADER_BYTES + count])
        begins = bool(flags & _BEGIN)
        if not found or (begins and not in_headers):
            found.append(Link(at, at))
        in_headers = begins
        link = found[-1]
        link.stop = min(stop, size)
        if stop > size:
            link.early = "its last page is cut off"
        elif flags & _END:
            link.early = ""
        at = stop
    return found


def _next_page(file: io.IOBase, at: int) -> int:
    """Where the next page begins; the end of the file if there is none."""
    while True:
        file.seek(at)
        block = file.read(_SEARCH_BYTES)
        if (place := block.find(b"OggS")) >= 0:
            return at + place
        if len(block) < _SEARCH_BYTES:
            return at + len(block)
        at += len(block) - 3
