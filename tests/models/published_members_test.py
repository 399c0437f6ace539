"""Large, small and multilingual members of the families: the flags of their config.json, at sizes of a test."""

import math

import jax
import jax.numpy as jnp
import parity
import pytest
import torch
import transformers

from voc2vec_jax import models
from voc2vec_jax.convert import configs

# Every one with the stem and the positions of its full size, narrower
_SCALED = parity.NARROW | {"conv_dim": [12] * 7} | parity.POSITIONS
_STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
# transformers' class, the flags that its config.json changes, its size, the parameters that transformers counts
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_XLARGE = {"hidden_size": 1280, "num_hidden_layers": 48, "num_attention_heads": 16, "intermediate_size": 5120}
MEMBERS = {
    "facebook/wav2vec2-xls-r-300m": ("Wav2Vec2Model", _STABLE, _LARGE, 315_438_720),
    "facebook/wav2vec2-xls-r-1b": ("Wav2Vec2Model", _STABLE, _XLARGE, 962_497_408),
    "facebook/wav2vec2-xls-r-2b": (
        "Wav2Vec2Model",
        _STABLE,
        {"hidden_size": 1920, "num_hidden_layers": 48, "num_attention_heads": 16, "intermediate_size": 7680},
        2_159_259_648,
    ),
    "facebook/wav2vec2-large-robust": ("Wav2Vec2Model", _STABLE, _LARGE, 315_438_720),
    "facebook/wav2vec2-large": ("Wav2Vec2Model", {}, _LARGE, 315_428_992),
    "facebook/mms-300m": ("Wav2Vec2Model", _STABLE | {"adapter_attn_dim": None}, _LARGE, 315_438_720),
    "facebook/hubert-large-ll60k": ("HubertModel", _STABLE, _LARGE, 315_438_720),
    "facebook/hubert-xlarge-ll60k": ("HubertModel", _STABLE, _XLARGE, 962_497_408),
    "microsoft/wavlm-large": ("WavLMModel", _STABLE | {"conv_bias": False}, _LARGE, 315_453_120),
    "ntu-spml/distilhubert": ("HubertModel", {"feat_proj_layer_norm": False}, {"num_hidden_layers": 2}, 23_491_968),
}
# One of each kind of flags; the others differ in size alone
KINDS = (
    "facebook/wav2vec2-xls-r-300m",
    "facebook/hubert-large-ll60k",
    "microsoft/wavlm-large",
    "ntu-spml/distilhubert",
)


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # transformers' WavLM
@pytest.mark.parametrize(
    "name", [name if name.startswith("ntu") else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]
)
def test_same_as_transformers(name, tmp_path):
    kind, flags, _, _ = MEMBERS[name]
    parity.assert_same_as_transformers(getattr(transformers, kind), _SCALED | flags, tmp_path)


@pytest.mark.parametrize("name", MEMBERS)
def test_the_full_size_has_transformers_parameters(name):
    kind, flags, sizes, expected = MEMBERS[name]
    theirs = getattr(transformers, kind)
    config = theirs.config_class(**flags, **sizes)
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in theirs(config).parameters()) == expected
    family = config.model_type
    module = models.FAMILIES[family].Model(configs.from_hf(family, config.to_dict(), name))
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 400)), jnp.array([400]))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == expected
