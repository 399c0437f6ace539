"""Static lengths that clips are padded to: few, because each costs a compilation, just above lengths that occur."""

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from voc2vec_jax import audio
from voc2vec_jax.inference import open_files, urls

SHORTEST_SAMPLES = 8_000
GROWTH = 2 ** (1 / 3)  # from one bucket to the next, when nothing is known of the clips
FINE_GROWTH = 2 ** (1 / 24)  # from one candidate to the next, when their lengths are known
FINE_FROM_SHAPES = 10  # the audio of a call from which on fine candidates pay, in what one shape costs
FEW_SECONDS = 600.0  # of audio in all calls of few clips, for which the coarse candidates are best
LEAST_OCTAVES, MOST_OCTAVES = 1 / 4, 2.0  # between coarse candidates
SAMPLED_ITEMS = 2_000  # items whose headers are read for their lengths


def geometric(longest: int, step: int, growth: float = GROWTH) -> list[int]:
    """Multiples of `step` that grow by `growth`, then `longest`."""
    lengths = [min(SHORTEST_SAMPLES, longest)]
    while lengths[-1] < longest:
        lengths.append(min(longest, max(lengths[-1] + step, math.ceil(lengths[-1] * growth / step) * step)))
    return lengths


def growth(lengths: Sequence[int], copies: float, shape_samples: float) -> float:
    """The ratio of neighbouring candidates of `fitted`, for `copies` clips of each of these lengths.

    Fine where computing takes much longer than compiling. Else coarse and, for one model on one platform, always the
    same, so that calls with one clip each find their shapes compiled.
    """
    if copies * sum(lengths) > FINE_FROM_SHAPES * shape_samples:
        return FINE_GROWTH
    # A spacing of x octaves wastes about a share of 0.35 x of T samples, and compiles 4 / x shapes for clips within
    # four octaves: T 0.35 x + 4 shape_samples / x is least at this x.
    octaves = math.sqrt(4 * shape_samples / (0.35 * FEW_SECONDS * audio.RATE_HZ))
    return 2.0 ** min(max(octaves, LEAST_OCTAVES), MOST_OCTAVES)


def fitted(
    lengths: Sequence[int], copies: float, longest: int, step: int, shape_samples: float, ratio: float
) -> list[int]:
    """The cheapest buckets for `copies` clips of each of these lengths; the last bucket is `longest`.

    A clip costs the length of its bucket. A bucket costs `shape_samples`: the audio that could be computed while it
    compiles. Dynamic programming finds the best subset of candidates, which grow by `ratio`.
    """
    grid = geometric(longest, step, ratio)
    held = np.searchsorted(np.sort(np.asarray(lengths)), grid, side="right") * copies
    held = [0.0, *held.tolist()]  # number of clips that fit into the first k candidates
    best, before = [0.0], [0]
    for j in range(1, len(held)):
        costs = [best[i] + (held[j] - held[i]) * grid[j - 1] + shape_samples * (held[j] > held[i]) for i in range(j)]
        best.append(min(costs))
        before.append(costs.index(best[-1]))
    chosen, at = [], len(grid)
    while at:
        chosen.append(grid[at - 1])
        at = before[at]
    return chosen[::-1]


def spread(count: int) -> list[int]:
    """Places of about `SAMPLED_ITEMS` items among `count`: a random one in each of as many equal stretches.

    The places are the same on every machine, and out of step with lists that repeat (takes of a session, say).
    """
    step = max(1, count // SAMPLED_ITEMS)
    within = np.random.RandomState(0).randint(step, size=-(-count // step))
    return [place for place in (step * np.arange(len(within)) + within).tolist() if place < count]


def known_lengths(items: Sequence[Any], count: int) -> tuple[list[int], float]:
    """Samples at 16 kHz of the items, from arrays and headers, and how many of `count` items each one stands for.

    An unreadable item has no length here; it is reported when it is read.
    """
    found = [length for length in map(_length, items) if length]
    return found, count / max(1, len(found))


def _length(item: Any) -> int:
    """0 where it is not known: of what cannot be read, or must be fetched first."""
    if isinstance(item, np.ndarray | tuple):
        array, rate = item if isinstance(item, tuple) else (item, audio.RATE_HZ)
        return round(len(array) * audio.RATE_HZ / rate)
    if isinstance(item, urls.Url):
        return 0
    with item.held() if isinstance(item, open_files.OpenFile) else contextlib.nullcontext(item) as source:
        return round((audio.seconds(source, exact=False) or 0) * audio.RATE_HZ)
