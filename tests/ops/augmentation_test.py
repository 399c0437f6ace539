"""Changes to waveforms: each against its formula, within the clip, and the same in any batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from voc2vec_jax.ops import augmentation

SAMPLES, LEAST = 1600, 100
ALL = augmentation.Waveform(speed=0.2, shift=0.1, noise=1.0, snr=(5.0, 10.0), gain=6.0)


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def clips(lengths, seed=0):
    """Noise up to each length, zeros behind."""
    rows = np.random.default_rng(seed).standard_normal((len(lengths), SAMPLES), dtype=np.float32)
    return jnp.array(rows * (np.arange(SAMPLES) < np.array(lengths)[:, None]))


changed = jax.jit(augmentation.augment, static_argnums=(3, 4))


def test_a_clip_is_changed_alike_in_any_batch():
    lengths = jnp.array([1600, 900, 0, 100, 1200])
    audio, own = clips(lengths), keys(5)
    found, after = changed(own, audio, lengths, ALL, LEAST)
    order = jnp.array([3, 0, 4])
    other, length = changed(own[order], audio[order], lengths[order], ALL, LEAST)
    np.testing.assert_array_equal(length, after[order])
    np.testing.assert_allclose(other, found[order], atol=1e-6)
    assert np.abs(found[0] - audio[0]).max() > 0.1


def test_nothing_sounds_behind_a_clip_and_an_empty_row_stays_empty():
    lengths = jnp.array([1600, 900, 0, 100])
    found, after = changed(keys(4), clips(lengths), lengths, ALL, LEAST)
    for row, length in zip(np.asarray(found), after):
        assert not row[length:].any() and bool(row[:length].any()) == bool(length)
    assert after[2] == 0 and (after <= SAMPLES).all()


def test_nothing_is_changed_by_default():
    lengths = jnp.array([1600, 900])
    found, after = changed(keys(2), clips(lengths), lengths, augmentation.Waveform(), LEAST)
    np.testing.assert_array_equal(found, clips(lengths))
    np.testing.assert_array_equal(after, lengths)
    assert ALL.any and not augmentation.Waveform().any


@pytest.mark.parametrize("parts", [860, 1024, 1229])
def test_a_faster_tone_is_higher(parts):
    t, tone, n = np.arange(SAMPLES), 0.05, 1500
    audio = jnp.array(np.sin(2 * np.pi * tone * t) * (t < n), jnp.float32)[None]
    found = min(n * 1024 // parts, SAMPLES)
    run = jax.jit(functools.partial(augmentation.resample, taps=10))
    result = run(audio, jnp.array([n]), jnp.array([parts]), found=jnp.array([found]))[0]
    expected = np.sin(2 * np.pi * tone * t * parts / 1024)
    # The first and the last samples lack neighbours.
    np.testing.assert_allclose(result[20 : found - 20], expected[20 : found - 20], atol=2e-3)
    assert not np.asarray(result[found:]).any()


def test_what_the_faster_rate_cannot_hold_is_filtered_out():
    t = np.arange(SAMPLES)
    audio = jnp.array(np.sin(2 * np.pi * 0.49 * t), jnp.float32)[None]
    given = jnp.array([SAMPLES]), jnp.array([1229]), 10, jnp.array([SAMPLES * 1024 // 1229])
    result = jax.jit(augmentation.resample, static_argnums=3)(audio, *given)[0]
    assert np.abs(result[20:1300]).max() < 0.05  # it would come back as a tone of 0.41 of the rate


def test_lengths_follow_the_speed_within_the_shape_and_above_one_frame():
    n = 400
    run = jax.jit(lambda lengths: augmentation.speed(keys(n), jnp.zeros((n, SAMPLES)), lengths, 0.2, LEAST)[1])
    found = np.asarray(run(jnp.full(n, 1200)))
    assert 1000 <= found.min() < 1010 and 1490 < found.max() <= 1501
    assert np.asarray(run(jnp.full(n, 1500))).max() == SAMPLES
    short = np.asarray(run(jnp.full(n, 105)))
    assert short.min() == LEAST and short.max() > 125


def test_a_shift_moves_zeros_in_and_keeps_the_length():
    lengths = jnp.array([1000] * 60)
    audio = np.asarray(clips(lengths))
    found = np.asarray(jax.jit(functools.partial(augmentation.shift, share=0.1))(keys(60), audio, lengths))
    offsets = []
    for row, moved in zip(audio, found):
        first = np.flatnonzero(moved)[0]
        offset = first if first else -int(np.flatnonzero(row == moved[0])[0])
        expected = np.zeros(1000, np.float32)
        expected[max(offset, 0) : 1000 + min(offset, 0)] = row[max(-offset, 0) : 1000 - max(offset, 0)]
        np.testing.assert_array_equal(moved[:1000], expected)
        assert not moved[1000:].any()
        offsets.append(offset)
    assert -100 <= min(offsets) < -50 and 50 < max(offsets) <= 100


def test_noise_has_the_ratio_and_is_white_or_pink():
    n, lengths = 300, jnp.array([1200] * 300)
    audio = clips(lengths)
    run = jax.jit(functools.partial(augmentation.noise, share=0.6, snr=(5.0, 15.0)))
    added = np.asarray(run(keys(n), audio, lengths)) - np.asarray(audio)
    noisy = added.any(1)
    assert noisy.mean() == pytest.approx(0.6, abs=0.1)
    power = np.square(np.asarray(audio)).sum(1)[noisy] / np.square(added).sum(1)[noisy]
    ratio = 10 * np.log10(power)
    assert ratio.min() == pytest.approx(5, abs=0.5) and ratio.max() == pytest.approx(15, abs=0.5)
    spectrum = np.square(np.abs(np.fft.rfft(added[noisy][:, :1200])))
    low = spectrum[:, 5:55].sum(1) / spectrum[:, 500:550].sum(1)  # 1 for white noise, about 15 for pink
    assert (low > 6).mean() == pytest.approx(0.5, abs=0.12) and ((low < 2) | (low > 6)).all()


def test_silence_stays_silent():
    lengths = jnp.array([800])
    silent = jnp.zeros((1, SAMPLES))
    assert not augmentation.noise(keys(1), silent, lengths, 1.0, (0.0, 0.0)).any()


def test_a_gain_is_within_its_decibels():
    audio = clips([1600] * 200)
    found = np.asarray(augmentation.gain(keys(200), audio, 6.0)) / np.asarray(audio)
    np.testing.assert_allclose(found, np.repeat(found[:, :1], SAMPLES, 1), rtol=1e-4)
    decibels = 20 * np.log10(found[:, 0])
    assert -6.01 < decibels.min() < -5.5 and 5.5 < decibels.max() < 6.01


def test_mixup_is_its_formula():
    lengths = jnp.array([1600, 0, 700, 1000, 300])
    audio = clips(lengths)
    run = jax.jit(functools.partial(augmentation.mix, alpha=0.4))
    mixed, longer, partner, share = run(jax.random.key(1), keys(5), audio, lengths)
    assert sorted(partner.tolist()) == list(range(5))
    expected = share[:, None] * audio + (1 - share[:, None]) * audio[partner]
    np.testing.assert_allclose(mixed, expected, atol=1e-6)
    for row, other in enumerate(np.asarray(partner)):
        alone = row == 1 or other == 1
        assert (share[row] == 1) == alone
        assert longer[row] == (lengths[row] if alone else max(lengths[row], lengths[other]))
    np.testing.assert_array_equal(mixed[1], audio[1])


def test_lambda_is_of_the_beta_distribution():
    n = 2000
    audio, lengths = jnp.ones((n, 2)), jnp.full(n, 2)
    share = np.asarray(jax.jit(functools.partial(augmentation.mix, alpha=0.5))(keys(1)[0], keys(n), audio, lengths)[3])
    assert share.mean() == pytest.approx(0.5, abs=0.03)
    assert share.var() == pytest.approx(0.125, abs=0.01)  # 1 / (4 (2 alpha + 1))
