"""What evaluate --timeline leaves: events, label files of other programs, pictures and pages."""

import base64
import csv
import json
import pathlib
import re
import shutil

import browsers
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import tiny_models

from voc2vec_jax import errors, evaluate
from voc2vec_jax.datasets.annotations import formats
from voc2vec_jax.inference.evaluation import window_rows
from voc2vec_jax.inference.timelines import drawing, events, page, picture
from voc2vec_jax.programs import timeline
from voc2vec_jax.runs import program

CLASSES = ("cry", "laugh", "</script><b>sigh")
SECONDS = {"a b.wav": 12.0, "night/ward 7.wav": 5.0, "night/x.wav": 3.0}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """An output folder beside its recordings, with probabilities that are chosen here in place of the model's."""
    where = tmp_path_factory.mktemp("machine")
    rng = np.random.default_rng(0)
    for name, seconds in SECONDS.items():
        (where / "rec" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(where / "rec" / name, 0.1 * rng.standard_normal(round(16_000 * seconds)), 16_000)
    model = tiny_models.write(where / "model", CLASSES)
    given = [f"--model={model}", f"--input={where / 'rec'}", f"--output={where / 'out'}", "--timeline"]
    assert evaluate.main([*given, "--window_seconds=2", "--hop_seconds=1", "--batch_seconds=8", "--pages=0"]) == 0
    return where


@pytest.fixture
def out(evaluated, tmp_path):
    """A copy in which the first recording has a cry from 2.5 to 4.5 s, and a laugh and a cry at its end."""
    shutil.copytree(evaluated, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "out"
    (part,) = (folder / "windows").iterdir()
    there = list(window_rows.read(part))
    writer = window_rows.WindowWriter(part, json.loads((folder / "evaluation.json").read_text()))
    for windows in there:
        chances = np.full_like(windows.chances, 0.1)
        if windows.row == 0:
            chances[2:4, 0], chances[-1, :2] = (0.75, 0.5), (0.5, 0.8125)
        writer.add(windows._replace(chances=chances))
    writer.close()
    return folder


def redraw(out, *flags):
    return program.run(timeline.main, [str(out), f"--input={out.parent / 'rec'}", *flags])


def rows(out):
    return list(csv.DictReader((out / "events.csv").read_text().splitlines()))


def data_of(html):
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])


def test_windows_hold_what_the_csv_says(evaluated):
    (lines,) = (evaluated / "out" / "timelines").iterdir()
    (part,) = (evaluated / "out" / "windows").iterdir()
    said = list(csv.DictReader(lines.read_text().splitlines()))
    found = pq.read_table(part).to_pylist()
    assert [(row["row"], f"{row['start']:.3f}", f"{row['end']:.3f}") for row in found] == [
        (int(line["row"]), line["start"], line["end"]) for line in said
    ]
    chances = np.array([row["probabilities"] for row in found])
    assert [f"{chance:.4f}" for chance in chances.max(1)] == [line["probability"] for line in said]
    assert [CLASSES[k] for k in chances.argmax(1)] == [line["label"] for line in said]


def test_windows_of_a_recording_come_back_whole(evaluated, tmp_path, monkeypatch):
    monkeypatch.setattr(window_rows, "GROUP", 5)
    path, description = tmp_path / "w.parquet", {"classes": CLASSES}
    rng = np.random.default_rng(0)
    given = [
        window_rows.Windows(row, rng.random(n), rng.random(n), rng.random((n, 3), np.float32))
        for row, n in ((3, 1), (0, 12), (1, 2), (2, 7))
    ]
    writer = window_rows.WindowWriter(path, description)
    for each in given:
        writer.add(each)
    writer.close()
    assert pq.ParquetFile(path).num_row_groups > 4
    for found, wanted in zip(window_rows.read(path), given, strict=True):
        assert found.row == wanted.row
        for own, other in zip(found[1:], wanted[1:]):
            np.testing.assert_array_equal(own, other)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(errors.RunError, match="is damaged"):
        list(window_rows.read(path))


def test_events_stand_in_one_table_and_one_file_of_lines(out):
    assert redraw(out) == 0
    found = [(row["path"], row["start"], row["end"], row["label"], row["probability"]) for row in rows(out)]
    assert found == [
        ("a b.wav", "2.5", "4.5", "cry", "0.7500"),
        ("a b.wav", "10.5", "12", "cry", "0.5000"),
        ("a b.wav", "10.5", "12", "laugh", "0.8125"),
    ]
    assert [row["mean_probability"] for row in rows(out)] == ["0.6250", "0.5000", "0.8125"]
    lines = formats.read(out / "events.rttm", "rttm").segments
    assert [each[:3] + each[4:] for each in lines] == [
        (2.5, 4.5, "cry", "a_b", 0.75),
        (10.5, 12, "cry", "a_b", 0.5),
        (10.5, 12, "laugh", "a_b", 0.8125),
    ]


@pytest.mark.parametrize(
    ("kind", "ending"), [("audacity", ".txt"), ("textgrid", ".TextGrid"), ("raven", ".selections.txt")]
)
def test_label_files_hold_the_events(out, kind, ending):
    assert redraw(out, "--background=laugh") == 0
    path = out / "labels" / f"a_b{ending}"
    assert formats.kind_of(path) == kind
    assert sorted(each[:3] for each in formats.read(path, kind).segments) == [(2.5, 4.5, "cry"), (10.5, 12, "cry")]
    assert not formats.read(out / "labels" / f"night_x{ending}", kind).segments


def test_rules_change_the_events_and_nothing_is_computed(out):
    before = {path: path.read_bytes() for folder in ("parts", "windows") for path in (out / folder).iterdir()}
    assert redraw(out, "--gap_seconds=6", "--threshold=0.4") == 0
    assert [(row["start"], row["end"], row["label"]) for row in rows(out)] == [
        ("2.5", "12", "cry"),
        ("10.5", "12", "laugh"),
    ]
    assert redraw(out, "--threshold=0.8") == 0 and [row["label"] for row in rows(out)] == ["laugh"]
    assert {path: path.read_bytes() for path in before} == before


def test_a_page_is_one_file_that_says_nothing_of_the_machine(out):
    assert redraw(out) == 0
    html = (out / "pages" / "a_b.html").read_text()
    assert str(out.parent) not in html and out.parent.name not in html
    assert not re.findall(r'(?:src|href)="(?!data:)', html) and "http:" not in html and "https:" not in html
    assert html.count("</script") == 2 and "<b>" not in html
    data = data_of(html)
    assert data["classes"][2][0] == CLASSES[2] and data["seconds"] == 12
    assert data["events"] == [[2.5, 4.5, 0], [10.5, 12.0, 0], [10.5, 12.0, 1]]
    at, values = (np.frombuffer(base64.b64decode(data[name]), kind) for name, kind in (("at", "<f4"), ("values", "u1")))
    np.testing.assert_allclose(at, [0, *np.arange(1.5, 11), 12])
    assert values.reshape(-1, 3)[2:4, 0].tolist() == [191, 128]
    downloads = dict(re.findall(r'href="data:text/plain;base64,([^"]*)" download="([^"]*)"', html))
    for text, name in downloads.items():
        assert base64.b64decode(text) == (out / "labels" / name).read_bytes()
    assert sorted(downloads.values()) == ["a_b.TextGrid", "a_b.selections.txt", "a_b.txt"]
    index = (out / "pages" / "index.html").read_text()
    assert re.findall(r'<a href="([^"]*)">([^<]*)<', index) == [
        ("a_b.html", "a b.wav"),
        ("night_ward_7.html", "night/ward 7.wav"),
        ("night_x.html", "night/x.wav"),
    ]


def test_a_page_of_a_long_recording_carries_events_and_says_where_the_sound_is(out):
    assert redraw(out, "--sound_minutes=0.1", "--pages=2") == 0
    html = (out / "pages" / "a_b.html").read_text()
    assert len(re.findall(r'<audio [^>]*src="data:audio/mpeg', html)) == 3
    assert data_of(html)["sources"] == ["a%20b.wav", "../../rec/a%20b.wav"]
    assert "It is played from\n<code>a b.wav</code> beside this page" in html
    short = (out / "pages" / "night_ward_7.html").read_text()
    assert len(re.findall(r'<audio [^>]*src="data:audio/mpeg', short)) == 1 and "It is played from" not in short
    assert "1 more recordings have no page" in (out / "pages" / "index.html").read_text()
    assert not (out / "pages" / "night_x.html").exists()


def test_a_recording_that_is_gone_gets_no_page_and_keeps_its_events(out, capsys):
    (out.parent / "rec" / "a b.wav").write_bytes(b"RIFF nothing")
    assert redraw(out) == 0
    assert "a b.wav gets no page: " in capsys.readouterr().err
    assert len(rows(out)) == 3 and not (out / "pages" / "a_b.html").exists()


def test_timelines_of_an_earlier_version_are_said_to_lack_probabilities(out, capsys):
    shutil.rmtree(out / "windows")
    assert redraw(out) == 0
    assert "3 recordings were evaluated by an earlier version, which kept no windows" in capsys.readouterr().err
    assert rows(out) == []


@pytest.mark.parametrize(
    ("change", "flags", "said"),
    [
        (lambda out: (out / "evaluation.json").unlink(), (), "is no output folder of evaluate"),
        (lambda out: shutil.rmtree(out / "parts"), (), "1 of the 1 parts of .* are missing: evaluate first"),
        (lambda out: (out.parent / "rec" / "a b.wav").unlink(), (), "holds timelines of other recordings than"),
        (None, ("--threshold=2",), "--threshold=2 is no probability"),
        (None, ("--background=noise",), "--background=noise is none of the model's classes"),
        (None, ("--pages=-1",), "--pages=-1 and --sound_minutes=10: give numbers of 0 or more"),
    ],
)
def test_what_cannot_be_drawn_is_refused(out, capsys, change, flags, said):
    if change:
        change(out)
    assert redraw(out, *flags) == errors.EXIT_INPUT
    assert re.search(said, capsys.readouterr().err)


def test_flags_of_timelines_are_for_timelines(evaluated, capsys):
    given = [f"--model={evaluated / 'model'}", f"--input={evaluated / 'rec'}", f"--output={evaluated / 'no'}"]
    assert program.run(evaluate.main, [*given, "--predict", "--threshold=0.9"]) == errors.EXIT_INPUT
    assert "--threshold=0.9 is for timelines: add --timeline" in capsys.readouterr().err


def test_a_page_is_bounded_however_many_windows_and_events(monkeypatch, out):
    monkeypatch.setattr(page, "MOST_WINDOWS", 4)
    monkeypatch.setattr(page, "MOST_EVENTS", 2)
    assert redraw(out) == 0
    html = (out / "pages" / "a_b.html").read_text()
    data = data_of(html)
    assert len(base64.b64decode(data["at"])) == 4 * 5 and len(base64.b64decode(data["values"])) == 4 * 3
    assert [event[2] for event in data["events"]] == [0, 1] and "3 in all, of which the 2 likeliest are" in html
    assert max(base64.b64decode(data["values"])[1::3]) == 207  # the highest of those brought together


def test_numbers_over_time_have_a_picture_and_no_events(out):
    described = json.loads((out / "evaluation.json").read_text())
    described.update(target="regression", classes=[])
    (out / "evaluation.json").write_text(json.dumps(described))
    (part,) = (out / "windows").iterdir()
    there = list(window_rows.read(part))
    writer = window_rows.WindowWriter(part, {"classes": ["value"]})
    for windows in there:
        writer.add(windows._replace(chances=np.linspace(-2, 3, len(windows.start), dtype=np.float32)[:, None]))
    writer.close()
    (out / "events.csv").unlink()
    assert redraw(out) == 0
    data = data_of((out / "pages" / "a_b.html").read_text())
    assert (data["low"], data["high"], data["threshold"], data["events"]) == (-2, 3, None, [])
    values = np.frombuffer(base64.b64decode(data["values"]), np.uint8)
    np.testing.assert_allclose(values, np.linspace(0, 255, 11), atol=0.51)
    assert not (out / "events.csv").exists()


def test_names_of_pages_are_of_one_recording_each():
    names, taken = ["a/b.wav", "a_b.flac", "index.wav", "...", "\u00e9\u00df.mp3", "x" * 300 + ".wav"], set()
    found = [drawing.free_name(name, taken) for name in names]
    assert found == ["a_b", "a_b_2", "index_2", "recording", "\u00e9\u00df", "x" * 100]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("alkiskoudounas/voc2vec", "alkiskoudounas/voc2vec"),
        ("/home/ann/runs/cries/fold_03/model", "cries/fold_03/model"),
        ("/home/ann/cries", "cries"),
        ("runs/cries/final/model", "cries/final/model"),
        ("model", "model"),
    ],
)
def test_a_model_s_name_ends_at_its_run_folder(source, name):
    assert drawing.model_name(source) == name


def test_the_sounds_of_a_long_page_are_of_all_classes(monkeypatch):
    monkeypatch.setattr(drawing, "CLIPS", 3)
    found = [events.Event(float(k), k + 1.0, "cry", 0.9 + k / 100, 0.5) for k in range(4)]
    found.append(events.Event(2.5, 3.0, "laugh", 0.6, 0.5))
    assert [(event.start, event.label) for event in drawing._likeliest(found)] == [
        (2.0, "cry"),
        (2.5, "laugh"),
        (3.0, "cry"),
    ]


def test_times_are_written_as_people_read_them():
    assert [picture.clock(each) for each in (0.0, 7.52, 59.96, 127.4, 3727.0)] == ["0", "7.5", "60", "2:07", "1:02:07"]
    assert [picture.moment(each) for each in (0.0, 145.5, 59.96, 3599.99)] == [
        "0:00.0",
        "2:25.5",
        "1:00.0",
        "1:00:00.0",
    ]


@pytest.mark.slow
@browsers.needed
@pytest.mark.parametrize("minutes", ["10", "0"])
def test_the_player_is_followed_in_a_browser(out, minutes):
    """With the sound in the page, and with that of the recording, which lies below the folder of the output."""
    assert redraw(out, f"--sound_minutes={minutes}") == 0
    with browsers.started() as browser:
        for width, scheme in ((1280, "light"), (390, "dark")):
            tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            said: list[str] = []
            tab.on("pageerror", lambda fault, said=said: said.append(str(fault)))
            tab.goto(pathlib.Path(out / "pages" / "a_b.html").as_uri())
            tab.wait_for_function("document.getElementById('player').readyState > 0")
            assert tab.evaluate("document.getElementById('player').duration") == pytest.approx(12, abs=0.1)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            tab.click("tr:nth-child(2) button.go")
            tab.wait_for_function("document.getElementById('now').textContent.startsWith('0:10.')")
            assert tab.evaluate("document.querySelectorAll('tr.now').length") == 2
            box = tab.locator("#overview").bounding_box()
            tab.mouse.click(box["x"] + box["width"] / 4, box["y"] + 10)
            tab.wait_for_function("document.getElementById('now').textContent.startsWith('0:03.')")
            assert tab.evaluate("getComputedStyle(document.querySelector('.still')).display") == "none"
            tab.emulate_media(media="print")
            assert tab.evaluate("getComputedStyle(document.querySelector('.still')).display") == "block"
            assert said == []
        browser.close()
