"""The spectrogram of a page, and the sound that it carries."""

import io
import tracemalloc

import numpy as np
import pytest
import soundfile

from voc2vec_jax import audio
from voc2vec_jax.inference.timelines import listening

RATE = audio.RATE_HZ


def tone(hertz, seconds):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def blocks(wave, size=1000):
    return (wave[at : at + size] for at in range(0, len(wave), size))


def test_a_tone_is_in_its_band_while_it_sounds():
    wave = np.concatenate([np.zeros(RATE, np.float32), tone(2000, 1), np.zeros(RATE, np.float32)])
    image = listening.listen(blocks(wave), len(wave)).image
    band = listening.BANDS - 1 - int(2000 / (RATE / 2) * listening.BANDS)
    columns = image.shape[1]
    assert image.shape == (listening.BANDS, 1 + (len(wave) - listening.FFT) // listening.HOP)
    middle = image[:, columns // 3 + 5 : 2 * columns // 3 - 5]
    assert set(middle.argmax(0)) <= {band, band + 1} and middle.max(0).min() > 230
    assert image[:, : columns // 3 - 5].max() == 0 == image[:, 2 * columns // 3 + 5 :].max()


@pytest.mark.parametrize("seconds", [0.001, 0.03, 0.5, 90.0])
def test_the_spectrogram_is_the_same_however_it_comes(seconds, monkeypatch):
    monkeypatch.setattr(listening, "MOST_COLUMNS", 300)
    rng = np.random.default_rng(0)
    wave = (0.1 * rng.standard_normal(max(1, round(seconds * RATE)))).astype(np.float32)
    whole = listening.listen([wave], len(wave)).image
    assert whole.shape[1] <= 300 and whole.max() == 255
    np.testing.assert_array_equal(listening.listen(blocks(wave, 777), len(wave)).image, whole)
    np.testing.assert_array_equal(listening.listen(blocks(wave, 16_384), len(wave)).image, whole)


def test_a_click_in_a_long_recording_is_seen(monkeypatch):
    monkeypatch.setattr(listening, "MOST_COLUMNS", 100)
    wave = np.zeros(100 * RATE, np.float32)
    wave[33 * RATE + 5_000 : 33 * RATE + 5_040] = 0.5
    image = listening.listen(blocks(wave, 50_000), len(wave)).image
    assert image.shape[1] == 100 and np.flatnonzero(image.max(0)).tolist() == [33]


def test_silence_is_dark():
    assert listening.listen([np.zeros(RATE, np.float32)], RATE).image.max() == 0


def test_the_sound_is_as_long_as_the_recording_and_in_its_place():
    wave = np.concatenate([np.zeros(RATE, np.float32), tone(440, 1.25)])
    heard = listening.listen(blocks(wave), len(wave), keep=True, spans=[(0.5321, 1.5), (2.0, 9.0)])
    found = audio.load(io.BytesIO(heard.sound))
    assert len(found) == pytest.approx(len(wave), abs=1)
    assert np.flatnonzero(np.abs(found) > 0.1)[0] == pytest.approx(RATE, abs=200)
    assert [len(audio.load(io.BytesIO(clip))) / RATE for clip in heard.clips] == pytest.approx(
        [0.9679, 0.25], abs=0.0001
    )
    clip = audio.load(io.BytesIO(heard.clips[0]))
    begins = round(0.4679 * RATE)
    assert np.abs(clip[: begins - 300]).max() < 0.05 < 0.4 < np.abs(clip[begins + 300 :]).max()
    assert listening.listen(blocks(wave), len(wave)).sound is None
    with soundfile.SoundFile(io.BytesIO(heard.sound)) as file:
        assert (file.samplerate, file.channels, file.format) == (RATE, 1, "MP3")


def test_twelve_minutes_take_the_memory_of_two():
    def peak(minutes):
        block = (0.1 * np.random.default_rng(0).standard_normal(60 * RATE)).astype(np.float32)
        tracemalloc.start()
        listening.listen((block for _ in range(minutes)), minutes * 60 * RATE, spans=[(1.0, 5.0)])
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(12) < 1.3 * peak(2)
