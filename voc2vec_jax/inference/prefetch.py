"""Iterators that threads run in advance."""

import collections
import concurrent.futures
import contextlib
import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any


@contextlib.contextmanager
def ahead(things: Iterator[Any], depth: int) -> Iterator[Iterator[Any]]:
    """The same things, made by a thread up to `depth` of them in advance; leaving the context ends the thread."""
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


def in_order(
    function: Callable[[Any], Any],
    things: Iterable[Any],
    pool: concurrent.futures.Executor,
    *,
    chunk: int,
    chunks: int,
) -> Iterator[Any]:
    """`function` of every thing, in order, while the pool works up to `chunks` chunks of `chunk` things in advance."""
    things = iter(things)
    waiting: collections.deque[concurrent.futures.Future] = collections.deque()

    def oldest() -> Iterator[Any]:
        done = waiting.popleft().result()[::-1]
        while done:
            yield done.pop()  # so that nothing here holds what was handed out

    while some := list(itertools.islice(things, chunk)):
        waiting.append(pool.submit(lambda some: [function(thing) for thing in some], some))
        if len(waiting) > chunks:
            yield from oldest()
    while waiting:
        yield from oldest()
