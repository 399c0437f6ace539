"""An ONNX file gives what the model gives, of every family, whatever the rows are padded with."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

from voc2vec_jax import errors, models
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.convert import onnx_file, reader
from voc2vec_jax.inference import pretrained
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.models import heads, whisper

TOLERANCE = 1e-4
LENGTHS = (9000, 4001, 1700)
SIZES = {"conv_channels": (8, 8, 8), "conv_kernels": (40, 8, 4), "conv_strides": (20, 4, 4)}
SIZES |= {"width": 16, "depth": 2, "heads": 2, "inner_width": 32, "positional_kernel": 4, "positional_groups": 2}
LARGE = {"conv_norm": "layer", "conv_bias": True, "norm_first": True}
STACK = {"conv_norm": "layer", "positional_depth": 3, "positional_kernel": 5}
CASES = {  # family, fields of its configuration, of its encoder, of the model's weights, of the head
    "wav2vec2": ("wav2vec2", {}, {}, {}, {}),
    "wav2vec2 large": ("wav2vec2", {}, LARGE, {"kind": "multilabel", "normalize": False}, {"layer_sum": True}),
    "hubert": ("hubert", {}, {"feature_norm": False}, {"kind": "regression"}, {"classes": 1}),
    "wavlm": ("wavlm", {"relative_buckets": 16, "relative_distance": 9}, {}, {}, {"pooling": "attention"}),
    "wavlm large": ("wavlm", {"relative_buckets": 16, "relative_distance": 20}, LARGE, {}, {}),
    "data2vec": ("data2vec", {}, STACK, {}, {}),
    "emotion2vec": ("emotion2vec", {"extra_tokens": 4, "prenet_depth": 1}, STACK, {}, {}),
    "whisper": ("whisper", {}, {"context": "padded"}, {"normalize": False}, {"layer_sum": True}),
    "whisper cut": ("whisper", {}, {"context": "cut"}, {"normalize": False}, {}),
}
QUICK = ("wav2vec2", "whisper cut")


def weights(case: str, head: bool = True) -> reader.ModelWeights:
    """A small model of random weights with a head."""
    family, fields, encoder, about, of_head = CASES[case]
    if family == "whisper":
        sizes = {"mel_bands": 12, "positions": 1500, "width": 24, "depth": 2, "heads": 3, "inner_width": 40}
        config = models.FAMILIES[family].Config(whisper.EncoderConfig(**{**sizes, **encoder}))
    else:
        config = models.FAMILIES[family].Config(encoder=encoders.EncoderConfig(**{**SIZES, **encoder}), **fields)
    of_head = heads.Config(**{"classes": 3, "width": 8, **of_head}) if head else None
    rng, flat = np.random.default_rng(0), {}
    for entry in convert_names.table(family, config, of_head):
        ones = entry.ours.endswith(("/scale", "/g", "alibi_scale"))
        flat[entry.ours] = ones + 0.3 * rng.standard_normal(entry.full_shape, dtype=np.float32)
    labels = tuple(["cöugh", "cry", "laugh"][: of_head.classes]) if head else ()
    about = {"normalize": True, **about}
    return reader.ModelWeights(family, config, convert_names.unflatten(flat), labels=labels, **about)


def clips(lengths=LENGTHS):
    """Noise with an offset, which normalisation must take away, from far too quiet for a spectrum's range to loud."""
    rng = np.random.default_rng(1)
    return [(0.05 + np.geomspace(1e-7, 0.1, n) * rng.normal(size=n)).astype(np.float32) for n in lengths]


def outputs(path, items, behind: float):
    """What onnxruntime computes of a batch with `behind` in the place of padding."""
    session = onnxruntime.InferenceSession(str(path))
    audio = np.full((len(items), max(map(len, items))), behind, np.float32)
    for row, item in zip(audio, items):
        row[: len(item)] = item
    names = [output.name for output in session.get_outputs()]
    fed = {"audio": audio, "lengths": np.array([len(item) for item in items])}
    return dict(zip(names, session.run(None, fed)))


@pytest.mark.parametrize("case", [pytest.param(c, marks=[] if c in QUICK else pytest.mark.slow) for c in CASES])
def test_a_padded_batch_gives_what_the_model_gives_of_each_clip(case, tmp_path):
    path, found = tmp_path / "model.onnx", weights(case)
    onnx_file.write(path, found)
    onnx.checker.check_model(str(path), full_check=True)
    model = pretrained.Model(case, found)
    items = clips()
    frames, told = model.embed(items, pool=None), model.predict(items).probabilities
    computed = outputs(path, items, behind=7.7)
    np.testing.assert_allclose(computed["probabilities"], told, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(computed["embedding"], model.embed(items), rtol=0, atol=TOLERANCE)
    assert computed["frame_lengths"].tolist() == [len(each) for each in frames]
    for each, padded in zip(frames, computed["last_hidden_state"]):
        np.testing.assert_allclose(padded[: len(each)], each, rtol=0, atol=TOLERANCE)
        assert not padded[len(each) :].any()
    assert np.ptp(computed["embedding"], axis=0).max() > 100 * TOLERANCE  # the clips are not alike


def test_every_family_has_a_graph():
    assert set(onnx_file.FAMILIES) == set(models.FAMILIES) == {family for family, *_ in CASES.values()}


def test_the_file_says_what_a_program_must_know(tmp_path):
    onnx_file.write(tmp_path / "model.onnx", weights("wav2vec2"))
    found = onnxruntime.InferenceSession(str(tmp_path / "model.onnx")).get_modelmeta().custom_metadata_map
    assert json.loads(found["labels"]) == ["cöugh", "cry", "laugh"]
    assert (found["sampling_rate"], found["kind"], found["family"]) == ("16000", "classes", "wav2vec2")
    assert "not normalised by the caller" in found["input"] and "inside the graph" in found["input"]
    assert found["least_samples"] == "420"  # 40 + 7 * 20 + 3 * 80: the first frame of SIZES


def test_a_model_without_a_head_gives_features_alone(tmp_path):
    onnx_file.write(tmp_path / "model.onnx", weights("wav2vec2", head=False))
    found = outputs(tmp_path / "model.onnx", clips(), behind=0.0)
    assert set(found) == {"embedding", "last_hidden_state", "frame_lengths"}


def test_parameters_that_exceed_a_file_lie_beside_it(tmp_path, monkeypatch):
    path, found = tmp_path / "model.onnx", weights("wav2vec2")
    onnx_file.write(path, found)
    whole = outputs(path, clips(), behind=0.0)
    monkeypatch.setattr(onnx_file, "_MOST_BYTES", 1000)
    sizes = set()
    for _ in range(2):  # the second time over the first
        onnx_file.write(path, found)
        sizes.add((tmp_path / "model.onnx.data").stat().st_size)
    assert len(sizes) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert path.stat().st_size > 1000
    split = outputs(path, clips(), behind=0.0)
    assert all(np.array_equal(whole[name], split[name]) for name in whole)


def test_without_the_package_a_sentence_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(errors.InputError, match=r"needs the onnx package: pip install -e '.*\[onnx\]'"):
        onnx_file.write(tmp_path / "model.onnx", weights("wav2vec2"))


def test_a_family_without_a_graph_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "FAMILIES", ("hubert",))
    with pytest.raises(errors.InputError, match="wav2vec2 has no ONNX graph: the families that have one are hubert"):
        onnx_file.write(tmp_path / "model.onnx", weights("wav2vec2"))
