"""The three recordings are equal to the bit everywhere, and a NumPy that makes others is told."""

import numpy as np
import pytest

from voc2vec_jax import errors
from voc2vec_jax.verification import recordings


def test_they_are_those_of_the_digests_and_sound_like_something():
    made = recordings.read()
    assert {name: len(clip) for name, clip in made.items()} == {"laugh": 20_800, "cry": 17_600, "cough": 8_000}
    for clip in made.values():
        assert clip.dtype == np.int16 and 10_000 < np.abs(clip.astype(int)).max() < 32_767
    cry = np.abs(np.fft.rfft(made["cry"].astype(float)))
    assert 300 < np.argmax(cry) / len(made["cry"]) * recordings.RATE_HZ < 1100


def test_another_sample_is_refused(monkeypatch):
    wave = recordings._wave
    monkeypatch.setattr(recordings, "_wave", lambda phase: wave(phase) + (np.arange(len(phase)) == 1000))
    with pytest.raises(errors.RunError, match="the recording laugh has SHA-256 .* computes integers differently"):
        recordings.read()
