"""The three recordings that systems are compared on: a laugh, a cry and a cough, synthesised here.

They are made of integers alone, so that they are equal to the bit on every machine and with every NumPy: NumPy keeps
the stream of PCG64's raw bits. `DIGESTS` would tell.
"""

import hashlib

import numpy as np
from jaxtyping import Int16, Int64

from voc2vec_jax import errors

RATE_HZ = 16_000
DIGESTS = {  # SHA-256 of the samples as little-endian int16
    "laugh": "74aac5f6330637ba000f88e053d05373760f1fdd705d39cec4c30c58e1c953b8",
    "cry": "4d238ecaf69bc012407ef9052f89f971b9b1af421e8fd30b7760f3100e2b47ad",
    "cough": "d8513a6c0b055a4afad4368284dbbe1ad942ec56f929ee7b62ee5d2a896d0346",
}


def read() -> dict[str, Int16[np.ndarray, " _"]]:
    """The recordings by name, at 16 kHz. RunError if they are not those that reference numbers were made of."""
    made = {"laugh": _laugh(), "cry": _cry(), "cough": _cough()}
    for name, samples in made.items():
        found = hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest()
        if found != DIGESTS[name]:
            raise errors.RunError(
                f"the recording {name} has SHA-256 {found[:12]} here and {DIGESTS[name][:12]} elsewhere, so this NumPy "
                f"({np.__version__}) computes integers differently: take another version"
            )
    return made


def _line(samples: int, *points: int) -> Int64[np.ndarray, " s"]:
    """Straight lines through points at equal distances, in whole numbers."""
    at = np.arange(samples, dtype=np.int64) * (len(points) - 1)
    left = at // samples
    values = np.array([*points, points[-1]], np.int64)
    return values[left] + (values[left + 1] - values[left]) * (at - left * samples) // samples


def _wave(phase: Int64[np.ndarray, " s"]) -> Int64[np.ndarray, " s"]:
    """Two parabolas that look like a sine of height 32,768; the period is 2^32."""
    angle = ((phase >> 16) & 0xFFFF) - 0x8000
    return angle * (0x8000 - np.abs(angle)) >> 13


def _voice(hertz: Int64[np.ndarray, " s"], *weights: int) -> Int64[np.ndarray, " s"]:
    """Harmonics of these weights in 1/256; `hertz` at every sample."""
    phase = np.cumsum((hertz << 32) // RATE_HZ)
    return sum(weight * _wave(phase * (order + 1)) for order, weight in enumerate(weights)) >> 8


def _noise(samples: int, seed: int) -> Int64[np.ndarray, " s"]:
    raw = np.random.PCG64(seed).random_raw(samples) >> np.uint64(48)
    return raw.astype(np.int64) - 0x8000


def _shaped(sound: Int64[np.ndarray, " s"], *envelope: int) -> Int64[np.ndarray, " s"]:
    """Times an envelope of points in 1/1024."""
    return sound * _line(len(sound), *envelope) >> 10


def _finished(*parts: Int64[np.ndarray, " _"]) -> Int16[np.ndarray, " s"]:
    return np.clip(np.concatenate(parts), -0x8000, 0x7FFF).astype(np.int16)


def _laugh() -> Int16[np.ndarray, " s"]:
    """Five times "ha", falling and ever softer: 1.3 s."""
    parts = []
    for number in range(5):
        loud = 700 - 110 * number
        breath = _shaped(_noise(960, 7 + number), 0, loud // 6, loud // 8)
        vowel = _voice(_line(2240, 480 - 20 * number, 400 - 20 * number), 120, 90, 60, 40, 20)
        parts += [breath, _shaped(vowel, loud // 8, loud, loud // 2, 0), np.zeros(960, np.int64)]
    return _finished(*parts)


def _cry() -> Int16[np.ndarray, " s"]:
    """One glide up and down with many harmonics: 1.1 s."""
    hertz = _line(17_600, 330, 520, 540, 500, 310)
    return _finished(
        _shaped(_voice(hertz, 100, 110, 60, 50, 40, 25, 15) + (_noise(17_600, 3) >> 7), 0, 500, 560, 440, 0)
    )


def _cough() -> Int16[np.ndarray, " s"]:
    """A burst of noise, then a short hoarse sound: 0.5 s."""
    burst = _shaped(_noise(2_400, 1), 0, 900, 300, 100)
    hoarse = _voice(_line(4_000, 210, 150), 100, 80, 60, 60, 40, 40) + (_noise(4_000, 2) >> 3)
    return _finished(burst, _shaped(hoarse, 100, 500, 250, 60, 0), np.zeros(1_600, np.int64))
