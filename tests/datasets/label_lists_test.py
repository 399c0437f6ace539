"""Label files beside recordings are lists of stretches, for training and for evaluating."""

import pathlib

import numpy as np
import pytest
import soundfile

from voc2vec_jax import datasets, errors
from voc2vec_jax.datasets import preparing
from voc2vec_jax.datasets.annotations import raven, rttm, text, textgrid
from voc2vec_jax.finetuning import tasks
from voc2vec_jax.inference.evaluation import inputs

SECONDS = 4.0
SEGMENTS = [text.Segment(0.5, 1.5, "cry"), text.Segment(2.0, 3.25, "laugh")]


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    rng = np.random.default_rng(0)
    for name in ("a.wav", "b c.flac"):
        soundfile.write(tmp_path / name, 0.1 * rng.standard_normal(round(SECONDS * 16_000)), 16_000)
    return tmp_path


def listed(folder, name):
    return preparing.list_source(datasets.CATALOG["folder"], folder / name)


def found(listing):
    return [(each.path, each.label, each.group) for each in listing.recordings]


WRITTEN = {
    "a.txt": "0.5\t1.5\tcry\n2.0\t3.25\tlaugh\n",
    "a.TextGrid": textgrid.write(SEGMENTS, SECONDS),
    "a.Table.1.selections.txt": raven.write(SEGMENTS, 8000.0),
    "all.rttm": rttm.write([each._replace(recording="a") for each in SEGMENTS]),
}
STRETCHES = [("a.wav#0.5-1.5", "cry", "a.wav"), ("a.wav#2-3.25", "laugh", "a.wav")]


@pytest.mark.parametrize("name", WRITTEN)
def test_a_label_file_is_a_list_of_stretches(folder, name):
    (folder / name).write_text(WRITTEN[name])
    listing = listed(folder, name)
    assert found(listing) == STRETCHES
    assert [len(listing.loader.load(each.locator)) for each in listing.recordings] == [16_000, 20_000]
    items = inputs.open_input(str(folder / name))
    assert [(each.id, each.label) for each in items.rows(0, 2)] == [each[:2] for each in STRETCHES]
    unused, uncovered = listing.notes[-2:] if name.endswith("Grid") else listing.notes
    assert "1 recording beside the label file has no labels and is not used: b c.flac" in unused
    assert "labels cover 2.2 s of 4.0 s; what has no label is not used" in uncovered


def test_a_pattern_names_the_label_files_of_many_recordings(folder):
    (folder / "a.txt").write_text(WRITTEN["a.txt"])
    (folder / "b c.txt").write_text("0\t4,005\tcry\n")
    listing = listed(folder, "*.txt")
    assert found(listing) == [*STRETCHES, ("b c.flac#0-4.005", "cry", "b c.flac")]
    task = tasks.open_task("folder", data=folder / "*.txt", data_dir=folder / "data")
    assert task.labels == ("cry", "laugh") and len(task.ids) == 3
    assert pathlib.Path(task.audio_root) == folder and task.name.startswith("test_a_pattern")
    assert [each.label for each in inputs.open_input(str(folder / "*.txt")).rows(0, 3)] == ["cry", "laugh", "cry"]
    assert found(listed(folder.parent, f"{folder.name}/**/*.txt"))[2] == ("b c.flac#0-4.005", "cry", "b c.flac")


def test_names_of_rttm_have_underscores_for_spaces_and_may_lie_below(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "d.wav").write_bytes((folder / "a.wav").read_bytes())
    names = ("b c", "a.wav", "sub/d")
    (folder / "all.rttm").write_text(rttm.write([SEGMENTS[0]._replace(recording=name) for name in names]))
    paths = [path for path, _, _ in found(listed(folder, "all.rttm"))]
    assert paths == ["a.wav#0.5-1.5", "b c.flac#0.5-1.5", "sub/d.wav#0.5-1.5"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.txt",
            "0\t1\tcry\n3.5\t4.2\tcry\n",
            "a.txt line 2 takes a.wav from 3.5 to 4.2 s, and the recording has 4.0",
        ),
        ("c.txt", "0\t1\tcry\n", "c.txt has no recording beside it: put one called c.wav"),
        ("x.rttm", "SPEAKER c 1 0 1 <NA> <NA> cry\n", "line 1 names the recording 'c', which is not in"),
        ("x.rttm", "SPEAKER ../a 1 0 1 <NA> <NA> cry\n", "line 1 names the recording '../a': name one below"),
        ("x.rttm", "SPEAKER /etc/a 1 0 1 <NA> <NA> cry\n", "line 1 names the recording '/etc/a': name one below"),
        ("a.txt", "0\t1\tcry\n0\t1\tlaugh\n", "a.wav#0-1 twice, as label cry.* and as label laugh"),
        ("a.txt", "0\t0\tcry\n", "a.txt lists no recordings"),
        ("*.TextGrid", "", r"there is no .*\*.TextGrid: give --manual_dir a folder"),
        ("*", "0\t1\tcry\n", "are no label files"),
    ],
)
def test_what_cannot_be_meant_is_refused(folder, name, content, said):
    (folder / name.replace("*", "a")).with_suffix(".txt" if "*" in name else pathlib.Path(name).suffix).write_text(
        content
    )
    with pytest.raises(errors.InputError, match=said):
        listed(folder, name)


def test_two_recordings_of_one_name_are_refused(folder):
    (folder / "a.flac").write_bytes((folder / "b c.flac").read_bytes())
    (folder / "a.txt").write_text(WRITTEN["a.txt"])
    with pytest.raises(errors.InputError, match=r"a.txt may speak of a.flac or a.wav: leave one"):
        listed(folder, "a.txt")


def test_overlaps_and_labels_that_are_left_out_are_noted(folder):
    (folder / "a.txt").write_text("0\t1.5\tcry\n1\t2\tlaugh\n2\t2\tclick\n3\t3.5\t\n")
    overlapping = [note for note in listed(folder, "a.txt").notes if "pairs" in note]
    assert "a.wav from 0 to 1.5 s (cry) and from 1 to 2 s (laugh)" in overlapping[0]
    left_out = [note for note in listed(folder, "a.txt").notes if "left out" in note]
    assert "left out 2 lines, such as 3, which is a point in time (click at 2 s) and no stretch" in left_out[0]


def test_a_plain_list_is_still_one(folder):
    (folder / "list.txt").write_text("a.wav\nb c.flac\n")
    assert [path for path, _, _ in found(listed(folder, "list.txt"))] == ["a.wav", "b c.flac"]
