"""Every kind of input is one list in fixed order, and what is no list is refused in a sentence."""

import os

import numpy as np
import pytest
import soundfile
import tiny_models

from voc2vec_jax import audio, datasets, errors
from voc2vec_jax.inference.evaluation import inputs as evaluation_inputs


def heard(items, item):
    return items.stream(item, audio.DEFAULT, audio.Told())


def listed(path, data_dir=None):
    items = evaluation_inputs.open_input(str(path), data_dir)
    assert len(items) == len(items.rows(0, len(items)))
    return [(item.id, item.path, item.label) for item in items.rows(0, len(items))]


@pytest.fixture
def folder(tmp_path):
    tiny_models.recordings(tmp_path / "clips", [0.1, 0.2, 0.3], ("cry", "laugh"))
    (tmp_path / "clips" / "notes.txt").write_text("no audio")
    return tmp_path / "clips"


def test_a_folder_is_sorted_and_its_folders_are_the_classes(folder):
    names = ["cry/000.wav", "cry/002.wav", "laugh/001.wav"]
    assert listed(folder) == [(name, name, name.split("/")[0]) for name in names]
    assert evaluation_inputs.open_input(str(folder)).table["id"].null_count == 3  # held once where it is the path
    assert listed(folder / "cry") == [("000.wav", "000.wav", None), ("002.wav", "002.wav", None)]
    assert listed(folder / "cry" / "002.wav") == [("002.wav", "002.wav", None)]


def test_manifests_of_every_form_name_files_beside_them(folder):
    (folder / "a.csv").write_text("\ufeffPath,id,label\nlaugh/001.wav,x,laugh\n\ncry/000.wav,,\n")
    assert listed(folder / "a.csv") == [("x", "laugh/001.wav", "laugh"), ("cry/000.wav", "cry/000.wav", None)]
    (folder / "a.tsv").write_text("label\tpath\ncry\tcry/000.wav\ncry\tcry/000.wav\n")
    assert listed(folder / "a.tsv") == [("cry/000.wav", "cry/000.wav", "cry")] * 2
    (folder / "a.txt").write_text("cry/000.wav\n\nlaugh/001.wav\n")
    assert [path for _, path, _ in listed(folder / "a.txt")] == ["cry/000.wav", "laugh/001.wav"]
    (folder / "train.tsv").write_text(f"{folder / 'cry'}\n000.wav\t1600\n002.wav\t4800\n")
    items = evaluation_inputs.open_input(str(folder / "train.tsv"))
    assert [item.path for item in items.rows(0, 2)] == ["000.wav", "002.wav"]
    for kind in ("a.csv", "a.tsv", "a.txt", "train.tsv"):
        items = evaluation_inputs.open_input(str(folder / kind))
        for item in items.rows(0, 2):
            assert sum(map(len, heard(items, item))) in (1600, 3200, 4800)


def test_stretches_of_files_are_read_as_they_are_prepared(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "a.flac", rng.integers(-9_000, 9_000, 44_100 * 3).astype(np.int16), 44_100)
    rows = "a.flac,0.5,1.25,x,\na.flac,1,3.005,y,mine\n./a.flac,,,x,\na.flac,2,4,x,\n"
    (tmp_path / "list.csv").write_text("path,start,end,label,id\n" + rows)
    items = evaluation_inputs.open_input(str(tmp_path / "list.csv"))
    listed_items = items.rows(0, 4)
    names = ["a.flac#0.5-1.25", "mine", "./a.flac", "a.flac#2-4"]
    assert [(item.id, item.path) for item in listed_items] == list(
        zip(names, ["a.flac", "a.flac", "./a.flac", "a.flac"])
    )
    assert items.lengths() == ([48_000, 12_000, 32_080, 32_000], 1.0)
    monkeypatch.setattr(evaluation_inputs, "BLOCK_SECONDS", 0.75)
    found = [np.concatenate(list(items.stream(item, audio.DEFAULT, audio.Told()))) for item in listed_items[:3]]
    assert [len(each) for each in found] == [12_000, 32_000, 48_000]
    whole = audio.load(tmp_path / "a.flac")
    for each, (first, stop) in zip(found, ((8_000, 20_000), (16_000, 48_000), (0, 48_000))):
        np.testing.assert_allclose(each, whole[first:stop], atol=1e-6)
    with pytest.raises(audio.AudioError, match="a.flac: ends at 3.000 s, and the stretch at 4 s"):
        list(items.stream(listed_items[3], audio.DEFAULT, audio.Told()))
    (tmp_path / "list.csv").write_text("path,start,end,label,id\n" + rows.replace("3.005", "3.004"))
    assert evaluation_inputs.open_input(str(tmp_path / "list.csv")).fingerprint != items.fingerprint


def test_records_of_prepared_sets(tmp_path):
    prepared = datasets.prepare("synthetic", data_dir=tmp_path, clips=12, progress=False)
    items = evaluation_inputs.open_input("synthetic", tmp_path)
    rows = items.rows(0, len(items))
    assert [item.id for item in rows] == prepared.ids.tolist()
    assert [item.label for item in rows] == prepared.labels[prepared.label].tolist()
    for item in rows[3:5]:
        np.testing.assert_array_equal(next(heard(items, item)), prepared.read([item.row])[0] / np.float32(32768))
    with pytest.raises(errors.InputError, match="set vivae is not prepared in .*synthetic"):
        evaluation_inputs.open_input("synthetic,vivae", tmp_path)
    with pytest.raises(errors.InputError, match="names no set, or one twice"):
        evaluation_inputs.open_input("synthetic,synthetic", tmp_path)


def test_several_sets_are_one_list(tmp_path):
    one = datasets.prepare("synthetic", data_dir=tmp_path, clips=12, progress=False)
    tiny_models.recordings(tmp_path / "clips", [0.1, 0.2])
    two = datasets.prepare("folder", data_dir=tmp_path, manual_dir=tmp_path / "clips", name="mine", progress=False)
    items = evaluation_inputs.open_input("mine,synthetic", tmp_path)
    rows = items.rows(0, len(items))
    assert [item.id for item in rows] == [f"mine/{k}" for k in two.ids] + [f"synthetic/{k}" for k in one.ids]
    np.testing.assert_array_equal(np.concatenate(list(heard(items, rows[1]))) * 32768, two.read([1])[0])
    np.testing.assert_array_equal(np.concatenate(list(heard(items, rows[5]))) * 32768, one.read([3])[0])


def test_the_fingerprint_is_of_names_and_order_and_not_of_the_place(folder, tmp_path):
    def fingerprint(text, where=folder):
        (where / "list.csv").write_text("path,id,label\n" + text)
        return evaluation_inputs.open_input(str(where / "list.csv")).fingerprint

    first = fingerprint("a,x,u\nb,y,v\n")
    assert fingerprint("a,x,u\nb,y,v\n", tmp_path) == first
    others = {fingerprint(text) for text in ("b,y,v\na,x,u\n", "a,x,u\nb,y,w\n", "a,x,u\nb,z,v\n", "a,x,u\n")}
    assert len(others | {first}) == 5


def test_names_that_are_not_utf8_are_opened_and_shown(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(1600), 16_000)
    os.rename(tmp_path / "a.wav", os.fsencode(tmp_path) + b"/\xff.wav")
    items = evaluation_inputs.open_input(str(tmp_path))
    (item,) = items.rows(0, 1)
    assert item.id == "\ufffd.wav"
    assert len(next(heard(items, item))) == 1600


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("none", None, "none is neither a folder nor a file"),
        ("a.csv", "file,label\nx,y\n", "begins with .file,label.: its first line must name the columns"),
        ("a.csv", "", "lists no recordings, as it is empty"),
        ("a.csv", "path\n", "lists no recordings"),
        ("a.csv", "path,label\nx,y,z\n", "line 2 has 3 fields and the header 2"),
        ("a.csv", "path,label\n,y\n", "line 2 has no path"),
        ("a.csv", "path,start,end\nx,1,1\n", "line 2 takes x from 1 to 1: give start and end in seconds"),
        ("a.csv", "path,start\nx,1\n", "has a column start and none named end"),
        ("a.csv", "path,start,end,label\nx,1,2,a\n./x,1,2,b\n", "one file twice, as x, label a and as ./x, label b"),
        ("a.txt", "\n\n", "lists no recordings"),
        ("a.zip", "", "is no list of recordings: unpack it"),
        ("a.csv", b"path\n\xff\xfe", r"is not text in UTF-8 .line 2."),
    ],
)
def test_what_is_no_list_is_refused(name, text, sentence, tmp_path):
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(errors.InputError, match=sentence):
        evaluation_inputs.open_input(str(tmp_path / name))


def test_a_folder_without_audio_is_refused(tmp_path):
    with pytest.raises(errors.InputError, match=f"holds no audio file .{audio.SUFFIXES[0]}"):
        evaluation_inputs.open_input(str(tmp_path))
