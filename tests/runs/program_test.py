"""How a process ends after a stop and after anything else."""

import subprocess
import sys

import pytest

from voc2vec_jax import errors

ENDS = """
import atexit
from voc2vec_jax import errors
from voc2vec_jax.runs import program

def main(argv):
    print("begun")
    raise {fault}

atexit.register(print, "torn down")
program.leave(program.run(main, []))
"""


@pytest.mark.parametrize(
    ("fault", "status", "torn_down", "said"),
    [
        ("KeyboardInterrupt", errors.EXIT_STOPPED, False, "stopped by SIGINT"),
        ("errors.InputError('no clips')", errors.EXIT_INPUT, True, "error: no clips"),
    ],
)
def test_a_stopped_process_does_not_wait_for_libraries_to_be_torn_down(fault, status, torn_down, said):
    code = ENDS.format(fault=fault)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == status and said in ended.stderr
    assert ended.stdout.split("\n")[:-1] == ["begun", *(["torn down"] if torn_down else [])]
