"""Folders as people have them: classes and parts are told apart, and what is not read is named."""

import os
import pathlib
import socket
import tarfile
import zipfile

import numpy as np
import pytest
import soundfile

from voc2vec_jax import datasets, errors
from voc2vec_jax.datasets import class_folders, preparing
from voc2vec_jax.inference.evaluation import inputs


def tree(root: pathlib.Path, *names: str) -> pathlib.Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / name, np.full(1600, 0.1), 16_000)
    return root


def listed(root):
    return preparing.list_source(datasets.CATALOG["folder"], root)


def evaluated(root):
    items = inputs.open_input(str(root))
    return {item.path: item.label for item in items.rows(0, len(items))}


@pytest.mark.parametrize(
    ("names", "places", "says"),
    [
        (
            ["train/cry/a", "train/laugh/b", "test/cry/c"],
            ["cry train", "laugh train", "cry test"],
            "classes are the folders in them",
        ),
        (
            ["s/Training/cry/a", "s/valid_1/laugh/b", "s/test-set/d/cry/c"],
            ["cry train", "laugh validation", "cry test"],
            "valid_1 as validation",
        ),
        (["train/a", "test/b"], [" train", " test"], "their files have no class"),
        (["dev/cry/a", "test/cry/b"], [" validation", " test"], "dev as validation"),  # one class is none
        (["cry/train/a", "cry/Test/b", "laugh/train/c"], ["cry train", "cry test", "laugh train"], "folders around"),
        (["s/t/cry/dev/a", "s/u/laugh/test/b"], ["cry validation", "laugh test"], "folders around"),
        (["cry/train/a", "laugh/b", "cry/test/c"], ["train ", "laugh ", "test "], "test, train are taken for classes"),
        (["cry/train/a", "laugh/train/b"], [" ", " "], ""),
        (
            ["cry/ben/a", "laugh/ben/b", "cry/anna/c"],
            ["ben ", "ben ", "anna "],
            "the folder that it lies in (anna, ben) and not the one above (cry, laugh): list",
        ),
        (["x/cry/a", "y/laugh/b"], ["cry ", "laugh "], ""),
        (["train/a", "dog/b"], ["train ", "dog "], ""),
        (["train/cry/a", "train/laugh/b"], ["cry ", "laugh "], ""),
        (
            ["train/cry/a", "test/cry/b", "extra/c"],
            ["cry ", "cry ", "extra "],
            "are not taken for parts of a division, as extra lies",
        ),
        (
            ["train/cry/a", "test/laugh/b", "c"],
            ["cry ", "laugh ", " "],
            "are not taken for parts of a division, as a file lies",
        ),
        (["trainer/a", "tests_of/b"], ["trainer ", "tests_of "], ""),
        (["cry/a", "cry /b", "be\u0301/c"], ["cry ", "cry ", "b\u00e9 "], "the folder 'cry ' is the class 'cry'"),
        (["a", "b"], [" ", " "], ""),
        ([], [], ""),
    ],
)
def test_folders_are_classes_or_parts(names, places, says):
    found, notes = class_folders.places(names)
    assert [
        f"{place.label} {place.part}" for place in (found[class_folders.folder_of(name)] for name in names)
    ] == places
    assert says in "; ".join(notes) and bool(notes) == bool(says)


def test_parts_reach_the_listing_and_are_no_classes_for_an_evaluation_either(tmp_path, capsys):
    root = tree(tmp_path / "set", "train/cry/a.wav", "train/laugh/b.wav", "test/cry/c.wav", "test/d.wav")
    listing = listed(root)
    assert [(each.path, each.label, each.part) for each in listing.recordings] == [
        ("test/cry/c.wav", "cry", "test"),
        ("test/d.wav", "", "test"),
        ("train/cry/a.wav", "cry", "train"),
        ("train/laugh/b.wav", "laugh", "train"),
    ]
    said = f"{root}: folders are taken for parts of a division, and not for classes (test as test, train as train)"
    assert listing.notes == [f"{said}; classes are the folders in them"]
    assert evaluated(root) == {each.path: each.label or None for each in listing.recordings}
    assert said in capsys.readouterr().err
    with pytest.raises(errors.InputError, match="has folders of parts and is itself the part train: give one of them"):
        preparing.list_source(datasets.CATALOG["folder"], root, test_data=tree(tmp_path / "more", "cry/e.wav"))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_parts_in_an_archive_are_parts(tmp_path, kind):
    root = tree(tmp_path / "set", "train/cry/a.wav", "test/laugh/b.wav")
    path = tmp_path / f"set.{kind}"
    with zipfile.ZipFile(path, "w") if kind == "zip" else tarfile.open(path, "w") as archive:
        for file in sorted(root.rglob("*.wav")):
            (archive.write if kind == "zip" else archive.add)(file, file.relative_to(tmp_path))
        if kind == "tar":
            link = tarfile.TarInfo("set/train/cry/link.wav")
            link.type, link.linkname = tarfile.SYMTYPE, "a.wav"
            archive.addfile(link)
    listing = listed(path)
    assert [(each.label, each.part) for each in listing.recordings] == [("laugh", "test"), ("cry", "train")]
    assert any("link.wav (a link in the archive)" in note for note in listing.notes) == (kind == "tar")


def test_what_is_no_file_is_left_out_and_named(tmp_path, monkeypatch, capsys):
    root = tree(tmp_path / "set", "cry/a.wav", "laugh/b.wav")
    os.mkfifo(root / "cry" / "pipe.wav")
    os.symlink("/dev/zero", root / "cry" / "zero.wav")
    monkeypatch.chdir(root / "cry")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.wav")
    listing = listed(root)
    assert [each.path for each in listing.recordings] == ["cry/a.wav", "laugh/b.wav"] == [*evaluated(root)]
    said = "it is no file: cry/pipe.wav (a pipe), cry/socket.wav (a socket), cry/zero.wav (a device)"
    assert len(listing.notes) == 1 and said in listing.notes[0] and said in capsys.readouterr().err


def test_what_looks_like_a_recording_is_named(tmp_path, capsys):
    root = tree(tmp_path / "set", "cry/a.wav", "laugh/b.wav", "cry/.hidden.wav", "cry/.cache/c.wav", "laugh/._b.wav")
    sound = (root / "cry" / "a.wav").read_bytes()
    for name in ("rec001", "old.wav.bak", "film.mpeg", "voice.data"):
        (root / name).write_bytes(sound)
    for name in ("notes.txt", "table.csv", "page.html"):
        (root / name).write_bytes(sound)  # not looked at, as their names say what they are
    (root / "words").write_text("rec001 is a cry", encoding="utf-16")
    (root / "empty").touch()
    (root / "song.m4p").write_bytes(b"\0\0\0\x20ftypM4P ")
    listing = listed(root)
    looks, hidden = listing.notes
    assert "looks like a recording and has none of their endings (.wav" in looks
    assert looks.endswith(": film.mpeg, old.wav.bak, rec001, ... (4 of them)")
    assert hidden == f"{root}: left out, as it is hidden: cry/.hidden.wav"
    assert [each["path"] for each in listing.unreadable] == ["song.m4p"]
    assert list(evaluated(root)) == ["cry/a.wav", "laugh/b.wav"]
    said = capsys.readouterr().err
    assert looks in said and hidden in said and "song.m4p" in said


def test_links_give_a_file_one_name_or_two_labels_which_is_refused(tmp_path):
    root = tree(tmp_path / "set", "cry/a.wav", "laugh/b.wav")
    os.symlink(root / "cry", root / "aaa")  # sorted before the folder itself
    os.symlink(root, root / "cry" / "round")
    os.symlink(root / "laugh" / "b.wav", root / "laugh" / "again.wav")
    os.symlink(root / "gone.wav", root / "laugh" / "nothing.wav")
    for name in ("round.wav", ".round.wav"):  # links to themselves
        os.symlink(name, root / "laugh" / name)
    listing = listed(root)
    assert [each.path for each in listing.recordings] == [
        "cry/a.wav",
        "laugh/again.wav",
        "laugh/nothing.wav",
        "laugh/round.wav",
    ]
    assert "counted once, 1 file by another name (a link)" in listing.notes[0]
    assert "a link to a folder that is searched anyway: aaa, cry/round" in listing.notes[1]
    assert evaluated(root)["cry/a.wav"] == "cry" and "aaa/a.wav" not in evaluated(root)
    os.symlink(root / "cry" / "a.wav", root / "laugh" / "linked.wav")
    with pytest.raises(errors.InputError, match="holds cry/a.wav twice, as label cry and as label laugh .*linked.wav"):
        listed(root)
    with pytest.raises(
        errors.InputError, match="one file twice, as cry/a.wav, label cry and as laugh/linked.wav, label"
    ):
        evaluated(root)


def test_two_entries_of_one_file_are_one_too(tmp_path):
    root = tree(tmp_path / "set", "cry/a.wav", "laugh/b.wav")
    os.link(root / "cry" / "a.wav", root / "laugh" / "hard.wav")
    with pytest.raises(errors.InputError, match="holds cry/a.wav twice, as label cry and as label laugh .*hard.wav"):
        listed(root)
