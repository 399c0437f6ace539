"""A finished evaluation meets files that were changed, repaired or deleted: only their rows are computed again."""

import csv
import json
import os
import pathlib
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import tiny_models

from voc2vec_jax import datasets, errors, evaluate
from voc2vec_jax.inference.evaluation import again, inputs, worker
from voc2vec_jax.inference.evaluation import output as evaluation_output
from voc2vec_jax.runs import program

CLASSES = ("cry", "laugh")
SECONDS = (0.3, 0.5, 0.7, 0.4, 0.6, 0.35)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_models.write(tmp_path_factory.mktemp("models") / "tuned", CLASSES)


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory) -> pathlib.Path:
    """A folder of six recordings in `clips`, the last of which is broken, and its evaluation in `out`."""
    where = tmp_path_factory.mktemp("finished")
    tiny_models.recordings(where / "clips", SECONDS, CLASSES)
    broken(where / "clips").write_bytes(b"RIFF nothing")
    assert run(model, where) == 0
    return where


@pytest.fixture
def where(finished, tmp_path) -> pathlib.Path:
    """A copy to change, with the times of `finished`."""
    shutil.copytree(finished, tmp_path / "copy", copy_function=shutil.copy2)
    return tmp_path / "copy"


def run(model, where, *more, kind="--predict"):
    given = [f"--model={model}", f"--input={where / 'clips'}", f"--output={where / 'out'}", kind]
    return program.run(evaluate.main, [*given, "--part_files=3", "--batch_seconds=4", "--window_seconds=1.5", *more])


def names(clips: pathlib.Path) -> list[str]:
    return sorted(path.relative_to(clips).as_posix() for path in clips.rglob("*.wav"))


def broken(clips: pathlib.Path) -> pathlib.Path:
    return clips / names(clips)[-1]


def repair(clips: pathlib.Path) -> None:
    soundfile.write(broken(clips), 0.3 * np.sin(np.arange(8000) / 7), 16_000)


def rows(where: pathlib.Path) -> dict[str, dict]:
    table = pq.read_table(where / "out" / "parts").sort_by("row").to_pylist()
    return {row["id"]: row for row in table}


def failed(where: pathlib.Path) -> list[str]:
    with (where / "out" / "errors.csv").open() as file:
        return [row["id"] for row in csv.DictReader(file)]


def files_of(where: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(where)): path.read_bytes() for path in (where / "out").rglob("*") if path.is_file()}


def without(found: dict, *left_out: str) -> dict:
    return {name: row for name, row in found.items() if name not in left_out}


def test_a_repaired_file_is_computed_and_all_others_keep_their_bits(model, where, capsys, monkeypatch):
    before, name = rows(where), names(where / "clips")[-1]
    assert failed(where) == [name] and name not in before
    assert json.loads((where / "out" / "metrics.json").read_text())["unusable"] == 1
    repair(where / "clips")
    read, reader = [], worker.recordings.Reader.read
    monkeypatch.setattr(worker.recordings.Reader, "read", lambda self, item: read.append(item.id) or reader(self, item))
    assert run(model, where) == 0
    said = capsys.readouterr().err
    assert f"1 recording has changed since, such as {name} (12 bytes of" in said and "1 part to do" in said
    assert read == [name]
    after = rows(where)
    assert without(after, name) == before and after[name]["seconds"] == 0.5 and after[name]["label"] == "laugh"
    assert failed(where) == [] and not list((where / "out" / "errors").iterdir())
    scores = json.loads((where / "out" / "metrics.json").read_text())
    assert (scores["unusable"], scores["clips"]) == (0, 6)
    done = files_of(where)
    assert run(model, where) == 0 and "0 parts to do" in capsys.readouterr().err and files_of(where) == done


def test_a_changed_file_is_computed_again_and_a_spoilt_one_loses_its_row(model, where, capsys):
    before, (first, second, *_) = rows(where), names(where / "clips")
    soundfile.write(where / "clips" / first, 0.3 * np.sin(np.arange(8000) / 7), 16_000)
    (where / "clips" / second).write_bytes(b"")
    assert run(model, where) == 0
    assert f"2 recordings have changed since, such as {first} (" in capsys.readouterr().err
    after = rows(where)
    assert without(after, first) == without(before, first, second) and after[first] != before[first]
    assert failed(where) == [second, names(where / "clips")[-1]]


def test_files_that_are_gone_keep_what_was_computed_of_them(model, where, capsys):
    before = files_of(where)
    again_there = where / "clips" / names(where / "clips")[0]
    listed = where / "clips" / "list.csv"
    shutil.rmtree(where / "out")
    listed.write_text("path\n" + "".join(f"{name}\n" for name in names(where / "clips")))
    given = (f"--input={listed}",)
    assert run(model, where, *given) == 0
    before = files_of(where)
    moved = again_there.rename(where / "moved.wav")
    capsys.readouterr()
    assert run(model, where, *given) == 0
    said = capsys.readouterr().err
    assert "1 recording is gone, such as cry/000.wav: what was computed stays" in said
    assert files_of(where) == before
    moved.rename(again_there)
    assert run(model, where, *given) == 0 and "are gone" not in capsys.readouterr().err


@pytest.mark.parametrize("moment", ["errors", "unmark"])
def test_a_kill_loses_no_row_and_the_next_run_goes_on(model, where, monkeypatch, capsys, moment):
    before, name = rows(where), names(where / "clips")[-1]
    repair(where / "clips")

    def killed(*_):
        raise KeyboardInterrupt

    if moment == "errors":
        monkeypatch.setattr(again, "save_states", killed)
    else:
        monkeypatch.setattr(again, "unmark", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate.main(
            [f"--model={model}", f"--input={where / 'clips'}", f"--output={where / 'out'}", "--predict"]
            + ["--part_files=3", "--batch_seconds=4", "--window_seconds=1.5"]
        )
    assert without(rows(where), name) == before
    monkeypatch.undo()
    assert evaluation_output.OutputFolder(where / "out", description(where)).missing() == [1]
    assert run(model, where) == 0 and "1 part to do" in capsys.readouterr().err
    assert without(rows(where), name) == before and name in rows(where) and failed(where) == []


def description(where: pathlib.Path) -> dict:
    return json.loads((where / "out" / "evaluation.json").read_text())


@pytest.mark.parametrize("of_set", [False, True])
def test_retry_tries_what_could_not_be_used_even_if_no_file_changed(model, tmp_path, monkeypatch, capsys, of_set):
    tiny_models.recordings(tmp_path / "clips", SECONDS, CLASSES)
    more = []
    if of_set:
        options = {"data_dir": tmp_path / "data", "manual_dir": tmp_path / "clips"}
        datasets.prepare("folder", **options, workers=1, progress=False)
        more = ["--input=clips", f"--data_dir={tmp_path / 'data'}"]
    name, read = names(tmp_path / "clips")[-1], worker.recordings.Reader.read
    busy = errors.InputError("could not be opened: the disk is busy")
    monkeypatch.setattr(
        worker.recordings.Reader, "read", lambda self, item: busy if item.id == name else read(self, item)
    )
    assert run(model, tmp_path, *more) == 0
    monkeypatch.undo()
    before = rows(tmp_path)
    assert run(model, tmp_path, *more) == 0 and failed(tmp_path) == [name]
    capsys.readouterr()
    assert run(model, tmp_path, *more, "--retry") == 0
    said = capsys.readouterr().err
    assert "1 of the recordings that could not be used is tried again" in said and "have changed" not in said
    assert failed(tmp_path) == [] and without(rows(tmp_path), name) == before and name in rows(tmp_path)
    assert (tmp_path / "out" / "sources").exists() != of_set
    assert run(model, tmp_path, *more, "--retry") == 0 and "0 parts to do" in capsys.readouterr().err


def test_a_worker_looks_at_its_own_shard_alone(model, where, capsys):
    soundfile.write(where / "clips" / names(where / "clips")[0], 0.3 * np.sin(np.arange(8000) / 7), 16_000)
    before = files_of(where)
    assert run(model, where, "--shard=2/2") == 0  # part 1
    assert "have changed" not in capsys.readouterr().err and files_of(where) == before
    output = evaluation_output.OutputFolder(where / "out", description(where))
    (where / "out" / "again").mkdir(exist_ok=True)
    np.save(output.again(0), np.array([0]))  # the first worker has found it
    assert run(model, where, "--shard=2/2") == 0
    assert "1 of 2 parts are left to other shards (0)" in capsys.readouterr().err
    assert run(model, where, "--shard=1/2") == 0
    assert "is complete" in capsys.readouterr().err and not output.again(0).exists()


def test_a_folder_of_an_earlier_version_is_believed_but_for_newer_files_and_mp3(model, where, capsys):
    shutil.rmtree(where / "out" / "sources")
    written = (where / "out" / "parts" / "00000.parquet").stat().st_mtime_ns
    before = rows(where)
    assert run(model, where) == 0 and "0 parts to do" in capsys.readouterr().err and rows(where) == before
    shutil.rmtree(where / "out" / "sources")
    name = names(where / "clips")[1]
    os.utime(where / "clips" / name, ns=(written + 1, written + 1))
    assert run(model, where) == 0
    said = capsys.readouterr().err
    assert f"1 recording has changed since, such as {name}: computed again" in said
    assert rows(where) == before
    assert run(model, where) == 0 and "0 parts to do" in capsys.readouterr().err


def test_mp3_files_that_an_earlier_version_read_are_computed_again(model, tmp_path, capsys):
    (tmp_path / "clips").mkdir()
    for k, name in enumerate(("a.mp3", "b.wav")):
        soundfile.write(tmp_path / "clips" / name, 0.3 * np.sin(np.arange(8000) / (7 + k)), 16_000)
    assert run(model, tmp_path) == 0
    shutil.rmtree(tmp_path / "out" / "sources")
    capsys.readouterr()
    assert run(model, tmp_path) == 0
    said = capsys.readouterr().err
    assert "1 MP3 was read by an earlier version, perhaps in part: computed again" in said
    assert "have changed" not in said and "1 part to do" in said
    assert run(model, tmp_path) == 0 and "0 parts to do" in capsys.readouterr().err


def test_windows_of_other_recordings_stay_in_a_timeline(model, where):
    shutil.rmtree(where / "out")
    assert run(model, where, kind="--timeline") == 0
    before = (where / "out" / "timelines" / "00001.csv").read_text().splitlines()
    repair(where / "clips")
    assert run(model, where, kind="--timeline") == 0
    after = (where / "out" / "timelines" / "00001.csv").read_text().splitlines()
    assert after[: len(before)] == before and {line.split(",")[0] for line in after[len(before) :]} == {"5"}
    assert len(after) > len(before)


def test_a_kill_before_rows_are_marked_forgets_no_change(where, monkeypatch):
    shutil.rmtree(where / "out" / "sources")  # as an earlier version left it
    written = (where / "out" / "parts" / "00000.parquet").stat().st_mtime_ns
    os.utime(where / "clips" / names(where / "clips")[1], ns=(written + 1, written + 1))
    output = evaluation_output.OutputFolder(where / "out", description(where))
    given, save = (output, inputs.open_input(str(where / "clips")), range(2), False, 2), again._save

    def killed(path, array):
        if path.parent.name == "again":
            raise KeyboardInterrupt
        save(path, array)

    monkeypatch.setattr(again, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        again.mark(*given)
    monkeypatch.undo()
    assert again.mark(*given).changed == 1 and output.missing() == [0]
    again.unmark(output, 0, {0})
    assert again.rows_of(output, 0).tolist() == [1]
    again.unmark(output, 0, {1})
    assert output.missing() == []
