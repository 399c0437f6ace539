"""Features of every family against vectors of the reference implementations."""

import dataclasses
import functools

import golden_vectors
import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest

from voc2vec_jax import models
from voc2vec_jax.convert import reader
from voc2vec_jax.models import hubert

FOLDERS = golden_vectors.folders("features.npz")
TOLERANCE = {"rtol": 0, "atol": 2e-5}


@functools.cache
def load(folder):
    source = reader.read(folder / "checkpoint.pt")
    return source.family, source.config, jax.tree.map(jnp.asarray, source.params)


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=parity.QUICK)
def forward(family, config, params, audio, lengths):
    return models.FAMILIES[family].Model(config).apply({"params": params}, audio, lengths, collect=True)


def features(folder, audio, lengths=None, padding="exact"):
    family, config, params = load(folder)
    lengths = np.full(len(audio), audio.shape[1]) if lengths is None else lengths
    config = dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, padding=padding))
    with jax.default_matmul_precision("highest"):
        return forward(family, config, params, jnp.asarray(audio), jnp.asarray(lengths))


def of_family(*families):
    return [folder for folder in FOLDERS if load(folder)[0] in families]


def parametrize(folders):
    return pytest.mark.parametrize("folder", folders, ids=lambda folder: folder.name)


def test_there_are_vectors():
    bundled = {"emotion2vec_base", "fairseq_hubert_base", "fairseq_wav2vec2_base"}
    assert bundled <= {folder.name for folder in FOLDERS}


@parametrize(FOLDERS)
def test_features(folder):
    wanted = np.load(folder / "features.npz")
    x, out = features(folder, wanted["audio"])
    np.testing.assert_allclose(x, wanted["last_hidden_state"], **TOLERANCE)
    np.testing.assert_allclose(out["conv_features"], wanted["conv_features"], **TOLERANCE)
    layers = [name for name in wanted.files if name.startswith("layer_")]
    assert len(layers) in (0, len(out["hidden_states"]) - 1)
    for name in layers:
        np.testing.assert_allclose(out["hidden_states"][int(name[6:]) + 1], wanted[name], **TOLERANCE)


PADDED = [folder for folder in FOLDERS if (folder / "features_padded.npz").exists()]
if PADDED:  # bundled with none of the vectors here; further folders may bring them

    @parametrize(PADDED)
    def test_features_of_a_padded_batch(folder):
        wanted = np.load(folder / "features_padded.npz")
        x, out = features(folder, wanted["audio"], wanted["lengths"], "legacy")
        seen = ~wanted["frame_padding"]
        if load(folder)[0] in ("hubert", "wavlm") and (np.asarray(out["valid"]) != seen).any():
            pytest.skip(
                "fairseq's HuBERT and WavLM count padded frames by chunks of samples, transformers by convolutions"
            )
        np.testing.assert_array_equal(out["valid"], seen)
        np.testing.assert_allclose(np.asarray(x)[seen], wanted["last_hidden_state"][seen], **TOLERANCE)


@parametrize(of_family("emotion2vec"))
@pytest.mark.slow
def test_emotion2vec_with_extra_tokens_and_padded(folder):
    wanted = np.load(folder / "features.npz")
    tokens = features(folder, wanted["audio"])[1]["with_extra_tokens"]
    np.testing.assert_allclose(tokens, wanted["with_extra_tokens"], **TOLERANCE)
    x, out = features(folder, wanted["audio_padded"], wanted["lengths"], "legacy")
    seen = ~wanted["padded_frames"]
    np.testing.assert_array_equal(out["valid"], seen)
    np.testing.assert_allclose(np.asarray(x)[seen], wanted["padded_last_hidden_state"][seen], **TOLERANCE)


@parametrize(of_family("hubert"))
def test_hubert_scores_of_classes(folder):
    """The cross-entropy of the scores at the masked frames is the reference's loss before any update."""
    wanted = np.load(folder / "trajectory.npz")
    _, config, params = load(folder)
    masked = wanted["s0_mask"]
    m = masked.sum(1).max()
    index = np.argsort(~masked, axis=1, kind="stable")[:, :m]
    real = np.arange(m)[None] < masked.sum(1)[:, None]

    @functools.partial(jax.jit, compiler_options=parity.QUICK)
    def scores(params, audio):
        lengths = jnp.full(audio.shape[:1], audio.shape[1])
        module = hubert.PreTraining(config)
        return module.apply({"params": params}, audio, lengths, jnp.asarray(index), jnp.asarray(real), None)["logits"]

    with jax.default_matmul_precision("highest"):
        logits = scores(params, wanted["s0_audio"])
    own = np.take_along_axis(wanted["s0_targets"], index, 1)[..., None]
    loss = -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), own, -1)[..., 0]
    np.testing.assert_allclose((loss * real).sum(), wanted["s0_masked_loss_sum"], rtol=1e-5)
    correct = (np.asarray(logits).argmax(-1)[..., None] == own)[..., 0] & real
    assert correct.sum() == wanted["s0_correct"]
