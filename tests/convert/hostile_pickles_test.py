"""torch_files: memory and time stay within bounds whatever a pickle asks for, proven under limits of the system."""

import json
import os
import pathlib
import subprocess
import sys

import hostile_pickles
import pytest

PROGRAM = pathlib.Path(hostile_pickles.__file__)
ROOT = PROGRAM.parents[2]


def run(*words):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, words)], capture_output=True, text=True, env=environment, check=False
    )


def results(kind, folder):
    done = run(kind, folder)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_hostile_pickles_are_refused_within_bounds(tmp_path):
    found, old = results("refused", tmp_path), results("old", tmp_path)
    assert [each["name"] for each in found] == list(hostile_pickles.refused())
    assert [each["name"] for each in old] == list(hostile_pickles.old())
    for each in found + old:
        assert each["said"] and "\n" not in each["said"] and len(each["said"]) < 300, each
        assert each["seconds"] < hostile_pickles.SECONDS, each


def test_what_is_shared_is_not_copied(tmp_path):
    found = results("harmless", tmp_path)
    assert found[0]["name"] == "one tensor in many places" and found[0]["said"] is None
    for each in found:
        assert each["seconds"] < hostile_pickles.SECONDS, each


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "a memo index",
        "claimed bytes",
        "a tuple of tuples as a key",
        "a tuple of tuples in a set",
        "a deep tuple as a key",
        "arguments that each call copies",
        "a flood of dicts",
        "integers that are hashed alike",
        "long keys that are equal",
    ],
)
def test_the_pickles_are_hostile(name):
    """The proof that the tests above refuse something: the standard unpickler exceeds the limits or crashes."""
    done = run("standard", name)
    assert done.returncode != 0 and "read" not in done.stdout
    assert done.returncode < 0 or "MemoryError" in done.stderr, done.stderr
