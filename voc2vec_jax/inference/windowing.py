"""Any mix of recordings to feature vectors: decoded in threads, cut into windows, in few static shapes.

Nothing here depends on a model's family: the caller gives the function that computes a batch.
"""

import bisect
import collections
import concurrent.futures
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np
import soxr
from jaxtyping import Float32, Int32

from voc2vec_jax import audio, errors
from voc2vec_jax.inference import buckets, prefetch
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.ops import masking

FILLED = 0.8  # share of a left-over batch that would be computed anyway
AHEAD = 1  # batches that are ready
RUNNING = 2  # batches that are computed or waited for
THREADS = min(4, os.cpu_count() or 1)
POOLS = ("mean", "max", "first", None)


class Window(NamedTuple):
    """Samples start to stop of a recording, and which of the frames that they give are kept."""

    start: int
    stop: int
    first: int
    last: int


class Layout:
    """How recordings become batches: windows, and the static shapes that windows are padded to.

    `shapes` bounds the number of compilations: lengths in geometric steps, a few numbers of rows for each.
    """

    def __init__(
        self,
        encoder: encoders.EncoderConfig,
        window_seconds: float,
        overlap_seconds: float,
        batch_seconds: float,
        devices: int = 1,
        *,
        lengths: Sequence[int] = (),
        copies: float = 1.0,
        shape_seconds: float = 0.0,
    ):
        """Rows are multiples of `devices`, each with up to `batch_seconds`. InputError for senseless durations.

        With `lengths` in samples, each of `copies` recordings, the buckets are fitted to them: one more is worth
        `shape_seconds` of audio. Without, they are geometric.
        """
        stem = encoder.conv_kernels, encoder.conv_strides
        self.frames = encoder.frames
        self.hop_samples = math.prod(encoder.conv_strides)
        self.least_samples = masking.samples_for_frames(1, *stem)
        self.window_frames = encoder.frames(round(window_seconds * audio.RATE_HZ))
        self.overlap_frames = round(overlap_seconds * audio.RATE_HZ) // self.hop_samples
        if not 0 <= self.overlap_frames <= self.window_frames // 2 or self.window_frames < 2:
            raise errors.InputError(
                f"overlap_seconds {overlap_seconds} and window_seconds {window_seconds} do not fit: an overlap is "
                "0 or more and at most half a window"
            )
        if not batch_seconds > 0:
            raise errors.InputError(f"batch_seconds is {batch_seconds}: give the seconds of audio in one batch")
        self.window_samples = masking.samples_for_frames(self.window_frames, *stem)
        longest = masking.samples_for_frames(self.window_frames + 1, *stem) - 1
        windows = [w.stop - w.start for samples in lengths if self.frames(samples) > 0 for w in self.windows(samples)]
        if windows:
            shape_samples = shape_seconds * audio.RATE_HZ
            self.buckets = buckets.fitted(windows, copies, longest, self.hop_samples, shape_samples)
        else:
            self.buckets = buckets.geometric(longest, self.hop_samples)
        most = {b: _power_of_two_below(batch_seconds * audio.RATE_HZ / b) for b in self.buckets}
        self.sizes = {b: [devices * rows for rows in _quarters(most[b])] for b in self.buckets}

    @property
    def shapes(self) -> int:
        """The most shapes that any set of recordings needs."""
        return sum(len(sizes) for sizes in self.sizes.values())

    def bucket(self, samples: int) -> int:
        """The smallest bucket that holds a window of `samples`."""
        return self.buckets[bisect.bisect_left(self.buckets, samples)]

    def windows(self, samples: int) -> list[Window]:
        """The whole recording, or overlapping windows of it whose kept frames are all of its frames once.

        Windows begin on the frame grid, evenly spread, and an overlap is parted in its middle:

            |---- window 0 ----|
                          |---- window 1 ----|
            |==== kept ====|==== kept ========
        """
        t, f = self.frames(samples), self.window_frames
        if t <= f:
            return [Window(0, samples, 0, t)]
        count = math.ceil((t - self.overlap_frames) / (f - self.overlap_frames))
        starts = [(t - f) * k // (count - 1) for k in range(count)]
        cuts = [0, *((a + f + b) // 2 for a, b in itertools.pairwise(starts)), t]
        at = [start * self.hop_samples for start in starts]
        return [
            Window(at[k], at[k] + self.window_samples, cuts[k] - starts[k], cuts[k + 1] - starts[k])
            for k in range(count)
        ]


def _power_of_two_below(x: float) -> int:
    return 1 << max(0, math.floor(math.log2(x)) if x >= 1 else 0)


def _quarters(rows: int) -> list[int]:
    """`rows`, a quarter of it and so on down to 1."""
    return [rows] if rows == 1 else [rows, *_quarters(max(1, rows // 4))]


class Piece(NamedTuple):
    """A window of item `item`: its audio, normalised, and the frames that are kept of it."""

    item: int
    number: int
    audio: Float32[np.ndarray, " s"]
    first: int
    last: int
    of: int = 1  # windows that the item has


class Batch(NamedTuple):
    """Windows padded to one static shape; rows past `pieces` are empty."""

    pieces: list[Piece]
    audio: Float32[np.ndarray, "b s"]
    lengths: Int32[np.ndarray, " b"]
    kept: Int32[np.ndarray, "b 2"]


def batches(pieces: Iterator[Piece], layout: Layout) -> Iterator[Batch]:
    """Full batches as soon as a bucket has one; what is left over goes from the longest on into batches that fit."""
    waiting: dict[int, list[Piece]] = {bucket: [] for bucket in layout.buckets}
    for piece in pieces:
        bucket = layout.bucket(len(piece.audio))
        waiting[bucket].append(piece)
        if len(waiting[bucket]) == layout.sizes[bucket][0]:
            yield _padded(waiting[bucket], bucket, len(waiting[bucket]))
            waiting[bucket] = []
    left = sorted((piece for some in waiting.values() for piece in some), key=_shortest_last)
    while left:
        bucket = layout.bucket(len(left[0].audio))
        sizes = layout.sizes[bucket]
        rows = _fitting([layout.bucket(len(piece.audio)) for piece in left[: sizes[0]]], sizes)
        yield _padded(left[:rows], bucket, rows)
        left = left[rows:]


def _shortest_last(piece: Piece) -> tuple[int, int, int]:
    return -len(piece.audio), piece.item, piece.number


def _fitting(padded: list[int], sizes: list[int]) -> int:
    """The most rows, of the descending `sizes`, that the first windows fill to a fair share; else the fewest.

    `padded` are the windows' own buckets, the first being that of the batch: what each would cost alone.
    """
    alone = [0, *itertools.accumulate(padded)]
    return next((rows for rows in sizes if alone[min(rows, len(padded))] >= FILLED * rows * padded[0]), sizes[-1])


def _padded(pieces: list[Piece], samples: int, rows: int) -> Batch:
    padded = np.zeros((rows, samples), np.float32)
    lengths, kept = np.zeros(rows, np.int32), np.zeros((rows, 2), np.int32)
    for row, piece in enumerate(pieces):
        padded[row, : len(piece.audio)] = piece.audio
        lengths[row], kept[row] = len(piece.audio), (piece.first, piece.last)
    return Batch(pieces, padded, lengths, kept)


def check(items: Any) -> list[Any]:
    """`items` as a list; InputError for what is no list of paths, arrays and (array, rate_hz) pairs."""
    if isinstance(items, str | os.PathLike) or hasattr(items, "dtype"):
        raise errors.InputError(f"items is one {type(items).__name__}: give a list, also of one")
    items = list(items)
    if not items:
        raise errors.InputError("items is empty: give at least one path or array")
    for index, item in enumerate(items):
        if not isinstance(item, str | os.PathLike):
            _check_array(index, item)
    return items


def _check_array(index: int, item: Any) -> None:
    array, rate = item if isinstance(item, tuple) and len(item) == 2 else (item, audio.RATE_HZ)
    if not isinstance(array, np.ndarray | jax.Array):
        raise errors.InputError(f"item {index} is a {type(array).__name__}: give a path, an array or (array, rate_hz)")
    if len(array.shape) != 1:
        raise errors.InputError(f"item {index} has shape {tuple(array.shape)}: give mono audio of shape (samples,)")
    if not is_audio_type(array.dtype):
        raise errors.InputError(f"item {index} holds {array.dtype}: give floats in [-1, 1] or int16")
    if not isinstance(rate, int | np.integer) or rate < audio.LOWEST_RATE_HZ:
        raise errors.InputError(f"item {index} has the rate {rate!r}: give whole Hz, {audio.LOWEST_RATE_HZ} or more")


def is_audio_type(dtype: Any) -> bool:
    """Whether `as_float` knows the scale of these numbers."""
    return np.issubdtype(dtype, np.floating) or dtype in (np.int16, ml_dtypes.bfloat16)


def as_float(array: Any) -> Float32[np.ndarray, "..."]:
    """Floats as they are, int16 divided by 32768."""
    array = np.asarray(array)
    return array.astype(np.float32) / 32768 if array.dtype == np.int16 else array.astype(np.float32)


def normalised(clip: Float32[np.ndarray, " s"], eps: float) -> Float32[np.ndarray, " s"]:
    """Zero mean and unit variance over the whole clip, `eps` added to the variance."""
    mean = clip.mean(dtype=np.float64)
    centred = clip - np.float32(mean)
    return centred / np.float32(math.sqrt(np.square(centred, dtype=np.float64).mean() + eps))


def load(index: int, item: Any, least_samples: int) -> Float32[np.ndarray, " s"]:
    """One item as mono float32 audio at 16 kHz; InputError names an item that cannot be used."""
    if isinstance(item, str | os.PathLike):
        clip, name = audio.load(item), f"item {index} ({os.fspath(item)})"
    else:
        array, rate = item if isinstance(item, tuple) else (item, audio.RATE_HZ)
        clip, name = as_float(array), f"item {index}"
        if not np.isfinite(clip).all():
            raise errors.InputError(f"{name} holds NaN or infinite samples: leave it out or repair it")
        if rate != audio.RATE_HZ:
            clip = soxr.resample(clip, rate, audio.RATE_HZ, quality="HQ")
    if len(clip) < least_samples:
        raise errors.InputError(
            f"{name} has {len(clip)} samples at 16 kHz, and one frame needs {least_samples}: leave it out or pad it"
        )
    return clip


def loaded(items: Sequence[Any], least_samples: int) -> Iterator[Float32[np.ndarray, " s"] | errors.InputError]:
    """Every item's audio in order, or the reason why it cannot be used; threads work a few items ahead."""

    def attempt(index: int, item: Any):
        try:
            return load(index, item, least_samples)
        except errors.InputError as fault:
            return fault

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        ahead: collections.deque = collections.deque()
        for index, item in enumerate(items):
            ahead.append(pool.submit(attempt, index, item))
            if len(ahead) > THREADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


class Collector:
    """Puts the windows of recordings together as they come in, in any order."""

    def __init__(self, pool: str | None, whole: Callable[[list[tuple[int, np.ndarray]]], np.ndarray] | None = None):
        """`whole` makes one value of a recording's windows, each with its number of frames; `join` by default."""
        self._pool = pool
        self._whole = whole or functools.partial(join, pool=pool)
        self._parts: dict[int, dict[int, tuple[int, np.ndarray]]] = collections.defaultdict(dict)

    def add(self, pieces: list[Piece], values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Takes a computed batch; yields the items that it completes, with their values."""
        for piece, value in zip(pieces, values):
            if self._pool is None:
                value = value[piece.first : piece.last]
            parts = self._parts[piece.item]
            parts[piece.number] = piece.last - piece.first, value.copy()  # a view would keep the batch
            if len(parts) == piece.of:
                whole = self._parts.pop(piece.item)
                yield piece.item, self._whole([whole[k] for k in range(len(whole))])


class Job:
    """One pass over items: what became of each, and the vectors as their windows come in."""

    def __init__(self, layout: Layout, pool: str | None, prepare: Callable, advance: Callable[[], Any]):
        """`prepare` brings a clip's samples into the form that the model takes; `advance` is called for each item."""
        self.layout, self.prepare, self.advance = layout, prepare, advance
        self.unusable: dict[int, errors.InputError] = {}
        self.done: dict[int, np.ndarray] = {}
        self._collector = Collector(pool)

    def run(self, items: Sequence[Any], compute: Callable[[Batch], Any], skip: bool) -> None:
        """Fills `done` and, with `skip`, `unusable`; without it the first unusable item is raised.

        Batches compute while the next ones are decoded and padded; a CPU fills its cores best with two at a time.
        """
        running: collections.deque[tuple[list[Piece], Any]] = collections.deque()
        with prefetch.ahead(batches(self._pieces(items, skip), self.layout), AHEAD) as coming:
            for batch in coming:
                running.append((batch.pieces, compute(batch)))
                if len(running) > RUNNING:
                    self._take(*running.popleft())
        while running:
            self._take(*running.popleft())

    def _pieces(self, items: Sequence[Any], skip: bool) -> Iterator[Piece]:
        for index, clip in enumerate(loaded(items, self.layout.least_samples)):
            if isinstance(clip, errors.InputError):
                if not skip:
                    raise clip
                self.unusable[index] = clip
                self.advance()
                continue
            windows = self.layout.windows(len(clip))
            clip = self.prepare(clip)
            for number, w in enumerate(windows):
                yield Piece(index, number, clip[w.start : w.stop], w.first, w.last, len(windows))

    def _take(self, pieces: list[Piece], values: Any) -> None:
        for item, value in self._collector.add(pieces, np.asarray(values)):
            self.done[item] = value
            self.advance()


def join(parts: Sequence[tuple[int, np.ndarray]], pool: str | None) -> np.ndarray:
    """The windows of one recording, each with its number of frames, as if pooled (or kept) at once."""
    if pool is None:
        return np.concatenate([value for _, value in parts])
    if len(parts) == 1 or pool == "first":
        return parts[0][1]
    values = np.stack([value for _, value in parts])
    if pool == "max":
        return values.max(0)
    frames = [count for count, _ in parts]
    return np.average(values.astype(np.float64), axis=0, weights=frames).astype(np.float32)
