"""The count of operations equals what the compiler counts, and grows as the model does."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from voc2vec_jax import audio
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.models import flops, hubert, wav2vec2, whisper

BASE = wav2vec2.Config()


def counted(model, samples):
    """XLA's own count of a forward pass for a TPU before it optimises; what is no product is small beside products.

    For a TPU, because it convolves all groups at once: a loop's body is counted once, however often it runs.
    """
    init = functools.partial(model.init, jax.random.key(0))
    clip = jax.ShapeDtypeStruct((1, samples), jnp.float32)
    lengths = jax.ShapeDtypeStruct((1,), jnp.int32)
    params = jax.eval_shape(init, clip, lengths)
    traced = jax.jit(model.apply).trace(params, clip, lengths)
    return traced.lower(lowering_platforms=("tpu",)).cost_analysis()["flops"]


@pytest.mark.parametrize("seconds", [2, 10])
def test_operations_are_those_that_the_compiler_counts(seconds):
    # One block: the body of the loop over blocks is counted once. Plain attention: kernels are not counted
    config = dataclasses.replace(BASE, encoder=dataclasses.replace(BASE.encoder, depth=1, attention="plain"))
    samples = seconds * audio.RATE_HZ
    parts = flops.forward(config, samples)
    # The compiler leaves out products with the zeros around the clip, and we do not
    t, k = config.encoder.frames(samples), config.encoder.positional_kernel
    taps = np.arange(t)[:, None] - k // 2 + np.arange(k)
    parts["positional conv"] *= ((taps >= 0) & (taps < t)).mean()
    ours = sum(count for name, count in parts.items() if name != "objective")
    assert ours < counted(wav2vec2.Model(config), samples) < 1.06 * ours


@pytest.mark.parametrize("context", whisper.CONTEXTS)
def test_whispers_operations_are_those_that_the_compiler_counts(context):
    config = whisper.Config(whisper.EncoderConfig(depth=1, attention="plain", context=context))
    samples = 5 * audio.RATE_HZ
    parts = flops.forward(config, samples)
    ours = sum(parts.values())
    assert ours < counted(whisper.Model(config), samples) < 1.06 * ours
    # Of the spectrum there is no gradient, and of the first convolution none for its input
    trained = flops.training(config, samples)["conv stem"]
    unit = {"padded": 3000, "cut": 500}[context] * 6 * 384  # of frames of the spectrum times an output's products
    spectrum = parts["conv stem"] - unit * (80 + 384 / 2)
    np.testing.assert_allclose(trained, spectrum + unit * (2 * 80 + 3 * 384 / 2), rtol=1e-9)


def test_a_second_of_base_is_fifteen_billion_operations_and_three_times_that_in_training():
    forward, training = (f(BASE, 10 * audio.RATE_HZ) for f in (flops.forward, flops.training))
    assert set(forward) == {"conv stem", "projection", "positional conv", "blocks", "objective"}
    encoder = sum(forward.values()) - forward["objective"]
    np.testing.assert_allclose(encoder / 10 / 1e9, 14.9, rtol=0.01)
    np.testing.assert_allclose(forward["conv stem"] / encoder, 0.33, atol=0.01)
    assert 2.9 * encoder < sum(training.values()) < 3.05 * encoder + 3 * forward["objective"]


def test_attention_alone_grows_with_the_square_of_the_length():
    config = dataclasses.replace(BASE, encoder=encoders.EncoderConfig(width=64, depth=2, heads=4, inner_width=128))
    blocks = [flops.forward(config, k * 10 * audio.RATE_HZ)["blocks"] for k in (1, 2)]
    t = [config.encoder.frames(k * 10 * audio.RATE_HZ) for k in (1, 2)]
    linear = 2 * 2 * (4 * 64**2 + 2 * 64 * 128)
    square = [(total - linear * frames) / frames**2 for total, frames in zip(blocks, t)]
    np.testing.assert_allclose(square[0], square[1])


def test_a_family_without_a_quantizer_has_the_same_encoder():
    parts = flops.forward(hubert.Config(), 160_000)
    expected = flops.forward(BASE, 160_000)
    assert parts["objective"] == 0.0 and {**expected, "objective": 0.0} == parts
