"""Parts made by many machines are the set that one would have made, and no disk is filled to the brim."""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple

import numpy as np
import pytest
import soundfile

from voc2vec_jax import datasets, errors
from voc2vec_jax.datasets import listings, preparing, records, renewal, shard_jobs, shards

ROOT = pathlib.Path(__file__).parents[2]
OPTIONS = {"clips": 24, "seed": 5, "workers": 1, "progress": False}


def _shard_bytes(prepared: records.PreparedSet) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in prepared.folder.glob("*array_record*")}


def _part(data_dir: pathlib.Path, i: int, n: int, **options) -> records.PreparedSet | None:
    return datasets.prepare("synthetic", data_dir=data_dir, part=(i, n), **{**OPTIONS, **options})


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_the_last_part_ends_the_set_with_the_records_of_one_machine(tmp_path, order, monkeypatch):
    whole = datasets.prepare("synthetic", data_dir=tmp_path / "whole", **OPTIONS)
    made = []
    make = shard_jobs.make_shard
    monkeypatch.setattr(shard_jobs, "make_shard", lambda job: made.append(job.path.name) or make(job))
    outcomes = [_part(tmp_path / "parts", i, 3) for i in order]
    assert [outcome is None for outcome in outcomes] == [True, True, False]
    assert len(made) == len(set(made)) == len(whole.shard_ends)
    assert _shard_bytes(outcomes[-1]) == _shard_bytes(whole) and outcomes[-1].fingerprint == whole.fingerprint
    assert outcomes[-1].report == whole.report
    assert _part(tmp_path / "parts", order[0], 3).fingerprint == whole.fingerprint  # again: it is there


def test_parts_made_on_disks_of_their_own_are_copied_together(tmp_path):
    whole = datasets.prepare("synthetic", data_dir=tmp_path / "whole", **OPTIONS)
    for i in (1, 2):
        assert _part(tmp_path / f"{i}", i, 2) is None
    for path in records.partial_folder(tmp_path / "2", "synthetic").iterdir():
        shutil.copy(path, records.partial_folder(tmp_path / "1", "synthetic"))
    joined = datasets.prepare("synthetic", data_dir=tmp_path / "1", **OPTIONS)
    assert joined.fingerprint == whole.fingerprint


def test_parts_at_once_go_on_but_not_equal_ones_and_not_beside_the_whole(tmp_path):
    with renewal.locked(tmp_path, "synthetic", (1, 2)):
        with pytest.raises(errors.InputError, match="is being prepared by another process"):
            _part(tmp_path, 1, 2)
        with pytest.raises(errors.InputError, match="is being prepared by another process"):
            datasets.prepare("synthetic", data_dir=tmp_path, **OPTIONS)
        assert _part(tmp_path, 2, 2) is None


def test_a_part_of_other_recordings_is_refused(tmp_path):
    _part(tmp_path, 1, 2)
    with pytest.raises(errors.InputError, match="holds shards of other recordings: give every part the same"):
        _part(tmp_path, 2, 2, clips=25)


def test_a_part_removes_nothing_that_another_is_writing(tmp_path):
    _part(tmp_path, 1, 2)
    writing = records.partial_folder(tmp_path, "synthetic") / "synthetic-train.array_record-00001-of-00008.9.tmp"
    writing.write_bytes(b"half a shard")
    _part(tmp_path, 1, 2)
    assert writing.exists()
    assert not list(_part(tmp_path, 2, 2).folder.glob("*.tmp"))


@pytest.mark.slow
def test_parts_killed_at_random_moments_and_rerun_make_the_same_set(tmp_path):
    whole = datasets.prepare("synthetic", data_dir=tmp_path / "whole", **OPTIONS)
    command = [
        sys.executable,
        "tools/prepare.py",
        "synthetic",
        "--clips=24",
        "--seed=5",
        f"--data_dir={tmp_path / 'd'}",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    rng = random.Random(0)
    partial = records.partial_folder(tmp_path / "d", "synthetic")
    for i in (1, 2):
        options = {"cwd": ROOT, "env": environment, "stderr": subprocess.DEVNULL}
        run = subprocess.Popen([*command, "--workers=1", f"--shard={i}/2"], stdout=subprocess.DEVNULL, **options)
        seen = len(list(partial.glob("*-of-*.json")))
        while run.poll() is None and len(list(partial.glob("*-of-*.json"))) == seen:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))
        run.send_signal(signal.SIGKILL)
        assert run.wait() in (-signal.SIGKILL, 0)
        again = [*command, "--workers=1", f"--shard={i}/2"]
        done = subprocess.run(again, stdout=subprocess.PIPE, text=True, check=True, **options)
        assert ("part 1/2 is made" in done.stdout) == (i == 1)
    prepared = records.open_set(tmp_path / "d", "synthetic")
    assert _shard_bytes(prepared) == _shard_bytes(whole) and prepared.fingerprint == whole.fingerprint


def _recordings(folder: pathlib.Path) -> listings.Listing:
    tone = (0.5 * np.sin(np.arange(16_000) / 9)).astype(np.float32)
    for k in range(20):
        soundfile.write(folder / f"{k:02d}.wav", tone, 8_000)  # at half the rate: twice the bytes
    return preparing.list_source(datasets.source("folder"), folder)


def test_the_room_that_records_take_is_foretold(tmp_path):
    listing = _recordings(tmp_path)
    expected = preparing.expected_bytes(listing, listing.recordings)
    assert expected == pytest.approx(20 * 32_000 * 2 * preparing.SPACE_MARGIN, rel=0.01)
    (tmp_path / "00.wav").write_bytes(b"nothing")
    assert preparing.expected_bytes(listing, listing.recordings) == pytest.approx(expected, rel=0.01)
    assert preparing.expected_bytes(listing, []) == 0


def test_a_disk_that_is_too_small_is_named_before_anything_is_written(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    _recordings(tmp_path / "in")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(preparing.shutil, "disk_usage", lambda folder: usage(0, 0, 1_000_000))
    with pytest.raises(errors.RunError, match="has 0.00 GB free and the records take about 0.00 GB: free the disk or"):
        datasets.prepare("folder", data_dir=tmp_path / "d", manual_dir=tmp_path / "in", workers=1, progress=False)
    assert not list((tmp_path / "d").rglob("*array_record*"))
    assert shards.load(tmp_path / "d" / "none") is None
