"""Batches of a fold, and folds side by side: what a fold computes does not depend on its neighbours."""

import dataclasses
import functools

import collectives
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_learners
import tiny_whisper

from voc2vec_jax import models
from voc2vec_jax.convert import names
from voc2vec_jax.datasets import resident
from voc2vec_jax.finetuning import adaptation, learners, settings
from voc2vec_jax.finetuning import batches as fold_batches
from voc2vec_jax.finetuning import engine as fold_engine
from voc2vec_jax.models import heads, lora, whisper
from voc2vec_jax.ops import augmentation


def run_folds(folds, slots, axis, devices, recipe=None, parts=((4, 2400),), make=tiny_learners.tiny_learner, **options):
    """Logits on all clips after one epoch of each fold, whatever the number of slots."""
    clips = tiny_learners.Clips(18)
    learner = make(parts, **options)
    recipe = recipe or tiny_learners.recipe(batch_clips=4, warmup_steps=2, peak_lr=1e-2, epochs=3)
    engine = fold_engine.Engine(learner, recipe, slots, axis, jax.devices()[:devices])
    kept = resident.Resident(clips, np.arange(len(clips)))
    data = {"blocks": kept.blocks, "block_start": kept.block_start, "samples": clips.samples, "labels": clips.labels}
    whole = jax.jit(tiny_learners.tiny_learner(parts).init)(jax.random.key(9))
    data["frozen"] = adaptation.only(whole, learner.adapt.frozen)
    data = jax.device_put(data, engine.replicated)
    start = jax.jit(functools.partial(fold_engine.start, learner, recipe), out_shardings=engine.replicated)
    rng = np.random.default_rng(1)
    rows = {fold: np.sort(rng.permutation(18)[: 12 + fold % 3]) for fold in sorted(folds)}
    found = {}
    for first in range(0, len(folds), slots):
        now = [*folds[first : first + slots], *[None] * (slots - len(folds[first : first + slots]))]
        state = engine.empty(jax.eval_shape(start, 0))
        for slot, fold in enumerate(now):
            if fold is not None:
                state = engine.place(state, jnp.int32(slot), start(fold))
        own = {
            "number": np.array([fold or 0 for fold in now], np.int32),
            "total_steps": np.array([12] * slots, np.int32),
            "class_weights": np.tile(np.array([1.0, 2.0, 0.5], np.float32), (slots, 1)),
        }
        own = engine.put(own)
        nothing = np.zeros(0, np.int64)
        planned = [
            fold_batches.batches(
                nothing if fold is None else rows[fold], clips.samples, 4, stratified=True, key=(0, fold or 0, 0)
            )
            for fold in now
        ]
        for call in fold_batches.chunks(planned, 2):
            state, _ = engine.train(state, own, engine.put(call), data)
        every = fold_batches.batches(np.arange(18), clips.samples, 4, stratified=True, key=None)
        filled = np.stack([every if fold is not None else np.full_like(every, fold_batches.EMPTY) for fold in now])
        logits, _ = jax.device_get(engine.outputs(state.params, own, engine.put(filled), data))
        for slot, fold in enumerate(now):
            if fold is not None:
                found[fold] = fold_batches.by_row(every, logits[slot], np.arange(18))
    return found


@pytest.mark.parametrize("n", [1, 15, 16, 17, 45, 160])
@pytest.mark.parametrize("stratified", [True, False])
def test_batches_hold_every_clip_once(n, stratified):
    samples = np.random.default_rng(0).integers(400, 9000, 200).astype(np.int32)
    rows = np.random.default_rng(1).permutation(200)[:n]
    found = fold_batches.batches(rows, samples, 16, stratified=stratified, key=(0, 1, 2))
    assert found.shape == (-(-n // 16), 16)
    assert sorted(found[found >= 0].tolist()) == sorted(rows.tolist())
    again = fold_batches.batches(rows, samples, 16, stratified=stratified, key=(0, 1, 2))
    np.testing.assert_array_equal(found, again)
    if n == 160:
        other = fold_batches.batches(rows, samples, 16, stratified=stratified, key=(0, 1, 3))
        assert (found != other).any()


def test_every_batch_has_one_clip_of_each_length_stratum():
    samples = np.arange(1, 65, dtype=np.int32)
    found = fold_batches.batches(np.arange(64), samples, 16, stratified=True, key=(5, 0, 0))
    strata = np.sort(samples[found], axis=0)
    for r in range(16):  # stratum r holds the lengths 64 - 4r ... 61 - 4r
        assert strata[:, r].tolist() == [61 - 4 * r, 62 - 4 * r, 63 - 4 * r, 64 - 4 * r]


def test_a_balanced_epoch_has_every_class_and_every_clip_of_it_equally_often():
    label = np.array([0] * 20 + [1] * 3 + [2] * 7 + [3] * 9)
    rows = np.setdiff1d(np.arange(30), [4])  # 29 clips of classes 0 to 2
    found = fold_batches.balanced(rows, label, (0, 1, 2))
    assert len(found) == 29 and set(found) <= set(rows)
    assert sorted(np.bincount(label[found], minlength=4)) == [0, 9, 10, 10]
    for k in range(3):
        counts = np.bincount(found, minlength=39)[rows[label[rows] == k]]
        assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(found, fold_batches.balanced(rows, label, (0, 1, 2)))
    others = [np.sort(fold_batches.balanced(rows, label, key)) for key in ((1, 1, 2), (0, 0, 2), (0, 1, 3))]
    assert all((np.sort(found) != other).any() for other in others)


def test_parts_hold_the_longest_clip_of_their_strata_and_are_as_few_as_pay():
    rng = np.random.default_rng(0)
    equal = [np.full(50, 1000, np.int32)]
    assert fold_batches.sub_batches(equal, 16, 320) == ((16, 1280),)
    varied = [rng.integers(1000, 100_000, n).astype(np.int32) for n in (300, 33, 40)]
    parts = fold_batches.sub_batches(varied, 16, 320)
    assert len(parts) == 4 and sum(rows for rows, _ in parts) == 16
    assert parts[0][1] >= max(map(max, varied)) > parts[-1][1]
    for lengths in varied:
        for epoch in range(5):
            rows = fold_batches.batches(np.arange(len(lengths)), lengths, 16, stratified=True, key=(0, 0, epoch))
            at = 0
            for count, samples in parts:
                part = rows[:, at : at + count]
                assert (lengths[part[part >= 0]] <= samples).all() and samples % 320 == 0
                at += count


def test_chunks_fill_up_with_empty_batches():
    planned = [np.arange(12, dtype=np.int32).reshape(3, 4), np.arange(4, dtype=np.int32).reshape(1, 4)]
    first, second = fold_batches.chunks(planned, 2)
    assert first.shape == second.shape == (2, 2, 4)
    np.testing.assert_array_equal(np.concatenate([first[0], second[0]])[:3], planned[0])
    assert (second[1] == fold_batches.EMPTY).all() and (first[1, 1] == fold_batches.EMPTY).all()


def test_rate_is_transformers_linear_schedule():
    recipe = tiny_learners.recipe(peak_lr=2.0, warmup_steps=4, short_warmup=False)
    found = [float(fold_engine.rate(recipe, jnp.int32(k), jnp.int32(12))) for k in range(13)]
    np.testing.assert_allclose(found, [0, 0.5, 1, 1.5, 2, 1.75, 1.5, 1.25, 1, 0.75, 0.5, 0.25, 0], atol=1e-6)


@pytest.mark.parametrize(("total", "peak"), [(40, 4), (60, 6), (200, 6)])
def test_a_short_warmup_is_a_tenth_of_each_folds_updates(total, peak):
    recipe = tiny_learners.recipe(peak_lr=2.0, warmup_steps=6, short_warmup=True)
    found = jax.jit(jax.vmap(lambda k: fold_engine.rate(recipe, k, jnp.int32(total))))(jnp.arange(total + 1))
    assert int(found.argmax()) == peak
    np.testing.assert_allclose(found[: peak + 1], np.linspace(0, 2, peak + 1), atol=1e-6)
    np.testing.assert_allclose(found[peak:], np.linspace(2, 0, total - peak + 1), atol=1e-6)


@pytest.fixture(scope="module")
def alone():
    """Five folds, one after another."""
    return run_folds([0, 1, 2, 3, 4], 1, "map", 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slots", "axis", "devices"),
    [
        (3, "vmap", 1),
        pytest.param(8, "map", 8, marks=pytest.mark.slow),
        pytest.param(4, "vmap", 2, marks=pytest.mark.slow),
    ],
)
def test_a_fold_does_not_depend_on_its_neighbours(alone, slots, axis, devices):
    found = run_folds([4, 3, 2, 1, 0], slots, axis, devices)
    assert found.keys() == alone.keys()
    for fold, logits in alone.items():
        assert np.abs(logits).max() > 0.01
        np.testing.assert_allclose(found[fold], logits, atol=1e-4)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3


CHANGES = {"mixup": 0.4, "waveform": augmentation.Waveform(0.1, 0.1, 0.5, (5.0, 20.0), 3.0)}


@pytest.mark.slow
def test_a_fold_of_changed_clips_does_not_depend_on_its_neighbours(alone):
    found, other = run_folds([1, 0], 1, "map", 1, **CHANGES), run_folds([0, 2, 1], 3, "vmap", 1, **CHANGES)
    for fold, logits in found.items():
        np.testing.assert_allclose(other[fold], logits, atol=1e-4)
        assert np.abs(logits - alone[fold]).max() > 1e-3


@pytest.mark.slow
def test_a_fold_with_adapters_does_not_depend_on_its_neighbours_either(alone):
    paths = jax.eval_shape(tiny_learners.tiny_learner(((4, 2400),)).init, jax.random.key(0))
    frozen = tuple(path for path in names.flatten(paths) if path.startswith("encoder/"))
    adapt = adaptation.Adaptation(frozen, lora.Config(2), layer_decay=0.7)
    recipe = tiny_learners.recipe(batch_clips=4, warmup_steps=1, peak_lr=1e-1, epochs=3, freeze_updates=2)
    one, other = (run_folds(*how, 1, recipe, adapt=adapt) for how in (([0, 1, 2], 1, "map"), ([1, 2, 0], 3, "vmap")))
    for fold, logits in one.items():
        np.testing.assert_allclose(other[fold], logits, atol=1e-4)
    assert np.abs(one[0] - one[2]).max() > 1e-3 and np.abs(one[0] - alone[0]).max() > 1e-3


@pytest.mark.slow
def test_lengths_of_the_parts_change_nothing(alone):
    """With the same batches: padding is exact."""
    found = run_folds([0], 1, "map", 1, parts=((2, 2400), (2, 3200)))
    np.testing.assert_allclose(found[0], alone[0], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("context", whisper.CONTEXTS)
def test_a_fold_of_whisper_depends_neither_on_its_neighbours_nor_on_the_lengths_of_the_parts(context):
    """With dropout, LayerDrop and masks over the spectrum."""
    make = functools.partial(tiny_learners.whisper_learner, context)
    alone = run_folds([1], 1, "map", 1, parts=((2, 2400), (2, 3200)), make=make)
    together = run_folds([1, 2], 2, "vmap", 1, make=make)
    assert np.abs(alone[1]).max() > 0.01 and np.abs(together[1] - together[2]).max() > 1e-3
    np.testing.assert_allclose(together[1], alone[1], atol=1e-4)


def test_a_slot_is_placed_and_taken_to_the_bit_and_no_other_slot_travels():
    recipe = tiny_learners.recipe(batch_clips=4)
    engine = fold_engine.Engine(tiny_learners.tiny_learner(((4, 2400),)), recipe, 8, "map", jax.devices()[:4])
    values = np.array([-0.0, 0.0, np.nan, -np.inf, 1.5], np.float32)
    one = fold_engine.FoldState({"w": values}, (), np.int32(7), {"w": values})
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), one)
    states = engine.place(engine.empty(abstract), jnp.int32(5), jax.device_put(one, engine.replicated))
    for slot in range(8):
        wanted = one if slot == 5 else jax.tree.map(np.zeros_like, one)
        found = jax.device_get(engine.take(states, jnp.int32(slot)))
        assert [x.tobytes() for x in jax.tree.leaves(found)] == [x.tobytes() for x in jax.tree.leaves(wanted)]
    assert collectives.every(engine.place.lower(states, jnp.int32(0), one).compile().as_text()) == []
    sent = collectives.every(engine.take.lower(states, jnp.int32(0)).compile().as_text())
    assert sum(x.size for x in sent) == sum(x.nbytes for x in jax.tree.leaves(one))


@pytest.mark.slow
def test_a_batch_without_clips_changes_nothing():
    learner = tiny_learners.tiny_learner(((4, 2400),))
    recipe = tiny_learners.recipe(batch_clips=4, warmup_steps=1)
    state = jax.jit(functools.partial(fold_engine.start, learner, recipe))(0)
    clips = tiny_learners.Clips(4)
    kept = resident.Resident(clips, np.arange(4))
    data = {"blocks": kept.blocks, "block_start": kept.block_start, "samples": clips.samples, "labels": clips.labels}
    fold = {
        "number": np.int32(0),
        "total_steps": np.int32(9),
        "class_weights": np.ones(tiny_learners.CLASSES, np.float32),
    }
    step = jax.jit(functools.partial(fold_engine.update, learner, recipe))
    after, loss = step(state, fold, data, np.full(4, fold_batches.EMPTY, np.int32))
    assert float(loss) == 0 and int(after.steps) == 0
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
    after, loss = step(
        step(state, fold, data, np.arange(4, dtype=np.int32))[0], fold, data, np.arange(4, dtype=np.int32)
    )
    assert float(loss) > 0 and int(after.steps) == 2
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), after.params, state.params)
    assert max(jax.tree.leaves(moved)) > 1e-6


@pytest.mark.parametrize(
    ("family", "layer_sum"),
    [
        pytest.param("hubert", True, marks=pytest.mark.slow),
        pytest.param("wavlm", False, marks=pytest.mark.slow),
        pytest.param("data2vec", True, marks=pytest.mark.slow),
        pytest.param("whisper", True, marks=pytest.mark.slow),
    ],
)
def test_every_family_is_fine_tuned(family, layer_sum):
    """All parameters that features depend on move, and outputs stay finite."""
    base = models.FAMILIES[family].Config()
    tiny = tiny_learners.tiny_learner(((4, 2400),)).config.encoder
    sizes = ("conv_channels", "conv_kernels", "conv_strides", "width", "depth", "heads", "inner_width")
    own = {name: getattr(tiny, name) for name in (*sizes, "positional_groups")} | {"positional_kernel": 5}
    config = (
        dataclasses.replace(base, encoder=dataclasses.replace(base.encoder, **own)) if family != "whisper" else None
    )
    config = config or tiny_whisper.config()
    learner = learners.Finetuner(
        family, config, heads.Config(tiny_learners.CLASSES, 8, layer_sum), ((4, 2400),), normalize=True
    )
    recipe = tiny_learners.recipe(batch_clips=4, warmup_steps=1, peak_lr=1e-3)
    state = jax.jit(functools.partial(fold_engine.start, learner, recipe))(0)
    clips = tiny_learners.Clips(4)
    kept = resident.Resident(clips, np.arange(4))
    data = {"blocks": kept.blocks, "block_start": kept.block_start, "samples": clips.samples, "labels": clips.labels}
    fold = {
        "number": np.int32(0),
        "total_steps": np.int32(9),
        "class_weights": np.ones(tiny_learners.CLASSES, np.float32),
    }
    step, after = jax.jit(functools.partial(fold_engine.update, learner, recipe)), state
    for _ in range(3):
        after, loss = step(after, fold, data, np.arange(4, dtype=np.int32))
        assert np.isfinite(float(loss))
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), after.params, state.params)
    assert min(jax.tree.leaves(moved["head"])) > 0 and max(jax.tree.leaves(moved["encoder"]["conv_stem"])) > 0
    assert family != "whisper" or moved["encoder"]["positions"] == 0  # sinusoids, as transformers leaves them


@pytest.mark.slow
def test_initial_parameters_replace_fresh_ones_and_must_fit():
    learner = tiny_learners.tiny_learner(((4, 2400),))
    recipe = tiny_learners.recipe()
    fresh = fold_engine.start(learner, recipe, 0).params
    given = {"encoder": {"norm": {"scale": np.full(16, 7.0, np.float32)}}}
    found = fold_engine.start(learner, recipe, 0, given).params
    assert (found["encoder"]["norm"]["scale"] == 7).all()
    np.testing.assert_array_equal(found["encoder"]["norm"]["bias"], fresh["encoder"]["norm"]["bias"])
    with pytest.raises(ValueError, match="nrm"):
        fold_engine.start(learner, recipe, 0, {"encoder": {"nrm": {}}})


def test_features_of_a_probe_are_scaled_by_the_fold():
    learner = learners.FeatureLearner(tiny_learners.CLASSES, 5, width=0)
    params = learner.init(jax.random.key(0))
    data = {
        "features": np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32),
        "labels": np.zeros(4, np.int32),
    }
    plain = {"shift": np.zeros(5, np.float32), "scale": np.ones(5, np.float32)}
    scaled = {"shift": np.full(5, 2, np.float32), "scale": np.full(5, 0.5, np.float32)}
    rows = jnp.arange(4)
    logits, x = learner.outputs(params, scaled, data, rows)
    np.testing.assert_allclose(x, (data["features"] - 2) / 2, atol=1e-6)
    expected = x @ params["linear_0"]["kernel"] + params["linear_0"]["bias"][None]
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert np.abs(logits - learner.outputs(params, plain, data, rows)[0]).max() > 0.01
    two = dataclasses.replace(learner, width=7).init(jax.random.key(0))
    assert {name: layer["kernel"].shape for name, layer in two.items()} == {"linear_0": (5, 7), "linear_1": (7, 3)}


@pytest.mark.parametrize(
    "platform, convolves, axis",
    [("cpu", True, "map"), ("cpu", False, "map"), ("tpu", True, "map"), ("tpu", False, "vmap"), ("gpu", True, "vmap")],
)
def test_folds_train_together_where_that_is_cheaper(platform, convolves, axis):
    assert settings.fold_axis(platform, convolves=convolves) == axis
