"""A soak run tells what grows, and sees what a process holds."""

import os
import subprocess
import sys

import pytest
from benchmarks import soak

from voc2vec_jax import errors

EVEN = {"memory_mb": 700.0, "open_files": 30, "threads": 90, "step_ms": 3.0}


@pytest.mark.parametrize("grown", [None, *EVEN])
def test_what_is_larger_in_the_second_half_is_not_flat(grown):
    first = {name: 10 * value for name, value in EVEN.items()}  # the first interval compiles
    later = {name: value * (1.5 if name == grown else 1.0) for name, value in EVEN.items()}
    found = soak.compared([first, EVEN, EVEN, later, later])
    assert found["flat"] == {name: name != grown for name in EVEN}
    assert found["later_over_earlier"] == {name: 1.5 if name == grown else 1.0 for name in EVEN}
    assert found["memory_grown_mb"] == (350 if grown == "memory_mb" else 0)


def test_one_slow_interval_is_no_growth():
    slow = {**EVEN, "step_ms": 30.0}
    assert soak.compared([EVEN, EVEN, EVEN, EVEN, slow, EVEN])["flat"]["step_ms"]


def test_files_memory_and_threads_of_a_process_and_its_children_are_seen(tmp_path):
    child = "files = [open('/dev/null') for _ in range(40)]; block = b'x' * 90_000_000; print(flush=True); input()"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    interval = soak.Interval(1, 10)
    soak._look(process.pid, interval)
    process.communicate(b"\n")
    assert interval.open_files > 40 and interval.threads == 2 and interval.memory_mb > 90
    soak._look(process.pid, interval)  # it has ended
    soak._look(os.getpid(), soak.Interval(1, 10))


def test_too_few_intervals_are_one_sentence():
    with pytest.raises(errors.InputError, match="--intervals=2 is not from 3 to --steps=100"):
        next(soak.figures(soak.Soak(steps=100, intervals=2)))


@pytest.mark.slow
def test_a_short_run_of_the_real_program_is_watched_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")  # one device
    found = list(soak.figures(soak.Soak(steps=3000, intervals=3, every=500, folder=str(tmp_path))))
    parts, verdict = found[:-1], found[-1]
    assert [(part["first"], part["last"]) for part in parts] == [(1, 1000), (1001, 2000), (2001, 3000)]
    assert all(part["step_p99_ms"] >= part["step_ms"] > 0 for part in parts)
    assert parts[0]["memory_mb"] > 100 and parts[0]["open_files"] > 3
    assert set(verdict["flat"]) == set(EVEN)
    assert "done: 3000 steps" in (tmp_path / "run.log").read_text()
