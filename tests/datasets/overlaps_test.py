"""Slices of one recording are found by the part that they share, and clips of other sounds are not."""

import numpy as np
import pytest

from voc2vec_jax.datasets import fingerprints, overlaps
from voc2vec_jax.datasets.published import synthetic


class Clips:
    """Clips in memory as what `overlaps.find` reads."""

    name, fingerprint = "clips", "clips"

    def __init__(self, clips):
        self.clips = clips

    def __len__(self):
        return len(self.clips)

    def read(self, rows):
        return [self.clips[row] for row in rows]


def find(clips, names=None):
    recordings = Clips(clips)
    return overlaps.find(recordings, fingerprints.fingerprints(clips), names or ["x"] * len(clips))


@pytest.fixture(scope="module")
def recording():
    """About a minute of different vocalizations, one after another."""
    made = [synthetic.Vocalizer(5).load(str(k)) for k in range(24)]
    return np.rint(np.concatenate(made) * 20000).astype(np.int16)


def cut(recording, start, stop):
    return recording[round(start * 16_000) : round(stop * 16_000)]


def test_slices_that_share_a_fifth_are_found_by_their_sound(recording):
    clips = [cut(recording, 0, 5), cut(recording, 4.003, 9), cut(recording, 20, 25), cut(recording, 18.3, 20.91)]
    found = find([np.rint(clip * gain).astype(np.int16) for clip, gain in zip(clips, (1, 0.4, 0.5, -1))])
    assert [pair[:3] for pair in found] == [(0, 1, "overlap"), (2, 3, "overlap")]
    assert all(pair.similarity > 0.99 for pair in found)
    # None of it is a near copy
    assert fingerprints.pairs(fingerprints.fingerprints(clips)) == []


def test_the_names_of_a_series_tell_where_to_look_when_fingerprints_do_not(recording, monkeypatch):
    clips = [cut(recording, 4.7, 9), cut(recording, 0, 5), cut(recording, 8.8, 12), cut(recording, 12, 15)]
    monkeypatch.setattr(fingerprints, "alignments", lambda prints: np.zeros((0, 3), np.int64))
    assert find(clips) == []
    found = find(clips, ["a/x_4.wav", "a/x_3.wav", "a/x_10.wav", "a/x_11.wav"])
    # 0.3 s are shared by 3 and 4; 0.2 s by 4 and 10, which is too little; nothing by 10 and 11
    assert [pair[:3] for pair in found] == [(0, 1, "overlap")]


def test_neighbours_in_a_series_that_share_nothing_make_no_pair(recording):
    hum = np.rint(3000 * np.sin(2 * np.pi * 50 * np.arange(32_000) / 16_000))
    rng = np.random.default_rng(0)
    hums = [(hum + rng.normal(0, 300, len(hum))).astype(np.int16) for _ in range(3)]
    silence = [np.zeros(16_000, np.int16)] * 2 + [np.full(16_000, 7, np.int16)]
    clips = [*hums, *silence, cut(recording, 0, 3), cut(recording, 3, 6), np.zeros(5, np.int16)]
    assert find(clips, [f"x_{k}.wav" for k in range(len(clips))]) == []


def test_series_are_names_that_differ_in_their_last_number_alone():
    names = [
        "b/x_2.wav",
        "b/x_10.wav",
        "b/x_9.wav",
        "c/x_3.wav",
        "b/y_1_cut.wav",
        "b/y_2_cut.wav",
        "b/none.wav",
        "7",
        "8",
    ]
    assert sorted(overlaps.successors(names)) == [(0, 2), (2, 1), (4, 5), (7, 8)]
