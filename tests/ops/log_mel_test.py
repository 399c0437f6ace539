"""Log-mel spectra are those of transformers' WhisperFeatureExtractor, and a clip's own whatever its batch."""

import functools

import jax
import numpy as np
import pytest
import transformers

from voc2vec_jax.ops import log_mel

RATE = log_mel.RATE_HZ
# float32: transformers' spectra lie as far from its own in float64
TOLERANCE = 1e-5
# A pure tone has bands of a hundred-millionth of its power, at the end of float32's digits
TOLERANCE_OF_TONES = 1e-4


@functools.partial(jax.jit, static_argnums=2)
def ours(audio, lengths, bands):
    return log_mel.log_mel(audio, lengths, bands)


def extractor(bands):
    return transformers.WhisperFeatureExtractor(bands)


def sounds():
    rng = np.random.default_rng(0)
    seconds = np.arange(20_000) / RATE
    fading = rng.normal(size=20_000) * np.exp(-8 * seconds)
    return {
        "noise": 0.1 * rng.normal(size=7_777),
        "noise that fades below the range": fading,
        "silence": np.zeros(4_000),
        "shortest": 0.1 * rng.normal(size=log_mel.LEAST_SAMPLES),
        "loud": 40 * rng.normal(size=3_200),
        "tone": 0.5 * np.sin(2 * np.pi * 440 * seconds),
    }


@pytest.mark.parametrize("bands", [80, 128])
def test_filters_are_slaneys(bands):
    np.testing.assert_allclose(log_mel.mel_filters(bands), extractor(bands).mel_filters, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bands", [80, 128])
@pytest.mark.parametrize("name", sounds())
def test_a_clip_as_it_is_has_transformers_spectrum(name, bands):
    """Behind it loud noise, where a batch would have padding."""
    clip = sounds()[name].astype(np.float32)
    theirs = extractor(bands)(clip, sampling_rate=RATE, padding="do_not_pad", return_tensors="np").input_features[0].T
    noise = np.random.default_rng(1).normal(size=1_000).astype(np.float32)
    found = np.asarray(ours(np.concatenate([clip, noise])[None], np.array([len(clip)]), bands))[0]
    assert len(theirs) == log_mel.frames(len(clip)) and not found[len(theirs) :].any()
    tolerance = TOLERANCE_OF_TONES if name == "tone" else TOLERANCE
    np.testing.assert_allclose(found[: len(theirs)], theirs, rtol=0, atol=tolerance)


def test_thirty_seconds_have_transformers_spectrum_and_another_floor():
    """The silence behind a clip is quieter than the clip's own range, and the range follows the whole."""
    clip = sounds()["noise"].astype(np.float32)
    theirs = extractor(80)(clip, sampling_rate=RATE, return_tensors="np").input_features[0].T
    whole = np.zeros((1, 30 * RATE), np.float32)
    whole[0, : len(clip)] = clip
    found = np.asarray(ours(whole, np.array([30 * RATE]), 80))[0]
    assert found.shape == (3000, 80)
    np.testing.assert_allclose(found, theirs, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(found[-1], found.max() - log_mel.RANGE / 4, rtol=0, atol=1e-6)


def test_rows_do_not_notice_each_other():
    rows = [sounds()[name].astype(np.float32)[:3_200] for name in ("noise", "loud", "noise that fades below the range")]
    lengths = np.array([3_200, 201, 1_999])
    together = np.asarray(ours(np.stack(rows), lengths, 80))
    for row, length in enumerate(lengths):
        alone = np.asarray(ours(rows[row][None, :length], lengths[row : row + 1], 80))[0]
        np.testing.assert_allclose(together[row, : len(alone)], alone, rtol=0, atol=2e-6)
