"""The leak report finds copies and speakers on both sides of a fold, and only those, and names them."""

import dataclasses
import json

import numpy as np
import pytest
import soundfile

from voc2vec_jax import datasets
from voc2vec_jax.datasets import fingerprints
from voc2vec_jax.datasets.published import synthetic
from voc2vec_jax.finetuning import folds, leaks, provenance, tasks


def noise_free(number):
    return np.rint(synthetic.Vocalizer(3).load(str(number)) * 20000).astype(np.int16)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """The set `own` (8 clips of 3 speakers; clip 6 is clip 0 again, clip 7 a quieter clip 1) and the set `other`."""
    where = tmp_path_factory.mktemp("data")
    clips = [noise_free(k) for k in range(6)]
    clips += [clips[0], np.rint(clips[1] * 0.3).astype(np.int16)]
    rows = ["path,label,group"]
    for k, clip in enumerate(clips):
        soundfile.write(where / f"clip{k}.wav", clip, 16_000)
        rows.append(f"clip{k}.wav,{'ab'[k % 2]},{'' if k == 5 else f'speaker{k % 3}'}")
    (where / "own.csv").write_text("\n".join(rows))
    (where / "other").mkdir()
    soundfile.write(where / "other" / "quiet2.wav", np.rint(clips[2] * 0.5).astype(np.int16), 16_000)
    soundfile.write(where / "other" / "same3.wav", clips[3], 16_000)
    soundfile.write(where / "other" / "same3again.wav", np.rint(clips[3] * 0.7).astype(np.int16), 16_000)
    soundfile.write(where / "other" / "new.wav", noise_free(40), 16_000)
    for name in ("own.csv", "other"):
        datasets.prepare("folder", data_dir=where, manual_dir=where / name, workers=1, progress=False)
    return where


@pytest.fixture(scope="module")
def task(data_dir):
    return tasks.open_task("own", data_dir=data_dir)


def fold(train, validation, test):
    return folds.FoldSplit(*(np.array(rows, np.int64) for rows in (train, validation, test)))


def test_copies_and_speakers_across_a_fold_are_counted_and_named(task, data_dir):
    splits = [fold([0, 1, 2, 3], [4], [5, 6, 7]), fold([5, 6, 4], [7], [0, 1, 2, 3])]
    found = leaks.report(task, splits, data_dir)
    first, second = found["folds"]
    assert (first["clips"], first["identical"], first["near_identical"]) == (3, 1, 1)
    assert (first["same_group"], first["shared_groups"]) == (2, 2)  # speakers 0 and 1; that of clip 5 is not known
    same, near = first["worst"]
    expected = dict(test="clip6.wav", other="clip0.wav", part="train", kind="identical", similarity=1.0)
    assert same == {**expected, "same_label": True}
    assert (near["test"], near["other"], near["kind"], near["part"]) == ("clip7.wav", "clip1.wav", "near", "train")
    assert 0.7 < near["similarity"] < 1 and near["same_label"]
    assert second["worst"][1]["part"] == "validation" and second["worst"][1]["test"] == "clip1.wav"
    assert (second["same_group"], second["shared_groups"]) == (3, 2)  # clips 0, 1 and 3, not speaker 2's
    tested = dict(clips=7, identical=2, near_identical=2, overlapping=0, same_group=5, unknown_group=1)
    assert found["tested"] == tested and not found["selected_on_test"]
    assert found["pretraining"] == {"clips": 0, "sets": {}, "unchecked": []}
    copies, speakers, unknown = found["warnings"]
    assert copies.startswith(
        "2 of 7 tested clips are trained on too, sample for sample, 2 more nearly so, and 0 more in part (clip6.wav"
    )
    assert "5 of 7 tested clips are of a speaker or group that is trained on too" in speakers
    assert "the speakers of 1 of 7 tested clips are not known" in unknown


def test_copies_on_one_side_or_outside_a_fold_are_no_leak(task, data_dir):
    found = leaks.report(task, [fold([2, 4], [3], [0, 6]), fold([0, 6], [1], [2])], data_dir)
    assert (found["tested"]["identical"], found["tested"]["near_identical"]) == (0, 0)
    assert found["folds"][0]["worst"] == []
    found = leaks.report(task, [fold([3], [4], [6]), fold([3], [0], [6])], data_dir)
    assert [each["identical"] for each in found["folds"]] == [0, 1]  # its twin takes no part; it validates
    assert [len(each["worst"]) for each in found["folds"]] == [0, 1]


def test_the_closest_come_first(task, data_dir, monkeypatch):
    made = [("near", 0.8), ("near", 0.9), ("near", 0.85), ("identical", 1.0)]

    def pairs(_, others=None):
        return [fingerprints.Pair(row, 4 if others is None else 0, *each) for row, each in enumerate(made)]

    monkeypatch.setattr(fingerprints, "pairs", pairs)
    found = leaks.report(task, [fold([4, 5], [6], [0, 1, 2, 3])], data_dir, provenance.TrainingData(("other",)))
    assert [pair["test"] for pair in found["folds"][0]["worst"]] == [f"clip{k}.wav" for k in (3, 1, 2, 0)]
    assert [pair["clip"] for pair in found["pretraining"]["sets"]["other"]["worst"]] == [
        f"clip{k}.wav" for k in (3, 1, 2, 0)
    ]


def test_selection_on_the_reported_fold_is_said(task, data_dir):
    found = leaks.report(task, [fold([0, 1], [6, 7], [6, 7])], data_dir)
    assert found["selected_on_test"] and "selected on the clips that are reported" in found["warnings"][-1]
    assert (found["tested"]["identical"], found["tested"]["near_identical"]) == (1, 1)  # not each with itself
    assert [pair["part"] for pair in found["folds"][0]["worst"]] == ["train", "train"]


def test_many_copies_of_one_clip_are_all_found(task, data_dir, monkeypatch):
    """`duplicates.pairs` forms only pairs with the first of many equal clips."""
    monkeypatch.setattr(fingerprints, "MOST_IN_GROUP", 1)
    copies = dataclasses.replace(
        task, segments=tuple([task.segments[0]] * 8), samples=np.full(8, task.samples[0]), fingerprint="copies"
    )
    found = leaks.report(copies, [fold([4, 5], [6], [1, 7])], data_dir)
    assert found["folds"][0]["identical"] == 2


def test_a_clip_counts_once_by_its_closest_copy_and_unknown_speakers_are_not_shared(task, data_dir):
    order = [1, 1, 7, 0, 2, 3, 4, 5]
    copies = dataclasses.replace(
        task,
        segments=tuple(task.segments[row] for row in order),
        samples=task.samples[order],
        group=np.full(8, -1),
        fingerprint="twice",
    )
    found = leaks.report(copies, [fold([1, 2], [3], [0])], data_dir)["folds"][0]
    assert (found["identical"], found["near_identical"], len(found["worst"])) == (1, 0, 2)
    assert (found["same_group"], found["shared_groups"]) == (0, 0)


def test_overlap_with_the_pretraining_data_is_found_and_what_is_absent_is_said(task, data_dir):
    found = leaks.report(
        task, [fold([0], [1], [2])], data_dir, provenance.TrainingData(("other", "voices"), ("LibriSpeech",))
    )
    overlap = found["pretraining"]
    assert overlap["clips"] == 2 and overlap["unchecked"] == ["voices", "LibriSpeech"]
    counts = overlap["sets"]["other"]
    assert (counts["identical"], counts["near_identical"]) == (1, 1)  # each clip once, by its closest copy
    assert [(pair["clip"], pair["other"]) for pair in counts["worst"]] == [
        ("clip3.wav", "same3.wav"),
        ("clip2.wav", "quiet2.wav"),
    ]
    assert found["warnings"][-3].startswith(
        "2 of 8 clips, or near copies of them, were in the pre-training data (other)"
    )
    assert found["warnings"][-2].startswith("overlap with the pre-training sets voices is not checked")
    assert found["warnings"][-1].endswith("the model was trained on is not checked: LibriSpeech")


def test_a_large_set_is_compared_part_by_part_with_the_same_result(task, data_dir, monkeypatch):
    split, heard = [fold([0], [1], [2])], provenance.TrainingData(("other",))
    whole = leaks.report(task, split, data_dir, heard)["pretraining"]
    sizes = []
    pairs = fingerprints.pairs
    monkeypatch.setattr(fingerprints, "pairs", lambda *a: sizes.append(len(a[-1])) or pairs(*a))
    monkeypatch.setattr(fingerprints, "PART_FRAMES", 1)
    assert leaks.report(task, split, data_dir, heard)["pretraining"] == whole
    assert sizes == [8, 1, 1, 1, 1]  # the task itself, then each clip of the other set


def test_fingerprints_are_made_once_and_the_report_is_written(task, data_dir, tmp_path, monkeypatch, capsys):
    splits = [fold([0, 3], [4], [2])]
    leaks.report(task, splits, data_dir)

    def fail(*_):
        raise AssertionError("made again")

    monkeypatch.setattr(fingerprints, "fingerprints", fail)
    found = leaks.write(tmp_path, task, splits, data_dir)
    assert json.loads((tmp_path / "leaks.json").read_text()) == found and found["warnings"] == []
    assert "no sound and no known speaker is on both sides of a fold" in capsys.readouterr().err
    leaks.write(tmp_path, task, folds.paper(8, 2), data_dir)
    assert "warning: the epoch is selected" in capsys.readouterr().err
    changed = dataclasses.replace(task, samples=task.samples - 1)
    with pytest.raises(AssertionError, match="made again"):
        leaks.report(changed, splits, data_dir)


def test_a_folder_that_cannot_be_written_costs_time_and_not_the_report(task, data_dir, tmp_path, capsys):
    (tmp_path / "fingerprints").write_text("in the way")
    assert leaks.report(task, [fold([0], [1], [6])], tmp_path)["tested"]["identical"] == 1
    assert "the next run makes them again" in capsys.readouterr().err
