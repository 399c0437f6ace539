"""Several channels: which is taken, and what is told where one is silent or two cancel out; floats out of scale."""

import io
import tracemalloc

import numpy as np
import pytest
import soundfile
import soxr

from voc2vec_jax import audio
from voc2vec_jax.audio import channels

RATE_HZ = 16_000
VOICE = (0.3 * np.sin(np.cumsum(np.random.default_rng(0).normal(0, 0.3, 30_000)))).astype(np.float32)
OTHER = (0.3 * np.sin(np.cumsum(np.random.default_rng(1).normal(0, 0.3, 30_000)))).astype(np.float32)
SILENCE = np.zeros(30_000, np.float32)


def _wav(*columns: np.ndarray, rate_hz: int = RATE_HZ, subtype: str = "FLOAT") -> io.BytesIO:
    file = io.BytesIO()
    soundfile.write(file, np.stack(columns, axis=1), rate_hz, format="WAV", subtype=subtype)
    file.seek(0)
    return file


def _load(file: io.BytesIO, **how) -> tuple[np.ndarray, list[tuple[str, str]]]:
    told = []
    return audio.load(file, "x", audio.Reading(**how), lambda *remark: told.append(remark)), told


@pytest.mark.parametrize(
    "columns, taken, told",
    [
        ((VOICE, OTHER), {"first": 0, "loudest": 0}, {}),
        ((VOICE, VOICE), {"first": 0, "loudest": 0}, {}),
        ((VOICE, VOICE / 2), {"first": 0, "loudest": 0}, {}),
        ((VOICE / 2, OTHER), {"first": 0, "loudest": 1}, {}),
        ((VOICE, OTHER / 5), {"first": 0, "loudest": 0}, {}),
        ((VOICE, -0.5 * OTHER), {"first": 0, "loudest": 0}, {}),
        ((VOICE, -VOICE), {"first": 0, "loudest": 0}, {"mean": "phase"}),
        ((VOICE / 2, -0.8 * VOICE), {"first": 0, "loudest": 1}, {"mean": "phase"}),
        ((VOICE + 0.2, 0.2 - 0.9 * VOICE), {"first": 0, "loudest": 0}, {"mean": "phase"}),
        ((SILENCE, VOICE), {"first": 0, "loudest": 1}, {"mean": "silent_channel", "first": "silent_channel"}),
        ((SILENCE + 0.4, VOICE), {"first": 0, "loudest": 1}, {"mean": "silent_channel", "first": "silent_channel"}),
        ((VOICE, OTHER / 20), {"first": 0, "loudest": 0}, {"mean": "silent_channel"}),
        ((VOICE / 2, SILENCE, OTHER), {"first": 0, "loudest": 2}, {"mean": "silent_channel"}),
        ((OTHER / 3, VOICE, OTHER / 7), {"first": 0, "loudest": 1}, {}),
        ((SILENCE, SILENCE), {"first": 0, "loudest": 0}, {}),
        ((VOICE,), {"first": 0, "loudest": 0}, {}),
    ],
)
@pytest.mark.parametrize("rate_hz", [RATE_HZ, 44_100])
def test_the_channel_asked_for_is_taken_and_what_is_odd_is_told(columns, taken, told, rate_hz):
    mean = np.zeros_like(VOICE)
    for column in columns:
        mean += column
    for channel, wanted in (("mean", mean / len(columns)), *((name, columns[k]) for name, k in taken.items())):
        found, remarks = _load(_wav(*columns, rate_hz=rate_hz), channel=channel)
        wanted = wanted if rate_hz == RATE_HZ else soxr.resample(wanted, rate_hz, RATE_HZ, quality="HQ")
        np.testing.assert_array_equal(found, wanted)
        assert [kind for kind, _ in remarks] == ([told[channel]] if channel in told else [])


def test_three_channels_are_summed_in_their_order():
    frames = np.array([[2**24, 1, 1], [1, 1, 2**24], [3, 6, -3]], np.float32)  # in float32, 2^24 + 1 = 2^24
    assert channels.mix_down(frames).tolist() == [np.float32(2**24) / 3, np.float32(2**24 + 2) / 3, 2]


def test_remarks_have_numbers_and_the_remedy():
    silent = "is nearly silent (%s below channel %d) and %s: --channel=loudest %s"
    assert _load(_wav(VOICE, 0.01 * OTHER))[1][0][1] == (
        "channel 2 of 2 " + silent % ("40 dB", 1, "part of the mean", "leaves it out")
    )
    assert _load(_wav(SILENCE, VOICE), channel="first")[1][0][1] == (
        "channel 1 of 2 " + silent % ("more than 100 dB", 2, "the one that is taken", "takes the other")
    )
    assert "mean loses more than 100 dB: " in _load(_wav(VOICE, -VOICE, subtype="PCM_16"))[1][0][1]
    assert _load(_wav(VOICE, -0.9 * VOICE))[1][0][1] == (
        "has channels of opposite phase, of whose power their mean loses 26 dB: --channel=first takes one of them"
    )


def test_the_loudest_channel_of_a_stretch_is_that_of_the_stretch(tmp_path):
    path = tmp_path / "two.wav"
    half = np.repeat([1.0, 0.05], 15_000).astype(np.float32)
    path.write_bytes(_wav(VOICE * half, OTHER * half[::-1]).getvalue())
    how = audio.Reading(channel="loudest")
    for start, column in ((0.1, VOICE * half), (1.3, OTHER * half[::-1])):
        found = audio.load_stretch(path, start, start + 0.25, how=how, remark=lambda kind, text: None)
        np.testing.assert_array_equal(found, column[round(start * RATE_HZ) :][:4_000])
    kinds = []
    audio.load_stretch(path, 1.3, 1.5, how=audio.Reading(channel="first"), remark=lambda kind, _: kinds.append(kind))
    assert kinds == ["silent_channel"]


def test_the_loudest_channel_is_found_in_the_memory_of_a_block(tmp_path):
    frames = 1 << 21
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(np.stack([VOICE / 9, OTHER], axis=1), (70, 1))[:frames], RATE_HZ, subtype="PCM_16")
    tracemalloc.start()
    blocks = audio.stream(path, how=audio.Reading(channel="loudest"), remark=lambda kind, text: None)
    assert sum(map(len, blocks)) == frames
    assert tracemalloc.get_traced_memory()[1] < 4 * 8 * (1 << 18)  # blocks of 2^18 frames of two floats
    tracemalloc.stop()


@pytest.mark.parametrize("period", [2, 3, 4, 8, 16, 32])
@pytest.mark.parametrize("frames", [20_000, 1 << 18])
def test_a_tone_is_no_silence_though_only_some_samples_are_looked_at(period, frames):
    noise = np.random.default_rng(0).normal(0, 0.1, frames).astype(np.float32)
    tone = (0.1 * np.sin(2 * np.pi * np.arange(frames) / period + 0.4)).astype(np.float32)
    assert not _load(_wav(tone, noise, subtype="PCM_16"))[1]


INTEGERS = np.rint(VOICE * 3e4).astype(np.float32)


@pytest.mark.parametrize(
    "samples, scale",
    [
        (INTEGERS, "int16"),
        (VOICE * 30_000, "int16"),
        (VOICE * 130_000, "int16"),  # resampling can pass the bounds
        (VOICE * 2**22, "int24"),
        (VOICE * 2**30, "int32"),
        (np.rint(VOICE * 20), "int16"),
        (np.where(np.arange(30_000) < 29_000, 0, VOICE * 30_000), "int16"),
    ],
)
@pytest.mark.parametrize("subtype, suffix", [("FLOAT", "WAV"), ("DOUBLE", "AIFF"), ("FLOAT", "CAF")])
def test_floats_in_the_scale_of_whole_numbers_are_refused_or_divided_by_it(samples, scale, subtype, suffix, tmp_path):
    path = tmp_path / "x"
    samples = samples.astype(np.float32)
    soundfile.write(path, np.stack([samples, samples], axis=1), RATE_HZ, format=suffix, subtype=subtype)
    peak, number = f"{np.abs(samples).max():g}", channels.SCALES[scale]
    with pytest.raises(audio.AudioError) as caught:
        audio.load(path)
    assert caught.value.reason == (
        f"holds samples up to {peak}, and audio lies within 1, as floats in the scale of {scale} have: "
        f"--rescale_float divides them by {number}"
    )
    told = []
    how = audio.Reading(rescale_float=True)
    found = audio.load(path, "x", how, lambda *remark: told.append(remark))
    np.testing.assert_array_equal(found, samples / np.float32(number))
    assert told == [("scale", f"holds floats in the scale of {scale}, up to {peak}: divided by {number}")]
    stretch = audio.load_stretch(path, 0.0, 0.1, how=how, remark=lambda *remark: told.append(remark))
    np.testing.assert_array_equal(stretch, found[:1_600])
    assert told[1] == told[0]


def test_the_loudest_channel_is_divided_by_the_scale():
    found, told = _load(_wav(VOICE * 3_000, OTHER * 30_000), channel="loudest", rescale_float=True)
    np.testing.assert_array_equal(found, OTHER * 30_000 / np.float32(32_768))
    assert [kind for kind, _ in told] == ["scale"]


@pytest.mark.parametrize("rescale_float", [False, True])
@pytest.mark.parametrize("peak", [1.0, 1.5, 12.0])
def test_loud_floats_are_left_as_they_are(peak, rescale_float):
    loud = VOICE * np.float32(peak / 0.3)
    found, told = _load(_wav(loud), rescale_float=rescale_float)
    np.testing.assert_array_equal(found, loud)
    assert not told


def test_floats_beyond_every_scale_are_refused():
    for rescale_float in (False, True):
        with pytest.raises(audio.AudioError, match="holds samples up to .*e\\+19"):
            _load(_wav(VOICE * np.float32(1e20)), rescale_float=rescale_float)
        with pytest.raises(audio.AudioError, match="NaN or infinite"):
            _load(_wav(np.where(VOICE > 0.29, np.inf, VOICE).astype(np.float32)), rescale_float=rescale_float)


def test_a_channel_that_is_not_finite_is_not_the_loudest():
    broken = VOICE.copy()
    broken[7] = np.nan
    np.testing.assert_array_equal(_load(_wav(broken, OTHER), channel="loudest")[0], OTHER)
    with pytest.raises(audio.AudioError, match="NaN"):
        _load(_wav(broken, OTHER))
