"""Parts of one recording that differ in rate or channels, as when files were joined end to end."""

from collections.abc import Iterable, Iterator

import numpy as np
import soxr
from jaxtyping import Float32

from voc2vec_jax import errors
from voc2vec_jax.audio import reading

Part = tuple[int, Float32[np.ndarray, "_ _"]]  # Hz, samples [frames, channels]


def alike(
    parts: Iterable[Part], rate_hz: int, channels: int, reporter: reading.Reporter
) -> Iterator[Float32[np.ndarray, "_ channels"]]:
    """The parts one after the other at one rate and with so many channels.

    Parts at another rate are resampled; parts with other channels become their mean, in each channel.
    """
    resampler, rate_now, told = None, rate_hz, False
    for part_rate_hz, block in parts:
        if not told and (part_rate_hz, block.shape[1]) != (rate_hz, channels):
            before = errors.counted(channels, "channel")
            found = f"{part_rate_hz} Hz and {errors.counted(block.shape[1], 'channel')}"
            reporter.tell("joined", f"changes from {rate_hz} Hz and {before} to {found}: all of it is used")
            told = True
        if block.shape[1] != channels:
            block = np.repeat(block.mean(axis=1, keepdims=True), channels, axis=1)
        if part_rate_hz != rate_now:
            if resampler is not None:
                yield _rest(resampler, channels)
            rate_now = part_rate_hz
            reporter.check_rate(rate_now)
            same = rate_now == rate_hz
            resampler = None if same else soxr.ResampleStream(rate_now, rate_hz, channels, "float32", "HQ")
        yield block if resampler is None else resampler.resample_chunk(block)
    if resampler is not None:
        yield _rest(resampler, channels)


def _rest(resampler: soxr.ResampleStream, channels: int) -> Float32[np.ndarray, "frames channels"]:
    return resampler.resample_chunk(np.zeros((0, channels), np.float32), last=True)


def stretch(
    blocks: Iterable[Float32[np.ndarray, "_ channels"]], first: int, stop: int | None
) -> Iterator[Float32[np.ndarray, "_ channels"]]:
    """The frames from `first` to `stop` (None: the end) of the blocks; reads none beyond."""
    at = 0
    for block in blocks:
        wanted = block[max(0, first - at) : None if stop is None else max(0, stop - at)]
        at += len(block)
        if len(wanted):
            yield wanted
        if stop is not None and at >= stop:
            return
