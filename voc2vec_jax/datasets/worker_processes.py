"""Worker processes: how many there should be, and an initializer that ties them to their parent."""

import multiprocessing
import os
import signal
import threading
from multiprocessing import connection

from voc2vec_jax import errors


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start() -> None:
    """Initializer of a process pool: the worker ignores Ctrl-C, which the parent handles, and dies with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(errors.EXIT_FAULT)
