"""Worker processes and the signals that a terminal sends to every process of a program."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from voc2vec_jax import errors

ROOT = pathlib.Path(__file__).parents[2]
WORKS = """
import pathlib, sys, time
from voc2vec_jax.datasets import worker_processes
from voc2vec_jax.runs import program

def main(argv):
    with worker_processes.Pool(2) as pool:
        try:
            waits = [pool.submit(time.sleep, 60) for _ in range(2)]
            pathlib.Path(argv[0]).touch()
            for wait in waits:
                wait.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

if __name__ == "__main__":
    program.leave(program.run(main))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("later_s", [0.05, 1.0])  # while the workers import, and while they work
def test_a_signal_to_all_processes_is_heeded_by_the_parent_alone(number, later_s, tmp_path):
    script, begun = tmp_path / "works.py", tmp_path / "begun"
    script.write_text(WORKS)
    given = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, script, str(begun)]
    process = subprocess.Popen(command, env=given, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not begun.exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(later_s)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)  # to the end of the workers and of Python's helper for semaphores
    assert process.returncode == errors.EXIT_STOPPED
    assert said == f"stopped by {number.name}: run the same command again\n"
