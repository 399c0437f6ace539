"""Batch evaluation from the command line: the same files however the work is divided, killed or repeated."""

import csv
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import hosts
import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_models
from sklearn import metrics as sklearn_metrics

import voc2vec_jax as v2v
from voc2vec_jax import audio, datasets, evaluate
from voc2vec_jax.audio import sndfile
from voc2vec_jax.inference import pretrained
from voc2vec_jax.inference.evaluation import recordings, worker
from voc2vec_jax.inference.evaluation import rows as evaluation_rows
from voc2vec_jax.runs import program as run_program

ROOT = pathlib.Path(__file__).parents[3]
KILLS = int(os.environ.get("VOC2VEC_KILLS", "2"))
CLASSES = ("cry", "laugh", "sigh")
SECONDS = [0.3, 2.0, 0.7, 1.1, 0.2, 0.9, 1.6, 0.4, 1.3, 0.5, 2.4, 0.8, 0.6, 1.0, 0.35, 1.9, 0.25, 1.2, 0.45, 0.75]
USABLE = len(SECONDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Recordings of three classes, one that cannot be decoded and one that is too short."""
    where = tmp_path_factory.mktemp("clips")
    tiny_models.recordings(where, [*SECONDS, 0.001], CLASSES)
    (where / "cry" / "broken.wav").write_bytes(b"RIFF nothing")
    return where


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return tiny_models.write(tmp_path_factory.mktemp("models") / "plain")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    return tiny_models.write(tmp_path_factory.mktemp("models") / "tuned", CLASSES)


def arguments(model, source, output, *more):
    common = ["--part_files=4", "--batch_seconds=4", "--window_seconds=1.5"]
    return [f"--model={model}", f"--input={source}", f"--output={output}", *common, *more]


def run(*given):
    """In this process; the status."""
    return run_program.run(evaluate.main, arguments(*given))


def table(output):
    return pq.read_table(output / "parts").sort_by("row")


def column(output, name):
    return np.array(table(output)[name].to_pylist())


def contents(output):
    return {path.relative_to(output): path.read_bytes() for path in output.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def vectors(plain, folder, tmp_path_factory):
    """Vectors of all layers."""
    output = tmp_path_factory.mktemp("out") / "vectors"
    assert run(plain, folder, output, "--layers=all") == 0
    return output


@pytest.fixture(scope="module")
def chances(tuned, folder, tmp_path_factory):
    """Class probabilities."""
    output = tmp_path_factory.mktemp("out") / "chances"
    assert run(tuned, folder, output, "--predict") == 0
    return output


def test_vectors_are_those_of_embed(vectors, plain, folder):
    rows = table(vectors).to_pylist()
    assert len(rows) == USABLE
    expected = v2v.from_pretrained(plain).embed(
        [folder / row["path"] for row in rows], layer="all", window_seconds=1.5, overlap_seconds=0.375
    )
    for layer in (0, 1, 2):
        np.testing.assert_allclose([row[f"layer_{layer}"] for row in rows], expected[:, layer], atol=1e-5)
    for row in rows:
        assert row["id"] == row["path"] and row["label"] == row["path"].split("/")[0]
        assert row["seconds"] == len(audio.load(folder / row["path"])) / 16_000


def test_a_reader_learns_from_the_file_what_it_holds(vectors):
    schema = pq.read_schema(vectors / "parts" / "00000.parquet")
    said = json.loads(schema.metadata[b"voc2vec_jax"])
    assert said == json.loads((vectors / "evaluation.json").read_text())
    assert said["layers"] == [0, 1, 2] and said["pool"] == "mean" and len(said["weights"]) == 64
    assert str(schema.field("layer_2").type) == "fixed_size_list<element: float>[16]"


def test_unusable_recordings_are_listed_and_stop_nothing(vectors):
    listed = list(csv.DictReader((vectors / "errors.csv").read_text().splitlines()))
    assert [entry["id"] for entry in listed] == ["cry/broken.wav", "sigh/020.wav"]
    assert "is text, not a recording" in listed[0]["reason"] and "has 16 samples" in listed[1]["reason"]
    rows = [*column(vectors, "row").tolist(), *(int(entry["row"]) for entry in listed)]
    assert sorted(rows) == list(range(USABLE + 2))


@pytest.mark.parametrize("n", [3, 8])
def test_any_division_gives_the_same_files(n, vectors, plain, folder, tmp_path, capsys):
    for share in np.random.default_rng(n).permutation(n) + 1:
        assert run(plain, folder, tmp_path, "--layers=all", f"--shard={share}/{n}") == 0
    assert "parts are left to other shards (" in capsys.readouterr().err
    assert contents(tmp_path) == contents(vectors)
    assert sum(1 for name in contents(tmp_path) if name.suffix == ".parquet") == 6


def test_a_rerun_makes_only_what_is_missing(chances, tuned, folder, tmp_path, capsys):
    shutil.copytree(chances, tmp_path / "out")
    for name in ("parts/00002.parquet", "errors.csv", "metrics.json"):
        (tmp_path / "out" / name).unlink()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "parts").iterdir()}
    (tmp_path / "out" / "parts" / ".00001.parquet.0123.tmp").write_bytes(b"of a dead worker")
    assert run(tuned, folder, tmp_path / "out", "--predict") == 0
    assert ": 1 part to do" in capsys.readouterr().err
    assert contents(tmp_path / "out") == contents(chances)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_probabilities_are_those_of_predict(chances, tuned, folder):
    rows = table(chances).to_pylist()
    found = v2v.from_pretrained(tuned).predict([folder / row["path"] for row in rows])
    short = [k for k, row in enumerate(rows) if row["seconds"] < 1.5]  # the others have other windows there
    mine = np.array([row["probabilities"] for row in rows])
    np.testing.assert_allclose(mine[short], found.probabilities[short], atol=1e-5)
    np.testing.assert_allclose(mine.sum(1), 1, atol=1e-5)
    assert [row["predicted"] for row in rows] == [CLASSES[k] for k in mine.argmax(1)]
    np.testing.assert_array_equal([row["probability"] for row in rows], mine.max(1))


def test_scores_are_scikit_learns(chances):
    found = json.loads((chances / "metrics.json").read_text())
    true, predicted = column(chances, "label"), column(chances, "predicted")
    assert found["clips"] == USABLE and found["unusable"] == 2 and found["labels"] == list(CLASSES)
    assert found["accuracy"] == pytest.approx((true == predicted).mean())
    assert found["uar"] == pytest.approx(sklearn_metrics.balanced_accuracy_score(true, predicted))
    assert found["confusion"] == sklearn_metrics.confusion_matrix(true, predicted, labels=CLASSES).tolist()
    assert len(set(predicted)) > 1


def test_labels_that_the_model_does_not_know_are_counted_apart(tuned, folder, tmp_path):
    lines = [f"cry/{k:03d}.wav,{label}" for k, label in ((0, "cry"), (3, "hum"), (6, ""), (9, "sigh"))]
    (folder / "own.csv").write_text("\n".join(["path,label", *lines]))
    assert run(tuned, folder / "own.csv", tmp_path / "a", "--predict") == 0
    found = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert (found["clips"], found["unlabelled"], found["labels_unknown_to_the_model"]) == (2, 1, {"hum": 1})
    (folder / "own.csv").write_text("path\ncry/000.wav")
    assert run(tuned, folder / "own.csv", tmp_path / "b", "--predict") == 0
    assert not (tmp_path / "b" / "metrics.json").exists()


def test_frames_and_their_times(plain, folder, tmp_path):
    assert run(plain, folder, tmp_path, "--pool=none", "--layers=1,-1") == 0
    rows = table(tmp_path).to_pylist()
    paths = [folder / row["path"] for row in rows]
    expected = v2v.from_pretrained(plain).embed(
        paths, pool=None, layer=[1, 2], window_seconds=1.5, overlap_seconds=0.375
    )
    for row, frames in zip(rows, expected, strict=True):
        np.testing.assert_allclose(row["layer_1"], frames[:, 0], atol=1e-5)
        np.testing.assert_allclose(row["layer_2"], frames[:, 1], atol=1e-5)
        field = 40 + 7 * 20 + 3 * 80  # samples that a frame sees
        times = (np.arange(len(frames)) * 320 + field / 2) / 16_000
        np.testing.assert_allclose(row["frame_times"], times, rtol=1e-6)
        assert row["frame_times"][-1] < row["seconds"]


def test_rows_beyond_the_writers_memory_are_all_there(plain, folder, tmp_path, monkeypatch):
    """A part of many row groups holds the same rows."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(plain, folder, whole, "--pool=none", "--part_files=50") == 0
    monkeypatch.setattr(evaluation_rows, "GROUP_BYTES", 5_000)
    assert run(plain, folder, cut, "--pool=none", "--part_files=50") == 0
    assert pq.read_metadata(whole / "parts" / "00000.parquet").num_row_groups == 1
    assert pq.read_metadata(cut / "parts" / "00000.parquet").num_row_groups > 5
    assert table(cut).equals(table(whole))
    assert table(whole).equals(pq.read_table(whole / "parts"))  # one group is in order


def test_half_precision_on_disk(vectors, plain, folder, tmp_path):
    assert run(plain, folder, tmp_path, "--store_dtype=float16") == 0
    assert column(tmp_path, "layer_2").dtype == np.float16 or "halffloat" in str(table(tmp_path).schema)
    np.testing.assert_allclose(column(tmp_path, "layer_2"), column(vectors, "layer_2"), rtol=1e-3, atol=1e-3)


def test_what_a_file_cannot_hold_is_unusable(vectors, plain, folder, tmp_path, monkeypatch):
    reach = np.abs(column(vectors, "layer_2")).max(1)
    monkeypatch.setattr(evaluation_rows, "FLOAT16_END", float(np.sort(reach)[-3]))
    assert run(plain, folder, tmp_path, "--store_dtype=float16") == 0
    lost = np.argsort(reach)[-3:]
    names = np.delete(column(vectors, "path"), lost)
    assert column(tmp_path, "path").tolist() == names.tolist()
    with (tmp_path / "errors.csv").open() as file:
        said = [row["reason"] for row in csv.DictReader(file) if "float16" in row["reason"]]
    assert len(said) == 3 and all("give --store_dtype=float32" in reason for reason in said)


def test_results_that_are_not_finite_are_unusable_and_never_scored(tuned, folder, tmp_path, monkeypatch, capsys):
    logits = pretrained.Model.logits
    monkeypatch.setattr(pretrained.Model, "logits", lambda self: lambda batch: logits(self)(batch) * np.nan)
    assert run(tuned, folder, tmp_path, "--predict") == 2
    assert "none of 22 recordings can be used" in capsys.readouterr().err
    assert not (tmp_path / "metrics.json").exists()
    assert (tmp_path / "errors.csv").read_text().count("the model computes values for it that are not finite") == USABLE


def test_a_manifest_keeps_its_order_ids_and_repeats(vectors, plain, folder, tmp_path):
    names = column(vectors, "path")
    chosen = [7, 3, 3, 11]
    lines = [f"{names[k]},clip {number}" for number, k in enumerate(chosen)]
    (folder / "order.csv").write_text("\n".join(["path,id", *lines]))
    assert run(plain, folder / "order.csv", tmp_path) == 0
    assert column(tmp_path, "id").tolist() == ["clip 0", "clip 1", "clip 2", "clip 3"]
    np.testing.assert_allclose(column(tmp_path, "layer_2"), column(vectors, "layer_2")[chosen], atol=1e-5)


def test_a_prepared_set(tuned, tmp_path):
    prepared = datasets.prepare("synthetic", data_dir=tmp_path / "data", clips=12, progress=False)
    assert run(tuned, "synthetic", tmp_path / "out", "--predict", f"--data_dir={tmp_path / 'data'}") == 0
    assert column(tmp_path / "out", "id").tolist() == prepared.ids.tolist()
    found = v2v.from_pretrained(tuned).predict(prepared.read(range(12)))
    short = prepared.samples < 1.5 * 16_000
    mine = column(tmp_path / "out", "probabilities")
    np.testing.assert_allclose(mine[short], found.probabilities[short], atol=1e-5)


@pytest.mark.slow
def test_a_timeline_is_what_predict_gives_each_window(tuned, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "LONG_SAMPLES", 16_000)
    assert run(tuned, folder, tmp_path, "--timeline", "--window_seconds=0.5", "--hop_seconds=0.3") == 0
    lines = [
        line
        for part in sorted((tmp_path / "timelines").iterdir())
        for line in csv.DictReader(part.read_text().splitlines())
    ]
    model = v2v.from_pretrained(tuned)
    for row in table(tmp_path).to_pylist():
        own = [line for line in lines if line["row"] == str(row["row"])]
        assert len(own) == row["windows"] == 1 + max(0, int(np.ceil(round((row["seconds"] - 0.5) / 0.3, 6))))
        assert float(own[0]["start"]) == 0 and float(own[-1]["end"]) == pytest.approx(row["seconds"], abs=5e-4)
        wave = audio.load(folder / row["path"])
        bounds = [(round(float(line["start"]) * 16_000), round(float(line["end"]) * 16_000)) for line in own]
        found = model.predict([wave[start:stop] for start, stop in bounds])
        assert [line["label"] for line in own] == list(found.labels)
        np.testing.assert_allclose(
            [float(line["probability"]) for line in own], found.probabilities.max(1), atol=1e-3
        )  # 0.3 ms of audio may be cut elsewhere
        np.testing.assert_allclose(row["probabilities"], found.probabilities.mean(0), atol=1e-3)
    assert len(lines) > 2 * USABLE


def test_one_device_gives_what_eight_give(vectors, plain, folder, tmp_path, monkeypatch):
    assert len(jax.local_devices()) == 8
    device = jax.local_devices()[3]
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert run(plain, folder, tmp_path, "--layers=all") == 0
    for layer in (0, 1, 2):
        name = f"layer_{layer}"
        np.testing.assert_allclose(column(tmp_path, name), column(vectors, name), atol=1e-5)


def test_every_device_takes_its_rows(plain, folder, tmp_path, monkeypatch):
    placed = set()
    computer = worker.Worker._computer

    def spying(self):
        compute = computer(self)

        def spy(batch):
            values = compute(batch)
            for array in (batch.audio, values):
                placed.update(len(shard.data) * 8 - len(array) for shard in array.addressable_shards)
            return values

        return spy

    monkeypatch.setattr(worker.Worker, "_computer", spying)
    assert run(plain, folder, tmp_path) == 0
    assert placed == {0}  # an eighth of the rows on each


def test_a_device_without_memory_is_a_fault_of_the_run(plain, folder, tmp_path, monkeypatch, capsys):
    def exhausted(self):
        def compute(batch):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

        return compute

    monkeypatch.setattr(worker.Worker, "_computer", exhausted)
    assert run(plain, folder, tmp_path) == 1
    assert "error: batches of 4 s of audio do not fit into the device's memory" in capsys.readouterr().err
    assert not parts_in(tmp_path)


def test_a_long_recording_that_changes_meanwhile_is_unusable(plain, tmp_path, monkeypatch):
    tiny_models.recordings(tmp_path / "in", [2.0, 0.5, 2.0])
    monkeypatch.setattr(recordings, "LONG_SAMPLES", 16_000)
    monkeypatch.setattr(sndfile, "BLOCK_FRAMES", 4000)
    measured = recordings.Reader._measured

    def shrink(self, item, told):
        found = measured(self, item, told)
        if item.id == "002.wav":
            (tmp_path / "in" / "002.wav").write_bytes((tmp_path / "in" / "001.wav").read_bytes())
        return found

    monkeypatch.setattr(recordings.Reader, "_measured", shrink)
    assert run(plain, tmp_path / "in", tmp_path / "out") == 0
    assert column(tmp_path / "out", "id").tolist() == ["000.wav", "001.wav"]
    assert "2,002.wav,002.wav,became shorter while it was read" in (tmp_path / "out" / "errors.csv").read_text()


def test_what_is_odd_about_usable_recordings_is_said_and_listed(plain, tmp_path, capsys):
    tiny_models.recordings(tmp_path / "in", [1.0, 0.5])
    whole = (tmp_path / "in" / "000.wav").read_bytes()
    (tmp_path / "in" / "cut.wav").write_bytes(whole[:20_000])
    assert run(plain, tmp_path / "in", tmp_path / "out") == 0
    assert "1 of the recordings ends early and is used as far as it goes, namely cut.wav: " in capsys.readouterr().err
    with (tmp_path / "out" / "remarks.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["path"] == "cut.wav" and row["kind"] == "truncated" and "is truncated" in row["remark"]
    assert column(tmp_path / "out", "seconds")[2] == pytest.approx((20_000 - 44) / 2 / 16_000, abs=1e-4)
    assert run(plain, tmp_path / "in", tmp_path / "strict", "--on_truncated=refuse") == 0
    assert '2,cut.wav,cut.wav,"is truncated' in (tmp_path / "strict" / "errors.csv").read_text()
    capsys.readouterr()
    assert run(plain, tmp_path / "in", tmp_path / "out", "--on_truncated=refuse") == 2
    assert "on_truncated is warn, and this one's is refuse" in capsys.readouterr().err


def test_compilations_are_counted_and_bounded(plain, folder, tmp_path, capsys):
    (folder / "many.txt").write_text("\n".join(f"{CLASSES[k % 3]}/{k:03d}.wav" for k in [*range(20)] * 5))
    assert run(plain, folder / "many.txt", tmp_path, "--part_files=30") == 0
    said = capsys.readouterr().err
    compiled = int(said.split(" shapes compiled")[0].split()[-1])
    most = int(said.split("of at most ")[1].split(")")[0])
    assert 0 < compiled <= most <= 40


def start(cache, *given, environment=()):
    inherited = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PLATFORMS": "cpu"}
    inherited["XLA_FLAGS"] = hosts.XLA
    inherited |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"} | dict(environment)
    command = [sys.executable, "-m", "voc2vec_jax.evaluate", *arguments(*given)]
    return subprocess.Popen(command, cwd=ROOT, env=inherited, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def program(plain, folder, tmp_path_factory):
    """An uninterrupted run as a program of its own, and the cache of what it compiled."""
    where = tmp_path_factory.mktemp("program")
    process = start(where / "cache", plain, folder, where / "whole", "--part_files=2")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return where / "whole", where / "cache"


def parts_in(output):
    return len(list(output.glob("parts/[0-9]*.parquet")))


@pytest.mark.slow
def test_workers_killed_at_random_lose_and_double_nothing(program, plain, folder, tmp_path):
    """Shares of two workers, killed with SIGKILL at any moment and started again, then one of another division."""
    whole, cache = program
    chance = random.Random(0)
    for kill in range(KILLS):
        wanted = parts_in(tmp_path) + chance.randint(1, 3)
        process = start(cache, plain, folder, tmp_path, "--part_files=2", f"--shard={1 + kill % 2}/2")
        while process.poll() is None and parts_in(tmp_path) < wanted:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.02))
        process.kill()
        process.communicate()
        assert all(pq.read_metadata(path).num_rows <= 2 for path in tmp_path.glob("parts/*.parquet"))
        assert 0 < parts_in(tmp_path) < 11
    process = start(cache, plain, folder, tmp_path, "--part_files=2")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert contents(tmp_path) == contents(whole)


def test_sigterm_leaves_nothing_half_written(program, plain, folder, tmp_path):
    """The scheduler's number for the share is used too."""
    whole, cache = program
    array = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "1", "SLURM_ARRAY_TASK_MIN": "1"}
    process = start(cache, plain, folder, tmp_path, "--part_files=2", environment=array)
    while process.poll() is None and parts_in(tmp_path) < 2:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert "shard 1/1 (SLURM array)" in err
    if process.returncode != 0:  # it may have ended just before
        assert process.returncode == 75 and "stopped by SIGTERM: run the same command again to go on" in err
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
    assert run(plain, folder, tmp_path, "--part_files=2") == 0
    assert contents(tmp_path).keys() == contents(whole).keys()


def test_only_unusable_recordings_are_a_fault_of_the_input(plain, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(b"")
    assert run(plain, tmp_path / "in", tmp_path / "out") == 2
    assert "error: none of 1 recording can be used: see" in capsys.readouterr().err


def test_another_evaluation_in_the_same_folder_is_refused(vectors, tuned, plain, folder, capsys):
    before = contents(vectors)
    for more, sentence in (
        ([plain, folder, vectors], "an evaluation whose layers is [0, 1, 2], and this one's is [2]"),
        ([plain, folder, vectors, "--layers=all", "--pool=max"], "whose pool is mean, and this one's is max"),
        (
            [plain, folder / "cry", vectors, "--layers=all"],
            "an evaluation of 22 recordings, and --input lists 8: give another --output",
        ),
        ([tuned, folder, vectors, "--predict"], "whose kind is embeddings, and this one's is probabilities"),
        ([tuned, folder, vectors, "--layers=all"], "whose weights is "),
    ):
        assert run(*more) == 2
        assert sentence in capsys.readouterr().err
    assert contents(vectors) == before


def test_wrong_requests_are_refused_in_a_sentence(plain, tuned, folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    out = tmp_path / "out"
    for given, sentence in (
        ((plain, tmp_path / "none", out), "none is neither a folder nor a file"),
        ((plain, tmp_path, out), "holds no audio file"),
        ((plain, "synthetic", out, f"--data_dir={tmp_path}"), "set synthetic is not prepared in"),
        ((plain, folder, tmp_path / "file"), "file is no folder: give one"),
        ((plain, folder, "/proc/none"), "--output=/proc/none cannot be written"),
        ((plain, folder, out, "--shard=3/2"), "--shard=3/2 is not i/n"),
        ((plain, folder, out, "--layers=3"), "layer 3 is not there: this model has layers 0 to 2"),
        ((plain, folder, out, "--layers=last"), "--layers=last is neither numbers"),
        ((plain, folder, out, "--layers=2,-1"), "names layer 2 twice"),
        ((plain, folder, out, "--predict"), "no trained classification head"),
        ((plain, folder, out, "--timeline"), "no trained classification head"),
        ((tuned, folder, out, "--predict", "--store_dtype=float16"), "--store_dtype=float16 is for vectors"),
        ((tuned, folder, out, "--predict", "--pool=max"), "--pool=max is for vectors, not for class probabilities"),
        ((tuned, folder, out, "--timeline", "--layers=all"), "--layers=all is for vectors"),
        ((tuned, folder, out, "--predict", "--timeline"), "--predict and --timeline exclude each other"),
        ((tuned, folder, out, "--hop_seconds=1"), "--hop_seconds=1.0 is for sliding windows: add --timeline"),
        ((tuned, folder, out, "--timeline", "--hop_seconds=9"), "is more than --window_seconds=1.5"),
        ((plain, folder, out, "--window_seconds=-1"), "--window_seconds=-1.0: give a positive number"),
        ((plain, folder, out, "--window_seconds=0.01"), "do not fit"),
        ((plain, folder, out, "--threads=0"), "--threads=0: give 1 or more"),
        ((plain, folder, out, "--pool=median"), "--pool=median is none of mean, max, first, none"),
        ((tmp_path / "none", folder, out), "none does not exist"),
    ):
        assert run(*given) == 2, given
        said = capsys.readouterr().err
        assert sentence in said and said.count("error: ") == 1, said
    assert not list(tmp_path.rglob("*.parquet"))
