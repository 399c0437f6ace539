"""Whisper at the front door: what transformers computes by default, what a clip costs when it is cut, and refusals."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import tiny_whisper
import torch
import transformers

import voc2vec_jax as v2v
from voc2vec_jax import errors, evaluate
from voc2vec_jax.convert import reader, writer
from voc2vec_jax.inference import windowing
from voc2vec_jax.models import heads

TOLERANCE = 2e-5
LENGTHS = (5_000, 16_000, 777)


def clips(*lengths):
    rng = np.random.default_rng(0)
    return [(0.1 * rng.normal(size=n)).astype(np.float32) for n in lengths]


@pytest.fixture(scope="module")
def made():
    return tiny_whisper.model(encoder_layers=2)


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    where = tmp_path_factory.mktemp("models") / "whisper"
    made.save_pretrained(where)
    transformers.WhisperFeatureExtractor().save_pretrained(where)
    return where


def states_of(made, items):
    with torch.no_grad():
        out = made.encoder(tiny_whisper.features(made.config, items), output_hidden_states=True)
    return np.stack([state.numpy() for state in out.hidden_states])


def test_frames_of_a_batch_and_vectors_are_those_of_transformers(made, folder, capsys):
    model = v2v.from_pretrained(folder)
    assert "not normalised" in capsys.readouterr().err
    items = clips(*LENGTHS)
    expected = states_of(made, items)
    batch = np.full((3, 16_000), 7, np.float32)
    for row, item in zip(batch, items):
        row[: len(item)] = item
    out = model(batch, np.array(LENGTHS))
    np.testing.assert_allclose(out.last_hidden_state, expected[-1], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(np.stack(out.hidden_states), expected, rtol=0, atol=TOLERANCE)
    # The mean is over the clip's own frames, of 20 ms
    assert out.frame_lengths.tolist() == [16, 50, 2] and model.frame_rate_hz == 50
    means = np.stack([expected[:, row, :n].mean(1) for row, n in enumerate(out.frame_lengths)])
    np.testing.assert_allclose(model.embed(items, layer="all"), means, rtol=0, atol=TOLERANCE)
    assert model.compilations <= 3  # one batch and at most two sizes of windows, whatever the lengths


@pytest.mark.parametrize("context", ["padded", "cut"])
def test_grouping_and_order_change_nothing(context, folder):
    model = v2v.from_pretrained(folder, context=context)
    items = clips(*LENGTHS, 9_000)
    alone = np.concatenate([model.embed([item]) for item in items])
    together = model.embed(items[::-1], batch_seconds=90.0)[::-1]
    np.testing.assert_allclose(together, alone, rtol=0, atol=TOLERANCE)


def test_long_recordings_are_windows_of_thirty_seconds(folder):
    model = v2v.from_pretrained(folder)
    recording = clips(16_000 * 31)[0]
    frames = model.embed([recording], pool=None)[0]
    assert frames.shape == (1550, 24)
    # Two windows of 1,500 frames, the second 50 frames, 16,000 samples, later
    first, last = model.embed([recording[:479_840], recording[16_000:495_840]], pool=None)
    np.testing.assert_allclose(frames[:700], first[:700], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(frames[-700:], last[-700:], rtol=0, atol=TOLERANCE)
    with pytest.raises(errors.InputError, match="window_seconds is 31.0: this model takes 30 s at most"):
        model.embed([recording], window_seconds=31.0)


def test_a_padded_batch_holds_as_much_audio_as_its_windows_cost(folder):
    config = v2v.from_pretrained(folder).config.encoder
    layout = windowing.WindowLayout(config, 30.0, 2.0, 64.0, lengths=[3_000] * 9)
    assert layout.sizes[layout.bucket(3_000)][0] == 2
    cut = v2v.from_pretrained(folder, context="cut").config.encoder
    layout = windowing.WindowLayout(cut, 30.0, 2.0, 64.0, lengths=[3_000] * 9)
    assert layout.sizes[layout.bucket(3_000)][0] > 64


@pytest.mark.parametrize("summed", [False, True])
def test_predictions_are_those_of_transformers(summed, tmp_path):
    names = {0: "cry", 1: "laugh", 2: "sigh"}
    options = {"use_weighted_layer_sum": summed, "id2label": names, "label2id": {v: k for k, v in names.items()}}
    made = tiny_whisper.model("WhisperForAudioClassification", **options)
    made.save_pretrained(tmp_path)
    items = clips(*LENGTHS)
    found = v2v.from_pretrained(tmp_path).predict(items)
    with torch.no_grad():
        logits = made(tiny_whisper.features(made.config, items)).logits
    np.testing.assert_allclose(found.probabilities, torch.softmax(logits, -1).numpy(), rtol=0, atol=TOLERANCE)
    assert found.labels == tuple(names[int(row.argmax())] for row in logits)


def test_frames_of_a_file_have_their_times_from_the_command_line(folder, tmp_path):
    soundfile.write(tmp_path / "a.wav", clips(4_000)[0], 16_000)
    given = [f"--model={folder}", f"--input={tmp_path / 'a.wav'}", f"--output={tmp_path / 'out'}"]
    assert evaluate.main([*given, "--pool=none", "--context=cut"]) == errors.EXIT_DONE
    row = pq.read_table(tmp_path / "out" / "parts").to_pylist()[0]
    # Frame k has sample 320 k in its middle; the last of 25 frames of the spectrum has one of ours to itself
    np.testing.assert_allclose(row["frame_times"], 0.02 * np.arange(13), atol=1e-6)
    expected = v2v.from_pretrained(folder, context="cut").embed([tmp_path / "a.wav"], pool=None)[0]
    np.testing.assert_allclose(row["layer_2"], expected, rtol=0, atol=TOLERANCE)


def test_a_context_belongs_to_the_model(folder, tmp_path):
    """It is kept with the weights, counts in the fingerprint, and is no choice of other families."""
    source = reader.read(folder)
    head = heads.Config(classes=3, width=5)
    shapes = {"projector": (24, 5), "classifier": (5, 3)}
    params = {
        name: {"kernel": np.ones(of, np.float32), "bias": np.zeros(of[1:], np.float32)} for name, of in shapes.items()
    }
    trained = dataclasses.replace(source, params={**source.params, "head": params}, labels=("a", "b", "c"))
    assert trained.head == head
    writer.write_jax(tmp_path / "cut", trained.in_context("cut"))
    model = v2v.from_pretrained(tmp_path / "cut")
    assert model.config.encoder.context == "cut"
    padded = v2v.from_pretrained(tmp_path / "cut", context="padded")
    assert padded.config.encoder.context == "padded" and padded.fingerprint != model.fingerprint
    with pytest.raises(errors.InputError, match="context 'short' is none of auto, padded, cut"):
        v2v.from_pretrained(folder, context="short")
