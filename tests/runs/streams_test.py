"""Closed and full streams: the work is done, and the status says so."""

import pathlib
import subprocess
import sys

import pytest

from voc2vec_jax import errors

ROOT = pathlib.Path(__file__).parents[2]
WORKS = """
import os, sys
from voc2vec_jax.runs import program, signals

def main(argv):
    print("a line", flush=True)
    print("said", file=sys.stderr)
    with signals.StopSignal() as stop, open(argv[0], "w") as file:
        for _ in range(1000):
            print("x" * 100)
            print("y" * 100, file=sys.stderr)
        os.kill(os.getpid(), 15)
        os.write(2, b"a library\\n")
        file.write(stop.requested)
    return int(argv[1])

program.leave(program.run(main))
"""


def work(tmp_path, shell, status=0):
    """The status of the program under `shell`, where PROGRAM stands for it, what it said, and what it wrote."""
    done = tmp_path / "done"
    shell = shell.replace("PROGRAM", f'"{sys.executable}" $FLAGS -c "$WORKS" {done} {status}')
    given = {"WORKS": WORKS, "PATH": "/usr/bin:/bin", "FLAGS": "-u" if "unbuffered" in shell else "-B"}
    ran = subprocess.run(["bash", "-c", shell], cwd=ROOT, env=given, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stderr, done.read_text()


@pytest.mark.parametrize(
    ("shell", "status"),
    [
        ("set -o pipefail; PROGRAM | head -n 1", 3),
        ("set -o pipefail; PROGRAM 2>&1 | head -n 1", 0),
        ("PROGRAM <&- >&- 2>&-", 3),
        ("PROGRAM 2>&-", 0),
        ("PROGRAM >/dev/null 2>/dev/full", 0),
        ("set -o pipefail; PROGRAM | true  # unbuffered", 0),
    ],
)
def test_closed_streams_change_nothing_but_the_printing(shell, status, tmp_path):
    ended, said, written = work(tmp_path, shell, status)
    assert (ended, written) == (status, "SIGTERM")
    assert "Error" not in said and "error" not in said


def test_output_that_a_full_disk_lost_is_a_fault_once_the_work_is_done(tmp_path):
    ended, said, written = work(tmp_path, "PROGRAM >/dev/full")
    assert (ended, written) == (errors.EXIT_FAULT, "SIGTERM")
    assert said.splitlines()[-1] == "error: not all that was printed could be written: No space left on device"
