"""Cross-validation spread over processes: the same results as from one, stopped and killed as one."""

import json
import signal
import time

import hosts
import numpy as np
import pytest

from voc2vec_jax import datasets

SETTING = ("--config.folds=4", "--config.epochs=60", "--config.patience=60", "--config.warmup_steps=20")
SETTING += ("--config.peak_lr=1e-2", "--config.max_seconds=0.5", "--config.leaks=false", "--config.model=opensmile")


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    """Starts a cross-validation of a small network on features of the user's own."""
    data, cache = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("cache")
    prepared = datasets.prepare("synthetic", data_dir=data, clips=48, progress=False)
    vectors = np.eye(len(prepared.labels))[prepared.label] + np.random.default_rng(0).normal(0, 0.5, (48, 6))
    np.savez(data / "own.npz", ids=prepared.recordings[prepared.recording], vectors=vectors.astype(np.float32))
    fixed = ("--config=configs/finetune.py:synthetic", f"--config.data_dir={data}", *SETTING)
    fixed = (*fixed, f"--config.features={data / 'own.npz'}")

    def start(number, workdir, *more, module="voc2vec_jax.finetune"):
        return hosts.start(cache, number, 2, module, *fixed, f"--workdir={workdir}", *more)

    return start


@pytest.fixture(scope="module")
def whole(launch, tmp_path_factory):
    """By one process."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    statuses, said = hosts.finish(launch(1, workdir))
    assert statuses == [0], said
    return workdir


def assert_same_results(a, b):
    for name in ("summary.json", "metrics.jsonl", "predictions.csv", "summary.md"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    for fold in range(4):
        one, other = (np.load(x / f"fold_{fold:02d}" / "embeddings.npz")["vectors"] for x in (a, b))
        assert np.array_equal(one, other)


def until_trained(processes, workdir, index):
    """Wait until process `index` of two has trained epochs."""
    while not (workdir / "processes" / f"{index:02d}_of_02" / "metrics.jsonl").exists():
        assert all(process.poll() is None for process in processes), hosts.finish(processes)
        time.sleep(0.02)


@pytest.mark.slow
def test_folds_spread_over_processes_give_the_same_results(whole, launch, tmp_path):
    statuses, said = hosts.finish(launch(2, tmp_path / "spread"))
    assert statuses == [0, 0], said
    assert "fold" not in said[1] and "UAR" in said[0]
    assert_same_results(whole, tmp_path / "spread")
    statuses, said = hosts.finish(launch(2, tmp_path / "spread"))
    assert statuses == [0, 0] and "is complete" in said[0]


@pytest.mark.slow
def test_a_fault_of_one_process_ends_its_job_in_all_and_the_next_job_goes_on(launch, tmp_path):
    short = ("--config.epochs=2", "--config.patience=2", "--config.seeds=0,1")
    statuses, said = hosts.finish(launch(2, tmp_path / "run", *short, module="tests.helpers.faulty_finetune"))
    assert statuses == [1, 1], said
    assert "error: [1/2] synthetic, opensmile, seed 0: the loss of fold 1 is not finite" in said[0]
    assert "error: 1 of 2 jobs failed (synthetic, opensmile, seed 0)" in said[0]
    assert json.loads((tmp_path / "run" / "seed_0" / "fault.json").read_text())["reason"].startswith("the loss of fold")
    assert json.loads((tmp_path / "run" / "seed_1" / "summary.json").read_text())["complete"]
    assert not json.loads((tmp_path / "run" / "summary.json").read_text())["complete"]  # of both seeds
    statuses, said = hosts.finish(launch(2, tmp_path / "run", *short))
    assert statuses == [0, 0], said
    assert not (tmp_path / "run" / "seed_0" / "fault.json").exists()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["complete"]


@pytest.mark.slow
def test_a_signal_to_one_stops_all_and_the_rerun_goes_on(whole, launch, tmp_path):
    workdir = tmp_path / "stopped"
    processes = launch(2, workdir, "--config.epochs=60")
    until_trained(processes, workdir, 1)
    processes[1].send_signal(signal.SIGTERM)
    statuses, said = hosts.finish(processes)
    assert statuses == [75, 75], said
    kept = [folder.parent.name for folder in workdir.glob("processes/*/checkpoints")]
    assert "01_of_02" in kept
    statuses, said = hosts.finish(launch(2, workdir))
    assert statuses == [0, 0], said
    assert_same_results(whole, workdir)


@pytest.mark.slow
def test_a_killed_process_ends_the_other_and_one_process_finishes_the_rest(whole, launch, tmp_path):
    workdir = tmp_path / "killed"
    processes = launch(2, workdir)
    until_trained(processes, workdir, 0)
    processes[1].kill()
    statuses, said = hosts.finish(processes, timeout=60)
    assert statuses == [1, -signal.SIGKILL], said
    assert "error: process 1 of 2 on " in said[0]
    statuses, said = hosts.finish(launch(1, workdir))
    assert statuses == [0], said
    assert json.loads((workdir / "summary.json").read_text())["complete"]
    assert_same_results(whole, workdir)
