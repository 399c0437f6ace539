"""MP3, and what libsndfile does not read: right lengths and samples, and a sentence for what cannot be read."""

import concurrent.futures
import io
import os
import struct
import sys

import av
import compressed
import numpy as np
import pytest
import soundfile
import soxr

from voc2vec_jax import audio, errors
from voc2vec_jax.audio import ffmpeg, joining, reading, sndfile, sniffing

MP3S = compressed.mp3_cases()
PHONE = compressed.phone_cases()
REFUSE = audio.Reading(on_truncated="refuse")


def _read(data: bytes, how: audio.Reading = audio.DEFAULT) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """(samples, remarks) of a recording in memory."""
    told = []
    return audio.load(io.BytesIO(data), "x", how, lambda kind, text: told.append((kind, text))), told


def _reason(data: bytes, how: audio.Reading = audio.DEFAULT) -> str:
    """Why a recording is refused."""
    with pytest.raises(audio.AudioError) as caught:
        _read(data, how)
    assert "\n" not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("case", [*MP3S, *PHONE.values()], ids=lambda case: case.name)
def test_length_and_samples_are_those_that_were_recorded(case, capfd):
    found, told = _read(case.data)
    assert len(found) / audio.RATE_HZ == pytest.approx(case.seconds, abs=case.within)
    assert sorted(kind for kind, _ in told) == sorted(case.remarks)
    if case.wave is not None:
        expected = soxr.resample(case.wave.mean(axis=0), round(case.wave.shape[1] / case.seconds), audio.RATE_HZ)
        error = found[: len(expected)] - expected[: len(found)]
        # AAC at 32 kbit/s leaves a third of the noise out; an offset of one frame gives 1.4
        assert np.sqrt(np.mean(error**2) / np.mean(expected**2)) < 0.35
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["lossless.m4a", "plain.mka", "lossless.mka", "pack.wv", "film.mov", "flac.oga"])
def test_lossless_codings_give_every_sample(name):
    case = PHONE[name]
    rounded = np.rint(case.wave * 2**15) / 2**15
    expected = soxr.resample(audio.mix_down(rounded.T.astype(np.float32)), 44_100, audio.RATE_HZ, quality="HQ")
    np.testing.assert_allclose(_read(case.data)[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "codec, scale",
    [("pcm_u8", 2**7), ("pcm_s16le", 2**15), ("pcm_s24le", 2**23), ("pcm_s32le", 2**31), ("pcm_f64le", 0)],
)
def test_samples_of_every_width_have_the_same_scale(codec, scale):
    wave = compressed.voice(16_000)
    data = compressed.encoded(wave, 16_000, codec, "matroska")
    expected = np.rint(wave[0].astype(np.float64) * scale) / scale if scale else wave[0]
    np.testing.assert_allclose(
        _read(data)[0], expected, rtol=0, atol=2**-22 if scale == 2**23 else 1e-7
    )  # 24 bits are cut off


def test_headers_with_absurd_numbers_are_refused():
    plain = PHONE["plain.mka"].data
    at = plain.index(b"\xb5\x88") + 2  # the rate, a float of 64 bits
    for rate_hz in (1e9, 10.0):
        damaged = plain[:at] + struct.pack(">d", rate_hz) + plain[at + 8 :]
        assert _reason(damaged) == f"its header gives a rate of {rate_hz:.0f} Hz, which is not a rate of audio"
    reporter, block = reading.Reporter("x", remark=lambda kind, text: None), np.zeros((1, 1), np.float32)
    with pytest.raises(audio.AudioError, match="a rate of 9 Hz"):
        list(joining.alike([(16_000, block), (9, block)], 16_000, 1, reporter))


def test_parts_with_other_channels_become_their_mean():
    told = []
    reporter = reading.Reporter("x", remark=lambda kind, text: told.append((kind, text)))
    stereo, mono = np.array([[1, 3], [5, 7]], np.float32), np.array([[9]], np.float32)
    found = [*joining.alike([(16_000, mono), (16_000, stereo)], 16_000, 1, reporter)]
    np.testing.assert_array_equal(np.concatenate(found), [[9], [2], [6]])
    found = [*joining.alike([(16_000, stereo), (16_000, mono)], 16_000, 2, reporter)]
    np.testing.assert_array_equal(np.concatenate(found), [[1, 3], [5, 7], [9, 9]])
    assert [kind for kind, _ in told] == ["joined", "joined"]


@pytest.mark.parametrize("case", [case for case in MP3S if case.remarks == ("truncated",)], ids=lambda case: case.name)
def test_an_mp3_that_ends_early_is_refused_on_demand(case):
    assert _reason(case.data, REFUSE).startswith("is truncated: its ")


@pytest.mark.parametrize(
    "name, evidence",
    [
        ("pieces.mp4", "its header promises"),
        ("browser.webm", "its header promises 1.31 s"),
        ("plain.mka", "its header promises 1.30 s"),
        ("pack.wv", "its header promises 1.30 s"),
        ("player.wav", "its header promises 1.3"),
        ("radio.aac", "its last packets cannot be decoded"),
        ("voice.amr", "its last packets cannot be decoded"),
        ("old.wma", "its last packets cannot be decoded"),
    ],
)
def test_other_recordings_that_end_early_are_used_and_told_or_refused(name, evidence):
    whole = PHONE[name].data
    found, told = _read(whole[: len(whole) * 2 // 3 + 11])
    assert 0.3 < len(found) / audio.RATE_HZ < 1.1
    assert [kind for kind, _ in told] == ["truncated"] and evidence in told[0][1]
    assert _reason(whole[: len(whole) * 2 // 3 + 11], REFUSE) == told[0][1]


def test_an_mp4_without_its_index_and_protected_or_soundless_ones_are_named():
    memo = PHONE["memo.m4a"].data
    assert _reason(memo[: len(memo) // 2]) == "is MP4 without its index (moov): the recording or its copy was cut short"
    for lock in (b"drms", b"enca"):
        assert _reason(memo.replace(b"mp4a", lock)) == "is MP4 locked by DRM: give a copy without the lock"
    assert _reason(_film([])) == "holds no audio track (only video)"
    at = memo.index(b"mdat") + 600
    noise = np.random.default_rng(0).integers(0, 256, len(memo) - at - 3_000, dtype=np.uint8).tobytes()
    assert "packets cannot be decoded" in (reason := _reason(memo[:at] + noise + memo[-3_000:]))
    assert reason.startswith("is MP4/AAC, and ")


def test_of_several_tracks_the_first_is_used_and_that_is_said():
    found, told = _read(_film([compressed.voice(44_100), compressed.voice(44_100, 2, seconds=0.5)]))
    assert told == [("tracks", "holds 2 audio tracks: the first is used")]
    assert len(found) / audio.RATE_HZ == pytest.approx(1.3, abs=1024 / 44_100)


def test_pauses_in_the_clock_of_a_recording_are_told():
    file = io.BytesIO()
    with av.open(io.BytesIO(PHONE["browser.webm"].data)) as source, av.open(file, "w", format="webm") as out:
        track = source.streams.audio[0]
        copy = out.add_stream_from_template(track)
        for packet in source.demux(track):
            if packet.size:
                packet.stream = copy
                packet.pts = packet.dts = packet.pts + (5_000 if packet.pts > 600 else 0)  # ms
                out.mux(packet)
    found, told = _read(file.getvalue())
    assert told == [("gaps", "its clock jumps by 5.00 s in all, for which it holds no sound")]
    assert len(found) / audio.RATE_HZ == pytest.approx(1.3, abs=0.02)


NAMES = {
    "text.mp3": (b"Not found, sorry.", "is text, not a recording"),
    "page.wav": (b"\n<!DOCTYPE html>\n<html>", "is HTML (a download page?), not a recording: download it again"),
    "utf16.mp3": ("no recording ".encode("utf-16"), "is text, not a recording"),
    "list.mp3": (b"#EXTM3U\nhttp://127.0.0.1/a.ts\n", "is a playlist, which names recordings elsewhere: "),
    "pointer.wav": (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS: fetch the recording"),
    "cover.mp3": (b"\xff\xd8\xff\xe0" + bytes(99), "is an image (JPEG), not a recording"),
    "photo.m4a": (b"\0\0\0\x18ftypheic" + bytes(99), "is an image (HEIC or AVIF), not a recording"),
    "song.mp3": (b"PK\x03\x04" + bytes(99), "is a zip archive: unpack it"),
    "._a.wav": (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X" + bytes(99), "is a file of macOS that lies beside"),
    "zeros.m4a": (bytes(9_999), "begins with nothing but zero bytes, as an unfinished copy does"),
    "what.mp3": (bytes(range(128, 256)) * 9, "is in no format that is read"),
    "frames.mp3": (b"\xff\xfb\x90\x00" + bytes(2_000), "seems to be MP3, and FFmpeg cannot read it: it is damaged"),
}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_recording_is_named_by_its_content(tmp_path, name, capfd):
    data, reason = NAMES[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(audio.AudioError) as caught:
        audio.load(path)
    assert caught.value.reason.startswith(reason)
    assert capfd.readouterr() == ("", "")


def test_content_decides_and_not_the_name(tmp_path):
    wave = compressed.voice(16_000)
    soundfile.write(file := io.BytesIO(), wave.T, 16_000, format="WAV", subtype="FLOAT")
    (tmp_path / "a.mp3").write_bytes(file.getvalue())
    np.testing.assert_array_equal(audio.load(tmp_path / "a.mp3"), wave[0])
    for name, case in (("b.wav", PHONE["memo.m4a"]), ("c.flac", MP3S[4]), ("d.m4a", PHONE["note.opus"])):
        (tmp_path / name).write_bytes(case.data)
        np.testing.assert_array_equal(audio.load(tmp_path / name), _read(case.data)[0])


@pytest.mark.parametrize("second", [(44_100, "VORBIS"), (22_050, "VORBIS"), (48_000, "OPUS")])
def test_chained_ogg_is_read_to_its_end(second):
    parts = []
    for (rate_hz, coding), channels in (((44_100, "VORBIS"), 2), (second, 1)):
        wave = compressed.voice(rate_hz, channels, seconds=1.1, seed=channels)
        soundfile.write(file := io.BytesIO(), wave.T, rate_hz, format="OGG", subtype=coding)
        parts.append(file.getvalue())
    found, told = _read(parts[0] + parts[1])
    assert [kind for kind, _ in told] == ["joined"]
    alone = [_read(part)[0] for part in parts]
    assert len(found) == pytest.approx(2.2 * audio.RATE_HZ, abs=2)
    np.testing.assert_allclose(found[:17_000], alone[0][:17_000], rtol=0, atol=1e-6)
    error = found[-17_000:] - alone[1][-17_000:]
    assert np.sqrt(np.mean(error**2) / np.mean(alone[1] ** 2)) < 0.05  # resampled once more
    cut, told = _read((parts[0] + parts[1])[:-900])
    assert len(cut) < len(found) and ("truncated", "is truncated: its last page is cut off") in told


@pytest.mark.parametrize("coding", ["VORBIS", "OPUS", "FLAC", "Ogg FLAC"])
@pytest.mark.parametrize("damage", ["zeros", "missing"])
def test_damage_inside_is_told_and_the_rest_is_used(coding, damage):
    wave = compressed.voice(48_000, 1, seconds=4.0)
    if coding == "Ogg FLAC":
        data = compressed.encoded(wave, 48_000, "flac", "oga", format="s16")
    else:
        container = "FLAC" if coding == "FLAC" else "OGG"
        soundfile.write(
            file := io.BytesIO(), wave[0], 48_000, format=container, subtype="PCM_16" if coding == "FLAC" else coding
        )
        data = file.getvalue()
    at, size = len(data) // 2, len(data) // 20
    whole, _ = _read(data)
    found, told = _read(data[:at] + (bytes(size) if damage == "zeros" else b"") + data[at + size :])
    assert [kind for kind, _ in told] == ["damaged"] and "left out" in told[0][1]
    assert 0.3 * len(whole) < len(found) < len(whole)
    np.testing.assert_allclose(found[:6_000], whole[:6_000], rtol=0, atol=0.03)  # two decoders of Opus differ
    error = found[-4_000:] - whole[-4_000:]
    assert np.sqrt(np.mean(error**2) / np.mean(whole[-4_000:] ** 2)) < 0.35


def test_a_page_of_ogg_with_a_wrong_checksum_is_told():
    soundfile.write(file := io.BytesIO(), compressed.voice(48_000)[0], 48_000, format="OGG", subtype="VORBIS")
    data = bytearray(file.getvalue())
    data[-3_000] ^= 1
    assert [kind for kind, _ in _read(bytes(data))[1]] == ["damaged"]


@pytest.mark.parametrize("name", ["memo.m4a", "lossless.m4a", "browser.webm", "voice.amr", "lossless.mka", "flac.oga"])
def test_a_stretch_is_that_part_of_the_whole(tmp_path, name):
    (path := tmp_path / name).write_bytes(PHONE[name].data)
    _assert_stretches_agree(path)
    assert audio.seconds(path, exact=False) == pytest.approx(1.3, abs=0.3)


@pytest.mark.parametrize(
    "case",
    [*MP3S[:8], *[case for case in MP3S if "joined" in case.name or "less" in case.name], PHONE["lossless.m4a"]],
    ids=lambda case: case.name,
)
def test_a_stretch_far_inside_is_found_without_decoding_what_is_before(tmp_path, monkeypatch, case):
    monkeypatch.setattr(ffmpeg, "FAR_SECONDS", 0.0)
    monkeypatch.setattr(ffmpeg, "WARM_UP_SECONDS", 0.4)
    places = []
    sought = ffmpeg.Decoder._sought
    monkeypatch.setattr(
        ffmpeg.Decoder, "_sought", lambda self, first: [found := sought(self, first), places.append(found[0])][0]
    )
    (path := tmp_path / "a").write_bytes(case.data)
    _assert_stretches_agree(path)
    # A tag that ends amid the file says where FFmpeg leaves samples out: behind it, times are not those of samples
    assert max(places) > 0 or case.name in (
        "joined, each with a tag",
        "joined, another rate and channels",
        "the tag promises less",
    )


def _assert_stretches_agree(path) -> None:
    whole = audio.load(path, remark=lambda kind, text: None)
    seconds = len(whole) / audio.RATE_HZ
    for start, end in ((0.0, 0.2), (0.31, 0.4444), (0.7 * seconds, 0.9 * seconds), (seconds - 0.1, seconds)):
        found = audio.load_stretch(path, start, end, remark=lambda kind, text: None)
        expected = whole[round(start * audio.RATE_HZ) : round(end * audio.RATE_HZ)]
        assert len(found) == len(expected)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    assert audio.seconds(path) == pytest.approx(len(whole) / audio.RATE_HZ, abs=1e-4)
    with pytest.raises(audio.AudioError, match="holds nothing from 99 to 100 s"):
        audio.load_stretch(path, 99.0, 100.0, remark=lambda kind, text: None)


@pytest.mark.parametrize("coding, rate_hz", [("VORBIS", 8_000), ("VORBIS", 44_100), ("OPUS", 48_000)])
def test_a_stretch_of_an_ogg_is_sought_but_not_in_its_last_page(tmp_path, monkeypatch, coding, rate_hz):
    monkeypatch.setattr(sndfile, "LONGEST_PAGE_FRAMES", 8 * rate_hz)
    with soundfile.SoundFile(tmp_path / "a.ogg", "w", rate_hz, 1, coding, format="OGG") as file:
        for second in range(21):
            file.write(compressed.voice(rate_hz, 1, seconds=0.99, seed=second % 3)[0])
    whole, starts = audio.load(tmp_path / "a.ogg"), []
    blocks = sndfile.Decoder.blocks
    monkeypatch.setattr(sndfile.Decoder, "blocks", lambda self, *a: starts.append(a[0]) or blocks(self, *a))
    for start, end in ((0.5, 1.0), (12.3, 12.6), (20.0, 20.5), (20.6, 20.79)):
        found = audio.load_stretch(tmp_path / "a.ogg", start, end)
        expected = whole[round(start * audio.RATE_HZ) : round(end * audio.RATE_HZ)]
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    assert starts[0] == 0 and min(starts[2:]) > 0


def test_a_stretch_of_a_coding_that_cannot_be_sought_is_read_from_the_beginning(tmp_path):
    soundfile.write(tmp_path / "a.wav", compressed.voice(8_000)[0], 8_000, subtype="GSM610")
    _assert_stretches_agree(tmp_path / "a.wav")


def test_no_other_file_is_opened_whatever_a_recording_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.mp3").write_bytes(MP3S[0].data)
    listing = b"ffconcat version 1.0\nfile secret.mp3\n"
    with av.open(io.BytesIO(listing)) as plain:
        assert plain.streams.audio  # what FFmpeg does by itself
    with pytest.raises(audio.AudioError):
        ffmpeg.Decoder(io.BytesIO(listing), reading.Reporter("x"))


def test_threads_read_the_same_and_leave_no_file_open(tmp_path):
    paths = []
    for number, case in enumerate([*MP3S[3:7], PHONE["memo.m4a"], PHONE["browser.webm"]]):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(case.data)
    broken = tmp_path / "broken"
    broken.write_bytes(PHONE["memo.m4a"].data[:5_000])
    alone = [audio.load(path) for path in paths]
    before = len(os.listdir("/proc/self/fd"))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for found, expected in zip(pool.map(audio.load, paths * 4), alone * 4):
            np.testing.assert_array_equal(found, expected)
    with pytest.raises(audio.AudioError):
        audio.load(broken)
    assert audio.seconds(broken) is None
    audio.load_stretch(paths[0], 0.1, 0.2)
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_pyav_the_remedy_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(errors.RunError, match="decoded with PyAV: install it with `pip install av`"):
        _read(MP3S[0].data)


def _film(tracks: list[np.ndarray]) -> bytes:
    """An MP4 of two seconds of grey, with audio tracks at 44.1 kHz."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        picture = out.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        sounds = [out.add_stream("aac", rate=44_100, layout=("mono", "stereo")[len(wave) - 1]) for wave in tracks]
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 9 * number, np.uint8), format="rgb24")
            frame.pts = number
            out.mux(picture.encode(frame))
        out.mux(picture.encode(None))
        for sound, wave in zip(sounds, tracks):
            for start in range(0, wave.shape[1] - 1023, 1024):
                part = np.ascontiguousarray(wave[:, start : start + 1024])
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=sound.codec_context.layout.name)
                frame.sample_rate, frame.pts = 44_100, start
                out.mux(sound.encode(frame))
            out.mux(sound.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("container", ["webm", "mp4"])
@pytest.mark.parametrize("kind, kbits", [("voip", 16), ("lowdelay", 8)])
def test_opus_is_the_same_in_every_container(container, kind, kbits):
    """As speech, which FFmpeg's own decoder strays from, and so loud that whole numbers would clip."""
    wave = 2 * compressed.voice(48_000, 1, 1.0)
    ogg = compressed.encoded(wave, 48_000, "libopus", "opus", kbits=kbits, application=kind)
    wanted = audio.load(io.BytesIO(ogg), "a.opus")
    found, told = _read(compressed.remuxed(ogg, container))
    np.testing.assert_allclose(found[: len(wanted)], wanted, rtol=0, atol=2e-6)
    assert 0 <= len(found) - len(wanted) < 16 and told == [] and np.abs(wanted).max() > 1


def test_frames_of_mpeg_that_look_like_a_byte_order_mark_are_no_text():
    assert sniffing.kind(bytes.fromhex("fffec204d69eeeee") + bytes(4000)).name == "MP3"
    for coding in ("utf-16-le", "utf-16-be"):
        text = "\ufeffno recording\n".encode(coding)
        assert sniffing.kind(text).name == "" and sniffing.refusal(text) == "is text, not a recording"


@pytest.mark.parametrize("codec, container", [("wavpack", "wv"), ("tta", "tta")])
def test_a_frame_that_fails_its_checksum_is_left_out_and_told(codec, container):
    whole = compressed.encoded(compressed.voice(16_000, 1, 6.0), 16_000, codec, container)
    samples, told = _read(whole)
    assert told == []
    for at in range(len(whole) // 3, len(whole) - 2_000, len(whole) // 7):
        changed = bytearray(whole)
        changed[at] ^= 8
        found, told = _read(bytes(changed))
        assert len(found) < len(samples) and {kind for kind, _ in told} <= {"damaged", "truncated"} and told
