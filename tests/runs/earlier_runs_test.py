"""Run folders of version 0.1.0, written when all modules lay in one folder, go on as if nothing had moved.

`golden/earlier_runs/runs.tar.xz` holds a pre-training stopped at step 13 of 24 and a cross-validation with one fold of
three done and one in progress, both without what each process writes anew, and what the uninterrupted runs reported.
The same machine and devices reach the same bits; another one agrees to rounding, which is what is asked here.
"""

import csv
import json
import os
import pathlib
import subprocess
import sys
import tarfile

import hosts
import numpy as np
import pytest
import training_runs

import voc2vec_jax as v2v
from voc2vec_jax import datasets

ROOT = pathlib.Path(__file__).parents[2]
ARCHIVE = ROOT / "tests" / "golden" / "earlier_runs" / "runs.tar.xz"
FOLDS = ("--config.folds=3", "--config.epochs=3", "--config.warmup_steps=4", "--config.peak_lr=3e-3")
FOLDS += ("--config.max_seconds=0.5", "--config.batch_clips=8", "--config.folds_at_once=1")


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    (folder / "runs").mkdir()
    (folder / "source").rename(folder / "runs" / "source")  # as the run's configuration names it
    datasets.prepare("synthetic", data_dir=folder / "data", clips=60, progress=False)
    return folder


def rows_of(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {(row["step"], row.get("split")): row for row in rows}


def predictions(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def probabilities(rows):
    return [[float(value) for name, value in row.items() if name.startswith("p:")] for row in rows]


@pytest.mark.slow
def test_pretraining_goes_on_where_it_stopped(earlier):
    run, before = earlier / "pretraining", (earlier / "pretraining" / "metrics.jsonl").read_text()
    status, _, said = training_runs.finish(training_runs.train(earlier / "cache", earlier / "data", run))
    assert status == 0, said
    assert f"resuming {run} from step 13" in said
    assert (run / "metrics.jsonl").read_text().startswith(before)
    found, wanted = rows_of(run / "metrics.jsonl"), rows_of(earlier / "pretraining_whole.jsonl")
    assert found.keys() == wanted.keys()
    for key, row in wanted.items():
        assert found[key]["loss"] == pytest.approx(row["loss"], rel=1e-3), key


@pytest.mark.slow
def test_folds_go_on_and_a_finished_one_is_left_alone(earlier):
    run, done = earlier / "folds", (earlier / "folds" / "fold_00" / "fold.json").read_bytes()
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": hosts.XLA, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "voc2vec_jax.finetune", f"--config={ROOT / 'configs' / 'finetune.py'}:synthetic"]
    command += ["--config.model=runs/source", "--config.data_dir=data", "--workdir=folds", *FOLDS]
    ended = subprocess.run(command, cwd=earlier, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "resuming folds: 1 folds done, 1 in progress" in ended.stderr
    assert (run / "fold_00" / "fold.json").read_bytes() == done
    found, wanted = predictions(run / "predictions.csv"), predictions(earlier / "folds_whole.csv")
    assert [row["id"] for row in found] == [row["id"] for row in wanted]
    np.testing.assert_allclose(probabilities(found), probabilities(wanted), atol=2e-3)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["averaged_classes"] == "occurring"  # as it began
    assert summary["pooled"]["uar"]["value"] > 0 and summary["pooled"]["uar"]["low"] is None  # fold 0 lacks logits


def test_a_fold_written_before_is_loaded_and_predicts_what_it_did(earlier):
    rows = [row for row in predictions(earlier / "folds_whole.csv") if row["fold"] == "0"]
    prepared = datasets.records.open_set(earlier / "data", "synthetic")
    place = {str(name): row for row, name in enumerate(prepared.recordings[prepared.recording])}
    clips = [clip[:8000] for clip in prepared.read([place[row["id"]] for row in rows])]
    found = v2v.from_pretrained(earlier / "folds" / "fold_00" / "model").predict(clips)
    np.testing.assert_allclose(found.probabilities, probabilities(rows), atol=1e-4)
