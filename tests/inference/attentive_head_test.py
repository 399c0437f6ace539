"""A head that weighs frames: kept by our own folder, refused by transformers' layout, exact over windows."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import tiny_models
from scipy import special

import voc2vec_jax as v2v
from voc2vec_jax import audio, errors, evaluate
from voc2vec_jax.convert import reader
from voc2vec_jax.runs import program

LABELS = ("cry", "laugh", "sigh")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return tiny_models.write(tmp_path_factory.mktemp("attentive") / "model", LABELS, pooling="attention")


def expected(model, paths):
    """Class probabilities by the equations, from the frames of whole recordings."""
    head = model.checkpoint.params["head"]
    found = []
    for frames in model.embed(paths, pool=None):
        x = frames @ head["projector"]["kernel"] + head["projector"]["bias"]
        pooled = special.softmax(x @ head["query"]) @ x
        found.append(special.softmax(pooled @ head["classifier"]["kernel"] + head["classifier"]["bias"]))
    return np.array(found)


def test_windows_of_a_recording_join_by_their_weight(source, tmp_path):
    # One recording in a single window, one in three.
    paths = [tmp_path / name for name in tiny_models.recordings(tmp_path, [0.7, 70.0])]
    model = v2v.from_pretrained(source, dtype="float32")
    found = model.predict(paths)
    np.testing.assert_allclose(found.probabilities, expected(model, paths), atol=1e-5)
    assert np.abs(found.probabilities - 1 / 3).max() > 0.02


def test_evaluation_gives_what_predict_gives(source, tmp_path):
    names = tiny_models.recordings(tmp_path / "clips", [0.5, 0.9, 1.3])
    given = [f"--model={source}", f"--input={tmp_path / 'clips'}", f"--output={tmp_path / 'out'}", "--dtype=float32"]
    assert program.run(evaluate.main, [*given, "--predict"]) == 0
    rows = pq.read_table(tmp_path / "out" / "parts").sort_by("row").to_pydict()
    model = v2v.from_pretrained(source, dtype="float32")
    wanted = expected(model, [tmp_path / "clips" / name for name in names])
    np.testing.assert_allclose(rows["probabilities"], wanted, atol=1e-5)


def test_a_timeline_has_the_probabilities_of_each_window(source, tmp_path):
    names = tiny_models.recordings(tmp_path / "clips", [1.0])
    given = [f"--model={source}", f"--input={tmp_path / 'clips'}", f"--output={tmp_path / 'out'}", "--dtype=float32"]
    assert program.run(evaluate.main, [*given, "--timeline", "--window_seconds=0.5", "--hop_seconds=0.5"]) == 0
    lines = (tmp_path / "out" / "timelines" / "00000.csv").read_text().splitlines()[1:]
    wave = audio.load(tmp_path / "clips" / names[0])
    halves = [tmp_path / "first.wav", tmp_path / "second.wav"]
    for path, part in zip(halves, np.split(wave, 2)):
        soundfile.write(path, part, 16_000)
    wanted = expected(v2v.from_pretrained(source, dtype="float32"), halves).max(1)
    np.testing.assert_allclose([float(line.split(",")[-1]) for line in lines], wanted, atol=1e-3)


def test_our_own_folder_keeps_it_and_transformers_cannot(source, tmp_path):
    model = v2v.from_pretrained(source)
    model.save_pretrained(tmp_path / "own", format="jax")
    again = reader.read(tmp_path / "own")
    assert again.head == model.checkpoint.head and again.head.pooling == "attention"
    np.testing.assert_array_equal(again.params["head"]["query"], model.checkpoint.params["head"]["query"])
    with pytest.raises(errors.InputError, match="no classification head with attentive pooling; convert it to jax"):
        model.save_pretrained(tmp_path / "hf")
    assert not (tmp_path / "hf").exists()
