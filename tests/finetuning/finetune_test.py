"""Cross-validation from the command line: whole runs, kills at any moment, grids, probes, and wrong input."""

import csv
import dataclasses
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
import pytest
import soundfile
from sklearn import metrics as sklearn_metrics

import voc2vec_jax as v2v
from voc2vec_jax import datasets, errors, finetune, models
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.convert import reader, writer
from voc2vec_jax.finetuning import capacity, cross_validation, epoch_runner, jobs, settings
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.runs import configuration, program

ROOT = pathlib.Path(__file__).parents[2]
KILLS = int(os.environ.get("VOC2VEC_KILLS", "2"))
SHORT = ("--config.folds=3", "--config.epochs=3", "--config.warmup_steps=4", "--config.peak_lr=3e-3")
SHORT += ("--config.max_seconds=0.5", "--config.batch_clips=8", "--config.save_models=all")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    datasets.prepare("synthetic", data_dir=folder, clips=48, progress=False)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A source of random weights, dropout and LayerDrop on."""
    encoder = encoders.EncoderConfig(
        conv_channels=(8, 8, 8), conv_kernels=(40, 8, 4), conv_strides=(20, 4, 4), width=16, depth=2, heads=2,
        inner_width=32, positional_kernel=4, positional_groups=2, layerdrop=0.2,
    )  # fmt: skip
    config = models.FAMILIES["wav2vec2"].Config(encoder=encoder)
    rng = np.random.default_rng(0)
    flat = {}
    for entry in convert_names.table("wav2vec2", config):
        if entry.ours.startswith("encoder/"):
            ones = entry.ours.endswith(("/scale", "/g"))
            flat[entry.ours] = ones + 0.1 * rng.standard_normal(entry.full_shape, dtype=np.float32)
    folder = tmp_path_factory.mktemp("models") / "source"
    writer.write_jax(folder, reader.ModelWeights("wav2vec2", config, convert_names.unflatten(flat)))
    return folder


def arguments(dataset, model, data_dir, workdir, *more):
    source = [f"--config.model={model}"] if model else []
    fixed = [
        f"--config=configs/finetune.py:{dataset}",
        *source,
        f"--config.data_dir={data_dir}",
        f"--workdir={workdir}",
    ]
    return [*fixed, *SHORT, *more]


def run(*given):
    """In this process; the status."""
    return program.run(finetune.main, arguments(*given))


def start(cache, *given):
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = hosts.XLA
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-m", "voc2vec_jax.finetune", *arguments(*given)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def whole(cache, model, data_dir, tmp_path_factory):
    """The uninterrupted run."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    process = start(cache, "synthetic", model, data_dir, workdir)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return workdir


def summary_of(workdir):
    return json.loads((workdir / "summary.json").read_text())


def predictions_of(workdir):
    return list(csv.DictReader((workdir / "predictions.csv").read_text().splitlines()))


def test_a_run_tests_every_clip_once_and_never_trains_on_it(whole):
    found = summary_of(whole)
    assert found["complete"] and found["protocol"] == "strict" and len(found["folds"]) == 3
    tested = [name for fold in found["folds"] for name in fold["test"]]
    assert len(tested) == len(set(tested)) == found["clips"] == 48
    for fold in found["folds"]:
        parts = [set(fold[name]) for name in ("train", "validation", "test")]
        assert sum(map(len, parts)) == 48 and len(set.union(*parts)) == 48
        assert all(parts)


def test_its_scores_are_scikit_learns_on_its_predictions(whole):
    found = summary_of(whole)
    rows = predictions_of(whole)
    assert len(rows) == 48
    for fold in found["folds"]:
        own = [row for row in rows if row["fold"] == str(fold["fold"])]
        assert [row["id"] for row in own] == fold["test"]
        true, predicted = [row["label"] for row in own], [row["predicted"] for row in own]
        scored = dict(average="macro", zero_division=0, labels=sorted(set(true)))  # protocol strict
        assert fold["uar"] == pytest.approx(sklearn_metrics.recall_score(true, predicted, **scored))
        assert fold["f1_macro"] == pytest.approx(sklearn_metrics.f1_score(true, predicted, **scored))
        assert fold["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(true, predicted))
        for row in own:
            shares = np.array([float(row[f"p:{label}"]) for label in found["labels"]])
            assert shares.sum() == pytest.approx(1, abs=1e-5)
            assert found["labels"][shares.argmax()] == row["predicted"]
    true, predicted = [row["label"] for row in rows], [row["predicted"] for row in rows]
    assert found["pooled"]["uar"]["value"] == pytest.approx(
        sklearn_metrics.recall_score(true, predicted, average="macro")
    )
    assert found["pooled"]["uar"]["low"] <= found["pooled"]["uar"]["value"] <= found["pooled"]["uar"]["high"]
    assert (found["asked_folds"], found["fewer_folds"], found["averaged_classes"]) == (3, "", "tested")
    for name in ("uar", "accuracy", "f1_macro"):
        values = [fold[name] for fold in found["folds"]]
        assert found["mean"][name] == pytest.approx(np.mean(values))
        assert found["std"][name] == pytest.approx(np.std(values))


def test_its_models_predict_what_it_predicted(whole, data_dir):
    """A fold's model through the front door, the prepared audio in."""
    rows = [row for row in predictions_of(whole) if row["fold"] == "1"]
    model = v2v.from_pretrained(whole / "fold_01" / "model")
    prepared = datasets.records.open_set(data_dir, "synthetic")
    place = {str(name): row for row, name in enumerate(prepared.recordings[prepared.recording])}
    clips = [clip[:8000] for clip in prepared.read([place[row["id"]] for row in rows])]
    found = model.predict(clips)
    assert list(found.labels) == [row["predicted"] for row in rows]
    shares = [[float(row[f"p:{label}"]) for label in found.classes] for row in rows]
    np.testing.assert_allclose(found.probabilities, shares, atol=1e-4)
    stored = np.load(whole / "fold_01" / "embeddings.npz")
    np.testing.assert_allclose(model.embed(clips), stored["vectors"], atol=1e-4)
    assert stored["ids"].tolist() == [row["id"] for row in rows]


def test_its_metrics_tell_every_epoch_once(whole):
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    keys = [(row["fold"], row["epoch"], row["split"]) for row in rows]
    assert len(keys) == len(set(keys))
    for fold in summary_of(whole)["folds"]:
        own = [row for row in rows if row["fold"] == fold["fold"]]
        assert len(own) == 2 * fold["epochs"]
        validation = {row["epoch"]: row["f1_macro"] for row in own if row["split"] == "validation"}
        assert max(validation.values()) == validation[fold["best_epoch"]]


@pytest.mark.slow
def test_sigkill_at_any_moment_changes_nothing(cache, model, data_dir, whole, tmp_path):
    workdir = tmp_path / "killed"
    chance = random.Random(time.time_ns())
    wait = 4.0
    for _ in range(KILLS):
        process = start(cache, "synthetic", model, data_dir, workdir)
        time.sleep(chance.uniform(0.5, wait))
        process.kill()
        process.communicate()
        wait = 12.0
    process = start(cache, "synthetic", model, data_dir, workdir)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert summary_of(workdir) == summary_of(whole)
    assert (workdir / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    assert (workdir / "predictions.csv").read_text() == (whole / "predictions.csv").read_text()


@pytest.mark.slow
def test_sigterm_saves_and_the_rerun_goes_on(cache, model, data_dir, whole, tmp_path):
    workdir = tmp_path / "stopped"
    process = start(cache, "synthetic", model, data_dir, workdir)
    while not (workdir / "metrics.jsonl").exists():  # the first epoch is over
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert process.returncode == errors.EXIT_STOPPED, err
    assert "everything is saved" in err
    assert any((workdir / "checkpoints").glob("*/manifest.json"))
    (saved,) = (workdir / "checkpoints").glob("*/metadata.json")
    metadata = json.loads(saved.read_text())  # what every later version must be able to resume from
    assert list(metadata) == ["task", "slots", "progress", "chunk", "call_steps", "losses"]
    fields = ["fold", "epoch", "best_epoch", "best_score", "history", "slot"]
    assert all(list(entry) == fields for entry in metadata["progress"])
    process = start(cache, "synthetic", model, data_dir, workdir)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "resuming" in err
    assert summary_of(workdir) == summary_of(whole)


def test_a_signal_while_jobs_are_planned_is_not_lost(model, data_dir, tmp_path, monkeypatch):
    def plan(config, workdir):
        os.kill(os.getpid(), signal.SIGTERM)
        yield jobs.CrossValidationJob("synthetic", "a job", "source", "finetune", None, workdir, config)

    begun = []
    monkeypatch.setattr(jobs, "plan_jobs", plan)
    monkeypatch.setattr(cross_validation, "run", lambda job, stop: begun.append((job.title, stop.requested)))
    assert run("synthetic", model, data_dir, tmp_path) == 75
    assert begun == [("a job", "SIGTERM")]


def test_a_finished_run_is_left_alone_and_another_configuration_refused(whole, model, data_dir, capsys):
    before = (whole / "summary.json").stat().st_mtime_ns
    assert run("synthetic", model, data_dir, whole) == 0
    assert "is complete" in capsys.readouterr().err
    assert run("synthetic", model, data_dir, whole, "--config.epochs=4") == 2
    assert "epochs was 3, now 4" in capsys.readouterr().err
    assert (whole / "summary.json").stat().st_mtime_ns == before


def test_an_incomplete_summary_says_so(whole, tmp_path):
    from voc2vec_jax.finetuning import results, tasks

    part = tmp_path / "part"
    shutil.copytree(whole, part)
    (part / "fold_02" / "fold.json").unlink()
    data = json.loads((whole / "config.json").read_text())["data_dir"]
    task = tasks.open_task("synthetic", data_dir=data, max_seconds=0.5, least_samples=440)
    about = dict.fromkeys(("system", "model", "protocol", "stopping", "fewer_folds"), "")
    about["averaged_classes"] = "tested"
    results.write_summary(part, task, 3, about)
    found = summary_of(part)
    assert not found["complete"] and len(found["folds"]) == 2 and found["planned_folds"] == 3
    assert "Incomplete: 2 of 3 folds" in (part / "summary.md").read_text()


def features_of(data_dir, path):
    """Features of the user's own that give the class away, but for noise."""
    prepared = datasets.records.open_set(data_dir, "synthetic")
    rng = np.random.default_rng(0)
    vectors = (
        1e4 + 50 * np.eye(len(prepared.labels))[prepared.label] + 4 * rng.standard_normal((48, len(prepared.labels)))
    )
    np.savez(path, ids=prepared.recordings[prepared.recording], vectors=vectors.astype(np.float32))
    return path


def test_features_of_the_users_own_are_learned(data_dir, tmp_path):
    path = features_of(data_dir, tmp_path / "own.npz")
    more = (f"--config.features={path}", "--config.epochs=15", "--config.peak_lr=1e-2", "--config.leaks=false")
    assert run("synthetic", "opensmile", data_dir, tmp_path / "run", *more) == 0
    found = summary_of(tmp_path / "run")
    assert found["system"] == "opensmile" and found["mean"]["uar"] > 0.9
    assert run("synthetic", "opensmile", data_dir, tmp_path / "raw", *more, "--config.scale=none") == 0
    assert summary_of(tmp_path / "raw")["mean"]["uar"] < found["mean"]["uar"]


@pytest.mark.slow
def test_a_signal_in_the_middle_of_an_epoch_loses_nothing(data_dir, tmp_path, monkeypatch):
    path = features_of(data_dir, tmp_path / "own.npz")
    more = (f"--config.features={path}", "--config.batch_clips=1", "--config.leaks=false", "--config.folds_at_once=2")
    assert run("synthetic", "opensmile", data_dir, tmp_path / "whole", *more) == 0
    train = epoch_runner.EpochRunner.train
    positions = []

    def interrupted(self, *given):
        for position in train(self, *given):
            positions.append(position)
            if len(positions) in (2, 8):  # in the first epoch, and in a later one that began with a whole epoch
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.05)
            yield position

    monkeypatch.setattr(epoch_runner.EpochRunner, "train", interrupted)
    statuses = [run("synthetic", "opensmile", data_dir, tmp_path / "stopped", *more) for _ in range(3)]
    assert statuses == [75, 75, 0]
    assert not positions[1].over and not positions[7].over
    for name in ("summary.json", "metrics.jsonl", "predictions.csv"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_memory_of_an_accelerator_is_planned_with_the_compiled_step(data_dir, tmp_path, monkeypatch):
    chosen, seen = capacity.choose_slots, []

    def planned(setting, abstract, pending):
        state, device = capacity.tree_bytes(abstract), jax.local_devices()[0]
        seen.append(capacity.fitting_beside_data(setting, abstract, device, 10**9))
        seen.append(capacity.fitting_beside_data(setting, abstract, device, 3 * state))
        return chosen(setting, abstract, pending)

    monkeypatch.setattr(capacity, "choose_slots", planned)
    path = features_of(data_dir, tmp_path / "own.npz")
    more = (f"--config.features={path}", "--config.epochs=1", "--config.leaks=false")
    assert run("synthetic", "opensmile", data_dir, tmp_path / "run", *more) == 0
    assert seen[0] > 100 and seen[1] == 1


def test_a_grid_has_a_folder_for_each_and_a_probe_one_for_each_layer(model, data_dir, tmp_path, capsys):
    more = ("--config.how=probe", f"--config.systems={model},{model}/", "--config.leaks=false", "--config.layers=0,2")
    given = arguments("synthetic", None, data_dir, tmp_path / "grid", *more)
    assert program.run(finetune.main, given) == 2
    assert "same name" in capsys.readouterr().err
    more = ("--config.how=probe", "--config.leaks=false", "--config.layers=0,2", "--config.peak_lr=0.1")
    assert run("synthetic", model, data_dir, tmp_path / "probe", *more) == 0
    names = [summary_of(tmp_path / "probe" / f"layer_{layer:02d}")["system"] for layer in (0, 2)]
    assert names == ["source-layer-00", "source-layer-02"]
    first, last = (np.load(tmp_path / "probe" / f"layer_{k:02d}" / "fold_00" / "embeddings.npz") for k in (0, 2))
    assert first["vectors"].shape == (len(first["ids"]), 16) and not np.allclose(first["vectors"], last["vectors"])


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder of class folders: 9 clips of each of two classes, told apart by pitch; one is no audio."""
    folder = tmp_path_factory.mktemp("clips") / "sounds"
    for label, pitch in (("high", 900), ('löw & "q"', 200)):
        (folder / label).mkdir(parents=True)
        for number in range(9):
            t = np.arange(6000 + 400 * number) / 16_000
            sound = 0.3 * np.sin(2 * np.pi * (pitch + 10 * number) * t)
            soundfile.write(folder / label / f"clip {number}.wav", sound, 16_000)
    return folder


@pytest.mark.slow
def test_a_folder_of_class_folders_works_in_place_of_a_set(clips, model, tmp_path):
    more = (f"--config.data={clips}", "--config.protocol=paper", "--config.epochs=2")
    assert run("folder", model, tmp_path / "data", tmp_path / "run", *more) == 0
    found = summary_of(tmp_path / "run")
    assert found["labels"] == ["high", 'löw & "q"'] and found["protocol"] == "paper"
    assert all(fold["validation"] == fold["test"] for fold in found["folds"])
    assert pathlib.Path(found["audio_root"]) == clips.resolve()
    rows = predictions_of(tmp_path / "run")
    assert all((clips / row["path"]).is_file() for row in rows)


WRONG = {
    "unknown set": (("synthetik",), "did you mean synthetic"),
    "unknown system": (("synthetic", "--config.model=wav2vec-ls"), "did you mean wav2vec2-ls"),
    "no model": (("synthetic", "--config.model="), "no model to fine-tune"),
    "both": (("synthetic", "--config.systems=voc2vec"), "both set"),
    "field": (("synthetic", "--config.epoch=3"), "did you mean --config.epochs"),
    "value": (("synthetic", "--config.protocol=official"), "none of paper, strict"),
    "folds": (("synthetic", "--config.folds=1"), "2 or more"),
    "seeds": (("synthetic", "--config.seeds=1,1"), "names 1 twice"),
    "no seeds": (("synthetic", "--config.seeds=1,x"), "--config.seeds=x is not an int"),
    "no data": (("folder",), "--config.data=PATH"),
    "data for a set": (("synthetic", "--config.data=x"), "folder"),
    "layer": (("synthetic", "--config.how=probe", "--config.layers=0,3"), "layers 0 to 2"),
    "too short": (("synthetic", "--config.max_seconds=0.01"), "shorter than one frame"),
    "name": (("synthetic", "--config.name=../x"), "must be letters"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_sentence(case, model, data_dir, tmp_path, capsys):
    (dataset, *more), expected = WRONG[case]
    assert run(dataset, model, data_dir, tmp_path / "run", *more) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(err) == 1 and expected in err[0]


def test_bad_clips_are_named_or_left_out_but_never_replaced(clips, model, tmp_path, capsys):
    own = tmp_path / "own"
    shutil.copytree(clips, own)
    (own / "high" / "broken.wav").write_bytes(b"RIFF none")
    soundfile.write(own / "high" / "short.wav", np.zeros(100), 16_000)
    given = ("folder", model, tmp_path / "data", tmp_path / "run", f"--config.data={own}")
    assert run(*given) == 2
    err = capsys.readouterr().err
    assert "broken.wav" in err and "short.wav" in err and "on_unreadable=drop" in err
    assert run(*given, "--config.on_unreadable=drop", "--config.folds=2", "--config.epochs=1") == 0
    assert summary_of(tmp_path / "run")["clips"] == 18
    assert "broken.wav" in capsys.readouterr().err


def test_rare_and_single_classes_are_refused(clips, model, tmp_path, capsys):
    own = tmp_path / "own"
    shutil.copytree(clips, own)
    for number in range(2, 9):
        (own / "high" / f"clip {number}.wav").unlink()
    given = ("folder", model, tmp_path / "data", tmp_path / "run", f"--config.data={own}")
    assert run(*given) == 2
    assert "high" in capsys.readouterr().err
    manifest = tmp_path / "one.csv"
    manifest.write_text("path,label\n" + "".join(f"{path},same\n" for path in sorted(own.rglob("*.wav"))))
    given = ("folder", model, tmp_path / "data", tmp_path / "run", f"--config.data={manifest}")
    assert run(*given) == 2
    assert "of one class (same)" in capsys.readouterr().err


def test_masks_are_the_checkpoints_unless_the_configuration_says_otherwise():
    config = configuration.load(f"{ROOT}/configs/finetune.py:synthetic")
    plain = reader.ModelWeights("wav2vec2", None, {})
    said = {"mask_time_prob": 0.2, "mask_time_length": 5, "mask_time_min_masks": 0}
    own = dataclasses.replace(plain, raw_config=said)
    off = dataclasses.replace(plain, raw_config={**said, "apply_spec_augment": False})
    found = [dataclasses.astuple(settings.augmentation(config, source)) for source in (plain, own, off)]
    assert found == [(0.05, 10, 2, True), (0.2, 5, 0, True), (0.0, 5, 0, True)]
    config.mask_share, config.min_masks, config.protocol = 0.0, 1, "paper"
    assert dataclasses.astuple(settings.augmentation(config, own)) == (0.0, 5, 1, False)
    config.masks = "scaled"
    assert settings.augmentation(config, own).scaled


def test_a_loss_that_is_not_finite_fails_the_run(model, data_dir, tmp_path, capsys):
    more = ("--config.peak_lr=1e30", "--config.warmup_steps=0", "--config.leaks=false")
    assert run("synthetic", model, data_dir, tmp_path / "run", *more) == 1
    assert "not finite" in capsys.readouterr().err
    assert not (tmp_path / "run" / "summary.json").exists()
