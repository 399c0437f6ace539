"""Lists of recordings, read by one set of rules for preparing, fine-tuning and evaluating.

A list is one of three kinds. A *table* is a csv or tsv file whose first line names its columns, with a recording or a
stretch of one in each row; commas, semicolons or tabs separate them. A *fairseq* manifest has a root folder in its
first line, then a path, a tab and the number of frames in each. *Plain* text has a path a line.
"""

import contextlib
import dataclasses
import difflib
import functools
import itertools
import math
import operator
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from voc2vec_jax import errors
from voc2vec_jax.datasets import file_names, list_text

COLUMNS = ("path", "label", "group", "split", "start", "end")
PARTS = ("train", "validation", "test")
# Names of parts that are understood beside PARTS
OTHER_PARTS = {"training": "train", "val": "validation", "valid": "validation", "dev": "validation"}
OTHER_PARTS |= {"development": "validation", "testing": "test"}
TABLE_SUFFIXES = (".csv", ".tsv")
SEPARATORS = ("\t", ";", ",")
# What people call the columns, for a hint
_MEANT = {"file": "path", "filename": "path", "audio": "path", "class": "label", "category": "label", "target": "label"}
_MEANT |= {"speaker": "group", "subject": "group", "participant": "group", "fold": "split", "part": "split"}
_MEANT |= {"onset": "start", "begin": "start", "offset": "end", "stop": "end"}
_FAIRSEQ_ROW = re.compile(r"[^\t]+\t[0-9]+\s*")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)  # how Excel is told
_plain = functools.lru_cache(1 << 16)(list_text.plain)


class Row(NamedTuple):
    """A recording, or the stretch of it from `start_seconds` to `end_seconds`; these are None for all of it."""

    line: int
    path: str  # as it is on the disk, absolute or relative to the list's root; as written if it is not there
    label: str = ""
    group: str = ""
    part: str = ""  # one of PARTS; "" where there is no column split
    start_seconds: float | None = None
    end_seconds: float | None = None
    id: str = ""
    frames: int | None = None  # of the file, as a fairseq manifest says


@dataclasses.dataclass
class Table:
    """An open list of the `kind` "table", "fairseq" or "plain"; paths are relative to `root`.

    `rows` may be read once; then the other fields are complete. `columns` are those that are known, `unreadable` names
    rows without a path (with `strict` they are an InputError), and `notes` are to be said.
    """

    manifest: pathlib.Path
    kind: str
    root: pathlib.Path
    lines: list_text.Numbered
    separator: str = ""
    header: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    strict: bool = False
    unreadable: list[dict[str, str]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def rows(self) -> Iterator[Row]:
        """Every row with a path. File names keep their spaces if there is such a file.

        Spaces around labels, groups and parts are left out, which a note says once. InputError for the part of another
        name, times that are no stretch, a path that may be one of several files, and a quote that is never closed.
        """
        find = file_names.Finder(self.root).find
        if self.kind == "table":
            yield from self._table_rows(find)
        for number, line in self.lines:  # none are left of a table
            text, frames = line.rstrip("\n"), None
            if self.kind == "fairseq":
                text, _, told = text.rpartition("\t")
                frames = int(told) if told.strip().isdecimal() else None
            if text and not text.isspace() and (self.kind == "plain" or frames is not None):
                yield Row(number, find(text), "", "", "", None, None, "", frames)
            elif not line.isspace():
                self._leave_out(f"{self.manifest} line {number}", "is not a path, a tab and a number")

    def _table_rows(self, find: Callable[[str], str]) -> Iterator[Row]:
        at = {name: self.header.index(name) for name in self.columns}
        path_at, width = at["path"], len(self.header)
        described = ("label", "group", "split")
        pick = operator.itemgetter(*(at.get(name, -1) for name in described))
        is_divided, has_times, id_at = "split" in at, "start" in at, at.get("id", -1)
        spaced, parts, groups, headers = Counter(), Counter(), set(), 0
        for number, fields in list_text.rows(self.manifest, self.lines, self.separator, tuple(at.values())):
            if len(fields) != width or not fields[path_at].strip():
                fields = self._fitted(number, fields)
                if fields is None:
                    continue
            if fields[path_at] == "path" and [_plain(field).lower() for field in fields] == list(self.header):
                headers += 1
                continue
            path = find(fields[path_at])
            fields.append("")  # the last field, and so that of a column that is not there
            written = pick(fields)
            label, group, part = regular = tuple(map(_plain, written))
            if regular != written:
                spaced.update(each for each in zip(described, written) if _plain(each[1]) != each[1])
            groups.add(group)
            start = end = None
            if is_divided:
                parts[part] += 1
                part = _part(self.manifest, number, path, part)
            if has_times:
                start, end = _stretch(self.manifest, number, path, fields, at, self.separator)
            yield Row(number, path, label, group, part, start, end, fields[id_at].strip())
        self.notes += _notes(self, spaced, parts)
        self.notes += [f"{self.manifest}: the header is there {headers + 1} times"] if headers else []
        self.notes += _alike(self.manifest, groups)

    def _fitted(self, number: int, fields: list[str]) -> list[str] | None:
        """The fields of a row, as many as the header has; None for a row that is blank or has no path."""
        width, path_at = len(self.header), self.header.index("path")
        if not any(field.strip() for field in fields):
            return None
        if not any(field.strip() for field in fields[width:]):  # what spreadsheets leave behind
            fields = [*fields[:width], *[""] * (width - len(fields))]
        path = fields[path_at].strip()
        if len(fields) > width:
            fault = f"has {len(fields)} fields and the header {width}: quote what holds a separator"
        elif not path:
            fault = "has no path: fill it in, or delete the line"
        else:
            return fields
        self._leave_out(path or str(self.manifest), f"line {number} {fault}")
        return None

    def _leave_out(self, path: str, reason: str) -> None:
        if self.strict:
            raise errors.InputError(
                f"{self.manifest}: {path} {reason}" if path != str(self.manifest) else f"{path} {reason}"
            )
        self.unreadable.append({"path": path, "reason": reason})


@contextlib.contextmanager
def opened(manifest: pathlib.Path, columns: Collection[str] = COLUMNS, strict: bool = False) -> Iterator[Table]:
    """The list in a file, of which `columns` are read.

    InputError for a file that is no text, a table without `path`, with a column twice or with `start` and no `end`, and
    a fairseq manifest whose root is not there.
    """
    with list_text.opened(manifest) as file:
        lines = list_text.number_lines(file)
        number, first = next(((number, line) for number, line in lines if line.strip()), (1, ""))
        given = _SEPARATOR_LINE.fullmatch(first.strip("\r\n "))
        if given:
            number, first = next(lines, (number, ""))
        for separator in (given[1],) if given else SEPARATORS:
            header = _header(manifest, number, first, separator)
            if "path" in header:
                known = tuple(name for name in columns if name in header)
                _check_header(manifest, header, known)
                yield Table(manifest, "table", manifest.parent, lines, separator, header, known, strict)
                return
        yield _without_header(manifest, (number, first), lines, given is not None, strict)


def _header(manifest: pathlib.Path, number: int, line: str, separator: str) -> tuple[str, ...]:
    """The names of the columns in lower case; () for a line that cannot be a header."""
    try:
        ((_, fields),) = list_text.rows(manifest, iter([(number, line)]), separator)
    except errors.InputError:
        return ()
    return tuple(list_text.plain(field).lower() for field in fields)


def _without_header(
    manifest: pathlib.Path, first: tuple[int, str], lines: list_text.Numbered, is_table: bool, strict: bool
) -> Table:
    """A list whose first line does not name the column path."""
    second = next(lines, None)
    if "\t" not in first[1] and second and _FAIRSEQ_ROW.fullmatch(second[1]):
        root = manifest.parent / file_names.Finder(manifest.parent).find(first[1].rstrip("\n"))
        if not root.is_dir():
            raise errors.InputError(
                f"the first line of {manifest} names the folder {first[1].strip()!r}, which is not there"
            )
        return Table(manifest, "fairseq", root, itertools.chain([second], lines), strict=strict)
    headers = [_header(manifest, *first, separator) for separator in SEPARATORS]
    near = next(filter(None, (hint(header) for header in headers if len(header) > 1)), "")
    if is_table or near or manifest.suffix.lower() in TABLE_SUFFIXES or not first[1].strip():
        said = f"begins with {first[1].rstrip()[:80]!r}" if first[1].strip() else "lists no recordings, as it is empty"
        raise errors.InputError(
            f"{manifest} {said}: its first line must name the columns (path, optionally {', '.join(COLUMNS[1:])}){near}"
            ", or be the root folder of a fairseq manifest"
        )
    return Table(
        manifest,
        "plain",
        manifest.parent,
        itertools.chain([first, *([second] if second else [])], lines),
        strict=strict,
    )


def _check_header(manifest: pathlib.Path, header: Sequence[str], columns: Sequence[str]) -> None:
    for name in columns:
        if header.count(name) > 1:
            raise errors.InputError(f"{manifest} has the column {name} {header.count(name)} times: leave one")
    if ("start" in columns) != ("end" in columns):
        there, absent = ("start", "end") if "start" in columns else ("end", "start")
        raise errors.InputError(f"{manifest} has a column {there} and none named {absent}: give both, in seconds")


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
        # A comma that separates no fields is a decimal point, as spreadsheets of many places write it.
        start, end = (float(text if delimiter == "," else text.replace(",", ".")) for text in texts)
        good = 0 <= start < end < math.inf
    except ValueError:
        good = False
    if not good:
        raise errors.InputError(
            f"{manifest} line {line} takes {path} from {texts[0] or 'nothing'} to {texts[1] or 'nothing'}: give start "
            "and end in seconds, 0 <= start < end, or leave both empty for the whole recording"
        )
    return start, end


def hint(header: Sequence[str]) -> str:
    """What the first unknown column that resembles a known one may be; "" if none does."""
    for name in header:
        near = [_MEANT[name]] if name in _MEANT else difflib.get_close_matches(name, COLUMNS, 1, 0.6)
        if name not in COLUMNS and near and near[0] not in header:
            return f"; call {name} {near[0]} if it is that"
    return ""


def _notes(table: Table, spaced: Counter[tuple[str, str]], parts: Counter[str]) -> list[str]:
    manifest, notes = table.manifest, []
    read = [name for name in COLUMNS if name in table.columns or name not in table.header]
    if unknown := [name for name in table.header if name and name not in (*COLUMNS, *table.columns)]:
        notes.append(
            f"{manifest}: the column{'s' if len(unknown) > 1 else ''} {', '.join(unknown)} "
            f"{'are' if len(unknown) > 1 else 'is'} not read (those that are: {', '.join(read)}){hint(table.header)}"
        )
    around = [each for each in spaced if each[1].strip() == _plain(each[1])]
    for fields, trait in (
        (around, "had spaces around {}, which were left out"),
        (
            [each for each in spaced if each not in around],
            "had invisible characters or loose accents in {}, now regular",
        ),
    ):
        if fields:
            count = sum(spaced[each] for each in fields)
            many, them = ("s", "them") if count > 1 else ("", "it")
            example = f"{fields[0][0]} {fields[0][1]!a}"
            notes.append(f"{manifest}: {count} field{many} {trait.format(them)}, such as {example}")
    if others := [name for name in parts if name not in PARTS]:
        taken = ", ".join(f"{name!r} as {OTHER_PARTS.get(name.lower(), name.lower())}" for name in others)
        notes.append(f"{manifest}: in the column split, {taken}")
    return notes


def _alike(manifest: pathlib.Path, groups: Collection[str]) -> list[str]:
    """A note on groups that differ only in case, between which a split would tell."""
    first: dict[str, str] = {}
    pairs = [
        (other, group) for group in sorted(groups) if (other := first.setdefault(group.casefold(), group)) != group
    ]
    if not pairs:
        return []
    return [
        f"{manifest}: the groups {pairs[0][0]!r} and {pairs[0][1]!r} differ only in case and count as two: write one "
        "of them for both if they are one"
    ]
