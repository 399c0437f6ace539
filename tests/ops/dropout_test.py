"""The masks of dropout: exact shares, entries and rows that do not depend on each other, nothing stored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from voc2vec_jax.ops import dropout

ROWS, SIZE = 16, 1 << 16
SHARES = (0.05, 0.1, 0.5)


def keys(rows, seed=0):
    return jax.random.split(jax.random.key(seed), rows)


def masks(share, shape=(ROWS, SIZE), seed=0):
    found = dropout.kept(jax.random.key_data(keys(shape[0], seed)), shape, dropout.rule(share))
    return np.asarray(found).astype(np.float64)


def correlation(x, y):
    return np.mean((x - x.mean()) * (y - y.mean())) / (x.std() * y.std())


@pytest.mark.parametrize("share", SHARES)
def test_the_share_is_kept_to_the_noise_of_counting(share):
    found, rule = masks(share), dropout.rule(share)
    kept = 1 / rule.scale
    assert abs(kept - (1 - share)) <= 2**-17
    deviation = np.sqrt(kept * (1 - kept) / found.size)
    assert abs(found.mean() - kept) < 4 * deviation
    # Every row by itself, and the rows' spread: a generator that is too even would have none
    z = (found.mean(1) - kept) / np.sqrt(kept * (1 - kept) / SIZE)
    assert np.abs(z).max() < 4.5 and 0.4 < z.std() < 1.7


@pytest.mark.parametrize("share", SHARES)
def test_entries_and_rows_do_not_depend_on_each_other(share):
    found = masks(share)
    bound = 4.5 / np.sqrt(found.size)
    for lag in (1, 2, 3, 4, 8, 16, 64, 128, 499, 512, 768, 3072, 4096):  # neighbours, frames, heads
        assert abs(correlation(found[:, lag:], found[:, :-lag])) < bound, lag
    assert abs(correlation(found[1:], found[:-1])) < bound
    assert abs(correlation(found, masks(share, seed=1))) < bound


def test_keys_that_differ_in_one_bit_give_other_masks():
    base = np.array([[123456789, 987654321]], np.uint32)
    whole = np.asarray(dropout.kept(jnp.asarray(base), (1, SIZE), dropout.rule(0.5)))
    for word in (0, 1):
        for bit in range(32):
            other = base.copy()
            other[0, word] ^= np.uint32(1) << np.uint32(bit)
            found = np.asarray(dropout.kept(jnp.asarray(other), (1, SIZE), dropout.rule(0.5)))
            assert abs((found == whole).mean() - 0.5) < 5 * 0.5 / np.sqrt(SIZE), (word, bit)


def test_pairs_and_runs_of_bits_are_those_of_coins():
    """Counts of the 256 patterns of eight neighbouring entries, against equal chances (chi squared)."""
    bits = masks(0.5).reshape(-1, 8).astype(int)
    counts = np.bincount(bits @ (1 << np.arange(8)), minlength=256)
    expected = len(bits) / 256
    chi = np.sum((counts - expected) ** 2 / expected)
    assert abs(chi - 255) < 5 * np.sqrt(2 * 255)


def test_words_of_a_row_are_all_different():
    """The hash is a permutation of the position: no word comes twice, as in a counter-based generator."""
    one = jnp.full((1,), 7, jnp.uint32)
    words = np.asarray(dropout.hashed(one, one, jnp.arange(1 << 20, dtype=jnp.uint32)))
    assert len(np.unique(words)) == len(words)
    signed = dropout.hashed(one.view(jnp.int32), one.view(jnp.int32), jnp.arange(1 << 20, dtype=jnp.int32))
    np.testing.assert_array_equal(np.asarray(signed).view(np.uint32), words)


@pytest.mark.parametrize("bits", dropout.BITS)
def test_a_row_has_its_mask_in_every_batch(bits):
    x, rule = jnp.ones((4, 30, 7)), dropout.rule(0.3, bits)
    whole = dropout.drop(x, keys(4), rule)
    np.testing.assert_array_equal(dropout.drop(x[2:3], keys(4)[2:3], rule)[0], whole[2])
    assert not np.array_equal(whole[1], whole[2])


@pytest.mark.parametrize("bits", dropout.BITS)
def test_the_gradient_has_the_same_mask(bits):
    x, rule = jax.random.normal(jax.random.key(1), (3, 40, 5)), dropout.rule(0.3, bits)
    out, pull = jax.vjp(lambda x: dropout.drop(x, keys(3), rule), x)
    np.testing.assert_array_equal(pull(jnp.ones_like(x))[0], np.where(np.asarray(out) != 0, np.float32(rule.scale), 0))


def test_threefry_draws_the_halves_of_jaxs_words():
    row = keys(2)
    wanted = np.stack([np.asarray(jax.random.bits(key, (501,))).view(np.uint16)[:1001] for key in row])
    found = dropout.kept(jax.random.key_data(row), (2, 1001), dropout.rule(0.25, "threefry"))
    np.testing.assert_array_equal(found, wanted >= 0.25 * 2**16)


def test_positions_count_as_arrays_do():
    np.testing.assert_array_equal(dropout.positions((5, 2, 3, 4))[0], np.arange(24).reshape(2, 3, 4))
    assert dropout.positions((5,)).shape == (1,)


def test_no_share_drops_nothing_and_no_mask_is_stored():
    assert dropout.rule(0.0) is None and dropout.rule(1e-9) is None
    x = jnp.ones((2, 64, 64))
    assert dropout.drop(x, keys(2), None) is x
    kept = jax.eval_shape(lambda x: jax.vjp(lambda x: dropout.drop(x, keys(2), dropout.rule(0.1)), x)[1], x)
    assert sum(leaf.size for leaf in jax.tree.leaves(kept)) <= 4  # the key's words, and nothing of x's size
