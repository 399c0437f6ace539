"""An iterator that a thread runs in advance."""

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def ahead(things: Iterator[Any], depth: int) -> Iterator[Iterator[Any]]:
    """The same things, made by a thread up to `depth` of them in advance; leaving ends the thread."""
    made: queue.Queue = queue.Queue(depth)
    stop = threading.Event()

    def put(*entry: Any) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                made.put(entry, timeout=0.1)
                break

    def work() -> None:
        try:
            for thing in things:
                put(thing, None)
                if stop.is_set():
                    return
            put(None, StopIteration())
        except BaseException as fault:
            put(None, fault)

    def taken() -> Iterator[Any]:
        while True:
            thing, fault = made.get()
            if isinstance(fault, StopIteration):
                return
            if fault is not None:
                raise fault
            yield thing

    thread = threading.Thread(target=work, name="reading ahead", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        stop.set()
        thread.join()
