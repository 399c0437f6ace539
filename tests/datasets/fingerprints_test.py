"""Copies of a sound are found whatever was done to them, other sounds are not, and the cost is that of a look-up."""

import io
import pickle

import numpy as np
import pytest
import soundfile
import soxr

from voc2vec_jax import errors
from voc2vec_jax.datasets import fingerprints
from voc2vec_jax.datasets.published import synthetic


def _int16(samples: np.ndarray) -> np.ndarray:
    return np.rint(samples).clip(-32768, 32767).astype(np.int16)


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    """Clips of 0.5 s to 6 s: six classes by several voices."""
    made = (synthetic.Vocalizer(11).load(str(k)) for k in range(36))
    return [_int16(clip * 32768) for clip in made]


@pytest.fixture(scope="module")
def prints(clips) -> fingerprints.Fingerprints:
    return fingerprints.fingerprints(clips)


def _vorbis(clip: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    soundfile.write(file, clip / 32768, 16_000, format="OGG", subtype="VORBIS")
    file.seek(0)
    return _int16(soundfile.read(file)[0] * 32768)


CHANGES = {
    "a tenth of the gain": lambda clip: _int16(clip * 0.1),
    "upside down": lambda clip: -np.maximum(clip, -32767),
    "shifted by half a frame": lambda clip: clip[128:],
    "silence added in front": lambda clip: np.concatenate([np.zeros(7777, np.int16), clip]),
    "by way of 8 kHz": lambda clip: _int16(soxr.resample(soxr.resample(clip / 1.0, 16_000, 8_000), 8_000, 16_000)),
    "its last two thirds": lambda clip: clip[len(clip) // 3 :],
    "by way of Vorbis": _vorbis,
    "rounded otherwise": lambda clip: np.maximum(clip, -32000) - np.int16(1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(clips, prints, change):
    found = fingerprints.pairs(prints, fingerprints.fingerprints(map(CHANGES[change], clips)))
    assert [(pair.first, pair.second) for pair in found] == [(k, k) for k in range(len(clips))]
    assert {pair.kind for pair in found} == {"near"}
    assert all(0.7 <= pair.similarity <= 1 for pair in found)


def test_the_mean_of_a_stereo_export_is_its_mono_export(clips):
    rng = np.random.default_rng(0)
    left = [_int16(clip + rng.integers(-20, 21, len(clip))) for clip in clips]
    right = [_int16(2.0 * clip - other) for clip, other in zip(clips, left)]
    stereo = [_int16((a.astype(float) + b) / 2 + 0.1) for a, b in zip(left, right)]
    found = fingerprints.pairs(fingerprints.fingerprints([*clips, *stereo]))
    assert {(pair.first, pair.second) for pair in found} == {(k, k + len(clips)) for k in range(len(clips))}


def test_different_sounds_make_no_pair(prints):
    assert fingerprints.pairs(prints) == []


def test_equal_clips_are_identical_and_a_copy_is_near_to_each_of_them(clips):
    lot = fingerprints.fingerprints([clips[0], clips[1], clips[0], _int16(clips[0] * 0.5), clips[0]])
    found = fingerprints.pairs(lot)
    assert [(pair.first, pair.second, pair.kind) for pair in found] == [
        (0, 2, "identical"),
        (0, 3, "near"),
        (0, 4, "identical"),
        (2, 3, "near"),
        (2, 4, "identical"),
        (3, 4, "near"),
    ]
    assert all(pair.similarity == 1 for pair in found if pair.kind == "identical")


def test_equal_clips_of_two_lots_are_paired_across_and_only_across(clips):
    a = fingerprints.fingerprints([clips[0], clips[0], clips[1]])
    b = fingerprints.fingerprints([clips[2], clips[1], clips[0]])
    assert [pair[:3] for pair in fingerprints.pairs(a, b)] == [
        (0, 2, "identical"),
        (1, 2, "identical"),
        (2, 1, "identical"),
    ]


def test_of_many_equal_clips_each_is_paired_once(clips):
    lot = fingerprints.fingerprints([clips[5]] * 100)
    assert [pair[:2] for pair in fingerprints.pairs(lot)] == [(0, k) for k in range(1, 100)]
    across = {pair[:2] for pair in fingerprints.pairs(lot, lot)}
    assert {first for first, _ in across} == {second for _, second in across} == set(range(100)) and len(across) == 199


def test_silence_and_nothing_are_like_nothing_else(clips):
    odd = [np.zeros(16_000, np.int16), np.zeros(0, np.int16), np.zeros(8_000, np.int16), np.ones(1, np.int16)]
    odd += [np.zeros(16_000, np.int16)]  # as silent as the first, and no copy of it
    assert fingerprints.pairs(fingerprints.fingerprints([*odd, clips[0]])) == []
    assert fingerprints.pairs(fingerprints.fingerprints([])) == []
    assert fingerprints.pairs(fingerprints.fingerprints([]), fingerprints.fingerprints(clips[:2])) == []


def test_fingerprints_are_joined_saved_and_pickled_without_a_change(clips, prints, tmp_path):
    prints.save(tmp_path / "prints.npz")
    parts = [fingerprints.fingerprints(clips[:7]), fingerprints.fingerprints([]), fingerprints.fingerprints(clips[7:])]
    for other in (
        fingerprints.load(tmp_path / "prints.npz"),
        pickle.loads(pickle.dumps(prints)),
        fingerprints.join(parts),
    ):
        assert len(other) == len(prints) == len(clips)
        for name in ("codes", "audible", "starts", "digests"):
            np.testing.assert_array_equal(getattr(other, name), getattr(prints, name))
    (tmp_path / "other").write_text("text")
    with pytest.raises(errors.InputError, match="other holds no fingerprints"):
        fingerprints.load(tmp_path / "other")


def _random_prints(clips: int, frames: int, seed: int) -> fingerprints.Fingerprints:
    rng = np.random.default_rng(seed)
    return fingerprints.Fingerprints(
        codes=rng.integers(0, 1 << 32, clips * frames, dtype=np.uint32),
        audible=np.ones(clips * frames, bool),
        starts=np.arange(clips + 1, dtype=np.int64) * frames,
        digests=rng.integers(0, 256, (clips, 16), dtype=np.uint8),
    )


def test_the_number_of_comparisons_grows_with_the_clips_and_not_with_their_square(monkeypatch):
    compared = []
    bit_errors = fingerprints._bit_errors
    monkeypatch.setattr(fingerprints, "_bit_errors", lambda *a: compared.append(len(a[2])) or bit_errors(*a))
    lot = _random_prints(5_000, 100, 0)
    lot.codes[::100] = 7  # a code that all clips share
    assert fingerprints.pairs(lot) == []
    assert 100_000 < sum(compared) <= 5_000 * (fingerprints.MOST_ALIKE + 1)


def test_small_chunks_find_the_same(clips, monkeypatch):
    lot = fingerprints.fingerprints([*clips[:12], *(_int16(clip * 0.3) for clip in clips[:12])])
    whole = fingerprints.pairs(lot)
    monkeypatch.setattr(fingerprints, "CHUNK_FRAMES", 64)
    assert fingerprints.pairs(lot) == whole and len(whole) == 12
