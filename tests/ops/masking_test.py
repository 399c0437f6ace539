"""Masks and negatives: literal cases, and the statistics of the reference's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from voc2vec_jax.ops import masking

RECIPE = {"share": 0.65, "span": 10, "min_spans": 2}


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


@functools.partial(jax.jit, static_argnums=(2, 3))
def span_mask(keys, frames, t, share):
    return masking.span_mask(keys, frames, t, share=share, span=10, min_spans=2)


@pytest.mark.parametrize("share, wanted", [(0.65, 0.49), (0.80, 0.565)])
@pytest.mark.parametrize("t", [349, 781])
def test_share_of_masked_frames(share, wanted, t):
    masked = np.asarray(span_mask(keys(400), jnp.full(400, t), t, share))
    assert masked.mean() == pytest.approx(wanted, abs=0.01)
    assert not masked[:, -1].any()
    assert masked.sum(1).max() <= masking.masked_bound(t, share, 10, 2)


def test_starts_are_uniform_and_the_last_frame_is_never_masked():
    t, n = 40, 6000
    masked = np.asarray(span_mask(keys(n), jnp.full(n, t), t, 0.65))
    # frame 0 is masked only by the span that starts there: n_spans of the t - 10 starts, in the mean
    spans = 0.65 * t / 10
    assert masked[:, 0].mean() == pytest.approx(spans / (t - 10), abs=0.01)
    # the same from the right: frame t - 2 only by a span at start t - 11
    assert masked[:, t - 2].mean() == pytest.approx(spans / (t - 10), abs=0.01)
    assert not masked[:, t - 1].any()


def test_mask_like_the_reference_algorithm():
    """The distribution of the number of masked frames against a plain transcription of the definition."""
    rng = np.random.default_rng(0)
    t, n = 99, 3000

    def reference():
        count = max(2, int(0.65 * t / 10 + rng.random()))
        starts = rng.choice(t - 10, count, replace=False)
        return len({s + o for s in starts for o in range(10)})

    wanted = np.array([reference() for _ in range(n)])
    found = np.asarray(span_mask(keys(n), jnp.full(n, t), t, 0.65)).sum(1)
    assert found.mean() == pytest.approx(wanted.mean(), abs=0.5)
    assert found.std() == pytest.approx(wanted.std(), rel=0.1)


def test_shorter_rows_of_a_padded_batch():
    frames = jnp.asarray([0, 13, 50, 99])
    for seed in range(30):
        masked = np.asarray(span_mask(keys(4, seed), frames, 99, 0.65))
        for row, f in zip(masked, frames.tolist()):
            assert not row[f:].any()
            if f:
                assert not row[f - 1]
                assert 10 <= row.sum() < f


def test_a_row_of_a_batch_is_what_it_is_alone():
    row = np.asarray(span_mask(keys(5)[2:3], jnp.asarray([60]), 99, 0.65))
    batch = np.asarray(span_mask(keys(5), jnp.asarray([99, 13, 60, 99, 20]), 99, 0.65))
    assert np.array_equal(row[0], batch[2])


def test_thirteen_frames_always_leave_context_and_twelve_do_not():
    assert masking.shortest_maskable(0.65, 10, 2) == 13
    n = 500
    thirteen = np.asarray(span_mask(keys(n), jnp.full(n, 13), 13, 0.65))
    twelve = np.asarray(span_mask(keys(n), jnp.full(n, 12), 12, 0.65))
    assert thirteen.sum(1).max() < 13
    assert twelve.sum(1).max() == 12


def test_equal_counts_unmasks_single_frames():
    masked = jnp.asarray([[1, 1, 1, 0, 1, 0], [0, 1, 0, 0, 1, 0]], bool)
    kept = np.stack([np.asarray(masking.equal_counts(keys(2, s), masked, jnp.asarray([2, 2]))) for s in range(200)])
    assert (kept.sum(2) == 2).all()
    assert not (kept & ~np.asarray(masked)).any()
    assert kept[:, 0].mean(0) == pytest.approx([0.5, 0.5, 0.5, 0, 0.5, 0], abs=0.12)


def test_masked_index_literal():
    masked = jnp.asarray([[0, 1, 0, 1, 1], [0, 0, 0, 0, 1]], bool)
    index, valid = masking.masked_index(masked, 4)
    assert index.tolist() == [[1, 3, 4, 0], [4, 0, 0, 0]]
    assert valid.tolist() == [[True, True, True, False], [True, False, False, False]]


def test_rows_are_fetched_and_their_gradients_brought_back():
    x = jnp.arange(20.0).reshape(2, 5, 2)
    index, real = jnp.asarray([[3, 1, 0], [4, 0, 0]]), jnp.asarray([[1, 1, 0], [1, 0, 0]], bool)
    found, pull = jax.vjp(lambda x: masking.of_rows(x, index, real), x)
    assert found[..., 0].tolist() == [[6, 2, 0], [18, 0, 0]]
    assert pull(jnp.ones_like(found))[0][..., 1].tolist() == [[0, 1, 0, 1, 0], [0, 0, 0, 0, 1]]


def test_negatives_are_the_rows_others_uniformly():
    drawn = np.asarray(masking.negatives(keys(2), jnp.asarray([4, 3]), 5, 3000))
    for row, count in ((0, 4), (1, 3)):
        for i in range(count):
            values, times = np.unique(drawn[row, i], return_counts=True)
            assert values.tolist() == [j for j in range(count) if j != i]
            assert times / 3000 == pytest.approx(np.full(count - 1, 1 / (count - 1)), abs=0.04)


def test_draw_counts_literal():
    drawn = jnp.asarray([[[1, 1, 2], [0, 2, 2], [0, 1, 7]]])
    assert masking.draw_counts(drawn).tolist() == [[[0, 2, 1], [1, 0, 2], [1, 1, 0]]]


def test_samples_for_frames_inverts_frame_lengths():
    kernels, strides = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
    for frames in (1, 2, 13, 499):
        samples = masking.samples_for_frames(frames, kernels, strides)
        assert masking.frame_lengths(samples, kernels, strides) == frames
        assert masking.frame_lengths(samples - 1, kernels, strides) == frames - 1


PUBLISHED = {"share": 0.05, "span": 10, "min_spans": 2}
SECONDS = (0.1, 0.2, 0.3, 0.5, 0.78, 0.9, 1.5, 3.0, 5.0, 7.0)
FRAMES = [masking.frame_lengths(round(16_000 * s), (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)) for s in SECONDS]


@functools.partial(jax.jit, static_argnums=(2, 3))
def augmentation_mask(keys, frames, share, scaled):
    return masking.augmentation_mask(keys, frames, 349, **{**PUBLISHED, "share": share, "scaled": scaled})


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_scaled_spans_hide_the_configured_share_of_a_clip_of_any_length(share):
    """On average between share (1 - share / 2 - 2 / 100) and share; of no draw more than the share and one span."""
    n, rule = 1000, {**PUBLISHED, "share": share, "scaled": True}
    masked = np.asarray(augmentation_mask(keys(n * len(FRAMES)), jnp.repeat(jnp.asarray(FRAMES), n), share, True))
    for f, rows in zip(FRAMES, masked.reshape(len(FRAMES), n, -1)):
        found, expected = rows.sum(1) / f, masking.augmentation_share(f, **rule)
        assert share * (1 - share / 2 - 0.02) <= expected <= share + 1e-7
        assert found.mean() == pytest.approx(expected, abs=5 * found.std() / n**0.5)
        length = int(masking.span_counts(np.int64(f), **rule)[0])
        assert rows.sum(1).max() <= share * f + length
        assert length == 1 or length <= share * f / 2


def test_published_spans_hide_much_of_a_short_clip():
    n = 1000
    masked = np.asarray(augmentation_mask(keys(n * len(FRAMES)), jnp.repeat(jnp.asarray(FRAMES), n), 0.05, False))
    expected = [masking.augmentation_share(f, **PUBLISHED) for f in FRAMES]
    found = masked.sum(1).reshape(len(FRAMES), n).mean(1) / FRAMES
    assert found == pytest.approx(expected, abs=0.01)
    # No span fits into .1 s and .2 s, two of ten frames are 5.7 % of 7 s and 45 % of .78 s.
    assert expected == pytest.approx([0, 0, 0.71, 0.63, 0.45, 0.40, 0.25, 0.13, 0.079, 0.057], abs=0.005)


def test_rows_of_a_batch_are_scaled_one_by_one():
    frames = jnp.asarray([5, 50, 349, 0])
    found = augmentation_mask(keys(4, 1), frames, 0.2, True)
    alone = [augmentation_mask(keys(4, 1)[k : k + 1], frames[k : k + 1], 0.2, True)[0] for k in range(4)]
    assert np.array_equal(found, np.stack(alone)) and found.any(1).tolist() == [True, True, True, False]
    assert not (found & (jnp.arange(349)[None] >= frames[:, None])).any()


def test_a_row_has_no_more_spans_than_fit_side_by_side():
    """Of a row of f frames at most f // 10, of ten frames each, however many are asked for."""
    frames, n = np.repeat([9, 10, 19, 20, 29, 30], 40), 240
    masked = jax.jit(functools.partial(masking.augmentation_mask, t=30, share=0.9, span=10, min_spans=5))
    hidden = np.asarray(masked(keys(n), jnp.asarray(frames))).sum(1).reshape(6, 40)
    assert hidden[:3].tolist() == [[0] * 40, [10] * 40, [10] * 40]
    assert (hidden[3:].max(1) <= [20, 20, 30]).all() and hidden[3:].min() > 10
