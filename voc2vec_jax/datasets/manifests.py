"""A manifest: a csv or tsv file whose first line names its columns, with a recording or a stretch of one in each row.

The columns are `path`, and if wanted `label`, `group`, `split` (the part of a given division), and `start` and `end`
in seconds. Commas, semicolons or tabs separate them, by the first line.
"""

import csv
import dataclasses
import difflib
import math
import pathlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from voc2vec_jax import errors

COLUMNS = ("path", "label", "group", "split", "start", "end")
PARTS = ("train", "validation", "test")
# Names of parts that are understood beside PARTS
OTHER_PARTS = {"training": "train", "val": "validation", "valid": "validation", "dev": "validation"}
OTHER_PARTS |= {"development": "validation", "testing": "test"}
# What people call the columns, for a hint
_MEANT = {"file": "path", "filename": "path", "audio": "path", "class": "label", "category": "label", "target": "label"}
_MEANT |= {"speaker": "group", "subject": "group", "participant": "group", "fold": "split", "part": "split"}
_MEANT |= {"onset": "start", "begin": "start", "offset": "end", "stop": "end"}


class Row(NamedTuple):
    """A recording, or the stretch of it from `start_seconds` to `end_seconds`; these are None for all of it."""

    line: int
    path: str  # as written
    label: str
    group: str
    part: str  # one of PARTS; "" where there is no column split
    start_seconds: float | None
    end_seconds: float | None


@dataclasses.dataclass
class Table:
    """An open manifest whose first line is `first`. `rows` may be read once; then the other fields are complete.

    `columns` are those that are known, `unreadable` names rows without a path, and `notes` are to be said.
    """

    manifest: pathlib.Path
    first: str
    file: Iterator[str]
    columns: tuple[str, ...] = ()
    unreadable: list[dict[str, str]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def rows(self) -> Iterator[Row]:
        """Every row with a path.

        Spaces around labels, groups and parts are left out, which a note says once. InputError for a header without
        `path` or with a column twice, `start` without `end`, a part of another name, and times that are no stretch.
        """
        first = self.first
        delimiter = "\t" if "\t" in first else ";" if ";" in first and "," not in first else ","
        lines = csv.reader(self.file, delimiter=delimiter)
        header = [column.strip().lower() for column in next(lines, [])]
        _check_header(self.manifest, header, first)
        self.columns = tuple(name for name in COLUMNS if name in header)
        spaced, parts = Counter(), Counter()
        at = {name: header.index(name) for name in self.columns}
        described = [(name, at.get(name)) for name in ("label", "group", "split")]
        for fields in lines:
            if len(fields) != len(header) or not fields[at["path"]].strip():
                fields = fields + [""] * (len(header) - len(fields))
                path, reason = fields[at["path"]].strip(), _row_fault(fields, header, at, lines.line_num)
                if reason:
                    self.unreadable.append({"path": path or str(self.manifest), "reason": reason})
                if reason or not path:
                    continue
            path = fields[at["path"]].strip()
            label, group, part = [_stripped(fields, name, place, spaced) for name, place in described]
            if "split" in at:
                parts[part] += 1
                part = _part(self.manifest, lines.line_num, path, part)
            stretch = (None, None)
            if "start" in at:
                stretch = _stretch(self.manifest, lines.line_num, path, fields, at, delimiter)
            yield Row(lines.line_num, path, label, group, part, *stretch)
        self.notes += _notes(self.manifest, header, spaced, parts)


def _check_header(manifest: pathlib.Path, header: Sequence[str], first: str) -> None:
    if "path" not in header:
        raise errors.InputError(
            f"{manifest} begins with {first[:80]!r}: its first line must name the columns (path, optionally "
            f"{', '.join(COLUMNS[1:])}){_hint(header)}, or be the root folder of a fairseq manifest"
        )
    for name in COLUMNS:
        if header.count(name) > 1:
            raise errors.InputError(f"{manifest} has the column {name} {header.count(name)} times: leave one")
    if ("start" in header) != ("end" in header):
        there, absent = ("start", "end") if "start" in header else ("end", "start")
        raise errors.InputError(f"{manifest} has a column {there} and none named {absent}: give both, in seconds")


def _row_fault(row: Sequence[str], header: Sequence[str], at: dict[str, int], line: int) -> str:
    """What is wrong with a row of a manifest; "" for a good or blank one."""
    if not any(field.strip() for field in row):
        return ""
    if len(row) > len(header):
        return f"line {line} has {len(row)} fields and the header {len(header)}: quote a path that holds a comma"
    return "" if row[at["path"]].strip() else f"line {line} has no path"


def _stripped(fields: Sequence[str], name: str, place: int | None, spaced: Counter[str]) -> str:
    """The field of a column without spaces around it; "" without the column. Counts what had spaces."""
    if place is None:
        return ""
    text = fields[place]
    plain = text.strip()
    if plain != text:
        spaced[f"{name} {text!r}"] += 1
    return plain


def _part(manifest: pathlib.Path, line: int, path: str, text: str) -> str:
    name = text.lower()
    name = OTHER_PARTS.get(name, name)
    if name not in PARTS:
        raise errors.InputError(
            f"{manifest} line {line} puts {path} into the split {text!r}: the parts are {', '.join(PARTS)}"
        )
    return name


def _stretch(
    manifest: pathlib.Path, line: int, path: str, fields: Sequence[str], at: dict[str, int], delimiter: str
) -> tuple[float | None, float | None]:
    """Start and end in seconds; (None, None) where both fields are blank, which stands for the whole recording."""
    texts = [fields[at[name]].strip() for name in ("start", "end")]
    if not any(texts):
        return None, None
    try:
        # A file with semicolons comes from a place where the comma is the decimal point.
        start, end = (float(text.replace(",", ".") if delimiter == ";" else text) for text in texts)
        good = 0 <= start < end < math.inf
    except ValueError:
        good = False
    if not good:
        raise errors.InputError(
            f"{manifest} line {line} takes {path} from {texts[0] or 'nothing'} to {texts[1] or 'nothing'}: give start "
            "and end in seconds, 0 <= start < end, or leave both empty for the whole recording"
        )
    return start, end


def _hint(header: Sequence[str]) -> str:
    """What the first unknown column that resembles a known one may be; "" if none does."""
    for name in header:
        near = [_MEANT[name]] if name in _MEANT else difflib.get_close_matches(name, COLUMNS, 1, 0.6)
        if name not in COLUMNS and near and near[0] not in header:
            return f"; call {name} {near[0]} if it is that"
    return ""


def _notes(manifest: pathlib.Path, header: Sequence[str], spaced: Counter[str], parts: Counter[str]) -> list[str]:
    notes = []
    if unknown := [name for name in header if name and name not in COLUMNS]:
        notes.append(
            f"{manifest}: the column{'s' if len(unknown) > 1 else ''} {', '.join(unknown)} "
            f"{'are' if len(unknown) > 1 else 'is'} not read (those that are: {', '.join(COLUMNS)}){_hint(header)}"
        )
    if spaced:
        notes.append(
            f"{manifest}: {spaced.total()} field{'s' if spaced.total() > 1 else ''} had spaces around "
            f"{'them' if spaced.total() > 1 else 'it'}, which were left out, such as {next(iter(spaced))}"
        )
    if others := [name for name in parts if name not in PARTS]:
        taken = ", ".join(f"{name!r} as {OTHER_PARTS.get(name.lower(), name.lower())}" for name in others)
        notes.append(f"{manifest}: in the column split, {taken}")
    return notes
