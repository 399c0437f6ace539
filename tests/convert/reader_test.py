"""convert: every tensor of every layout finds its place and comes back to the bit."""

import json
import shutil

import checkpoints
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import tiny_whisper
import torch
import transformers

from voc2vec_jax import errors
from voc2vec_jax import models as families
from voc2vec_jax.convert import configs, reader, torch_files, writer
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.models import heads

# transformers' class, its options, what is left out of it here (a part of the reason)
SOURCES = {
    "Wav2Vec2ForPreTraining": ({}, None),
    "Wav2Vec2Model": ({"mask_time_prob": 0.0}, None),
    "Wav2Vec2Model large": (checkpoints.LARGE, None),
    "Wav2Vec2ForCTC": ({}, "speech recognition"),
    "Wav2Vec2ForXVector": ({}, "another task"),
    "Wav2Vec2ForAudioFrameClassification": ({"num_labels": 5}, "another task"),
    "Wav2Vec2ForSequenceClassification": ({"num_labels": 5, "classifier_proj_size": 7}, None),
    "HubertModel": ({"num_hidden_layers": 3, "conv_stride": [5, 2, 2, 2, 2, 2, 1]}, None),
    "HubertForCTC": (checkpoints.LARGE, "speech recognition"),
    "HubertForSequenceClassification": (checkpoints.SUMMED, None),
    "HubertModel distilled": ({"feat_proj_layer_norm": False}, None),
    "WavLMModel": ({}, None),
    "WavLMModel large": ({**checkpoints.LARGE, "num_buckets": 32, "max_bucket_distance": 100}, None),
    "WavLMForSequenceClassification": (checkpoints.SUMMED, None),
    "Data2VecAudioModel": ({"conv_bias": True}, None),
    "Data2VecAudioForSequenceClassification": ({"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 4}, None),
}
WHISPER = {  # the class, its options, what is left out, the class that it is written as
    "WhisperForAudioClassification": ({"num_labels": 5, "classifier_proj_size": 7}, None),
    "WhisperForAudioClassification summed": (checkpoints.SUMMED | {"num_mel_bins": 128}, None),
    "WhisperModel": ({"encoder_layers": 3}, "decoder"),
    "WhisperForConditionalGeneration": ({}, "decoder"),
}
CHECKPOINTS = sorted(checkpoints.GOLDEN.glob("*/checkpoint*.pt"))


# --- fairseq ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_fairseq_round_trip_to_the_bit(tmp_path, path):
    stored = {name: tensor.read() for name, tensor in torch_files.load(path)["model"].items()}
    got = reader.read(path)
    assert got.source_format == "fairseq" and got.mapped + len(got.unused) == len(stored)
    back = reader.to_fairseq(got.family, got.config, got.params)
    assert back.keys() == stored.keys() - got.unused.keys()
    checkpoints.assert_same(back, {name: stored[name] for name in back})
    writer.write_fairseq(tmp_path / "a.pt", got)
    again = reader.read(tmp_path / "a.pt")
    assert (again.config, again.normalize, again.family) == (got.config, got.normalize, got.family)
    checkpoints.assert_same(again.params, got.params)
    checkpoints.assert_same(
        {name: tensor.numpy() for name, tensor in torch.load(tmp_path / "a.pt", weights_only=True)["model"].items()},
        back,
    )


def test_both_forms_of_a_fairseq_checkpoint_say_the_same():
    new, old = (
        reader.read(checkpoints.BUNDLED / "fairseq_wav2vec2_base" / name)
        for name in ("checkpoint.pt", "checkpoint_args.pt")
    )
    assert (new.config, new.normalize) == (old.config, old.normalize)
    checkpoints.assert_same(new.params, old.params)


def test_an_older_fairseq_checkpoint_keeps_its_meaning(tmp_path):
    """Text for a tuple, absent fields, and the other spelling of the weight norm."""
    tree = torch_files.load(checkpoints.BUNDLED / "fairseq_wav2vec2_base" / "checkpoint.pt")
    arrays = {name: tensor.read() for name, tensor in tree["model"].items()}
    for leaf, number in (("g", 0), ("v", 1)):
        arrays[f"encoder.pos_conv.0.parametrizations.weight.original{number}"] = arrays.pop(
            f"encoder.pos_conv.0.weight_{leaf}"
        )
    tree["cfg"]["model"] |= {"latent_temp": "(2, 0.5, 0.9)"}
    del tree["cfg"]["model"]["pos_conv_depth"]
    torch_files.save(tmp_path / "a.pt", {**tree, "model": arrays})
    want = reader.read(checkpoints.BUNDLED / "fairseq_wav2vec2_base" / "checkpoint.pt")
    got = reader.read(tmp_path / "a.pt")
    assert got.config == want.config
    checkpoints.assert_same(got.params, want.params)


def test_a_fairseq_recogniser_gives_its_encoder(tmp_path):
    tree = torch_files.load(checkpoints.BUNDLED / "fairseq_wav2vec2_base" / "checkpoint.pt")
    heads_of = ("quantizer", "project_q", "final_proj")
    arrays = {
        f"w2v_encoder.w2v_model.{name}": tensor.read()
        for name, tensor in tree["model"].items()
        if not name.startswith(heads_of)
    }
    arrays |= {"w2v_encoder.proj.weight": np.ones((5, 48), np.float32)}
    cfg = {"model": {"_name": "wav2vec_ctc", "w2v_args": tree["cfg"]}, "task": {"normalize": True}}
    torch_files.save(tmp_path / "a.pt", {"cfg": cfg, "model": arrays})
    got = reader.read(tmp_path / "a.pt")
    want = reader.read(checkpoints.BUNDLED / "fairseq_wav2vec2_base" / "checkpoint.pt")
    checkpoints.assert_same(got.params["encoder"], want.params["encoder"])
    assert got.unused == {"w2v_encoder.proj.weight": "output layer"}
    assert "quantizer/codebook" in got.missing


@pytest.mark.parametrize("family", families.FAMILIES)
def test_random_models_of_every_family_round_trip(tmp_path, family):
    made = checkpoints.random_checkpoint(family, checkpoints.small_config(family))
    writer.write_jax(tmp_path / "own", made)
    if family == "whisper":
        with pytest.raises(errors.InputError, match="fairseq has no whisper"):
            writer.write_fairseq(tmp_path / "a.pt", made)
    else:
        writer.write_fairseq(tmp_path / "a.pt", made)
    for path in tmp_path.iterdir():
        got = reader.read(path)
        assert got.family == family and got.normalize is True and not got.unused
        checkpoints.assert_same(got.params, _without(made.params, got.missing))
        if path.suffix:
            assert got.config.encoder == made.config.encoder
        else:
            assert got.config == made.config


def _without(params, missing):
    return convert_names.unflatten({k: v for k, v in convert_names.flatten(params).items() if k not in missing})


# --- transformers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOURCES)
def test_transformers_round_trip_to_the_bit(tmp_path, name):
    options, left_out = SOURCES[name]
    made = checkpoints.source(tmp_path / "a", name, **options)
    got = reader.read(tmp_path / "a")
    dropped = writer.write_hf(tmp_path / "b", got)
    assert not dropped
    stored, back = (safetensors.numpy.load_file(tmp_path / at / "model.safetensors") for at in "ab")
    prefix = f"{convert_names.HF_PREFIXES[got.family]}."
    if left_out:
        assert set(got.unused.values()) and all(left_out in reason for reason in got.unused.values())
        stored = {key.removeprefix(prefix): value for key, value in stored.items() if key not in got.unused}
    else:
        assert not got.unused
    checkpoints.assert_same(stored, back)
    before, after = (json.loads((tmp_path / at / "config.json").read_text()) for at in "ab")
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed <= ({"architectures"} if left_out else {"id2label", "label2id"})
    cls = getattr(transformers, after["architectures"][0])
    assert cls is type(made) or left_out
    loaded, info = cls.from_pretrained(tmp_path / "b", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "b").do_normalize is True
    audio = torch.randn(1, 1600)
    with torch.no_grad():
        encoders = [getattr(m, m.base_model_prefix, m)(audio).last_hidden_state for m in (made, loaded)]
    assert torch.equal(*encoders)


@pytest.mark.parametrize("name", WHISPER)
def test_whisper_round_trip_to_the_bit(tmp_path, name):
    """Of the encoder and a classifier; the decoder is left out, and transformers has no encoder by itself."""
    options, left_out = WHISPER[name]
    made = tiny_whisper.model(name.split()[0], **options)
    made.save_pretrained(tmp_path / "a")
    got = reader.read(tmp_path / "a")
    stored = safetensors.numpy.load_file(tmp_path / "a" / "model.safetensors")
    assert got.normalize is False and got.mapped + len(got.unused) == len(stored)
    assert all(left_out and left_out in reason for reason in got.unused.values())
    writer.write_jax(tmp_path / "own", got)
    checkpoints.assert_same(reader.read(tmp_path / "own").params, got.params)
    if left_out:
        with pytest.raises(errors.InputError, match="no Whisper encoder without a decoder or a classification head"):
            writer.write_hf(tmp_path / "b", got)
        prefix = "model." if name.endswith("Generation") else ""
        back = reader.to_hf("whisper", got.config, got.params, prefixed=bool(prefix))
        assert {name for name in stored if name.startswith(f"{prefix}encoder.")} == back.keys()
        checkpoints.assert_same(back, {name: stored[name] for name in back})
        return
    assert writer.write_hf(tmp_path / "b", got) == {}
    checkpoints.assert_same(stored, safetensors.numpy.load_file(tmp_path / "b" / "model.safetensors"))
    loaded, info = type(made).from_pretrained(tmp_path / "b", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "b")
    given = extractor(np.ones(1600, np.float32), sampling_rate=16_000, return_tensors="pt").input_features
    with torch.no_grad():
        torch.testing.assert_close(made(given).logits, loaded(given).logits, rtol=0, atol=1e-6)
    cut = writer.write_hf(tmp_path / "c", got.in_context("cut"))
    assert list(cut) == ["encoder/context"] and "fills up every clip" in cut["encoder/context"]


@pytest.mark.parametrize("name", ["Wav2Vec2ForPreTraining", "WavLMForSequenceClassification"])
def test_our_own_folder_keeps_what_transformers_said(tmp_path, name):
    checkpoints.source(tmp_path / "a", name, **SOURCES[name][0])
    want = reader.read(tmp_path / "a")
    writer.write_jax(tmp_path / "b", want)
    got = reader.read(tmp_path / "b")
    for field in ("family", "config", "labels", "normalize", "missing", "raw_config", "preprocessor", "head"):
        assert getattr(got, field) == getattr(want, field)
    checkpoints.assert_same(got.params, want.params)


def test_labels_and_normalisation_follow_the_source(tmp_path):
    labels = ["cry", "laugh", "sigh"]
    options = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    checkpoints.source(tmp_path, "HubertForSequenceClassification", **options)
    assert reader.read(tmp_path).normalize is None
    for flag in (False, True):
        transformers.Wav2Vec2FeatureExtractor(do_normalize=flag).save_pretrained(tmp_path)
        got = reader.read(tmp_path)
        assert (got.labels, got.normalize) == (tuple(labels), flag)
        writer.write_hf(tmp_path / "b", got)
        assert json.loads((tmp_path / "b/preprocessor_config.json").read_text())["do_normalize"] is flag
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"]["3"] = "sneeze"
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoints.assert_refused("names 4 labels, but the classifier has 3 outputs", tmp_path)


@pytest.mark.parametrize("family", ["wav2vec2", "hubert", "wavlm", "data2vec"])
@pytest.mark.parametrize("classes", [None, 3])
def test_models_of_our_own_load_in_transformers(tmp_path, family, classes):
    head = heads.Config(classes=classes, width=6, layer_sum=family == "wavlm") if classes else None
    made = checkpoints.random_checkpoint(family, checkpoints.small_config(family), head)
    dropped = writer.write_hf(tmp_path, made)
    assert set(dropped) == {
        path
        for path in convert_names.flatten(made.params)
        if not path.startswith(("encoder/", "head/")) and (head or family == "hubert")
    }
    name = json.loads((tmp_path / "config.json").read_text())["architectures"][0]
    loaded, info = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert name.endswith("ForSequenceClassification" if head else "ForPreTraining" if family == "wav2vec2" else "Model")
    if head:
        assert list(loaded.config.id2label.values()) == ["a", "b", "c"]
    got = reader.read(tmp_path)
    checkpoints.assert_same(got.params, _without(made.params, got.missing))
    assert (tmp_path / "README.md").read_text().startswith("---\nlibrary_name: transformers\n")


def test_a_model_without_mask_embedding_masks_nothing_in_transformers(tmp_path):
    made = checkpoints.random_checkpoint("data2vec", checkpoints.small_config("data2vec"))
    del made.params["encoder"]["mask_embedding"]
    writer.write_hf(tmp_path, made)
    loaded, info = transformers.Data2VecAudioModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and loaded.config.mask_time_prob == 0
    assert reader.read(tmp_path).missing == ("encoder/mask_embedding",)


def test_transformers_has_no_emotion2vec(tmp_path):
    with pytest.raises(errors.InputError, match="transformers has no emotion2vec"):
        writer.write_hf(tmp_path, checkpoints.random_checkpoint("emotion2vec", checkpoints.small_config("emotion2vec")))


def test_every_container_of_transformers_gives_the_same(tmp_path):
    """pytorch_model.bin, shards of both kinds, a single file, old spellings, with and without the prefix."""
    made = checkpoints.source(tmp_path / "a", "Wav2Vec2Model")
    want = reader.read(tmp_path / "a")
    config = tmp_path / "a/config.json"
    state = {name: tensor.contiguous() for name, tensor in made.state_dict().items()}
    old = {
        name.replace("parametrizations.weight.original0", "weight_g")
        .replace("parametrizations.weight.original1", "weight_v")
        .replace("masked_spec_embed", "mask_time_emb_vector"): tensor
        for name, tensor in state.items()
    }
    assert old.keys() != state.keys()
    halves = [dict(list(state.items())[k::2]) for k in range(2)]
    for case, files in {
        "bin": {"pytorch_model.bin": state},
        "old names": {"pytorch_model.bin": old},
        "prefixed": {"pytorch_model.bin": {f"wav2vec2.{name}": tensor for name, tensor in old.items()}},
        "sharded bin": {f"pytorch_model-{k}.bin": half for k, half in enumerate(halves)},
    }.items():
        folder = tmp_path / case
        folder.mkdir()
        shutil.copy(config, folder)
        for name, tensors in files.items():
            torch.save(tensors, folder / name)
        if len(files) > 1:
            shards = {name: file for file, tensors in files.items() for name in tensors}
            (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": shards}))
        got = reader.read(folder)
        checkpoints.assert_same(got.params, want.params)
    checkpoints.assert_same(reader.read(tmp_path / "bin/pytorch_model.bin").params, want.params)
    checkpoints.assert_same(reader.read(tmp_path / "a/model.safetensors").params, want.params)
    made.save_pretrained(tmp_path / "sharded", max_shard_size="40KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    checkpoints.assert_same(reader.read(tmp_path / "sharded").params, want.params)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("container", ["safetensors", "bin"])
def test_half_precision_widens_exactly(tmp_path, dtype, container):
    made = checkpoints.model("Wav2Vec2ForPreTraining").to(getattr(torch, dtype))
    made.save_pretrained(tmp_path)
    if container == "bin":
        torch.save(made.state_dict(), tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
    got = reader.read(tmp_path)
    back = reader.to_hf(got.family, got.config, got.params, prefixed=True)
    for name, tensor in made.state_dict().items():
        assert back[name].dtype == np.float32
        np.testing.assert_array_equal(back[name], tensor.float().numpy())
    writer.write_hf(tmp_path / "b", got)
    assert json.loads((tmp_path / "b/config.json").read_text())["dtype"] == "float32"


# --- the tables ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family, count",
    [
        ("wav2vec2", 95_044_608),
        ("hubert", 94_697_600),
        ("wavlm", 94_381_936),
        ("data2vec", 93_164_288),
        ("emotion2vec", 93_171_212),
    ],
)
def test_parameter_counts_of_the_base_models(family, count):
    entries = convert_names.table(family, families.FAMILIES[family].Config())
    assert sum(int(np.prod(entry.full_shape)) for entry in entries) == count
    assert len({entry.ours for entry in entries}) == len(entries)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_tables_describe_the_flax_models(family):
    """Names and shapes of the encoder as Flax initialises it."""
    config = checkpoints.small_config(family)
    module = families.FAMILIES[family].Model(config)
    arguments = (jnp.zeros((1, 800)), jnp.array([800]))
    shapes = jax.eval_shape(lambda key: module.init(key, *arguments), jax.random.key(0))["params"]
    made = {path: leaf.shape for path, leaf in convert_names.flatten(shapes).items()}
    entries = convert_names.table(family, config)
    described = {entry.ours: entry.full_shape for entry in entries if entry.ours.startswith("encoder/")}
    assert made == described


def test_a_name_table_is_a_bijection():
    for family in families.FAMILIES:
        entries = convert_names.table(family, families.FAMILIES[family].Config())
        for layout in ("fairseq", "hf"):
            uses = [(name, entry.part) for entry in entries for name in entry.names(layout)]
            assert len(set(uses)) == len(uses)


def test_configs_say_the_same_in_every_layout():
    for family, module in families.FAMILIES.items():
        for config in (module.Config(), checkpoints.small_config(family)):
            own = json.loads(json.dumps(configs.to_dict(config)))
            assert configs.from_dict(family, own, "x") == config
            if family != "whisper":
                assert configs.from_fairseq(family, configs.to_fairseq(family, config), "x").encoder == config.encoder
            if family != "emotion2vec":
                assert configs.from_hf(family, configs.to_hf(family, config), "x") == config
