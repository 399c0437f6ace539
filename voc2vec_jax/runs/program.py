"""Run a main, and turn every fault into an exit status and one sentence."""

import contextlib
import functools
import os
import pathlib
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from voc2vec_jax import errors, printable
from voc2vec_jax.runs import files, signals, streams

RESEND_SECONDS = 0.05
_stopped: list[str] = []  # why `run` was stopped, once it was
_resumable: list[bool] = []  # filled once the same command would go on with what is done


class _Terminated(KeyboardInterrupt):
    """SIGTERM outside the training loop."""


def run(main: Callable[[list[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """The exit status of `main(argv)`. Every fault becomes one `error:` line on stderr.

    0 is done, 1 a fault of the run, 2 a fault of the input, 75 a stop by SIGINT or SIGTERM. With `--debug` in `argv`
    the traceback is printed too. SystemExit passes through. Closed streams, such as those of `| head` and `2>&-`,
    change nothing but what is printed.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    streams.keep()
    _resumable.clear()
    before, hook = _catch_sigterm(), sys.unraisablehook
    sys.unraisablehook = functools.partial(_resend, hook)
    try:
        status = main(argv) or errors.EXIT_DONE
        sys.stdout.flush()  # here, where a fault of it is still told, and not when Python ends
        if streams.lost() and status == errors.EXIT_DONE:
            raise errors.RunError(f"not all that was printed could be written: {streams.lost()}")
        return status
    except (Exception, KeyboardInterrupt) as error:
        status, text = explain(error)
        if isinstance(error, KeyboardInterrupt):
            _stopped.append(text)
        if wants_traceback(argv) and status != errors.EXIT_STOPPED:
            traceback.print_exception(error)
        print(text, file=sys.stderr)
        return status
    finally:
        sys.unraisablehook = hook
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def can_resume() -> None:
    """Say, if stopped from here on, that the same command goes on with what is done."""
    _resumable.append(True)


def leave(status: int) -> NoReturn:
    """End the process with what `run` returned; at once after a stop from the keyboard.

    For then XLA may still compile in a thread of its own, and the usual end of JAX, which takes the devices away from
    it, is a segmentation fault. A signal during the usual end, which takes a while, does not change the status.
    """

    def at_once(*signal_and_frame: object) -> NoReturn:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError, RuntimeError):  # a closed pipe, or none
                stream.flush()
        os._exit(status)

    if _stopped:
        at_once()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, at_once)
    sys.exit(status)


def wants_traceback(argv: Sequence[str]) -> bool:
    """Whether `--debug` was given, known before anything else is parsed."""
    return any(token.lower() in ("--debug", "--debug=true", "--debug=1") for token in argv)


def explain(error: BaseException) -> tuple[int, str]:
    """The exit status and the line to print for what a main raised."""
    status, text = _explained(error)
    return status, printable.line(text)


def _explained(error: BaseException) -> tuple[int, str]:
    if isinstance(error, errors.InputError):
        return errors.EXIT_INPUT, f"error: {error}"
    if isinstance(error, errors.RunError):
        return errors.EXIT_FAULT, f"error: {error}"
    if isinstance(error, signals.Interrupted):
        text = "interrupted twice: run the same command again to go on from the last complete checkpoint"
        return errors.EXIT_FAULT, f"error: {text}"
    if isinstance(error, KeyboardInterrupt):
        name = "SIGTERM" if isinstance(error, _Terminated) else "SIGINT"
        again = "run the same command again" + (" to go on" if _resumable else "")
        return errors.EXIT_STOPPED, f"stopped by {name}: {again}"
    if isinstance(error, OSError) and error.errno in files.FULL:
        path, why = error.filename or "a file", error.strerror
        text = f"error: {path} could not be written: {why}: make room there and run the same command again"
        return errors.EXIT_FAULT, text
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith(__package__.split(".")[0]):
        text = (
            "install the package with all that it needs (pip install . in a clone), or use the interpreter that has it"
        )
        return errors.EXIT_INPUT, f"error: {sys.executable} has no module {error.name}; {text}"
    return errors.EXIT_FAULT, f"error: {_describe(error)}"


def _catch_sigterm() -> Any:
    """Make SIGTERM raise as SIGINT does. Returns the previous handler, or None outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return None

    def terminate(number: int, frame: object) -> None:
        raise _Terminated

    return signal.signal(signal.SIGTERM, terminate)


def _resend(otherwise: Callable[[Any], Any], ignored: Any) -> None:
    """An unraisable hook: a stop that came where Python ignores exceptions comes again a little later.

    Such places are callbacks of the garbage collector, of which JAX has one, and `__del__`.
    """
    if not issubclass(ignored.exc_type, KeyboardInterrupt):
        otherwise(ignored)
        return
    number = signal.SIGTERM if issubclass(ignored.exc_type, _Terminated) else signal.SIGINT
    timer = threading.Timer(RESEND_SECONDS, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()


def _describe(error: BaseException) -> str:
    """One sentence for an unforeseen exception: its type, place and first line."""
    frames = traceback.extract_tb(error.__traceback__)
    package = str(pathlib.Path(__file__).parents[1])
    own = [frame for frame in frames if frame.filename.startswith(package) and frame.filename != __file__]
    frame = (own or frames)[-1]
    message = (str(error).strip().splitlines() or [""])[0]
    message = message if len(message) <= 300 else f"{message[:300]}..."
    place = f"{pathlib.Path(frame.filename).name}:{frame.lineno}"
    return f"{type(error).__name__} at {place}: {message} (run again with --debug for the traceback)"
