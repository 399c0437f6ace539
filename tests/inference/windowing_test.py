"""Recordings to batches and back: every frame once, few shapes, and nothing depends on how items are grouped."""

import math
import tracemalloc

import numpy as np
import pytest
import soundfile

from voc2vec_jax import audio, errors
from voc2vec_jax.inference import batching, buckets, loading, windowing
from voc2vec_jax.models import encoder as encoders

ENCODER = encoders.EncoderConfig()


def layout(window_seconds=3.0, overlap_seconds=0.5, batch_seconds=8.0):
    return windowing.WindowLayout(ENCODER, window_seconds, overlap_seconds, batch_seconds)


@pytest.mark.parametrize("overlap_seconds", [0.0, 0.5, 1.4])
def test_windows_keep_every_frame_once_with_half_an_overlap_around_it(overlap_seconds):
    plan = layout(overlap_seconds=overlap_seconds)
    for samples in [400, 48_000, 48_079, 48_080, 48_399, 48_400, 48_720, 100_000, 777_777]:
        windows = plan.windows(samples)
        kept = []
        for number, w in enumerate(windows):
            first = w.start // plan.hop_samples
            assert w.start % plan.hop_samples == 0
            assert 0 <= w.start < w.stop <= samples
            inside = ENCODER.frames(w.stop - w.start)
            assert 0 <= w.first < w.last <= inside
            assert number == 0 or w.first >= plan.overlap_frames // 2
            assert number == len(windows) - 1 or inside - w.last >= plan.overlap_frames // 2
            kept += range(first + w.first, first + w.last)
            assert plan.bucket(w.stop - w.start) >= w.stop - w.start
        assert kept == list(range(ENCODER.frames(samples)))
        assert (len(windows) == 1) == (ENCODER.frames(samples) <= plan.window_frames)


def test_a_recording_that_fits_a_window_is_taken_whole():
    assert layout().windows(48_079) == [windowing.Window(0, 48_079, 0, 149)]


def pieces(lengths):
    return (batching.Piece(i, 0, np.full(n, i + 1, np.float32), 0, 1) for i, n in enumerate(lengths))


@pytest.mark.parametrize("count", [1, 3, 7, 200])
def test_batches_hold_every_piece_once_in_few_shapes(count):
    plan = layout()
    lengths = np.random.default_rng(0).integers(400, 16_000 if count < 10 else 48_079, count).tolist()
    seen, shapes = [], set()
    for batch in batching.batches(pieces(lengths), plan):
        rows, samples = batch.audio.shape
        shapes.add((rows, samples))
        assert rows & (rows - 1) == 0
        assert rows == 1 or rows * samples <= 8.0 * audio.RATE_HZ
        for row in range(rows):
            n = batch.lengths[row]
            if row >= len(batch.pieces):
                assert n == 0 and not batch.audio[row].any()
                continue
            item = batch.pieces[row].item
            seen.append(item)
            assert n == lengths[item]
            np.testing.assert_array_equal(batch.audio[row], np.where(np.arange(samples) < n, item + 1, 0))
    assert sorted(seen) == list(range(count))
    assert len(shapes) <= plan.shapes
    grown = np.array(plan.buckets[1:]) / plan.buckets[:-1]
    assert grown.max() <= buckets.GROWTH * 1.05 and plan.buckets[0] <= 8000 and plan.buckets[-1] == 48_079


@pytest.mark.parametrize("count, rows", [(1, [1]), (3, [1, 1, 1]), (4, [4]), (7, [4, 1, 1, 1]), (13, [16]), (16, [16])])
def test_windows_that_are_left_over_share_a_batch_however_short_they_are(count, rows):
    """A batch of one is padded just as far."""
    plan = layout()
    bucket = next(b for b in plan.buckets if plan.sizes[b][0] == 16)
    shortest = max([0, *(b for b in plan.buckets if b < bucket)]) + 1
    found = [batch.audio.shape for batch in batching.batches(pieces([shortest] * count), plan)]
    assert found == [(n, bucket) for n in rows]


def ramps(batch):
    """A model whose frame t is the sample at its start, and minus that."""
    frames = batch.audio[:, :: layout().hop_samples, None]
    return np.concatenate([frames, -frames], -1)


@pytest.mark.parametrize("batch_seconds", [0.1, 8.0, 1000.0])
def test_frames_of_many_recordings_come_back_in_order(batch_seconds):
    plan = layout(batch_seconds=batch_seconds)
    lengths = np.random.default_rng(1).integers(400, 200_000, 30)
    clips = [np.arange(n, dtype=np.float32) / 2**18 for n in lengths]  # within the range of audio
    count = []
    job = batching.EmbeddingPass(plan, None, lambda clip: clip * 2**18, lambda: count.append(1))
    job.run(clips, ramps, skip=False)
    assert len(count) == 30
    for index, n in enumerate(lengths):
        expected = np.arange(ENCODER.frames(int(n)), dtype=np.float32) * plan.hop_samples
        np.testing.assert_array_equal(job.done[index], np.stack([expected, -expected], -1))


def test_windows_join_as_if_pooled_at_once():
    frames = np.random.default_rng(2).normal(size=(50, 3)).astype(np.float32)
    parts = [frames[:20], frames[20:31], frames[31:]]
    pooled = {"mean": lambda x: x.mean(0), "max": lambda x: x.max(0), "first": lambda x: x[0], None: lambda x: x}
    for pool, function in pooled.items():
        joined = batching.join([(len(part), function(part)) for part in parts], pool)
        np.testing.assert_allclose(joined, function(frames), atol=1e-6)
        assert joined.dtype == np.float32


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_a_file_an_array_and_int16_are_the_same_audio(rate, tmp_path):
    samples = np.random.default_rng(3).integers(-9000, 9000, rate, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", samples, rate)
    of_file = loading.load(0, tmp_path / "a.wav", 400)
    np.testing.assert_array_equal(loading.load(0, (samples, rate), 400), of_file)
    np.testing.assert_array_equal(loading.load(0, (samples / 32768, rate), 400), of_file)
    assert len(of_file) == 16_000


def test_normalisation_is_over_the_whole_clip_with_its_own_eps():
    clip = np.random.default_rng(4).normal(3.0, 1e-3, 4000).astype(np.float32)
    for eps in (1e-7, 1e-5):
        wide = clip.astype(np.float64)
        expected = (wide - wide.mean()) / math.sqrt(wide.var() + eps)
        np.testing.assert_allclose(loading.normalised(clip, eps), expected, atol=1e-3)
    assert not loading.normalised(np.ones(400, np.float32), 1e-7).any()


def test_normalisation_of_a_long_clip_takes_little_more_than_the_clip(monkeypatch):
    clip = np.random.default_rng(0).normal(3, 2, 5_000_001).astype(np.float32)
    monkeypatch.setattr(loading, "_BLOCK_SAMPLES", 1 << 18)
    tracemalloc.start()
    try:
        found = loading.normalised(clip, 1e-7)
        assert tracemalloc.get_traced_memory()[1] < 1.2 * clip.nbytes
    finally:
        tracemalloc.stop()
    want = (clip - np.float32(clip.mean(dtype=np.float64))) / np.float32(clip.std(dtype=np.float64))
    np.testing.assert_allclose(found, want, rtol=1e-6)


def test_an_item_that_cannot_be_used_is_named(tmp_path):
    soundfile.write(tmp_path / "short.wav", np.zeros(399), 16_000)
    with pytest.raises(errors.InputError, match=r"item 7 \(.*short.wav\) has 399 samples at 16 kHz.* needs 400"):
        loading.load(7, tmp_path / "short.wav", 400)
    with pytest.raises(errors.InputError, match="item 2 has 300 samples"):
        loading.load(2, np.zeros(300, np.float32), 400)
    with pytest.raises(errors.InputError, match="item 3 holds NaN"):
        loading.load(3, np.array([0.0] * 400 + [np.nan]), 400)
    with pytest.raises(errors.InputError, match="absent.wav"):
        loading.load(3, tmp_path / "absent.wav", 400)


def test_the_first_unusable_item_is_raised_or_all_are_kept_apart():
    clips = [np.zeros(n, np.float32) for n in (500, 100, 900, 200)]
    with pytest.raises(errors.InputError, match="item 1 has 100"):
        batching.EmbeddingPass(layout(), None, lambda clip: clip, lambda: None).run(clips, ramps, skip=False)
    job = batching.EmbeddingPass(layout(), None, lambda clip: clip, lambda: None)
    job.run(clips, ramps, skip=True)
    assert sorted(job.done) == [0, 2] and sorted(job.unusable) == [1, 3]


@pytest.mark.parametrize(("window", "overlap"), [(0.01, 0.0), (3.0, 2.0), (3.0, -1.0)])
def test_windows_that_make_no_sense_are_refused(window, overlap):
    with pytest.raises(errors.InputError, match="do not fit"):
        layout(window, overlap)
    with pytest.raises(errors.InputError, match="batch_seconds is 0"):
        layout(batch_seconds=0.0)


def test_a_frame_for_each_sample_is_refused_before_attention_takes_gigabytes():
    encoder = encoders.EncoderConfig(conv_channels=(8,), conv_kernels=(1,), conv_strides=(1,), width=16, heads=16)
    windowing.WindowLayout(encoder, 30.0, 1.0, 8.0, lengths=[1_000])
    for lengths, said in (([1_000, 8_000], "over 0.5 s would take 4,096,000,000 bytes"), ([], "over 30.0 s would")):
        with pytest.raises(errors.InputError, match=f"has 16,000 frames a second, and 50 are usual: attention {said}"):
            windowing.WindowLayout(encoder, 30.0, 1.0, 8.0, lengths=lengths)
    windowing.WindowLayout(ENCODER, 600.0, 1.0, 8.0)  # as long as a user wants
