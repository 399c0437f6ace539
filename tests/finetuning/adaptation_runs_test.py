"""What a run says of its stopping and its masks, and what it keeps, from the command line."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from voc2vec_jax import datasets, finetune, models
from voc2vec_jax.finetuning import learners, preview
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
    assert capsys.readouterr().err.count(warning) == 1
    assert learn_features(data, tmp_path / "waits", *more, "--config.warmup_steps=2") == 0
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
