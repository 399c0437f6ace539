"""Results as DataFrames: rows and columns by name, the same numbers."""

import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
import tiny_models

import voc2vec_jax as v2v
from voc2vec_jax import errors
from voc2vec_jax.inference import answers, results, tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("clips")
    tiny_models.recordings(where, [0.3, 0.5])
    return where


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return v2v.from_pretrained(tiny_models.write(tmp_path_factory.mktemp("model"), labels=("cry", "laugh")))


def test_vectors_have_the_file_as_index_and_a_column_for_each_number(model, folder):
    found = model.embed(folder, as_frame=True)
    assert found.index.name == "file" and found.index.tolist() == [str(folder / n) for n in ("000.wav", "001.wav")]
    assert found.columns.tolist() == [f"layer_2_{k}" for k in range(16)]
    np.testing.assert_array_equal(found.to_numpy(), model.embed(folder))
    several = model.embed(pd.Series([folder / "000.wav"]), layer=[0, -1], as_frame=True)
    assert several.columns[[0, 16, 31]].tolist() == ["layer_0_0", "layer_2_0", "layer_2_15"]
    np.testing.assert_array_equal(several.to_numpy().reshape(1, 2, 16), model.embed(folder / "000.wav", layer=[0, -1]))


def test_an_item_that_is_left_out_has_a_row_without_numbers(model, folder):
    found = model.embed([folder / "000.wav", np.zeros(9)], as_frame=True, on_unreadable="skip")
    assert found.index[1] == "item 1" and found.isna().all(axis=1).tolist() == [False, True]


def test_frames_have_start_and_end(model, folder):
    found = model.embed(folder, pool=None, as_frame=True)
    assert found.index.names == ["file", "start", "end"]
    frames = model.embed(folder, pool=None)
    np.testing.assert_array_equal(found.to_numpy(), np.concatenate(frames))
    one = found.loc[str(folder / "001.wav")]
    start, end = (one.index.get_level_values(name) for name in ("start", "end"))
    assert len(one) == len(frames[1]) and (start[1:] == end[:-1]).all()
    middle, hop = model.config.encoder.middle_samples, model.config.encoder.hop_samples
    assert start[3] == pd.Timedelta(seconds=(middle + 2.5 * hop) / 16_000)
    assert end[3] - start[3] == pd.Timedelta(seconds=hop / 16_000)


def test_windows_have_start_and_end(model, folder):
    cut = v2v.windows(folder, 0.2, 0.1)
    wanted = [(f"{folder}/000.wav", k / 10, k / 10 + 0.2) for k in range(2)]
    wanted += [(f"{folder}/001.wav", k / 10, k / 10 + 0.2) for k in range(4)]
    assert [name for name, _, _ in cut.names] == [name for name, _, _ in wanted]
    np.testing.assert_allclose([name[1:] for name in cut.names], [name[1:] for name in wanted])
    for found in (model.predict(cut, as_frame=True), model.embed(cut, as_frame=True)):
        assert found.index.names == ["file", "start", "end"] and found.index[3][0] == f"{folder}/001.wav"
        assert found.index[3][1:] == (pd.Timedelta(seconds=0.1), pd.Timedelta(seconds=0.3))
    wave, _ = soundfile.read(folder / "001.wav", dtype="float32")
    alone = model.predict((wave[1_600:4_800], 16_000)).probabilities[0]
    np.testing.assert_allclose(model.predict(cut).probabilities[3], alone, atol=1e-6)
    frames = model.embed(cut, pool=None, as_frame=True).loc[f"{folder}/001.wav"]
    starts = frames.index.get_level_values("start").total_seconds()
    assert starts.max() > 0.4 and len(frames) == 4 * model.config.encoder.frames(3_200)
    assert len(v2v.windows(folder / "000.wav", 9)) == 1  # a shorter recording is one window
    for window, hop in ((0, None), (1, 2), (1, 0), (-1, None)):
        with pytest.raises(errors.InputError, match="windows of .* s every .* s: give a window above 0"):
            v2v.windows(folder, window, hop)
    with pytest.raises(errors.InputError, match="nothing.wav"):
        v2v.windows([folder / "nothing.wav"], 1)


def test_predictions_have_the_label_and_a_column_for_each_class(model, folder):
    found, wanted = model.predict(folder, as_frame=True), model.predict(folder)
    assert found.columns.tolist() == ["predicted", "cry", "laugh"] and found.index.name == "file"
    assert found["predicted"].tolist() == list(wanted.labels)
    np.testing.assert_array_equal(found[["cry", "laugh"]].to_numpy(), wanted.probabilities)
    numbers = results.Prediction(("3.25",), np.array([[3.25]], np.float32), (answers.VALUE,))
    assert tables.of_prediction(["a.wav"], numbers, "regression").to_dict() == {"value": {"a.wav": 3.25}}


def test_without_pandas_the_extra_is_named(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(errors.InputError, match=r"as_frame needs pandas: pip install .*\[frame\]"):
        model.embed(np.zeros(4_000, np.float32), as_frame=True)
