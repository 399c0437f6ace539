"""What is odd about the packets of a recording that FFmpeg decodes: cut short, damaged, with gaps."""

import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

from voc2vec_jax.audio import mpeg, reading

_MOST_ERRORS = 10
SLACK_SECONDS = 0.1  # by which a length in a header may differ from the decoded one: rounded times, padding
_HEADERS_KNOW = ("mov", "wav", "w64", "aiff", "au", "caf", "flac", "ape", "wv", "tta", "dsf")
_HEAD_BYTES = 16
_TAGS = (b"APETAGEX", b"LYRICSBEGIN", b"TAG", b"ID3")
_LEAST_GAPS = {"mov": 0.01, "matroska": SLACK_SECONDS}  # s; in others, times are estimates


class Watch:
    """Follows the packets of one track from first to last, and reports on them at the end."""

    def __init__(self, file: io.IOBase, container: Any, stream: Any):
        self._file, self._container, self._stream = file, container, stream
        self._name = container.format.name.split(",")[0]
        self._least_gap = _LEAST_GAPS.get(self._name, math.inf)
        self._tick = float(stream.time_base)  # s, the time base
        self._first_byte: int | None = None
        self._begin()

    def restart(self) -> None:
        """Begins anew after a jump to another place, where the first packets may need bytes before it."""
        self._begin(jumped=True)

    def _begin(self, jumped: bool = False) -> None:
        self._jumped = jumped
        self.origin: int | None = None  # time of the first frame, in time bases
        self._end = 0.0  # s, when the last frame ends by its time
        self._there = 0.0  # s, of all frames
        self._packets = self._frames = 0
        self._bad = self._bad_bytes = 0
        self._bad_in_a_row = 0
        self._run_bytes, self._run_head = 0, b""  # of the packets in that row: all bytes, and how it begins
        self._gaps = 0.0  # s
        self._last: Any = None
        self._stopped = False

    def packets(self, error: type[Exception]) -> Iterator[Any]:
        """The packets of the track; what an `error` of FFmpeg hides is passed over, and some in a row end them."""
        in_a_row = 0
        while in_a_row < _MOST_ERRORS:
            try:
                for packet in self._container.demux(self._stream):
                    if packet.size:
                        if self._first_byte is None:
                            self._first_byte = packet.pos or 0
                        self._packets += 1
                        self._bad += bool(in_a_row)
                        self._last, in_a_row, self._stopped = packet, 0, False
                    yield packet
                return
            except error:
                in_a_row, self._stopped = in_a_row + 1, True

    def bad(self, packet: Any) -> None:
        """Counts a packet that cannot be decoded."""
        if packet.size and not (self._jumped and self.origin is None):
            self._bad += 1
            self._bad_bytes += packet.size
            if not self._bad_in_a_row:
                self._run_bytes, self._run_head = 0, bytes(packet)[:_HEAD_BYTES]
            self._run_bytes += packet.size
            self._bad_in_a_row += 1

    def good(self, packet: Any, frames: Sequence[Any]) -> None:
        """Follows the times of a packet's frames."""
        for frame in frames:
            self._frames += 1
            seconds = frame.samples / frame.sample_rate
            self._there += seconds
            if frame.pts is None:
                continue
            start = frame.pts * self._tick
            if self.origin is None:
                self.origin = frame.pts
            elif start - self._end > self._least_gap and not self._bad_in_a_row:
                self._gaps += start - self._end
            self._end = start + seconds
        if packet.size:
            self._bad_in_a_row = 0

    def padding(self, rate_hz: int, frames: int) -> int:
        """How many of the last `frames` are an encoder's padding, by the edit list of an MP4."""
        if self._name != "mov" or not self._stream.duration:
            return 0
        end = ((self._stream.start_time or 0) + self._stream.duration) * self._tick
        beyond = round((self._end - end) * rate_hz)
        return beyond if 0 < beyond < frames else 0

    def counts_samples(self, seconds: float) -> bool:
        """Whether the times of the file up to some place are those of its samples, if none is damaged."""
        if self._name == "mp3":
            # After the frames that a tag gives, FFmpeg leaves out padding: amid the file where files were joined
            at = self._file.tell()
            frames = mpeg.promised_frames(self._file, self._first_byte or 0)
            self._file.seek(at)
            return not frames or seconds < (frames - 1) * (self._last.duration or 0) * self._tick
        return self._name == "mov"

    def report(self, form: str, reporter: reading.Reporter) -> None:
        """Tells what was odd; AudioError where most packets cannot be decoded, or where cut recordings are refused."""
        if not self._frames:
            return
        if self._behind():
            self._tell_behind(reporter)
        elif 2 * self._bad > self._packets:
            raise reporter.error(f"is {form}, and {self._bad} of its {self._packets} packets cannot be decoded")
        if early := self._ends_early():
            reporter.ends_early(f"is truncated: {early}")
        promised = self._promised_seconds()
        if promised and self._end - promised > SLACK_SECONDS:
            reporter.tell("length", f"holds {self._there:.2f} s, and its header gives {promised:.2f} s: all are read")
        if self._bad > self._bad_in_a_row:
            size = f" ({self._bad_bytes} bytes)" if self._bad_bytes else ""
            damage = f"{self._bad} of its {self._packets} packets{size}"
            reporter.tell("damaged", f"is damaged: {damage} cannot be decoded and are left out")
        elif self._name == "flac" and promised and not early and promised - self._there > 0.002:
            missing = f"{promised - self._there:.2f} of the {promised:.2f} s that its header promises"
            reporter.tell("damaged", f"is damaged: {missing} cannot be decoded and are left out")
        if self._gaps:
            reporter.tell("gaps", f"its clock jumps by {self._gaps:.2f} s in all, for which it holds no sound")

    def _behind(self) -> bool:
        """Whether the file ends with bytes that are none of its audio."""
        if self._name == "mp3":
            return self._run_bytes > 0 < self._bad_in_a_row and not mpeg.frame_bytes(self._run_head)
        if self._name == "aac":
            return self._run_bytes > 0 < self._bad_in_a_row and mpeg.adts_bytes(self._run_head) <= self._run_bytes
        return False

    def _tell_behind(self, reporter: reading.Reporter) -> None:
        if not self._run_head.strip(b"\0"):
            reporter.ends_early(f"is truncated: its last {self._run_bytes} bytes are zeros, as in an unfinished copy")
        elif not self._run_head.startswith(_TAGS):
            reporter.tell("length", f"goes on for {self._run_bytes} bytes after the end of its audio: not read")

    def _ends_early(self) -> str:
        """What shows that the recording was cut short; "" if nothing does."""
        promised = self._promised_seconds()
        if promised and promised - self._end > SLACK_SECONDS:
            return f"its header promises {promised:.2f} s, {self._there:.2f} s are there"
        if self._bad_in_a_row and not self._behind() or self._stopped:
            return f"its last packets cannot be decoded, {self._there:.2f} s are there"
        if self._stream.codec_context.name.startswith(("mp3", "mp2")) and not self._bad_in_a_row:
            wanted, there = mpeg.frame_bytes(bytes(self._last)[:4]), self._last.size
            if there < wanted:
                return f"its last frame has {there} of {wanted} bytes, {self._there:.2f} s are there"
        return ""

    def _promised_seconds(self) -> float | None:
        """The length by a header or a tag; None where there is none, or only an estimate."""
        if self._name == "mp3":
            if self._jumped:
                return None
            frames = mpeg.promised_frames(self._file, self._first_byte or 0)
            lost = frames - self._packets
            frame_seconds = (self._last.duration or 0) * self._tick
            return self._end + lost * frame_seconds if frames else None
        if self._name == "matroska":
            several = len(self._container.streams) > 1
            return None if several or not self._container.duration else self._container.duration / 1e6
        if self._name in _HEADERS_KNOW and self._stream.duration:
            return ((self._stream.start_time or 0) + self._stream.duration) * self._tick
        return None


def why_not_opened(file: io.IOBase, kind: str) -> str:
    """Why FFmpeg may have failed to open a file that seems to be of some kind."""
    if kind == "MP4" and not _has_index(file):
        return "is MP4 without its index (moov): the recording or its copy was cut short"
    if kind:
        return f"seems to be {kind}, and FFmpeg cannot read it: it is damaged, or of a variant that is not read"
    file.seek(0)
    if not file.read(1 << 16).strip(b"\0"):
        return "begins with nothing but zero bytes, as an unfinished copy does"
    return "is in no format that is read (WAV, FLAC, MP3, M4A, Ogg, WebM and others are)"


def _has_index(file: io.IOBase) -> bool:
    """Whether an MP4 holds a box `moov`."""
    size, at = file.seek(0, io.SEEK_END), 0
    for _ in range(1000):
        file.seek(at)
        header = file.read(16)
        length, name = int.from_bytes(header[:4], "big"), header[4:8]
        if name == b"moov":
            return at + length <= size
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if len(header) < 8 or length < 8:
            return False
        at += length
    return False
