"""Fingerprints that find duplicates: exact copies, and copies changed in gain, channels, rate, length or position.

Every 16 ms frame of a clip gets a 32-bit code. Bit k says whether the energy of band k, relative to the next band's,
rises or falls over 64 ms (after Haitsma and Kalker, "A highly robust audio fingerprinting system", 2002). Gain, a
shift, a lost upper band or added silence hardly change the code; another take of the same sound does. Only clips that
share a code are compared: they are aligned at that code and compared bit by bit.
"""

import dataclasses
import functools
import hashlib
import itertools
import os
import pathlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent import futures
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int16, Int64, UInt8, UInt32, UInt64

from voc2vec_jax import errors, opening
from voc2vec_jax.datasets import progress, worker_processes
from voc2vec_jax.runs import files, logs

RATE_HZ = 16_000
WINDOW_SAMPLES = 2048
HOP_SAMPLES = 256
LAG_FRAMES = 4
BAND_EDGES_HZ = tuple(150.0 * (3500 / 150) ** (k / 33) for k in range(34))
QUIET = 1e-5  # of the loudest frame's energy: quieter frames are not compared
MOST_ERRORS = 0.3  # share of bits: measured 0 to 0.2 for copies, 0.39 and more for unrelated clips
CERTAINTY = 5.0  # standard deviations below one half, the share by chance; matters for short overlaps
INDEPENDENT_BITS = 4.0  # of the 32 of a frame, because neighbouring frames overlap
LEAST_SHARE = 0.5  # of the shorter clip's audible frames that must overlap
LEAST_FRAMES = 16  # audible ones, of an overlap of any share
MOST_IN_GROUP = 64  # equal clips, up to which all pairs are formed
MOST_ALIKE = 32  # clips compared because of one common code
CHUNK_FRAMES = 1 << 20
PART_FRAMES = 1 << 22  # 19 h of clips, whose table of codes takes about 0.1 GB
BLOCK_ROWS = 64  # read by a thread at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Fingerprints:
    """Codes of n clips with f frames in all: clip k has the frames `starts[k]` to `starts[k + 1]`."""

    codes: UInt32[np.ndarray, " f"]
    audible: Bool[np.ndarray, " f"]
    starts: Int64[np.ndarray, " n_plus_1"]
    digests: UInt8[np.ndarray, "n 16"]  # of the samples

    def __len__(self) -> int:
        return len(self.digests)

    @functools.cached_property
    def audible_frames(self) -> Int64[np.ndarray, " n"]:
        """Audible frames of each clip."""
        return _sums(self.audible, np.diff(self.starts))

    def save(self, path: str | os.PathLike) -> None:
        """Writes the arrays as one npz file."""
        with open(path, "wb") as file:
            np.savez(file, **{name: getattr(self, name) for name in _FIELDS})


@runtime_checkable
class Recordings(Protocol):
    """What can be fingerprinted: a prepared set or a task."""

    name: str
    fingerprint: str

    def __len__(self) -> int: ...

    def read(self, rows: Int64[np.ndarray, " m"]) -> list[Int16[np.ndarray, "_"]]:
        """Some rows' audio at 16 kHz."""


_FIELDS = tuple(field.name for field in dataclasses.fields(Fingerprints))


class Pair(NamedTuple):
    """Two clips that hold the same sound: `kind` is "identical" (every sample), "near", or "overlap" (`overlaps.find`).

    `first` and `second` are the clips' rows. `similarity` is the share of equal bits where both are audible: 1 for
    identical clips, about 0.5 for unrelated ones. For an overlap it is the correlation of the samples.
    """

    first: int
    second: int
    kind: str
    similarity: float


def load(path: str | os.PathLike) -> Fingerprints:
    """Reads what `Fingerprints.save` wrote; `errors.InputError` for any other file."""
    try:
        with np.load(opening.checked(path), allow_pickle=False) as arrays:
            return Fingerprints(**{name: arrays[name] for name in _FIELDS})
    except (OSError, ValueError, KeyError) as error:
        raise errors.InputError(f"{path} holds no fingerprints ({error}): make them again") from error


def fingerprints(clips: Iterable[Int16[np.ndarray, "_"]]) -> Fingerprints:
    """Fingerprints of int16 clips at 16 kHz, in their order; holds one clip in memory at a time."""
    coded = [(*_code(clip), _digest(clip)) for clip in clips]
    return Fingerprints(
        codes=np.concatenate([np.zeros(0, np.uint32), *(codes for codes, _, _ in coded)]),
        audible=np.concatenate([np.zeros(0, bool), *(audible for _, audible, _ in coded)]),
        starts=np.cumsum([0, *(len(codes) for codes, _, _ in coded)], dtype=np.int64),
        digests=np.frombuffer(b"".join(digest for _, _, digest in coded), np.uint8).reshape(-1, 16),
    )


def cached(
    recordings: Recordings, data_dir: str | os.PathLike, workers: int | None = None, key: str | None = None
) -> Fingerprints:
    """The fingerprints of every row of a prepared set or task, computed once and kept in `data_dir/fingerprints`.

    `workers` threads compute them (default: one per core). If the folder cannot be written, a warning says so. `key`
    stands for the audio of all rows; by default that is the recordings' fingerprint.
    """
    key = hashlib.sha256(f"{key or recordings.fingerprint} {HOP_SAMPLES}".encode()).hexdigest()[:16]
    path = pathlib.Path(data_dir) / "fingerprints" / f"{recordings.name}-{key}.npz"
    if path.is_file():
        return load(path)
    found = _of_rows(recordings, workers or worker_processes.cores())
    try:
        _keep(found, path)
    except OSError as error:
        logs.warn(f"fingerprints cannot be kept in {path.parent} ({error.strerror}): the next run makes them again")
    return found


def _of_rows(recordings: Recordings, workers: int) -> Fingerprints:
    rows = len(recordings)
    blocks = [np.arange(start, min(start + BLOCK_ROWS, rows)) for start in range(0, rows, BLOCK_ROWS)]
    shown = progress.shown(f"fingerprints of {recordings.name}", rows, 0, "clips", True)
    parts = [fingerprints([])]
    with futures.ThreadPoolExecutor(workers) as pool, shown as advance:
        try:
            for part in pool.map(lambda block: fingerprints(recordings.read(block)), blocks):
                parts.append(part)
                advance(len(part))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return join(parts)


def _keep(found: Fingerprints, path: pathlib.Path) -> None:
    path.parent.mkdir(exist_ok=True)
    with files.atomic_path(path) as temporary:
        found.save(temporary)


def join(parts: Sequence[Fingerprints]) -> Fingerprints:
    """Concatenates fingerprints."""
    counts = np.concatenate([np.diff(part.starts) for part in parts])
    return Fingerprints(
        codes=np.concatenate([part.codes for part in parts]),
        audible=np.concatenate([part.audible for part in parts]),
        starts=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)]),
        digests=np.concatenate([part.digests for part in parts]),
    )


def parts(prints: Fingerprints) -> Iterator[tuple[int, Fingerprints]]:
    """Consecutive clips with at most about `PART_FRAMES` frames, and the row of the first, for bounded memory."""
    for rows in _chunks(prints, np.arange(len(prints)), PART_FRAMES):
        first, stop = int(rows[0]), int(rows[-1]) + 1
        frames = slice(prints.starts[first], prints.starts[stop])
        starts = prints.starts[first : stop + 1] - prints.starts[first]
        yield first, Fingerprints(prints.codes[frames], prints.audible[frames], starts, prints.digests[first:stop])


def pairs(a: Fingerprints, b: Fingerprints | None = None) -> list[Pair]:
    """The pairs of clips with the same sound: within `a` (first < second), or one clip in `a` and one in `b`.

    Among more than `MOST_IN_GROUP` equal clips, only the first is paired with each of the others.
    """
    within = b is None
    b = a if b is None else b
    members_a = _members(a)
    members_b = members_a if within else _members(b)
    found = [Pair(i, j, "identical", 1.0) for i, j in _identical(members_a, members_b, within)]
    for i, j, similarity in _near(a, _first(members_a), b, _first(members_b), within):
        group_i, group_j = members_a[a.digests[i].tobytes()], members_b[b.digests[j].tobytes()]
        for first, second in _product(group_i, group_j):
            first, second = (min(first, second), max(first, second)) if within else (first, second)
            found.append(Pair(first, second, "near", similarity))
    return sorted(found)


def _digest(clip: Int16[np.ndarray, " s"]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(clip).tobytes(), digest_size=16).digest()


def _code(clip: Int16[np.ndarray, " s"]) -> tuple[UInt32[np.ndarray, " t"], Bool[np.ndarray, " t"]]:
    """The code of every frame that touches the clip; whether that frame and the one `LAG_FRAMES` later are audible."""
    energy = _band_energy(clip)
    contrast = energy[:, :-1] - energy[:, 1:]
    rises = contrast[LAG_FRAMES:] > contrast[:-LAG_FRAMES]
    codes = np.packbits(rises, axis=1, bitorder="little").view("<u4")[:, 0]
    loudness = energy.sum(1)
    quieter = np.minimum(loudness[LAG_FRAMES:], loudness[:-LAG_FRAMES])
    return codes.astype(np.uint32), quieter > QUIET * loudness.max()


def _band_energy(clip: Int16[np.ndarray, " s"]) -> Float32[np.ndarray, "t 33"]:
    padding = WINDOW_SAMPLES - HOP_SAMPLES
    padded = np.pad(clip, (padding, padding + -len(clip) % HOP_SAMPLES)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES]
    spectrum = np.fft.rfft(windows * _HANN)
    return (spectrum.real**2 + spectrum.imag**2) @ _BANDS


_HANN = np.hanning(WINDOW_SAMPLES).astype(np.float32)
_BIN_BAND = np.searchsorted(BAND_EDGES_HZ, np.fft.rfftfreq(WINDOW_SAMPLES, 1 / RATE_HZ), side="right") - 1
_BANDS = (_BIN_BAND[:, None] == np.arange(len(BAND_EDGES_HZ) - 1)).astype(np.float32)


def _members(prints: Fingerprints) -> dict[bytes, list[int]]:
    """Clips by their digest. Those without any sound are left out: they are no copies of one recording."""
    members = defaultdict(list)
    for k in np.flatnonzero(prints.audible_frames).tolist():
        members[prints.digests[k].tobytes()].append(k)
    return dict(members)


def _first(members: dict[bytes, list[int]]) -> Int64[np.ndarray, " m"]:
    return np.array([group[0] for group in members.values()], np.int64)


def _identical(
    members_a: dict[bytes, list[int]], members_b: dict[bytes, list[int]], within: bool
) -> Iterator[tuple[int, int]]:
    for digest, group in members_a.items():
        if not within:
            yield from _product(group, members_b.get(digest, []))
        elif len(group) <= MOST_IN_GROUP:
            yield from itertools.combinations(group, 2)
        else:
            yield from ((group[0], other) for other in group[1:])


def _product(group_a: Sequence[int], group_b: Sequence[int]) -> Iterable[tuple[int, int]]:
    """All pairs of two groups; if they are too many, only those with the first clip of either group."""
    if len(group_a) * len(group_b) <= MOST_IN_GROUP**2:
        return itertools.product(group_a, group_b)
    return [(group_a[0], j) for j in group_b] + [(i, group_b[0]) for i in group_a[1:]]


def _near(
    a: Fingerprints, rows_a: Int64[np.ndarray, " m"], b: Fingerprints, rows_b: Int64[np.ndarray, " k"], within: bool
) -> Iterator[tuple[int, int, float]]:
    """Pairs of clips that differ but agree in enough bits, with their share of equal bits."""
    table, frames = _code_table(b, rows_b)
    for rows in _chunks(a, rows_a, CHUNK_FRAMES):
        candidates = _candidates(*_code_table(a, rows), table, frames, within)
        best, wrong = _best_alignments(a, b, candidates, LEAST_SHARE)
        different = (a.digests[best[:, 0]] != b.digests[best[:, 1]]).any(1)
        for k in np.flatnonzero(different & np.isfinite(wrong)):
            yield int(best[k, 0]), int(best[k, 1]), 1.0 - float(wrong[k])


def alignments(prints: Fingerprints) -> Int64[np.ndarray, "p 3"]:
    """The two rows of each pair of clips that agree where they overlap, and the frame of the first where the second
    begins (negative: the second begins earlier).

    An overlap may be any share of the clips, from `LEAST_FRAMES` audible frames. Of equal clips only the first counts.
    """
    rows = _first(_members(prints))
    table, frames = _code_table(prints, rows)
    found = [np.zeros((0, 3), np.int64)]
    for chunk in _chunks(prints, rows, CHUNK_FRAMES):
        candidates = _candidates(*_code_table(prints, chunk), table, frames, True)
        best, wrong = _best_alignments(prints, prints, candidates, 0.0)
        found.append(best[np.isfinite(wrong)])
    return np.concatenate(found)


def _chunks(prints: Fingerprints, rows: Int64[np.ndarray, " m"], frames: int) -> Iterator[Int64[np.ndarray, " k"]]:
    """Runs of consecutive rows with about `frames` frames each; none where there are no rows."""
    lengths = prints.starts[rows + 1] - prints.starts[rows]
    chunk = np.cumsum(lengths) // frames
    yield from filter(len, np.split(rows, np.flatnonzero(np.diff(chunk)) + 1))


def _code_table(
    prints: Fingerprints, rows: Int64[np.ndarray, " m"]
) -> tuple[UInt64[np.ndarray, " e"], Int64[np.ndarray, " e"]]:
    """Sorted keys (code in the upper, clip in the lower 32 bits), and the clip's first frame with that code."""
    counts = prints.starts[rows + 1] - prints.starts[rows]
    clip = np.repeat(rows, counts)
    frame = _ranges(counts)
    at = prints.starts[clip] + frame
    heard = prints.audible[at]
    keys = prints.codes[at[heard]].astype(np.uint64) << np.uint64(32) | clip[heard].astype(np.uint64)
    keys, first = np.unique(keys, return_index=True)
    return keys, frame[heard][first]


def _ranges(counts: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " total"]:
    """0 .. count - 1 for each count, concatenated."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0, dtype=np.int64) - np.repeat(ends - counts, counts)


def _candidates(
    keys: UInt64[np.ndarray, " e"],
    frames: Int64[np.ndarray, " e"],
    table: UInt64[np.ndarray, " d"],
    table_frames: Int64[np.ndarray, " d"],
    within: bool,
) -> Int64[np.ndarray, "c 3"]:
    """Distinct (clip, other clip, frame offset of the other) of clips with a common code."""
    low = np.uint64(0xFFFFFFFF)
    begin = np.searchsorted(table, keys + np.uint64(1) if within else keys & ~low)
    end = np.minimum(np.searchsorted(table, keys | low, side="right"), begin + MOST_ALIKE)
    counts = np.maximum(end - begin, 0)
    mine = np.repeat(np.arange(len(keys)), counts)
    other = np.repeat(begin, counts) + _ranges(counts)
    clip, other_clip = ((each & low).astype(np.int64) for each in (keys[mine], table[other]))
    return _distinct(clip, other_clip, frames[mine] - table_frames[other])


def _distinct(
    clip: Int64[np.ndarray, " c"], other: Int64[np.ndarray, " c"], offset: Int64[np.ndarray, " c"]
) -> Int64[np.ndarray, "d 3"]:
    """The distinct rows of three columns, sorted."""
    order = np.lexsort((offset, other, clip))
    columns = np.stack([clip, other, offset], axis=1)[order]
    fresh = np.ones(len(columns), bool)
    fresh[1:] = (columns[1:] != columns[:-1]).any(1)
    return columns[fresh]


def _best_alignments(
    a: Fingerprints, b: Fingerprints, candidates: Int64[np.ndarray, "c 3"], least_share: float
) -> tuple[Int64[np.ndarray, "p 3"], Float64[np.ndarray, " p"]]:
    """The best candidate of each pair of clips and its share of differing bits; inf where none is good enough."""
    parts = _by_frames(a, candidates)
    wrong = np.concatenate([np.zeros(0), *(_bit_errors(a, b, part, least_share) for part in parts)])
    order = np.lexsort((wrong, candidates[:, 1], candidates[:, 0]))
    candidates, wrong = candidates[order], wrong[order]
    fresh = np.ones(len(candidates), bool)
    fresh[1:] = (candidates[1:, :2] != candidates[:-1, :2]).any(1)
    return candidates[fresh], wrong[fresh]


def _by_frames(a: Fingerprints, candidates: Int64[np.ndarray, "c 3"]) -> Iterator[Int64[np.ndarray, "k 3"]]:
    frames = np.cumsum(a.starts[candidates[:, 0] + 1] - a.starts[candidates[:, 0]])
    yield from np.split(candidates, np.flatnonzero(np.diff(frames // CHUNK_FRAMES)) + 1)


def _bit_errors(
    a: Fingerprints, b: Fingerprints, candidates: Int64[np.ndarray, "c 3"], least_share: float
) -> Float64[np.ndarray, " c"]:
    """The share of differing bits at each alignment; inf where too few frames overlap or too many bits differ.

    Enough frames are `least_share` of the shorter clip's audible ones, or `LEAST_FRAMES` if that is 0.
    """
    i, j, offset = candidates.T
    begin = np.maximum(0, offset)
    counts = np.maximum(np.minimum(_length(a, i), _length(b, j) + offset) - begin, 0)
    frame = np.repeat(begin, counts) + _ranges(counts)
    at_a, at_b = np.repeat(a.starts[i], counts) + frame, np.repeat(b.starts[j] - offset, counts) + frame
    heard = a.audible[at_a] & b.audible[at_b]
    differing = np.bitwise_count(a.codes[at_a] ^ b.codes[at_b]) * heard
    compared, wrong = _sums(heard, counts), _sums(differing, counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = wrong / (32.0 * compared)
        allowed = np.minimum(MOST_ERRORS, 0.5 - CERTAINTY * 0.5 / np.sqrt(INDEPENDENT_BITS * compared))
    shorter = np.minimum(a.audible_frames[i], b.audible_frames[j])
    enough = compared >= (least_share * shorter if least_share else LEAST_FRAMES)
    return np.where(enough & (share <= allowed), share, np.inf)


def _length(prints: Fingerprints, rows: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    return prints.starts[rows + 1] - prints.starts[rows]


def _sums(values: np.ndarray, counts: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """Sums over consecutive runs of `values`; a run may be empty."""
    total = np.concatenate([np.zeros(1, np.int64), np.cumsum(values, dtype=np.int64)])
    ends = np.cumsum(counts)
    return total[ends] - total[ends - counts]
