"""The csv files of published data sets: read despite different spellings of their columns, and joined to files."""

import csv
import io
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence

from voc2vec_jax import errors
from voc2vec_jax.datasets import listings, trees

Row = dict[str, str]


def read(
    tree: trees.Tree, name: str, columns: Sequence[str], *, delimiter: str = ",", header: bool = True
) -> list[Row]:
    """The rows of a csv file as dictionaries, without blank rows. Column names are compared by `plain`.

    With `header`, the first line must name all `columns`; without one, `columns` are the names.
    `errors.InputError` when a column is missing or the file is not a csv file.
    """
    rows = csv.reader(io.StringIO(text(tree, name), newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        names = [plain(column) for column in next(rows, [])] if header else list(columns)
        missing = [column for column in columns if column not in names]
        if missing:
            raise errors.InputError(
                f"{name} of {tree.root} has the columns {', '.join(names) or 'of an empty file'} and not "
                f"{', '.join(missing)}: get it again"
            )
        found = []
        for row in rows:
            if any("\n" in field for field in row):  # it holds the rows that follow, up to the next quotation mark
                raise errors.InputError(
                    f"{name} of {tree.root} has a quotation mark that is not closed, before the end of line "
                    f"{rows.line_num}: get it again"
                )
            if any(map(str.strip, row)):
                found.append(dict(zip(names, map(str.strip, row))))
        return found
    except csv.Error as error:
        raise errors.InputError(f"{name} of {tree.root} is not a csv file ({error}): get it again") from error


def split(lines: Iterable[str], name: str) -> Iterator[list[str]]:
    """The fields of each line, separated by commas; `errors.InputError` for a malformed line."""
    try:
        yield from csv.reader(lines, skipinitialspace=True)
    except csv.Error as error:
        raise errors.InputError(f"{name} is not a csv file ({error}): get it again") from error


def text(tree: trees.Tree, name: str) -> str:
    """A text file: UTF-8 with or without a byte order mark, else Windows-1252."""
    data = tree.read(name)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def plain(column: str) -> str:
    """A column's name in lower case, letters and digits only."""
    return re.sub("[^a-z0-9]", "", column.lower())


def by_file(rows: Iterable[Row], column: str) -> tuple[dict[str, Row], list[str]]:
    """Rows by `key_of` the file that they name, and notes on files that several different rows name."""
    found: dict[str, Row] = {}
    repeats = []
    for row in rows:
        key = key_of(row.get(column, ""))
        if key and found.setdefault(key, row) != row:
            repeats.append(row[column])
    notes = [f"left out, {errors.counted(len(repeats), 'row')} of a file named before, with other fields"]
    return found, [f"{notes[0]}: {listings.some(repeats)}"] if repeats else []


def compare(rows: dict[str, Row], column: str, paths: Iterable[str]) -> list[str]:
    """Notes on rows without a file and on files without a row."""
    files = {key_of(path): path for path in paths}
    without_file = [row[column] for key, row in rows.items() if key not in files]
    without_row = [path for key, path in files.items() if key not in rows]
    notes = []
    if without_file:
        notes.append(
            f"{errors.counted(len(without_file), 'row')} of the csv without the file: {listings.some(without_file)}"
        )
    if without_row:
        notes.append(
            f"{errors.counted(len(without_row), 'file')} without a row in the csv: {listings.some(without_row)}"
        )
    return notes


def key_of(path: str) -> str:
    """A file's name without its folder, in lower case."""
    return posixpath.basename(path.replace("\\", "/")).lower()
