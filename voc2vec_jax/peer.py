"""The other side of a benchmark, in a process of its own with the settings that its users have."""

import importlib.util
import multiprocessing
import traceback
from collections.abc import Callable
from typing import Any

from voc2vec_jax import errors

_PACKAGES = ("torch", "transformers")


def absent() -> list[str]:
    """Those of torch and transformers that are not installed."""
    return [name for name in _PACKAGES if importlib.util.find_spec(name) is None]


def check() -> None:
    """InputError where torch or transformers is not installed."""
    if missing := absent():
        raise errors.InputError(
            f"--against=transformers needs {' and '.join(missing)}: pip install {' '.join(missing)}"
        )


class Peer:
    """Calls of what `build(*arguments)` returns, by name, in another process; close it with `with`.

    `build` is a function of a module and returns a dict of functions without arguments; they and what they return are
    made there. RunError with the other side's last words when it fails.
    """

    def __init__(self, build: Callable[..., dict[str, Callable[[], Any]]], *arguments: Any):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, build, arguments), daemon=True)
        self._process.start()
        theirs.close()
        self.names: list[str] = self._answer()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *fault: object) -> None:
        self._pipe.close()
        self._process.join()

    def call(self, name: str) -> Any:
        """What the function of that name returns."""
        self._pipe.send(name)
        return self._answer()

    def _answer(self) -> Any:
        try:
            done, value = self._pipe.recv()
        except EOFError as fault:
            self._process.join()
            raise errors.RunError(f"the other side ended with status {self._process.exitcode}") from fault
        if not done:
            raise errors.RunError(f"the other side failed: {value}")
        return value


def _serve(pipe, build: Callable[..., dict[str, Callable[[], Any]]], arguments: tuple) -> None:
    """Answers each name with (True, value) until the pipe is closed, a failure with (False, its text)."""
    try:
        ways = build(*arguments)
        pipe.send((True, list(ways)))
        while True:
            pipe.send((True, ways[pipe.recv()]()))
    except EOFError:
        return
    except Exception:
        pipe.send((False, traceback.format_exc().strip().splitlines()[-1]))
