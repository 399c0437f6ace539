"""Static lengths that clips are padded to: few, because each costs a compilation, just above lengths that occur."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from voc2vec_jax import audio

SHORTEST_SAMPLES = 8_000
GROWTH = 2 ** (1 / 3)  # from one bucket to the next, when nothing is known of the clips
FINE_GROWTH = 2 ** (1 / 24)  # from one candidate to the next, when their lengths are known
SAMPLED_ITEMS = 2_000  # items whose headers are read for their lengths


def geometric(longest: int, step: int, growth: float = GROWTH) -> list[int]:
    """Multiples of `step` that grow by `growth`, then `longest`."""
    lengths = [min(SHORTEST_SAMPLES, longest)]
    while lengths[-1] < longest:
        lengths.append(min(longest, max(lengths[-1] + step, math.ceil(lengths[-1] * growth / step) * step)))
    return lengths


def fitted(lengths: Sequence[int], copies: float, longest: int, step: int, shape_samples: float) -> list[int]:
    """The cheapest buckets for `copies` clips of each of these lengths; the last bucket is `longest`.

    A clip costs the length of its bucket. A bucket costs `shape_samples`: the audio that could be computed while it
    compiles. Dynamic programming finds the best subset of finely spaced candidates.
    """
    grid = geometric(longest, step, FINE_GROWTH)
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
    if isinstance(item, str | os.PathLike):
        return round((audio.seconds(item, exact=False) or 0) * audio.RATE_HZ)
    array, rate = item if isinstance(item, tuple) else (item, audio.RATE_HZ)
    return round(len(array) * audio.RATE_HZ / rate)
