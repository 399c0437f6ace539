"""transformers' objective of wav2vec 2.0 against ours on an exported run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

import voc2vec_jax as v2v
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.models import wav2vec2


@functools.partial(jax.jit, static_argnums=0)
def drawn_objective(config, params, audio, noise):
    """Masks and negatives, and under them our contrastive sum and hard code perplexity, and the masked frames."""
    b, s = audio.shape
    t = config.encoder.frames(s)
    draws = wav2vec2.draw(config, noise, jnp.full((1, b), t), t, train=False, equal_masks=False)
    batch = {"audio": audio[None], "lengths": jnp.full((1, b), s)}
    step = jnp.zeros([], jnp.int32)
    _, weight, sums = wav2vec2.loss_fn(config, params, batch, noise, step, train=False, draws=draws)
    return draws, sums["contrastive"], sums["code_perplexity"] / weight, weight


def assert_same_objective(run, folder):
    """Contrastive term and diversity of hard codes, in eval mode, given the same masks and negatives."""
    model = v2v.from_pretrained(run)
    model.save_pretrained(folder)
    theirs, info = transformers.Wav2Vec2ForPreTraining.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]

    rows, samples, config = 3, 16_000, model.config
    t, total = config.encoder.frames(samples), config.codebook_groups * config.codebook_entries
    audio = 0.1 * np.random.default_rng(0).normal(size=(rows, samples)).astype(np.float32)
    keys = jax.random.split(jax.random.key(1), rows)
    noise = encoders.Noise(keys, keys)
    draws, contrastive, perplexity, weight = drawn_objective(config, model.checkpoint.params, audio, noise)
    masked = np.zeros((rows, t), bool)
    sampled = np.zeros((rows, t, config.negatives), np.int64)  # positions in the whole batch, for masked frames
    for row in range(rows):
        index = np.asarray(draws.index[row])[np.asarray(draws.masked_valid[row])]
        masked[row, index] = True
        sampled[row, index] = row * t + index[np.asarray(draws.negatives[row, : len(index)])]
    with torch.no_grad():
        out = theirs.eval()(
            torch.tensor(audio),
            mask_time_indices=torch.tensor(masked),
            sampled_negative_indices=torch.tensor(sampled),
        )
    assert len(set(masked.sum(1).tolist())) > 1 and int(weight) == masked.sum()
    diversity = (total - perplexity) / total * weight
    np.testing.assert_allclose(contrastive, out.contrastive_loss.item(), rtol=1e-4)
    np.testing.assert_allclose(perplexity, out.codevector_perplexity.item(), rtol=1e-4)
    np.testing.assert_allclose(diversity, out.diversity_loss.item(), rtol=1e-4)
    assert theirs.config.diversity_loss_weight == config.diversity_weight
    whole = contrastive + config.diversity_weight * diversity
    np.testing.assert_allclose(whole / weight, out.loss.item() / int(weight), rtol=0, atol=1e-4)
