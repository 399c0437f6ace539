"""HuBERT's objective and recipes: sizes, what counts and what does not, masks, signs of a degenerate run."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_hubert_config

from voc2vec_jax import errors
from voc2vec_jax.models import encoder, hubert
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.pretraining.units import store as unit_store
from voc2vec_jax.runs import configuration

CONFIG = pretraining_recipe.build_model(tiny_hubert_config.get_config())[1]
QUIET = dataclasses.replace(CONFIG, encoder=dataclasses.replace(CONFIG.encoder, layerdrop=0.0, dropout=0.0))
SAMPLES = 16_000
FRAMES = CONFIG.encoder.frames(SAMPLES)


@functools.cache
def params_of(config):
    return jax.jit(hubert.init_params, static_argnums=0)(config, jax.random.key(1))


def batch_of(lengths, seed=0):
    """One loss group of noise with random units, zero-padded."""
    rng = np.random.default_rng(seed)
    audio = rng.normal(0, 0.1, (1, len(lengths), SAMPLES)) * (np.arange(SAMPLES) < np.array(lengths)[:, None])
    classes = rng.integers(unit_store.FIRST_CLASS, CONFIG.classes, (1, len(lengths), FRAMES))
    return {
        "audio": jnp.asarray(audio, jnp.float32),
        "lengths": jnp.asarray([lengths], jnp.int32),
        "units": jnp.asarray(classes, jnp.int32),
    }


def keys_of(rows):
    keys = jax.random.split(jax.random.key(3), rows)
    return encoder.Noise(keys, jnp.repeat(keys[:1], rows))


@functools.partial(jax.jit, static_argnums=0, static_argnames=("train", "equal_masks"))
def loss_of(config, params, batch, keys, *, train=False, equal_masks=False):
    return hubert.loss_fn(config, params, batch, keys, jnp.asarray(0), train=train, equal_masks=equal_masks)


def test_parameter_count_of_base():
    shapes = jax.eval_shape(lambda: hubert.init_params(hubert.Config(), jax.random.key(0)))
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(shapes)) == 94_697_600
    assert hubert.Config().min_samples == 4240


@pytest.mark.slow
def test_frames_without_a_unit_and_empty_rows_count_nothing():
    batch, keys = batch_of([SAMPLES, 12_000]), keys_of(2)
    loss, weight, sums = loss_of(CONFIG, params_of(CONFIG), batch, keys)
    frames = CONFIG.encoder.frames(jnp.asarray([[SAMPLES, 12_000]]))
    draws = hubert.draw(CONFIG, keys, frames, FRAMES, equal_masks=False)
    assert weight == draws.masked_valid.sum() == sums["unit_counts"].sum()
    # the first row's units are unknown from frame 20 on
    fewer = {**batch, "units": batch["units"].at[0, 0, 20:].set(-1)}
    _, less, _ = loss_of(CONFIG, params_of(CONFIG), fewer, keys)
    assert less == weight - (draws.masked_valid[0] & (draws.index[0] >= 20)).sum()
    # a row of length 0
    empty = {
        "audio": jnp.concatenate([batch["audio"], jnp.full((1, 1, SAMPLES), 0.3)], 1),
        "lengths": jnp.asarray([[SAMPLES, 12_000, 0]]),
        "units": jnp.concatenate([batch["units"], jnp.full((1, 1, FRAMES), 5)], 1),
    }
    more = encoder.Noise(jnp.concatenate([keys.rows, keys.rows[:1]]), jnp.concatenate([keys.groups, keys.groups[:1]]))
    loss_more, weight_more, sums_more = loss_of(CONFIG, params_of(CONFIG), empty, more)
    assert weight_more == weight
    assert loss_more == pytest.approx(float(loss), rel=1e-5)
    assert np.array_equal(sums_more["unit_counts"], sums["unit_counts"])


def test_only_masked_frames_are_predicted_and_from_their_context():
    """Another unit at a frame that is not masked changes nothing; at a masked one it does."""
    batch, keys = batch_of([SAMPLES]), keys_of(1)
    draws = hubert.draw(CONFIG, keys, jnp.asarray([[FRAMES]]), FRAMES, equal_masks=False)
    masked = set(np.asarray(draws.index)[np.asarray(draws.masked_valid)].tolist())
    wanted, _, _ = loss_of(CONFIG, params_of(CONFIG), batch, keys)
    for frame, changes in ((min(set(range(FRAMES)) - masked), False), (min(masked), True)):
        other = (batch["units"][0, 0, frame] - unit_store.FIRST_CLASS + 1) % 8 + unit_store.FIRST_CLASS
        found, _, _ = loss_of(
            CONFIG, params_of(CONFIG), {**batch, "units": batch["units"].at[0, 0, frame].set(other)}, keys
        )
        assert (abs(float(found - wanted)) > 1e-4) == changes


def test_equal_masks_trims_a_group_to_its_smallest_count():
    frames = jnp.asarray([[40, 40, 0], [49, 49, 49]])
    draws = hubert.draw(CONFIG, keys_of(6), frames, 49, equal_masks=True)
    counts = np.asarray(draws.masked_valid.sum(1)).reshape(2, 3)
    assert counts[0, 0] == counts[0, 1] > 0 == counts[0, 2]
    assert len(set(counts[1])) == 1


def test_the_encoders_noise_is_not_that_of_the_masks():
    """Dropout changes the loss in training, and the masks stay those of validation."""
    batch, keys = batch_of([SAMPLES, SAMPLES]), keys_of(2)
    _, weight, sums = loss_of(CONFIG, params_of(CONFIG), batch, keys)
    _, weight_train, sums_train = loss_of(CONFIG, params_of(CONFIG), batch, keys, train=True)
    assert weight == weight_train
    assert np.array_equal(sums["unit_counts"], sums_train["unit_counts"])
    assert abs(float(sums["masked_loss"] - sums_train["masked_loss"])) > 1e-3


def test_what_is_logged_is_what_a_constant_guess_is_measured_by():
    counts = jnp.asarray([0.0, 6.0, 2.0, 0.0])
    sums = dict.fromkeys(("loss", "masked_loss", "feature_penalty"), jnp.asarray(8 * math.log(2)))
    sums |= {"correct": jnp.asarray(4.0), "unit_counts": counts, "weight": jnp.asarray(8.0)}
    row = hubert.summary({**sums, "predicted_counts": jnp.asarray([8.0, 0, 0, 0])})
    assert float(row["loss"]) == pytest.approx(1.0)
    assert (float(row["accuracy"]), float(row["commonest_unit"])) == (0.5, 0.75)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert float(row["unit_perplexity"]) == pytest.approx(math.exp(entropy), rel=1e-5)
    assert float(row["predicted_perplexity"]) == pytest.approx(1.0, rel=1e-5)


HEALTHY = {"masked_frames": 900.0, "unit_perplexity": 40.0, "accuracy": 0.4, "masked_loss": 3.0}


@pytest.mark.parametrize(
    "change, sign",
    [
        ({}, None),
        ({"masked_frames": 0.0}, "no frame"),
        ({"unit_perplexity": 1.1}, "the same unit"),
        ({"accuracy": 0.999, "masked_loss": 0.01}, "trivial"),
    ],
)
def test_signs_of_a_degenerate_run(change, sign):
    found = hubert.collapse_signs(CONFIG, HEALTHY | change)
    assert found == [] if sign is None else sign in " ".join(found)


RECIPE = "configs/voc125_hubert.py"


@pytest.fixture
def at_the_root(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


@pytest.mark.parametrize(
    "argument, name, classes, rate, steps",
    [("", "mfcc100", 104, 100.0, 250_000), (":second", "layer6_500", 504, 50.0, 400_000)],
)
def test_the_recipe_of_both_iterations(at_the_root, argument, name, classes, rate, steps):
    config = configuration.load(RECIPE + argument)
    pretraining_recipe.check(config)
    family, model = pretraining_recipe.build_model(config)
    assert family is hubert
    assert model == dataclasses.replace(hubert.Config(), classes=classes, label_rate_hz=rate)
    assert (config.units, config.total_steps, config.warmup_share * steps) == (name, steps, 32_000)
    assert (config.clip_norm, model.mask_share, config.peak_lr, len(config.sets)) == (10.0, 0.8, 5e-4, 10)
    assert pretraining_recipe.loss_groups(config, 1) == (32, 32)


def test_arguments_of_the_recipe(at_the_root):
    config = configuration.load(f"{RECIPE}:second,ls=some/model,tiny")
    assert (config.units, config.init_from, config.total_steps) == ("layer6_500", "some/model", 600)
    assert pretraining_recipe.build_model(config)[1].encoder.width == 64
    with pytest.raises(errors.InputError, match="'third' is none of first, second, ls=SRC, one_gpu, two_gpus, small"):
        configuration.load(f"{RECIPE}:third")
    other = configuration.load("configs/voc125.py")
    configuration.override(other, "family", "hubert")
    with pytest.raises(errors.InputError, match="family 'hubert' has no codebook_entries"):
        pretraining_recipe.build_model(other)
