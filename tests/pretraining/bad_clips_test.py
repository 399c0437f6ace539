"""A run with a clip that makes losses NaN, as a user meets it: it ends well, or it stops, says why and goes on."""

import csv
import json
import signal
import time

import noise_set
import numpy as np
import pytest
import training_runs
from planted_program import PLANTED

from voc2vec_jax.runs import checkpoint
from voc2vec_jax.runs import rows as metrics_rows

STEPS = 24


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Forty clips of noise in a set `calls`, of which one holds the planted sample."""
    folder = tmp_path_factory.mktemp("data")
    noise_set.prepare(folder, PLANTED)  # its clip 3 comes first at step 3
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def launch(cache, data_dir):
    def start(workdir, *more):
        given = ("--config.sets=calls", "--config.bucket_samples=16_000", *more)
        return training_runs.train(cache, data_dir, workdir, *given, module="planted_program")

    return start


@pytest.fixture(scope="module")
def whole(launch, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    status, _, err = training_runs.finish(launch(workdir))
    assert status == 0, err
    return workdir, err


def listed(workdir):
    with open(workdir / "bad_clips.csv", newline="") as file:
        return [(row["id"], int(row["step"])) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_run_with_a_bad_clip_ends_well_and_names_it(whole):
    workdir, err = whole
    rows = [row for row in training_runs.rows_of(workdir) if "split" not in row]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    bad = [row for row in rows if row.get("bad")]
    assert 2 <= len(bad) < STEPS / 2
    for row in bad:
        before = rows[row["step"] - 2]  # the clip may end one epoch and begin the next
        assert row["loss"] is None and row["bad_in_row"] == before.get("bad_in_row", 0) + 1
        assert "calls/03.wav" in row["clips"] and len(row["clips"]) <= 4  # of the two groups at once
        assert (
            f"step {row['step']}: the loss is not finite, the update is skipped ({row['bad_in_row']} in a row)" in err
        )
    assert listed(workdir) == [(clip, row["step"]) for row in bad for clip in row["clips"]]
    assert all(np.isfinite(row["loss"]) for row in rows if "bad" not in row)
    state = training_runs.params_of(workdir)
    assert state["step"] == STEPS - len(bad) and state["bad_in_row"] == 0


@pytest.mark.slow
def test_a_killed_run_skips_and_lists_the_same(whole, launch, tmp_path):
    workdir = tmp_path / "killed"
    process = launch(workdir)
    metrics = workdir / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and len(list(metrics_rows.read(metrics))) >= 14):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    status, _, err = training_runs.finish(launch(workdir))
    assert status == 0 and "resuming" in err
    assert training_runs.identical(training_runs.params_of(workdir), training_runs.params_of(whole[0]))
    assert training_runs.rows_of(workdir) == training_runs.rows_of(whole[0])
    assert listed(workdir) == listed(whole[0])


@pytest.mark.slow
def test_too_many_in_a_row_stop_the_run_and_without_their_clips_it_goes_on(whole, launch, tmp_path):
    workdir = tmp_path / "stopped"
    seldom = "--config.checkpoint_every_steps=100"
    status, _, err = training_runs.finish(launch(workdir, seldom, "--config.max_bad_updates=1"))
    first = next(row["step"] for row in training_runs.rows_of(whole[0]) if row.get("bad"))
    assert status == 1
    assert f"stopped at step {first}: 1 updates in a row" in err
    assert f"the newest checkpoint is of step {first - 1}; leave their clips out by --resume_with=exclude" in err
    assert checkpoint.steps(workdir / "checkpoints")[-1] == first - 1
    clips = {clip for clip, _ in listed(workdir)}

    exclude = f"--config.exclude={workdir / 'bad_clips.csv'}"
    status, _, err = training_runs.finish(launch(workdir, exclude))
    assert status == 2 and "name what shall change in --resume_with, or another --workdir" in err
    status, _, err = training_runs.finish(launch(workdir, exclude, "--resume_with=exclude"))
    assert status == 0, err
    rows = [row for row in training_runs.rows_of(workdir) if "split" not in row]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1)) and not any("bad" in row for row in rows)
    assert set((workdir / "excluded.txt").read_text().splitlines()) == clips
    (entry,) = json.loads((workdir / "config.json").read_text())["history"]
    assert entry["step"] == first - 1
    assert entry["changed"]["exclude"] == ["", str(workdir / "bad_clips.csv")]
    status, _, err = training_runs.finish(launch(workdir, exclude))
    assert status == 0 and "is complete" in err
