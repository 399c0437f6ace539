"""Decoding keeps the sound, and says in a sentence why it cannot."""

import io
import pathlib
import pickle
import struct

import jax
import numpy as np
import pytest
import soundfile
import soxr
import tiny_models

from voc2vec_jax import audio, errors
from voc2vec_jax.audio import sndfile

REFUSE = audio.Reading(on_truncated="refuse")
TONE = (0.5 * np.sin(np.arange(44_100) / 20)).astype(np.float32)


def _write(path: pathlib.Path, frames: np.ndarray, rate_hz: int = 16_000, **options: str) -> pathlib.Path:
    soundfile.write(path, frames, rate_hz, **options)
    return path


@pytest.mark.parametrize(
    "file_name, options, tolerance",
    [
        ("a.wav", {"subtype": "PCM_U8"}, 2**-6),
        ("a.wav", {"subtype": "PCM_16"}, 2**-14),
        ("a.wav", {"subtype": "PCM_24"}, 2**-21),
        ("a.wav", {"subtype": "PCM_32"}, 2**-22),
        ("a.wav", {"subtype": "FLOAT"}, 0.0),
        ("a.wav", {"subtype": "DOUBLE"}, 0.0),
        ("a.flac", {}, 2**-14),
        ("a.ogg", {}, 0.05),
        ("a.mp3", {}, 0.05),
    ],
)
def test_a_stereo_file_becomes_the_resampled_mean_of_its_channels(tmp_path, file_name, options, tolerance):
    path = _write(tmp_path / file_name, np.stack([TONE, TONE / 2], axis=1), 44_100, **options)
    mean = ((TONE + TONE / 2) / 2).astype(np.float32)
    expected = soxr.resample(mean, 44_100, audio.RATE_HZ, quality="HQ")
    found = audio.load(path)
    assert found.dtype == np.float32 and len(found) == 16_000
    np.testing.assert_allclose(found[200:-200], expected[200:-200], rtol=0, atol=tolerance)
    with path.open("rb") as file:
        np.testing.assert_array_equal(audio.load(io.BytesIO(file.read())), found)


def test_blocks_do_not_show(tmp_path, monkeypatch):
    path = _write(tmp_path / "a.wav", TONE, 44_100)
    whole = audio.load(path)
    monkeypatch.setattr(sndfile, "BLOCK_FRAMES", 997)
    np.testing.assert_array_equal(audio.load(path), whole)


def test_16_khz_mono_int16_survives_to_the_bit(tmp_path):
    samples = np.arange(-32768, 32768, dtype=np.int16)
    back, clipped = audio.to_int16(audio.load(_write(tmp_path / "a.wav", samples)))
    np.testing.assert_array_equal(back, samples)
    assert clipped == 0


def test_every_int16_becomes_the_same_float_in_numpy_and_on_a_device():
    samples = np.arange(-32768, 32768, dtype=np.int16)
    wanted = (samples.astype(np.float64) / 32768).astype(np.float32)
    for found in (audio.from_int16(samples), np.asarray(jax.jit(audio.from_int16)(samples))):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32))


def test_clipping_is_counted_and_saturates():
    samples, clipped = audio.to_int16(np.array([1.0, 0.99999, -1.0, -1.00002, 3.0, -0.5], np.float32))
    assert samples.tolist() == [32767, 32767, -32768, -32768, 32767, -16384]
    assert clipped == 4  # 0.99999 rounds to 32768, which int16 lacks; -1 is -32768


def test_eight_channels_at_192_khz_and_a_single_sample_are_read(tmp_path):
    eight = _write(tmp_path / "8.wav", np.stack([TONE] * 8, axis=1), 192_000)
    assert len(audio.load(eight)) == round(len(TONE) / 12)
    assert audio.load(_write(tmp_path / "1.wav", TONE[5:6])).shape == (1,)


def _wav(frames: np.ndarray = TONE, rate_hz: int = 16_000, **options: str) -> bytearray:
    file = io.BytesIO()
    soundfile.write(file, frames, rate_hz, format="WAV", **options)
    return bytearray(file.getvalue())


def _patched(data: bytearray, at: int, layout: str, value: int) -> bytearray:
    struct.pack_into(layout, data, at, value)
    return data


NOT_FINITE = [np.array([0, bad, 0], np.float32) for bad in (np.nan, np.inf, -np.inf)]


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "is empty (zero bytes)"),
        (b"no audio at all, just text", "is text, not a recording"),
        (_wav(TONE[:0]), "holds no audio (zero frames)"),
        (_wav()[:20_000], "is truncated: its header promises 88244 bytes, 20000 are there"),
        (_wav()[:-1], "is truncated: its header promises 88244 bytes, 88243 are there"),
        (_wav()[:44], "is truncated: its header promises 88244 bytes, 44 are there"),
        (_wav(NOT_FINITE[0], subtype="FLOAT"), "holds NaN or infinite samples"),
        (_wav(NOT_FINITE[1], 44_100, subtype="FLOAT"), "holds NaN or infinite samples"),
        (_wav(NOT_FINITE[2], subtype="DOUBLE"), "holds NaN or infinite samples"),
        (_wav(TONE[:1], 192_000), "nothing is left of its 1 frames at 192000 Hz after resampling"),
        (_patched(_wav(), 24, "<I", 8), "its header gives a rate of 8 Hz, which is not a rate of audio"),
        (_patched(_wav(), 24, "<I", 1 << 30), "its header gives a rate of 1073741824 Hz, which is not a rate of audio"),
        (tiny_models.streamed_flac()[:90], "its header gives an impossible length"),
        (_patched(_wav(), 22, "<H", 0), "cannot be decoded (Channel count is zero)"),
    ],
)
def test_a_useless_file_is_refused_with_its_name_and_the_reason(tmp_path, data, reason):
    path = tmp_path / "x.wav"
    path.write_bytes(data)
    with pytest.raises(audio.AudioError) as caught:
        audio.load(path, how=REFUSE)
    assert caught.value.reason == reason and str(caught.value) == f"{path}: {reason}"
    assert isinstance(caught.value, errors.InputError) and "\n" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    "place, reason", [("gone.wav", "No such file or directory"), (".", "Is a directory"), ("a\0", "zero byte")]
)
def test_a_path_that_is_no_file_is_refused(tmp_path, place, reason):
    with pytest.raises(audio.AudioError, match=reason):
        audio.load(tmp_path / place)


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
def test_a_cut_compressed_file_is_refused(tmp_path, suffix):
    whole = _write(tmp_path / f"a.{suffix}", TONE, 44_100).read_bytes()
    with pytest.raises(audio.AudioError, match="truncated|cannot be decoded"):
        audio.load(io.BytesIO(whole[: len(whole) // 2]), "cut", REFUSE)


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_from_a_pipe_does_not_know_its_length_and_is_read_to_the_end(length):
    data = _patched(_wav(), 40, "<I", length)
    np.testing.assert_array_equal(audio.load(io.BytesIO(data)), audio.load(io.BytesIO(_wav())))


@pytest.mark.parametrize("samples", [0, 1, 159_999, 160_000, 160_001, 320_000, 500_003])
def test_segments_are_the_fewest_equal_ones_and_cover_everything(samples):
    cuts = audio.segments(samples)
    lengths = [stop - start for start, stop in cuts]
    assert len(cuts) == -(-samples // 160_000) and sum(lengths) == samples
    assert all(stop == start for (_, stop), (start, _) in zip(cuts, cuts[1:]))
    assert not cuts or (max(lengths) <= 160_000 and max(lengths) - min(lengths) <= 1)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("file_name", ["a.wav", "a.flac", "a.mp3"])
def test_a_stretch_is_that_part_of_the_whole_and_the_rest_is_not_read(tmp_path, monkeypatch, rate_hz, file_name):
    rng = np.random.default_rng(0)
    voice = np.cumsum(rng.normal(0, 0.01, (5 * rate_hz, 2)), axis=0).astype(np.float32)
    path = _write(tmp_path / file_name, np.sin(voice) / 2, rate_hz)
    whole = audio.load(path)
    read = []
    plain = soundfile.SoundFile.read
    monkeypatch.setattr(
        soundfile.SoundFile, "read", lambda self, *a, **k: [block := plain(self, *a, **k), read.append(len(block))][0]
    )
    for start, end in ((0.0, 0.5), (1.2345, 2.0), (3.0, 5.0), (4.9, 5.004)):
        read.clear()
        found = audio.load_stretch(path, start, end)
        expected = whole[round(start * 16_000) : round(end * 16_000)]
        assert len(found) == len(expected)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
        assert sum(read) < (end - start + 0.7) * rate_hz
    assert audio.seconds(path) == pytest.approx(5.0, abs=0.06)


def test_what_makes_a_stretch_unusable_is_said(tmp_path):
    path = _write(tmp_path / "a.wav", TONE, 44_100)
    with pytest.raises(audio.AudioError, match="a.wav: holds nothing from 1.5 to 2 s"):
        audio.load_stretch(path, 1.5, 2.0)
    with pytest.raises(audio.AudioError, match="cannot be opened"):
        audio.load_stretch(tmp_path / "b.wav", 0.0, 1.0)
    bad = TONE.copy()
    bad[30_000] = np.nan
    path = _write(tmp_path / "nan.wav", bad, 44_100, subtype="FLOAT")
    assert len(audio.load_stretch(path, 0.0, 0.2)) == 3200
    with pytest.raises(audio.AudioError, match="NaN or infinite"):
        audio.load_stretch(path, 0.5, 0.8)
    cut = tmp_path / "cut.wav"
    cut.write_bytes(path.read_bytes()[:40_000])
    with pytest.raises(audio.AudioError, match="is truncated: its header promises"):
        audio.load_stretch(cut, 0.0, 0.1, how=REFUSE)
    assert audio.seconds(tmp_path / "b.wav") is None


def test_places_that_there_are_not_are_no_noise_on_stderr(tmp_path, capfd):
    common = b"COMM" + struct.pack(">IhIh", 18, 1, 8000, 16) + b"\xfa\0\0\xfa" + bytes(6)
    path = tmp_path / "a.aiff"
    path.write_bytes(b"FORM" + struct.pack(">I", 17_088) + b"AIFF" + common + b"SSN" + bytes(4041))
    with pytest.raises(audio.AudioError, match="a.aiff: cannot be decoded"):
        audio.load(path)
    assert capfd.readouterr() == ("", "")
