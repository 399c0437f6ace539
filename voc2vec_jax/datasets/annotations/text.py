"""What label files share: a text of bounded size, the segments in it, and how times are written."""

import contextlib
import dataclasses
import math
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from voc2vec_jax import errors
from voc2vec_jax.datasets import list_text

MOST_BYTES = 64 << 20  # of a label file: a million segments; a larger file is no label file
DIGITS = 6  # behind the point: a microsecond, as Audacity writes
_NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?")


class Segment(NamedTuple):
    """A labelled stretch of a recording, in seconds. `recording` is its name in the file, "" if it says none."""

    start: float
    end: float
    label: str
    line: int = 0
    recording: str = ""
    score: float | None = None


@dataclasses.dataclass
class LabelFile:
    """The segments of a file, what is left out of it (line and reason), and what else is to be said."""

    path: pathlib.Path
    kind: str
    segments: list[Segment] = dataclasses.field(default_factory=list)
    left_out: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def add(self, line: int, start: str, end: str, label: str, recording: str = "", score: float | None = None) -> None:
        """A segment as it is written; one without a label or without length is left out.

        InputError for times that are no numbers, are negative, or end before they start.
        """
        times = [self.number(line, "start", start), self.number(line, "end", end)]
        self.add_times(line, times[0], times[1], label, recording, score)

    def add_times(
        self, line: int, start: float, end: float, label: str, recording: str = "", score: float | None = None
    ) -> None:
        """As `add`, for times that are numbers."""
        label = list_text.plain(label)
        if start < 0 or end < start:
            what = "starts before the recording" if start < 0 else "ends before it starts"
            raise errors.InputError(
                f"{self.path} line {line}: {label or 'a segment'} from {time_text(start)} to {time_text(end)} s {what}"
                ": give times in seconds with 0 <= start < end"
            )
        if not label:
            self.left_out.append((line, "has no label"))
        elif start == end:
            self.left_out.append((line, f"is a point in time ({label} at {time_text(start)} s) and no stretch"))
        else:
            self.segments.append(Segment(start, end, label, line, recording, score))

    def number(self, line: int, name: str, text: str) -> float:
        """A time in seconds. A decimal comma counts as a point, which is noted. InputError for what is no number."""
        text = text.strip()
        if not _NUMBER.fullmatch(text) or not math.isfinite(value := float(text.replace(",", "."))):
            raise errors.InputError(
                f"{self.path} line {line} has {text[:40]!r} as a {name}: give seconds as a plain number such as 12.5"
            )
        note = f"{self.path}: times have decimal commas, which are read as points"
        if "," in text and note not in self.notes:
            self.notes.append(note)
        return value


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[list_text.Numbered]:
    """The numbered lines of a label file, as `list_text.opened` reads text; InputError for a file that is too large."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise errors.InputError(f"{path} cannot be read ({error.strerror})") from error
    if size > MOST_BYTES:
        raise errors.InputError(
            f"{path} has {size:,} bytes, and label files have at most {MOST_BYTES:,}: split it, or give another file"
        )
    with list_text.opened(path) as file:
        yield list_text.number_lines(file)


def time_text(seconds: float) -> str:
    """A time with the digits that count, at most DIGITS behind the point."""
    text = f"{seconds:.{DIGITS}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def one_line(label: str) -> str:
    """A label for a format in which tabs and line breaks separate fields: these become spaces."""
    return " ".join(label.split())
