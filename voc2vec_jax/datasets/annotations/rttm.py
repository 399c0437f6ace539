"""RTTM (Rich Transcription Time Marked): a line for each segment, with ten fields between spaces.

NIST, "The 2009 (RT-09) Rich Transcription Meeting Recognition Evaluation Plan", appendix A. Here a SPEAKER line is a
segment, and the name of the speaker is the label:

    SPEAKER recording 1 12.500 1.500 <NA> <NA> laugh 0.93 <NA>
"""

import pathlib
from collections.abc import Iterable

from voc2vec_jax import errors
from voc2vec_jax.datasets.annotations import text

NAME = "rttm"
ENDING = ".rttm"
_COMMENT, _NONE = ";;", "<NA>"
_SEGMENT = "SPEAKER"
_LEAST_FIELDS = 8  # up to the name; confidence and lookahead may be missing


def read(path: pathlib.Path) -> text.LabelFile:
    """The SPEAKER lines of a file; others are left out. InputError for one with too few fields."""
    found = text.LabelFile(path, NAME)
    with text.opened(path) as lines:
        for number, line in lines:
            fields = line.split()
            if not fields or line.startswith(_COMMENT):
                continue
            if fields[0] != _SEGMENT:
                found.left_out.append((number, f"is a line of the kind {fields[0][:20]!r} and not {_SEGMENT}"))
                continue
            if len(fields) < _LEAST_FIELDS:
                raise errors.InputError(
                    f"{path} line {number} has {len(fields)} fields: a segment in RTTM has 10 ({_SEGMENT}, recording, "
                    f"channel, start, duration, {_NONE}, {_NONE}, label, confidence, {_NONE})"
                )
            start, seconds = (found.number(number, name, fields[k]) for name, k in (("start", 3), ("duration", 4)))
            label = "" if fields[7] == _NONE else fields[7]
            has_score = len(fields) > _LEAST_FIELDS and fields[8] != _NONE
            score = found.number(number, "confidence", fields[8]) if has_score else None
            found.add_times(number, start, round(start + seconds, 9), label, fields[1], score)
    return found


def write(segments: Iterable[text.Segment]) -> str:
    """The segments as lines. Spaces in names and labels, which separate fields, become underscores."""
    lines = []
    for each in segments:
        score = _NONE if each.score is None else f"{each.score:.4f}"
        start, seconds = (f"{time:.{text.DIGITS}f}" for time in (each.start, each.end - each.start))
        name, label = word(each.recording or "recording"), word(each.label)
        lines.append(f"{_SEGMENT} {name} 1 {start} {seconds} {_NONE} {_NONE} {label} {score} {_NONE}\n")
    return "".join(lines)


def word(name: str) -> str:
    """A name without spaces."""
    return "_".join(name.split())
