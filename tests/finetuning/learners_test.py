"""What a learner trains on and how its loss counts: waveforms changed in training only, mixup, equal clips apart."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_learners

from voc2vec_jax.datasets import resident
from voc2vec_jax.finetuning import learners
from voc2vec_jax.ops import augmentation

SAMPLES = 2400
PARTS = ((4, SAMPLES), (2, SAMPLES))
FOLD = {"class_weights": jnp.array([1.0, 4.0, 0.5])}
ROWS = jnp.array([3, 0, 5, 1, 2, -1])
WAVEFORM = augmentation.Waveform(speed=0.2, gain=6.0)


@pytest.fixture(scope="module")
def data():
    clips = tiny_learners.Clips(8)
    kept = resident.Resident(clips, np.arange(8))
    found = {"block_start": kept.block_start, "samples": clips.samples, "labels": clips.labels}
    return {"blocks": kept.blocks, **jax.device_put(found)}


def read(learner, data, rows, key):
    """What the first sub-batch of a training step sees."""
    keys = key, key, jax.vmap(lambda row: jax.random.fold_in(key, row))(learners._told_apart(rows, 8))
    return learner._input(data, rows, SAMPLES, keys)


def test_clips_change_in_training_only_and_lengths_follow(data):
    learner = tiny_learners.tiny_learner(PARTS, waveform=WAVEFORM)
    key, rows = jax.random.key(0), jnp.arange(8)
    audio, lengths, seen, mixed = jax.jit(functools.partial(read, learner))(data, rows, key)
    plain, before, _, _ = jax.jit(lambda: learner._input(data, rows, SAMPLES, None))()
    np.testing.assert_array_equal(before, data["samples"])
    factors = np.asarray(before) / np.asarray(lengths)
    assert 0.75 < factors.min() < 0.95 and 1.05 < factors.max() < 1.25 and mixed is None
    np.testing.assert_array_equal(seen, lengths)
    for row, length in zip(np.asarray(audio), lengths):  # normalised over the new length
        assert not row[length:].any() and np.square(row[:length]).mean() == pytest.approx(1, abs=1e-3)
    again = jax.jit(functools.partial(read, learner))(data, rows[::-1], key)[0]
    np.testing.assert_allclose(again[::-1], audio, atol=1e-5)
    assert np.abs(np.asarray(audio - plain)).max() > 0.1


@pytest.mark.slow
def test_mixup_weighs_two_labels_by_lambda_and_by_class(data):
    learner = tiny_learners.tiny_learner(PARTS, mixup=0.5)
    key, params = jax.random.key(4), learner.init(jax.random.key(0))
    forward = jax.jit(lambda: learner._forward(params, data, ROWS, key))
    logits, _, mixed = forward()
    partner, share = np.asarray(mixed.partner), np.asarray(mixed.share)
    # Pairs stay within their sub-batch, and the clip beside an empty row stays as it is.
    assert sorted(partner[:4]) == sorted(ROWS[:4].tolist()) and set(partner[4:]) <= {-1, 2}
    assert share[4] == 1 and 0 < share[:4].min() < 1
    logs, total, weight = np.asarray(jax.nn.log_softmax(logits)), 0.0, 0.0
    for row, (own, other, part) in enumerate(zip(np.asarray(ROWS), partner, share)):
        for clip, value in ((own, part), (other, 1 - part)):
            if own >= 0 and value:
                label = int(data["labels"][clip])
                total -= value * FOLD["class_weights"][label] * logs[row, label]
                weight += value * FOLD["class_weights"][label]
    found = jax.jit(lambda: learner.loss(params, FOLD, data, ROWS, key))()
    np.testing.assert_allclose(found, (total, weight), rtol=1e-4)


@pytest.mark.slow
def test_without_changes_the_loss_is_of_the_clips_alone(data):
    learner = tiny_learners.tiny_learner(PARTS)
    params = learner.init(jax.random.key(0))
    _, weight = jax.jit(lambda: learner.loss(params, FOLD, data, ROWS, jax.random.key(1)))()
    own = np.asarray(ROWS)[:5]
    np.testing.assert_allclose(weight, FOLD["class_weights"][data["labels"][own]].sum(), rtol=1e-6)


def test_copies_of_a_clip_in_a_batch_draw_apart():
    found = np.asarray(learners._told_apart(jnp.array([2, 0, 2, 1, 2, -1, -1]), 10))
    assert found[:4].tolist() == [3, 1, 13, 2] and len(set(found[:5].tolist())) == 5
