"""convert: every fault of a source or of parameters is one sentence, and nothing in a hostile source runs."""

import dataclasses
import json
import os
import pickle

import checkpoints
import numpy as np
import pytest
import safetensors.numpy
import tiny_whisper
import torch
import transformers

from voc2vec_jax import errors
from voc2vec_jax.convert import reader, torch_files, weight_files, writer


def rewritten(folder, change):
    """The source folder with its tensors changed."""
    checkpoints.source(folder)
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
    rf"tensor {QUERY} holds uint8": lambda t: t.update({QUERY: np.zeros((32, 32), np.uint8)}),
    rf"tensor {QUERY} holds int64": lambda t: t.update({QUERY: np.zeros((32, 32), np.int64)}),
    "mask_time_emb_vector under two spellings|masked_spec_embed under two spellings": lambda t: t.update(
        {"wav2vec2.mask_time_emb_vector": np.zeros(32, np.float32)}
    ),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_a_wrong_tensor_gives_one_sentence(tmp_path, reason):
    checkpoints.assert_refused(reason, rewritten(tmp_path, FAULTS[reason]))


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
        ({"adapter_attn_dim": 16}, "adapter_attn_dim is 16, .* without adapters of languages, such as facebook/mms-1b"),
        ({"conv_pos_batch_norm": True}, "conv_pos_batch_norm is True, but only False"),
        ({"feat_proj_layer_norm": False}, "feat_proj_layer_norm is False, but only True"),
        ({"feat_extract_norm": "batch"}, "feat_extract_norm is 'batch', but only 'group' or 'layer'"),
        ({"layer_norm_eps": "small"}, "layer_norm_eps is 'small' where a number"),
    ],
)
def test_a_wrong_config_gives_one_sentence(tmp_path, change, reason):
    checkpoints.source(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    checkpoints.assert_refused(reason, tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"activation_function": "relu"}, "activation_function is 'relu', but only 'gelu'"),
        ({"d_model": 22}, "width 22 is not divisible by 3 attention heads"),
        ({"d_model": 27}, "width 27 is not divisible by 2 to hold sines"),
        ({"d_model": 2, "encoder_attention_heads": 1}, "width 2 has no room for sines and cosines"),
        ({"d_model": -3}, "d_model is -3 where a positive whole number"),
        ({"num_mel_bins": 128}, r"conv1.weight has shape \(24, 80, 3\) where its config calls for \(24, 128, 3\)"),
        ({"max_source_positions": 10**9}, "max_source_positions is 1000000000 where a positive whole number"),
        ({"max_source_positions": 60_000}, r"embed_positions.weight has shape \(1500, 24\)"),
        ({"encoder_layers": 3}, "lacks the tensors encoder.layers.2"),
        ({"encoder_layers": 1}, "encoder.layers.1.* have no place in a whisper model"),
        ({"dropout": "much"}, "dropout is 'much' where a number"),
        ({"model_type": "wav2vec2", "hidden_size": 48}, "lacks the tensors feature_extractor"),
    ],
)
def test_a_wrong_config_of_whisper_gives_one_sentence(tmp_path, change, reason):
    tiny_whisper.model().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    checkpoints.assert_refused(reason, tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hop_length": 320}, "hop_length is 320, but only 160"),
        ({"n_fft": 512}, "n_fft is 512, but only 400"),
        ({"sampling_rate": 8000}, "sampling_rate is 8000, but only 16000"),
        ({"feature_size": 128}, "feature_size is 128, but only 80"),
        ({"n_samples": 160_000}, "n_samples is 160000, but only 480000"),
        ({"dither": 0.1}, "dither is 0.1, but only 0.0"),
    ],
)
def test_a_spectrum_that_is_not_whispers_is_refused(tmp_path, change, reason):
    tiny_whisper.model().save_pretrained(tmp_path)
    transformers.WhisperFeatureExtractor().save_pretrained(tmp_path)
    assert reader.read(tmp_path).normalize is False
    saved = tmp_path / "preprocessor_config.json"
    saved.write_text(json.dumps(json.loads(saved.read_text()) | change))
    checkpoints.assert_refused(reason, tmp_path)


def test_damaged_and_absent_files_give_one_sentence(tmp_path):
    checkpoints.assert_refused("does not exist", tmp_path / "absent")
    checkpoints.assert_refused("has no config.json", tmp_path)
    checkpoints.source(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "model.safetensors").write_bytes(whole[:length])
        checkpoints.assert_refused("is not a complete safetensors file", tmp_path)
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    checkpoints.assert_refused("is a pointer of Git LFS: fetch the weights themselves", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    checkpoints.assert_refused("neither model.safetensors nor pytorch_model.bin", tmp_path)
    for shard in ("../a.safetensors", "/etc/passwd", "absent.safetensors"):
        index = {"weight_map": {"x": shard}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        checkpoints.assert_refused("which does not lie beside it", tmp_path)
    for text in ("{", "[]", "[" * 100_000):
        (tmp_path / "config.json").write_text(text)
        checkpoints.assert_refused("is not readable JSON|where an object is needed", tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    checkpoints.source(tmp_path)
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    shards = {"a.safetensors": tensors, "b.safetensors": {QUERY: tensors[QUERY]}}
    for name, part in shards.items():
        safetensors.numpy.save_file(part, tmp_path / name)
    (tmp_path / "model.safetensors").unlink()
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    checkpoints.assert_refused(f"has the tensor {QUERY} in two of its shards", tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "checkpoint.pt"])
@pytest.mark.parametrize("old_layout", [False, True])
def test_a_malicious_checkpoint_is_refused_and_does_not_run(tmp_path, name, old_layout):
    checkpoints.source(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    value = {
        "model": {"w": torch.ones(2)},
        "args": None,
        "cfg": checkpoints.Payload(os.system, f"touch {tmp_path / 'marker'}"),
    }
    torch.save(value, tmp_path / name, _use_new_zipfile_serialization=not old_layout)
    checkpoints.assert_refused("system", tmp_path if name.endswith(".bin") else tmp_path / name)
    assert not (tmp_path / "marker").exists()
    pickle.loads(pickle.dumps(value["cfg"]))
    assert (tmp_path / "marker").exists()


def fairseq(tmp_path, **changes):
    tree = torch_files.load(checkpoints.BUNDLED / "fairseq_wav2vec2_base" / "checkpoint.pt")
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
    checkpoints.assert_refused(reason, fairseq(tmp_path, **changes))


def test_files_of_torch_that_are_no_checkpoint(tmp_path):
    for value, reason in (
        ([1], "holds no named tensors"),
        ({"model": {}, "cfg": None, "args": None}, "holds no named tensors"),
        ({"model": {"w": torch.ones(1)}, "cfg": None, "args": None}, "holds the tensors w, but neither cfg nor args"),
        ({"model": {}, "cfg": {"model": {"_name": "wav2vec2"}}}, "holds no named tensors"),
        ({"model": {"w": 1}, "cfg": {"model": {"_name": "wav2vec2"}}}, "'w' is a int where a tensor is needed"),
    ):
        torch.save(value, tmp_path / "a.pt")
        checkpoints.assert_refused(reason, tmp_path / "a.pt")


def test_tensors_that_share_one_storage_are_not_multiplied(tmp_path):
    shared = torch.ones(100_000)
    value = {"cfg": {"model": {"_name": "wav2vec2"}}, "model": {f"w{i}": shared for i in range(20)}}
    torch.save(value, tmp_path / "a.pt")
    checkpoints.assert_refused("share their storages so often that they need 8000000 bytes", tmp_path / "a.pt")


def test_our_own_folder_is_checked_as_well(tmp_path):
    writer.write_jax(tmp_path, checkpoints.random_checkpoint("wavlm", checkpoints.small_config("wavlm")))
    whole = json.loads((tmp_path / "config.json").read_text())
    for change, reason in (
        ({"family": "bert"}, "family 'bert' is none of"),
        ({"config": {"widht": 3}}, "widht=3 is not a field"),
        ({"config": {"encoder": {"width": "x"}}}, "width='x' is not a field"),
        ({"config": {"encoder": {"depth": 3}}}, "has shape .* where its config calls for"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(whole | change))
        checkpoints.assert_refused(reason, tmp_path)


def test_incomplete_and_misshapen_parameters_are_not_written(tmp_path):
    made = checkpoints.random_checkpoint("wavlm", checkpoints.small_config("wavlm"))
    kernel = made.params["encoder"]["feature_projection"].pop("kernel")
    for write in (writer.write_hf, writer.write_fairseq):
        with pytest.raises(errors.InputError, match="lack encoder/feature_projection/kernel"):
            write(tmp_path / "a", made)
        made.params["encoder"]["feature_projection"]["kernel"] = kernel.T
        with pytest.raises(errors.InputError, match=r"has shape \(24, 10\) where its config calls for \(10, 24\)"):
            write(tmp_path / "a", made)
        del made.params["encoder"]["feature_projection"]["kernel"]


@pytest.mark.parametrize(
    "write, family, change, reason",
    [
        ("hf", "wav2vec2", {"positional_depth": 2}, "transformers cannot express positional_depth=2 in a wav2vec2"),
        ("hf", "data2vec", {"norm_first": True}, "transformers cannot express norm_first=True in a data2vec"),
        ("hf", "data2vec", {"conv_norm": "group"}, "transformers cannot express conv_norm='group'"),
        ("fairseq", "hubert", {"norm_eps": 1e-3}, "fairseq cannot express norm_eps=0.001 in a hubert"),
    ],
)
def test_what_a_layout_cannot_express_is_not_written(tmp_path, write, family, change, reason):
    config = checkpoints.small_config(family)
    config = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, **change))
    with pytest.raises(errors.InputError, match=reason):
        getattr(writer, f"write_{write}")(tmp_path / "a", checkpoints.random_checkpoint(family, config))
    assert not (tmp_path / "a").exists()


def test_a_floating_point_that_numpy_has_not_is_no_other(tmp_path):
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert weight_files.opened(tmp_path / "w.safetensors")[0]["w"].dtype == object
