"""Items of `embed` (paths, arrays, pairs of array and rate) to float32 audio at 16 kHz."""

import concurrent.futures
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import ml_dtypes
import numpy as np
import soxr
from jaxtyping import Float32

from voc2vec_jax import audio, errors
from voc2vec_jax.inference import prefetch

THREADS = min(4, os.cpu_count() or 1)


def check(items: Any) -> list[Any]:
    """`items` as a list; InputError unless it holds paths, arrays and (array, rate_hz) pairs."""
    if isinstance(items, str | os.PathLike) or hasattr(items, "dtype"):
        raise errors.InputError(f"items is one {type(items).__name__}: give a list, also of one")
    items = [os.path.expanduser(item) if isinstance(item, str | os.PathLike) else item for item in items]
    if not items:
        raise errors.InputError("items is empty: give at least one path or array")
    for index, item in enumerate(items):
        if not isinstance(item, str | os.PathLike):
            _check_array(index, item)
    return items


def _check_array(index: int, item: Any) -> None:
    array, rate = item if isinstance(item, tuple) and len(item) == 2 else (item, audio.RATE_HZ)
    if not isinstance(array, np.ndarray | jax.Array):
        raise errors.InputError(f"item {index} is a {type(array).__name__}: give a path, an array or (array, rate_hz)")
    if len(array.shape) != 1:
        raise errors.InputError(f"item {index} has shape {tuple(array.shape)}: give mono audio of shape (samples,)")
    if not is_audio_type(array.dtype):
        raise errors.InputError(f"item {index} holds {array.dtype}: give floats in [-1, 1] or int16")
    if not isinstance(rate, int | np.integer) or rate < audio.LOWEST_RATE_HZ:
        raise errors.InputError(f"item {index} has the rate {rate!r}: give whole Hz, {audio.LOWEST_RATE_HZ} or more")


def is_audio_type(dtype: Any) -> bool:
    """Whether `as_float` knows the scale of this type."""
    return np.issubdtype(dtype, np.floating) or dtype in (np.int16, ml_dtypes.bfloat16)


def as_float(array: Any) -> Float32[np.ndarray, "..."]:
    """Floats as they are; int16 divided by 32768."""
    array = np.asarray(array)
    return audio.from_int16(array) if array.dtype == np.int16 else array.astype(np.float32)


def normalised(clip: Float32[np.ndarray, " s"], eps: float) -> Float32[np.ndarray, " s"]:
    """The clip with zero mean and unit variance; `eps` is added to the variance."""
    mean = clip.mean(dtype=np.float64)
    centred = clip - np.float32(mean)
    return centred / np.float32(math.sqrt(np.square(centred, dtype=np.float64).mean() + eps))


def load(
    index: int,
    item: Any,
    least_samples: int,
    how: audio.Reading = audio.DEFAULT,
    remark: audio.Remark | None = None,
) -> Float32[np.ndarray, " s"]:
    """One item as mono float32 audio at 16 kHz, as `audio.load`; InputError names the item if it cannot be used."""
    if isinstance(item, str | os.PathLike):
        name = f"item {index} ({os.fspath(item)})"
        try:
            clip = audio.load(item, how=how, remark=remark)
        except audio.AudioError as fault:  # a remedy is a field of `how`, and no flag
            raise audio.AudioError(fault.name, audio.spelt(fault.reason, "")) from fault
    else:
        array, rate = item if isinstance(item, tuple) else (item, audio.RATE_HZ)
        clip, name = as_float(array), f"item {index}"
        if not np.isfinite(clip).all():
            raise errors.InputError(f"{name} holds NaN or infinite samples: leave it out or repair it")
        if len(clip) and (peak := float(np.abs(clip).max())) > audio.MOST_OVER:
            raise errors.InputError(
                f"{name} holds samples up to {peak:g}, and floats lie within 1: divide them by their full scale, "
                "which is 32768 for those of int16"
            )
        if rate != audio.RATE_HZ:
            clip = soxr.resample(clip, rate, audio.RATE_HZ, quality="HQ")
    if len(clip) < least_samples:
        raise errors.InputError(
            f"{name} has {len(clip)} samples at 16 kHz, and one frame needs {least_samples}: leave it out or pad it"
        )
    return clip


def loaded(
    items: Sequence[Any], least_samples: int, how: audio.Reading, remarks: list[tuple[str, str, str]]
) -> Iterator[Float32[np.ndarray, " s"] | errors.InputError]:
    """Each item's audio in order, or the fault of an unusable one; threads read a few items ahead.

    Adds (path, kind, text) to `remarks` for what is odd about a usable one, in no particular order.
    """

    def attempt(numbered: tuple[int, Any]) -> Float32[np.ndarray, " s"] | errors.InputError:
        told = audio.Told()
        try:
            clip = load(*numbered, least_samples, how, told)
        except errors.InputError as fault:
            return fault
        remarks.extend((str(numbered[1]), kind, text) for kind, text in told.remarks)
        return clip

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        yield from prefetch.in_order(attempt, enumerate(items), pool, chunk=1, chunks=THREADS)
