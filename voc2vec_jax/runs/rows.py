"""The rows of `metrics.jsonl`: one JSON object a line, in the order of their steps, read in bounded memory."""

import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import numpy as np

from voc2vec_jax import opening
from voc2vec_jax.runs import files

Row = dict[str, Any]


def line(row: Mapping[str, Any]) -> bytes:
    """`row` as one line of JSON. Scalars of NumPy and JAX become numbers; NaN and infinities become null.

    A list may hold strings.
    """
    return (json.dumps({name: _plain(value) for name, value in row.items()}, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    if not isinstance(value, float):
        array = np.asarray(value)
        if array.ndim:
            raise ValueError(f"a metric is a scalar, not an array of shape {array.shape}")
        if array.dtype.kind in "biu":
            return array.item()
        value = float(str(array[()]))  # the shortest text: 0.1 of a float32, not 0.10000000149011612
    return value if math.isfinite(value) else None


def _parsed(text: bytes) -> Row | None:
    """The row of a line; None when a kill cut it short or it is none."""
    try:
        row = json.loads(text)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def read(path: str | pathlib.Path) -> Iterator[Row]:
    """The rows of a metrics file, one after another. A line that a kill cut short is left out."""
    with opening.regular(path) as file:
        yield from filter(None, map(_parsed, file))


def tail(path: str | pathlib.Path, most_bytes: int) -> list[Row]:
    """The rows of at most the last so many bytes of a metrics file."""
    with opening.regular(path) as file:
        size = file.seek(0, os.SEEK_END)
        # One byte more shows whether a line begins just there.
        file.seek(max(0, size - most_bytes - 1))
        if size > most_bytes:
            file.readline()
        return list(filter(None, map(_parsed, file)))


def repair(path: pathlib.Path, last_step: int, seen: Callable[[Row], Any] = lambda row: None) -> None:
    """Leave each (step, split) up to `last_step` once and nothing else; `seen` gets the rows that stay.

    What a kill leaves at the end is cut off. The file is written anew only when something before that is wrong.
    """
    if not path.exists():
        return
    place = end = 0
    whole = True  # what is kept is all that lies before `end`
    with opening.regular(path) as file:
        for text, row in _sound(file, last_step):
            if row is not None:
                whole = whole and end == place and text.endswith(b"\n")
                end = place + len(text)
                seen(row)
            place += len(text)
    if not whole:
        _rewrite(path, last_step)
    elif end < place:
        with open(path, "rb+") as file:
            file.truncate(end)
            files.sync_file(file)


def _sound(file: IO[bytes], last_step: int) -> Iterator[tuple[bytes, Row | None]]:
    """Every line of a file with its row; None for a row that is damaged, too late, or there already."""
    step, splits = -1, set()
    for text in file:
        row = _parsed(text)
        # Steps ascend in a sound file: what goes back to an earlier one is a double.
        if row is None or row["step"] > last_step or row["step"] < step:
            yield text, None
            continue
        if row["step"] > step:
            step, splits = row["step"], set()
        yield text, None if row.get("split") in splits else row
        splits.add(row.get("split"))


def _rewrite(path: pathlib.Path, last_step: int) -> None:
    with opening.regular(path) as old, files.atomic(path) as new:
        for text, row in _sound(old, last_step):
            if row is not None:
                new.write(text.rstrip(b"\n") + b"\n")
