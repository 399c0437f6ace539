"""voc2vec convert and convert.verify: what is said is true, and a target that is not its source's equal is refused."""

import dataclasses
import importlib.util
import json
import pathlib
import resource

import checkpoints
import numpy as np
import pytest
import safetensors.numpy
import tiny_models

from voc2vec_jax import errors
from voc2vec_jax.convert import reader, torch_files, verify, writer
from voc2vec_jax.models import heads
from voc2vec_jax.programs import convert
from voc2vec_jax.runs import program

ROOT = pathlib.Path(__file__).parents[2]
CHECKPOINT = checkpoints.BUNDLED / "fairseq_wav2vec2_base" / "checkpoint.pt"


def run(capsys, *argv):
    """Exit status, standard output, standard error."""
    status = program.run(convert.main, [str(word) for word in argv])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_checkpoint_travels_through_every_layout_and_is_verified(tmp_path, capsys):
    status, out, _ = run(capsys, CHECKPOINT, tmp_path / "hf", "--to=hf")
    assert status == 0
    for fact in ("family       wav2vec2", "86,960 from 74 tensors", "normalised   no", "unused       nothing"):
        assert fact in out
    assert "42 parameters read back equal to the bit; outputs within" in out
    assert {path.name for path in (tmp_path / "hf").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    steps = ((tmp_path / "hf", tmp_path / "jax"), (tmp_path / "jax", tmp_path / "a.pt"))
    for source, target in steps:
        assert run(capsys, source, target, "--verify=false")[0] == 0
    want, got = reader.read(CHECKPOINT), reader.read(tmp_path / "a.pt")
    assert got.source_format == "fairseq" and got.normalize == want.normalize
    checkpoints.assert_same(got.params, want.params)


@pytest.mark.slow
def test_runs_are_converted_as_they_are_loaded(tmp_path, capsys):
    """A cross-validation is the model that it kept."""
    tiny_models.write(tmp_path / "run" / "fold_00" / "model", labels=("cry", "laugh"))
    (tmp_path / "run" / "config.json").write_text(json.dumps({"folds": 2, "datasets": ["folder"]}))
    status, out, err = run(capsys, tmp_path / "run", tmp_path / "hf", "--to=hf")
    assert status == 0 and "labels       cry, laugh" in out and "parameters read back equal to the bit" in out
    assert f"run is a cross-validation: taken is {tmp_path / 'run' / 'fold_00' / 'model'}" in err
    assert reader.read(tmp_path / "hf").labels == ("cry", "laugh")


def test_what_is_left_out_is_named(tmp_path, capsys):
    hubert = checkpoints.BUNDLED / "fairseq_hubert_base" / "checkpoint.pt"
    _, out, _ = run(capsys, hubert, tmp_path / "a", "--to=hf", "--verify=false")
    assert "left out     3 (label_embeddings, project_context/kernel, project_context/bias): transformers has no" in out
    checkpoints.source(tmp_path / "ctc", "HubertForCTC")
    _, out, _ = run(capsys, tmp_path / "ctc", tmp_path / "b", "--verify=false")
    assert "lm_head.bias" in out and "): output layer of speech recognition" in out
    assert "missing      label_embeddings: initialised anew where needed" in out
    assert "normalised   the source does not say; yes" in out


@pytest.mark.parametrize(
    "words, reason",
    [
        (["absent", "x"], "absent does not exist"),
        (["CHECKPOINT", "full"], "full already exists; remove it or choose another name"),
        (["CHECKPOINT", "full/a.txt"], "a.txt already exists"),
        (["CHECKPOINT", "full/a.txt/b"], "full/a.txt/b cannot be written: "),
        (["CHECKPOINT"], "SRC DST are 2 words, and there is "),
        (["CHECKPOINT", "x", "--to=tf"], "--to=tf is none of jax, hf, fairseq"),
        (["CHECKPOINT", "x", "--too=hf"], "did you mean --to?"),
        (["EMOTION", "x", "--to=hf"], "transformers has no emotion2vec"),
        (["full/a.txt", "x"], "is not a file of torch.save"),
    ],
)
def test_faults_give_one_sentence_and_status_2(tmp_path, capsys, monkeypatch, words, reason):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a.txt").write_text("hello")
    monkeypatch.chdir(tmp_path)
    known = {"CHECKPOINT": CHECKPOINT, "EMOTION": checkpoints.BUNDLED / "emotion2vec_base" / "checkpoint.pt"}
    status, out, err = run(capsys, *(known.get(word, word) for word in words))
    assert status == errors.EXIT_INPUT and not out
    assert err.startswith("error: ") and err.count("\n") == 1 and reason in err


@pytest.mark.parametrize("family", ["wavlm", "data2vec"])
def test_outputs_are_compared_with_transformers(tmp_path, family):
    """With a classification head the logits as well."""
    head = heads.Config(classes=3, width=6, layer_sum=family == "wavlm")
    made = checkpoints.random_checkpoint(family, checkpoints.small_config(family), head)
    scaled = reader.convert_names.unflatten(
        {name: 0.1 * array for name, array in reader.convert_names.flatten(made.params).items()}
    )
    writer.write_hf(tmp_path / "a", dataclasses.replace(made, params=scaled))
    writer.write_jax(tmp_path / "b", reader.read(tmp_path / "a"))
    report = verify.report(tmp_path / "a", tmp_path / "b")
    assert not report["differ"] and 0 < report["difference"] < verify.TOLERANCE
    assert "equal to the bit; outputs within" in convert.verdict(report, tmp_path)


def test_a_changed_weight_is_found(tmp_path):
    writer.write_jax(tmp_path, reader.read(CHECKPOINT))
    arrays = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    name = "encoder.layers.mlp_in.kernel"
    arrays[name][1, 2, 3] = np.nextafter(arrays[name][1, 2, 3], np.float32(9))
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    report = verify.report(CHECKPOINT, tmp_path)
    assert report["differ"] == ["encoder/layers/mlp_in/kernel"]
    with pytest.raises(errors.RunError, match="differs from its source in encoder/layers/mlp_in/kernel; do not use"):
        convert.verdict(report, tmp_path)


def test_another_function_is_found(tmp_path):
    """Equal parameters under a config that computes something else."""
    checkpoints.source(tmp_path / "a", "HubertModel")
    writer.write_jax(tmp_path / "b", reader.read(tmp_path / "a"))
    config = json.loads((tmp_path / "b/config.json").read_text())
    config["config"]["encoder"]["norm_first"] = True
    (tmp_path / "b/config.json").write_text(json.dumps(config))
    report = verify.report(tmp_path / "a", tmp_path / "b")
    assert not report["differ"]
    with pytest.raises(errors.RunError, match="does not compute what transformers computes"):
        convert.verdict(report, tmp_path)


def test_without_transformers_the_parameters_are_still_compared(tmp_path, monkeypatch):
    writer.write_jax(tmp_path, reader.read(CHECKPOINT))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    report = verify.report(CHECKPOINT, tmp_path)
    monkeypatch.undo()
    assert "outputs not compared: that needs torch and transformers" in convert.verdict(report, tmp_path)


def test_a_verification_that_fails_is_no_verdict(tmp_path):
    with pytest.raises(errors.RunError, match="absent could not be verified: .*absent does not exist"):
        verify.in_own_process(CHECKPOINT, tmp_path / "absent")


@pytest.mark.parametrize("target", ["a", "a.pt"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, target):
    """A limit on the size of files stands for a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    write = writer.write_fairseq if target.endswith(".pt") else writer.write_jax
    checkpoint = reader.read(CHECKPOINT)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="[Ff]ile too large"):
            write(tmp_path / target, checkpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_long_names_of_strangers_are_shown_shortly(tmp_path, capsys):
    tiny_models.write(tmp_path / "a", labels=tuple(k * 1000 for k in "abc"))
    status, out, err = run(capsys, tmp_path / "a", tmp_path / "b", "--verify=false")
    assert status == 0 and "labels       aaa" in out and max(map(len, (out + err).splitlines())) < 330
    writer.write_hf(tmp_path / "hf", reader.read(CHECKPOINT))
    arrays = safetensors.numpy.load_file(tmp_path / "hf" / "model.safetensors")
    state = {f"{'x' * 4_000}.{name}": array for name, array in arrays.items()}
    state |= {f"{'y' * 4_000}{k}": np.zeros(1, np.float32) for k in range(4)}
    (tmp_path / "hf" / "model.safetensors").unlink()
    torch_files.save(tmp_path / "hf" / "last.ckpt", {"pytorch-lightning_version": "2", "state_dict": state})
    status, out, err = run(capsys, tmp_path / "hf" / "last.ckpt", tmp_path / "c", "--verify=false")
    assert status == 0 and "lies under xxx" in err and "unused       4 (yyy" in out, err
    assert max(map(len, (out + err).splitlines())) < 500
