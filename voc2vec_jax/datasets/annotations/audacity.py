"""Audacity's labels: a line for each, with start, end and label between tabs.

https://manual.audacityteam.org/man/importing_and_exporting_labels.html
"""

import pathlib
import re
from collections.abc import Iterable

from voc2vec_jax import errors
from voc2vec_jax.datasets.annotations import text

NAME = "audacity"
ENDING = ".txt"
_FREQUENCIES = "\\"  # begins the line with the frequencies of the label above

_LINE = re.compile(r"\s*-?[0-9]+[.,]?[0-9]*\t-?[0-9]+[.,]?[0-9]*(\t.*)?\s*")


def is_label(line: str) -> bool:
    """Whether a line looks like a label."""
    return _LINE.fullmatch(line) is not None


def read(path: pathlib.Path) -> text.LabelFile:
    """The labels of a file; InputError for a line that is none."""
    found = text.LabelFile(path, NAME)
    with text.opened(path) as lines:
        for number, line in lines:
            if not line.strip() or line.startswith(_FREQUENCIES):
                continue
            start, *rest = line.rstrip("\n").split("\t", 2)
            if not rest:
                raise errors.InputError(
                    f"{path} line {number} is {line.strip()[:60]!r}: a label of Audacity is start, end and text with "
                    "tabs between"
                )
            found.add(number, start, rest[0], rest[1] if len(rest) > 1 else "")
    return found


def write(segments: Iterable[text.Segment]) -> str:
    """The labels as Audacity imports them."""
    return "".join(
        f"{each.start:.{text.DIGITS}f}\t{each.end:.{text.DIGITS}f}\t{text.one_line(each.label)}\n" for each in segments
    )
