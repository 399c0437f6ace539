"""What several channels become, and what is odd about them."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32

from voc2vec_jax.audio import reading


def mixed(
    blocks: Iterator[Float32[np.ndarray, "_ channels"]], reporter: reading.Reporter
) -> Iterator[Float32[np.ndarray, " _"]]:
    """The blocks of a recording with one channel; AudioError where a sample is not finite."""
    for block in blocks:
        mono = mix_down(block)
        if not (np.isfinite(mono.min()) and np.isfinite(mono.max())):
            raise reporter.error("holds NaN or infinite samples")
        yield mono


def mix_down(frames: Float32[np.ndarray, "s channels"]) -> Float32[np.ndarray, " s"]:
    """The mean of the channels. They are summed in order, for the same bits on every machine."""
    mono = frames[:, 0].copy()
    for channel in range(1, frames.shape[1]):
        mono += frames[:, channel]
    mono /= frames.shape[1]
    return mono
