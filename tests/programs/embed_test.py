"""voc2vec embed writes a row for each recording that can be used, and replaces nothing."""

import csv
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import tiny_models

import voc2vec_jax as v2v
from voc2vec_jax import errors
from voc2vec_jax.inference import vector_files
from voc2vec_jax.programs import main


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embed")
    rng = np.random.default_rng(0)
    for name in ("cry/b.wav", "cry/a.wav", "laugh/c.wav"):
        path = folder / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.normal(0, 0.1, 8_000), 16_000)
    (folder / "clips" / "laugh" / "broken.wav").write_bytes(b"RIFF")
    tiny_models.write(folder / "model")
    return folder


def run(capsys, *words):
    """Exit status and what was said."""
    status = main.main(["embed", *map(str, words)])
    return status, capsys.readouterr().err


def expected(place, *names):
    return v2v.from_pretrained(place / "model").embed([place / "clips" / name for name in names])


def test_a_folder_gives_a_table_with_classes(place, tmp_path, capsys):
    names = ("cry/a.wav", "cry/b.wav", "laugh/c.wav")
    words = (place / "clips", f"--model={place / 'model'}")
    for suffix in ("csv", "parquet", "npz"):
        status, said = run(capsys, *words, f"--output={tmp_path / 'v'}.{suffix}")
        assert status == 0, said
        assert "broken.wav" in said and "3 recordings, vectors of " in said and "1 left out" in said
    wanted = expected(place, *names)
    files = [str(place / "clips" / name) for name in names]
    rows = list(csv.reader((tmp_path / "v.csv").read_text().splitlines()))
    assert rows[0][:3] == ["file", "label", "v0"] and [row[:2] for row in rows[1:]] == list(
        map(list, zip(files, ("cry", "cry", "laugh")))
    )
    np.testing.assert_allclose(np.array([row[2:] for row in rows[1:]], float), wanted, rtol=1e-5, atol=1e-6)
    table = pq.read_table(tmp_path / "v.parquet")
    assert table["file"].to_pylist() == files and table["label"].to_pylist() == ["cry", "cry", "laugh"]
    np.testing.assert_array_equal(np.stack(table["vector"].to_numpy()), wanted)
    with np.load(tmp_path / "v.npz") as arrays:
        np.testing.assert_array_equal(arrays["vectors"], wanted)
        assert arrays["files"].tolist() == files


def test_files_keep_their_order_and_have_no_class(place, tmp_path, capsys):
    files = [place / "clips" / name for name in ("laugh/c.wav", "cry/a.wav")]
    status, _ = run(capsys, *files, f"--model={place / 'model'}", f"--output={tmp_path / 'v.parquet'}")
    table = pq.read_table(tmp_path / "v.parquet")
    assert status == 0 and table.column_names == ["file", "vector"]
    np.testing.assert_array_equal(np.stack(table["vector"].to_numpy()), expected(place, "laugh/c.wav", "cry/a.wav"))


def test_a_name_that_is_no_utf_8_is_written_out(place, tmp_path, capsys):
    name = os.fsdecode(b"\xff\xfe.wav")
    os.link(place / "clips" / "laugh" / "c.wav", tmp_path / name)
    for suffix in ("csv", "parquet"):
        table = tmp_path / f"v.{suffix}"
        status, said = run(capsys, tmp_path / name, f"--model={place / 'model'}", f"--output={table}")
        assert status == 0, said
    assert (tmp_path / "v.csv").read_text().splitlines()[1].startswith(f"{tmp_path}/\\xff\\xfe.wav,")
    assert pq.read_table(table)["file"].to_pylist() == [f"{tmp_path}/\\xff\\xfe.wav"]


def test_nothing_is_replaced_and_nothing_is_written_of_nothing(place, tmp_path, capsys):
    there = tmp_path / "v.csv"
    there.write_text("mine")
    model = f"--model={place / 'model'}"
    status, said = run(capsys, place / "clips", model, f"--output={there}")
    assert status == errors.EXIT_INPUT and "is there already" in said and there.read_text() == "mine"
    status, said = run(capsys, place / "clips", model, f"--output={tmp_path / 'no' / 'v.csv'}")
    assert status == errors.EXIT_INPUT and f"there is no folder {tmp_path / 'no'}" in said
    status, said = run(capsys, place / "clips" / "laugh" / "broken.wav", model, f"--output={tmp_path / 'w.csv'}")
    assert status == errors.EXIT_INPUT and "none of the recordings can be used" in said
    assert not (tmp_path / "w.csv").exists()
    (tmp_path / "list.csv").write_text("path\n")
    status, said = run(capsys, tmp_path / "list.csv", model, f"--output={tmp_path / 'w.csv'}")
    assert status == errors.EXIT_INPUT and f"`voc2vec evaluate --input={tmp_path / 'list.csv'}` reads lists" in said


def test_a_table_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(errors.RunError, match="x.csv cannot be written: No such file or directory"):
        vector_files.write(tmp_path / "gone" / "x.csv", pa.table({"file": ["a"]}), np.zeros((1, 2), np.float32))
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    with pytest.raises(errors.InputError, match="x.csv cannot be written: give a name in a folder that can"):
        vector_files.check_target(tmp_path / "x.csv")
