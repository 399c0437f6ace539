"""Items to windows: the same samples however long a recording is, in order, and reading ahead that ends when told."""

import concurrent.futures
import itertools
import threading
import time

import numpy as np
import pytest
import soundfile

from voc2vec_jax import audio
from voc2vec_jax.audio import sndfile
from voc2vec_jax.inference import loading, prefetch, windowing
from voc2vec_jax.inference.evaluation import inputs as evaluation_inputs
from voc2vec_jax.inference.evaluation import recordings
from voc2vec_jax.models import encoder as encoders

FRAMES = encoders.EncoderConfig().frames


@pytest.mark.parametrize("samples", [400, 16_000, 16_001, 40_000, 41_234])
def test_sliding_windows_reach_from_the_beginning_to_the_end(samples):
    windows = windowing.sliding(16_000, 6_000, FRAMES)(samples)
    assert windows[0].start == 0 and windows[-1].stop == samples
    assert all(w.stop - w.start == min(samples, 16_000) for w in windows)
    assert all(0 < b.start - a.start <= 6_000 for a, b in itertools.pairwise(windows))
    assert all(b.start - a.start == 6_000 for a, b in itertools.pairwise(windows[:-1]))
    assert all((w.first, w.last) == (0, FRAMES(w.stop - w.start)) for w in windows)
    assert len(windows) == 1 + max(0, -(-(samples - 16_000) // 6_000))


@pytest.mark.parametrize("block", [7, 1000, 50_000])
def test_windows_are_cut_from_a_stream_that_is_not_held(block):
    wave = np.arange(41_000, dtype=np.float32)
    taken = []

    def blocks():
        for start in range(0, len(wave), block):
            taken.append(start)
            yield wave[start : start + block]

    windows = windowing.sliding(5_000, 3_000, FRAMES)(len(wave))
    for window, piece in zip(windows, recordings.cut_stream(blocks(), windows), strict=True):
        np.testing.assert_array_equal(piece, wave[window.start : window.stop])
        assert taken[-1] < window.stop


@pytest.mark.parametrize("eps", [None, 1e-5])
@pytest.mark.parametrize("each", [False, True])
def test_a_long_recording_gives_what_a_short_one_would(each, eps, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.wav", 0.1 * rng.normal(size=300_000) + 0.05, 22_050)
    items = evaluation_inputs.open_input(str(tmp_path / "a.wav"))
    (item,) = items.rows(0, 1)
    cut = windowing.sliding(30_000, 20_000, FRAMES)
    monkeypatch.setattr(sndfile, "BLOCK_FRAMES", 4096)
    whole = recordings.Reader(items, cut, 400, eps, each).read(item)
    monkeypatch.setattr(recordings, "LONG_SAMPLES", 50_000)
    long = recordings.Reader(items, cut, 400, eps, each).read(item)
    assert isinstance(whole.audio, list) and not isinstance(long.audio, list)
    assert (whole.samples, whole.windows) == (long.samples, long.windows) and len(whole.windows) > 9
    wave = audio.load(tmp_path / "a.wav")
    assert whole.samples == len(wave)
    normed = wave if eps is None or each else loading.normalised(wave, eps)
    for window, one, other in zip(whole.windows, whole.audio, long.audio, strict=True):
        expected = normed[window.start : window.stop]
        expected = loading.normalised(expected, eps) if each and eps else expected
        np.testing.assert_array_equal(one, expected)
        np.testing.assert_allclose(other, expected, atol=1e-5)


def test_a_recording_that_cannot_be_used_gives_the_reason(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(399), 16_000)
    (tmp_path / "b.wav").write_bytes(b"")
    items = evaluation_inputs.open_input(str(tmp_path))
    reader = recordings.Reader(items, windowing.sliding(400, 400, FRAMES), 400, None, False)
    faults = [reader.read(item) for item in items.rows(0, 2)]
    assert [recordings.reason(fault) for fault in faults] == [
        "has 399 samples at 16 kHz, and one frame needs 400",
        "is empty (zero bytes)",
    ]


def test_items_are_read_in_order_by_several_threads():
    names = set()

    def read(item):
        names.add(threading.get_ident())
        time.sleep(0.001 * (item % 3))
        return -item

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert list(prefetch.in_order(read, range(50), pool, chunk=4, chunks=3)) == [-item for item in range(50)]
    assert len(names) > 1 and threading.get_ident() not in names


def test_things_made_ahead_are_the_same_and_few():
    made = []

    def things():
        for k in range(100):
            made.append(k)
            yield k

    with prefetch.ahead(things(), 3) as coming:
        for k in range(10):
            assert next(coming) == k
        time.sleep(0.3)
        assert len(made) <= 10 + 3 + 1
    assert threading.active_count() < 10 and len(made) < 20
    with prefetch.ahead(iter(range(5)), 2) as coming:
        assert list(coming) == list(range(5))


def test_a_fault_of_the_thread_is_raised_where_things_are_taken():
    def things():
        yield 1
        raise ZeroDivisionError("in the thread")

    with pytest.raises(ZeroDivisionError, match="in the thread"), prefetch.ahead(things(), 2) as coming:
        list(coming)
