"""Headers as recorders, pipes and converters leave them: what the file holds is read, and what is odd is told."""

import io
import struct

import numpy as np
import odd_headers
import pytest
import soundfile
import soxr

from voc2vec_jax import audio
from voc2vec_jax.audio import flac, reading, wav

CASES = odd_headers.cases()


def _told(data: bytes) -> tuple[np.ndarray, list[str]]:
    kinds = []
    return audio.load(io.BytesIO(data), "x", remark=lambda kind, text: kinds.append(kind)), kinds


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_samples_are_those_that_the_file_holds(case, tmp_path):
    if case.truth is None:
        with pytest.raises(audio.AudioError, match="holds no audio|cannot be decoded"):
            _told(case.data)
        return
    wanted = case.truth.mean(axis=1, dtype=np.float32)
    if case.rate_hz != audio.RATE_HZ:
        wanted = soxr.resample(wanted, case.rate_hz, audio.RATE_HZ, quality="HQ")
    found, kinds = _told(case.data)
    np.testing.assert_array_equal(found, wanted)
    silent = reading.Reporter("x", remark=lambda kind, text: None)
    with soundfile.SoundFile(flac.corrected(wav.corrected(io.BytesIO(case.data), silent), silent)) as alone:
        assert alone.frames == len(case.truth)  # libsndfile needs no help of another decoder
    assert kinds == [*case.remarks]
    path = tmp_path / "x"
    path.write_bytes(case.data)
    assert audio.seconds(path) == len(case.truth) / case.rate_hz
    stretch = audio.load_stretch(path, 0.1, 0.2, remark=lambda kind, text: kinds.append(kind))
    np.testing.assert_allclose(stretch, wanted[1_600:3_200], rtol=0, atol=2e-6)
    assert kinds == [*case.remarks] * 2 and path.read_bytes() == case.data


@pytest.mark.parametrize("kind", ["cut", "junk", "frames"])
def test_what_is_odd_is_told_with_its_numbers(kind):
    name, text = {
        "cut": ("wav cut", "is truncated: its header promises 20048 bytes, 16048 are there"),
        "junk": ("w64 short, junk", "goes on for 396 bytes after the end of its audio by its header: not read"),
        "frames": ("aiff fewer frames than bytes", "holds 5001 frames, and its header gives 4901: all are read"),
    }[kind]
    data = next(case.data for case in CASES if case.name == name)
    with pytest.warns(audio.AudioWarning, match=f"^x: {text}$"):
        found = audio.load(io.BytesIO(data), "x")
    assert len(found) == len(next(case.truth for case in CASES if case.name == name))


def test_a_second_flac_as_long_as_the_first_is_told():
    samples = odd_headers.voice(1, 40_000)
    found, kinds = _told(odd_headers.flac(None, samples) * 2)
    np.testing.assert_array_equal(found, odd_headers.as_read(samples)[:, 0])
    assert kinds == ["length"]


def test_nothing_but_a_header_is_truncated_and_refused():
    data = next(case.data for case in CASES if case.name == "wav cut")[:44]
    with pytest.raises(audio.AudioError, match="is truncated: its header promises 20048 bytes, 44 are there"):
        audio.load(io.BytesIO(data))


@pytest.mark.parametrize("magic", [b"RIFF", b"BW64"])
@pytest.mark.parametrize("length", ["wrapped", "unknown", "right"])
def test_more_than_4_gib_need_no_right_header(tmp_path, magic, length):
    frames = (1 << 30) + 250_000  # of 4 bytes
    size = {"wrapped": 4 * frames - (1 << 32), "unknown": 0xFFFFFFFF, "right": 0xFFFFFFFF}[length]
    sizes = [odd_headers.ds64(4 * frames + 80, 4 * frames, frames)] if length == "right" else []
    head = odd_headers.form(*sizes, odd_headers.fmt(2), odd_headers.chunk(b"data", b"", size), magic=magic)
    path = tmp_path / "long.wav"
    with path.open("wb") as file:
        file.write(head)
        file.seek(len(head) + 4 * (frames - 16_000))
        file.write(odd_headers.coded(odd_headers.voice(2, 16_000)))
    assert audio.seconds(path) == frames / 16_000
    mean = odd_headers.as_read(odd_headers.voice(2, 16_000)).mean(axis=1, dtype=np.float32)
    np.testing.assert_array_equal(audio.load_stretch(path, frames / 16_000 - 1, frames / 16_000), mean)


def test_a_walk_over_chunks_is_bounded(monkeypatch):
    data = odd_headers.form(
        odd_headers.chunk(b"JUNK", b"") * 20, odd_headers.fmt(1), odd_headers.chunk(b"data", b"1234", 0)
    )
    file, reporter = io.BytesIO(data), reading.Reporter("x")
    assert wav.corrected(file, reporter) is not file
    monkeypatch.setattr(wav, "MOST_CHUNKS", 20)
    assert wav.corrected(file, reporter) is file


def test_samples_are_not_looked_for_in_all_of_a_large_file(tmp_path):
    whole = odd_headers.cases()[0].data
    at = whole.index(b"data")
    with (tmp_path / "x.wav").open("wb") as file:
        file.write(whole[:at])
        file.truncate(1 << 36)  # takes no room on the disk
    with pytest.raises(audio.AudioError, match="no chunk of samples, named data, follows its header"):
        audio.load(tmp_path / "x.wav")
    data = io.BytesIO(whole[:at] + bytes(40) + whole[at:])  # a little is looked through
    assert len(audio.load(data, "x", remark=lambda kind, text: None)) == 5001


def test_a_walk_over_chunks_ends(tmp_path):
    many = odd_headers.form(odd_headers.fmt(1), odd_headers.chunk(b"JUNK", b"") * 100_000)
    endless = odd_headers.form(odd_headers.chunk(b"LIST", bytes(8), 0xFFFFFFF0))
    for data in (many, endless, many[:40], b"RIFF\0\0\0\0WAVE", b".snd" + struct.pack(">I", 0xFFFFFFFF) + bytes(40)):
        with pytest.raises(audio.AudioError, match="cannot be decoded|truncated"):
            audio.load(io.BytesIO(data))


def test_nothing_is_printed_about_a_file_in_which_libsndfile_seeks_to_nowhere(capfd):
    data = next(case.data for case in CASES if case.name == "aiff").replace(b"SSND", bytes(4))
    with pytest.raises(audio.AudioError, match="cannot be decoded"):
        audio.load(io.BytesIO(data))
    assert capfd.readouterr() == ("", "")


def test_the_file_stays_open_and_can_be_read_again():
    for case in (CASES[0], next(case for case in CASES if case.name == "flac")):
        file = io.BytesIO(case.data)
        np.testing.assert_array_equal(audio.load(file), audio.load(file))
        assert not file.closed


@pytest.mark.parametrize("subtype", ["PCM_S8", "PCM_16", "PCM_24"])
def test_a_flac_with_a_wrong_bit_is_told_and_not_longer_than_it_was(subtype):
    file = io.BytesIO()
    wave = np.sin(np.arange(20_000) ** 1.5 / 300)[:, None] * [0.5, 0.4]
    soundfile.write(file, wave, 16_000, format="FLAC", subtype=subtype)
    whole = file.getvalue()
    found, kinds = _told(whole)
    assert len(found) == 20_000 and kinds == []
    for at in range(len(whole) // 3, len(whole) - 100, len(whole) // 5):
        changed = bytearray(whole)
        changed[at] ^= 4
        found, kinds = _told(bytes(changed))
        assert 0 < len(found) <= 20_000 and {"damaged", "truncated"} & {*kinds}
