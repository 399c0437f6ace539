"""What is told about recordings."""

import pathlib
import re

from voc2vec_jax import audio
from voc2vec_jax.audio import reading


def test_every_kind_of_remark_has_words():
    sources = [path.read_text() for path in pathlib.Path(reading.__file__).parent.glob("*.py")]
    kinds = {kind for text in sources for kind in re.findall(r'\.tell\(\s*"(\w+)"', text)}
    assert len(kinds) >= 8
    for kind in kinds:
        for count in (1, 2):
            (line,) = audio.summary([(f"{k}.wav", kind, "so") for k in range(count)])
            assert line.startswith(f"{count} of the recordings ") and "(" not in line and line.endswith("0.wav: so")


def test_remarks_are_counted_by_kind_and_each_recording_once():
    told = audio.Told()
    for text in ("twice", "twice", "once"):
        told("gaps", text)
    assert told.remarks == [("gaps", "twice"), ("gaps", "once")]
    lines = audio.summary([("a.wav", *remark) for remark in told.remarks] + [("b.wav", "tracks", "two")])
    assert [line.split(" ")[0] for line in lines] == ["1", "1"] and lines[0].endswith("namely a.wav: twice")
