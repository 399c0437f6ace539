"""Where recordings are cut into windows, and which static shapes the windows are padded to."""

import bisect
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from voc2vec_jax import audio, errors
from voc2vec_jax.inference import buckets
from voc2vec_jax.models import block_config

# Beyond both, a window is refused: published models have 50, and 30 s of them take 180 MB
MOST_FRAMES_A_SECOND, MOST_SCORE_BYTES = 200, 1 << 27


class Window(NamedTuple):
    """Samples `start` to `stop` of a recording; of their frames, `first` to `last` are kept."""

    start: int
    stop: int
    first: int
    last: int


Cut = Callable[[int], list[Window]]  # the windows of a recording of so many samples, in order of their start


def sliding(window_samples: int, hop_samples: int, frames: Callable[[int], int]) -> Cut:
    """Windows every `hop_samples`. The last one ends with the recording; a shorter recording is one window."""

    def cut(samples: int) -> list[Window]:
        length = min(window_samples, samples)
        starts = [*range(0, samples - length, hop_samples), samples - length]
        return [Window(start, start + length, 0, frames(length)) for start in starts]

    return cut


class WindowLayout:
    """The windows of recordings, and the static shapes that windows are padded to.

    A shape is a bucket (a length in samples) and a number of rows; each bucket has a few numbers of rows, in `sizes`.
    """

    def __init__(
        self,
        encoder: block_config.BlockConfig,
        window_seconds: float,
        overlap_seconds: float,
        batch_seconds: float,
        devices: int = 1,
        *,
        lengths: Sequence[int] = (),
        copies: float = 1.0,
        shape_seconds: float = 0.0,
        recurring: bool = False,
    ):
        """Rows are multiples of `devices`; each device computes up to `batch_seconds` at once.

        With `lengths` (samples, each standing for `copies` recordings) the buckets are fitted to them, and a new
        bucket must save `shape_seconds` of audio. Without, the buckets grow geometrically. With `recurring`, because
        more recordings will come in layouts of their own, little audio keeps to few buckets, always the same.
        InputError for durations
        that do not fit together.
        """
        if encoder.window_samples and window_seconds * audio.RATE_HZ > encoder.window_samples:
            most = encoder.window_samples / audio.RATE_HZ
            raise errors.InputError(f"window_seconds is {window_seconds}: this model takes {most:g} s at most")
        self.frames = encoder.frames
        self.hop_samples = encoder.hop_samples
        self.least_samples = encoder.samples_for(1)
        self.window_frames = encoder.frames(round(window_seconds * audio.RATE_HZ))
        self.overlap_frames = round(overlap_seconds * audio.RATE_HZ) // self.hop_samples
        if not 0 <= self.overlap_frames <= self.window_frames // 2 or self.window_frames < 2:
            raise errors.InputError(
                f"overlap_seconds {overlap_seconds} and window_seconds {window_seconds} do not fit: an overlap is "
                "0 or more and at most half a window"
            )
        if not batch_seconds > 0:
            raise errors.InputError(f"batch_seconds is {batch_seconds}: give the seconds of audio in one batch")
        self.window_samples = encoder.samples_for(self.window_frames)
        longest = encoder.samples_for(self.window_frames + 1) - 1
        windows = [w.stop - w.start for samples in lengths if self.frames(samples) > 0 for w in self.windows(samples)]
        _check_scores(encoder, max(windows, default=longest))
        shape_samples = shape_seconds * audio.RATE_HZ
        ratio = buckets.growth(windows, copies, shape_samples) if recurring else None
        if encoder.pads:
            self.buckets = [longest]
        elif windows:
            self.buckets = buckets.fitted(
                windows, copies, longest, self.hop_samples, shape_samples, ratio or buckets.FINE_GROWTH
            )
        else:
            self.buckets = buckets.geometric(longest, self.hop_samples, ratio or buckets.GROWTH)
        # However short a clip is, an encoder that pads computes its whole window
        costs = {b: max(b, encoder.window_samples) if encoder.pads else b for b in self.buckets}
        most = {b: _power_of_two_below(batch_seconds * audio.RATE_HZ / costs[b]) for b in self.buckets}
        self.sizes = {b: [devices * rows for rows in _quarters(most[b])] for b in self.buckets}

    @property
    def shapes(self) -> int:
        """The largest number of shapes that any recordings need: a bound on compilations."""
        return sum(len(sizes) for sizes in self.sizes.values())

    def bucket(self, samples: int) -> int:
        """The smallest bucket that holds a window of `samples`."""
        return self.buckets[bisect.bisect_left(self.buckets, samples)]

    def windows(self, samples: int) -> list[Window]:
        """The whole recording, or overlapping windows whose kept frames are each frame of the recording once.

        Windows are evenly spread and start on the frame grid. An overlap is split in its middle:

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


def _check_scores(encoder: block_config.BlockConfig, samples: int) -> None:
    """InputError for a model of so many frames a second that a window of `samples` takes far more than its weights.

    A stranger's model of some kilobytes may have a frame for each sample, and attention a score for each two frames.
    """
    frames, rate = int(encoder.frames(samples)), audio.RATE_HZ // encoder.hop_samples
    seconds = samples / audio.RATE_HZ
    needed = 4 * encoder.heads * frames**2
    if rate > MOST_FRAMES_A_SECOND and needed > MOST_SCORE_BYTES:
        raise errors.InputError(
            f"this model has {rate:,} frames a second, and 50 are usual: attention over {seconds:.1f} s "
            f"would take {needed:,} bytes; take another model, or shorter windows (window_seconds)"
        )


def _power_of_two_below(x: float) -> int:
    return 1 << max(0, math.floor(math.log2(x)) if x >= 1 else 0)


def _quarters(rows: int) -> list[int]:
    """`rows`, a quarter of it and so on down to 1."""
    return [rows] if rows == 1 else [rows, *_quarters(max(1, rows // 4))]
