"""Sizes and times of modification of source files, by which a file that was changed under its name is noticed.

n = recordings, in the order of their list.
"""

import functools
import hashlib
import os
import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from voc2vec_jax import opening
from voc2vec_jax.datasets import listings
from voc2vec_jax.runs import files

GONE = (-1, -1)  # a file that is not there
NO_FILE = (0, 0)  # a recording that is made, and read from no file
FILE = "sources.npy"
KEPT = 1024  # files whose state is remembered, as long as recordings of the same file follow one another


def of_file(path: str | os.PathLike) -> tuple[int, int]:
    """Size in bytes and time of modification in nanoseconds; GONE without a file that can be looked at."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # a ValueError for a name that no system takes
        return GONE
    return found.st_size, found.st_mtime_ns


def of_listing(listing: listings.Listing) -> Int64[np.ndarray, "n 2"]:
    """The state of the file that each recording is read from, such as an archive, at which one look is enough."""
    look = functools.lru_cache(KEPT)(of_file)
    found = np.empty((len(listing.recordings), 2), np.int64)
    for row, recording in enumerate(listing.recordings):
        path = listing.loader.file(recording.locator)
        found[row] = NO_FILE if path is None else look(path)
    return found


def digest(states: Int64[np.ndarray, "n 2"]) -> str:
    """SHA-256 of some states."""
    return hashlib.sha256(np.ascontiguousarray(states, "<i8").tobytes()).hexdigest()


def save(folder: pathlib.Path, states: Int64[np.ndarray, "n 2"]) -> None:
    """Keeps states in a folder, atomically."""
    with files.atomic(folder / FILE) as file:
        np.save(file, np.ascontiguousarray(states, "<i8"), allow_pickle=False)


def load(folder: pathlib.Path, expected: str | None) -> Int64[np.ndarray, "n 2"] | None:
    """The states that `save` kept, if their digest is the expected one; else None, as in sets of earlier versions."""
    try:
        found = np.load(opening.checked(folder / FILE), allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if digest(found) == expected else None


class Changes(NamedTuple):
    """Rows whose file was `changed`, or appeared, and rows whose file is `gone`."""

    changed: Int64[np.ndarray, "c"]
    gone: Int64[np.ndarray, "g"]


def compare(before: Int64[np.ndarray, "n 2"], now: Int64[np.ndarray, "n 2"]) -> Changes:
    """What is another at the second time."""
    differs, gone = (before != now).any(1), (now == GONE).all(1)
    return Changes(np.flatnonzero(differs & ~gone), np.flatnonzero(differs & gone))


def example(name: str, before: Int64[np.ndarray, "2"], now: Int64[np.ndarray, "2"]) -> str:
    """A changed file in words."""
    return f"{name} ({_described(before)} then, {_described(now)} now)"


def _described(state: Int64[np.ndarray, "2"]) -> str:
    size, modified_ns = state.tolist()
    if (size, modified_ns) == GONE:
        return "absent"
    return f"{size:,} bytes of {np.datetime64(modified_ns, 'ns').astype('datetime64[ms]')} UTC"
