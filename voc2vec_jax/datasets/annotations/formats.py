"""Which format a label file is in, by its content; names of files whose labels another file holds."""

import pathlib
import re
from types import ModuleType
from typing import IO

from voc2vec_jax.datasets import list_text
from voc2vec_jax.datasets.annotations import audacity, raven, rttm, text, textgrid

FORMATS: dict[str, ModuleType] = {module.NAME: module for module in (audacity, textgrid, rttm, raven)}
# Endings that programs give, longest first: what is left is the name of the recording
ENDINGS = (".selections.txt", ".textgrid", ".rttm", ".txt", ".tsv")
_HEAD_LINES = 100
_SERIAL = re.compile(r"\.(table\.\d+|table|labels|selections)$", re.IGNORECASE)  # what Raven and others add to the name


def kind_of(path: pathlib.Path) -> str:
    """The name of the format of a file; "" for what is none of them. InputError for a file that cannot be read."""
    if path.suffix.lower() == textgrid.ENDING.lower():
        return textgrid.NAME
    if path.suffix.lower() == rttm.ENDING:
        return rttm.NAME
    if path.suffix.lower() not in (".txt", ".tsv"):
        return ""
    with list_text.opened(path) as file:
        first = _first_line(file)
    if raven.is_header(first):
        return raven.NAME
    if first.startswith('File type = "ooTextFile'):
        return textgrid.NAME
    return audacity.NAME if audacity.is_label(first) else ""


def _first_line(file: IO[str]) -> str:
    """The first line that is not blank, or as much of it as tells the format."""
    for _ in range(_HEAD_LINES):
        line = file.readline(list_text.HEAD_BYTES)
        if line.strip():
            return line
    return ""


def read(path: pathlib.Path, kind: str) -> text.LabelFile:
    """The segments of a file of the format `kind`; InputError for what is malformed in it."""
    return FORMATS[kind].read(path)


def stems(name: str) -> list[str]:
    """What the recording of a label file may be called, with or without its ending, likeliest first.

    Raven calls its files recording.Table.1.selections.txt.
    """
    ending = next((ending for ending in ENDINGS if name.lower().endswith(ending)), "")
    found = [name[: len(name) - len(ending)]]
    while (shorter := _SERIAL.sub("", found[-1])) != found[-1]:
        found.append(shorter)
    return found
