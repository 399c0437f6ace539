"""Buckets are the best cut of the lengths that there are, and few where compiling is dear."""

import itertools

import numpy as np
import pytest
import soundfile
import tiny_models

from voc2vec_jax.inference import buckets

LONGEST, STEP = 24_000, 320


def cost(lengths, copies, chosen, shape_samples):
    places = np.searchsorted(chosen, lengths)
    padded = copies * sum(chosen[place] for place in places)
    return padded + shape_samples * len(set(places.tolist()))


@pytest.mark.parametrize("shape_samples", [0.0, 3_000.0, 40_000.0, 1e9])
@pytest.mark.parametrize("seed", range(3))
def test_no_cut_of_the_candidates_is_cheaper(seed, shape_samples, monkeypatch):
    monkeypatch.setattr(buckets, "FINE_GROWTH", 2 ** (1 / 6))
    rng = np.random.default_rng(seed)
    lengths = rng.integers(500, LONGEST + 1, 12).tolist()
    grid = buckets.geometric(LONGEST, STEP, buckets.FINE_GROWTH)
    cuts = [(*some, LONGEST) for k in range(len(grid)) for some in itertools.combinations(grid[:-1], k)]
    found = buckets.fitted(lengths, 3.0, LONGEST, STEP, shape_samples, buckets.FINE_GROWTH)
    assert found == sorted(set(found)) and found[-1] == LONGEST and set(found) <= set(grid)
    assert cost(lengths, 3.0, found, shape_samples) == min(cost(lengths, 3.0, cut, shape_samples) for cut in cuts)


def padding_share(lengths, chosen):
    """How much of what is computed would be padding."""
    return 1 - sum(lengths) / sum(chosen[k] for k in np.searchsorted(chosen, lengths))


def test_clips_of_one_length_are_hardly_padded_and_a_dear_shape_is_not_made():
    lengths = np.random.default_rng(0).integers(108_000, 112_000, 400).tolist()
    assert padding_share(lengths, buckets.geometric(480_000, STEP)) > 0.1
    assert padding_share(lengths, buckets.fitted(lengths, 1.0, 480_000, STEP, 640_000.0, buckets.FINE_GROWTH)) < 0.04
    spread = np.random.default_rng(0).integers(8_000, 480_000, 20).tolist()
    assert (
        len(np.unique(np.searchsorted(buckets.fitted(spread, 1.0, 480_000, STEP, 1e12, buckets.FINE_GROWTH), spread)))
        == 1
    )
    assert len(buckets.fitted(spread, 1_000.0, 480_000, STEP, 640_000.0, buckets.FINE_GROWTH)) > 3


def test_lengths_come_from_headers_and_arrays(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(8_000), 8_000)
    (tmp_path / "b.wav").write_bytes(b"no audio")
    (tmp_path / "c.flac").write_bytes(tiny_models.streamed_flac())
    names = ["a.wav", "b.wav", "none.wav", "c.flac", "zero\0byte.wav"]
    items = [*(tmp_path / name for name in names), np.zeros(5), (np.zeros(9), 48_000)]
    assert buckets.known_lengths(items, 5) == ([16_000, 16_000, 5, 3], 5 / 4)


def test_of_many_items_a_sample_stands_for_all(monkeypatch):
    monkeypatch.setattr(buckets, "SAMPLED_ITEMS", 10)
    assert [place // 10 for place in buckets.spread(100)] == list(range(10)) and buckets.spread(3) == [0, 1, 2]
    lengths, copies = buckets.known_lengths([np.zeros(k + 1) for k in buckets.spread(100)], 100)
    assert lengths == [place + 1 for place in buckets.spread(100)] and copies == 10.0


def test_a_list_that_repeats_itself_is_sampled_all_the_same():
    assert len({place % 200 for place in buckets.spread(100_000)}) > 190  # every 50th would see four of these
    assert len(buckets.spread(100_000)) == buckets.SAMPLED_ITEMS
