"""WavLM is the same function as in transformers, and its buckets of distances are the ones of the definition."""

import functools
import math

import jax
import numpy as np
import parity
import pytest
import torch
import transformers
from transformers.models.wavlm import modeling_wavlm

from voc2vec_jax import models
from voc2vec_jax.models import encoder, wavlm

FEW_BUCKETS = {"num_buckets": 30, "max_bucket_distance": 50}
CONFIGS = {**parity.CONFIGS, "odd sizes": parity.CONFIGS["odd sizes"] | FEW_BUCKETS}


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask and attn_mask")
@pytest.mark.parametrize("name", CONFIGS)
def test_same_as_transformers(name, tmp_path):
    parity.assert_same_as_transformers(transformers.WavLMModel, CONFIGS[name], tmp_path)


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask and attn_mask")
@pytest.mark.parametrize("kind, blocks", [(transformers.WavLMModel, 1), (transformers.Wav2Vec2Model, 0)])
@pytest.mark.parametrize("name", ["base", "large"])
def test_layerdrop_spares_the_blocks_that_it_spares_in_transformers(name, kind, blocks, tmp_path):
    """With a rate of 1 the blocks that may be dropped are dropped; what is left is the same function."""
    shares = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout")
    fields = parity.CONFIGS[name] | dict.fromkeys(shares, 0.0) | {"layerdrop": 1.0, "apply_spec_augment": False}
    model = parity.random_model(kind, kind.config_class(**fields)).train()
    source = parity.read(model, tmp_path)
    audio, lengths = parity.clips((parity.SAMPLES,) * 2), np.full(2, parity.SAMPLES)
    keys = jax.random.split(jax.random.key(0), 2)

    @functools.partial(jax.jit, compiler_options=parity.QUICK)
    def outputs(params, audio, lengths, noise):
        network = models.FAMILIES[source.family].Model(source.config)
        return network.apply({"params": params}, audio, lengths, noise=noise, collect=True)

    with jax.default_matmul_precision("highest"):
        x, out = outputs(source.params, audio, lengths, encoder.Noise(keys, keys))
    np.testing.assert_allclose(x, model(torch.tensor(audio)).last_hidden_state.detach(), rtol=0, atol=1e-4)
    states = np.asarray(out["hidden_states"])
    changed = [bool(np.abs(after - before).max() > 0) for before, after in zip(states, states[1:])]
    assert changed == [number < blocks for number in range(source.config.encoder.depth)]


def test_few_buckets_in_full():
    buckets = wavlm.distance_buckets(11, buckets=8, distance=10)
    # Per side: one bucket each for distances 0 and 1; 2 to 4 share one; what lies beyond 2 * sqrt(10 / 2) the last.
    assert buckets.tolist() == [3, 3, 3, 3, 3, 3, 2, 2, 2, 1, 0, 5, 6, 6, 6, 7, 7, 7, 7, 7, 7]


@pytest.mark.parametrize("buckets, distance", [(320, 800), (320, 1280), (64, 100), (32, 128), (30, 50)])
def test_buckets_are_those_of_transformers(buckets, distance):
    attention = modeling_wavlm.WavLMAttention(8, 2, num_buckets=buckets, max_distance=distance)
    length = 2000
    theirs = attention._relative_positions_bucket(torch.arange(1 - length, length))
    np.testing.assert_array_equal(wavlm.distance_buckets(length, buckets, distance), theirs)


def test_buckets_of_the_published_models_are_exact():
    length = 3000
    buckets = wavlm.distance_buckets(length, 320, 800)[length - 1 :]
    exact = [d if d < 80 else min(80 + math.floor(80 * math.log10(d / 80)), 159) for d in range(length)]
    assert buckets.tolist() == [bucket + 160 * (d > 0) for d, bucket in enumerate(exact)]
    assert buckets[713] == 160 + 155  # 155.99996 before it is cut: a coarser logarithm gives 156


@pytest.mark.parametrize("length", [0, 1, 2, 7])
def test_every_pair_of_positions_has_the_bias_of_its_offset(length):
    by_offset = jax.random.normal(jax.random.key(0), (3, max(0, 2 * length - 1)))
    found = wavlm.every_offset(by_offset, length)
    assert found.shape == (3, length, length)
    for i in range(length):
        for j in range(length):
            np.testing.assert_array_equal(found[:, i, j], by_offset[:, j - i + length - 1])
