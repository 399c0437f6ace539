"""A user's own clips from the command line: given parts, stretches of recordings, and every kind of bad input."""

import csv
import json
import pathlib
import re

import numpy as np
import pytest
import soundfile

from voc2vec_jax import errors, finetune
from voc2vec_jax.datasets.published import synthetic
from voc2vec_jax.finetuning import own_data, tasks
from voc2vec_jax.reports import runs as report_runs
from voc2vec_jax.reports import tables as report_tables
from voc2vec_jax.runs import program

CLASSES = ("cry", "laugh", "cough")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """30 different clips, and two recordings of 12 s."""
    where = tmp_path_factory.mktemp("own")
    voices = synthetic.Vocalizer(3)
    sounds = [voices.load(str(k)) * 0.7 for k in range(40)]
    for k in range(30):
        soundfile.write(where / f"{k:02d}.wav", sounds[k], 16_000)
    soundfile.write(where / "copy.wav", sounds[0] * 0.5, 16_000)
    for name, part in (("x", sounds[30:35]), ("y", sounds[35:40])):
        soundfile.write(where / f"{name}.flac", np.resize(np.concatenate(part), 12 * 16_000), 16_000)
    return where


@pytest.fixture(autouse=True)
def one_worker(monkeypatch):
    monkeypatch.setattr("voc2vec_jax.datasets.worker_processes.cores", lambda: 1)


def rows(more=lambda k: "", label=lambda k: CLASSES[k % 3]):
    return [f"{k:02d}.wav,{label(k)}{more(k)}" for k in range(30)]


def write(folder, header, lines, name="list.csv", encoding="utf-8"):
    (folder / name).write_text("\n".join([header, *lines]) + "\n", encoding=encoding)
    return folder / name


def run(folder, manifest, tmp_path, *more):
    """The exit status of a short run on features; the vectors are random, as nothing here looks at scores."""
    rng = np.random.default_rng(0)
    ids = [
        *(f"{k:02d}.wav" for k in range(30)),
        "copy.wav",
        "x.flac#0-2.5",
        "x.flac#2-4.25",
        "y.flac#1-9",
        "y.flac#9-12",
    ]
    np.savez(tmp_path / "features.npz", ids=np.array(ids), vectors=rng.normal(size=(len(ids), 4)).astype(np.float32))
    given = ["--config=configs/finetune.py:folder", f"--config.data={manifest}", "--config.model=opensmile"]
    given += [f"--config.features={tmp_path / 'features.npz'}", f"--config.data_dir={tmp_path / 'data'}"]
    given += [f"--workdir={tmp_path / 'run'}", "--config.epochs=1", "--config.save_models=false", *more]
    return program.run(finetune.main, given)


def test_a_column_split_makes_one_fold_of_the_given_parts(folder, tmp_path, capsys):
    part = ["train"] * 18 + ["val"] * 6 + ["test"] * 6
    manifest = write(folder, "path,label,group,split", rows(lambda k: f",speaker{k // 3},{part[k]}"))
    assert run(folder, manifest, tmp_path) == 0
    said = capsys.readouterr().err
    assert "'val' as validation" in said and "list: one fold, since the parts are given" in said
    assert "train/validation/test 18/6/6" in said
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    (fold,) = summary["folds"]
    assert summary["complete"] and summary["planned_folds"] == 1
    assert summary["groups"] == 2  # of those that are tested
    written = (tmp_path / "run" / "summary.md").read_text()
    assert "1 fold and not 10, since the parts are given." in written and "over 1 fold;" in said
    assert "\nNo tested clip has a copy in training, and no known speaker is on both sides of a fold.\n" in written
    assert re.search(r"^\| chance: a class at random \|( 0\.\d{3} \|){3} \| \|$", written, re.M)
    assert summary["baselines"]["majority"]["uar"] == 1 / len(summary["labels"])
    assert "±" not in said and "±" not in written.replace("mean ± std", "")  # a single fold has no deviation
    (found,) = report_runs.find([tmp_path / "run"]).runs
    assert [number.std for number in report_tables.own(found).values()] == [None] * 3
    assert [fold[name] for name in ("train", "validation", "test")] == [
        [f"{k:02d}.wav" for k in range(start, stop)] for start, stop in ((0, 18), (18, 24), (24, 30))
    ]
    assert run(folder, manifest, tmp_path) == 0 and "is complete" in capsys.readouterr().err
    # Other parts are other clips to train on
    moved = write(folder, "path,label,group,split", rows(lambda k: f",speaker{k // 3},{part[29 - k]}"))
    capsys.readouterr()
    task = tasks.open_task("folder", data=moved, data_dir=tmp_path / "data")
    assert task.part.tolist() == [{"val": "validation"}.get(each, each) for each in part[::-1]]
    assert tasks.open_task("list", data_dir=tmp_path / "data").part is None
    assert "the parts that the manifest of list gives are not kept in a prepared set" in capsys.readouterr().err
    assert task.fingerprint != json.loads((tmp_path / "run" / "fold_00" / "fold.json").read_text())["task"]


def test_parts_come_from_manifests_of_their_own_and_validation_from_train(folder, tmp_path, capsys):
    lines = rows(lambda k: f",speaker{k // 3}")
    train = write(folder, "path,label,group", lines[:24], "train.csv")
    test = write(folder, "path,label,group", lines[24:], "test.csv")
    assert run(folder, train, tmp_path, f"--config.test_data={test}") == 0
    said = capsys.readouterr().err
    assert (
        "one fold, since the parts are given, but for validation, to which 3 of the clips of train went, by groups"
        in said
    )
    (fold,) = json.loads((tmp_path / "run" / "summary.json").read_text())["folds"]
    assert fold["test"] == [f"{k:02d}.wav" for k in range(24, 30)] and len(fold["train"]) == 21


def test_stretches_are_clips_of_one_group_that_know_their_place(folder, tmp_path, capsys):
    lines = ["x.flac,0,2.5,cry", "x.flac,2,4.25,laugh", "y.flac,1,9,cry", "y.flac,9,12,laugh"]
    manifest = write(folder, "path,start,end,label", lines)
    task = tasks.open_task("folder", data=manifest, data_dir=tmp_path / "data")
    assert task.ids.tolist() == ["x.flac#0-2.5", "x.flac#2-4.25", "y.flac#1-9", "y.flac#9-12"]
    assert task.paths.tolist() == ["x.flac", "x.flac", "y.flac", "y.flac"] and task.audio_root == folder
    assert task.start_seconds.tolist() == [0, 2, 1, 9] and task.samples.tolist() == [40_000, 36_000, 112_000, 48_000]
    assert [task.groups[number] for number in task.group] == ["x.flac", "x.flac", "y.flac", "y.flac"]
    whole = soundfile.read(folder / "y.flac", dtype="int16")[0]
    clips = task.read([2, 3])
    np.testing.assert_array_equal(clips[0], whole[16_000:128_000])
    np.testing.assert_array_equal(clips[1], whole[144_000:])
    assert "1 pairs of stretches overlap and have different labels" in capsys.readouterr().err
    longer = tasks.open_task("folder", data=manifest, data_dir=tmp_path / "data", max_seconds=7.5)
    np.testing.assert_array_equal(longer.read([2])[0], whole[16_000:136_000])


def test_predictions_say_where_a_stretch_lies(folder, tmp_path, capsys):
    lines = ["x.flac,0,2.5,cry,train", "x.flac,2,4.25,laugh,train", "y.flac,1,9,cry,test", "y.flac,9,12,laugh,test"]
    manifest = write(
        folder, "path,start,end,label,split", [*lines, *(f"{k:02d}.wav,,,{CLASSES[k % 2]},train" for k in range(8))]
    )
    assert run(folder, manifest, tmp_path) == 0
    predictions = list(csv.DictReader((tmp_path / "run" / "predictions.csv").read_text().splitlines()))
    assert [(each["id"], each["path"], each["start_seconds"], each["seconds"]) for each in predictions] == [
        ("y.flac#1-9", "y.flac", "1.000", "7.000"),
        ("y.flac#9-12", "y.flac", "9.000", "3.000"),
    ]


BAD = {
    "a group in two parts": (
        "path,label,group,split",
        rows(lambda k: f",s{k // 3},{'test' if k in (1, 29) else 'train'}"),
        "group s0 has clips in two parts, 00.wav in train and 01.wav in test",
    ),
    "a copy in two parts": (
        "path,label,split",
        [*rows(lambda k: f",{'train' if k < 24 else 'test'}"), "copy.wav,cry,test"],
        "00.wav in train and copy.wav in test hold nearly the same sound: put copies into one part",
    ),
    "no test part": ("path,label,split", rows(lambda k: ",train"), "none of the 30 clips is in the part test"),
    "another part": ("path,label,split", rows(lambda k: ",holdout"), "line 2 puts 00.wav into the split 'holdout'"),
    "an interval outside": (
        "path,start,end,label",
        ["x.flac,0,2,cry", "x.flac,11,12.5,laugh"],
        "line 3 takes x.flac from 11 to 12.5 s, and the recording has 12.000 s",
    ),
    "a negative start": ("path,start,end,label", ["x.flac,-1,2,cry"], "line 2 takes x.flac from -1 to 2: give start"),
    "an end before its start": ("path,start,end,label", ["x.flac,2,1,cry"], "line 2 takes x.flac from 2 to 1: give"),
    "no column end": ("path,start,label", ["x.flac,2,cry"], "has a column start and none named end"),
    "cases": (
        "path,label",
        rows(label=lambda k: "Cry" if k == 3 else CLASSES[k % 3]),
        "the classes 'Cry' (1 clips) and 'cry' (9) of list differ only in case",
    ),
    "numbers": ("path,label", rows(label=lambda k: f"{k / 7:.2f}"), "are 30 different numbers, such as 0.00 and 4.14"),
    "one label": ("path,label", rows(label=lambda k: "cry"), "all 30 clips are of one class (cry) in list"),
    "three clips of a class": (
        "path,label",
        rows(label=lambda k: "rare" if k < 3 else "cry"),
        "class rare has 3 clips, too few for each of 10 folds to test it",
    ),
    "no column label": ("path,class", rows(), "list has no labels, so it is no task"),
    "no column path": ("file,label", rows(), "begins with 'file,label': its first line must name the columns"),
    "no label in a row": ("path,label", [*rows(), "copy.wav,"], "1 of 31 clips of list have no label (copy.wav)"),
    "two labels of a clip": ("path,label", [*rows(), "00.wav,laugh"], "lists 00.wav twice, as label cry and as label"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_one_sentence_and_exit_status_2(folder, tmp_path, capsys, fault):
    header, lines, says = BAD[fault]
    assert run(folder, write(folder, header, lines), tmp_path) == 2
    said = capsys.readouterr().err.splitlines()
    assert says in said[-1] and said[-1].startswith("error: ") and "Traceback" not in said[-1]


def test_tags_in_two_cases_are_refused_too(folder, tmp_path, capsys):
    manifest = write(folder, "path,label", rows(label=lambda k: "cry|Cough" if k == 5 else CLASSES[k % 3]))
    assert run(folder, manifest, tmp_path, "--config.target=multilabel") == 2
    assert "the classes 'Cough' (1 clips) and 'cough' (9) of list differ only in case" in capsys.readouterr().err


def test_parts_need_the_strict_protocol_and_a_test_part_of_their_own(folder, tmp_path, capsys):
    manifest = write(folder, "path,label,split", rows(lambda k: f",{'train' if k < 24 else 'test'}"))
    assert run(folder, manifest, tmp_path, "--config.protocol=paper") == 2
    assert "--config.protocol=paper deals folds of its own: take" in capsys.readouterr().err
    plain = write(folder, "path,label", rows(), "plain.csv")
    assert run(folder, plain, tmp_path, f"--config.validation_data={manifest}") == 2
    assert "is given and no test_data: give test clips with --config.test_data" in capsys.readouterr().err
    assert run(folder, plain, tmp_path, f"--config.test_data={plain}") == 2
    assert "data and test_data are both" in capsys.readouterr().err
    assert run(folder, plain, tmp_path, f"--config.test_data={folder / 'none.csv'}") == 2
    assert "none.csv: give --config.test_data a folder of class folders" in capsys.readouterr().err


@pytest.mark.parametrize("separator", [",", ";"])
def test_spaces_a_byte_order_mark_and_semicolons_are_read_and_the_first_is_said(folder, tmp_path, capsys, separator):
    lines = [
        line.replace(",", separator)
        for line in rows(label=lambda k: f" {CLASSES[k % 3]}" if k == 4 else CLASSES[k % 3])
    ]
    manifest = write(folder, f"path{separator}label", lines, encoding="utf-8-sig")
    task = tasks.open_task("folder", data=manifest, data_dir=tmp_path)
    assert task.labels == ("cough", "cry", "laugh") and len(task) == 30
    assert "1 field had spaces around it, which were left out, such as label ' laugh'" in capsys.readouterr().err


def test_whole_numbers_are_classes_and_that_is_said(capsys):
    own_data.check_names(("0", "1", "10"), (3, 3, 3), "mine")
    assert "the labels of mine are numbers (0, 1, 10), each of which is taken as the name" in capsys.readouterr().err
    own_data.check_names(("0", "1", "nan"), (3, 3, 3), "mine")
    own_data.check_names(("1", "one"), (3, 3), "mine")
    assert capsys.readouterr().err == ""
    with pytest.raises(errors.InputError, match="21 different numbers.*did you mean --config.target=regression"):
        own_data.check_names([str(k) for k in range(21)], [1] * 21, "mine")
    with pytest.raises(errors.InputError, match="differ only in case, in spaces or in how an accent is coded"):
        own_data.check_names(("b\u00e9b\u00e9", "be\u0301be\u0301"), (1, 2), "mine")


def test_labels_and_groups_that_earlier_versions_prepared_with_spaces(capsys):
    with pytest.raises(
        errors.InputError, match="the classes ' cry' .1 clips. and 'cry' .2. of mine differ only in case"
    ):
        own_data.check_names((" cry", "cry"), (1, 2), "mine")
    groups = ("ann", "ann ", "be\u0301n", "b\u00e9n", "eve")
    found = own_data.one_of_each(np.array([0, 1, 2, 3, 4, -1]), groups, "mine")
    assert found.tolist() == [0, 0, 2, 2, 4, -1]
    assert "mine: the groups 'ann' and 'ann ' are taken as one" in capsys.readouterr().err
    assert own_data.one_of_each(np.array([0, -1]), ("a", "A"), "mine").tolist() == [0, -1]
    assert capsys.readouterr().err == ""


def test_a_folder_of_parts_is_one_fold(folder, tmp_path, capsys):
    root = tmp_path / "corpus"
    for k in range(30):
        place = root / ("Train" if k < 18 else "val" if k < 24 else "test") / CLASSES[k % 3]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{k:02d}.wav").hardlink_to(folder / f"{k:02d}.wav")
    task = tasks.open_task("folder", data=root, data_dir=tmp_path / "data")
    assert task.labels == ("cough", "cry", "laugh") and "folders are taken for parts" in capsys.readouterr().err
    assert {(path.split("/")[0], part) for path, part in zip(task.paths, task.part)} == {
        ("Train", "train"),
        ("val", "validation"),
        ("test", "test"),
    }
