"""Selection tables of Raven: text with a header, tabs between the columns, and a row for each selection and view.

https://www.ravensoundsoftware.com, "Raven Pro User's Manual", chapter 6. Which column holds labels is up to the user of
Raven; here it is one that is called as in `LABELS`.
"""

import pathlib
from collections.abc import Iterable, Sequence

from voc2vec_jax import errors
from voc2vec_jax.datasets import list_text
from voc2vec_jax.datasets.annotations import text

NAME = "raven"
ENDING = ".selections.txt"
START, END = "Begin Time (s)", "End Time (s)"
# With the file of each selection, and the time in it, where a table spans several files
FILE, OFFSET = "Begin File", "File Offset (s)"
LABELS = ("annotation", "label", "class", "species", "call type", "type", "category", "event", "sound type", "tags")
_LOW, _HIGH = "Low Freq (Hz)", "High Freq (Hz)"
_HEADER = ("Selection", "View", "Channel", START, END, _LOW, _HIGH, "Annotation", "Score")
_VIEW = "Spectrogram 1"


def is_header(line: str) -> bool:
    """Whether a line names the columns of a selection table."""
    fields = [field.strip() for field in line.lstrip("\ufeff").split("\t")]
    return START in fields and END in fields


def read(path: pathlib.Path) -> text.LabelFile:
    """The selections of a table, each once however many views show it.

    InputError for a table without a column of labels, and a row of another width than the header's.
    """
    found = text.LabelFile(path, NAME)
    with text.opened(path) as lines:
        header = [field.strip() for field in next(lines, (1, ""))[1].rstrip("\n").split("\t")]
        column = _columns(path, header)
        seen: set[tuple[str, ...]] = set()
        for number, line in lines:
            if not line.strip():
                continue
            fields = line.rstrip("\n").split("\t")
            if len(fields) != len(header):
                raise errors.InputError(f"{path} line {number} has {len(fields)} fields and the header {len(header)}")
            start, end = (found.number(number, name, fields[column[name]]) for name in (START, END))
            label = fields[column["label"]]
            recording = list_text.plain(fields[column[FILE]]) if FILE in column else ""
            if OFFSET in column:
                offset = found.number(number, OFFSET, fields[column[OFFSET]])
                start, end = offset, round(offset + end - start, 9)
            # A selection has a row in each view, which differ in the view alone.
            key = (fields[column["Selection"]], *map(str, (start, end, label, recording)))
            if key in seen:
                continue
            seen.add(key)
            found.add_times(number, start, end, label, recording)
    return found


def _columns(path: pathlib.Path, header: Sequence[str]) -> dict[str, int]:
    """Where the columns are that are read; "label" is the one of labels."""
    known = {name: header.index(name) for name in ("Selection", START, END, FILE, OFFSET) if name in header}
    if "Selection" not in known or START not in known or END not in known:
        raise errors.InputError(f"{path} line 1 lacks Selection, {START} or {END}: export a selection table from Raven")
    if FILE in known and OFFSET not in known:
        raise errors.InputError(
            f"{path} has a column {FILE!r} and none called {OFFSET!r}: add it in Raven (choose measurements), or its "
            f"times count from the first file"
        )
    labels = [k for name in LABELS for k, own in enumerate(header) if own.lower() == name]
    if not labels:
        raise errors.InputError(
            f"{path} has no column of labels among {', '.join(header)[:200]}: call it Annotation (others that are "
            f"understood: {', '.join(LABELS[1:])})"
        )
    return {**known, "label": labels[0]}


def write(segments: Iterable[text.Segment], highest_hz: float) -> str:
    """A table with one view; selections reach from 0 to `highest_hz`."""
    rows = ["\t".join(_HEADER)]
    for number, each in enumerate(segments, 1):
        times = (f"{time:.{text.DIGITS}f}" for time in (each.start, each.end))
        score = "" if each.score is None else f"{each.score:.4f}"
        rows.append(
            "\t".join((str(number), _VIEW, "1", *times, "0.0", f"{highest_hz:.1f}", text.one_line(each.label), score))
        )
    return "\n".join(rows) + "\n"
