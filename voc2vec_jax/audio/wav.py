"""Where the samples of WAV, AIFF, AU, CAF and W64 files lie, whatever the sizes in their headers say.

Recorders and pipes leave sizes of 0 or of almost 2 or 4 GiB in headers, and decoders believe them. Here the chunks of a
file are walked. Where its header is not what is there, the decoder gets a small right one in front of the samples; the
file itself is never changed.
"""

import dataclasses
import functools
import io
import os
import re
import struct

from voc2vec_jax.audio import reading

MOST_CHUNKS = 10_000
LONGEST_RIFF = (1 << 32) - (1 << 16)  # bytes of samples; more need a header of another kind
JUNK_BYTES = 1 << 20  # in which libsndfile may look for samples behind what is no chunk, byte by byte
TAIL_BYTES = 1 << 16  # searched for chunks behind audio of unknown length
_NEAR = 1 << 16  # how far below 2 or 4 GiB a size may be that stands for "unknown"
_TAG_BYTES = 128  # an ID3v1 tag at the end is no audio
_KEYS = re.compile(
    rb"LIST|id3 |ID3 |bext|cue |smpl|fact|PEAK|iXML|fmt |JUNK|junk|PAD |inst|afsp|DISP|_PMX|COMM|free|info"
)
_IN_BLOCKS = (0x02, 0x11, 0x31)  # ADPCM of Microsoft and IMA, GSM: codings in blocks of which no part can be decoded
_NAME = re.compile(rb"[ -~]{4}")
_FILES = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"riff", b"caff")  # here begins another file
_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
_W64_FORM = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000"), b"wave" + _W64_TAIL


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the chunks of a file are written."""

    first: int  # where the first chunk begins
    size: str  # the format of a chunk's size
    about: bytes  # the name of the chunk that describes the samples
    samples: bytes  # the name of the chunk that holds them
    lead: int = 0  # bytes in that chunk before the samples
    counted: int = 0  # bytes of a chunk's own header that its size counts
    align: int = 2

    @functools.cached_property
    def head(self) -> int:
        """Bytes of a chunk's header."""
        return len(self.samples) + struct.calcsize(self.size)


RIFF = Layout(12, "<I", b"fmt ", b"data")
RIFX = Layout(12, ">I", b"fmt ", b"data")
AIFF = Layout(12, ">I", b"COMM", b"SSND", lead=8)
CAF = Layout(8, ">Q", b"desc", b"data", lead=4, align=1)
W64 = Layout(40, "<Q", b"fmt " + _W64_TAIL, b"data" + _W64_TAIL, counted=24, align=8)
AU = Layout(24, ">I", b"", b"")  # has no chunks


@dataclasses.dataclass
class Found:
    """What a walk over the chunks finds.

    bodies: the small chunks by name. at, stop: where the samples begin, and end as far as can be known.
    promised: where they end by the header, None if it does not say. end: where what is understood ends.
    plain: whether a decoder finds the samples by the header as it is.
    """

    bodies: dict[bytes, bytes]
    at: int = 0
    stop: int = 0
    promised: int | None = None
    end: int = 0
    plain: bool = True


def corrected(file: io.IOBase, reporter: reading.Reporter) -> io.IOBase:
    """The file at its beginning, or a view of it with a header that says where the samples are.

    Sizes that stand for "unknown" are taken for the rest of the file. Told are `truncated`, where the file ends before
    its header says, and `length`, where it holds more. Anything but these kinds of files is left as it is. AudioError
    for a file that ends before its first sample, and a WAV in which none is in sight.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(40)
    layout = _layout(start)
    if layout:
        found = _au(start, size) if layout is AU else _walked(file, size, layout)
        if layout in (RIFF, RIFX) and not found.at and not _is_near(layout.samples, file, found.end):
            raise reporter.error("cannot be decoded (no chunk of samples, named data, follows its header)")
        if found.at and (layout is AU or layout.about in found.bodies):
            _tell(file, size, found, reporter)
            if layout is AIFF:
                _tell_frames(start, found, reporter)
            if layout is RIFF:
                found.plain &= not _is_gsm(found.bodies[b"fmt "]) and not _widened(found)
            # libsndfile looks for long sizes in RF64 and nowhere else, and knows no BW64
            found.plain &= start[:4] != b"BW64" and (start[:4] == b"RF64") == (b"ds64" in found.bodies)
            found.stop = _last_block(layout, found)
            header = None if found.plain else _header(layout, start, found)
            if header:
                return View(file, header, found.at, found.stop)
    file.seek(0)
    return file


class View(io.RawIOBase):
    """A header, and behind it the bytes of another file from `first` to `stop`. Only for reading."""

    def __init__(self, file: io.IOBase, header: bytes, first: int, stop: int):
        self._file, self._header, self._first = file, header, first
        self._size, self._at = len(header) + stop - first, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer) -> int:
        wanted = max(0, min(len(buffer), self._size - self._at))
        if self._at < len(self._header):
            data = self._header[self._at : self._at + wanted]
        else:
            self._file.seek(self._first + self._at - len(self._header))
            data = self._file.read(wanted)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def part(file: io.IOBase, first: int, stop: int) -> io.BufferedReader:
    """The bytes of an open file from `first` to `stop` as a file of their own."""
    return io.BufferedReader(View(file, b"", first, stop))


def _layout(start: bytes) -> Layout | None:
    if start[8:12] == b"WAVE":
        return {b"RIFF": RIFF, b"RF64": RIFF, b"BW64": RIFF, b"RIFX": RIFX}.get(start[:4])
    if start[:4] == b"FORM":
        return AIFF if start[8:12] in (b"AIFF", b"AIFC") else None
    if start[:4] == b"riff":
        return W64 if start[24:40] == b"wave" + _W64_TAIL else None
    return {b"caff": CAF, b".snd": AU, b"dns.": AU}.get(start[:4])


def _is_near(name: bytes, file: io.IOBase, at: int) -> bool:
    file.seek(at)
    return name in file.read(JUNK_BYTES)


def _walked(file: io.IOBase, size: int, layout: Layout) -> Found:
    """The chunks of a file, up to its end or to what is none."""
    found = Found({}, end=layout.first)
    for _ in range(MOST_CHUNKS):
        chunk = _chunk(file, size, layout, found.end)
        if chunk is None or chunk[0] == layout.samples and found.at:
            break
        name, at, stop = chunk
        if name == layout.samples:
            found.plain &= layout.about in found.bodies
            found.at = min(at + layout.lead, size)
            found.promised = _promised(found, at, stop, layout)
            found.stop = stop = _stop(file, size, layout, found)
        elif name in (layout.about, b"ds64"):
            file.seek(at)
            found.bodies.setdefault(name, file.read(min(stop - at, 1 << 12)))
        padded = layout.first + -(-(stop - layout.first) // layout.align) * layout.align
        unpadded = stop < padded and not _chunk(file, size, layout, padded) and bool(_chunk(file, size, layout, stop))
        found.plain &= not unpadded
        found.end = stop if unpadded else padded
    return found


def _chunk(file: io.IOBase, size: int, layout: Layout, at: int) -> tuple[bytes, int, int] | None:
    """(name, where its body begins, where it ends) of a chunk; None where none can be.

    Only the chunk with the samples may end behind the file.
    """
    if at + layout.head > size:
        return None
    file.seek(at)
    head = file.read(layout.head)
    name, length = head[: len(layout.samples)], struct.unpack(layout.size, head[len(layout.samples) :])[0]
    stop = at + layout.head + max(0, length - layout.counted)
    if name != layout.samples and (stop > size or name[:4] in _FILES or not _NAME.match(name)):
        return None
    return name, at + layout.head, stop


def _promised(found: Found, at: int, stop: int, layout: Layout) -> int | None:
    """Where the samples end by the header, None if it does not know."""
    length = stop - at
    if length == 0xFFFFFFFF and len(found.bodies.get(b"ds64", b"")) >= 16:
        length = struct.unpack_from("<Q", found.bodies[b"ds64"], 8)[0]
    return at + length if _is_known(length - layout.lead) else None


def _is_known(length: int) -> bool:
    """Whether a length is none of those that stand for "unknown": 0, about 2 or 4 GiB, or beyond all files."""
    near = abs(length - (1 << 31)) <= _NEAR or abs(length - (1 << 32)) <= _NEAR
    return 0 < length < 1 << 62 and not near


def _stop(file: io.IOBase, size: int, layout: Layout, found: Found) -> int:
    """Where the samples end: where the header says if that can be, else before the chunks at the end of the file."""
    if found.promised is not None and found.promised <= size:
        if size - found.promised < 1 << 32:
            return found.promised
        # A length of more than 4 GiB loses its upper bits in a header of 32
        last = _tail(file, size, layout, found.at)
        if layout.size[1] == "I" and (last - found.promised) % (1 << 32) <= 1:
            found.plain = False
            return last
        return found.promised
    found.plain = False
    return _tail(file, size, layout, found.at)


def _last_block(layout: Layout, found: Found) -> int:
    """Where the samples end without the part of a block that a file has which ends early: it decodes to noise."""
    about = found.bodies.get(layout.about, b"")
    early = found.promised is None or found.promised > found.stop
    if not early or layout.about[:4] != b"fmt " or len(about) < 14:
        return found.stop
    tag, block = (struct.unpack_from(layout.size[0] + "H", about, place)[0] for place in (0, 12))
    return found.stop - (found.stop - found.at) % block if tag in _IN_BLOCKS and block else found.stop


def _tail(file: io.IOBase, size: int, layout: Layout, at: int) -> int:
    """Where the chunks begin that end with the file, not before `at`; the file's end if there are none."""
    first = max(at, size - TAIL_BYTES)
    file.seek(first)
    for match in _KEYS.finditer(file.read(size - first)):
        begin = end = first + match.start()
        while chunk := _chunk(file, size, layout, end):
            end = chunk[2] + ((chunk[2] - begin) % layout.align and layout.align - (chunk[2] - begin) % layout.align)
        if begin < end and size <= end <= size + layout.align:
            return begin
    return size


def _au(start: bytes, size: int) -> Found:
    offset, length = struct.unpack_from((">" if start[:1] == b"." else "<") + "II", start, 4)
    if not AU.first <= offset <= size:
        return Found({})
    promised = offset + length if _is_known(length) else None
    plain = promised is not None and promised <= size
    stop = promised if plain else size
    return Found({}, offset, stop, promised, stop, plain)


def _tell(file: io.IOBase, size: int, found: Found, reporter: reading.Reporter) -> None:
    """Tells of samples that are missing at the end of the file, and of bytes that are too many there."""
    if found.promised is not None and found.promised > size:
        text = f"is truncated: its header promises {found.promised} bytes, {size} are there"
        if found.at >= size:
            raise reporter.error(text)
        reporter.ends_early(text)
    if size - found.end > _TAG_BYTES and _goes_on(file, found.end):
        found.plain = False
        reporter.tell(
            "length", f"goes on for {size - found.end} bytes after the end of its audio by its header: not read"
        )


def _goes_on(file: io.IOBase, at: int) -> bool:
    """Whether anything but zeros follows from there on."""
    file.seek(at)
    return bool(file.read(TAIL_BYTES).strip(b"\0"))


def _tell_frames(start: bytes, found: Found, reporter: reading.Reporter) -> None:
    """Tells where the two lengths of an AIFF disagree. As many frames are read as there are bytes for."""
    about = found.bodies[b"COMM"]
    if len(about) < 18 or start[11:12] == b"C" and about[18:22] not in (b"NONE", b"sowt", b"twos"):
        return
    channels, frames, bits = struct.unpack_from(">HIH", about)
    there = (found.stop - found.at) // max(1, channels * -(-bits // 8))
    if found.promised is None or found.promised > found.stop or not _is_known(frames):
        return
    if frames > there:
        reporter.ends_early(f"is truncated: its header promises {frames} frames, {there} are there")
    elif frames < there:
        reporter.tell("length", f"holds {there} frames, and its header gives {frames}: all are read")


def _header(layout: Layout, start: bytes, found: Found) -> bytes | None:
    """A header that says where the samples are; None where none can."""
    length = found.stop - found.at
    if layout is CAF and found.bodies[b"desc"][8:12] not in (b"lpcm", b"ulaw", b"alaw"):
        return None  # other codings need more than these chunks
    if layout is AU:
        order = ">" if start[:1] == b"." else "<"
        return start[:4] + struct.pack(order + "II", AU.first, min(length, 0xFFFFFFFF)) + start[12:24]
    about = found.bodies[layout.about]
    if layout is RIFF and (_is_gsm(about) or length > LONGEST_RIFF):
        layout = W64
    head = _chunk_of(layout, layout.about, about)
    head += _chunk_of(layout, layout.samples, bytes(layout.lead), layout.lead + length)
    if layout is CAF:
        return start[:8] + head
    if layout is W64:
        return _W64_FORM[0] + struct.pack("<Q", layout.first + len(head) + length) + _W64_FORM[1] + head
    if length > LONGEST_RIFF:
        return None
    magic = b"RIFF" if layout is RIFF else start[:4]
    return magic + struct.pack(layout.size, 4 + len(head) + length) + start[8:12] + head


def _widened(found: Found) -> bool:
    """Whether samples of 24 bits lie in 4 bytes each; the header for the decoder then says 32 bits.

    They fill the upper bytes, and libsndfile guesses by the samples whether they are 3 or 4 bytes apart.
    """
    about = found.bodies[b"fmt "]
    if len(about) < 16:
        return False
    tag, channels, rate_hz, per_second, block, bits = struct.unpack_from("<HHIIHH", about)
    if (tag, bits, block, per_second) != (1, 24, 4 * channels, 4 * channels * rate_hz):
        return False
    found.bodies[b"fmt "] = about[:14] + struct.pack("<H", 32) + about[16:]
    return True


def _is_gsm(about: bytes) -> bool:
    """Whether a `fmt ` chunk is that of GSM; libsndfile takes the pad byte for a block in WAV, and not in W64."""
    return about[:2] == b"\x31\0"


def _chunk_of(layout: Layout, name: bytes, body: bytes, length: int | None = None) -> bytes:
    """A chunk, or as much of it as `body` where it is `length` bytes long."""
    size = len(body) if length is None else length
    padding = b"" if length else bytes(-len(body) % layout.align)
    return name + struct.pack(layout.size, size + layout.counted) + body + padding
