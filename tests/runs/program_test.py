"""How a process ends after a stop and after anything else."""

import signal
import subprocess
import sys

import pytest

from voc2vec_jax import errors
from voc2vec_jax.runs import program

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


IGNORES = """
import gc, os, signal, sys, time
from voc2vec_jax.runs import program

def collect(phase, info):
    if phase == "start" and len(sent) < TIMES:
        sent.append(True)
        os.kill(os.getpid(), signal.NUMBER)

def main(argv):
    gc.callbacks.append(collect)
    for _ in range(100):
        gc.collect()
        time.sleep(0.05)
    print("not stopped")

sent = []
program.leave(program.run(main, []))
"""


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_that_python_ignores_is_heeded_a_little_later(number, times):
    """As in the callback that JAX gives the garbage collector."""
    code = IGNORES.replace("NUMBER", number.name).replace("TIMES", str(times))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = f"stopped by {number.name}: run the same command again\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (errors.EXIT_STOPPED, "", said)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("main", ["lambda argv: print('done')", "lambda argv: 1 / 0"])
def test_a_signal_after_the_work_does_not_change_the_status(number, main):
    """While libraries are torn down."""
    code = "import atexit, os; from voc2vec_jax.runs import program\n"
    code += f"atexit.register(print, 'torn down'); atexit.register(os.kill, os.getpid(), {int(number)})\n"
    code += f"program.leave(program.run({main}, []))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == (errors.EXIT_DONE if "done" in main else errors.EXIT_FAULT), ended.stderr
    assert "torn down" not in ended.stdout and "Traceback" not in ended.stderr


def test_only_what_is_resumed_is_said_to_go_on(capsys):
    def stop(resumed):
        if resumed:
            program.can_resume()
        raise KeyboardInterrupt

    for resumed, end in ((True, "again to go on\n"), (False, "again\n")):
        assert program.run(lambda argv, resumed=resumed: stop(resumed), []) == errors.EXIT_STOPPED
        assert capsys.readouterr().err == f"stopped by SIGINT: run the same command {end}"


@pytest.mark.parametrize("fault", [ValueError("\x1b]0;x\x07\u202e"), OSError(28, "full", "a\x1b]0;x\x07b")])
def test_what_is_not_foreseen_is_shown_as_text(fault, capsys):
    def main(argv):
        raise fault

    assert program.run(main, []) == errors.EXIT_FAULT
    said = capsys.readouterr().err.rstrip("\n")
    assert said.isprintable() and "\\x1b]0;x\\x07" in said
