"""Windows of recordings, computed in few static shapes."""

import collections
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from voc2vec_jax import errors
from voc2vec_jax.inference import loading, prefetch, windowing

FILLED = 0.8  # share of a left-over batch that would be computed anyway


AHEAD = 1  # batches that are ready


RUNNING = 2  # batches that are computed or waited for


POOLS = ("mean", "max", "first", None)


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


def batches(pieces: Iterator[Piece], layout: windowing.WindowLayout) -> Iterator[Batch]:
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


class EmbeddingPass:
    """One pass over items: what became of each, and the vectors as their windows come in."""

    def __init__(self, layout: windowing.WindowLayout, pool: str | None, prepare: Callable, advance: Callable[[], Any]):
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
        for index, clip in enumerate(loading.loaded(items, self.layout.least_samples)):
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
