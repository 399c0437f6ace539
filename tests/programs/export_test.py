"""voc2vec export: a file that is checked before anyone uses it, and sentences where none can be written."""

import sys

import onnx
import onnxruntime
import pytest
import tiny_models
from onnx import numpy_helper

from voc2vec_jax import errors
from voc2vec_jax.inference import exported, pretrained
from voc2vec_jax.programs import export
from voc2vec_jax.runs import program


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder of a small model with a head."""
    return tiny_models.write(tmp_path_factory.mktemp("model"), ("cough", "laugh"))


def run(capsys, *argv):
    """Exit status, standard output, standard error."""
    status = program.run(export.main, [str(word) for word in argv])
    return status, *capsys.readouterr()


def test_a_model_becomes_a_file_that_was_checked(model, tmp_path, capsys):
    status, out, err = run(capsys, model, tmp_path / "deep" / "voice.onnx")
    assert status == 0, err
    assert "labels       cough, laugh" in out and "verified     a padded batch of 3 clips by onnxruntime, within" in out
    session = onnxruntime.InferenceSession(str(tmp_path / "deep" / "voice.onnx"))
    assert [each.name for each in session.get_inputs()] == ["audio", "lengths"]
    assert [each.name for each in session.get_outputs()][0] == "probabilities"


def test_a_file_that_computes_something_else_is_refused(model, tmp_path, capsys):
    path = tmp_path / "voice.onnx"
    loaded = pretrained.from_pretrained(model)
    loaded.save_pretrained(path, "onnx")
    assert exported.difference(loaded, path) < 1e-5
    changed = onnx.load(path)
    for tensor in changed.graph.initializer:
        if list(tensor.dims) == [16, 16]:  # one projection of one block
            tensor.CopyFrom(numpy_helper.from_array(1.1 * numpy_helper.to_array(tensor), tensor.name))
            break
    onnx.save(changed, path)
    with pytest.raises(errors.RunError, match=r"voice.onnx does not compute what the model computes, off by .*e-0"):
        export.verdict(loaded, path)


def test_names_that_cannot_be_written_are_told(model, tmp_path, capsys):
    status, _, err = run(capsys, model, tmp_path / "voice.bin")
    assert status == errors.EXIT_INPUT and "give it a name that ends in .onnx" in err
    (tmp_path / "voice.onnx").write_bytes(b"mine")
    status, _, err = run(capsys, model, tmp_path / "voice.onnx")
    assert status == errors.EXIT_INPUT and "voice.onnx already exists; remove it or choose another name" in err
    assert (tmp_path / "voice.onnx").read_bytes() == b"mine"


def test_without_a_runtime_a_sentence_names_the_extra(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    status, _, err = run(capsys, model, tmp_path / "voice.onnx")
    assert status == errors.EXIT_INPUT and "[onnx]', or give --verify=false" in err
    assert run(capsys, model, tmp_path / "unchecked.onnx", "--verify=false")[0] == 0
