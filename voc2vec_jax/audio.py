"""From recordings to arrays: decode, mix down, resample to 16 kHz, cut into segments, quantise.

Channels are averaged before resampling. Files are read in blocks, so that the memory needed is that of the result and
not that of the source.
"""

import contextlib
import io
import math
import os
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32, Int16

from voc2vec_jax import errors

RATE_HZ = 16_000
INT16_SCALE = 2**15
SEGMENT_SAMPLES = 10 * RATE_HZ
LOWEST_RATE_HZ = 1_000  # a header with less is damaged, and resampling would blow the file up
MOST_FRAMES = 1 << 36  # weeks; a header with more is damaged, or its writer did not know the length
BLOCK_FRAMES = 1 << 18
STRETCH_MARGIN_SAMPLES = (
    4096  # read on both sides of a stretch, for the resampling filter and for decoders that warm up
)
SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64", ".rf64")

# Lengths in the wav headers of writers that do not know the length, such as those that write to a pipe.
_UNKNOWN_LENGTHS = (0, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF)


class AudioError(errors.InputError):
    """An unusable recording: `name` says which one, `reason` why."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason

    def __reduce__(self):
        return AudioError, (self.name, self.reason)


def load(source: str | os.PathLike | io.IOBase, name: str | None = None) -> Float32[np.ndarray, " s"]:
    """Mono audio at 16 kHz with at least one sample, in [-1, 1] unless the file itself exceeds it.

    `source` is a path or an open, seekable binary file; errors call it `name`. `AudioError` for a recording that is
    unreadable, truncated, empty, not finite, or has nothing left after resampling.
    """
    return np.concatenate([*stream(source, name)])


def stream(source: str | os.PathLike | io.IOBase, name: str | None = None) -> Iterator[Float32[np.ndarray, " _"]]:
    """As `load`, block by block in the memory of one block; a fault may only show at the end."""
    if isinstance(source, str | os.PathLike):
        name = name or os.fspath(source)
        if "\0" in os.fspath(source):
            raise AudioError(name, "cannot be opened (its name holds a zero byte)")
        try:
            with open(source, "rb") as file:
                yield from stream(file, name)
        except OSError as error:
            raise AudioError(name, f"cannot be opened ({error.strerror or error})") from error
        return
    name = name or str(getattr(source, "name", "recording"))
    _check_length(source, name)
    try:
        with soundfile.SoundFile(source) as file:
            yield from _mono_16k(file, name)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise AudioError(name, f"cannot be decoded ({_sentence(error)})") from error


def load_stretch(
    source: str | os.PathLike, start_seconds: float, end_seconds: float, name: str | None = None
) -> Float32[np.ndarray, " s"]:
    """The samples of `load(source)` from one time to another, up to rounding; reads no more than these and a margin.

    Times are rounded to samples at 16 kHz. `AudioError` as `load`, as far as it is read, and for a stretch outside.
    """
    name = name or os.fspath(source)
    first, stop = round(start_seconds * RATE_HZ), round(end_seconds * RATE_HZ)
    with _opened(source, name) as file:
        # A chunk that begins at a multiple of `down` frames begins at a whole sample after resampling.
        down, up = (number // math.gcd(file.samplerate, RATE_HZ) for number in (file.samplerate, RATE_HZ))
        begin = max(0, first - STRETCH_MARGIN_SAMPLES) // up
        frames = min(file.frames, -(-(stop + STRETCH_MARGIN_SAMPLES) // up) * down) - begin * down
        if frames > 0 and begin:
            file.seek(begin * down)
        samples = np.concatenate([np.zeros(0, np.float32), *_resampled(_first(file, name, frames), file.samplerate)])
    wanted = samples[first - begin * up : stop - begin * up]
    if not len(wanted):
        raise AudioError(name, f"holds nothing from {start_seconds:g} to {end_seconds:g} s")
    return wanted


def _first(file: soundfile.SoundFile, name: str, frames: int) -> Iterator[Float32[np.ndarray, " _"]]:
    """The next frames of a file; `AudioError` if it ends before."""
    there = 0
    while there < frames and len(block := file.read(min(BLOCK_FRAMES, frames - there), "float32", always_2d=True)):
        there += len(block)
        yield _checked(mix_down(block), name)
    if there < frames:
        raise AudioError(name, f"is truncated: its header promises {frames - there} frames more")


def seconds(source: str | os.PathLike) -> float | None:
    """How long a recording is by its header; None if it cannot be opened."""
    try:
        with _opened(source, os.fspath(source)) as file:
            return file.frames / file.samplerate
    except AudioError:
        return None


@contextlib.contextmanager
def _opened(source: str | os.PathLike, name: str) -> Iterator[soundfile.SoundFile]:
    """A file to decode, checked as far as its header goes."""
    if "\0" in os.fspath(source):
        raise AudioError(name, "cannot be opened (its name holds a zero byte)")
    try:
        with open(source, "rb") as raw:
            _check_length(raw, name)
            with soundfile.SoundFile(raw) as file:
                _check_header(file, name)
                yield file
    except OSError as error:
        raise AudioError(name, f"cannot be opened ({error.strerror or error})") from error
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise AudioError(name, f"cannot be decoded ({_sentence(error)})") from error


def _mono_16k(file: soundfile.SoundFile, name: str) -> Iterator[Float32[np.ndarray, " _"]]:
    _check_header(file, name)
    samples, rate_hz = 0, file.samplerate
    for block in _resampled(_mono_blocks(file, name), rate_hz):
        samples += len(block)
        yield block
    if not samples:
        raise AudioError(name, f"nothing is left of its {file.frames} frames at {rate_hz} Hz after resampling")


def _check_header(file: soundfile.SoundFile, name: str) -> None:
    if file.samplerate < LOWEST_RATE_HZ:
        raise AudioError(name, f"its header gives a rate of {file.samplerate} Hz, which is not a rate of audio")
    if file.frames > MOST_FRAMES:
        raise AudioError(name, "its header gives an impossible length, as in a FLAC written to a pipe: encode it again")


def _mono_blocks(file: soundfile.SoundFile, name: str) -> Iterator[Float32[np.ndarray, " _"]]:
    frames = 0
    while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
        frames += len(block)
        yield _checked(mix_down(block), name)
    if not frames:
        raise AudioError(name, "holds no audio (zero frames)")
    if frames < file.frames:
        raise AudioError(name, f"is truncated: its header promises {file.frames} frames, {frames} are there")


def _checked(mono: Float32[np.ndarray, " s"], name: str) -> Float32[np.ndarray, " s"]:
    """The block; `AudioError` where a sample is not finite."""
    if not (np.isfinite(mono.min()) and np.isfinite(mono.max())):
        raise AudioError(name, "holds NaN or infinite samples")
    return mono


def mix_down(frames: Float32[np.ndarray, "s channels"]) -> Float32[np.ndarray, " s"]:
    """The mean of the channels. They are summed in order, for the same bits on every machine."""
    mono = frames[:, 0].copy()
    for channel in range(1, frames.shape[1]):
        mono += frames[:, channel]
    mono /= frames.shape[1]
    return mono


def _resampled(blocks: Iterator[Float32[np.ndarray, " _"]], rate_hz: int) -> Iterator[Float32[np.ndarray, " _"]]:
    """The same bits as `soxr.resample(..., quality="HQ")` of the whole."""
    if rate_hz == RATE_HZ:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate_hz, RATE_HZ, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def to_int16(audio: Float32[np.ndarray, " s"]) -> tuple[Int16[np.ndarray, " s"], int]:
    """Rounds to int16 at a scale of 32768; also returns the number of samples that were clipped."""
    scaled = np.rint(audio * np.float32(INT16_SCALE))
    clipped = int(np.count_nonzero((scaled > INT16_SCALE - 1) | (scaled < -INT16_SCALE)))
    return np.clip(scaled, -INT16_SCALE, INT16_SCALE - 1).astype(np.int16), clipped


def from_int16(samples: Int16[Any, "*s"]) -> Float32[Any, "*s"]:
    """samples / 32768 in [-1, 1), without rounding, for NumPy arrays and for what JAX traces."""
    return samples.astype(np.float32) * (1 / INT16_SCALE)


def normalising(
    clips: Sequence[Int16[np.ndarray, " _"]], eps: float
) -> tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """(mean, factor) of each clip: (clip / 32768 - mean) * factor has zero mean and unit variance.

    `eps` is added to the variance. Sums are of whole numbers, which no order of addition changes.
    """
    means, factors = np.zeros(len(clips), np.float32), np.zeros(len(clips), np.float32)
    for i, clip in enumerate(clips):
        # No product of matrices: in reading threads its threads would get into each other's way
        n, total, squares = len(clip), int(clip.sum(dtype=np.int64)), int(np.einsum("s,s", clip, clip, dtype=np.int64))
        # var = E[x^2] - E[x]^2, without rounding up to the division
        variance = (n * squares - total * total) / (n * INT16_SCALE) ** 2
        means[i], factors[i] = total / (n * INT16_SCALE), 1 / np.sqrt(variance + eps)
    return means, factors


def segments(samples: int, at_most: int = SEGMENT_SAMPLES) -> list[tuple[int, int]]:
    """(start, stop) of the fewest segments of at most `at_most` samples; lengths differ by at most one sample."""
    count = -(-samples // at_most)
    bounds = [samples * k // count for k in range(count + 1)] if count else [0]
    return list(zip(bounds[:-1], bounds[1:]))


def _check_length(file: io.IOBase, name: str) -> None:
    size = file.seek(0, os.SEEK_END)
    if not size:
        raise AudioError(name, "is empty (zero bytes)")
    promised = _wav_end(file, size)
    file.seek(0)
    if promised > size:
        raise AudioError(name, f"is truncated: its header promises {promised} bytes, {size} are there")


def _wav_end(file: io.IOBase, size: int) -> int:
    """Where a wav's data chunk should end, 0 if unknown. Checked because libsndfile silently shortens the chunk."""
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


def _sentence(error: Exception) -> str:
    text = str(getattr(error, "error_string", "") or error)
    return " ".join(text.split()).rstrip(".")
