"""Worker processes: how many there should be, and pools of them that live and die with their parent."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from multiprocessing import connection, resource_tracker
from typing import Any

from voc2vec_jax import errors

STOPPING = (signal.SIGINT, signal.SIGTERM)  # terminals and schedulers send them to every process


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool(futures.ProcessPoolExecutor):
    """A pool of spawned workers, for a fork would copy the locks of JAX's threads.

    They do not hear the signals that their parent heeds, and die with it. `set_up(*given)` is called in each.
    """

    def __init__(self, workers: int, set_up: Callable[..., None] | None = None, given: tuple = ()) -> None:
        with unheard():
            super().__init__(workers, multiprocessing.get_context("spawn"), _start, (set_up, given))

    def submit(self, *given: Any, **named: Any) -> futures.Future:
        with unheard():  # here the workers are started
            return super().submit(*given, **named)


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Inside, start processes that never hear SIGINT and SIGTERM, not even while they import what they need.

    Here a signal waits for the end of the block.
    """
    _start_tracker()  # first, because Python 3.11 unblocks the signals after it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_tracker() -> None:
    """Start Python's helper that frees semaphores, if need be. After a stop, its warning would be the last word."""
    sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.pop()


def _start(set_up: Callable[..., None] | None, given: tuple) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if set_up is not None:
        set_up(*given)


def _die_with_parent() -> None:
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(errors.EXIT_FAULT)
