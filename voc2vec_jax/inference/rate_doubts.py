"""Whether samples whose rate nobody said can be a voice at 16 kHz.

Most cannot be told: a voice at 48 kHz that is taken for one at 16 kHz is a low, slow voice. Two signs are sure enough.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from voc2vec_jax import audio

WHOLE = 22_050  # a length in whole seconds at 22.05 or 44.1 kHz is one of 22,050 lengths at another rate
# Of 2,685 recordings of Donate-a-Cry, NonVerbal Vocalization, the Human Voice Dataset and covid19-cough, read as they
# should be, none has so little above; of the 179 sung at 44.1 kHz, taken for 16 kHz, 66 have, and of 624 coughs at
# 48 kHz none: counted on 2026-11-28.
LOW_HZ, LOW_SHARE = 450.0, 0.999
CHUNK, CHUNKS = 4_096, 16


def first(items: Iterable[Any]) -> str | None:
    """A warning of the first array without a rate that is hardly a voice at 16 kHz; items as in `items`."""
    for index, item in enumerate(items):
        if isinstance(item, np.ndarray) and (why := doubt(item)):
            return f"item {index} came without a rate and is taken as 16 kHz, but {why}: give sampling_rate=..."
    return None


def doubt(samples: np.ndarray) -> str | None:
    """Why the samples of a recording are hardly those of a voice at 16 kHz, or None."""
    seconds = len(samples) / WHOLE
    if len(samples) and len(samples) % WHOLE == 0 and len(samples) % audio.RATE_HZ:
        return f"its {len(samples):,} samples are {seconds / 2:g} s at 44,100 Hz or {seconds:g} s at 22,050 Hz"
    if _share_below(samples) > LOW_SHARE:
        return f"at 16 kHz nearly all of its sound would lie below {LOW_HZ:g} Hz"
    return None


def _share_below(samples: np.ndarray) -> float:
    """The share of the power below LOW_HZ, in a few stretches of a recording."""
    if len(samples) < CHUNK:
        return 0.0
    starts = np.linspace(0, len(samples) - CHUNK, min(CHUNKS, len(samples) // CHUNK)).astype(int)
    chunks = np.stack([samples[start : start + CHUNK] for start in starts]).astype(np.float32)
    if not np.isfinite(chunks).all():  # which is refused when it is read
        return 0.0
    power = np.square(np.abs(np.fft.rfft((chunks - chunks.mean()) * np.hanning(CHUNK)))).sum(0)
    whole, below = power.sum(), power[: round(LOW_HZ * CHUNK / audio.RATE_HZ)].sum()
    return float(below / whole) if whole > 0 else 0.0
