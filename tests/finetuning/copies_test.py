"""Copies and slices of one recording become one group, so that no fold trains on what it tests."""

import dataclasses

import numpy as np
import pytest
import soundfile

from voc2vec_jax import errors
from voc2vec_jax.datasets import fingerprints
from voc2vec_jax.datasets.published import synthetic
from voc2vec_jax.finetuning import copies, folds, leaks, tasks


def sound(number):
    return np.rint(synthetic.Vocalizer(7).load(str(number)) * 20000).astype(np.int16)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """24 clips of two classes; 2 and 3 are copies of 0, 5 is a part of 4, and `slice_1` begins in `slice_0`."""
    where = tmp_path_factory.mktemp("data")
    clips = {f"clip{k:02d}": sound(k) for k in range(20)}
    clips["clip02"], clips["clip03"] = clips["clip00"], np.rint(clips["clip00"] * 0.4).astype(np.int16)
    long = np.concatenate([sound(k) for k in range(30, 36)])
    clips |= {"slice_0": long[:60_000], "slice_1": long[52_000:100_000]}
    (where / "own").mkdir()
    rows = ["path,label,group"]
    for k, (name, clip) in enumerate(clips.items()):
        soundfile.write(where / "own" / f"{name}.wav", clip, 16_000)
        speaker = {"clip00": "anna", "clip02": "ben", "clip19": "ben"}.get(name, "")
        rows.append(f"own/{name}.wav,{'ab'[k // 2 % 2]},{speaker}")
    (where / "own.csv").write_text("\n".join(rows))
    return where


@pytest.fixture(scope="module")
def task(data_dir):
    return tasks.open_task("folder", data=data_dir / "own.csv", data_dir=data_dir / "data")


@pytest.fixture(scope="module")
def found(task, data_dir):
    return copies.find(task, data_dir)


def pair(first, second, kind="near"):
    return fingerprints.Pair(first, second, kind, 0.9)


def test_every_pair_is_found_once_by_its_closest_kind(task, found):
    named = [(str(task.ids[a])[4:-4], str(task.ids[b])[4:-4], kind) for a, b, kind, _ in found.pairs]
    assert sorted(named) == [
        ("clip00", "clip02", "identical"),
        ("clip00", "clip03", "near"),
        ("clip02", "clip03", "near"),
        ("slice_0", "slice_1", "overlap"),
    ]


def test_copies_are_united_with_the_known_groups(task, found, capsys):
    merged = copies.merge(task, found.pairs)
    said = capsys.readouterr().err
    assert "4 pairs of clips hold the same sound (1 identical, 2 nearly so, 1 overlapping), so 21 groups" in said
    assert "became 18" in said and "--config.group_copies=false" in said
    names = {str(task.ids[row])[4:-4]: merged.groups[merged.group[row]] for row in np.flatnonzero(merged.group >= 0)}
    # clip19 is Ben's, whose clip02 is a copy of Anna's
    assert names == {**dict.fromkeys(["clip00", "clip02", "clip03", "clip19"], "anna + ben")} | dict.fromkeys(
        ["slice_0", "slice_1"], "own/slice_0.wav"
    )
    assert dict(merged.merged) == dict(identical=1, near=2, overlap=1, groups_before=21, groups_after=18)
    assert merged.fingerprint != task.fingerprint
    none = copies.merge(task, [])
    assert none.fingerprint == task.fingerprint and none.merged["groups_before"] == none.merged["groups_after"] == 21
    assert capsys.readouterr().err == ""


def test_strict_folds_of_a_merged_task_leak_nothing_and_those_of_the_plain_one_do(task, found, data_dir):
    kinds = ("identical", "near_identical", "overlapping")
    plain, merged = (np.zeros(3, int) for _ in range(2))
    for seed in range(3):
        for each, total in ((task, plain), (copies.merge(task, found.pairs), merged)):
            report = leaks.report(each, folds.strict(each.label, each.group, 4, seed), data_dir)
            total += [report["tested"][kind] for kind in kinds]
    assert (plain > 0).all() and (merged == 0).all()
    assert report["group_copies"]["groups_after"] == 18


def test_a_chain_of_pairs_is_one_group_and_a_clip_of_none_stays_alone():
    group = np.array([0, -1, -1, 1, -1, 1, -1])
    assert copies.united(group, []).tolist() == copies.united(group, []).tolist()
    found = copies.united(group, [pair(0, 1), pair(1, 2), pair(2, 3)])
    assert found[4] == found[6] == -1 and len(set(found[[0, 1, 2, 3, 5]])) == 1
    apart = copies.united(group, [pair(4, 6)])
    assert apart[4] == apart[6] >= 0 and len({apart[0], apart[3], apart[4]}) == 3 and apart[1] == apart[2] == -1


def test_stretches_of_one_file_that_overlap_in_time_are_pairs(task):
    three = dataclasses.replace(
        task,
        paths=np.array(["a"] * 4 + ["b"] * 18),
        start_seconds=np.array([0.0, 1.0, 1.5, 3.0] + [100.0 * k for k in range(18)]),
        samples=np.array([32_000, 16_000, 8_000, 16_000] + [8_000] * 18, np.int32),
    )
    assert [pair[:2] for pair in copies._same_stretches(three)] == [(0, 1), (0, 2), (1, 2)]


def test_a_copy_in_another_part_is_refused(task):
    part = np.array(["train"] * 21 + ["test"])
    divided = dataclasses.replace(task, part=part)
    copies.check_parts(divided, [pair(0, 1)])
    copies.check_parts(task, [pair(0, 21)])
    with pytest.raises(errors.InputError) as caught:
        copies.check_parts(divided, [pair(0, 1), pair(0, 21), pair(1, 21, "overlap")])
    assert str(caught.value).startswith(
        f"{task.ids[0]} in train and {task.ids[21]} in test hold nearly the same sound, and 1 more pairs of clips do so"
    )
