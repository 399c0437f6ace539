"""The classification head is that of transformers, and pooling sees valid frames only."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import torch
import transformers

from voc2vec_jax import models
from voc2vec_jax.convert import reader
from voc2vec_jax.models import heads

CONFIG = parity.NARROW | parity.SHORT_STEM | {"classifier_proj_size": 20, "num_labels": 5}
POSITIONS = {"conv_pos_kernel_size": 5, "num_conv_pos_embeddings": 2, "num_conv_pos_embedding_groups": 4}
KINDS = {
    "wav2vec2": (transformers.Wav2Vec2ForSequenceClassification, parity.POSITIONS, {}),
    "hubert large": (transformers.HubertForSequenceClassification, parity.POSITIONS | parity.PRE_NORM, {}),
    "wavlm": (transformers.WavLMForSequenceClassification, parity.POSITIONS, {"use_weighted_layer_sum": True}),
    "wav2vec2 large": (
        transformers.Wav2Vec2ForSequenceClassification,
        parity.POSITIONS | parity.PRE_NORM,
        {"use_weighted_layer_sum": True},
    ),
    "data2vec": (transformers.Data2VecAudioForSequenceClassification, POSITIONS, {"use_weighted_layer_sum": True}),
}


def logits(source: reader.ModelWeights, head: heads.Config, audio, lengths):
    @functools.partial(jax.jit, compiler_options=parity.QUICK)
    def run(params, audio, lengths):
        model = models.FAMILIES[source.family].Model(source.config)
        x, out = model.apply({"params": params}, audio, lengths, collect=True)
        return heads.Classifier(head).apply({"params": params["head"]}, x, out["valid"], out["hidden_states"])

    return run(source.params, audio, jnp.array(lengths))


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask and attn_mask")
@pytest.mark.parametrize("name", KINDS)
def test_same_logits_as_transformers(name, tmp_path):
    kind, fields, sums = KINDS[name]
    model = parity.random_model(kind, kind.config_class(**CONFIG | fields | sums))
    source = parity.read(model, tmp_path)
    head = heads.Config(classes=5, width=20, layer_sum=bool(sums))
    audio = parity.clips(parity.LENGTHS)
    full = (parity.SAMPLES,) * 2
    with jax.default_matmul_precision("highest"), torch.no_grad():
        for lengths, given in ((full, {}), (parity.LENGTHS, {"attention_mask": parity.attention_mask(parity.LENGTHS)})):
            expected = model(torch.tensor(audio), **given).logits
            np.testing.assert_allclose(logits(source, head, audio, lengths), expected, rtol=0, atol=1e-4)


def test_pooling_is_the_mean_of_valid_frames():
    x = jnp.array([[[1.0, 2.0], [3.0, 6.0], [jnp.inf, jnp.nan]], [[5.0, 7.0], [1.0, 1.0], [3.0, 1.0]]])
    valid = jnp.array([[True, True, False], [True, True, True]])
    np.testing.assert_array_equal(heads.pool(x, valid), [[2, 4], [3, 3]])


def test_pooling_of_no_frame_is_zero():
    assert not heads.pool(jnp.ones((1, 2, 3)), jnp.zeros((1, 2), bool)).any()


def test_fresh_layer_weights_average_all_layers():
    states = jax.random.normal(jax.random.key(0), (4, 1, 3, 8))
    valid = jnp.ones((1, 3), bool)
    head = heads.Classifier(heads.Config(layer_sum=True))
    params = head.init(jax.random.key(1), states[-1], valid, states)["params"]
    plain = {name: params[name] for name in ("projector", "classifier")}
    expected = heads.Classifier(heads.Config()).apply({"params": plain}, states.mean(0), valid)
    np.testing.assert_allclose(head.apply({"params": params}, states[-1], valid, states), expected, atol=1e-6)


def test_layer_sum_asks_for_hidden_states():
    x, valid = jnp.ones((1, 2, 3)), jnp.ones((1, 2), bool)
    with pytest.raises(ValueError, match="collect=True"):
        heads.Classifier(heads.Config(layer_sum=True)).init(jax.random.key(0), x, valid)


def test_attention_weighs_the_valid_frames_by_the_softmax_of_their_scores():
    rng = np.random.default_rng(0)
    x, query = rng.standard_normal((2, 5, 3)).astype(np.float32), rng.standard_normal(3).astype(np.float32)
    valid = np.arange(5) < np.array([[5], [2]])
    shares = [np.exp(row[own] @ query) for row, own in zip(x.astype(np.float64), valid)]
    expected = [share @ row[own] / share.sum() for share, row, own in zip(shares, x, valid)]
    rubbish = np.where(valid[..., None], x, np.nan)
    pooled, weight = heads.attend(jnp.array(rubbish), jnp.array(valid), jnp.array(query))
    np.testing.assert_allclose(pooled, expected, rtol=1e-5)
    np.testing.assert_allclose(weight, [np.log(share.sum()) for share in shares], rtol=1e-5)
    slope = jax.grad(lambda query: heads.attend(jnp.array(rubbish), jnp.array(valid), query)[0].sum())(jnp.array(query))
    assert np.isfinite(slope).all() and np.asarray(slope).any()
    nothing, weight = heads.attend(jnp.ones((1, 2, 3)), jnp.zeros((1, 2), bool), jnp.ones(3))
    assert not nothing.any() and np.isneginf(weight).all()


def test_a_fresh_attention_is_the_mean():
    x, valid = jax.random.normal(jax.random.key(0), (2, 4, 8)), jnp.array([[True] * 4, [True] * 3 + [False]])
    head = heads.Classifier(heads.Config(pooling="attention"))
    params = head.init(jax.random.key(1), x, valid)["params"]
    mean = {name: params[name] for name in ("projector", "classifier")}
    expected = heads.Classifier(heads.Config()).apply({"params": mean}, x, valid)
    np.testing.assert_allclose(head.apply({"params": params}, x, valid), expected, atol=1e-6)
