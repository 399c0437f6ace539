"""Recordings made to take a memory, or to be read without end."""

import io
import os
import signal
import struct
import threading
import time
import tracemalloc

import numpy as np
import pytest
import soundfile

from voc2vec_jax import audio
from voc2vec_jax.audio import files, ogg, sndfile


def loop(chunks=13_000):
    """An 8SVX file whose header libsndfile reads without end, once it is longer than what it keeps of one."""
    return b"FORM" + struct.pack(">I", 0x7FFFFFFF) + b"8SVX" + (b"ANNO" + bytes(4)) * chunks


def written(samples, rate_hz=16_000, kind="WAV"):
    data = io.BytesIO()
    soundfile.write(data, samples, rate_hz, format=kind)
    return data.getvalue()


TONE = np.sin(np.arange(48_000) / 5) * 0.3


def test_a_header_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(files, "CALLS", 1000)
    with pytest.raises(audio.AudioError, match="8SVX"):
        audio.load(io.BytesIO(loop()), "a.svx")


def test_a_file_that_is_asked_for_without_end_ends(monkeypatch):
    monkeypatch.setattr(files, "CALLS", 10)
    calm = files.Calm(io.BytesIO(b"abcdefgh"))
    assert [calm.read(1) for _ in range(20)] == [bytes([c]) for c in b"abcdefgh"] + [b""] * 12 and calm.ended
    assert calm.tell() == calm.seek(0) > 1 << 60 and calm.readinto(bytearray(4)) == 0
    monkeypatch.setattr(files, "CALLS", -1 << 30)
    with pytest.raises(audio.AudioError, match="cannot be decoded"):
        audio.load(io.BytesIO(written(TONE)), "a.wav")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_what_libsndfile_is_slow_over(number, monkeypatch):
    """Without the limit on calls, nothing else would."""

    class Stop(BaseException):
        pass

    def stop(signum, frame):
        raise Stop(signum)

    monkeypatch.setattr(files, "CALLS", 1 << 60)
    before = signal.signal(number, stop)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), number))
    try:
        timer.start()
        began = time.monotonic()
        with pytest.raises(Stop):
            audio.load(io.BytesIO(loop()), "a.svx")
        assert time.monotonic() - began < 20 and signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
        timer.cancel()


def test_many_channels_are_read_in_short_blocks(monkeypatch):
    monkeypatch.setattr(sndfile, "BLOCK_FRAMES", 4096)
    many = np.zeros((512, 1024), np.float32)
    many[:] = np.arange(512)[:, None] / 4096
    data = written(many)
    tracemalloc.start()
    try:
        clip = audio.load(io.BytesIO(data), "a.wav")
        assert tracemalloc.get_traced_memory()[1] < 1e6  # all of it has 2 MB
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(clip, np.round(many[:, 0] * 32768) / 32768)


@pytest.mark.parametrize("page", [b"OggS", b"OggS" + bytes(22) + b"\xff" + b"\xff" * 255])
def test_what_begins_like_pages_is_searched_once(page, monkeypatch):
    good, tried = written(TONE, kind="OGG"), [0]
    whole = ogg._is_whole

    def counted(page):
        tried[0] += len(page)
        return whole(page)

    monkeypatch.setattr(ogg, "_is_whole", counted)
    data = good + page * (200_000 // len(page))
    began = time.process_time()
    links = ogg.links(io.BytesIO(data))
    assert [link.stop for link in links] == [len(good)] and time.process_time() - began < 2
    assert tried[0] <= ogg._MOST_TRIED * len(data) + ogg._PAGE_BYTES


def test_what_is_kept_lasts_no_longer_than_its_bytes_let_expect(monkeypatch):
    monkeypatch.setattr("voc2vec_jax.audio.loading.KEPT_SECONDS", 10)
    silence = io.BytesIO(written(np.zeros(20 * 16_000), kind="FLAC"))
    size = len(silence.getvalue())
    with pytest.raises(audio.AudioError, match=f"of sound from {size:,} bytes, which only silence or a crafted"):
        audio.load(silence, "a.flac")
    assert sum(map(len, audio.stream(silence, "a.flac"))) == 20 * 16_000
    noise = io.BytesIO(written(np.random.default_rng(0).uniform(-1, 1, 20 * 16_000), kind="FLAC"))
    assert len(audio.load(noise, "b.flac")) == 20 * 16_000


def test_what_is_kept_fits_into_memory(monkeypatch):
    noise = io.BytesIO(written(np.random.default_rng(0).uniform(-1, 1, 20 * 16_000), kind="FLAC"))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr("voc2vec_jax.audio.loading.KEPT_BYTES", memory // (21 * 16_000))
    assert len(audio.load(noise, "b.flac")) == 20 * 16_000
    monkeypatch.setattr("voc2vec_jax.audio.loading.KEPT_BYTES", memory // (19 * 16_000))
    with pytest.raises(audio.AudioError, match="b.flac: is more than 0 minutes of sound and needs more memory than"):
        audio.load(noise, "b.flac")
    assert sum(map(len, audio.stream(noise, "b.flac"))) == 20 * 16_000


def test_speech_without_a_sample_is_given_up():
    began = time.process_time()
    with pytest.raises(audio.AudioError, match="nothing of it can be decoded"):
        audio.load(io.BytesIO(b"#!AMR\n" + b"\x7c" * 100_000), "a.amr")
    assert time.process_time() - began < 1
