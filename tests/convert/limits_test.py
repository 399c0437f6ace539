"""Configurations are input: what makes no sense is refused at once, in a short sentence, whoever wrote it."""

import dataclasses
import json

import checkpoints
import numpy as np
import pytest

from voc2vec_jax import errors
from voc2vec_jax import models as families
from voc2vec_jax.convert import configs, fields, head_labels, limits, weight_files
from voc2vec_jax.convert import names as convert_names

ORIGIN = "folder/config.json"
NAN, INF, MANY = float("nan"), float("inf"), [1] * 1_000_000
OWN = [
    ({"depth": 10**9}, "depth is 1000000000 where a number from 1 to 1000"),
    ({"depth": 0}, "depth is 0 "),
    ({"width": -24}, "width is -24 "),
    ({"width": 10**15}, "width is 1000000000000000 "),
    ({"width": MANY}, r"width=\(1, 1, 1, 1, ...\) is not a field"),
    ({"heads": 0}, "heads is 0 "),
    ({"width": 768, "heads": 768}, "heads is 768 where a number from 1 to 64"),
    ({"norm_eps": NAN}, "norm_eps is nan where a number above 0 and below 1"),
    ({"norm_eps": INF}, "norm_eps is inf "),
    ({"norm_eps": 10**400}, "norm_eps is inf "),
    ({"norm_eps": 0}, "norm_eps is 0.0 "),
    ({"dropout": 1}, "dropout is 1.0 where a number from 0 to below 1"),
    ({"layerdrop": -0.1}, "layerdrop is -0.1 where a number from 0 to 1"),
    ({"conv_strides": MANY}, "conv_strides has 1000000 layers, not 1 to 64"),
    ({"conv_channels": ["6"] * 7}, r"conv_channels=\('6', '6', '6', '6', ...\) is not a field"),
    ({"conv_channels": [], "conv_kernels": [], "conv_strides": []}, "conv_channels has 0 layers"),
    ({"conv_strides": [5, 2, 2, 2, 2, 2, 3]}, "a convolution of 2 taps with stride 3 skips samples"),
    ({"conv_kernels": [65536] * 7, "conv_strides": [65536] * 7}, "sees more than 1048576 samples"),
    ({"conv_kernels": [65536] * 7, "conv_strides": [16] * 7}, "sees more than 1048576 samples"),
    ({"dtype": "float4096"}, "dtype is 'float4096', which is none of float32"),
    ({"attention": "x" * 1_000_000}, "attention is 'xxx.*xxx', which is none of auto"),
    ({"x" * 1_000_000: 1}, r"xxx\.\.\.xxx"),
]


def assert_short(caught):
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(("change", "sentence"), OWN, ids=range(len(OWN)))
def test_a_field_of_our_own_that_makes_no_sense_is_refused(change, sentence):
    said = configs.to_dict(checkpoints.small_config("wav2vec2"))
    said["encoder"] |= change
    with pytest.raises(errors.InputError, match=sentence) as caught:
        configs.from_dict("wav2vec2", said, ORIGIN)
    assert_short(caught)


@pytest.mark.parametrize(
    ("family", "change", "sentence"),
    [
        ("wav2vec2", {"mask_share": 1e9}, "mask_share is 1000000000.0 where"),
        ("wav2vec2", {"logit_temperature": 0.0}, "logit_temperature is 0.0 where a number above 0"),
        ("wav2vec2", {"gumbel_decay": 1.5}, "gumbel_decay is 1.5 where"),
        ("wavlm", {"relative_buckets": 3}, "3 buckets do not divide distances of 800 frames"),
        ("wavlm", {"relative_distance": 80}, "320 buckets do not divide distances of 80 frames"),
        ("emotion2vec", {"prenet_depth": 9}, "prenet_depth is 9 of 5 blocks"),
    ],
)
def test_a_field_of_a_family_that_makes_no_sense_is_refused(family, change, sentence):
    config = checkpoints.small_config(family)
    assert limits.check(family, config, ORIGIN) is config
    with pytest.raises(errors.InputError, match=sentence):
        limits.check(family, dataclasses.replace(config, **change), ORIGIN)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"layer_norm_eps": NAN}, "layer_norm_eps is nan where a number is needed"),
        ({"layer_norm_eps": -1.0}, "norm_eps is -1.0 where a number above 0"),
        ({"num_hidden_layers": 65536}, "depth is 65536 where a number from 1 to 1000"),
        ({"hidden_size": 10**5000}, "hidden_size is a number of 16610 bits where"),
        ({"conv_dim": MANY}, r"conv_dim is \[1, 1, 1, 1, ...\] where"),
        ({"conv_stride": [65536] * 7}, "with stride 65536 skips samples"),
        ({"do_stable_layer_norm": "x" * 100_000}, "do_stable_layer_norm is 'xxx"),
    ],
)
def test_a_field_of_transformers_that_makes_no_sense_is_refused(change, sentence):
    with pytest.raises(errors.InputError, match=sentence) as caught:
        configs.from_hf("wav2vec2", change, ORIGIN)
    assert_short(caught)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"latent_temp": "1," * 500_000}, "latent_temp is '1,1.* where a list of three numbers"),
        ({"latent_temp": [1, 2]}, "latent_temp is .* where a list of three numbers"),
        ({"final_dim": "x" * 1000}, "final_dim is 'xxx"),
        ({"dropout": NAN}, "dropout is nan"),
        ({"encoder_layers": 10**4900}, "encoder_layers is a number of 16278 bits"),
    ],
)
def test_a_field_of_fairseq_that_makes_no_sense_is_refused(change, sentence):
    with pytest.raises(errors.InputError, match=sentence) as caught:
        configs.from_fairseq("wav2vec2", change, ORIGIN)
    assert_short(caught)


@pytest.mark.parametrize("ratio", [INF, 1e300, NAN, 0.0])
def test_a_ratio_of_widths_is_bounded(ratio):
    audio = dict.fromkeys(("use_alibi_encoder", "learned_alibi_scale", "learned_alibi_scale_per_head"), True)
    with pytest.raises(errors.InputError, match="mlp_ratio is .* where a ratio of at most 1000"):
        configs.from_fairseq("emotion2vec", {"mlp_ratio": ratio, "modalities": {"audio": audio}}, ORIGIN)


@pytest.mark.parametrize("value", [0, 0.0, 1, 1.0, -0.5, NAN, True])
def test_a_number_above_0_and_below_1_is_neither(value):
    with pytest.raises(errors.InputError, match="small is .* where a number above 0 and below 1 is needed"):
        fields.Raw({"small": value}, ORIGIN).take("small", fields.SMALL, 0.5)
    assert fields.Raw({"small": 1e-12}, ORIGIN).take("small", fields.SMALL, 0.5) == 1e-12


@pytest.mark.parametrize("family", families.FAMILIES)
def test_the_published_configurations_are_within_the_limits(family):
    config = families.FAMILIES[family].Config()
    assert limits.check(family, config, ORIGIN) is config
    assert configs.from_dict(family, configs.to_dict(config), ORIGIN) == config


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[1]", "holds a list where an object is needed"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not readable JSON: Exceeds the limit"),
        (b'{"a": "' + b"x" * weight_files.MOST_JSON_BYTES + b'"}', "are read at most"),
        (b'{"\xff": 1}', "is not readable JSON"),
    ],
)
def test_a_configuration_that_is_no_bounded_object_is_refused(tmp_path, text, sentence):
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(errors.InputError, match=sentence) as caught:
        weight_files.read_json(tmp_path / "config.json")
    assert_short(caught)


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ({"0": "a" * 1_000_000, "1": "b"}, "id2label holds 'aaa"),
        ({"0": ["a"] * 100_000, "1": "b"}, r"id2label holds \['a', 'a'"),
        ({"9" * 4000: "a", "1": "b"}, "the keys of id2label are 1, a number of"),
        ({"x" * 5000: "a", "1": "b"}, "id2label has the key 'xxx"),
    ],
)
def test_labels_of_any_size_are_refused_shortly(named, sentence):
    with pytest.raises(errors.InputError, match=sentence) as caught:
        head_labels.read({"id2label": named}, 2, ORIGIN)
    assert_short(caught)


@pytest.mark.parametrize("found", [{"a": 1}, "ab", [["a"]], [""], ["a" * 1_000_000], 5])
def test_labels_of_our_own_are_a_list_of_texts(found):
    with pytest.raises(errors.InputError, match="labels (is|holds) ") as caught:
        head_labels.own(found, ORIGIN)
    assert_short(caught)
    assert head_labels.own(None, ORIGIN) == () and head_labels.own(["a", "b"], ORIGIN) == ("a", "b")


class Unread:
    """A tensor of a shape that must not be read."""

    def __init__(self, shape):
        self.shape, self.dtype = shape, np.dtype(np.float32)

    def read(self):
        raise AssertionError("was read")


def test_sizes_are_compared_with_all_tensors_before_one_is_read():
    config = checkpoints.small_config("wav2vec2")
    table = convert_names.table("wav2vec2", config)
    names = [(name, entry.stored_shape) for entry in table for name in entry.names("hf")]
    tensors = {name: Unread(shape) for name, shape in names}
    last = names[-1][0]
    for changed, sentence in (
        (tensors | {last: Unread((7,))}, f"tensor {last} has shape .7,. where"),
        ({name: tensor for name, tensor in tensors.items() if "layers.4.final" not in name}, "lacks the tensors"),
    ):
        with pytest.raises(errors.InputError, match=sentence):
            convert_names.fill(table, changed, "hf", "", ORIGIN)
    with pytest.raises(AssertionError, match="was read"):
        convert_names.fill(table, tensors, "hf", "", ORIGIN)


def test_infinite_sums_of_finite_weights_are_allowed_and_nan_is_counted():
    large = np.full(4, np.finfo(np.float32).max, np.float32)
    convert_names.check_finite({"a": large, "b": -large}, ORIGIN)
    for wrong in (np.nan, np.inf, -np.inf):
        with pytest.raises(
            errors.InputError, match=r"b holds NaN or infinity \(1 of 4 numbers\) and 1 other too: take"
        ):
            bad = np.array([0, wrong, 1, 2], np.float32)
            convert_names.check_finite({"a": large, "b": bad, "c": bad}, ORIGIN)


def test_json_of_the_limits_fits_what_is_published(tmp_path):
    """Whisper's preprocessor_config.json, with its filters, and the index of a large model."""
    filters = {"mel_filters": np.random.default_rng(0).random((80, 201)).tolist(), "feature_size": 80}
    (tmp_path / "a.json").write_text(json.dumps(filters))
    assert weight_files.read_json(tmp_path / "a.json") == filters
