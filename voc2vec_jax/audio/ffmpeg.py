"""Recordings that FFmpeg decodes, through PyAV: MP3, and what libsndfile does not read (MP4, WebM, AMR, WMA, ...).

Lengths are those of what is decoded; FFmpeg leaves out the delay and the padding of encoders where the file gives
them. FFmpeg sees the bytes of one open file: no other file or address can be opened, whatever is in it.
"""

import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from voc2vec_jax import errors
from voc2vec_jax.audio import files, joining, packets, reading

BLOCK_FRAMES = 1 << 16
FAR_SECONDS = 600.0  # into a recording: stretches before are decoded from the beginning
WARM_UP_SECONDS = 1.0  # decoded before a stretch: an MP3 frame uses bytes of up to nine frames before it
BUFFER_BYTES = 1 << 16
MOST_IDLE_PACKETS = 10_000  # at the beginning; of speech, minutes
# Demuxers that read one file and nothing beside it, and that know their format by a header.
_DEMUXERS = (
    "mp3,aac,loas,mov,matroska,asf,amr,ape,wv,tta,ac3,eac3,dts,mpegts,mpeg,avi,flv,rm,mpc,mpc8,wav,w64,ogg,flac,caf,"
    "aiff,au,dss,dsf,iff,voc,nistsphere,qcp"
)
_OPTIONS = {"format_whitelist": _DEMUXERS, "protocol_whitelist": "none", "threads": "1"}
_SAMPLES = {  # FFmpeg's formats: the type and the full scale
    "u8": (np.uint8, 2**7),
    "s16": (np.int16, 2**15),
    "s32": (np.int32, 2**31),
    "s64": (np.int64, 2**63),
    "flt": (np.float32, 1),
    "dbl": (np.float64, 1),
}
_CONTAINERS = {"mov": "MP4", "matroska": "WebM or Matroska", "asf": "WMA", "ogg": "Ogg", "wv": "WavPack"}
_CODECS = {"mp3float": "MP3", "amrnb": "AMR-NB", "amrwb": "AMR-WB", "opus": "Opus", "vorbis": "Vorbis"}
_CHECKED = ("flac", "tta", "wavpack", "ape")  # whose frames have checksums, which FFmpeg looks at on demand
_LOCKED = ("drms", "enca", "aavd")  # MP4's names of encrypted tracks


class Decoder:
    """An open recording: `rate_hz` and `channels` of its first samples, which all of its blocks have.

    `floats` says whether its samples are stored as floats, which have no scale of their own.
    """

    def __init__(self, file: io.IOBase, reporter: reading.Reporter, kind: str = ""):
        """AudioError for a file of which nothing can be decoded; `kind` is what it seems to be."""
        self._av = _library()
        self._reporter = reporter
        self._container = self._open(file, kind)
        try:
            self._stream = self._track()
            self._codec = self._codec_of(self._stream)
            self._watch = packets.Watch(file, self._container, self._stream)
            parts = self._decoded()
            head = next(parts, None)
            if head is None:
                raise reporter.error(f"is {self.format}, and nothing of it can be decoded")
            self.rate_hz, self.channels = head[0], head[1].shape[1]
            self.floats = self._stream.codec_context.name.startswith("pcm_f")
            reporter.check_rate(self.rate_hz)
            self._parts = itertools.chain([head], parts)
        except BaseException:
            self.close()
            raise

    @property
    def format(self) -> str:
        """Container and codec, such as MP4/AAC."""
        name = self._container.format.name.split(",")[0]
        codec = self._stream.codec_context.name
        codec = _CODECS.get(codec, codec.upper())
        container = _CONTAINERS.get(name, name.upper())
        return codec if container == codec or name == codec.lower() else f"{container}/{codec}"

    def blocks(self, first: int = 0, stop: int | None = None) -> Iterator[Float32[np.ndarray, "_ channels"]]:
        """The frames from `first` to `stop` (None: the end); a recording that ends early is told or refused."""
        at, parts = self._sought(first) if first else (0, self._parts)
        pieces = joining.alike(_gathered(parts), self.rate_hz, self.channels, self._reporter)
        return joining.stretch(pieces, first - at, None if stop is None else stop - at)

    def seconds(self, exact: bool = True) -> float | None:
        """How long the recording is: decoded, or by its header, which may estimate."""
        if not exact and self._container.duration:
            return self._container.duration / self._av.time_base
        return sum(map(len, self.blocks())) / self.rate_hz

    def close(self) -> None:
        """Frees what FFmpeg holds; the file stays open."""
        self._container.close()

    def _open(self, file: io.IOBase, kind: str) -> Any:
        file.seek(0)
        try:
            return self._av.open(
                files.Calm(file), options=_OPTIONS, metadata_errors="replace", buffer_size=BUFFER_BYTES, io_open=_refuse
            )
        except self._av.error.FFmpegError as error:
            raise self._reporter.error(packets.why_not_opened(file, kind)) from error

    def _track(self) -> Any:
        """The audio track to decode."""
        tracks, others = self._container.streams.audio, sorted({s.type for s in self._container.streams})
        if not tracks:
            raise self._reporter.error(f"holds no audio track (only {' and '.join(others) or 'a header'})")
        track = tracks[0]
        if track.codec_context is None:
            raise self._reporter.error("holds a track whose codec FFmpeg does not decode: convert it to WAV or FLAC")
        if _tag(track.codec_context) in _LOCKED:
            raise self._reporter.error("is MP4 locked by DRM: give a copy without the lock")
        if len(tracks) > 1:
            self._reporter.tell("tracks", f"holds {len(tracks)} audio tracks: the first is used")
        track.codec_context.thread_count = 1
        if track.codec_context.name in _CHECKED:
            track.codec_context.options = {"err_detect": "crccheck+explode"}
        return track

    def _codec_of(self, track: Any) -> Any:
        """What decodes the packets of a track. For Opus it is the decoder of its authors, as in libsndfile.

        FFmpeg's own strays from that one where speech is coded (RFC 6716, section 6).
        """
        own = track.codec_context
        if own.name != "opus" or not own.extradata or "libopus" not in self._av.codecs_available:
            return own
        codec = self._av.CodecContext.create("libopus", "r")
        codec.extradata, codec.options = own.extradata, {"request_sample_fmt": "flt"}  # int16 would clip
        return codec

    def _decoded(self) -> Iterator[joining.Part]:
        """(Hz, samples) of each frame; at the end of the file, what was wrong is told."""
        held, idle = None, 0
        for packet in self._watch.packets(self._av.error.FFmpegError):
            frames = self._frames(packet)
            idle += not frames
            if held is None and idle > MOST_IDLE_PACKETS:
                return
            for frame in frames:
                if held is not None:
                    yield held
                held = frame.sample_rate, _samples(frame)
        if held is not None:
            yield held[0], held[1][: len(held[1]) - self._watch.padding(held[0], len(held[1]))]
        self._watch.report(self.format, self._reporter)

    def _frames(self, packet: Any) -> Sequence[Any]:
        """What a packet decodes to; none for a bad one."""
        try:
            frames = self._codec.decode(packet if packet.size else None)
        except self._av.error.FFmpegError:
            self._watch.bad(packet)
            return ()
        if self._codec is not self._stream.codec_context and frames:
            frames[0].pts = max(0, frames[0].pts or 0)  # time before 0 is left out
        self._watch.good(packet, frames)
        return frames

    def _sought(self, first: int) -> tuple[int, Iterable[joining.Part]]:
        """(place, parts from there) where the place is before frame `first`, and the decoder has warmed up there.

        Far into a recording the place is by the file's clock, and the noise that AAC draws is another.
        """
        target = first - round(WARM_UP_SECONDS * self.rate_hz)
        if target < FAR_SECONDS * self.rate_hz or not self._watch.counts_samples(first / self.rate_hz):
            return 0, self._parts
        origin = self._watch.origin
        try:
            self._container.seek(int(origin + target / self.rate_hz / self._stream.time_base), stream=self._stream)
        except self._av.error.FFmpegError as error:
            raise self._reporter.error(f"is {self.format}, and no place inside can be found: damaged") from error
        self._watch.restart()
        parts = self._decoded()
        head = next(parts, None)
        if head is None:
            return first, iter(())
        at = round((self._watch.origin - origin) * self._stream.time_base * self.rate_hz)
        return at, itertools.chain([head], parts)


def _tag(context: Any) -> str:
    """The four letters that a container has for a codec; "" if they are none."""
    try:
        return context.codec_tag
    except UnicodeDecodeError:
        return ""


def _samples(frame: Any) -> Float32[np.ndarray, "frames channels"]:
    """The samples of a decoded frame of FFmpeg, in [-1, 1] unless it holds floats beyond."""
    dtype, scale = _SAMPLES[frame.format.name.removesuffix("p")]
    channels = frame.layout.nb_channels
    if frame.format.is_planar:
        array = np.stack([np.frombuffer(plane, dtype, frame.samples) for plane in frame.planes], axis=1)
    else:
        array = np.frombuffer(frame.planes[0], dtype, frame.samples * channels).reshape(-1, channels).copy()
    if scale == 1:
        return array.astype(np.float32, copy=False)
    middle = scale if dtype == np.uint8 else 0
    return ((array.astype(np.float64) - middle) / scale).astype(np.float32)


def _gathered(parts: Iterable[joining.Part]) -> Iterator[joining.Part]:
    """The same samples in blocks of at least BLOCK_FRAMES, but where rate or channels change and at the end."""
    waiting, frames, kind = [], 0, None
    for rate_hz, block in parts:
        if waiting and (frames >= BLOCK_FRAMES or kind != (rate_hz, block.shape[1])):
            yield kind[0], np.concatenate(waiting)
            waiting, frames = [], 0
        kind = rate_hz, block.shape[1]
        waiting.append(block)
        frames += len(block)
    if waiting:
        yield kind[0], np.concatenate(waiting)


def _refuse(*_: Any) -> Any:
    """Called where a file asks FFmpeg to open another."""
    raise PermissionError("a recording may not open other files")


def _library() -> Any:
    """PyAV. RunError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise errors.RunError(
            "MP3, MP4 and the like are decoded with PyAV: install it with `pip install av`"
        ) from error
    return av
