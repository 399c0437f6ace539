"""Devices and accumulation only distribute loss groups: same loss, gradients, parameters, examples and masks."""

import contextlib
import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_config

from voc2vec_jax import audio as audio_files
from voc2vec_jax import datasets
from voc2vec_jax.models import wav2vec2
from voc2vec_jax.ops import optim
from voc2vec_jax.pretraining import batch_layout
from voc2vec_jax.pretraining import data as pretraining_data
from voc2vec_jax.pretraining import reader as pretraining_reader
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.pretraining import step as training_step
from voc2vec_jax.runs import sharding

# Eight groups of two rows of a second or of four rows of half a second; two in a row share their length
LAYOUT = batch_layout.BatchLayout(8, 2, 16_000, (8_000, 16_000), same_length_groups=2)
CONFIG = tiny_config.get_config()
FAMILY, MODEL = pretraining_recipe.build_model(CONFIG)
EMA_DECAY = 0.75
SCHEDULE = optim.linear_schedule(1e-3, 10, 0.0)
ADAM = optim.fairseq_adam(SCHEDULE, b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.01, clip_norm=0.0)
ONE_DEVICE = sharding.make_mesh(1, jax.devices()[:1])
STEPS = 3
# (devices, fsdp, micro-batches, what the backward pass computes again)
WAYS = {
    "one": (1, 1, 8, "none"),
    "two at once": (1, 1, 4, "none"),
    "eight": (8, 1, 1, "none"),
    "fsdp over eight": (8, 8, 1, "none"),
    "fsdp and accumulate": (4, 2, 2, "none"),
    "fsdp, two at once": (4, 2, 1, "none"),
    "blocks computed again": (1, 1, 8, "layer"),
}


def batch_of(seed):
    """Groups of both lengths as flat arrays [g, ...]."""
    rng = np.random.default_rng(seed)
    bucket = np.repeat(rng.permutation([0, 0, 1, 1]), 2).astype(np.int32)
    audio, lengths = np.zeros((8, LAYOUT.buffer_samples), np.int16), np.zeros((8, LAYOUT.most_rows), np.int32)
    for g, b in enumerate(bucket.tolist()):
        rows, samples = LAYOUT.group_rows_of(b), LAYOUT.bucket_samples[b]
        lengths[g, :rows] = rng.integers(MODEL.min_samples, samples + 1, rows)
        clips = rng.normal(0, 3000, (rows, samples)).astype(np.int16)
        audio[g] = np.where(np.arange(samples) < lengths[g, :rows, None], clips, 0).ravel()
    return {"audio": audio, "lengths": lengths, "bucket": bucket}


def on_devices(batch, mesh, micros):
    placed = {name: x.reshape(mesh.size, micros, -1, *x.shape[1:]) for name, x in batch.items()}
    return jax.device_put(placed, sharding.over_batch(mesh, 0))


@functools.cache
def run(way):
    """Logged rows, the first step's gradient (Adam's first moment holds it), and the parameters with their average
    before the first and after every step."""
    devices, fsdp, micros, remat = WAYS[way]
    model = dataclasses.replace(MODEL, encoder=dataclasses.replace(MODEL.encoder, remat=remat))
    mesh = sharding.make_mesh(fsdp, jax.devices()[:devices])
    rules = [(pattern, None if axis < 0 else axis) for pattern, axis in CONFIG.sharding_rules]
    init = functools.partial(training_step.init_state, FAMILY, MODEL, ADAM, 0, ema=True)
    places = sharding.shard_tree(jax.eval_shape(init), mesh, rules)
    state = jax.jit(init, out_shardings=places)()
    options = {"seed": 7, "equal_masks": False, "ema_decay": EMA_DECAY}
    step = training_step.make_update(FAMILY, model, ADAM, SCHEDULE, LAYOUT, mesh, rules, **options)
    step = jax.jit(step, donate_argnums=0, out_shardings=(places, sharding.replicated(mesh)))
    rows, gradient, states = [], None, [kept(state)]
    for k in range(STEPS):
        state, row = step(state, on_devices(batch_of(k), mesh, micros))
        rows.append(jax.device_get(row))
        states.append(kept(state))
        gradient = jax.device_get(state["opt_state"][0].mu) if k == 0 else gradient
    return rows, gradient, states


def kept(state):
    """What a test looks at of a state, on the host."""
    return jax.device_get({"params": state["params"], "ema": training_step.averaged(state)})


# "fsdp and accumulate" has most in one
SLOW_WAYS = ("eight", "two at once", "fsdp over eight", "fsdp, two at once", "blocks computed again")


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=[pytest.mark.slow] * (way in SLOW_WAYS)) for way in WAYS if way != "one"]
)
def test_devices_and_accumulation_change_nothing(way):
    rows, gradient, states = run(way)
    wanted_rows, wanted_gradient, wanted = run("one")
    for row, wanted_row in zip(rows, wanted_rows):
        assert row["loss"] == pytest.approx(wanted_row["loss"], rel=1e-5)
        assert row["masked_frames"] == wanted_row["masked_frames"]
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(wanted_gradient)):
        norm = np.linalg.norm(b)
        # the bias of the keys has no gradient but rounding
        assert np.linalg.norm(a - b) <= (1e-6 if norm < 1e-5 else 1e-5 * norm), path
    for a, b in zip(*map(jax.tree.leaves, (states[-1], wanted[-1]))):
        assert np.abs(a - b).max() <= 1e-5


def test_the_moving_average_begins_at_the_parameters_and_follows_them():
    states = run("one")[2]
    average = states[0]["params"]
    for state in states:
        average = jax.tree.map(lambda a, x: EMA_DECAY * a + (1 - EMA_DECAY) * x, average, state["params"])
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), state["ema"], average)
    moved = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (states[-1]["ema"], states[-1]["params"])))]
    assert max(moved) > 1e-4


@pytest.mark.slow
def test_a_run_may_begin_to_average_later():
    """The state of a run without an average, given one, is updated as if nothing else had changed."""
    config = tiny_config.get_config()
    config.batch_seconds, config.same_length_groups = 16.0, 2
    assert pretraining_recipe.batch_layout(config, 8) == LAYOUT
    plain = training_step.on_mesh(config, FAMILY, MODEL, ONE_DEVICE)
    config.ema_decay = 0.5
    averaging = training_step.on_mesh(config, FAMILY, MODEL, ONE_DEVICE)
    batch = on_devices(batch_of(0), ONE_DEVICE, 4)
    first, _ = plain.update(plain.init(), batch)
    begun = averaging.begin_average(first)
    before = jax.device_get(begun["params"])
    second, _ = averaging.update(begun, batch)
    first, _ = plain.update(plain.init(), batch)
    wanted, _ = plain.update(first, batch)
    middle = jax.tree.map(lambda a, b: (a + b) / 2, before, jax.device_get(wanted["params"]))
    near = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)  # another program rounds otherwise
    jax.tree.map(near, second["params"], wanted["params"])
    jax.tree.map(near, second["ema"], middle)
    assert jax.tree.structure(second) == jax.tree.structure(averaging.state)


@pytest.mark.slow
def test_an_update_of_several_lengths_is_the_sum_of_its_groups():
    batch, params = batch_of(0), FAMILY.init_params(MODEL, jax.random.key(0))
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(7), training_step.TRAIN), 0)
    loss = weight = 0.0
    for g, b in enumerate(batch["bucket"].tolist()):
        rows, samples = ((4, 8_000), (2, 16_000))[b]
        alone = {"audio": batch["audio"][g].reshape(1, rows, samples), "lengths": batch["lengths"][g : g + 1, :rows]}
        keys = training_step.noise(key, jnp.arange(g, g + 1), rows, 4)
        options = {"train": True, "equal_masks": False}
        alone = jax.tree.map(jnp.asarray, alone)
        found, sums = training_step.loss_sums(FAMILY, MODEL, params, alone, keys, jnp.zeros([], jnp.int32), **options)
        loss, weight = loss + float(found), weight + float(sums["weight"])
    row = run("one")[0][0]
    assert row["loss"] == pytest.approx(loss / weight / np.log(2), rel=1e-5)
    assert row["audio_seconds"] == pytest.approx(batch["lengths"].sum() / audio_files.RATE_HZ)


@pytest.mark.slow
def test_groups_are_not_merged_into_one_batch():
    """The same rows as one loss group have another loss: splitting a group is not exact."""
    rng = np.random.default_rng(0)
    audio = rng.normal(0, 3000, (8, 16_000)).astype(np.int16)
    params = FAMILY.init_params(MODEL, jax.random.key(0))
    sums = []
    for groups in (1, 8):
        layout = batch_layout.BatchLayout(groups, 16 // groups, 8_000, (8_000,))
        batch = {"audio": audio, "lengths": np.full(16, 8_000, np.int32), "index": np.arange(16, dtype=np.int32)}
        batch = {name: x.reshape(groups, -1) for name, x in batch.items()} | {"bucket": np.zeros(groups, np.int32)}
        evaluate = jax.jit(training_step.make_evaluate(FAMILY, MODEL, layout, ONE_DEVICE, seed=7, equal_masks=False))
        sums.append(evaluate(params, on_devices(batch, ONE_DEVICE, 1)))
    whole, parts = sums
    assert whole["weight"] == parts["weight"]
    assert whole["contrastive"] == pytest.approx(float(parts["contrastive"]), rel=1e-5)
    assert abs(float(whole["prob_perplexity"] / parts["prob_perplexity"]) - 1) > 1e-3


def test_noise_of_a_row_knows_neither_devices_nor_accumulation():
    key = jax.random.key(0)
    whole = training_step.noise(key, jnp.arange(4), 3)
    part = training_step.noise(key, jnp.asarray([1, 3]), 3)
    data = lambda keys: np.asarray(jax.random.key_data(keys)).reshape(-1, 3, 2)  # noqa: E731
    assert np.array_equal(data(whole.rows)[[1, 3]], data(part.rows))
    assert np.array_equal(data(whole.groups)[[1, 3]], data(part.groups))
    assert len({tuple(k) for k in data(whole.rows).reshape(-1, 2)}) == 12
    assert len({tuple(k) for k in data(whole.groups).reshape(-1, 2)}) == 4
    assert not {tuple(k) for k in data(whole.rows).reshape(-1, 2)} & {
        tuple(k) for k in data(whole.groups).reshape(-1, 2)
    }


def test_rows_of_groups_of_different_lengths_share_no_noise():
    key, numbers = jax.random.key(0), [jnp.asarray([g]) for g in range(4)]
    keys = [training_step.noise(key, g, rows, 4).rows for g, rows in zip(numbers, (4, 1, 2, 4))]
    assert len({tuple(k) for k in np.concatenate(list(map(jax.random.key_data, keys)))}) == 4 + 1 + 2 + 4


def test_crop_batching_masks_equally_within_a_group():
    key = jax.random.split(jax.random.key(0), 4)
    frames = jnp.asarray([[40, 40], [60, 60]])
    noise = wav2vec2.encoders.Noise(key, key)
    draws = wav2vec2.draw(MODEL, noise, frames, 60, train=True, equal_masks=True)
    counts = draws.masked_valid.sum(1).reshape(2, 2)
    assert counts[0, 0] == counts[0, 1]
    assert counts[1, 0] == counts[1, 1]
    assert counts[0, 0] != counts[1, 0]


def batches_on(mesh, config, micros):
    layout = pretraining_recipe.batch_layout(config, 4)
    examples = pretraining_data.open_examples(config, layout, MODEL.min_samples)
    return pretraining_data.DeviceBatches(config, examples, None, mesh, micros)


@pytest.mark.parametrize("source", ["stream", "resident"])
def test_the_same_examples_on_every_mesh(source, tmp_path):
    datasets.prepare("synthetic", data_dir=tmp_path, clips=60, progress=False)
    config = tiny_config.get_config()
    config.data_dir, config.input, config.same_length_groups = str(tmp_path), source, 2
    config.crop_samples, config.bucket_samples = 48_000, (24_000, 48_000)
    seen = []
    for devices, micros in ((1, 4), (1, 2), (2, 2), (4, 1)):
        mesh = sharding.make_mesh(1, jax.devices()[:devices])
        with batches_on(mesh, config, micros).train(1, 6) as batches:
            seen.append([jax.device_get(batch) for batch in batches])
    for other in seen[1:]:
        for batch, wanted in zip(other, seen[0], strict=True):
            assert batch.keys() == wanted.keys() == {"audio", "lengths", "index", "bucket"}
            for name, a in batch.items():
                assert np.array_equal(a.reshape(4, -1), wanted[name].reshape(4, -1)), "groups are in order"
    assert any(len(np.unique(batch["bucket"])) == 2 for batch in seen[0]), "lengths are mixed"


def test_a_validation_starts_no_reading_processes(tmp_path, monkeypatch):
    datasets.prepare("synthetic", data_dir=tmp_path, clips=40, progress=False)
    config = tiny_config.get_config()
    config.data_dir, config.workers = str(tmp_path), 2
    asked = []

    def read_batches(*steps, workers, **options):
        asked.append(workers)
        return contextlib.nullcontext([])

    monkeypatch.setattr(pretraining_reader, "read_batches", read_batches)
    batches = batches_on(ONE_DEVICE, config, 4)
    for source in (batches.train(0, 3), batches.valid()):
        with source as found:
            assert list(found) == []
    assert asked == [2, 0]


def draws_of_rows():
    """A family whose sums tell which number each row draws, times the row's length; its loss is the parameter w."""

    def loss_fn(model, params, batch, keys, step, *, train, equal_masks):
        drawn = [jax.vmap(jax.random.uniform)(one) for one in (keys.rows, keys.groups)]
        sums = {name: (x * batch["lengths"].reshape(-1)).sum() for name, x in zip(("rows", "groups"), drawn)}
        weight = (batch["lengths"] > 0).sum().astype(jnp.float32)
        loss = weight * params.get("w", 0)
        return loss, weight, {**sums, "loss": loss, "step": step.astype(jnp.float32) * weight}

    family = types.ModuleType("draws")
    family.loss_fn, family.summary, family.schedules = loss_fn, lambda sums: sums, lambda model, step: {}
    return family


def test_a_step_draws_by_seed_step_and_row_and_its_gradient_is_a_mean_over_all_groups():
    layout = batch_layout.BatchLayout(4, 2, 8, (8,))
    plain = optax.sgd(0.1)
    options = {"seed": 3, "equal_masks": False, "ema_decay": 0.75}
    update = training_step.make_update(draws_of_rows(), MODEL, plain, lambda step: 0.1, layout, ONE_DEVICE, **options)
    update = jax.jit(update)

    @jax.jit
    def drawn(number):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), training_step.TRAIN), number)
        noise = training_step.noise(key, jnp.arange(4), 2)
        return {name: jax.vmap(jax.random.uniform)(getattr(noise, name)) for name in ("rows", "groups")}

    state, lengths = training_step.start_state(plain, {"w": jnp.float32(1)}, ema=True), np.arange(8, dtype=np.int32)
    batch = {"audio": np.zeros((4, 16), np.int16), "bucket": np.zeros(4, np.int32), "lengths": lengths.reshape(4, 2)}
    for number in range(2):
        before, (state, row) = state, update(state, on_devices(batch, ONE_DEVICE, 2))
        for name, value in drawn(number).items():
            assert float(row[name]) == pytest.approx(np.dot(value, lengths), rel=1e-5)
        assert float(row["step"]) == 7 * number and float(row["grad_norm"]) == pytest.approx(1, rel=1e-6)
        assert float(row["audio_seconds"]) == pytest.approx(28 / 16_000)
        assert float(state["params"]["w"]) == pytest.approx(float(before["params"]["w"]) - 0.1, rel=1e-6)
        wanted = 0.75 * float(before["ema"]["w"]) + 0.25 * float(state["params"]["w"])
        assert float(training_step.averaged(state)["w"]) == pytest.approx(wanted, rel=1e-6)


def test_masks_of_validation_come_from_the_clips_number_and_not_from_its_place():
    layout = batch_layout.BatchLayout(2, 2, 8, (8,))
    evaluate = jax.jit(
        training_step.make_evaluate(draws_of_rows(), MODEL, layout, ONE_DEVICE, seed=3, equal_masks=False)
    )

    def sums(index, lengths):
        batch = {"audio": np.zeros((2, 16), np.int16), "bucket": np.zeros(2, np.int32)}
        batch |= {"index": np.reshape(index, (2, 2)), "lengths": np.reshape(lengths, (2, 2)).astype(np.int32)}
        return {name: float(x) for name, x in evaluate({}, on_devices(batch, ONE_DEVICE, 2)).items()}

    key = jax.random.fold_in(jax.random.key(3), training_step.VALIDATION)
    drawn = [float(jax.random.uniform(jax.random.fold_in(key, index))) for index in (9, 4, 7, 2)]
    wanted = np.dot(drawn, [1, 2, 4, 8])
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        found = sums(np.array([9, 4, 7, 2])[order], np.array([1, 2, 4, 8])[order])
        assert found["rows"] == found["groups"] == pytest.approx(wanted, rel=1e-6)
    assert sums([9, 4, 7, 3], [1, 2, 4, 8])["rows"] != pytest.approx(wanted, rel=1e-3)


@pytest.mark.slow
def test_validation_is_the_same_on_every_mesh(tmp_path):
    """The same masks for the same clips, whatever they are batched with: only rounding may differ."""
    datasets.prepare("synthetic", data_dir=tmp_path, clips=40, progress=False)
    config = tiny_config.get_config()
    config.data_dir, config.valid_share, config.same_length_groups = str(tmp_path), 0.5, 2
    config.crop_samples, config.bucket_samples = 48_000, (24_000, 48_000)
    params = jax.jit(FAMILY.init_params, static_argnums=0)(MODEL, jax.random.key(0))
    found = []
    for devices, micros in ((1, 2), (4, 1)):
        mesh = sharding.make_mesh(1, jax.devices()[:devices])
        layout = pretraining_recipe.batch_layout(config, 4)
        evaluate = jax.jit(training_step.make_evaluate(FAMILY, MODEL, layout, mesh, seed=0, equal_masks=False))
        placed = jax.device_put(params, sharding.replicated(mesh))
        with batches_on(mesh, config, micros).valid() as batches:
            sums = [jax.device_get(evaluate(placed, batch)) for batch in batches]
        found.append({name: sum(float(x[name]) for x in sums) for name in sums[0]})
    for name in found[0]:
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-5), name
