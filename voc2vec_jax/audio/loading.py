"""Recordings to mono audio at 16 kHz: whole, block by block, or one stretch."""

import contextlib
import io
import math
import os
from collections.abc import Iterator

import numpy as np
import soxr
from jaxtyping import Float32

from voc2vec_jax import opening
from voc2vec_jax.audio import arrays, channels, decoders, reading

STRETCH_MARGIN_SAMPLES = (
    4096  # read on both sides of a stretch, for the resampling filter and for decoders that warm up
)
# What is kept whole may last so long, or longer where its file has this many bytes a second; less have no codec of
# speech and any file of silence, of which a few bytes may be hours.
KEPT_SECONDS, LEAST_BYTES_PER_SECOND = 4_000, 1_000
KEPT_BYTES = 12  # of memory for a sample: float32, a copy that is normalised, and as much for all else
SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf"),
    *(".w64", ".rf64", ".bwf", ".m4a", ".m4b", ".mp4", ".aac", ".3gp", ".3g2", ".mov", ".qta"),
    *(".amr", ".awb", ".wma", ".webm", ".weba", ".mka", ".mkv", ".mp2", ".mpga", ".ape"),
    *(".wv", ".tta", ".ac3", ".spx", ".ogx", ".avi", ".flv", ".ra", ".dss"),
)


def load(
    source: str | os.PathLike | io.IOBase,
    name: str | None = None,
    how: reading.Reading = reading.DEFAULT,
    remark: reading.Remark | None = None,
) -> Float32[np.ndarray, " s"]:
    """Mono audio at 16 kHz with at least one sample, in [-1, 1] unless the file itself exceeds it.

    `source` is a path or an open, seekable binary file; errors call it `name`. `remark` is told what is odd about a
    recording that is used; without it, that is a Python warning. `AudioError` for a recording that is unreadable,
    empty, not finite, or has nothing left after resampling.
    """
    whole = bytearray()  # grows in place, where a list of blocks would be there twice at the end
    for block in stream(source, name, how, remark, kept=True):
        whole += block.data
    return np.frombuffer(whole, np.float32)


def stream(
    source: str | os.PathLike | io.IOBase,
    name: str | None = None,
    how: reading.Reading = reading.DEFAULT,
    remark: reading.Remark | None = None,
    kept: bool = False,
) -> Iterator[Float32[np.ndarray, " _"]]:
    """As `load`, block by block in the memory of one block; a fault may only show at the end.

    For a caller who keeps all of it, `kept`, a recording that lasts far longer than its bytes let expect is refused.
    """
    reporter = reading.Reporter(name or _name_of(source), how, remark)
    choice = _choice(source, reporter)
    with _decoder(source, reporter) as decoder:
        samples, frames = 0, [0]
        most, why = _most_kept(source) if kept else (math.inf, "")
        mono = _counted(channels.mixed(decoder.blocks(), reporter, choice), frames)
        for block in _resampled(mono, decoder.rate_hz):
            samples += len(block)
            if samples > most:
                lasts = f"more than {most / arrays.RATE_HZ / 60:,.0f} minutes of sound"
                raise reporter.error(f"is {lasts} {why}")
            yield block
        if not samples:
            raise reporter.error(f"nothing is left of its {frames[0]} frames at {decoder.rate_hz} Hz after resampling")


def load_stretch(
    source: str | os.PathLike,
    start_seconds: float,
    end_seconds: float,
    name: str | None = None,
    how: reading.Reading = reading.DEFAULT,
    remark: reading.Remark | None = None,
) -> Float32[np.ndarray, " s"]:
    """The samples of `load(source)` from one time to another, up to rounding; reads no more than these and a margin.

    Times are rounded to samples at 16 kHz. `AudioError` as `load`, as far as it is read, and for a stretch outside.
    """
    reporter = reading.Reporter(name or _name_of(source), how, remark)
    first, stop = round(start_seconds * arrays.RATE_HZ), round(end_seconds * arrays.RATE_HZ)
    choice = _choice(source, reporter, (first, stop))
    with _decoder(source, reporter) as decoder:
        begin, end = _frames(decoder.rate_hz, first, stop)
        mono = channels.mixed(decoder.blocks(begin, end), reporter, choice) if end > begin else iter(())
        samples = np.concatenate([np.zeros(0, np.float32), *_resampled(mono, decoder.rate_hz)])
        first, stop = (place - begin * arrays.RATE_HZ // decoder.rate_hz for place in (first, stop))
    wanted = samples[first:stop]
    if not len(wanted):
        raise reporter.error(f"holds nothing from {start_seconds:g} to {end_seconds:g} s")
    return wanted


def _frames(rate_hz: int, first: int, stop: int) -> tuple[int, int]:
    """(first, stop) of the frames of a file to decode for a stretch of samples at 16 kHz: it and a margin.

    They begin at a whole sample after resampling.
    """
    down, up = (number // math.gcd(rate_hz, arrays.RATE_HZ) for number in (rate_hz, arrays.RATE_HZ))
    begin = max(0, first - STRETCH_MARGIN_SAMPLES) // up
    return begin * down, -(-(stop + STRETCH_MARGIN_SAMPLES) // up) * down


def _choice(
    source: str | os.PathLike | io.IOBase, reporter: reading.Reporter, stretch: tuple[int, int] | None = None
) -> channels.Choice:
    """Channel and scale as `reporter.reading` asks for them, found in a first pass over the recording where needed.

    The loudest channel is that of the stretch, in samples at 16 kHz; the scale is that of the whole recording.
    """
    how, scale = reporter.reading, 1
    if how.rescale_float:
        with _decoder(source, reporter) as decoder:
            scale = channels.scale(decoder.blocks(), reporter) if decoder.floats else 1
    if how.channel != "loudest":
        return channels.Choice(0 if how.channel == "first" else None, scale)
    with _decoder(source, reporter) as decoder:
        span = _frames(decoder.rate_hz, *stretch) if stretch else (0, None)
        return channels.Choice(channels.loudest(decoder.blocks(*span)) if decoder.channels > 1 else 0, scale)


def seconds(source: str | os.PathLike, exact: bool = True) -> float | None:
    """How long a recording is; None if it cannot be opened. Without `exact`, what its header says will do."""
    reporter = reading.Reporter(_name_of(source), remark=lambda kind, text: None)
    try:
        with _decoder(source, reporter) as decoder:
            return decoder.seconds(exact)
    except reading.AudioError:
        return None


def _most_kept(source: str | os.PathLike | io.IOBase) -> tuple[int, str]:
    """Samples at 16 kHz that are kept whole, and why no more."""
    size = _size(source)
    told = arrays.RATE_HZ * max(KEPT_SECONDS, size // LEAST_BYTES_PER_SECOND)
    held = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // KEPT_BYTES
    if held < told:
        return held, "and needs more memory than this machine has: cut it into parts"
    return told, f"from {size:,} bytes, which only silence or a crafted file is: cut it into parts"


def _size(source: str | os.PathLike | io.IOBase) -> int:
    """Bytes of a path or an open file, whose place stays."""
    if isinstance(source, str | os.PathLike):
        return os.stat(source).st_size
    here = source.tell()
    size = source.seek(0, os.SEEK_END)
    source.seek(here)
    return size


def _name_of(source: str | os.PathLike | io.IOBase) -> str:
    is_path = isinstance(source, str | os.PathLike)
    return os.fspath(source) if is_path else str(getattr(source, "name", "recording"))


@contextlib.contextmanager
def _decoder(source: str | os.PathLike | io.IOBase, reporter: reading.Reporter) -> Iterator[decoders.Decoder]:
    """A recording that is open for decoding, checked as far as its header goes."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(_opened(source, reporter))
            decoder = decoders.opened(file, reporter)
            stack.callback(decoder.close)
            yield decoder
        except OSError as error:
            raise reporter.error(f"cannot be opened ({error.strerror or error})") from error


def _opened(
    source: str | os.PathLike | io.IOBase, reporter: reading.Reporter
) -> contextlib.AbstractContextManager[io.IOBase]:
    if not isinstance(source, str | os.PathLike):
        return contextlib.nullcontext(source)
    if "\0" in os.fspath(source):
        raise reporter.error("cannot be opened (its name holds a zero byte)")
    return opening.regular(source)


def _counted(blocks: Iterator[Float32[np.ndarray, " _"]], count: list[int]) -> Iterator[Float32[np.ndarray, " _"]]:
    """The blocks; adds their lengths to `count[0]`."""
    for block in blocks:
        count[0] += len(block)
        yield block


def _resampled(blocks: Iterator[Float32[np.ndarray, " _"]], rate_hz: int) -> Iterator[Float32[np.ndarray, " _"]]:
    """The same bits as `soxr.resample(..., quality="HQ")` of the whole."""
    if rate_hz == arrays.RATE_HZ:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate_hz, arrays.RATE_HZ, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
