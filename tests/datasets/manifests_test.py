"""A manifest says of each row what it is; what is odd is noted once, and what cannot be meant is refused."""

import pathlib

import numpy as np
import pytest
import soundfile

from voc2vec_jax import datasets, errors
from voc2vec_jax.datasets import preparing

SECONDS = 3.0


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        samples = rng.integers(-20_000, 20_000, round(SECONDS * 16_000)).astype(np.int16)
        soundfile.write(tmp_path / f"{name}.wav", samples, 16_000)
    return tmp_path


def listed(folder, text, **parts):
    (folder / "m.csv").write_text(text)
    options = {name: folder / path for name, path in parts.items()}
    return preparing.list_source(datasets.CATALOG["folder"], folder / "m.csv", **options)


def test_each_row_is_a_stretch_of_its_file_and_the_file_its_group(folder):
    listing = listed(folder, "path,start,end,label\na.wav,0.5,1.25,x\na.wav,1,2.50,y\n./b.wav,,,x\na.wav,2.5,3.005,x\n")
    found = [(each.path, each.group, each.label, each.start_seconds) for each in listing.recordings]
    assert found == [
        ("a.wav#0.5-1.25", "a.wav", "x", 0.5),
        ("a.wav#1-2.5", "a.wav", "y", 1.0),
        ("a.wav#2.5-3.005", "a.wav", "x", 2.5),  # a rounded end may lie 10 ms behind that of the file
        ("b.wav", "b.wav", "x", 0.0),
    ]
    lengths = [len(listing.loader.load(each.locator)) for each in listing.recordings]
    assert lengths == [12_000, 24_000, 8_000, 48_000]
    assert listing.has_stretches
    (note,) = listing.notes
    assert "1 pairs of stretches overlap and have different labels, such as a.wav from 0.5 to 1.25 s (x)" in note


def test_stretches_are_prepared_with_their_place_in_the_file(folder):
    listed(folder, "path,start,end,label,group\na.wav,1.5,3,x,ann\na.wav,0,1.5,y,\n")
    prepared = datasets.prepare(
        "folder", data_dir=folder / "data", manual_dir=folder / "m.csv", workers=1, progress=False
    )
    whole = soundfile.read(folder / "a.wav", dtype="int16")[0]
    assert prepared.ids.tolist() == ["a.wav#0-1.5", "a.wav#1.5-3"] and prepared.start_sample.tolist() == [0, 24_000]
    assert [str(prepared.groups[number]) for number in prepared.group] == ["a.wav", "ann"]
    for clip, start in zip(prepared.read([0, 1]), (0, 24_000)):
        np.testing.assert_array_equal(clip, whole[start : start + 24_000])


def test_parts_have_several_names_and_what_they_are_taken_for_is_said(folder):
    text = "path,label,split\na.wav,x,Train\nb.wav,y,dev\n"
    listing = listed(folder, text)
    assert [each.part for each in listing.recordings] == ["train", "validation"]
    assert listing.notes == [f"{folder / 'm.csv'}: in the column split, 'Train' as train, 'dev' as validation"]


@pytest.mark.parametrize("separator", [";", "\t", ","])
def test_columns_may_be_separated_in_three_ways(folder, separator):
    decimal = "." if separator == "," else ","
    rows = [["path", "start", "end", "label"], ["a.wav", f"0{decimal}5", f"1{decimal}5", "x"]]
    listing = listed(folder, "".join(separator.join(row) + "\n" for row in rows))
    assert [(each.path, each.label) for each in listing.recordings] == [("a.wav#0.5-1.5", "x")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,start,end\na.wav,0,5,1,5\n", "lists no recordings .*: a.wav line 2 has 5 fields and the header 3"),
        ("path,onset,label\na.wav,0,x\na.wav,1,y\n", "a.wav twice, .* label y: .*; call onset start if it is that"),
    ],
)
def test_why_all_rows_are_left_out_and_which_column_may_be_misnamed_is_said(folder, text, says):
    with pytest.raises(errors.InputError, match=says):
        listed(folder, text)


def test_spaces_and_columns_that_are_not_read_are_said_once(folder):
    listing = listed(folder, "path,label,speaker,age\na.wav, x,1,2\nb.wav,x ,1,2\n")
    assert listing.labels == ("x",)
    columns, spaces = listing.notes
    assert "the columns speaker, age are not read" in columns and "call speaker group if it is that" in columns
    assert "2 fields had spaces around them, which were left out, such as label ' x'" in spaces


def test_a_row_that_is_repeated_counts_once(folder):
    listing = listed(folder, "path,label\na.wav,x\nb.wav,y\n./a.wav,x\na.wav,x\n")
    assert [each.path for each in listing.recordings] == ["a.wav", "b.wav"]
    assert listing.notes == [f"{folder / 'm.csv'}: 2 rows repeat an earlier one, and count once"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,start,end\na.wav,1,9\n", "line 2 takes a.wav from 1 to 9 s, and the recording has 3.000 s"),
        ("path,start,end\na.wav,3,3.005\n", "line 2 takes a.wav from 3 to 3.005 s, and the recording has 3.000 s"),
        ("path,start,end\na.wav,0,1\na.wav,-1,2\n", "line 3 takes a.wav from -1 to 2: give start and end in seconds"),
        ("path,start,end\na.wav,2,2\n", "line 2 takes a.wav from 2 to 2: give start and end in seconds, 0 <= start"),
        ("path,start,end\na.wav,1,\n", "line 2 takes a.wav from 1 to nothing"),
        ("path,start,end\na.wav,1,inf\n", "line 2 takes a.wav from 1 to inf"),
        ("path,start,end\na.wav,0:01,0:02\n", "line 2 takes a.wav from 0:01 to 0:02"),
        ("path,start,label\na.wav,1,x\n", "has a column start and none named end: give both, in seconds"),
        ("path,split\na.wav,holdout\n", "line 2 puts a.wav into the split 'holdout': the parts are train, validation"),
        ("path,split\na.wav,\n", "line 2 puts a.wav into the split ''"),
        ("path,label,label\na.wav,x,y\n", "has the column label 2 times: leave one"),
        ("file;label\na.wav;x\n", "begins with 'file;label'.* call file path if it is that"),
        ("path,label\na.wav,x\na.wav,y\n", "lists a.wav twice, as label x and as label y: leave one row of each"),
        ("path,split\na.wav,train\na.wav,test\n", "lists a.wav twice, as split train and as split test"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_sentence(folder, text, says):
    with pytest.raises(errors.InputError, match=says) as caught:
        listed(folder, text)
    assert str(caught.value).startswith(str(folder / "m.csv")) and str(caught.value).count(". ") == 0


def test_parts_may_be_manifests_or_folders_of_their_own(folder):
    (folder / "test" / "x").mkdir(parents=True)
    (folder / "test" / "y").mkdir()
    for name in ("x", "y"):
        soundfile.write(folder / "test" / name / "a.wav", np.zeros(1600, np.int16), 16_000)
    (folder / "deep").mkdir()
    (folder / "deep" / "valid.csv").write_text("path,label,start,end\n../b.wav,x,0,1\n")
    listing = listed(folder, "path,label\na.wav,y\n", validation_data="deep/valid.csv", test_data="test")
    found = [(each.path, each.label, each.part, each.group) for each in listing.recordings]
    assert found == [
        ("a.wav", "y", "train", ""),
        ("b.wav#0-1", "x", "validation", "b.wav"),
        ("test/x/a.wav", "x", "test", ""),
        ("test/y/a.wav", "y", "test", ""),
    ]
    assert [len(listing.loader.load(each.locator)) for each in listing.recordings] == [48_000, 16_000, 1600, 1600]
    assert listing.labels == ("x", "y") and listing.has_stretches and listing.default_name == "m"


def test_a_recording_belongs_to_one_part_and_a_part_has_no_parts(folder):
    (folder / "test.csv").write_text("path,label\nb.wav,x\n./a.wav,y\n")
    with pytest.raises(errors.InputError, match="a.wav is in .*m.csv and in .*test.csv: a recording belongs to one"):
        listed(folder, "path,label\na.wav,y\n", test_data="test.csv")
    (folder / "test.csv").write_text("path,label,split\nb.wav,x,test\n")
    with pytest.raises(errors.InputError, match="test.csv has a column split and is itself the part test"):
        listed(folder, "path,label\na.wav,y\n", test_data="test.csv")
