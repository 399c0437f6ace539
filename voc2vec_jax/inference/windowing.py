"""Any mix of recordings to feature vectors: decoded in threads, cut into windows, in few static shapes.

Nothing here depends on a model's family: the caller gives the function that computes a batch.
"""

import bisect
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from voc2vec_jax import audio, errors
from voc2vec_jax.inference import buckets
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.ops import masking


class Window(NamedTuple):
    """Samples start to stop of a recording, and which of the frames that they give are kept."""

    start: int
    stop: int
    first: int
    last: int


class WindowLayout:
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
