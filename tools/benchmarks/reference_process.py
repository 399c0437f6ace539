"""The reference implementation (transformers on PyTorch) in its own process, set up as its users run it."""

import contextlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import measuring
from voc2vec_jax import errors
from voc2vec_jax.convert import verify
from voc2vec_jax.runs import logs


def check() -> None:
    """InputError when torch or transformers is not installed."""
    if missing := verify.absent():
        raise errors.InputError(
            f"--against=transformers needs {' and '.join(missing)}: pip install {' '.join(missing)}"
        )


def memory_held(device: str) -> dict[str, int]:
    """As `measuring.memory_held`, in a process that computes with torch."""
    import torch

    held = {"peak_mb": round(torch.cuda.max_memory_allocated() / 1e6)} if device == "cuda" else {}
    return {"process_peak_mb": round(measuring.peak_bytes() / 1e6), **held}


def set_up() -> str:
    """Sets up torch on this machine's GPU or CPU, with a thread a core, and returns torch's name for the device.

    Products and convolutions of float32 stay in float32, as in voc2vec_jax. Random numbers are the same in every run,
    those that transformers takes from NumPy too.
    """
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 (its own generator)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = "cuda" if torch.cuda.is_available() else "cpu"
    logs.say(f"transformers {transformers.__version__} on torch {torch.__version__}, {device}")
    return device


class ReferenceProcess:
    """A process that builds functions and calls them by name; use it in a `with` statement.

    `build` is a module-level function. The process calls `build(*arguments)`, which returns functions without arguments
    by name. RunError, with the last line of the process's traceback, when one of them fails.
    """

    def __init__(self, build: Callable[..., dict[str, Callable[[], Any]]], *arguments: Any):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, build, arguments), daemon=True)
        self._process.start()
        theirs.close()
        self.names: list[str] = self._answer()

    def __enter__(self) -> "ReferenceProcess":
        return self

    def __exit__(self, *fault: object) -> None:
        self._pipe.close()
        if fault[0] is not None:  # it may be inside a long call
            self._process.terminate()
        self._process.join()

    def call(self, name: str) -> Any:
        """Calls the function of that name and returns its result."""
        self._pipe.send(name)
        return self._answer()

    def _answer(self) -> Any:
        try:
            done, value = self._pipe.recv()
        except EOFError as fault:
            self._process.join()
            raise errors.RunError(f"the reference process ended with status {self._process.exitcode}") from fault
        if not done:
            raise errors.RunError(f"the reference process failed: {value}")
        return value


def _serve(pipe, build: Callable[..., dict[str, Callable[[], Any]]], arguments: tuple) -> None:
    """Answers each name with (True, result), or (False, message) after a failure, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both processes; the parent closes the pipe
    try:
        ways = build(*arguments)
        pipe.send((True, list(ways)))
        while True:
            pipe.send((True, ways[pipe.recv()]()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception:
        with contextlib.suppress(BrokenPipeError):
            pipe.send((False, traceback.format_exc().strip().splitlines()[-1]))
