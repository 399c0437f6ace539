"""What a run says of its stopping and its masks, and what it keeps, from the command line."""

import csv
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import time
import types

import jax
import numpy as np
import pytest
import safetensors.numpy
import tiny_learners

import voc2vec_jax as v2v
from voc2vec_jax import datasets, errors, finetune, models
from voc2vec_jax.convert import reader, writer
from voc2vec_jax.finetuning import epoch_runner, kept_models, learners, preview, results
from voc2vec_jax.models import heads
from voc2vec_jax.runs import program

SHORT = ("--config=configs/finetune.py:synthetic", "--config.folds=3", "--config.max_seconds=0.5")
SHORT += ("--config.batch_clips=8", "--config.leaks=false")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A prepared set, and features of it that give the class away."""
    folder = tmp_path_factory.mktemp("data")
    datasets.prepare("synthetic", data_dir=folder, clips=48, progress=False)
    prepared = datasets.records.open_set(folder, "synthetic")
    noise = np.random.default_rng(0).standard_normal((48, len(prepared.labels)))
    vectors = (50 * np.eye(len(prepared.labels))[prepared.label] + 4 * noise).astype(np.float32)
    np.savez(folder / "own.npz", ids=prepared.recordings[prepared.recording], vectors=vectors)
    return folder


def run(data, workdir, *more):
    return program.run(finetune.main, [*SHORT, f"--config.data_dir={data}", f"--workdir={workdir}", *more])


def learn_features(data, workdir, *more):
    return run(data, workdir, "--config.model=opensmile", f"--config.features={data / 'own.npz'}", *more)


def summary_of(workdir: pathlib.Path):
    return json.loads((workdir / "summary.json").read_text())


def test_a_best_epoch_in_the_warmup_is_told_in_one_sentence(data, tmp_path, capsys):
    more = ("--config.epochs=8", "--config.patience=2", "--config.peak_lr=1e-2")
    assert learn_features(data, tmp_path / "run", *more, "--config.stopping=published") == 0
    found = summary_of(tmp_path / "run")
    assert all(fold["best_in_warmup"] for fold in found["folds"])
    (warning,) = found["warnings"]
    assert warning.startswith("3 of 3 folds (fold 0, 1, 2) have their best epoch in the warm-up")
    assert warning.endswith("set --config.stopping=after_warmup") and capsys.readouterr().err.count(warning) == 1
    assert "stopping" not in results._warnings(found["folds"], "after_warmup")[0]  # what is set is no advice
    unused = ("--config.freeze=stem", "--config.pooling=attention", "--config.mixup=0.2")
    assert learn_features(data, tmp_path / "waits", *more, "--config.warmup_steps=2", *unused) == 0
    assert "where these fields change nothing: mixup, freeze, pooling\n" in capsys.readouterr().err
    found = summary_of(tmp_path / "waits")
    assert found["warnings"] == [] and not any(fold["best_in_warmup"] for fold in found["folds"])


def test_a_run_says_what_its_masks_hide():
    samples = np.array([1600, 12480, 12480, 112_000])
    learner = learners.Finetuner(
        "wav2vec2",
        models.FAMILIES["wav2vec2"].Config(),
        heads.Config(),
        ((4, 112_000),),
        True,
        augment=learners.SpecAugment(),
    )
    assert preview.masks(learner, samples) == (
        "SpecAugment hides 45.2% of the frames of a clip of median length (0.78 s), 24.0% on average and at most 45.2% "
        "(0.78 s)"
    )
    scaled = dataclasses.replace(learner, augment=learners.SpecAugment(scaled=True))
    assert preview.masks(scaled, samples) == (
        "SpecAugment hides 5.0% of the frames of a clip of median length (0.78 s), 5.0% on average and at most 5.0% "
        "(0.10 s)"
    )
    padded = dataclasses.replace(learner, attend_padding=True)
    assert preview.masks(padded, samples) == (
        "SpecAugment hides 5.7% of the frames of a clip, all being padded to 7.00 s"
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A pre-trained model of random weights."""
    learner = tiny_learners.tiny_learner(((4, 2400),))
    params = jax.jit(learner.init)(jax.random.key(3))
    folder = tmp_path_factory.mktemp("models") / "source"
    encoder = jax.tree.map(np.asarray, params["encoder"])
    writer.write_jax(folder, reader.ModelWeights("wav2vec2", learner.config, {"encoder": encoder}))
    return folder


def models_of(workdir):
    return sorted(path.parent.name for path in workdir.glob("fold_*/model*"))


@pytest.mark.slow
def test_the_best_folds_model_stays_or_every_one_or_none(data, tmp_path, capsys):
    more = ("--config.epochs=4", "--config.peak_lr=1e-2")
    assert learn_features(data, tmp_path / "best", *more) == 0
    assert "models take up to" in capsys.readouterr().err
    folds = summary_of(tmp_path / "best")["folds"]
    best = max(folds, key=lambda fold: (fold["best_score"], -fold["fold"]))["fold"]
    assert models_of(tmp_path / "best") == [f"fold_{best:02d}"]
    assert learn_features(data, tmp_path / "all", *more, "--config.save_models=true") == 0
    assert models_of(tmp_path / "all") == ["fold_00", "fold_01", "fold_02"]
    assert learn_features(data, tmp_path / "none", *more, "--config.save_models=none") == 0
    assert models_of(tmp_path / "none") == []
    # A run that was begun to keep all models loses none under the default.
    (tmp_path / "all" / "summary.json").unlink()
    (tmp_path / "all" / "fold_01" / "fold.json").unlink()
    assert learn_features(data, tmp_path / "all", *more) == 0
    assert models_of(tmp_path / "all") == ["fold_00", "fold_01", "fold_02"]


def test_a_full_disk_is_told_before_the_run_begins(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(kept_models.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1000))
    assert learn_features(data, tmp_path / "run", "--config.save_models=all") == 2
    said = capsys.readouterr().err
    assert "has 1000 bytes free, but models take up to" in said and "--config.save_models=best" in said
    assert not list((tmp_path / "run").glob("checkpoints/*"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("--config.save_models=first", "none of auto, best, all, lora, none"),
        ("--config.save_models=lora", "set --config.lora_rank=8"),
    ],
)
def test_a_mode_that_cannot_be_is_refused(data, tmp_path, capsys, given, says):
    assert learn_features(data, tmp_path / "run", given) == 2
    assert says in capsys.readouterr().err


LORA = (
    "--config.lora_rank=2",
    "--config.freeze_updates=2",
    "--config.folds=2",
    "--config.epochs=2",
    "--config.peak_lr=3e-2",
    "--config.dropouts=false",
)


@pytest.fixture(scope="module")
def adapted(data, source, tmp_path_factory):
    """A run with adapters, which are all that it keeps of its models."""
    workdir = tmp_path_factory.mktemp("runs") / "lora"
    assert run(data, workdir, f"--config.model={source}", *LORA) == 0
    return workdir


def test_adapters_are_kept_beside_their_source_and_predict_what_the_fold_did(adapted, data, tmp_path):
    assert models_of(adapted) == ["fold_00", "fold_01"]
    place = adapted / "fold_01" / "model"
    assert {path.name for path in place.iterdir()} == {"config.json", "model.safetensors"}
    rows = [row for row in csv.DictReader((adapted / "predictions.csv").read_text().splitlines()) if row["fold"] == "1"]
    prepared = datasets.records.open_set(data, "synthetic")
    at = {str(name): row for row, name in enumerate(prepared.recordings[prepared.recording])}
    clips = [clip[:8000] for clip in prepared.read([at[row["id"]] for row in rows])]
    wanted = [[float(value) for name, value in row.items() if name.startswith("p:")] for row in rows]
    model = v2v.from_pretrained(place)
    np.testing.assert_allclose(model.predict(clips).probabilities, wanted, atol=1e-4)
    model.save_pretrained(tmp_path / "merged", format="jax")
    merged = v2v.from_pretrained(tmp_path / "merged")
    np.testing.assert_allclose(merged.predict(clips).probabilities, wanted, atol=1e-4)


def test_adapters_without_their_source_or_beside_another_are_refused(adapted, source, tmp_path):
    place = tmp_path / "adapters"
    shutil.copytree(adapted / "fold_00" / "model", place)
    said = json.loads((place / "config.json").read_text())
    assert said["source"] == str(source)
    other = tmp_path / "other"
    shutil.copytree(source, other)
    weights = safetensors.numpy.load_file(other / "model.safetensors")
    weights["encoder.norm.bias"] = weights["encoder.norm.bias"] + 1e-3
    safetensors.numpy.save_file(weights, other / "model.safetensors")
    for changed, says in (
        ({"source": str(other)}, "holds adapters for another model than the one at"),
        ({"source": str(tmp_path / "gone")}, "gone, which cannot be read .* does not exist"),
        (
            {"lora": {"rank": 2, "alpha": 16, "targets": ["key"]}},
            "holds other adapters than .*config.json describes: lora.key.a is absent",
        ),
        ({"lora": None}, "targets is None, but adapters are of query"),
    ):
        (place / "config.json").write_text(json.dumps({**said, **changed}))
        with pytest.raises(errors.InputError, match=says):
            v2v.from_pretrained(place)


@pytest.mark.slow
def test_a_run_with_adapters_resumes_to_the_same_bits(adapted, data, source, tmp_path, monkeypatch):
    validate = epoch_runner.EpochRunner.validate

    def stopped(self, *given):
        os.kill(os.getpid(), signal.SIGTERM)
        return validate(self, *given)

    more = (f"--config.model={source}", *LORA)
    with monkeypatch.context() as patch:
        patch.setattr(epoch_runner.EpochRunner, "validate", stopped)
        assert run(data, tmp_path / "run", *more) == errors.EXIT_STOPPED
    assert run(data, tmp_path / "run", *more) == 0
    for name in ("predictions.csv", "metrics.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (adapted / name).read_bytes(), name


def test_a_run_folder_names_its_one_model(data, source, tmp_path, capsys):
    more = ("--config.freeze=encoder", "--config.epochs=1", "--config.folds=2")
    assert run(data, tmp_path / "run", f"--config.model={source}", *more) == 0
    assert "each fold trains" in capsys.readouterr().err
    model = v2v.from_pretrained(tmp_path / "run")
    assert len(model.labels) == len(summary_of(tmp_path / "run")["labels"])
    kept = v2v.from_pretrained(source).checkpoint.params["encoder"]
    jax.tree.map(np.testing.assert_array_equal, model.checkpoint.params["encoder"], kept)


@pytest.mark.slow
def test_one_model_is_trained_on_all_clips_after_the_folds(data, tmp_path, capsys, monkeypatch):
    more = ("--config.epochs=6", "--config.peak_lr=1e-4", "--config.batch_clips=1", "--config.final=true")
    assert learn_features(data, tmp_path / "whole", *more) == 0
    summary, found = summary_of(tmp_path / "whole"), final_of(tmp_path / "whole")
    assert found["best_epochs"] == [fold["best_epoch"] for fold in summary["folds"]]
    assert found["epochs"] == int(np.median(found["best_epochs"]) + 0.5)
    assert found["expected"] == {name: summary[name] for name in ("mean", "std", "pooled")}
    assert not list((tmp_path / "whole").rglob("checkpoints"))  # of no use once the run has ended
    network = np.load(tmp_path / "whole" / "final" / "model.npz")
    vectors = np.load(data / "own.npz")["vectors"]
    np.testing.assert_allclose(network["input/shift"], vectors.mean(0), rtol=1e-5)
    x = np.maximum((vectors - network["input/shift"]) * network["input/scale"] @ network["linear_0/kernel"], 0)
    assert x.shape == (48, 256)
    assert "expect what the folds reached: UAR" in capsys.readouterr().err
    # Stopped in its second epoch it goes on from the first, to the same bits; the folds are left alone.
    assert learn_features(data, tmp_path / "halves", *more[:-1]) == 0
    before = (tmp_path / "halves" / "summary.json").stat().st_mtime_ns
    train, calls = epoch_runner.EpochRunner.train, []

    def stopped(self, *given):
        calls.append(1)
        for position in train(self, *given):
            if len(calls) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.05)
            yield position

    with monkeypatch.context() as patch:
        patch.setattr(epoch_runner.EpochRunner, "train", stopped)
        assert learn_features(data, tmp_path / "halves", *more) == errors.EXIT_STOPPED
    assert len(calls) == 2 <= found["epochs"] and not (tmp_path / "halves" / "final" / "final.json").exists()
    assert learn_features(data, tmp_path / "halves", *more) == 0
    assert (tmp_path / "halves" / "summary.json").stat().st_mtime_ns == before
    other = np.load(tmp_path / "halves" / "final" / "model.npz")
    assert all(np.array_equal(network[name], other[name]) for name in network)
    assert learn_features(data, tmp_path / "halves", *more) == 0
    assert "is complete" in capsys.readouterr().err


def final_of(workdir):
    return json.loads((workdir / "final" / "final.json").read_text())
