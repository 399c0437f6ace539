"""Label files of other programs: what is written is read back, and what is malformed is told with its line."""

import codecs
import time

import pytest

from voc2vec_jax import errors
from voc2vec_jax.datasets.annotations import audacity, formats, raven, rttm, text, textgrid

SEGMENTS = [
    text.Segment(0.25, 1.5, "cry", score=0.75),
    text.Segment(1.5, 2.125, 'a "loud" laugh', score=0.5),
    text.Segment(3.000001, 36000.0, "weinen – 泣く", score=0.9375),
]
WRITE = {
    "audacity": audacity.write,
    "textgrid": lambda segments: textgrid.write(segments, 36_000.5),
    "rttm": rttm.write,
    "raven": lambda segments: raven.write(segments, 8000.0),
}


def saved(where, content, kind="audacity", encoding="utf-8"):
    path = where / f"night{formats.FORMATS[kind].ENDING}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def read(where, content, kind="audacity", encoding="utf-8"):
    return formats.read(saved(where, content, kind, encoding), kind)


@pytest.mark.parametrize("kind", WRITE)
def test_what_is_written_is_read_back(tmp_path, kind):
    path = saved(tmp_path, WRITE[kind](SEGMENTS), kind)
    assert formats.kind_of(path) == kind
    found = sorted(formats.read(path, kind).segments)
    wanted = [each.label.replace(" ", "_") if kind == "rttm" else each.label for each in SEGMENTS]
    assert [each.label for each in found] == wanted
    assert [(each.start, each.end) for each in found] == [(each.start, each.end) for each in SEGMENTS]


def test_scores_stand_in_rttm(tmp_path):
    assert [each.score for each in read(tmp_path, rttm.write(SEGMENTS), "rttm").segments] == [0.75, 0.5, 0.9375]


def test_a_label_with_tabs_and_line_breaks_stays_one_label(tmp_path):
    odd = [text.Segment(0.0, 1.0, "a\tb\nc")]
    for kind in WRITE:
        found = read(tmp_path, WRITE[kind](odd), kind).segments
        assert [each.label for each in found] == ["a_b_c" if kind == "rttm" else "a b c"]


def test_a_tier_holds_no_segments_that_overlap():
    with pytest.raises(ValueError, match="cry at 1 s overlaps the segment before, which ends at 2 s"):
        textgrid.write([text.Segment(0.0, 2.0, "cry"), text.Segment(1.0, 3.0, "cry")], 4.0)
    assert (
        textgrid.write([text.Segment(0.0, 2.0, "cry"), text.Segment(1.0, 3.0, "laugh")], 4.0).count("IntervalTier") == 2
    )


LONG_GRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 3
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "sounds"
        xmin = 0
        xmax = 3
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 1.5
            text = "cry ""of
2 lines"""
LONG_GRID += """"
        intervals [2]:
            xmin = 1.5
            xmax = 3
            text = ""
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 3
        points: size = 1
        points [1]:
            number = 2
            mark = "click"
"""
SHORT_GRID = (
    '"ooTextFile"\n"TextGrid"\n0\n3\n<exists>\n1\n"IntervalTier"\n"sounds"\n0\n3\n2\n0\n1.5\n"cry"\n1.5\n3\n""\n'
)


def test_a_text_of_praat_may_have_two_lines_and_quotes(tmp_path):
    found = read(tmp_path, LONG_GRID, "textgrid")
    assert [each[:4] for each in found.segments] == [(0, 1.5, 'cry "of\n2 lines', 16)]
    assert found.left_out == [(31, "is a point of the tier clicks and no stretch")]


@pytest.mark.parametrize(
    "content",
    [
        SHORT_GRID.encode(),
        codecs.BOM_UTF8 + SHORT_GRID.encode(),
        codecs.BOM_UTF16_BE + SHORT_GRID.encode("utf-16-be"),
        codecs.BOM_UTF16_LE + SHORT_GRID.encode("utf-16-le"),
        SHORT_GRID.replace("\n", "\r\n").encode(),
        SHORT_GRID.replace('"ooTextFile"', 'File type = "ooTextFile short"', 1).encode(),
        SHORT_GRID.replace("1.5", "1,5").encode(),
    ],
    ids=["utf-8", "with a mark", "utf-16-be", "utf-16-le", "crlf", "as short", "decimal commas"],
)
def test_short_text_files_of_praat_in_every_encoding(tmp_path, content):
    found = read(tmp_path, content, "textgrid")
    assert [each[:3] for each in found.segments] == [(0, 1.5, "cry")]
    commas = ["times have decimal commas, which are read as points"] if b"1,5" in content else []
    assert [note.partition(": ")[2] for note in found.notes] == commas


RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies\n"


def test_a_selection_that_two_views_show_counts_once(tmp_path):
    rows = "1\tWaveform 1\t1\t0.5\t1\t0\t8000\towl\n1\tSpectrogram 1\t1\t0.5\t1\t0\t8000\towl\n"
    found = read(tmp_path, RAVEN + rows + "2\tSpectrogram 1\t1\t0,5\t1\t0\t8000\towl\n", "raven")
    assert [each[:3] for each in found.segments] == [(0.5, 1, "owl"), (0.5, 1, "owl")]


def test_a_raven_table_of_several_files_has_times_in_each(tmp_path):
    header = RAVEN.replace("\n", "\tBegin File\tFile Offset (s)\n")
    found = read(tmp_path, header + "1\tSpectrogram 1\t1\t3600.5\t3602\t0\t8000\towl\tb.wav\t0.5\n", "raven")
    assert [each[:3] + (each.recording,) for each in found.segments] == [(0.5, 2, "owl", "b.wav")]


def test_frequencies_and_nameless_labels_of_audacity(tmp_path):
    found = read(tmp_path, "0\t1\tcry\n\\\t200.0\t900.5\n1\t2\t\n2\t2\tclick\n3.5\t4.25\n")
    assert [each[:3] for each in found.segments] == [(0, 1, "cry")]
    assert [line for line, _ in found.left_out] == [3, 4, 5]
    assert "is a point in time (click at 2 s)" in found.left_out[1][1]


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        ("audacity", "0\t1\ta\n-0.5\t1\tcry\n", "line 2: cry from -0.5 to 1 s starts before the recording"),
        ("audacity", "2\t1\tcry\n", "line 1: cry from 2 to 1 s ends before it starts"),
        ("audacity", "0:01\t0:02\tcry\n", "line 1 has '0:01' as a start: give seconds"),
        ("audacity", "nan\t2\tcry\n", "line 1 has 'nan' as a start"),
        ("audacity", "1e999\t2\tcry\n", "line 1 has '1e999' as a start"),
        ("audacity", "1.000,5\t2\tcry\n", "line 1 has '1.000,5' as a start"),
        ("audacity", "0 1 cry\n", "line 1 is '0 1 cry': a label of Audacity is start, end and text with tabs"),
        ("audacity", "0\t1\tsch\xf6n\n".encode("latin-1"), r"is not text in UTF-8 \(line 1\)"),
        ("rttm", "SPEAKER a 1 0 1\n", "line 1 has 5 fields: a segment in RTTM has 10"),
        ("rttm", "SPEAKER a 1 2 -1 <NA> <NA> cry <NA> <NA>\n", "line 1: cry from 2 to 1 s ends before it starts"),
        ("raven", RAVEN.replace("Species", "Notes"), "has no column of labels among Selection, View"),
        ("raven", RAVEN + "1\tx\n", "line 2 has 2 fields and the header 8"),
        ("raven", RAVEN.replace("Low Freq (Hz)", "Begin File"), "has a column 'Begin File' and none called 'File Off"),
        (
            "textgrid",
            SHORT_GRID[: SHORT_GRID.index('"cry"')],
            "ends where the text of an interval should follow: it is not whole",
        ),
        ("textgrid", SHORT_GRID.replace("1.5\n3", "1.5\n1"), None),
        ("textgrid", SHORT_GRID.replace("0\n1.5", "1.5\n0"), "line 12: cry from 1.5 to 0 s ends before it starts"),
        (
            "textgrid",
            SHORT_GRID.replace('"cry"', "cry"),
            "line 15 has 1.5 where the text of an interval should be, in quotes",
        ),
        (
            "textgrid",
            SHORT_GRID.replace('"cry"', '"cry'),
            "line 14 opens a quote that is never closed: the file is not whole",
        ),
        ("textgrid", SHORT_GRID.replace("IntervalTier", "Matrix"), "has a tier 'sounds' of the class 'Matrix'"),
        ("textgrid", SHORT_GRID.replace("TextGrid", "Sound"), "is no TextGrid: save one from Praat"),
        ("textgrid", b"ooBinaryFile\x08TextGrid\0\0", "is a binary TextGrid: save it from Praat as a text file"),
        ("textgrid", SHORT_GRID.encode("utf-16-le"), "no text, or UTF-16 without a byte order mark"),
    ],
)
def test_what_is_malformed_is_said(tmp_path, kind, content, said):
    if said is None:  # an interval without a text is no segment, whatever its times
        assert len(read(tmp_path, content, kind).segments) == 1
        return
    with pytest.raises(errors.InputError, match=said) as raised:
        read(tmp_path, content, kind)
    assert str(tmp_path) in str(raised.value)


def test_a_stranger_s_file_costs_little(tmp_path, monkeypatch):
    """Counts that are not kept, endless quotes and large files end at once."""
    start = time.perf_counter()
    for content in (
        SHORT_GRID.replace("\n2\n", "\n1000000000000\n"),
        '"ooTextFile"\n"TextGrid"\n' + ' "x' * 300_000 + "\n",
        '"ooTextFile"\n"TextGrid"\n' + ' "' + '""' * 300_000 + "x\n" * 300_000,
        "0 " * 1_000_000,
    ):
        with pytest.raises(errors.InputError):
            read(tmp_path, content, "textgrid")
    assert time.perf_counter() - start < 20
    monkeypatch.setattr(text, "MOST_BYTES", 10)
    with pytest.raises(errors.InputError, match="has 11 bytes, and label files have at most 10: split it"):
        read(tmp_path, "0\t1\tcrying\n"[:11])


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.TextGrid", "a"),
        ("a.Table.1.selections.txt", "a"),
        ("a.b.txt", "a.b"),
        ("a.wav.txt", "a.wav"),
        ("a.labels.txt", "a"),
    ],
)
def test_the_recording_that_a_label_file_is_called_after(name, stem):
    assert stem in formats.stems(name)
