"""Label files become one list, with clips of what has no label."""

import csv
import pathlib

import numpy as np
import pytest
import soundfile

from voc2vec_jax import errors
from voc2vec_jax.programs import labels
from voc2vec_jax.runs import program


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    rng = np.random.default_rng(0)
    (tmp_path / "rec").mkdir()
    for name, seconds in (("a b.wav", 30), ("c.wav", 4)):
        soundfile.write(tmp_path / "rec" / name, 0.1 * rng.standard_normal(seconds * 8000), 8000)
    (tmp_path / "rec" / "a b.txt").write_text("12\t14\tcry\n13\t15.5\tlaugh\n15.8\t16\tcry\n")
    (tmp_path / "rec" / "c.txt").write_text("0\t3.7\tcry\n")
    return tmp_path


def made(folder, *flags, source="rec/*.txt"):
    assert program.run(labels.main, [str(folder / source), f"--output={folder / 'list.csv'}", *flags]) == 0
    rows = csv.DictReader((folder / "list.csv").read_text().splitlines())
    return [(row["path"], float(row["start"]), float(row["end"]), row["label"]) for row in rows]


LABELLED = [
    ("rec/a b.wav", 12, 14, "cry"),
    ("rec/a b.wav", 13, 15.5, "laugh"),
    ("rec/a b.wav", 15.8, 16, "cry"),
    ("rec/c.wav", 0, 3.7, "cry"),
]


def test_label_files_become_one_list_which_is_read_alike(folder, capsys):
    assert made(folder) == LABELLED
    said = capsys.readouterr().err
    assert "4 clips (cry 3, laugh 1)" in said and "1 pairs of stretches overlap" in said
    assert made(folder, source="list.csv") == LABELLED


def test_what_has_no_label_becomes_clips_of_its_own(folder):
    found = made(folder, "--rest=quiet", "--rest_clips=9")
    quiet = [each for each in found if each[3] == "quiet"]
    assert quiet == [  # less than .5 s between two labels, and at the end of c.wav, is no clip
        ("rec/a b.wav", 0, 6, "quiet"),
        ("rec/a b.wav", 6, 12, "quiet"),
        ("rec/a b.wav", 16, 23, "quiet"),
        ("rec/a b.wav", 23, 30, "quiet"),
    ]
    assert sorted([*quiet, *LABELLED]) == found


def test_clips_of_the_rest_are_as_many_as_labels_and_spread_evenly(folder):
    starts = [start for _, start, _, label in made(folder, "--rest=quiet", "--rest_seconds=1") if label == "quiet"]
    assert len(starts) == 4 and (starts[0], starts[-1]) == (0, 29) and max(np.diff(starts)) < 14
    assert len(made(folder, "--rest=quiet", "--rest_clips=1")) == 5


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--rest=cry"], "--rest=cry is a class of the labels already"),
        (["--rest=quiet", "--rest_seconds=0.1"], "--rest_seconds=0.1 and --rest_clips=0: give at least 0.5 s"),
        (["--rest=quiet", "--rest_clips=-1"], "--rest_seconds=10 and --rest_clips=-1: give"),
    ],
)
def test_a_rest_that_cannot_be_meant_is_refused(folder, capsys, flags, said):
    given = [str(folder / "rec" / "*.txt"), f"--output={folder / 'list.csv'}", *flags]
    assert program.run(labels.main, given) == errors.EXIT_INPUT and said in capsys.readouterr().err


def test_a_list_of_whole_recordings_and_absent_files_are_refused(folder, capsys):
    (folder / "whole.csv").write_text("path,label\nrec/c.wav,cry\n")
    for source, output, said in (
        ("whole.csv", "list.csv", "whole.csv lists whole recordings and no stretches"),
        ("*.TextGrid", "list.csv", "TextGrid: give a label file, or a pattern"),
        ("rec", "list.csv", "rec is a folder: give a pattern, such as"),
        ("rec/c.txt", "no/list.csv", "there is no folder"),
    ):
        assert program.run(labels.main, [str(folder / source), f"--output={folder / output}"]) == errors.EXIT_INPUT
        assert said in capsys.readouterr().err


def test_a_label_within_a_longer_one_leaves_nothing_free(folder):
    (folder / "rec" / "c.txt").write_text("0\t3.7\tcry\n1\t2\tlaugh\n")
    found = made(folder, "--rest=quiet", source="rec/c.txt")
    assert [label for *_, label in found] == ["cry", "laugh"]
