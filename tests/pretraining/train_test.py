"""The main: a whole run, SIGKILL and SIGTERM at any moment, and every wrong input as a user would give it."""

import json
import os
import pathlib
import random
import signal
import time

import exported_objective
import numpy as np
import pytest
import training_runs

from voc2vec_jax import datasets
from voc2vec_jax import train as training
from voc2vec_jax.runs import checkpoint, program, rows

ROOT = pathlib.Path(__file__).parents[2]
KILLS = int(os.environ.get("VOC2VEC_KILLS", "2"))
# Updates whose loss groups have two lengths: some clips are shorter than a second, most are longer than two
MIXED = ("--config.crop_samples=32_000", "--config.bucket_samples=16_000,32_000", "--config.batch_seconds=16")
MIXED += ("--config.same_length_groups=1", "--config.groups_per_device=1")


def train(cache, data_dir, workdir, *overrides):
    return training_runs.train(cache, data_dir, workdir, *MIXED, *overrides)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    datasets.prepare("synthetic", data_dir=folder, clips=60, progress=False)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def whole(cache, data_dir, tmp_path_factory):
    """The uninterrupted run."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    status, _, err = training_runs.finish(train(cache, data_dir, workdir))
    assert status == 0, err
    return workdir


def test_transformers_computes_the_same_objective_from_a_trained_run(whole, tmp_path):
    exported_objective.assert_same_objective(whole, tmp_path / "hf")


def test_the_run_folder(whole):
    assert {"config.json", "env.json", "metrics.jsonl", "curves.png", "checkpoints", "best"} <= set(os.listdir(whole))
    rows = training_runs.rows_of(whole)
    assert [row["step"] for row in rows if "split" not in row] == list(range(1, training_runs.STEPS + 1))
    valid = [row for row in rows if row.get("split") == "validation"]
    assert [row["step"] for row in valid] == [5, 10, 15, 20, 24]
    fields = (
        "loss contrastive diversity feature_penalty accuracy code_perplexity prob_perplexity temperature lr grad_norm"
    )
    assert set(fields.split()) < set(rows[0])
    assert rows[0]["loss"] == pytest.approx(sum(rows[0][n] for n in ("contrastive", "diversity", "feature_penalty")))
    assert rows[0]["lr"] == 0.0
    timed = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    for row in (row for row in timed if "split" not in row):
        assert row["mfu"] is None and row["memory_bytes"] > 1e7  # no peak is known of CPUs
        assert row["step_seconds"] > 0 and 0 <= row["data_wait_share"] <= 1
    best = min(valid, key=lambda row: row["loss"])["step"]
    assert checkpoint.steps(whole / "best") == [best]
    assert checkpoint.steps(whole / "checkpoints") == [18, 21, 24]
    saved = json.loads((whole / "config.json").read_text())
    assert saved["total_steps"] == training_runs.STEPS


@pytest.mark.slow
def test_sigkill_at_random_moments(whole, cache, data_dir, tmp_path):
    """Killed again and again, some of the time while saving, the run ends with the same bits."""
    draw = random.Random(5)
    workdir = tmp_path / "killed"
    metrics = workdir / "metrics.jsonl"
    for number in range(KILLS):
        process = train(cache, data_dir, workdir)
        wanted = 1 + (number + 1) * (training_runs.STEPS - 4) // (KILLS + 1)
        while process.poll() is None and not (metrics.exists() and len(list(rows.read(metrics))) >= wanted):
            time.sleep(0.002)
        time.sleep(draw.random() * 0.2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0)
    status, _, err = training_runs.finish(train(cache, data_dir, workdir))
    assert status == 0, err
    assert "resuming" in err
    assert training_runs.identical(training_runs.params_of(workdir), training_runs.params_of(whole))
    assert training_runs.rows_of(workdir) == training_runs.rows_of(whole)
    assert checkpoint.steps(workdir / "best") == checkpoint.steps(whole / "best")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves_with_75(number, whole, cache, data_dir, tmp_path):
    workdir = tmp_path / "stopped"
    process = train(cache, data_dir, workdir)
    while not (workdir / "metrics.jsonl").exists() or len(list(rows.read(workdir / "metrics.jsonl"))) < 4:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    status, _, err = training_runs.finish(process)
    assert status == 75, err
    last = list(rows.read(workdir / "metrics.jsonl"))[-1]["step"]
    assert checkpoint.steps(workdir / "checkpoints")[-1] == last
    status, _, err = training_runs.finish(train(cache, data_dir, workdir))
    assert status == 0, err
    assert f"resuming {workdir} from step {last}" in err
    assert training_runs.identical(training_runs.params_of(workdir), training_runs.params_of(whole))
    assert training_runs.rows_of(workdir) == training_runs.rows_of(whole)


@pytest.mark.slow
def test_the_resident_corpus_trains_to_the_same_bits(whole, cache, data_dir, tmp_path):
    status, _, err = training_runs.finish(train(cache, data_dir, tmp_path / "resident", "--config.input=resident"))
    assert status == 0, err
    assert training_runs.identical(training_runs.params_of(tmp_path / "resident"), training_runs.params_of(whole))


def test_a_complete_run_says_so_and_another_configuration_is_refused(whole, cache, data_dir):
    before = (whole / "metrics.jsonl").read_bytes()
    status, _, err = training_runs.finish(train(cache, data_dir, whole))
    assert status == 0
    assert "is complete: 24 steps are done" in err
    status, _, err = training_runs.finish(train(cache, data_dir, whole, "--config.peak_lr=0.5"))
    assert status == 2
    assert "peak_lr was 0.001, now 0.5" in err
    assert (whole / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_flipped_bytes_are_noticed_and_the_checkpoint_before_is_used(whole, cache, data_dir, tmp_path):
    import shutil

    workdir = tmp_path / "flipped"
    shutil.copytree(whole, workdir)
    largest = max((workdir / "checkpoints" / "24").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 255
    content[len(content) // 3] ^= 255
    largest.write_bytes(content)
    status, _, err = training_runs.finish(train(cache, data_dir, workdir))
    assert status == 0, err
    assert "the checkpoint of step 24 is corrupt" in err
    assert "resuming from step 21" in err
    assert training_runs.identical(training_runs.params_of(workdir), training_runs.params_of(whole))
    assert training_runs.rows_of(workdir) == training_runs.rows_of(whole)


WRONG = {
    "missing config": (["--config=configs/voc15.py"], "did you mean configs/voc125.py"),
    "misspelt flag": (["--workdri=x"], "workdir"),
    "misspelt field": (["--config.total_stpes=5"], "total_steps"),
    "wrong type": (["--config.total_steps=many"], "total_steps"),
    "unknown set": (["--config.sets=synthetc"], "synthetic"),
    "bad heads": (["--config.model.encoder.heads=3"], "heads 3 does not divide width 16"),
    "bad family": (["--config.family=wav2vec"], "did you mean wav2vec2"),
    "bad buckets": (["--config.bucket_samples=8000"], "bucket_samples"),
    "bad dtype": (["--config.dtype=float8"], "float8"),
    "no such weights": (["--config.init_from=nowhere/at-all.pt"], "nowhere/at-all.pt"),
    "weights per set": (["--config.set_weights=1,2"], "set_weights has 2 entries for 1 sets"),
    "a rate above 1": (["--config.peak_lr=1e39"], "peak_lr is 1e+39: set it to a value above 0 and at most 1"),
    "nothing to resume": (["--resume_with=peak_lr"], "holds no run to resume: leave out --resume_with"),
    "no field to change": (["--resume_with=peak_rl"], "did you mean --resume_with=peak_lr?"),
    "a field for good": (["--resume_with=family"], "a run keeps its family"),
    "no such list": (["--config.exclude=nowhere.txt"], "exclude=nowhere.txt cannot be read: No such file or directory"),
    "no such clip": (["--config.exclude=LIST"], "names synthetic/cry, which is no clip of synthetic; did you mean"),
    "zero steps": (["--config.total_steps=0"], "total_steps is 0"),
    "all too short": (["--config.data_dir=SHORT", "--config.sets=short"], "cannot be masked"),
    "workdir is a file": (["--workdir=pyproject.toml"], "pyproject.toml"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_sentence_and_status_2(case, data_dir, tmp_path, monkeypatch, capsys):
    """In this process; nothing is written to the working directory."""
    monkeypatch.chdir(ROOT)
    arguments, wanted = WRONG[case]
    write_short_set(tmp_path / "short")
    (tmp_path / "list.txt").write_text("synthetic/cry\n")
    arguments = [a.replace("SHORT", str(tmp_path / "short")) for a in arguments]
    arguments = [a.replace("LIST", str(tmp_path / "list.txt")) for a in arguments]
    defaults = [f"--config={training_runs.TINY}", f"--workdir={tmp_path / 'run'}", f"--config.data_dir={data_dir}"]
    defaults.append("--config.batch_seconds=32")  # for eight devices
    assert program.run(training.main, [*defaults, *arguments]) == 2
    assert_one_sentence(capsys.readouterr().err, wanted)


def test_a_program_ends_with_the_status_of_a_fault(cache):
    status, _, err = training_runs.finish(training_runs.start(cache, "--config=configs/voc15.py"))
    assert status == 2
    assert_one_sentence(err, "did you mean configs/voc125.py")


def assert_one_sentence(said, wanted):
    (fault,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert wanted in fault and "Traceback" not in said


def write_short_set(data_dir):
    import soundfile

    folder = data_dir / "audio"
    folder.mkdir(parents=True)
    for i in range(8):
        soundfile.write(folder / f"{i}.wav", np.zeros(2000, np.float32) + 0.1 * (i % 2), 16000)
    datasets.prepare("folder", data_dir=data_dir, manual_dir=folder, name="short", progress=False)
