"""Progress of long work: a bar on a terminal, a line every ten seconds elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import tqdm

from voc2vec_jax import printable

PROGRESS_SECONDS = 10.0


@contextlib.contextmanager
def shown(name: str, total: int, done: int, unit: str, progress: bool) -> Iterator[Callable[[int], None]]:
    """Yields a function that takes the number of units just done; `done` of `total` were done before."""
    if not progress:
        yield lambda count: None
    elif sys.stderr.isatty():
        with tqdm.tqdm(total=total, initial=done, desc=printable.line(name), unit=f" {unit}", unit_scale=True) as bar:
            yield bar.update
    else:
        yield _line_printer(name, total, done, unit)


def _line_printer(name: str, total: int, done: int, unit: str) -> Callable[[int], None]:
    last = time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        if done == total or time.monotonic() - last >= PROGRESS_SECONDS:
            last = time.monotonic()
            printable.show(f"{name}: {done} of {total} {unit}", file=sys.stderr, flush=True)

    return advance
