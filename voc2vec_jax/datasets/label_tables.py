"""Label files as one csv list, with clips of what carries no label if these are wanted as a class of their own."""

import io
import itertools
import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from voc2vec_jax import audio, errors
from voc2vec_jax.datasets import listings, manifest_listings, trees
from voc2vec_jax.runs import csv_files, files

COLUMNS = ("path", "start", "end", "label")
LEAST_SECONDS = 0.5  # of a clip without label


class Rest(NamedTuple):
    """Clips of what has no label: their class, up to how long, and how many at most (0: as many as have labels)."""

    label: str
    seconds: float = 10.0
    clips: int = 0


class Clip(NamedTuple):
    """A stretch of a file."""

    path: str
    start: float
    end: float
    label: str


def clips_of(listing: listings.Listing, root: pathlib.Path, rest: Rest | None) -> list[Clip]:
    """The stretches of a listing, sorted, and those without label that `rest` asks for, spread evenly.

    The listing is one of stretches. InputError for a class of the rest that is one already, and a file whose length
    cannot be found.
    """
    found = []
    for recording in listing.recordings:
        start, end, path = recording.locator.split(" ", 2)
        if start == "-":
            raise errors.InputError(f"{path} is listed as a whole: give it a start and an end")
        found.append(Clip(path, float(start), float(end), recording.label))
    found.sort()
    if rest is None:
        return found
    if rest.label in listing.labels:
        raise errors.InputError(f"--rest={rest.label} is a class of the labels already: give another name")
    if not LEAST_SECONDS <= rest.seconds < math.inf or rest.clips < 0:
        raise errors.InputError(
            f"--rest_seconds={rest.seconds:g} and --rest_clips={rest.clips}: give at least {LEAST_SECONDS} s, and a "
            "number of clips"
        )
    by_file = itertools.groupby(found, key=lambda clip: clip.path)
    free = [clip for path, own in by_file for clip in _free(list(own), root, path, rest)]
    most = rest.clips or len(found)
    kept = np.unique(np.linspace(0, len(free) - 1, min(most, len(free))).round().astype(int)) if free else []
    return sorted([*found, *(free[k] for k in kept)])


def _free(own: Sequence[Clip], root: pathlib.Path, path: str, rest: Rest) -> Iterator[Clip]:
    """What has no label in a file, of which `own` are those that have, in equal clips of at most `rest.seconds`."""
    length = audio.seconds(trees.FolderTree(root).file(path))
    if length is None:
        raise errors.InputError(f"{path} cannot be opened, so what has no label in it is not known: repair it")
    at = 0.0
    for start, end in [*((clip.start, clip.end) for clip in own), (length, length)]:
        count = math.ceil((start - at) / rest.seconds)
        edges = np.round(np.linspace(at, start, count + 1), 3) if start - at >= LEAST_SECONDS else []
        for first, stop in zip(edges, edges[1:]):
            yield Clip(path, float(first), float(stop), rest.label)
        at = max(at, end)


def write(clips: Sequence[Clip], root: pathlib.Path, output: pathlib.Path) -> None:
    """A csv list of clips whose paths are relative to `root`; in it they are relative to the list. RunError."""
    text = io.StringIO()
    writer = csv_files.Writer(text)
    writer.writerow(COLUMNS)
    for clip in clips:
        path = clip.path if os.path.isabs(clip.path) else os.path.relpath(root / clip.path, output.parent)
        writer.writerow((path, *map(manifest_listings.time_text, (clip.start, clip.end)), clip.label))
    try:
        files.write_atomic(output, text.getvalue().encode("utf-8", "surrogateescape"))
    except OSError as fault:
        raise errors.RunError(f"{output} cannot be written: {fault.strerror or fault}") from fault
