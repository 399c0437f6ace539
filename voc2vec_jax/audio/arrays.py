"""Samples at 16 kHz as numbers: quantised, normalised, cut into segments."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int16

RATE_HZ = 16_000
INT16_SCALE = 2**15
SEGMENT_SAMPLES = 10 * RATE_HZ


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
