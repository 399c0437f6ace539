"""Lists as people write them are read alike for preparing and for evaluating, or refused in a sentence."""

import os
import pathlib
import unicodedata

import numpy as np
import pytest
import soundfile

from voc2vec_jax import datasets, errors
from voc2vec_jax.datasets import file_names, preparing
from voc2vec_jax.inference.evaluation import inputs

COMPOSED = "b\u00e9b\u00e9.wav"
APART = unicodedata.normalize("NFD", COMPOSED)


def write(path: pathlib.Path, samples: int = 1600) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(samples, 0.1), 16_000)


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.wav")
    return tmp_path


def prepared(path):
    return preparing.list_source(datasets.CATALOG["folder"], path)


def both(folder, text, encoding="utf-8", name="list.csv"):
    """(path, label) of each row, which preparing and evaluating find alike, and can open."""
    (folder / name).write_bytes(text.encode(encoding))
    listing, items = prepared(folder / name), inputs.open_input(str(folder / name))
    assert not listing.unreadable
    found = sorted((item.path, item.label or "") for item in items.rows(0, len(items)))
    assert [(each.path, each.label) for each in listing.recordings] == found
    for each in listing.recordings:
        assert len(listing.loader.load(each.locator))
    return found


def assert_refused(folder, text, says, encoding="utf-8"):
    """Preparing and evaluating refuse the list with the same sentence."""
    (folder / "list.csv").write_bytes(text.encode(encoding))
    for read in (prepared, lambda path: inputs.open_input(str(path))):
        with pytest.raises(errors.InputError, match=says):
            read(folder / "list.csv")


PLAIN = "path,label\na.wav,x\nb.wav,y\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (PLAIN, "utf-8-sig"),
        (PLAIN.replace(",", "\t").replace("\n", "\r\n"), "utf-16"),  # Excel's "Unicode text"
        ("\ufeff" + PLAIN, "utf-16-be"),
        ("\ufeff" + PLAIN, "utf-32-le"),
        (PLAIN.replace("\n", "\r"), "utf-8"),
        (PLAIN.replace("\n", "\r\n"), "utf-8"),
        (PLAIN.replace(",", ";"), "utf-8"),
        (PLAIN.replace(",", "\t"), "utf-8"),
        ("sep=;\r\n" + PLAIN.replace(",", ";"), "utf-8-sig"),
        ('"sep=|"\n' + PLAIN.replace(",", "|"), "utf-8"),
        ("sep=\t\n" + PLAIN.replace(",", "\t"), "utf-8"),
        ('path;label;"age, in years"\na.wav;x;1\nb.wav;y;2\n', "utf-8"),
        ("\n\n" + PLAIN, "utf-8"),
        (PLAIN.replace("b.wav", "path,label\nb.wav"), "utf-8"),  # two lists in one file
        ('"path","label"\n"a.wav","x"\n"b.wav","y"\n', "utf-8"),
        ('"path", "label"\n"a.wav", "x"\n"b.wav" , "y"\n', "utf-8"),
        ('path,text,label\na.wav,"two\nlines, and ""quotes""",x\nb.wav,5" pipe,y\n', "utf-8"),
        ("path,label,,\na.wav,x\nb.wav,y,,,,\n\n,,,\n", "utf-8"),
        ("Path , Label\n a.wav,\u00a0x \n b.wav ,y\u200b\n", "utf-8"),
    ],
)
def test_the_same_rows_are_found_however_a_list_is_written(folder, text, encoding):
    assert both(folder, text, encoding) == [("a.wav", "x"), ("b.wav", "y")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('path,label\na.wav,"x\nb.wav,y\n', "line 2 opens a quote that it does not close"),
        ('path,label\na.wav,x\nb.wav,"x\na.wav,y"\n', "line 3 opens a quote that it does not close"),
        ('path,label\na.wav,"x" y\n', "line 2 opens a quote that it does not close, or has text behind"),
        ('path,text,label\na.wav,"1\n2",x\nb.wav,"1,y\n', "line 4 opens a quote"),
        ("", "lists no recordings, as it is empty"),
        ("path,label\n", "lists no recordings"),
        ("file,label\na.wav,x\n", "its first line must name the columns .* call file path if it is that"),
        ("path,label\na.wav,x\na.wav,y\n", "a.wav.* label x and as .*label y"),
        ("path,label\na.wav,x\n./a.wav,y\n", "a.wav.* label x and as .*label y"),
        ("path,label\na.wav,x\nlink.wav,y\n", "a.wav.* label x and as .*label y"),
        ("path,label\nb.wav,x\nhard.wav,y\n", "b.wav.* label x and as .*label y"),
        ("path,label\na.wav,x\nd/../a.wav,y\n", "a.wav.* label x and as .*label y"),
        ("path,label\na.wav,x\nhere/a.wav,y\n", "a.wav.* label x and as .*label y"),
    ],
)
def test_what_cannot_be_meant_is_refused_alike(folder, text, says):
    (folder / "d").mkdir()
    os.symlink(folder / "a.wav", folder / "link.wav")
    os.symlink(folder, folder / "here")
    os.link(folder / "b.wav", folder / "hard.wav")
    assert_refused(folder, text, says)


def test_text_in_another_encoding_is_named_with_its_line(folder):
    assert_refused(
        folder, "path,label\na.wav,x\nb.wav,\u00e9\n", r"is not text in UTF-8 \(line 3\): save it as", "cp1252"
    )
    assert_refused(folder, PLAIN, "is no text, or UTF-16 without a byte order mark: save it as UTF-8", "utf-16-le")
    assert_refused(folder, "PK\x03\x04\0\0", "is an archive or workbook: save it as UTF-8 text")


def test_text_lists_and_fairseq_lists_are_read_alike_too(folder):
    assert both(folder, "\ufeffa.wav\r\n\r\n  b.wav\r\n", name="list.txt") == [("a.wav", ""), ("b.wav", "")]
    assert both(folder, ".\ra.wav\t1600\rb.wav\t1600\r", name="train.tsv") == [("a.wav", ""), ("b.wav", "")]
    (folder / "train.tsv").write_text("nowhere\na.wav\t1600\n")
    with pytest.raises(errors.InputError, match="names the folder 'nowhere', which is not there"):
        inputs.open_input(str(folder / "train.tsv"))
    os.mkfifo(folder / "pipe.txt")
    with pytest.raises(errors.InputError, match="pipe.txt is no file but a pipe, device or folder: write the list"):
        inputs.open_input(str(folder / "pipe.txt"))


def test_a_name_keeps_its_spaces_if_there_is_such_a_file(folder):
    write(folder / " a.wav", 800)
    assert both(folder, "path,label\n a.wav,x\na.wav ,y\n") == [(" a.wav", "x"), ("a.wav", "y")]


def test_backslashes_stand_for_slashes_unless_there_is_such_a_file(folder):
    write(folder / "sub" / "c.wav")
    write(folder / "sub" / "d.wav")
    write(folder / "sub\\d.wav")
    found = both(folder, "path,label\nsub\\c.wav,x\nsub\\d.wav,y\n")
    assert found == [("sub/c.wav", "x"), ("sub\\d.wav", "y")]


def test_the_home_folder_may_be_written_as_a_tilde(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert file_names.Finder(folder / "sub").find("~/a.wav") == f"{folder}/a.wav"
    (folder / "lists").mkdir()
    (folder / "lists" / "list.csv").write_text("path,label\n~/a.wav,x\n")
    (each,) = prepared(folder / "lists" / "list.csv").recordings
    assert each.path == f"{folder}/a.wav"


@pytest.mark.parametrize(("there", "listed"), [(COMPOSED, APART), (APART, COMPOSED)])
def test_accents_may_be_coded_otherwise_in_the_list_than_on_the_disk(folder, there, listed):
    write(folder / there / there)
    assert both(folder, f"path,label\n{listed}/{listed},x\na.wav,y\n") == [("a.wav", "y"), (f"{there}/{there}", "x")]


def test_the_exact_name_comes_first_and_one_that_may_be_two_files_is_refused(folder):
    write(folder / COMPOSED)
    write(folder / APART)
    assert both(folder, f"path,label\n{COMPOSED},x\n{APART},y\n") == [(APART, "y"), (COMPOSED, "x")]
    mixed = "b\u00e9be\u0301.wav"
    assert_refused(
        folder, f"path,label\n{mixed},x\n", "is the name of 2 files in .* that differ only in how an accent is coded"
    )


def test_labels_and_groups_are_composed_and_stripped_and_that_is_said(folder, capsys):
    text = "path,label,group\na.wav,\u00e9 ,s\u00e9\nb.wav,e\u0301,se\u0301\n"
    assert both(folder, text) == [("a.wav", "\u00e9"), ("b.wav", "\u00e9")]
    listing = prepared(folder / "list.csv")
    assert {each.group for each in listing.recordings} == {"s\u00e9"}
    spaces, accents = listing.notes
    assert "1 field had spaces around it, which were left out, such as label '\\xe9 '" in spaces
    assert "2 fields had invisible characters or loose accents in them" in accents
    assert "1 field had invisible characters" in capsys.readouterr().err


def test_groups_that_differ_only_in_case_are_said(folder):
    (folder / "list.csv").write_text("path,group\na.wav,Ann\nb.wav,ann\n")
    (note,) = prepared(folder / "list.csv").notes
    assert "the groups 'Ann' and 'ann' differ only in case and count as two" in note


def test_stretches_of_one_file_are_one_group_by_whichever_name(folder):
    os.symlink(folder / "a.wav", folder / "link.wav")
    (folder / "list.csv").write_text("path,start,end,label\na.wav,0,.05,x\nlink.wav,.05,.1,y\nlink.wav,0,.05,x\n")
    listing = prepared(folder / "list.csv")
    assert [(each.path, each.group) for each in listing.recordings] == [
        ("a.wav#0-0.05", "a.wav"),
        ("a.wav#0.05-0.1", "a.wav"),
    ]
    assert listing.notes == [f"{folder / 'list.csv'}: 1 row repeats an earlier one, and count once"]


def test_a_file_in_two_parts_is_found_by_another_name(folder):
    os.symlink(folder / "a.wav", folder / "link.wav")
    (folder / "train.csv").write_text("path,label\na.wav,x\n")
    (folder / "test.csv").write_text("path,label\nlink.wav,x\n")
    with pytest.raises(
        errors.InputError, match="a.wav is in .*train.csv and in .*test.csv: a recording belongs to one"
    ):
        preparing.list_source(datasets.CATALOG["folder"], folder / "train.csv", test_data=folder / "test.csv")


def test_a_pipe_in_a_list_is_an_unreadable_recording(folder):
    os.mkfifo(folder / "p.wav")
    (folder / "list.csv").write_text("path\np.wav\n")
    listing = prepared(folder / "list.csv")
    with pytest.raises(errors.InputError, match="it is a pipe and no file"):
        listing.loader.load("p.wav")
