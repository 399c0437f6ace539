"""A user's clips that change under their names between two runs, and finished runs that know of it."""

import json
import os
import pathlib

import numpy as np
import pytest
import soundfile

from voc2vec_jax import datasets, finetune
from voc2vec_jax.datasets.published import synthetic
from voc2vec_jax.finetuning import leaks, tasks
from voc2vec_jax.runs import program

CLIPS = 24


@pytest.fixture
def manifest(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.setattr("voc2vec_jax.datasets.worker_processes.cores", lambda: 1)
    voices = synthetic.Vocalizer(3)
    for k in range(CLIPS):
        soundfile.write(tmp_path / f"{k:02d}.wav", voices.load(str(k)), 16_000)
    rows = [f"{k:02d}.wav,{'ab'[k % 2]},{'test' if k < 8 else 'train'}" for k in range(CLIPS)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    vectors = np.random.default_rng(0).normal(size=(CLIPS, 4)).astype(np.float32)
    np.savez(tmp_path / "features.npz", ids=np.array([f"{k:02d}.wav" for k in range(CLIPS)]), vectors=vectors)
    return tmp_path / "list.csv"


def run(manifest: pathlib.Path, *more: str) -> int:
    where = manifest.parent
    given = ["--config=configs/finetune.py:folder", f"--config.data={manifest}", "--config.model=opensmile"]
    given += [f"--config.features={where / 'features.npz'}", f"--config.data_dir={where / 'data'}"]
    return program.run(
        finetune.main, [*given, f"--workdir={where / 'run'}", "--config.epochs=1", "--config.save_models=false", *more]
    )


def change(path: pathlib.Path) -> None:
    samples, rate_hz = soundfile.read(path)
    soundfile.write(path, samples[::-1], rate_hz)


def test_a_finished_run_says_that_its_clips_have_changed_since(manifest, capsys):
    assert run(manifest) == 0
    done = (manifest.parent / "run" / "summary.json").read_bytes()
    capsys.readouterr()
    assert run(manifest) == 0 and "of other clips" not in capsys.readouterr().err
    change(manifest.parent / "03.wav")
    assert run(manifest) == 0
    said = capsys.readouterr().err
    assert "are of other clips: list was prepared before 1 of its 24 recordings changed, such as 03.wav" in said
    tasks.open_task("folder", data=manifest, data_dir=manifest.parent / "data")  # as another run would
    capsys.readouterr()
    assert run(manifest) == 0
    assert "are of other clips: list was prepared anew since; give another --workdir" in capsys.readouterr().err
    assert (manifest.parent / "run" / "summary.json").read_bytes() == done
    for path in manifest.parent.glob("*.wav"):
        path.unlink()
    manifest.unlink()  # a finished run needs nothing
    assert run(manifest) == 0 and "is complete" in capsys.readouterr().err


def test_an_unfinished_run_does_not_go_on_with_other_clips(manifest, capsys):
    assert run(manifest) == 0
    (manifest.parent / "run" / "summary.json").unlink()
    capsys.readouterr()
    os.utime(manifest.parent / "03.wav", ns=(1, 1))
    assert run(manifest) == 0  # the same records: it sums up
    assert "list: the records are the same as before" in capsys.readouterr().err
    (manifest.parent / "run" / "summary.json").unlink()
    change(manifest.parent / "03.wav")
    assert run(manifest) == 2
    said = capsys.readouterr().err
    assert "1 of its 24 recordings changed, such as 03.wav" in said and "it is prepared anew" in said
    assert "computed on other clips of list: give another --workdir" in said


def test_the_model_of_all_clips_is_of_those_of_the_folds(manifest, capsys):
    assert run(manifest, "--config.final=true") == 0
    (manifest.parent / "run" / "final" / "final.json").unlink()
    change(manifest.parent / "03.wav")
    capsys.readouterr()
    assert run(manifest, "--config.final=true") == 2
    assert "computed on other clips of list: give another --workdir" in capsys.readouterr().err


def test_the_leak_report_of_other_clips_is_written_anew(manifest):
    task = tasks.open_task("folder", data=manifest, data_dir=manifest.parent / "data")
    path = manifest.parent / leaks.FILE
    assert not leaks.is_written(manifest.parent, task)
    for said, expected in (({"task": task.fingerprint}, True), ({}, True), ({"task": "another"}, False)):
        path.write_text(json.dumps(said))
        assert leaks.is_written(manifest.parent, task) == expected


def test_clips_that_cannot_be_used_are_tried_again_once_they_are_repaired(manifest, capsys):
    good = (manifest.parent / "05.wav").read_bytes()
    (manifest.parent / "05.wav").write_bytes(b"RIFF nothing")
    assert run(manifest) == 2
    assert "repair them and run again, or go on without them" in capsys.readouterr().err
    (manifest.parent / "05.wav").write_bytes(good)
    assert run(manifest) == 0
    assert "1 of its 24 recordings changed, such as 05.wav (12 bytes of" in capsys.readouterr().err


def test_a_set_that_was_prepared_by_hand_is_used_as_it_is_and_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("voc2vec_jax.datasets.worker_processes.cores", lambda: 1)
    voices = synthetic.Vocalizer(4)
    for number, label in enumerate(("anger", "fear")):
        path = tmp_path / "full_set" / f"S01_{label}_low_0{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, voices.load(str(number)), 16_000)
    options = {"data_dir": tmp_path / "data", "manual_dir": tmp_path}
    first = tasks.open_task("vivae", **options)
    change(path)
    capsys.readouterr()
    again = tasks.open_task("vivae", **options)
    assert again.fingerprint == first.fingerprint
    said = capsys.readouterr().err
    assert "1 of its 2 recordings changed, such as" in said and "it is used as it was prepared; delete it" in said


def test_lists_of_one_name_elsewhere_and_sets_made_by_hand_are_not_replaced(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("voc2vec_jax.datasets.worker_processes.cores", lambda: 1)
    voices, lists = synthetic.Vocalizer(5), []
    for k, name in enumerate("pqr"):
        (tmp_path / name).mkdir()
        for row in range(2):
            soundfile.write(tmp_path / name / f"{row}.wav", voices.load(str(10 * k + row)), 16_000)
        (tmp_path / name / "list.csv").write_text("path,label\n0.wav,a\n1.wav,b\n")
        lists.append(tmp_path / name / "list.csv")
    options = {"data_dir": tmp_path / "data"}
    found = [tasks.open_task("folder", data=path, **options) for path in (*lists, *lists)]
    assert len({task.fingerprint for task in found}) == 3 and "prepared anew" not in capsys.readouterr().err
    assert [task.name for task in found[:3]] == [task.name for task in found[3:]] and found[0].name == "list"
    (tmp_path / "p").rename(tmp_path / "moved")  # with all times
    assert tasks.open_task("folder", data=tmp_path / "moved" / "list.csv", **options).name == "list"
    change(tmp_path / "moved" / "0.wav")
    assert tasks.open_task("folder", data=tmp_path / "moved" / "list.csv", **options).name == "list"
    assert "list was prepared before 1 of its 2 recordings changed" in capsys.readouterr().err
    datasets.prepare("folder", data_dir=tmp_path / "hand", manual_dir=lists[1], workers=1, progress=False)
    before = tasks.open_task("list", data_dir=tmp_path / "hand").fingerprint
    assert tasks.open_task("folder", data=lists[1], data_dir=tmp_path / "hand").name == "list"
    change(tmp_path / "q" / "0.wav")
    assert tasks.open_task("folder", data=lists[1], data_dir=tmp_path / "hand").name != "list"
    assert tasks.open_task("list", data_dir=tmp_path / "hand").fingerprint == before
    (tmp_path / "moved").rename(tmp_path / "away")  # nobody's set any more, but this list has one of its own
    assert tasks.open_task("folder", data=lists[1], **options).name == found[1].name


def test_class_folders_keep_one_set_whatever_the_sizes_of_their_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("voc2vec_jax.datasets.worker_processes.cores", lambda: 1)
    voices, root = synthetic.Vocalizer(6), tmp_path / "clips"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        soundfile.write(root / name / "0.wav", voices.load("01"[name == "b"]), 16_000)
    tasks.open_task("folder", data=root, data_dir=tmp_path / "data")
    for k in (2, 3):
        soundfile.write(root / "a" / "0.wav", voices.load(str(k)), 16_000)
        task = tasks.open_task("folder", data=root, data_dir=tmp_path / "data")
        assert task.name == "clips" and len(task.read([0])[0]) == task.samples[0]
        np.testing.assert_array_equal(task.read([0])[0], soundfile.read(root / "a" / "0.wav", dtype="int16")[0])
        assert "clips was prepared before 1 of its 2 recordings changed, such as a/0.wav" in capsys.readouterr().err
    soundfile.write(root / "b" / "1.wav", voices.load("9"), 16_000)  # other recordings are another set
    assert tasks.open_task("folder", data=root, data_dir=tmp_path / "data").name != "clips"


def test_a_first_attempt_that_fails_leaves_no_run_folder_and_the_corrected_list_is_called_by_its_own_name(
    manifest, capsys
):
    good = manifest.read_text()
    manifest.write_text(good.replace("05.wav,b", "05.wav,B"))
    assert run(manifest) == 2
    assert "differ only in case" in capsys.readouterr().err and not (manifest.parent / "run").exists()
    manifest.write_text(good)
    assert run(manifest, "--config.seed=1") == 0  # another configuration
    assert "delete" not in capsys.readouterr().err
    summary = json.loads((manifest.parent / "run" / "summary.json").read_text())
    assert summary["title"] == "list" and summary["dataset"].startswith("list_")  # beside the set of the first attempt
    assert "list_" not in (manifest.parent / "run" / "summary.md").read_text()


def test_a_finished_run_keeps_no_state_of_its_folds(manifest, capsys):
    state = manifest.parent / "run" / "checkpoints"
    assert run(manifest) == 0 and not state.exists()
    (state / "3" / "state").mkdir(parents=True)  # as a kill before the end or an earlier version leaves it
    (state / "3" / "state" / "arrays").write_bytes(bytes(1000))
    before = {path: path.read_bytes() for path in state.parent.rglob("*") if path.is_file()}
    assert run(manifest) == 0 and "is complete" in capsys.readouterr().err
    after = {path: path.read_bytes() for path in state.parent.rglob("*") if path.is_file()}
    assert not state.exists() and before.keys() - after.keys() == {state / "3" / "state" / "arrays"}
    assert after[state.parent / "summary.json"] == before[state.parent / "summary.json"]
