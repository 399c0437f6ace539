"""Recordings to values: cut into windows, computed in a few static shapes, put together again.

`Model.embed` and batch evaluation both read through this module. They differ in where recordings come from
(`loading`, `evaluation.recordings`) and in what becomes of the values.

    Part -> Piece, Piece, ... -> Batch -> compute -> Collector -> one value per recording
    `---------- one thread ---------´     `------- the caller's thread -------´
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from voc2vec_jax import audio as audio_files
from voc2vec_jax import errors
from voc2vec_jax.inference import loading, prefetch, windowing

FILLED = 0.8  # least share of a left-over batch that its windows must fill
AHEAD = 1  # batches made in advance
RUNNING = 2  # batches in computation or waiting to be collected; two at a time keep a CPU's cores busiest
POOLS = ("mean", "max", "first", None)
Whole = Callable[[list[tuple[int, np.ndarray]]], np.ndarray]  # windows, each with its number of frames, to one value


class Recording(NamedTuple):
    """A usable recording: its length, its windows, and the normalised audio of each window in the same order."""

    samples: int
    windows: list[windowing.Window]
    audio: Iterable[Float32[np.ndarray, " _"]]
    told: audio_files.Told | None = None  # what is odd about it, complete once `audio` is read


@dataclasses.dataclass(eq=False)
class Part:
    """Recordings whose windows share batches with one another and with no others.

    `recordings` yields (item, Recording), or the fault of an item that cannot be used. Reading them fills `samples`,
    `unusable` and `told` by item; all are complete once the last batch of the part is out.
    """

    recordings: Iterable[tuple[int, Recording | errors.InputError]]
    number: int = 0
    samples: dict[int, int] = dataclasses.field(default_factory=dict)
    unusable: dict[int, errors.InputError] = dataclasses.field(default_factory=dict)
    told: dict[int, audio_files.Told] = dataclasses.field(default_factory=dict)

    def pieces(self) -> Iterator["Piece"]:
        """The windows of all usable recordings."""
        for item, recording in self.recordings:
            if isinstance(recording, errors.InputError):
                self.unusable[item] = recording
                continue
            self.samples[item] = recording.samples
            if recording.told is not None:
                self.told[item] = recording.told
            windows = recording.windows
            try:
                for number, (window, audio) in enumerate(zip(windows, recording.audio, strict=True)):
                    yield Piece(item, number, audio, window.first, window.last, len(windows))
            except errors.InputError as fault:  # a long recording is read while its windows are taken
                self.unusable[item] = fault


class Piece(NamedTuple):
    """Window `number` of item `item`: its normalised audio, and the frames of it that are kept."""

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


def batches(pieces: Iterator[Piece], layout: windowing.WindowLayout) -> Iterator[Batch]:
    """A full batch as soon as a bucket has one; then the left-over windows, longest first, in batches that fit."""
    waiting: dict[int, list[Piece]] = {bucket: [] for bucket in layout.buckets}
    for piece in pieces:
        bucket = layout.bucket(len(piece.audio))
        waiting[bucket].append(piece)
        if len(waiting[bucket]) == layout.sizes[bucket][0]:
            yield _padded(waiting[bucket], bucket, len(waiting[bucket]))
            waiting[bucket] = []
    left = sorted((piece for some in waiting.values() for piece in some), key=_longest_first)
    while left:
        bucket = layout.bucket(len(left[0].audio))
        sizes = layout.sizes[bucket]
        rows = _fitting([layout.bucket(len(piece.audio)) for piece in left[: sizes[0]]], sizes)
        yield _padded(left[:rows], bucket, rows)
        left = left[rows:]


def _longest_first(piece: Piece) -> tuple[int, int, int]:
    return -len(piece.audio), piece.item, piece.number


def _fitting(padded: list[int], sizes: list[int]) -> int:
    """The most rows, of the descending `sizes`, that the first windows fill to a fair share; else the fewest.

    `padded` holds the bucket of each window: what it would cost alone. The first is the bucket of the batch.
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


class Computed(NamedTuple):
    """A batch's windows and the values of its rows, which may still be in computation; after a part, nothing."""

    part: Part
    pieces: list[Piece]
    values: Any


def computed(
    parts: Iterable[Part],
    layout: windowing.WindowLayout,
    compute: Callable[[Batch], Any],
    *,
    put: Callable[[tuple], tuple] = tuple,
    ahead: int = AHEAD,
) -> Iterator[Computed]:
    """Every batch of every part in order, and an empty entry after each part's last batch.

    A thread reads, cuts and pads `ahead` batches in advance and sends the arrays off with `put`; RUNNING batches are
    in computation while the caller takes an earlier one. Close the iterator to end the thread early.
    """
    running: collections.deque[Computed] = collections.deque()
    with prefetch.ahead(_sent(parts, layout, put), ahead) as coming:
        for part, batch in coming:
            running.append(Computed(part, batch.pieces, compute(batch)) if batch else Computed(part, [], None))
            if len(running) > RUNNING:
                yield running.popleft()
        while running:
            yield running.popleft()


def _sent(
    parts: Iterable[Part], layout: windowing.WindowLayout, put: Callable[[tuple], tuple]
) -> Iterator[tuple[Part, Batch | None]]:
    for part in parts:
        for batch in batches(part.pieces(), layout):
            yield part, Batch(batch.pieces, *put((batch.audio, batch.lengths, batch.kept)))
        yield part, None


class Collector:
    """Puts the windows of recordings together as they come in, in any order."""

    def __init__(self, pool: str | None, whole: Whole | None = None):
        """`whole` makes one value of a recording's windows, each with its number of frames; `join` by default."""
        self._pool = pool
        self._whole = whole or functools.partial(join, pool=pool)
        self._parts: dict[int, dict[int, tuple[int, np.ndarray]]] = collections.defaultdict(dict)

    def collect(self, results: Iterable[Computed]) -> Iterator[tuple[int, np.ndarray]]:
        """Waits for each batch in turn; yields every item with its value as soon as its last window is there."""
        for result in results:
            values = np.asarray(result.values) if result.pieces else ()
            for piece, value in zip(result.pieces, values):
                yield from self._add(piece, value)

    def _add(self, piece: Piece, value: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        if self._pool is None:
            value = value[piece.first : piece.last]
        parts = self._parts[piece.item]
        parts[piece.number] = piece.last - piece.first, value.copy()  # a view would keep the whole batch in memory
        if len(parts) == piece.of:
            whole = self._parts.pop(piece.item)
            yield piece.item, self._whole([whole[k] for k in range(len(whole))])


class EmbeddingPass:
    """One pass over items in memory or in files: the value of each in `done`, the fault of each other in `unusable`."""

    def __init__(
        self,
        layout: windowing.WindowLayout,
        pool: str | None,
        prepare: Callable[[np.ndarray], np.ndarray],
        advance: Callable[[], Any],
        whole: Whole | None = None,
        how: audio_files.Reading = audio_files.DEFAULT,
    ):
        """`prepare` turns a clip's samples into the model's input; `advance` is called once for each item.

        `whole` is that of `Collector`; `how` says how files are read, and `remarks` holds what is odd about them.
        """
        self.layout, self.prepare, self.advance, self.how = layout, prepare, advance, how
        self.remarks: list[tuple[str, str, str]] = []
        self.unusable: dict[int, errors.InputError] = {}
        self.done: dict[int, np.ndarray] = {}
        self._collector = Collector(pool, whole)

    def run(self, items: Sequence[Any], compute: Callable[[Batch], Any], skip: bool) -> None:
        """Fills `done` and, with `skip`, `unusable`; without it the first unusable item is raised."""
        part = Part(self._recordings(items, skip), unusable=self.unusable)
        with contextlib.closing(computed([part], self.layout, compute)) as results:
            for item, value in self._collector.collect(results):
                self.done[item] = value
                self.advance()

    def _recordings(self, items: Sequence[Any], skip: bool) -> Iterator[tuple[int, Recording | errors.InputError]]:
        # `map`, so that no variable here holds the raw samples while a recording's windows are computed.
        clips = loading.loaded(items, self.layout.least_samples, self.how, self.remarks)
        for index, found in enumerate(map(self._windows, clips)):
            if isinstance(found, errors.InputError):
                if not skip:
                    raise found
                self.advance()
            yield index, found

    def _windows(self, clip: Float32[np.ndarray, " s"] | errors.InputError) -> Recording | errors.InputError:
        if isinstance(clip, errors.InputError):
            return clip
        windows = self.layout.windows(len(clip))
        return Recording(len(clip), windows, self._cut(clip, windows))

    def _cut(self, clip: Float32[np.ndarray, " s"], windows: list[windowing.Window]) -> Iterator[np.ndarray]:
        clip = self.prepare(clip)
        for window in windows:
            yield clip[window.start : window.stop]


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


def join_logits(parts: Sequence[tuple[int, Float32[np.ndarray, " k"]]]) -> Float32[np.ndarray, " v"]:
    """The logits of one recording from those of its windows, each with the logarithm of its weight behind them.

    Logits are linear in what is pooled, and pooling is a weighted mean over frames, so this is exact.
    """
    values = np.stack([value for _, value in parts])
    if len(values) == 1:
        return values[0, :-1]
    weight = values[:, -1].astype(np.float64)
    return np.average(values[:, :-1].astype(np.float64), axis=0, weights=np.exp(weight - weight.max())).astype(
        np.float32
    )
