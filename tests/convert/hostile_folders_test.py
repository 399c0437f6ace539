"""Folders of models from strangers: what lies in them, and what they say of it, is refused in one short sentence."""

import json
import os
import zipfile

import checkpoints
import numpy as np
import pytest
import safetensors.numpy

from voc2vec_jax import errors
from voc2vec_jax.convert import adapters, reader, sources, writer
from voc2vec_jax.models import heads, lora
from voc2vec_jax.programs import convert

HEAD = heads.Config(classes=3, width=8)


def ours(folder, **changes):
    """A folder in our own layout; `changes` are those of its config.json."""
    writer.write_jax(folder, checkpoints.random_checkpoint("wav2vec2", checkpoints.small_config("wav2vec2"), HEAD))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def refusal(path):
    with pytest.raises(errors.InputError) as caught:
        sources.read(path)
    said = str(caught.value)
    assert "\n" not in said and len(said) - 3 * len(str(path)) < 300
    return said


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"family": {"a": 1}}, "family {'a': 1} is none of"),
        ({"config": [1]}, "is none of"),
        ({"normalize": "no"}, "normalize is 'no' where a boolean is needed"),
        ({"normalize_eps": float("nan")}, "normalize_eps is nan where"),
        ({"labels": ["a"] * 500_000}, "names 500000 labels, but the classifier has 3 outputs"),
        ({"kind": ["classes"]}, "kind ['classes'] is none of"),
        ({"preprocessor": [1]}, "preprocessor is [1] where a JSON object is needed"),
        ({"raw_config": "x" * 100_000}, "raw_config is 'xxx"),
        ({"format": "", "model_type": ["wav2vec2"]}, "model_type is ['wav2vec2'], but only"),
    ],
)
def test_what_our_own_folder_says_is_checked(tmp_path, changes, sentence):
    assert sentence in refusal(ours(tmp_path, **changes))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_among_the_files_is_named_and_not_waited_for(tmp_path, name):
    ours(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    assert f"{name} is a pipe and no file" in refusal(tmp_path)


@pytest.mark.parametrize("shard", ["../a.safetensors", "/etc/passwd", "a\0b", "x" * 1_000_000, ""])
def test_a_shard_that_does_not_lie_in_the_folder_is_refused(tmp_path, shard):
    writer.write_hf(tmp_path, checkpoints.random_checkpoint("wav2vec2", checkpoints.small_config("wav2vec2"), HEAD))
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    assert "which does not lie beside it" in refusal(tmp_path)


def test_names_of_any_length_inside_of_a_file_are_shown_shortly(tmp_path):
    escape = "\x1b]0;x\x07" * 9_000
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{escape}/data.pkl", bytes(99))
    assert "\\x1b]0;x\\x07" in refusal(tmp_path / "a.pt")


def test_a_header_of_very_many_tensors_is_refused_before_they_are_listed(tmp_path):
    tensors = {f"t{k}": np.zeros(0, np.float32) for k in range(50_001)}
    safetensors.numpy.save_file(tensors, ours(tmp_path) / "model.safetensors")
    assert "holds 50,001 tensors, more than any model" in refusal(tmp_path)


def test_a_name_in_a_header_stands_for_one_tensor(tmp_path):
    """What the library reads of two is not what another program reads."""
    path = ours(tmp_path) / "model.safetensors"
    whole = path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    name, said = list(json.loads(whole[8 : 8 + size]).items())[-1]
    header = whole[8 : 8 + size].rstrip()[:-1] + f",{json.dumps(name)}:{json.dumps(said)}}}".encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + whole[8 + size :])
    assert f"names {name} twice" in refusal(tmp_path)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused_unless_asked_for(tmp_path, wrong):
    folder = ours(tmp_path / "a")
    arrays = safetensors.numpy.load_file(folder / "model.safetensors")
    arrays["encoder.norm.bias"][1] = wrong
    safetensors.numpy.save_file(arrays, folder / "model.safetensors")
    assert "encoder/norm/bias holds NaN or infinity (1 of 24 numbers): take another" in refusal(folder)
    read = sources.read(folder, allow_nonfinite=True)
    np.testing.assert_array_equal(read.params["encoder"]["norm"]["bias"][1], np.float32(wrong))
    words = [str(folder), str(tmp_path / "b")]
    with pytest.raises(errors.InputError, match="holds NaN or infinity"):
        convert.main(words)
    assert not convert.main([*words, "--allow_nonfinite"])
    checkpoints.assert_same(sources.read(tmp_path / "b", allow_nonfinite=True).params, read.params)


@pytest.fixture
def low(tmp_path):
    """Adapters beside their source; returns their folder."""
    folder = ours(tmp_path / "base")
    weights, config = reader.read(folder), lora.Config(rank=2)
    pairs = {name: {"a": np.ones((5, 24, 2)), "b": np.ones((5, 2, 24))} for name in config.targets}
    adapters.write(
        tmp_path / "low", str(folder), adapters.fingerprint(weights), config, {"lora": pairs}, weights.labels
    )
    return tmp_path / "low"


def said(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rank": 10**9}, "rank is 1000000000 where"),
        ({"rank": 0}, "rank is 0 where"),
        ({"rank": 3}, "lora.query.a has shape (5, 24, 2)"),
        ({"alpha": float("nan")}, "alpha is nan where"),
        ({"targets": ["evil"] * 100_000}, "targets is ['evil', 'evil', 'evil', 'evil', ...], but adapters are of"),
        ({"targets": [["query"]]}, "targets is [['query']], but"),
        ({"targets": ["query", "value", "key"]}, "lora.key.a is absent"),
        ({"targets": ["query"]}, "lora.value.a has shape"),
    ],
)
def test_what_adapters_say_must_fit_their_arrays_and_their_source(low, changes, sentence):
    assert sources.read(low).params["encoder"]["norm"]["bias"].shape == (24,)
    said(low, lora={"rank": 2, "alpha": 1.0, "targets": ["query", "value"]} | changes)
    assert sentence in refusal(low)


def test_adapters_that_are_their_own_source_end(low):
    for source in (low, low.parent / "base" / ".." / "low"):
        said(low, source=str(source))
        assert "adapters that name themselves as source" in refusal(low)
    said(low, source="x" * 1_000_000)
    assert "it must name the adapters' source" in refusal(low)
    for source in ("x" * 4_000, "\x1b]0;x\x07" * 500):  # longer than a name can be
        said(low, source=source)
        assert "which cannot be read (" in refusal(low)
