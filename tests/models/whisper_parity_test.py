"""Whisper's encoder is the same function as in transformers, padded to 30 s; cut, it is that function of the clip."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import tiny_whisper
import torch
import transformers

from voc2vec_jax import errors
from voc2vec_jax.models import whisper

CONFIGS = {
    "80 bands, 30 s": {"num_mel_bins": 80},
    "128 bands, other sizes": {
        "num_mel_bins": 128,
        "max_source_positions": 75,
        "d_model": 40,
        "encoder_layers": 3,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 52,
    },
}
LENGTHS = (12_345, 9_000, 23_999)


@functools.partial(jax.jit, static_argnums=0, compiler_options=parity.QUICK)
def forward_and_gradients(config, params, audio, lengths, weights):
    """(last frames, hidden states, log-mel), gradients of the mean of the last frames times `weights`."""

    def loss(params):
        x, out = whisper.Model(config).apply({"params": params}, audio, lengths, collect=True)
        return (x * weights).mean(), (x, out["hidden_states"], out["mel"])

    (_, outputs), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return outputs, gradients


@pytest.mark.parametrize("name", CONFIGS)
def test_same_as_transformers(name, tmp_path):
    """Every hidden state of a padded batch, the spectrum within float32's rounding, and gradients."""
    made = tiny_whisper.model(**CONFIGS[name])
    source = parity.read(made, tmp_path / "model")
    clips = parity.clips(LENGTHS)
    given = tiny_whisper.features(made.config, [clip[:n] for clip, n in zip(clips, LENGTHS)])
    theirs = made.encoder(given, output_hidden_states=True)
    weights = np.random.default_rng(1).normal(size=theirs.last_hidden_state.shape).astype(np.float32)
    # Rubbish where the batch has padding, to be hidden
    noisy = np.where(np.arange(clips.shape[1])[None] < np.array(LENGTHS)[:, None], clips, np.float32(7))
    with jax.default_matmul_precision("highest"):
        (*ours, mel), gradients = forward_and_gradients(
            source.config, source.params, noisy, jnp.array(LENGTHS), weights
        )
    np.testing.assert_allclose(np.asarray(mel).transpose(0, 2, 1), given.numpy(), rtol=0, atol=1e-5)
    parity.assert_states_agree(ours, theirs)
    # transformers does not train the positions, and neither is there a gradient of them here
    assert not np.asarray(gradients["encoder"]["positions"]).any()
    expected = parity.reference_gradients(made, theirs, weights, tmp_path / "gradients")
    parity.assert_gradients_agree(gradients, expected)


@pytest.mark.parametrize("samples", [8_000, 3_519])
def test_cut_is_transformers_encoder_of_the_clip_alone(samples, tmp_path):
    """Its layers on the clip's own spectrum, of an even and of an odd number of frames, with the first positions."""
    made = tiny_whisper.model(max_source_positions=100)
    source = parity.read(made, tmp_path).in_context("cut")
    clip = parity.clips((samples,))[0]
    expected = cut_states(made, tiny_whisper.features(made.config, [clip], padding="do_not_pad"))
    audio = np.full((2, 16_000), 5, np.float32)
    audio[0, :samples] = clip
    with jax.default_matmul_precision("highest"):
        lengths = np.array([samples, 16_000])
        (x, states, _), _ = forward_and_gradients(source.config, source.params, audio, lengths, np.float32(1))
    frames = source.config.encoder.frames(samples)
    assert len(expected) == len(states) and expected[-1].shape[1] == frames == -(-(samples // 160) // 2)
    for state, theirs in zip((x, *states), (expected[-1], *expected)):
        np.testing.assert_allclose(state[0, :frames], theirs[0].numpy(), rtol=0, atol=1e-4)


def cut_states(made: torch.nn.Module, spectrum: torch.Tensor) -> list[torch.Tensor]:
    """What the layers of transformers' encoder make of a spectrum of any length, which the encoder itself refuses."""
    encoder, gelu = made.encoder, torch.nn.functional.gelu
    with torch.no_grad():
        x = gelu(encoder.conv2(gelu(encoder.conv1(spectrum)))).transpose(1, 2)
        states = [x + encoder.embed_positions.weight[: x.shape[1]]]
        for layer in encoder.layers:
            states.append(layer(states[-1], None))
        return [*states[:-1], encoder.layer_norm(states[-1])]


def test_the_two_contexts_are_two_functions_of_a_short_clip_and_one_of_a_whole_one(tmp_path):
    made = tiny_whisper.model(max_source_positions=50)
    source = parity.read(made, tmp_path)
    audio = parity.clips((16_000, 4_000))
    found = {}
    for context in whisper.CONTEXTS:
        config = source.in_context(context).config
        (x, _, _), _ = forward_and_gradients(config, source.params, audio, np.array([16_000, 4_000]), np.float32(1))
        found[context] = np.asarray(x)
    np.testing.assert_allclose(found["cut"][0], found["padded"][0], rtol=0, atol=1e-5)
    assert np.abs(found["cut"][1, :12] - found["padded"][1, :12]).max() > 0.1


def test_masks_hide_frames_of_the_spectrum():
    model = whisper.Model(tiny_whisper.config("cut"))
    audio, lengths = jnp.asarray(parity.clips((3200, 1600))), jnp.array([3200, 1600])
    params = jax.tree.map(jnp.asarray, parity.random_parameters(model))
    masked = np.zeros((2, 18), bool)  # fewer than there are: the others stay
    masked[0, 4:7] = masked[1, 9] = True
    spectrum = jax.jit(lambda masked: model.apply({"params": params}, audio, lengths, masked=masked)[1]["mel"])
    plain, hidden = np.asarray(spectrum(None)), np.asarray(spectrum(jnp.asarray(masked)))
    np.testing.assert_array_equal((plain != hidden).any(2)[:, :18], masked)
    assert not hidden[:, :18][masked].any() and (plain == hidden)[:, 18:].all()


def test_more_audio_than_positions_is_refused():
    config = tiny_whisper.config("cut")
    with pytest.raises(errors.InputError, match=r"the audio has 6720 samples.* takes 6400 \(0.4 s\)"):
        jax.eval_shape(whisper.Model(config).init, jax.random.key(0), jnp.zeros((1, 6720)), jnp.array([6720]))
    with pytest.raises(errors.InputError, match="context 'whole' is none of padded, cut"):
        tiny_whisper.config("whole")


# Encoders alone, as transformers counts them; a model of Whisper has about as many again in its decoder
PARAMETERS = {
    "tiny": ((384, 4, 6, 80), 8_208_384),
    "base": ((512, 6, 8, 80), 20_590_592),
    "small": ((768, 12, 12, 80), 88_154_112),
    "medium": ((1024, 24, 16, 80), 307_216_384),
    "large-v2": ((1280, 32, 20, 80), 636_784_640),
    "large-v3": ((1280, 32, 20, 128), 636_968_960),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_size_has_transformers_parameters(name):
    (width, depth, heads, bands), expected = PARAMETERS[name]
    sizes = {"width": width, "depth": depth, "heads": heads, "inner_width": 4 * width, "mel_bands": bands}
    module = whisper.Model(whisper.Config(whisper.EncoderConfig(**sizes)))
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 16_000)), jnp.array([16_000]))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == expected
    fields = {"d_model": width, "encoder_layers": depth, "encoder_attention_heads": heads, "num_mel_bins": bands}
    config = transformers.WhisperConfig(**fields, encoder_ffn_dim=4 * width)
    with torch.device("meta"):
        theirs = transformers.models.whisper.modeling_whisper.WhisperEncoder(config)
    assert sum(parameter.numel() for parameter in theirs.parameters()) == expected


def test_fresh_positions_are_transformers_sinusoids():
    theirs = transformers.models.whisper.modeling_whisper.sinusoids(1500, 384)
    np.testing.assert_allclose(whisper.sinusoids(1500, 384), theirs.numpy(), rtol=0, atol=2e-4)
