"""Items as `items` lists them to float32 audio at 16 kHz."""

import concurrent.futures
import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import soxr
from jaxtyping import Float32

from voc2vec_jax import audio, errors
from voc2vec_jax.inference import open_files, prefetch, urls

THREADS = min(4, os.cpu_count() or 1)
_BLOCK_SAMPLES = 1 << 22  # whose squares lie in memory at once, in float64


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
    parts = np.split(centred, range(_BLOCK_SAMPLES, len(centred), _BLOCK_SAMPLES))
    power = sum(np.square(part, dtype=np.float64).sum() for part in parts) / len(centred)
    centred /= np.float32(math.sqrt(power + eps))
    return centred


def load(
    index: int,
    item: Any,
    least_samples: int,
    how: audio.Reading = audio.DEFAULT,
    remark: audio.Remark | None = None,
) -> Float32[np.ndarray, " s"]:
    """One item as mono float32 audio at 16 kHz, as `audio.load`; InputError names the item if it cannot be used."""
    if isinstance(item, np.ndarray | tuple):
        name, clip = f"item {index}", _of_array(f"item {index}", item)
    else:
        name = f"item {index} ({shown(item)})"
        try:
            with _opened(item) as file:
                clip = audio.load(file, shown(item), how, remark)
        except audio.AudioError as fault:  # a remedy is a field of `how`, and no flag
            raise audio.AudioError(fault.name, audio.spelt(fault.reason, "")) from fault
    if len(clip) < least_samples:
        raise errors.InputError(
            f"{name} has {len(clip)} samples at 16 kHz, and one frame needs {least_samples}: leave it out or pad it"
        )
    return clip


def shown(item: Any) -> str:
    """What an item that is no array is called, without what may be secret in an address."""
    return item.shown if isinstance(item, urls.Url) else str(item)


def _opened(item: Any) -> contextlib.AbstractContextManager[Any]:
    if isinstance(item, urls.Url):
        return urls.fetched(item)
    return item.held() if isinstance(item, open_files.OpenFile) else contextlib.nullcontext(item)


def _of_array(name: str, item: Any) -> Float32[np.ndarray, " s"]:
    array, rate = item if isinstance(item, tuple) else (item, audio.RATE_HZ)
    clip = as_float(array)
    if not np.isfinite(clip).all():
        raise errors.InputError(f"{name} holds NaN or infinite samples: leave it out or repair it")
    if len(clip) and (peak := float(np.abs(clip).max())) > audio.MOST_OVER:
        raise errors.InputError(
            f"{name} holds samples up to {peak:g}, and floats lie within 1: divide them by their full scale, "
            "which is 32768 for those of int16"
        )
    return clip if rate == audio.RATE_HZ else soxr.resample(clip, rate, audio.RATE_HZ, quality="HQ")


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
        remarks.extend((shown(numbered[1]), kind, text) for kind, text in told.remarks)
        return clip

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        yield from prefetch.in_order(attempt, enumerate(items), pool, chunk=1, chunks=THREADS)
