"""Items of an evaluation to the windows that a model computes; hours-long recordings in little memory."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Float32

from voc2vec_jax import audio, errors
from voc2vec_jax.inference import batching, loading, windowing
from voc2vec_jax.inference.evaluation import inputs as evaluation_inputs

LONG_SAMPLES = 120 * audio.RATE_HZ  # a longer recording is decoded twice and never held whole


class Reader:
    """Decodes items, normalises each over the whole recording or over each window, and cuts them."""

    def __init__(
        self,
        items: evaluation_inputs.Items,
        cut: windowing.Cut,
        least_samples: int,
        eps: float | None,
        each: bool,
        how: audio.Reading = audio.DEFAULT,
    ):
        """`eps` None takes the audio as it is; with `each`, every window is normalised as if it were a recording."""
        self._how = how
        self._stream, self._cut, self._least, self._eps, self._each = items.stream, cut, least_samples, eps, each

    def read(self, item: evaluation_inputs.Item) -> batching.Recording | errors.InputError:
        """The recording, or the fault for which it cannot be used."""
        told = audio.Told()
        try:
            held, samples, mean, scale = self._measured(item, told)
        except errors.InputError as fault:
            return fault
        if samples < self._least:
            return errors.InputError(f"has {samples} samples at 16 kHz, and one frame needs {self._least}")
        windows = self._cut(samples)
        pieces = cut_stream(held or self._stream(item, self._how, told), windows)
        if self._eps is not None:
            pieces = (self._normalised(piece, mean, scale) for piece in pieces)
        return batching.Recording(samples, windows, list(pieces) if held else pieces, told)

    def _measured(
        self, item: evaluation_inputs.Item, told: audio.Told
    ) -> tuple[list[np.ndarray], int, np.float32, np.float32]:
        """The audio, already normalised if it is short (none of a long one), its length, mean and deviation."""
        held, samples, total, squares = [], 0, 0.0, 0.0
        for block in self._stream(item, self._how, told):
            held.append(block)
            samples += len(block)
            if samples > LONG_SAMPLES:
                total += sum(part.sum(dtype=np.float64) for part in held)
                squares += sum(np.square(part, dtype=np.float64).sum() for part in held)
                held.clear()
        if not held or self._each or self._eps is None:
            mean = total / max(samples, 1)
            variance = max(0.0, squares / max(samples, 1) - mean * mean)
            return held, samples, np.float32(mean), np.float32(math.sqrt(variance + (self._eps or 0)))
        whole = np.concatenate(held)
        return [loading.normalised(whole, self._eps)], samples, np.float32(0), np.float32(1)

    def _normalised(self, piece: Float32[np.ndarray, " s"], mean: np.float32, scale: np.float32) -> np.ndarray:
        return loading.normalised(piece, self._eps) if self._each else (piece - mean) / scale


def reason(fault: errors.InputError) -> str:
    """Why a recording cannot be used, without the recording's name."""
    return fault.reason if isinstance(fault, audio.AudioError) else str(fault)


def cut_stream(
    blocks: Iterable[Float32[np.ndarray, " _"]], windows: Iterable[windowing.Window]
) -> Iterator[Float32[np.ndarray, " _"]]:
    """The audio of windows in order of their start; holds no more of the recording than they need."""
    blocks, held, at = iter(blocks), np.zeros(0, np.float32), 0
    for window in windows:
        parts = [held]
        while at + sum(map(len, parts)) < window.stop:
            if (block := next(blocks, None)) is None:
                raise errors.InputError("became shorter while it was read")
            parts.append(block)
        held = np.concatenate(parts) if len(parts) > 1 else held
        held, at = held[window.start - at :], window.start
        yield held[: window.stop - window.start]
