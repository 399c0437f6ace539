"""The front door: every layout, the same features however items are grouped, labels only from a trained head."""

import pathlib
import subprocess
import sys

import checkpoints
import numpy as np
import parity
import pytest
import soundfile
import torch
import transformers

import voc2vec_jax as v2v
from voc2vec_jax import audio, errors
from voc2vec_jax.inference import layer_choice, loading, windowing

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
RATE = 16_000
TOLERANCE = 1e-5


def preprocessor(folder, **fields):
    made = transformers.Wav2Vec2FeatureExtractor(**fields)
    made.save_pretrained(folder)
    return made


def noise(*lengths, seed=0):
    """Clips of noise with an offset, so that normalisation matters."""
    rng = np.random.default_rng(seed)
    return [(0.1 * rng.normal(size=n) + 0.05).astype(np.float32) for n in lengths]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base-like model with the objective of pre-training."""
    where = tmp_path_factory.mktemp("models") / "base"
    checkpoints.source(where, "Wav2Vec2ForPreTraining")
    preprocessor(where, do_normalize=True, return_attention_mask=False)
    return where


@pytest.fixture(scope="module")
def model(folder):
    return v2v.from_pretrained(folder)


def theirs(folder, clips, masked, normalize=True):
    """transformers' hidden states of a padded batch, by way of its own feature extractor."""
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize, return_attention_mask=masked)
    batch = extractor(clips, sampling_rate=RATE, padding=True, return_tensors="pt")
    with torch.no_grad():
        network = transformers.AutoModel.from_pretrained(folder).eval()
        out = network(**batch, output_hidden_states=True)
    return [state.numpy() for state in (out.last_hidden_state, *out.hidden_states)]


def stacked(clips):
    """A padded batch with rubbish for padding, and the lengths."""
    lengths = np.array([len(clip) for clip in clips])
    batch = np.full((len(clips), lengths.max()), 7.0, np.float32)
    for row, clip in zip(batch, clips):
        row[: len(clip)] = clip
    return batch, lengths


def assert_close(ours, expected, tolerance=1e-4):
    np.testing.assert_allclose(np.asarray(ours, np.float32), expected, rtol=0, atol=tolerance)


def test_exact_padding_gives_each_clip_what_transformers_gives_it_alone(folder, model):
    clips = noise(4000, 2345)
    batch, lengths = stacked(clips)
    out = model(batch, lengths)
    assert out.frame_lengths.tolist() == [12, 7]
    assert len(out.hidden_states) == 3
    for row, clip in enumerate(clips):
        expected = theirs(folder, [clip], masked=False)
        t = out.frame_lengths[row]
        for state, wanted in zip((out.last_hidden_state, *out.hidden_states), expected):
            assert_close(state[row, :t], wanted[0])
            assert not np.asarray(state[row, t:]).any()


@pytest.mark.parametrize("masked", [False, True])
def test_legacy_padding_is_what_the_extractor_and_transformers_give(masked, folder, tmp_path):
    clips = noise(4000, 2345)
    legacy = v2v.from_pretrained(folder, padding="legacy")
    legacy.checkpoint.preprocessor["return_attention_mask"] = masked
    out = legacy(*stacked(clips))
    expected = theirs(folder, clips, masked)
    for state, wanted in zip((out.last_hidden_state, *out.hidden_states), expected):
        assert_close(state, wanted)
    assert out.frame_lengths.tolist() == [12, 7]


def test_the_input_is_normalised_as_the_checkpoint_says_unless_told_otherwise(folder, tmp_path, capsys):
    clips = noise(2000)
    for normalize in (True, False):
        network = transformers.AutoModel.from_pretrained(folder)
        network.save_pretrained(tmp_path / "plain")
        preprocessor(tmp_path / "plain", do_normalize=normalize)
        mine = v2v.from_pretrained(tmp_path / "plain")
        said = capsys.readouterr().err
        assert f"{tmp_path / 'plain'}: wav2vec2, {mine.checkpoint.parameters:,} parameters" in said
        assert ("zero mean and unit variance (eps 1e-07)" if normalize else "as it is, not normalised") in said
        expected = {choice: theirs(folder, clips, False, choice)[0] for choice in (True, False)}
        assert np.abs(expected[True] - expected[False]).max() > 1e-3
        assert_close(mine(clips[0][None]).last_hidden_state, expected[normalize])
        for choice in (True, False):
            assert_close(mine(clips[0][None], normalize=choice).last_hidden_state, expected[choice])
        assert_close(mine.embed(clips, pool=None)[0], expected[normalize][0])


def test_fairseqs_epsilon_for_checkpoints_of_fairseq(folder, tmp_path):
    quiet = 1e-3 * noise(2000)[0][None]
    model = v2v.from_pretrained(folder)
    model.save_pretrained(tmp_path / "a.pt", "fairseq")
    other = v2v.from_pretrained(tmp_path / "a.pt")
    assert "eps 1e-05" in repr(other)
    normed = torch.nn.functional.layer_norm(torch.tensor(quiet), quiet.shape[1:], eps=1e-5).numpy()
    wanted = model(normed, normalize=False).last_hidden_state
    assert_close(other(quiet).last_hidden_state, wanted, TOLERANCE)
    assert np.abs(model(quiet).last_hidden_state - wanted).max() > 1e-3


@pytest.fixture(scope="module")
def clips():
    return noise(*np.random.default_rng(5).integers(400, 10_000, 43), seed=5)


@pytest.fixture(scope="module")
def alone(model, clips):
    return np.concatenate([model.embed([clip]) for clip in clips])


@pytest.mark.parametrize("batch_seconds", [3.0, 30.0])
def test_grouping_and_order_change_nothing(batch_seconds, model, clips, alone):
    order = np.random.default_rng(6).permutation(len(clips))
    together = model.embed([clips[i] for i in order], batch_seconds=batch_seconds)
    assert together.dtype == np.float32 and together.shape == (43, 32)
    assert_close(together, alone[order], TOLERANCE)


def test_the_number_of_compilations_is_bounded(folder, clips):
    model = v2v.from_pretrained(folder)
    assert model.compilations == 0
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(43)[: 30 + seed]
        model.embed([clips[i] for i in order], batch_seconds=3.0)
    reached = [b for b in windowing.WindowLayout(model.config.encoder, 30.0, 2.0, 3.0).buckets if b < 10_000 * 1.26]
    assert 0 < model.compilations <= len(reached) * 3
    before = model.compilations
    model.embed(clips[:30], batch_seconds=3.0)
    model.embed(clips[:30], batch_seconds=3.0)
    assert model.compilations <= before + 3


def test_pools_and_layers_are_those_of_the_frames(model, clips):
    out = model(clips[3][None])
    states = np.stack([*out.hidden_states[:-1], out.last_hidden_state])[:, 0]
    assert_close(model.embed([clips[3]], layer="all"), states.mean(1)[None], TOLERANCE)
    assert_close(model.embed([clips[3]], pool="max", layer=[0, -1]), states.max(1)[None, [0, 2]], TOLERANCE)
    assert_close(model.embed([clips[3]], pool="first", layer=-2), states[1:2, 0], TOLERANCE)
    assert_close(model.embed([clips[3]], pool=None, layer=[1, 2])[0], states[1:].transpose(1, 0, 2), TOLERANCE)
    assert model.layer_numbers(2) == model.layer_numbers(-1)


def test_long_recordings_in_windows(model):
    """Frames of a window are those of that stretch alone; pooling is over the kept frames of all windows."""
    (clip,) = noise(40_000)
    options = {"window_seconds": 1.0, "overlap_seconds": 0.3, "batch_seconds": 2.0}
    (frames,) = model.embed([clip], pool=None, **options)
    assert frames.shape == (model.config.encoder.frames(40_000), 32)
    windows = windowing.WindowLayout(model.config.encoder, 1.0, 0.3, 2.0).windows(40_000)
    normed = loading.normalised(clip, 1e-7)
    stretches = np.stack([normed[w.start : w.stop] for w in windows])
    alone = model(stretches, normalize=False).last_hidden_state
    kept = [alone[k, w.first : w.last] for k, w in enumerate(windows)]
    assert len(windows) == 4
    assert_close(frames, np.concatenate(kept), TOLERANCE)
    assert_close(model.embed([clip], **options)[0], frames.mean(0), TOLERANCE)


@pytest.mark.parametrize("name", ["emotion2vec_base", "fairseq_hubert_base"])
def test_raw_audio_gives_the_features_of_the_reference(name):
    wanted = np.load(GOLDEN / name / "features.npz")
    model = v2v.from_pretrained(GOLDEN / name)
    raw = wanted["raw_audio"] if "raw_audio" in wanted else wanted["audio"]
    found = model.embed(list(raw), pool=None)
    np.testing.assert_allclose(np.stack(found), wanted["last_hidden_state"], rtol=0, atol=2e-5)


def test_files_and_arrays_of_any_rate_mix(model, tmp_path):
    rng = np.random.default_rng(7)
    samples = rng.integers(-9000, 9000, 8000, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 8000)
    soundfile.write(tmp_path / "b.flac", samples, RATE)
    items = [tmp_path / "a.wav", (samples, 8000), str(tmp_path / "b.flac"), samples, samples / 32768]
    found = model.embed(items)
    assert_close(found[1], found[0], TOLERANCE)
    assert_close(found[3], found[2], TOLERANCE)
    assert_close(found[4], found[2], TOLERANCE)
    assert np.abs(found[0] - found[2]).max() > 1e-3


def test_unreadable_items_are_raised_or_skipped_by_name(model, tmp_path, capsys):
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    items = [*noise(900, 399), tmp_path / "broken.wav", *noise(1000)]
    with pytest.raises(errors.InputError, match=r"item 1 has 399 samples"):
        model.embed(items)
    with pytest.raises(errors.InputError, match="broken.wav"):
        model.embed(items[2:])
    found = model.embed(items, on_unreadable="skip")
    warning = capsys.readouterr().err
    assert "2 of 4 items skipped" in warning and "broken.wav" in warning and "item 1" in warning
    assert np.isnan(found).all(1).tolist() == [False, True, True, False]
    assert_close(found[[0, 3]], model.embed([items[0], items[3]]), TOLERANCE)
    assert [len(x) for x in model.embed(items, pool=None, on_unreadable="skip")] == [2, 0, 0, 2]


def test_what_is_odd_about_files_is_summed_up_and_how_they_are_read_is_asked_for(model, tmp_path, capsys):
    soundfile.write(tmp_path / "whole.wav", noise(4000)[0], RATE)
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes((tmp_path / "whole.wav").read_bytes()[:5044])
    items = [tmp_path / "b.wav", noise(900)[0], tmp_path / "a.wav"]
    found = model.embed(items)
    said = capsys.readouterr().err
    assert f"2 of the recordings end early and are used as far as they go, such as {tmp_path}/a.wav: " in said
    assert_close(found[0], found[2], TOLERANCE)
    soundfile.write(tmp_path / "call.wav", np.stack([noise(4000)[0], np.zeros(4000)], 1), RATE)
    model.embed([tmp_path / "call.wav"])
    assert "part of the mean: channel=loudest leaves it out" in capsys.readouterr().err
    with pytest.raises(errors.InputError, match="item 0 holds samples up to 20000, and floats .*: divide them by"):
        model.embed([np.full(4000, 20_000.0)])
    with pytest.raises(errors.InputError, match="b.wav: is truncated"):
        model.embed(items, how=audio.Reading(on_truncated="refuse"))
    soundfile.write(tmp_path / "scale.wav", np.round(3000 * noise(4000)[0]), RATE, subtype="FLOAT")
    with pytest.raises(errors.InputError, match=r"scale.wav: holds samples up to \d+.* have: rescale_float divides"):
        model.embed([tmp_path / "scale.wav"])
    with pytest.raises(errors.InputError, match="channel=left is none of mean, first, loudest"):
        model.embed(items, how=audio.Reading(channel="left"))


@pytest.mark.parametrize("summed", [False, True])
def test_predictions_are_those_of_transformers(summed, tmp_path, capsys):
    names = {0: "cry", 1: "laugh", 2: "sigh"}
    options = {"use_weighted_layer_sum": summed, "id2label": names, "label2id": {v: k for k, v in names.items()}}
    made = parity.random_model(
        transformers.Wav2Vec2ForSequenceClassification,
        checkpoints.model("Wav2Vec2ForSequenceClassification", **options).config,
    )
    made.save_pretrained(tmp_path / "tuned")
    clips = noise(3000, 900, 5000)
    model = v2v.from_pretrained(tmp_path / "tuned")
    found = model.predict([clips[0], tmp_path / "absent.wav", *clips[1:]], on_unreadable="skip")
    for row, clip in zip((0, 2, 3), clips):
        with torch.no_grad():
            logits = made(torch.tensor(loading.normalised(clip, 1e-7))[None]).logits
        assert_close(found.probabilities[row], torch.softmax(logits, -1)[0].numpy(), TOLERANCE)
        assert found.labels[row] == names[int(logits.argmax())]
    assert found.labels[1] is None and np.isnan(found.probabilities[1]).all()
    assert found.classes == model.labels == ("cry", "laugh", "sigh")


def test_a_model_without_a_trained_head_refuses_to_predict(model, clips):
    with pytest.raises(errors.InputError, match="no trained classification head.*fine-tune it.*embed"):
        model.predict(clips[:1])


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.15), ("float16", 0.02)])
def test_narrow_types_stay_near_float32(dtype, tolerance, folder, clips, alone):
    narrow = v2v.from_pretrained(folder, dtype=dtype)
    found = narrow.embed(clips[:3])
    assert found.dtype == np.float32
    difference = np.abs(found - alone[:3]).max()
    assert 1e-5 < difference < tolerance
    if dtype == "bfloat16":
        assert narrow(clips[0][None]).last_hidden_state.dtype == dtype


def test_every_layout_is_written_and_read_back(folder, model, clips, tmp_path, capsys):
    model.save_pretrained(tmp_path / "hf")
    model.save_pretrained(tmp_path / "fairseq", format="fairseq")
    model.save_pretrained(tmp_path / "jax", format="jax")
    sources = ["hf", "hf/model.safetensors", "fairseq", "fairseq/model.pt", "jax"]
    for source in sources:
        again = v2v.from_pretrained(tmp_path / source)
        checkpoints.assert_same(again.checkpoint.params, model.checkpoint.params)
        assert again.checkpoint.normalizes
    _, info = transformers.Wav2Vec2ForPreTraining.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert "not in" not in capsys.readouterr().err
    tuned = checkpoints.source(tmp_path / "tuned", "Wav2Vec2ForSequenceClassification")
    assert tuned is not None
    v2v.from_pretrained(tmp_path / "tuned").save_pretrained(tmp_path / "headless.pt", "fairseq")
    assert "not in" in capsys.readouterr().err
    with pytest.raises(errors.InputError, match="format 'tf' is none of hf, fairseq, jax, onnx"):
        model.save_pretrained(tmp_path, format="tf")
    with pytest.raises(errors.InputError, match="cannot be written: "):
        model.save_pretrained(tmp_path / "headless.pt" / "x")


def test_a_source_without_mask_embedding(tmp_path, clips):
    """transformers leaves it out of models that mask nothing; features do not need it."""
    checkpoints.source(tmp_path, "Wav2Vec2Model", mask_time_prob=0.0)
    model = v2v.from_pretrained(tmp_path)
    assert "encoder/mask_embedding" in model.checkpoint.missing
    preprocessor(tmp_path)
    assert_close(model.embed([clips[0]], pool=None)[0], theirs(tmp_path, [clips[0]], False)[0][0])


def test_what_a_model_says_of_itself(model, folder):
    assert repr(model) == (
        f"<wav2vec2 model '{folder}': {model.checkpoint.parameters:,} parameters, 2 blocks of width 32, float32, exact "
        "padding; input normalised to zero mean and unit variance (eps 1e-07)>"
    )
    assert model.frame_rate_hz == 50


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda m: m(np.zeros(4000, np.float32)), r"audio has shape \(4000,\): give \[batch, samples\]"),
        (lambda m: m(np.zeros((1, 4000), np.int32)), "audio holds int32"),
        (lambda m: m(np.zeros((1, 399), np.float32)), "row 0 has length 399: one frame needs 400"),
        (lambda m: m(np.zeros((2, 900), np.float32), [900, 901]), "row 1 has length 901"),
        (lambda m: m(np.zeros((2, 900), np.float32), [900]), "lengths .* are not 2 whole numbers"),
        (lambda m: m(np.full((1, 900), np.nan, np.float32)), "row 0 of the audio holds NaN"),
        (lambda m: m.embed([np.zeros(900)], pool="median"), "pool 'median' is none of mean, max, first, None"),
        (lambda m: m.embed([np.zeros(900)], layer=3), r"layer 3 is not there: this model has layers 0 to 2"),
        (lambda m: m.embed([np.zeros(900)], layer="last"), "layer 'last' is no layer"),
        (lambda m: layer_choice.numbers(1.5, 2), "layer 1.5 is no layer: give a number"),
        (lambda m: m.embed([np.zeros(900)], on_unreadable="ignore"), "on_unreadable 'ignore' is none of"),
        (lambda m: m.embed([]), "items is empty"),
        (lambda m: v2v.from_pretrained(m.name, dtype="float64"), "dtype 'float64' is none of auto, float32"),
        (lambda m: v2v.from_pretrained(m.name, padding="same"), "padding 'same' is none of exact, legacy"),
    ],
)
def test_a_call_that_makes_no_sense_is_refused(call, sentence, model):
    with pytest.raises(errors.InputError, match=sentence):
        call(model)


def test_importing_the_package_is_light():
    code = (
        "import sys, voc2vec_jax as v2v; assert 'jax' not in sys.modules; v2v.from_pretrained; "
        "print([n for n in ('tensorflow_datasets', 'grain', 'orbax', 'torch', 'transformers') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'from_pretraned'"):
        v2v.from_pretraned  # noqa: B018


def test_a_tilde_is_the_home_folder(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    soundfile.write(tmp_path / "a.wav", noise(4000)[0], RATE)
    assert_close(model.embed(["~/a.wav"]), model.embed([tmp_path / "a.wav"]), TOLERANCE)
