"""Tables as csv files, in which no text is a formula.

A spreadsheet computes a cell that begins with = + - or @, and what it computes may call programs and addresses. Such
text gets an apostrophe in front, which spreadsheets show as text; numbers stay. Reading takes it off again.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from typing import Any

_SIGNS = "=+\\-@\uff1d\uff0b\uff0d\uff20\t\r\n"  # the wide ones count in some languages, spaces are passed over
_TAKEN = re.compile(f"'*[{_SIGNS}]")
_QUOTED = re.compile(f"'+[{_SIGNS}]")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+|inf|nan)")
_FIRST = frozenset("=+-@\uff1d\uff0b\uff0d\uff20\t\r\n'")


def quoted(cell: Any) -> Any:
    """A cell as it is written: text that would be a formula with an apostrophe in front."""
    if type(cell) is str and cell[:1] in _FIRST and cell and _TAKEN.match(cell) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def unquoted(cell: str) -> str:
    """A cell as it was before it was written; also of a table by hand, in which such text is quoted likewise."""
    return cell[1:] if cell[:1] == "'" and _QUOTED.match(cell) else cell


class Writer:
    """As `csv.writer`, with lines that end in a line feed. A field with a carriage return is still quoted."""

    def __init__(self, file: io.TextIOBase):
        self._writer = csv.writer(_Lines(file))

    def writerow(self, row: Iterable[Any], numbers: Iterable[str] = ()) -> None:
        """One row; None is an empty cell. `numbers` follow as they are."""
        self._writer.writerow([*map(quoted, row), *numbers])

    def writerows(self, rows: Iterable[Iterable[Any]]) -> None:
        """Several rows."""
        for row in rows:
            self.writerow(row)


class Reader:
    """As `csv.reader`, of rows that `Writer` wrote."""

    def __init__(self, lines: Iterable[str], **options: Any):
        self._reader = csv.reader(lines, **options)

    @property
    def line_num(self) -> int:
        """Lines read so far."""
        return self._reader.line_num

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        return [unquoted(cell) for cell in next(self._reader)]


class DictReader(csv.DictReader):
    """As `csv.DictReader`, of rows that `Writer` wrote."""

    def __init__(self, lines: Iterable[str], **options: Any):
        super().__init__(lines, **options)
        self.reader = Reader(lines, **{key: value for key, value in options.items() if key == "strict"})


class _Lines:
    def __init__(self, file: io.TextIOBase):
        self._file = file

    def write(self, line: str) -> None:
        """A line that `csv` ends in its own way."""
        self._file.write(line.removesuffix("\r\n") + "\n")
