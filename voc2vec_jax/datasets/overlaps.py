"""Slices of one recording: pairs of clips of which only a part is the same stretch of sound.

Fingerprints propose pairs, and so do names that differ in their last number: the end of `x_3.wav` may be the beginning
of `x_4.wav`. The samples then decide: where the two overlap, they must be correlated.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np
import scipy.fft
from jaxtyping import Float64, Int16

from voc2vec_jax.datasets import fingerprints, progress, worker_processes

LEAST_SAMPLES = 4000  # 0.25 s that must overlap
MOST_SAMPLES = 1 << 16  # 4 s that are compared
SLACK_SAMPLES = 2 * fingerprints.HOP_SAMPLES  # by which a fingerprint may be off
LEAST_CORRELATION = 0.8  # of the samples: measured 0.9 and more for slices, 0.5 and less for unrelated clips
SHOWN = 2000  # candidates from which on progress is shown: some seconds
NUMBERED = re.compile(r"(?P<before>.*?)(?P<number>\d+)(?P<after>\D*)", re.DOTALL)


class _Candidate(NamedTuple):
    """Two rows that may overlap; `lag_samples` is where the second begins in the first, None if it is not known."""

    first: int
    second: int
    lag_samples: int | None


def find(
    recordings: fingerprints.Recordings, prints: fingerprints.Fingerprints, names: Sequence[str]
) -> list[fingerprints.Pair]:
    """The pairs of rows that share at least `LEAST_SAMPLES` and are of kind "overlap".

    `names` are those of the rows. Pairs that `fingerprints.pairs` finds may be among them. Each candidate costs two
    short transforms, and there is about one for each name with a number and for each alignment of fingerprints.
    """
    aligned = [
        _Candidate(int(i), int(j), int(at) * fingerprints.HOP_SAMPLES) for i, j, at in fingerprints.alignments(prints)
    ]
    candidates = [*aligned, *(_Candidate(i, j, None) for i, j in successors(names))]
    shown = progress.shown(f"overlaps of {recordings.name}", len(candidates), 0, "pairs", len(candidates) >= SHOWN)
    found: dict[tuple[int, int], float] = {}
    with futures.ThreadPoolExecutor(worker_processes.cores()) as pool, shown as advance:
        similarities = pool.map(
            lambda each: _similarity(*recordings.read([each.first, each.second]), each.lag_samples), candidates
        )
        for each, similarity in zip(candidates, similarities):
            advance(1)
            if similarity >= LEAST_CORRELATION:
                key = min(each[:2]), max(each[:2])
                found[key] = max(similarity, found.get(key, 0.0))
    return sorted(fingerprints.Pair(*key, "overlap", similarity) for key, similarity in found.items())


def successors(names: Sequence[str]) -> list[tuple[int, int]]:
    """Rows whose names differ only in their last number, each with the row of the next higher number."""
    series: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for row, name in enumerate(names):
        stem, dot, ending = str(name).rpartition(".")
        if match := NUMBERED.fullmatch(stem if dot else ending):
            series[match["before"], match["after"]].append((int(match["number"]), row))
    return [(a, b) for lot in series.values() for (_, a), (_, b) in zip(sorted(lot)[:-1], sorted(lot)[1:])]


def _similarity(first: Int16[np.ndarray, "_"], second: Int16[np.ndarray, "_"], lag: int | None) -> float:
    """The highest correlation of the samples where two clips overlap, at a lag about the one given.

    Without a lag, the end of the first is compared with the beginning of the second.
    """
    if lag is None:
        return _highest_correlation(first[-MOST_SAMPLES:], second[:MOST_SAMPLES], 0, MOST_SAMPLES)
    #   first    |-----[--------]         the overlap begins at `lag` of the first,
    #   second         [--------]----|    or at -`lag` of the second
    first, second = first[max(lag, 0) :][:MOST_SAMPLES], second[max(-lag, 0) :][:MOST_SAMPLES]
    return _highest_correlation(first, second, -SLACK_SAMPLES, SLACK_SAMPLES)


def _highest_correlation(
    first: Int16[np.ndarray, "_"], second: Int16[np.ndarray, "_"], least_lag: int, most_lag: int
) -> float:
    """max over lags l of |sum_t a[t + l] b[t]| / (|a| |b|), with norms over the overlap; 0 if it is short everywhere.

    The differences of neighbouring samples are compared, or mains hum alone could make two clips alike.
    """
    a, b = (np.diff(clip.astype(np.float64)) for clip in (first, second))
    lags = np.arange(max(least_lag, LEAST_SAMPLES - len(b)), min(most_lag, len(a) - LEAST_SAMPLES) + 1)
    if not len(lags):
        return 0.0
    size = scipy.fft.next_fast_len(len(a) + len(b), real=True)
    products = scipy.fft.irfft(scipy.fft.rfft(a, size) * np.conj(scipy.fft.rfft(b, size)), size)[lags % size]
    begin, end = np.maximum(lags, 0), np.minimum(len(a), len(b) + lags)
    energy = _energy(a, begin, end) * _energy(b, begin - lags, end - lags)
    enough = (end - begin >= LEAST_SAMPLES) & (energy > 0)
    return float(np.max(np.abs(products) / np.sqrt(np.where(enough, energy, np.inf)), initial=0.0))


def _energy(clip: Float64[np.ndarray, "_"], begin: np.ndarray, end: np.ndarray) -> Float64[np.ndarray, "_"]:
    """The sum of squares from `begin` to `end`, for many of them. Exact: the samples are whole numbers."""
    total = np.concatenate([np.zeros(1), np.cumsum(clip * clip)])
    return total[end] - total[begin]
