"""convert: what programs of today wrap a model in, and where its configuration then lies."""

import json
import pathlib
import sys
import types

import checkpoints
import numpy as np
import pytest
import safetensors.torch
import tiny_whisper
import torch

import voc2vec_jax as v2v
from voc2vec_jax import errors
from voc2vec_jax.convert import reader, sources, torch_files, verify, writer

CLASSIFIER = "HubertForSequenceClassification"
WRAPPERS = ["module.", "_orig_mod.", "model.", "module.model._orig_mod.", "_fsdp_wrapped_module.model."]


def folder_of(where, tensors, file, config):
    """A folder with a config.json and one file of weights, a `.ckpt` as Lightning writes it; the path to give."""
    where.mkdir()
    (where / "config.json").write_text(config)
    if file.endswith(".safetensors"):
        safetensors.torch.save_file(tensors, where / file)
    elif file.endswith(".ckpt"):
        torch.save({"pytorch-lightning_version": "2.5", "epoch": 3, "state_dict": tensors}, where / file)
    else:
        torch.save(tensors if file.endswith(".bin") else {"epoch": 3, "model_state_dict": tensors}, where / file)
    return where if file in ("model.safetensors", "pytorch_model.bin") else where / file


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A folder of transformers with a classifier, its tensors and its config.json."""
    folder = tmp_path_factory.mktemp("plain")
    made = checkpoints.source(folder, CLASSIFIER, id2label={0: "cry", 1: "laugh"})
    tensors = {name: tensor.contiguous() for name, tensor in made.state_dict().items()}
    return reader.read(folder), tensors, (folder / "config.json").read_text()


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin", "best.ckpt", "best.pth"])
def test_known_wrappers_are_taken_off(tmp_path, plain, file):
    want, tensors, config = plain
    for number, wrapper in enumerate(WRAPPERS):
        wrapped = {wrapper + name: tensor for name, tensor in tensors.items()}
        got = reader.read(folder_of(tmp_path / str(number), wrapped, file, config))
        checkpoints.assert_same(got.params, want.params)
        assert (got.labels, got.unused, got.mapped) == (("cry", "laugh"), {}, len(tensors))


def test_layers_that_were_compiled_one_by_one_are_found(tmp_path, plain):
    want, tensors, config = plain
    wrapped = {name.replace("layers.1.", "layers.1._orig_mod."): tensor for name, tensor in tensors.items()}
    assert wrapped.keys() != tensors.keys()
    got = reader.read(folder_of(tmp_path / "a", wrapped, "pytorch_model.bin", config))
    checkpoints.assert_same(got.params, want.params)
    twice = {**tensors, **wrapped}
    with pytest.raises(errors.InputError, match="under two spellings of its name"):
        reader.read(folder_of(tmp_path / "b", twice, "pytorch_model.bin", config))


@pytest.mark.parametrize("wrapper", ["model.", "module.model."])
def test_a_wrapper_of_whisper_is_told_from_its_own_prefix(tmp_path, wrapper):
    options = {"num_labels": 3, "classifier_proj_size": 7}
    for number, name in enumerate(("WhisperForAudioClassification", "WhisperForConditionalGeneration")):
        made = tiny_whisper.model(name, **({} if number else options))
        made.save_pretrained(tmp_path / f"{number}")
        want = reader.read(tmp_path / f"{number}")
        wrapped = {wrapper + key: tensor.contiguous() for key, tensor in made.state_dict().items()}
        config = (tmp_path / f"{number}" / "config.json").read_text()
        got = reader.read(folder_of(tmp_path / f"{number}w", wrapped, "pytorch_model.bin", config))
        checkpoints.assert_same(got.params, want.params)
        assert (got.head is None) == bool(number)


def test_an_unknown_prefix_is_named_with_the_first_tensors(tmp_path, plain, capsys):
    _, tensors, config = plain
    wrapped = {f"backbone.{name}": tensor for name, tensor in tensors.items()}
    with pytest.raises(errors.InputError) as caught:
        reader.read(folder_of(tmp_path / "a", wrapped, "model.safetensors", config))
    said = str(caught.value)
    assert "under the prefix 'backbone.' (backbone." in said and "none of module., model., _orig_mod." in said
    assert "\n" not in said
    two = {f"{part}.{name}": tensor for part in ("model", "teacher") for name, tensor in tensors.items()}
    with pytest.raises(errors.InputError, match="holds 2 models, under 'model.' and 'teacher.'; keep the tensors of"):
        reader.read(folder_of(tmp_path / "b", two, "best.ckpt", config))
    other = {"stem.weight": torch.ones(2), "blocks.0.weight": torch.ones(3)}
    reason = "those that it has are (stem.weight, blocks.0.weight|blocks.0.weight, stem.weight)"
    with pytest.raises(errors.InputError, match=reason):
        reader.read(folder_of(tmp_path / "c", other, "model.safetensors", config))


def test_a_lightning_checkpoint_gives_the_model_under_its_attribute(tmp_path, plain, capsys, monkeypatch):
    want, tensors, config = plain
    attributes = type("AttributeDict", (dict,), {"__module__": "lightning_fabric.utilities.data"})
    for name in ("lightning_fabric", "lightning_fabric.utilities", "lightning_fabric.utilities.data"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["lightning_fabric.utilities.data"].AttributeDict = attributes
    state = {f"net.{key}": tensor for key, tensor in tensors.items()} | {"loss.weight": torch.ones(2)}
    whole = {
        "pytorch-lightning_version": "2.5",
        "state_dict": state,
        "hyper_parameters": attributes(rate=1e-4, folder=pathlib.PosixPath("runs")),
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4}]}],
    }
    torch.save(whole, tmp_path / "last.ckpt")
    monkeypatch.undo()
    (tmp_path / "config.json").write_text(config)
    got = sources.read(tmp_path / "last.ckpt")
    checkpoints.assert_same(got.params, want.params)
    assert got.unused == {"loss.weight": "outside net., where the model lies"}
    assert "last.ckpt: its model lies under net., so the tensors loss.weight are left out" in capsys.readouterr().err
    with pytest.raises(
        errors.InputError, match="neither model.safetensors nor .*; give the file itself, such as .*ckpt"
    ):
        sources.read(tmp_path)


@pytest.mark.parametrize("file", ["best.ckpt", "pytorch_model.bin"])
@pytest.mark.parametrize("wrapper", ["", "model.", "_orig_mod."])
def test_what_was_wrapped_is_verified_against_transformers(tmp_path, plain, file, wrapper):
    wrapped = {wrapper + name: tensor for name, tensor in plain[1].items()}
    source = folder_of(tmp_path / "a", wrapped, file, plain[2])
    writer.write_jax(tmp_path / "b", reader.read(source))
    report = verify.report(source, tmp_path / "b")
    assert not report["differ"] and report["difference"] < verify.TOLERANCE


def test_weights_without_a_configuration_are_named(tmp_path, plain):
    torch.save(plain[1], tmp_path / "weights.pt")
    reason = "holds the tensors hubert.masked_spec_embed, .* neither cfg nor args.* put the config.json"
    for source in (tmp_path / "weights.pt", tmp_path):
        with pytest.raises(errors.InputError, match=reason):
            sources.read(source)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(errors.InputError, match="holds adapters of PEFT and not the model"):
        sources.read(tmp_path)


# --- fairseq and s3prl -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fairseq_wav2vec2_base", "fairseq_hubert_base"])
def test_an_upstream_that_s3prl_converted_is_fairseqs(tmp_path, name):
    path = checkpoints.BUNDLED / name / "checkpoint.pt"
    tree = torch.load(path, weights_only=False)
    converted = {"task_cfg": tree["cfg"]["task"], "model_cfg": tree["cfg"]["model"], "model_weight": tree["model"]}
    torch.save(converted | {"dictionaries_symbols": [["<s>", "0", "1"]]}, tmp_path / "a.pt")
    want, got = reader.read(path), reader.read(tmp_path / "a.pt")
    checkpoints.assert_same(got.params, want.params)
    for field in ("family", "config", "normalize", "eps", "unused"):
        assert getattr(got, field) == getattr(want, field)


def test_a_checkpoint_of_s3prls_training_is_named(tmp_path):
    torch.save({"Downstream": {"w": torch.ones(2)}, "Featurizer": {}, "Config": {}, "Step": 3}, tmp_path / "a.ckpt")
    checkpoints.assert_refused(r"of s3prl's training \(Downstream, Featurizer\)", tmp_path / "a.ckpt")


def test_the_teacher_of_a_data2vec_is_left_out(tmp_path):
    made = checkpoints.random_checkpoint("data2vec", checkpoints.small_config("data2vec"))
    writer.write_fairseq(tmp_path / "a.pt", made)
    tree = torch.load(tmp_path / "a.pt", weights_only=True)
    for teacher in ({}, {"layers.0.fc1.weight": torch.ones(3, 2), "pos_conv.0.0.bias": torch.ones(2)}):
        tree["model"]["_ema"] = teacher
        torch.save(tree, tmp_path / "b.pt")
        got = reader.read(tmp_path / "b.pt")
        checkpoints.assert_same(got.params, made.params)
        assert got.unused == {f"_ema.{name}": "exponential moving average of the teacher" for name in teacher}
    teacher = {"feature_extractor.conv_layers.0.0.weight": torch.ones(2)}
    wrapped = {f"module.{name}": tensor for name, tensor in tree["model"].items()} | {"module._ema": teacher}
    torch.save({**tree, "model": wrapped}, tmp_path / "c.pt")
    got = reader.read(tmp_path / "c.pt")
    checkpoints.assert_same(got.params, made.params)
    assert list(got.unused) == ["module._ema.feature_extractor.conv_layers.0.0.weight"]
    tree["model"]["_ema"] = {"layers.0.fc1.weight": 3}
    torch.save(tree, tmp_path / "b.pt")
    checkpoints.assert_refused("'_ema.layers.0.fc1.weight' is a int where a tensor", tmp_path / "b.pt")


# --- emotion2vec+ ----------------------------------------------------------------------------------------------

TOKENS = ("生气/angry", "开心/happy", "unuse_0", "<unk>")


def emotion2vec_plus(folder, tokens=TOKENS, **options):
    """The golden emotion2vec as FunASR publishes one with a classifier: its config in YAML, its model in a wrapper."""
    tree = torch.load(checkpoints.BUNDLED / "emotion2vec_base" / "checkpoint.pt", weights_only=False)
    state = {f"d2v_model.{name}": tensor for name, tensor in tree["model"].items()}
    torch.manual_seed(0)
    state |= {"proj.weight": torch.randn(4, 48), "proj.bias": torch.randn(4)}
    cfg = {"model": {"_name": "emotion2vec_finetuning"}, "task": {"normalize": True}}
    torch.save({"cfg": cfg, "model": state, "args": None}, folder / "model.pt")
    said = json.dumps({"model": "Emotion2vec", "model_conf": {**tree["cfg"]["model"], "normalize": True, **options}})
    (folder / "config.yaml").write_text(said, "utf-8-sig")
    (folder / "configuration.json").write_text("{}")
    if tokens:
        (folder / "tokens.txt").write_bytes("\r\n".join([*tokens, ""]).encode("utf-8-sig"))
    return state


def test_emotion2vec_plus_is_its_encoder_and_its_classifier(tmp_path):
    state = emotion2vec_plus(tmp_path)
    want = reader.read(checkpoints.BUNDLED / "emotion2vec_base" / "checkpoint.pt")
    got = sources.read(tmp_path)
    checkpoints.assert_same(reader.read(tmp_path).params, got.params)
    checkpoints.assert_same(got.params["encoder"], want.params["encoder"])
    assert (got.config, got.normalize, got.eps) == (want.config, True, reader.FAIRSEQ_EPS)
    assert got.config.encoder.norm_eps == 1e-5 and "1e-05" in (tmp_path / "config.yaml").read_text()
    assert got.labels == ("生气/angry", "开心/happy", "<unk>")
    frames = np.random.default_rng(0).standard_normal((5, 48), dtype=np.float32)
    head = got.params["head"]
    projected = frames @ head["projector"]["kernel"] + head["projector"]["bias"]
    logits = projected.mean(0) @ head["classifier"]["kernel"] + head["classifier"]["bias"]
    theirs = frames.mean(0) @ state["proj.weight"].numpy().T + state["proj.bias"].numpy()
    np.testing.assert_allclose(logits, theirs[[0, 1, 3]], rtol=1e-5, atol=1e-5)
    assert not set(got.unused) & {"proj.weight", "proj.bias"}
    model, audio = v2v.from_pretrained(tmp_path, dtype="float32"), 0.1 * frames.reshape(-1)
    scores = model.embed([np.tile(audio, 8)]) @ state["proj.weight"].numpy().T + state["proj.bias"].numpy()
    theirs = np.exp(scores[:, [0, 1, 3]] - scores.max())
    answer = model.predict([np.tile(audio, 8)])
    np.testing.assert_allclose(answer.probabilities, theirs / theirs.sum(), atol=1e-5)
    assert answer.labels == (got.labels[int(theirs.argmax())],)
    writer.write_jax(tmp_path / "own", got)
    checkpoints.assert_same(reader.read(tmp_path / "own").params, got.params)
    writer.write_fairseq(tmp_path / "own.pt", got)
    checkpoints.assert_same(reader.read(tmp_path / "own.pt").params, want.params)


def test_emotion2vec_plus_without_labels_is_an_encoder(tmp_path):
    emotion2vec_plus(tmp_path, tokens=None)
    got = sources.read(tmp_path)
    assert got.head is None and got.unused["proj.weight"] == "output layer"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("tokens.txt", "a\nb"), "tokens.txt names 2 labels, but the classifier has 4 outputs"),
        (("tokens.txt", "a\nb\nc\nd\ne"), "names 5 labels, but the classifier has 4"),
        (("tokens.txt", "a\nb\nb\nc"), "names 3 labels, but the classifier has 4"),
        (("config.yaml", None), "holds an emotion2vec without its config.yaml"),
        (
            ("config.yaml", "model: Paraformer\nmodel_conf: {normalize: true}"),
            "describes no model of the kind Emotion2vec",
        ),
        (("config.yaml", "model: Emotion2vec\nmodel_conf: {depth: 2}"), "normalize is None where true or false"),
        (("config.yaml", "a: &a [x, x]\nmodel: [*a, *a]"), "a reference, which no such file needs"),
        (("config.yaml", "a: !!python/object/apply:os.getcwd []"), "is not readable YAML: could not determine"),
        (("config.yaml", "a: [" * 5000), "is not readable YAML"),
        *[
            (("config.yaml", f"model: {value}"), "is not readable YAML")
            for value in ("!!int ''", "!!bool x", "!!timestamp x", f"{'1:' * 30_000}1.5")
        ],
        (
            ("config.yaml", f"model: Emotion2vec\nmodel_conf: {{normalize: {'x' * 90_000}}}"),
            r"normalize is 'x{20,60}\.\.\.x{20,40}' where true or false is needed",
        ),
        (("config.yaml", "a" * 200_000), "has more than 100000 bytes"),
    ],
)
def test_a_wrong_emotion2vec_plus_gives_one_sentence(tmp_path, change, reason):
    emotion2vec_plus(tmp_path)
    name, text = change
    (tmp_path / name).unlink() if text is None else (tmp_path / name).write_text(text)
    checkpoints.assert_refused(reason, tmp_path / "model.pt")


def test_a_classifier_of_another_width_is_refused(tmp_path):
    state = emotion2vec_plus(tmp_path)
    state["proj.weight"] = torch.zeros(4, 4800)
    torch.save({"model": state, "cfg": {"model": {"_name": "x"}}}, tmp_path / "model.pt")
    checkpoints.assert_refused(r"proj has the shapes \(4, 4800\) and \(4,\)", tmp_path / "model.pt")


def test_weights_of_funasr_in_other_containers(tmp_path):
    """Bare, or saved by a training of the user's."""
    state = emotion2vec_plus(tmp_path)
    want = reader.read(tmp_path / "model.pt")
    for whole in (state, {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}):
        torch.save(whole, tmp_path / "model.pt")
        checkpoints.assert_same(reader.read(tmp_path / "model.pt").params, want.params)
    assert torch_files.load(tmp_path / "model.pt").keys() == {"state_dict"}
