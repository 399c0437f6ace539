"""convert: every tensor of every layout finds its place and comes back to the bit; every fault is one sentence."""

import dataclasses
import json
import os
import pathlib
import pickle
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers

from voc2vec_jax import conv_spec, convert, convert_configs, convert_names, convert_write, errors, torch_files
from voc2vec_jax import models as families
from voc2vec_jax.models import heads

GOLDEN = pathlib.Path(os.environ.get("VOC2VEC_GOLDEN", pathlib.Path(__file__).parent / "golden"))
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": [16] * 7,
    "num_conv_pos_embedding_groups": 4,
}
LARGE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
SUMMED = {"use_weighted_layer_sum": True, "num_labels": 3}
# transformers' class, its options, what is left out of it here (a part of the reason)
SOURCES = {
    "Wav2Vec2ForPreTraining": ({}, None),
    "Wav2Vec2Model": ({"mask_time_prob": 0.0}, None),
    "Wav2Vec2Model large": (LARGE, None),
    "Wav2Vec2ForCTC": ({}, "speech recognition"),
    "Wav2Vec2ForXVector": ({}, "another task"),
    "Wav2Vec2ForAudioFrameClassification": ({"num_labels": 5}, "another task"),
    "Wav2Vec2ForSequenceClassification": ({"num_labels": 5, "classifier_proj_size": 7}, None),
    "HubertModel": ({"num_hidden_layers": 3, "conv_stride": [5, 2, 2, 2, 2, 2, 1]}, None),
    "HubertForCTC": (LARGE, "speech recognition"),
    "HubertForSequenceClassification": (SUMMED, None),
    "WavLMModel": ({}, None),
    "WavLMModel large": ({**LARGE, "num_buckets": 32, "max_bucket_distance": 100}, None),
    "WavLMForSequenceClassification": (SUMMED, None),
    "Data2VecAudioModel": ({"conv_bias": True}, None),
    "Data2VecAudioForSequenceClassification": ({"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 4}, None),
}
CHECKPOINTS = sorted(GOLDEN.glob("*/checkpoint*.pt"))


def model(name, **options):
    """A small transformers model with random weights."""
    cls = getattr(transformers, name.split()[0])
    positional = {} if name.startswith("Data2Vec") else {"num_conv_pos_embeddings": 16}
    torch.manual_seed(0)
    return cls(cls.config_class(**{**SMALL, **positional, **options})).eval()


def source(folder, name="Wav2Vec2ForPreTraining", **options):
    """The folder of a small transformers model."""
    made = model(name, **options)
    made.save_pretrained(folder)
    return made


def random_checkpoint(family, config=None, head=None):
    """A checkpoint of our own with every parameter random."""
    config = config or families.FAMILIES[family].Config()
    rng = np.random.default_rng(0)
    entries = convert_names.table(family, config, head)
    flat = {entry.ours: rng.standard_normal(entry.full_shape, dtype=np.float32) for entry in entries}
    labels = tuple("abcdefgh"[: head.classes]) if head else ()
    return convert.Checkpoint(family, config, convert_names.unflatten(flat), labels=labels, normalize=True)


def small_config(family):
    """A Config of odd sizes."""
    config = families.FAMILIES[family].Config()
    encoder = dataclasses.replace(
        config.encoder,
        conv_channels=(6, 8) * 3 + (10,),
        width=24,
        depth=5,
        heads=3,
        inner_width=20,
        positional_groups=2,
    )
    return dataclasses.replace(config, encoder=encoder)


def assert_same(left, right):
    """Two trees of arrays agree to the bit."""
    left, right = convert_names.flatten(left), convert_names.flatten(right)
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype and left[name].shape == right[name].shape
        assert np.asarray(left[name]).tobytes() == np.asarray(right[name]).tobytes(), name


def assert_refused(reason, path):
    """Reading gives one sentence that names the reason."""
    with pytest.raises(errors.InputError, match=reason) as caught:
        convert.read(path)
    assert "\n" not in str(caught.value)


# --- fairseq ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_fairseq_round_trip_to_the_bit(tmp_path, path):
    stored = {name: tensor.read() for name, tensor in torch_files.load(path)["model"].items()}
    got = convert.read(path)
    assert got.source_format == "fairseq" and got.mapped + len(got.unused) == len(stored)
    assert set(got.missing) <= {"encoder/mask_embedding"}
    back = convert.to_fairseq(got.family, got.config, got.params)
    assert back.keys() == stored.keys() - got.unused.keys()
    assert_same(back, {name: stored[name] for name in back})
    convert_write.write_fairseq(tmp_path / "a.pt", got)
    again = convert.read(tmp_path / "a.pt")
    assert (again.config, again.normalize, again.family) == (got.config, got.normalize, got.family)
    assert_same(again.params, got.params)
    assert_same(
        {name: tensor.numpy() for name, tensor in torch.load(tmp_path / "a.pt", weights_only=True)["model"].items()},
        back,
    )


def test_both_forms_of_a_fairseq_checkpoint_say_the_same():
    new, old = (
        convert.read(GOLDEN / "fairseq_wav2vec2_base" / name) for name in ("checkpoint.pt", "checkpoint_args.pt")
    )
    assert (new.config, new.normalize) == (old.config, old.normalize)
    assert_same(new.params, old.params)


def test_an_older_fairseq_checkpoint_keeps_its_meaning(tmp_path):
    """Text for a tuple, absent fields, and the other spelling of the weight norm."""
    tree = torch_files.load(GOLDEN / "fairseq_wav2vec2_base" / "checkpoint.pt")
    arrays = {name: tensor.read() for name, tensor in tree["model"].items()}
    for leaf, number in (("g", 0), ("v", 1)):
        arrays[f"encoder.pos_conv.0.parametrizations.weight.original{number}"] = arrays.pop(
            f"encoder.pos_conv.0.weight_{leaf}"
        )
    tree["cfg"]["model"] |= {"latent_temp": "(2, 0.5, 0.9)"}
    del tree["cfg"]["model"]["pos_conv_depth"]
    torch_files.save(tmp_path / "a.pt", {**tree, "model": arrays})
    want = convert.read(GOLDEN / "fairseq_wav2vec2_base" / "checkpoint.pt")
    got = convert.read(tmp_path / "a.pt")
    assert got.config == want.config
    assert_same(got.params, want.params)


def test_a_fairseq_recogniser_gives_its_encoder(tmp_path):
    tree = torch_files.load(GOLDEN / "fairseq_wav2vec2_base" / "checkpoint.pt")
    heads_of = ("quantizer", "project_q", "final_proj")
    arrays = {
        f"w2v_encoder.w2v_model.{name}": tensor.read()
        for name, tensor in tree["model"].items()
        if not name.startswith(heads_of)
    }
    arrays |= {"w2v_encoder.proj.weight": np.ones((5, 48), np.float32)}
    cfg = {"model": {"_name": "wav2vec_ctc", "w2v_args": tree["cfg"]}, "task": {"normalize": True}}
    torch_files.save(tmp_path / "a.pt", {"cfg": cfg, "model": arrays})
    got = convert.read(tmp_path / "a.pt")
    want = convert.read(GOLDEN / "fairseq_wav2vec2_base" / "checkpoint.pt")
    assert_same(got.params["encoder"], want.params["encoder"])
    assert got.unused == {"w2v_encoder.proj.weight": "output layer"}
    assert "quantizer/codebook" in got.missing


@pytest.mark.parametrize("family", families.FAMILIES)
def test_random_models_of_every_family_round_trip(tmp_path, family):
    made = random_checkpoint(family, small_config(family))
    convert_write.write_fairseq(tmp_path / "a.pt", made)
    convert_write.write_jax(tmp_path / "own", made)
    for path in (tmp_path / "a.pt", tmp_path / "own"):
        got = convert.read(path)
        assert got.family == family and got.normalize is True and not got.unused
        assert_same({"encoder": {}} | got.params, {"encoder": {}} | _without(made.params, got.missing))
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
    made = source(tmp_path / "a", name, **options)
    got = convert.read(tmp_path / "a")
    dropped = convert_write.write_hf(tmp_path / "b", got)
    assert not dropped
    stored, back = (safetensors.numpy.load_file(tmp_path / at / "model.safetensors") for at in "ab")
    prefix = f"{convert_names.HF_PREFIXES[got.family]}."
    if left_out:
        assert set(got.unused.values()) and all(left_out in reason for reason in got.unused.values())
        stored = {key.removeprefix(prefix): value for key, value in stored.items() if key not in got.unused}
    else:
        assert not got.unused
    assert_same(stored, back)
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


@pytest.mark.parametrize("name", ["Wav2Vec2ForPreTraining", "WavLMForSequenceClassification"])
def test_our_own_folder_keeps_what_transformers_said(tmp_path, name):
    source(tmp_path / "a", name, **SOURCES[name][0])
    want = convert.read(tmp_path / "a")
    convert_write.write_jax(tmp_path / "b", want)
    got = convert.read(tmp_path / "b")
    for field in ("family", "config", "labels", "normalize", "missing", "raw_config", "preprocessor", "head"):
        assert getattr(got, field) == getattr(want, field)
    assert_same(got.params, want.params)


def test_labels_and_normalisation_follow_the_source(tmp_path):
    labels = ["cry", "laugh", "sigh"]
    options = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    source(tmp_path, "HubertForSequenceClassification", **options)
    assert convert.read(tmp_path).normalize is None
    for flag in (False, True):
        transformers.Wav2Vec2FeatureExtractor(do_normalize=flag).save_pretrained(tmp_path)
        got = convert.read(tmp_path)
        assert (got.labels, got.normalize) == (tuple(labels), flag)
        convert_write.write_hf(tmp_path / "b", got)
        assert json.loads((tmp_path / "b/preprocessor_config.json").read_text())["do_normalize"] is flag
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"]["3"] = "sneeze"
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert_refused("names 4 labels, but the classifier has 3 outputs", tmp_path)


@pytest.mark.parametrize("family", ["wav2vec2", "hubert", "wavlm", "data2vec"])
@pytest.mark.parametrize("classes", [None, 3])
def test_models_of_our_own_load_in_transformers(tmp_path, family, classes):
    head = heads.Config(classes=classes, width=6, layer_sum=family == "wavlm") if classes else None
    made = random_checkpoint(family, small_config(family), head)
    dropped = convert_write.write_hf(tmp_path, made)
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
    got = convert.read(tmp_path)
    assert_same(got.params, _without(made.params, got.missing))
    assert (tmp_path / "README.md").read_text().startswith("---\nlibrary_name: transformers\n")


def test_a_model_without_mask_embedding_masks_nothing_in_transformers(tmp_path):
    made = random_checkpoint("data2vec", small_config("data2vec"))
    del made.params["encoder"]["mask_embedding"]
    convert_write.write_hf(tmp_path, made)
    loaded, info = transformers.Data2VecAudioModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and loaded.config.mask_time_prob == 0
    assert convert.read(tmp_path).missing == ("encoder/mask_embedding",)


def test_transformers_has_no_emotion2vec(tmp_path):
    with pytest.raises(errors.InputError, match="transformers has no emotion2vec"):
        convert_write.write_hf(tmp_path, random_checkpoint("emotion2vec", small_config("emotion2vec")))


def test_every_container_of_transformers_gives_the_same(tmp_path):
    """pytorch_model.bin, shards of both kinds, a single file, old spellings, with and without the prefix."""
    made = source(tmp_path / "a", "Wav2Vec2Model")
    want = convert.read(tmp_path / "a")
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
        got = convert.read(folder)
        assert_same(got.params, want.params)
    assert_same(convert.read(tmp_path / "bin/pytorch_model.bin").params, want.params)
    assert_same(convert.read(tmp_path / "a/model.safetensors").params, want.params)
    made.save_pretrained(tmp_path / "sharded", max_shard_size="40KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert_same(convert.read(tmp_path / "sharded").params, want.params)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("container", ["safetensors", "bin"])
def test_half_precision_widens_exactly(tmp_path, dtype, container):
    made = model("Wav2Vec2ForPreTraining").to(getattr(torch, dtype))
    made.save_pretrained(tmp_path)
    if container == "bin":
        torch.save(made.state_dict(), tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
    got = convert.read(tmp_path)
    back = convert.to_hf(got.family, got.config, got.params, prefixed=True)
    for name, tensor in made.state_dict().items():
        assert back[name].dtype == np.float32
        np.testing.assert_array_equal(back[name], tensor.float().numpy())
    convert_write.write_hf(tmp_path / "b", got)
    assert json.loads((tmp_path / "b/config.json").read_text())["dtype"] == "float32"


# --- the tables ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family, count",
    [
        ("wav2vec2", 95_044_608),
        ("hubert", 94_697_600),
        ("wavlm", 94_381_936),
        ("data2vec", 93_164_288),
        ("emotion2vec", 93_171_212 + 768),  # with the mask embedding that it lacks
    ],
)
def test_parameter_counts_of_the_base_models(family, count):
    entries = convert_names.table(family, families.FAMILIES[family].Config())
    assert sum(int(np.prod(entry.full_shape)) for entry in entries) == count
    assert len({entry.ours for entry in entries}) == len(entries)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_tables_describe_the_flax_models(family):
    """Names and shapes of the encoder as Flax initialises it."""
    config = small_config(family)
    module = families.FAMILIES[family].Model(config)
    arguments = (jnp.zeros((1, 800)), jnp.array([800]))
    shapes = jax.eval_shape(lambda key: module.init(key, *arguments), jax.random.key(0))["params"]
    made = {path: leaf.shape for path, leaf in convert_names.flatten(shapes).items()}
    entries = convert_names.table(family, config)
    described = {entry.ours: entry.full_shape for entry in entries if entry.ours.startswith("encoder/")}
    described.pop("encoder/mask_embedding")
    made.pop("encoder/mask_embedding", None)
    assert made == described


def test_a_name_table_is_a_bijection():
    for family in families.FAMILIES:
        entries = convert_names.table(family, families.FAMILIES[family].Config())
        for layout in ("fairseq", "hf"):
            uses = [(name, entry.part) for entry in entries for name in entry.names(layout)]
            assert len(set(uses)) == len(uses)


# --- faults ----------------------------------------------------------------------------------------------------


def rewritten(folder, change):
    """The source folder with its tensors changed."""
    source(folder)
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    change(tensors)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


QUERY = "wav2vec2.encoder.layers.1.attention.q_proj.weight"
FAULTS = {
    rf"tensor {QUERY} has shape \(32, 31\) where its config calls for \(32, 32\)": lambda t: t.update(
        {QUERY: np.zeros((32, 31), np.float32)}
    ),
    rf"lacks the tensors {QUERY} that its config calls for": lambda t: t.pop(QUERY),
    "wav2vec2.encoder.layers.2.attention.q_proj.weight have no place": lambda t: t.update(
        {QUERY.replace("1", "2"): np.zeros((32, 32), np.float32)}
    ),
    rf"tensor {QUERY} holds int64": lambda t: t.update({QUERY: np.zeros((32, 32), np.int64)}),
    "mask_time_emb_vector under two spellings|masked_spec_embed under two spellings": lambda t: t.update(
        {"wav2vec2.mask_time_emb_vector": np.zeros(32, np.float32)}
    ),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_a_wrong_tensor_gives_one_sentence(tmp_path, reason):
    assert_refused(reason, rewritten(tmp_path, FAULTS[reason]))


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"model_type": "bert"}, "model_type is 'bert', but only wav2vec2, hubert"),
        ({"model_type": "wavlm"}, "holds the tensors of a wav2vec2 model, but its config.json says wavlm"),
        ({"hidden_size": "big"}, "hidden_size is 'big' where a positive whole number is needed"),
        ({"hidden_size": -32}, "hidden_size is -32"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"num_hidden_layers": 1}, "have no place"),
        ({"num_attention_heads": 5}, "width 32 is not divisible by 5 attention heads"),
        ({"conv_kernel": [10, 3]}, r"its convolutions have \[2, 7\]"),
        ({"conv_dim": 5}, "conv_dim is 5 where a list of positive whole numbers"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu', but only 'gelu'"),
        ({"add_adapter": True}, "add_adapter is True"),
        ({"feat_extract_norm": "batch"}, "feat_extract_norm is 'batch', but only 'group' or 'layer'"),
        ({"layer_norm_eps": "small"}, "layer_norm_eps is 'small' where a number"),
    ],
)
def test_a_wrong_config_gives_one_sentence(tmp_path, change, reason):
    source(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    assert_refused(reason, tmp_path)


def test_damaged_and_absent_files_give_one_sentence(tmp_path):
    assert_refused("does not exist", tmp_path / "absent")
    assert_refused("has no config.json", tmp_path)
    source(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "model.safetensors").write_bytes(whole[:length])
        assert_refused("is not a complete safetensors file", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert_refused("neither model.safetensors nor pytorch_model.bin", tmp_path)
    for shard in ("../a.safetensors", "/etc/passwd", "absent.safetensors"):
        index = {"weight_map": {"x": shard}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        assert_refused("which does not lie beside it", tmp_path)
    for text in ("{", "[]", "[" * 100_000):
        (tmp_path / "config.json").write_text(text)
        assert_refused("is not readable JSON|where an object is needed", tmp_path)


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "checkpoint.pt"])
@pytest.mark.parametrize("old_layout", [False, True])
def test_a_malicious_checkpoint_is_refused_and_does_not_run(tmp_path, name, old_layout):
    source(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    value = {"model": {"w": torch.ones(2)}, "args": None, "cfg": Payload(tmp_path / "marker")}
    torch.save(value, tmp_path / name, _use_new_zipfile_serialization=not old_layout)
    assert_refused("system", tmp_path if name.endswith(".bin") else tmp_path / name)
    assert not (tmp_path / "marker").exists()
    pickle.loads(pickle.dumps(value["cfg"]))
    assert (tmp_path / "marker").exists()


def fairseq(tmp_path, **changes):
    tree = torch_files.load(GOLDEN / "fairseq_wav2vec2_base" / "checkpoint.pt")
    tree["cfg"]["model"] |= changes
    tree["model"] = {name: tensor.read() for name, tensor in tree["model"].items()}
    torch_files.save(tmp_path / "a.pt", tree)
    return tmp_path / "a.pt"


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"_name": "transformer_lm"}, "checkpoint of 'transformer_lm', but only wav2vec2"),
        ({"_name": "hubert"}, "quantizer.vars.* have no place in a hubert"),
        ({"conv_feature_layers": "__import__('os').system('x')"}, "conv_feature_layers .* is not a sum|is needed"),
        ({"conv_feature_layers": "[(32, 10, 5)]"}, "have no place"),
        ({"encoder_layers": 4}, "lacks the tensors encoder.layers.3"),
        ({"encoder_embed_dim": 52}, r"has shape \(48,\) where its config calls for \(52,\)"),
        ({"extractor_mode": "batch"}, "extractor_mode is 'batch'"),
        ({"layer_type": "conformer"}, "layer_type is 'conformer'"),
        ({"latent_temp": "(2, x)"}, "latent_temp is"),
    ],
)
def test_a_wrong_fairseq_checkpoint_gives_one_sentence(tmp_path, changes, reason):
    assert_refused(reason, fairseq(tmp_path, **changes))


def test_files_of_torch_that_are_no_checkpoint(tmp_path):
    for value, reason in (
        ([1], "holds no 'model'"),
        ({"model": {}, "cfg": None, "args": None}, "holds neither cfg nor args"),
        ({"model": {}, "cfg": {"model": {"_name": "wav2vec2"}}}, "holds no named tensors"),
        ({"model": {"w": 1}, "cfg": {"model": {"_name": "wav2vec2"}}}, "'w' is a int where a tensor is needed"),
    ):
        torch.save(value, tmp_path / "a.pt")
        assert_refused(reason, tmp_path / "a.pt")


def test_our_own_folder_is_checked_as_well(tmp_path):
    convert_write.write_jax(tmp_path, random_checkpoint("wavlm", small_config("wavlm")))
    whole = json.loads((tmp_path / "config.json").read_text())
    for change, reason in (
        ({"family": "bert"}, "family 'bert' is none of"),
        ({"config": {"widht": 3}}, "widht=3 is not a field"),
        ({"config": {"encoder": {"width": "x"}}}, "width='x' is not a field"),
        ({"config": {"encoder": {"depth": 3}}}, "has shape .* where its config calls for"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(whole | change))
        assert_refused(reason, tmp_path)


def test_incomplete_and_misshapen_parameters_are_not_written(tmp_path):
    made = random_checkpoint("wavlm", small_config("wavlm"))
    kernel = made.params["encoder"]["feature_projection"].pop("kernel")
    for write in (convert_write.write_hf, convert_write.write_fairseq):
        with pytest.raises(errors.InputError, match="lack encoder/feature_projection/kernel"):
            write(tmp_path / "a", made)
        made.params["encoder"]["feature_projection"]["kernel"] = kernel.T
        with pytest.raises(errors.InputError, match=r"has shape \(24, 10\) where its config calls for \(10, 24\)"):
            write(tmp_path / "a", made)
        del made.params["encoder"]["feature_projection"]["kernel"]


# --- conv_spec -------------------------------------------------------------------------------------------------


def test_conv_layers_are_parsed():
    base = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] * 2"
    assert conv_spec.parse(base) == [(512, 10, 5), *[(512, 3, 2)] * 4, *[(512, 2, 2)] * 2]
    assert conv_spec.parse("([(1, 2, 3), [4, 5, 6]] + [(7, 8, 9)]) * 2") == [(1, 2, 3), (4, 5, 6), (7, 8, 9)] * 2
    layers = [(3, 2, 1), (30, 20, 10)]
    assert conv_spec.parse(conv_spec.text(*zip(*layers))) == layers


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[] * 3",
        "1",
        "[(512, 10)]",
        "[(512, 10, 5.0)]",
        "[(512, -10, 5)]",
        "[(512, True, 5)]",
        "[(512, 10, 5)] * 0",
        "[(512, 10, 5)] * 65",
        "[(512, 10, 5)] * 9 * 9",
        "[(512, 10, 10 ** 9)]",
        "[(99999999, 10, 5)]",
        "[(512, 10, 5)] - [(512, 10, 5)]",
        "[(512, 10, 5) for _ in range(9)]",
        "list([(512, 10, 5)])",
        "__import__('os').system('true')",
        "[(512, 10, (lambda: 5)())]",
        "[(512, 10, 5)",
        "(" * 500 + ")" * 500,
        "[(1, 1, 1)] + " * 1000 + "[(1, 1, 1)]",
        "\0",
    ],
)
def test_conv_layers_of_any_other_kind_are_refused(text):
    with pytest.raises(errors.InputError, match="is not a sum of lists"):
        conv_spec.parse(text)


def test_configs_say_the_same_in_every_layout():
    for family, module in families.FAMILIES.items():
        for config in (module.Config(), small_config(family)):
            own = json.loads(json.dumps(convert_configs.to_dict(config)))
            assert convert_configs.from_dict(family, own, "x") == config
            assert (
                convert_configs.from_fairseq(family, convert_configs.to_fairseq(family, config), "x").encoder
                == config.encoder
            )
            if family != "emotion2vec":
                assert convert_configs.from_hf(family, convert_configs.to_hf(family, config), "x") == config
