"""What holds for every family: batch invariance, no gradient from padding, published sizes."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import tiny_whisper

from voc2vec_jax import errors, models
from voc2vec_jax.models import data2vec, emotion2vec, encoder, hubert, wav2vec2, wavlm, whisper

SMALL = {"conv_channels": (12,) * 3, "conv_kernels": (10, 3, 2), "conv_strides": (8, 4, 2)}
SMALL |= {"width": 24, "depth": 2, "heads": 3, "inner_width": 40, "positional_kernel": 8, "positional_groups": 4}
FAMILIES = {
    "wav2vec2": (wav2vec2, {}, {}),
    "wav2vec2 large": (wav2vec2, {}, {"norm_first": True, "conv_norm": "layer", "conv_bias": True}),
    "hubert": (hubert, {"classes": 5}, {}),
    "wavlm": (wavlm, {"relative_buckets": 16, "relative_distance": 20}, {}),
    "wavlm large": (wavlm, {}, {"norm_first": True, "conv_norm": "layer"}),
    "data2vec": (data2vec, {}, {"conv_norm": "layer", "positional_depth": 3}),
    "emotion2vec": (emotion2vec, {"extra_tokens": 4, "prenet_depth": 1}, {"conv_norm": "layer", "positional_depth": 3}),
}
LENGTHS = (4000, 2345)


WHISPER = {"whisper padded": "padded", "whisper cut": "cut"}


def build(name: str, dtype: str = "float32"):
    """The family's module at toy size, and random parameters."""
    if name in WHISPER:
        model = whisper.Model(tiny_whisper.config(WHISPER[name], dtype=dtype))
        return model, jax.tree.map(lambda leaf: leaf.astype(dtype), parity.random_parameters(model))
    family, own, fields = FAMILIES[name]
    config = family.Config(encoder=encoder.EncoderConfig(**{**SMALL, **fields}, dtype=dtype), **own)
    model = family.Model(config)
    return model, jax.tree.map(lambda leaf: leaf.astype(dtype), parity.random_parameters(model))


def batch(dtype: str) -> np.ndarray:
    """Clips of LENGTHS and, behind each, loud noise where a batch would have padding."""
    rng = np.random.default_rng(1)
    audio = rng.normal(size=(len(LENGTHS), max(LENGTHS)))
    real = np.arange(max(LENGTHS))[None] < np.array(LENGTHS)[:, None]
    return np.where(real, audio, 30 * audio).astype(dtype)


@functools.partial(jax.jit, static_argnums=0, compiler_options=parity.QUICK)
def states(model, params, audio, lengths):
    x, out = model.apply({"params": params}, audio, lengths, collect=True)
    return jnp.concatenate([out["hidden_states"], x[None]])


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-10), ("float32", 5e-5)])
@pytest.mark.parametrize("name", [*FAMILIES, *WHISPER])
def test_a_clip_does_not_notice_its_batch(name, dtype, tolerance):
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
        model, params = build(name, dtype)
        audio = batch(dtype)
        together = states(model, params, audio, np.array(LENGTHS))
        assert together.dtype == dtype
        row, length = 1, LENGTHS[1]
        alone = states(model, params, audio[row : row + 1, :length], np.array([length]))
        # An encoder that pads has frames of the silence too, and no others
        frames = together.shape[2] if model.config.encoder.pads else model.config.encoder.frames(length)
        assert alone.shape[2] == frames
        np.testing.assert_allclose(together[:, row, :frames], alone[:, 0], rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", [*FAMILIES, *WHISPER])
def test_no_gradient_leaks_past_padding(name):
    model, params = build(name)

    @functools.partial(jax.jit, compiler_options=parity.QUICK)
    @jax.grad
    def gradient(audio, params):
        x, out = model.apply({"params": params}, audio, jnp.array(LENGTHS))
        return jnp.where(out["valid"][..., None], x, 0).var()

    leaked = np.asarray(gradient(batch("float32"), params))
    for row, length in enumerate(LENGTHS):
        assert not leaked[row, length:].any()
        assert np.abs(leaked[row, :length]).reshape(-1).max() > 0


PARAMETERS = {
    "wav2vec2": 94_371_712,
    "hubert": 94_371_712,
    "wavlm": 94_381_936,
    "data2vec": 93_164_288,
    "emotion2vec": 93_171_212,
    "whisper": 8_208_384,
}


def count(module, *inputs) -> int:
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 4240)), jnp.array([4240]), *inputs)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("name", models.FAMILIES)
def test_base_models_have_the_published_size(name):
    family = models.FAMILIES[name]
    assert count(family.Model(family.Config())) == PARAMETERS[name]


def test_hubert_with_its_objective_has_the_published_size():
    module = hubert.PreTraining(hubert.Config())
    assert count(module, jnp.zeros((1, 3), jnp.int32), jnp.ones((1, 3), bool), None) == 94_697_600


def test_recomputing_blocks_changes_nothing():
    model, params = build("wavlm")
    lazy = dataclasses.replace(model.config, encoder=dataclasses.replace(model.config.encoder, remat="layer"))
    audio, lengths = batch("float32"), np.array(LENGTHS)
    again = states(wavlm.Model(lazy), params, audio, lengths)
    np.testing.assert_array_equal(states(model, params, audio, lengths), again)


def test_emotion2vec_refuses_norms_before_the_branches():
    with pytest.raises(errors.InputError, match="norm_first"):
        emotion2vec.Config(encoder=encoder.EncoderConfig(norm_first=True))
