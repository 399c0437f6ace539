"""Praat's TextGrids, long and short text files: tiers of intervals, of which those with a text are segments.

Praat reads numbers, quoted texts and flags that stand by themselves, and skips everything else ("Object class =",
"intervals [1]:"). So does this module, and the two kinds of text file are one.
https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html
"""

import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

from voc2vec_jax import errors, opening
from voc2vec_jax.datasets import list_text
from voc2vec_jax.datasets.annotations import text

NAME = "textgrid"
ENDING = ".TextGrid"
HEAD = "ooTextFile"
BINARY = b"ooBinaryFile"
_INTERVALS, _POINTS = "IntervalTier", "TextTier"
# A quoted text, a flag or a number, each by itself; then a comment, and words that are skipped
_TOKEN = re.compile(
    r'(?<!\S)(?:("(?:[^"]++|"")*+")|(<[a-z]+>)(?!\S)|([-+]?[0-9.,]++(?:[eE][-+]?[0-9]+)?)(?!\S))|!.*|\S+'
)

Token = tuple[int, str]  # line, and a text with its quotes, a flag or a number


def read(path: pathlib.Path) -> text.LabelFile:
    """The intervals with a text, of all tiers; points are left out. InputError for a file that is no whole TextGrid."""
    _refuse_binary(path)
    found = text.LabelFile(path, NAME)
    with text.opened(path) as lines:
        reader = _Reader(found, _tokens(path, lines))
        if not (reader.string("the kind of file").startswith(HEAD) and reader.string("a class") == "TextGrid"):
            raise errors.InputError(f"{path} is no TextGrid: save one from Praat as a text file")
        reader.number("a time")
        reader.number("a time")
        tiers = reader.count("tiers") if reader.take("<exists> or <absent>")[1] == "<exists>" else 0
        names = []
        for _ in range(tiers):
            kind, name = reader.string("the class of a tier"), reader.string("the name of a tier")
            if kind not in (_INTERVALS, _POINTS):
                raise errors.InputError(
                    f"{path} has a tier {name[:40]!r} of the class {kind[:40]!r}: {_INTERVALS} is read"
                )
            names += [name] if kind == _INTERVALS else []
            reader.number("a time")
            reader.number("a time")
            for _ in range(reader.count(f"intervals of the tier {name}")):
                reader.interval() if kind == _INTERVALS else reader.point(name)
    if len(names) > 1:
        found.notes.append(f"{path}: labels are taken from {len(names)} tiers ({', '.join(names[:5])})")
    return found


def _refuse_binary(path: pathlib.Path) -> None:
    try:
        with opening.regular(path) as file:
            if file.read(len(BINARY)) == BINARY:
                raise errors.InputError(f"{path} is a binary TextGrid: save it from Praat as a text file")
    except OSError as error:
        raise errors.InputError(f"{path} cannot be read ({error.strerror})") from error


class _Reader:
    """Takes the tokens of a file one by one; InputError where another one is due."""

    def __init__(self, found: text.LabelFile, tokens: Iterator[Token]):
        self._found, self._tokens = found, tokens

    def take(self, what: str) -> Token:
        token = next(self._tokens, None)
        if token is None:
            raise errors.InputError(f"{self._found.path} ends where {what} should follow: it is not whole")
        return token

    def string(self, what: str) -> str:
        line, token = self.take(what)
        if not token.startswith('"'):
            raise errors.InputError(
                f"{self._found.path} line {line} has {token[:40]} where {what} should be, in quotes"
            )
        return token[1:-1].replace('""', '"')

    def number(self, what: str) -> tuple[int, float]:
        line, token = self.take(what)
        return line, self._found.number(line, what, token)

    def count(self, what: str) -> int:
        line, value = self.number(f"number of {what}")
        if value < 0 or value != int(value):
            raise errors.InputError(f"{self._found.path} line {line} gives {value:g} as the number of {what}")
        return int(value)

    def interval(self) -> None:
        line, start = self.number("start")
        _, end = self.number("end")
        label = self.string("the text of an interval")
        if list_text.plain(label):  # an interval without a text is the space between two
            self._found.add_times(line, start, end, label)

    def point(self, tier: str) -> None:
        line, _ = self.number("time of a point")
        self.string("the text of a point")
        self._found.left_out.append((line, f"is a point of the tier {tier[:40]} and no stretch"))


def _tokens(path: pathlib.Path, lines: list_text.Numbered) -> Iterator[Token]:
    """The free-standing texts, flags and numbers, each with the line on which it begins."""
    for number, line in lines:
        parts, is_open = [line], line.count('"') % 2
        while is_open:  # a text goes on in the next line
            following = next(lines, None)
            if following is None:
                raise errors.InputError(
                    f"{path} line {number} opens a quote that is never closed: the file is not whole"
                )
            parts.append(following[1])
            is_open ^= following[1].count('"') % 2
        for match in _TOKEN.finditer("".join(parts)):
            if token := match[1] or match[2] or match[3]:
                yield number, token


def write(segments: Iterable[text.Segment], seconds: float, labels: Sequence[str] = ()) -> str:
    """A long text file with a tier for each label, those of `labels` first, and as long as the recording.

    ValueError for segments of one label that overlap, which a tier cannot hold.
    """
    by_label: dict[str, list[text.Segment]] = {label: [] for label in labels}
    for each in segments:
        by_label.setdefault(each.label, []).append(each)
    end = max([seconds, *(each.end for some in by_label.values() for each in some)])
    lines = [f'File type = "{HEAD}"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {text.time_text(end)}"]
    lines += ["tiers? <exists>", f"size = {len(by_label)}", "item []:"] if by_label else ["tiers? <absent>"]
    for number, (label, some) in enumerate(by_label.items(), 1):
        intervals = list(_filled(sorted(some), end))
        lines += [f"    item [{number}]:", f'        class = "{_INTERVALS}"', f"        name = {_quoted(label)}"]
        lines += ["        xmin = 0", f"        xmax = {text.time_text(end)}"]
        lines.append(f"        intervals: size = {len(intervals)}")
        for k, (start, stop, said) in enumerate(intervals, 1):
            lines += [f"        intervals [{k}]:", f"            xmin = {start}", f"            xmax = {stop}"]
            lines.append(f"            text = {_quoted(said)}")
    return "\n".join(lines) + "\n"


def _filled(segments: Sequence[text.Segment], seconds: float) -> Iterator[tuple[str, str, str]]:
    """Start, end and text of intervals without gaps: the segments, and empty ones between them."""
    at, end = "0", text.time_text(seconds)
    for each in segments:
        start, stop = text.time_text(each.start), text.time_text(each.end)
        if float(start) < float(at):
            raise ValueError(f"{each.label} at {start} s overlaps the segment before, which ends at {at} s")
        if float(start) > float(at):
            yield at, start, ""
        yield start, stop, each.label
        at = stop
    if float(at) < float(end):
        yield at, end, ""


def _quoted(label: str) -> str:
    return '"' + text.one_line(label).replace('"', '""') + '"'
