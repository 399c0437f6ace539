"""What several channels become, and what is odd about them or about the scale of their samples."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from voc2vec_jax.audio import reading

SILENT = 1e-2  # of the power of the loudest channel: 20 dB below it
LOST = 0.1  # of the power of the channels that their mean has; channels without anything in common leave half
MOST_OVER = 16.0  # a float above is no loud sample but one in the scale of whole numbers
SCALES = {"int16": 2**15, "int24": 2**23, "int32": 2**31}
_OVER_SCALE = 1.5  # times its scale, resampled or amplified whole numbers may reach
_LOOKS = ((1 << 16, 31), (1 << 14, 7))  # of blocks from so many samples on, every so many is looked at: a prime number


class Choice(NamedTuple):
    """Which channel is taken (None: the mean of all), and what samples are divided by."""

    channel: int | None = None
    scale: int = 1


MEAN = Choice()


def mixed(
    blocks: Iterator[Float32[np.ndarray, "_ channels"]], reporter: reading.Reporter, choice: Choice = MEAN
) -> Iterator[Float32[np.ndarray, " _"]]:
    """The blocks of a recording with one channel; what is odd is told at the end.

    AudioError where a sample is not finite, or in the scale of whole numbers.
    """
    levels = None
    for block in blocks:
        if choice.scale > 1:
            block = block * np.float32(1 / choice.scale)
        mono = mix_down(block) if choice.channel is None else block[:, choice.channel].copy()
        low, high = mono.min(), mono.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            raise reporter.error("holds NaN or infinite samples")
        if max(-low, high) > 1:
            _check_scale(block, reporter)
        if block.shape[1] > 1:
            levels = levels or Levels(block.shape[1])
            levels.add(block, mono)
        yield mono
    if levels:
        levels.tell(reporter, choice)


def mix_down(frames: Float32[np.ndarray, "s channels"]) -> Float32[np.ndarray, " s"]:
    """The mean of the channels. They are summed in order, for the same bits on every machine."""
    mono = frames[:, 0].copy()
    for channel in range(1, frames.shape[1]):
        mono += frames[:, channel]
    mono /= frames.shape[1]
    return mono


def loudest(blocks: Iterator[Float32[np.ndarray, "_ channels"]]) -> int:
    """The channel with the most power, the first of equal ones; one that is not finite has none."""
    levels = None
    for block in blocks:
        levels = levels or Levels(block.shape[1], exact=True)
        levels.add(block, block[:, 0])
    powers = [power if math.isfinite(power) else -1.0 for power in levels.powers()[:-1]] if levels else [0.0]
    return powers.index(max(powers))


def scale(blocks: Iterator[Float32[np.ndarray, "_ channels"]], reporter: reading.Reporter) -> int:
    """What floats must be divided by to lie within [-1, 1]: a scale of whole numbers, which is told, or 1.

    AudioError for floats beyond every scale.
    """
    peak, whole = 0.0, True
    for block in blocks:
        peak = max(peak, _peak(block))
        whole = whole and np.array_equal(block, np.rint(block))
    if not math.isfinite(peak) or peak <= (1 if whole else MOST_OVER):
        return 1
    name = _scale_of(peak)
    if name is None:
        raise reporter.error(f"holds samples up to {peak:g}, which is beyond every scale of audio")
    reporter.tell("scale", f"holds floats in the scale of {name}, up to {peak:g}: divided by {SCALES[name]}")
    return SCALES[name]


class Levels:
    """Power of the channels and of what they become, without their constant part."""

    def __init__(self, channels: int, exact: bool = False):
        self._exact, self._count = exact, 0
        self._sums, self._squares = np.zeros((2, channels + 1))

    def add(self, block: Float32[np.ndarray, "s channels"], mono: Float32[np.ndarray, " s"]) -> None:
        """Takes in a block and what it became; of a long one, some samples unless it is to be exact."""
        step = 1 if self._exact else next((step for least, step in _LOOKS if len(block) >= least), 1)
        rows = np.empty((block.shape[1] + 1, -(-len(block) // step)), np.float32)
        rows[:-1], rows[-1] = block[::step].T, mono[::step]
        self._sums += rows.sum(axis=1)
        self._squares += np.einsum("cs,cs->c", rows, rows)
        self._count += rows.shape[1]

    def powers(self) -> list[float]:
        """Variances of the channels, and at last of what they became."""
        means = self._sums / self._count
        return (self._squares / self._count - means * means).tolist()

    def tell(self, reporter: reading.Reporter, choice: Choice) -> None:
        """Tells of a silent channel that is used beside a live one, and of channels that cancel each other."""
        *powers, mono = self.powers()
        live = powers.index(max(powers))
        silent = [k for k, power in enumerate(powers) if power < SILENT * powers[live]]
        mean = sum(powers) / len(powers)
        if choice.channel is None and silent:
            is_odd = f"{_below(silent[0], powers, live)} and part of the mean: --channel=loudest leaves it out"
            reporter.tell("silent_channel", is_odd)
        elif choice.channel in silent:
            is_odd = (
                f"{_below(choice.channel, powers, live)} and the one that is taken: --channel=loudest takes the other"
            )
            reporter.tell("silent_channel", is_odd)
        elif choice.channel is None and mono < LOST * mean:
            is_odd = f"has channels of opposite phase, of whose power their mean loses {_decibels(mean, mono)}"
            reporter.tell("phase", f"{is_odd}: --channel=first takes one of them")


def _below(channel: int, powers: list[float], live: int) -> str:
    down = _decibels(powers[live], powers[channel])
    return f"channel {channel + 1} of {len(powers)} is nearly silent ({down} below channel {live + 1})"


def _decibels(above: float, below: float) -> str:
    return f"{10 * math.log10(above / below):.0f} dB" if below > 1e-10 * above else "more than 100 dB"


def _peak(block: Float32[np.ndarray, "s channels"]) -> float:
    return float(max(-block.min(), block.max())) if block.size else 0.0


def _scale_of(peak: float) -> str | None:
    return next((name for name, scale in SCALES.items() if peak <= _OVER_SCALE * scale), None)


def _check_scale(block: Float32[np.ndarray, "s channels"], reporter: reading.Reporter) -> None:
    """AudioError for floats in the scale of whole numbers; loud ones are left to whom they are too loud for."""
    peak = _peak(block)
    if peak > MOST_OVER or np.array_equal(block, np.rint(block)):
        scale = _scale_of(peak)
        remedy = (
            f", as floats in the scale of {scale} have: --rescale_float divides them by {SCALES[scale]}"
            if scale
            else ""
        )
        raise reporter.error(f"holds samples up to {peak:g}, and audio lies within 1{remedy}")
