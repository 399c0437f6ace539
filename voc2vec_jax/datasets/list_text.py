"""The text of a list: its encoding, its lines, and the fields of a line, as spreadsheets and programs write them."""

import codecs
import contextlib
import csv
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

from voc2vec_jax import errors, opening
from voc2vec_jax.runs import csv_files

# The marks of UTF-32 begin with those of UTF-16, so they come first.
ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
HEAD_BYTES = 4096
SAVE_AS = "save it as UTF-8 text (in a spreadsheet: CSV UTF-8)"
INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"  # zero width spaces and joiners, marks of direction and order

Numbered = Iterator[tuple[int, str]]


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[IO[str]]:
    """A text file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark; every line ends with a line feed.

    InputError for what is no such text, wherever in the file that shows, for a file that cannot be read, and for a pipe
    or device, which could be read once only.
    """
    try:
        if not path.is_file():
            raise errors.InputError(f"{path} is no file but a pipe, device or folder: write the list to a file")
        with opening.regular(path) as binary:
            head = binary.read(HEAD_BYTES)
        encoding = next((encoding for mark, encoding in ENCODINGS if head.startswith(mark)), "utf-8")
        if encoding == "utf-8" and b"\0" in head:
            kind = (
                "an archive or workbook" if head.startswith(b"PK") else "no text, or UTF-16 without a byte order mark"
            )
            raise errors.InputError(f"{path} is {kind}: {SAVE_AS}")
        with opening.regular(path, "r", encoding=encoding) as file:
            yield file
    except UnicodeDecodeError as error:
        where = f" (line {_bad_line(path)})" if encoding.startswith("utf-8") else f" ({error.reason})"
        raise errors.InputError(
            f"{path} is not text in {encoding.upper()[:6].rstrip('-')}{where}: {SAVE_AS}"
        ) from error
    except OSError as error:
        raise errors.InputError(f"{path} cannot be read ({error.strerror})") from error


def _bad_line(path: pathlib.Path) -> int:
    """The number of the first line that is not UTF-8."""
    with opening.regular(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 0


def rows(
    path: pathlib.Path, lines: Numbered, separator: str, read: Sequence[int] | None = None
) -> Iterator[tuple[int, list[str]]]:
    """The number of each row's line, and its fields. A quoted field may hold separators and, doubled, quotes.

    Only fields that are not among those to be `read` (None: all are) may run over several lines. InputError for one
    that is read and does, and for a quote that is never closed or has text behind it.
    """
    first = last = 0  # lines of the row that is read

    def feed() -> Iterator[str]:
        nonlocal first, last
        for number, line in lines:
            first, last = first or number, number
            yield _without_loose_spaces(line, separator) if '"' in line else line

    reader = csv.reader(feed(), delimiter=separator, strict=True)
    try:
        for fields in reader:
            if last > first and any("\n" in field for field in _picked(fields, read)):
                raise csv.Error
            yield first, list(map(csv_files.unquoted, fields))
            first = 0
    except csv.Error as error:
        raise errors.InputError(
            f"{path} line {first} opens a quote that it does not close, or has text behind a closing one: put quotes "
            'around a whole field, and write one within it twice ("")'
        ) from error


def _picked(fields: Sequence[str], places: Sequence[int] | None) -> Sequence[str]:
    return fields if places is None else [fields[place] for place in places if place < len(fields)]


def _without_loose_spaces(line: str, separator: str) -> str:
    """A line without spaces between a separator and a quote, which belong to neither."""
    if '""' not in line and (' "' in line or '" ' in line):
        line = re.sub(rf'(^|{re.escape(separator)}) +"', r'\1"', line)
        line = re.sub(rf'" +(?={re.escape(separator)}|$)', '"', line)
    return line


def number_lines(lines: Iterable[str]) -> Numbered:
    """Each line with its number, from 1."""
    return enumerate(lines, 1)


def plain(text: str) -> str:
    """A label, a group or a column's name: without spaces and invisible characters around it, and composed (NFC)."""
    text = text.strip()
    if text.isascii():
        return text
    while (shorter := text.strip(INVISIBLE).strip()) != text:
        text = shorter
    return unicodedata.normalize("NFC", text)
