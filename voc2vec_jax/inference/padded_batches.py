"""A padded batch that a caller made: checked, and prepared as the model's input."""

from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from voc2vec_jax import errors
from voc2vec_jax.inference import loading


def checked(audio: Any, lengths: Any, least_samples: int) -> tuple[Float32[np.ndarray, "b s"], Int32[np.ndarray, " b"]]:
    """A copy of the batch as floats, and the samples of each row, by default all.

    InputError for a wrong rank or type, NaN, and lengths beyond the batch or under `least_samples`.
    """
    if len(np.shape(audio)) != 2:
        raise errors.InputError(
            f"audio has shape {np.shape(audio)}: give [batch, samples], one clip as audio[None], or use embed"
        )
    array = np.asarray(audio)
    if not loading.is_audio_type(array.dtype):
        raise errors.InputError(f"audio holds {array.dtype}: give floats in [-1, 1] or int16")
    padded = loading.as_float(array)
    b, s = padded.shape
    given = np.full(b, s) if lengths is None else np.asarray(lengths)
    if given.shape != (b,) or given.dtype.kind not in "iu":
        raise errors.InputError(f"lengths {given.dtype}{given.shape} are not {b} whole numbers, one for each row")
    for row, length in enumerate(given):
        if not least_samples <= length <= s:
            raise errors.InputError(
                f"row {row} has length {length}: one frame needs {least_samples}, the batch has {s}"
            )
        if not np.isfinite(padded[row, :length]).all():
            raise errors.InputError(f"row {row} of the audio holds NaN or infinite samples: leave it out")
    return padded, given.astype(np.int32)


def prepare(
    padded: Float32[np.ndarray, "b s"],
    lengths: Int32[np.ndarray, " b"],
    seen: Int32[np.ndarray, " b"],
    eps: float | None,
) -> None:
    """Clears each row past its own length and, with `eps`, normalises it over the samples that the model sees."""
    for row, own, length in zip(padded, lengths, seen):
        row[own:] = 0
        if eps is not None:
            row[:length] = loading.normalised(row[:length], eps)
