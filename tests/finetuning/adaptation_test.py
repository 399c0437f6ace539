"""Frozen parts, adapters and layer-wise rates: what a fold trains, what its state holds, what it costs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_learners

from voc2vec_jax import errors
from voc2vec_jax.convert import names, reader
from voc2vec_jax.datasets import resident
from voc2vec_jax.finetuning import adaptation, capacity
from voc2vec_jax.finetuning import engine as fold_engine
from voc2vec_jax.models import lora
from voc2vec_jax.runs import configuration

PARTS = ((4, 2400),)


@functools.cache
def whole():
    return jax.jit(tiny_learners.tiny_learner(PARTS).init)(jax.random.key(9))


def config_of(**fields):
    config = configuration.load(f"{tiny_learners.CONFIG}:synthetic")
    config.update(fields)
    return config


def adapted(**fields):
    learner = tiny_learners.tiny_learner(PARTS)
    source = reader.ModelWeights("wav2vec2", learner.config, {"encoder": whole()["encoder"]})
    return adaptation.of_config(config_of(**fields), source)


STEM = {"freeze": "stem"}
ENCODER = {"freeze": "encoder"}
LORA = {"lora_rank": 2}


class Steps:
    """Steps of one fold: `after(n)` are its trained parameters after n of them."""

    def __init__(self, fields=None, **recipe):
        fields = {} if fields is None else fields
        self.learner = tiny_learners.tiny_learner(PARTS, adapt=adapted(**fields))
        self.recipe = tiny_learners.recipe(batch_clips=4, warmup_steps=1, peak_lr=1e-2, epochs=5, **recipe)
        clips = tiny_learners.Clips(8)
        kept = resident.Resident(clips, np.arange(8))
        self.data = {"blocks": kept.blocks, "block_start": kept.block_start}
        self.data |= {"samples": clips.samples, "labels": clips.labels}
        self.data["frozen"] = adaptation.only(whole(), self.learner.adapt.frozen)
        self.fold = {"number": 0, "total_steps": 20, "class_weights": jnp.ones(3)}
        initial = adaptation.without({"encoder": whole()["encoder"]}, self.learner.adapt.frozen)
        self.start = jax.jit(lambda initial: fold_engine.start(self.learner, self.recipe, 0, initial))(initial)
        self.step = jax.jit(functools.partial(fold_engine.update, self.learner, self.recipe))

    def states(self, count):
        states = [self.start]
        for k in range(count):
            rows = jnp.arange(4 * (k % 2), 4 * (k % 2) + 4, dtype=jnp.int32)
            states.append(self.step(states[-1], self.fold, self.data, rows)[0])
        return states


def flat(tree):
    return {path: np.asarray(x) for path, x in names.flatten(tree).items()}


def moved(before, after):
    """The parameters that differ."""
    before, after = flat(before), flat(after)
    return {path for path in before if not np.array_equal(before[path], after[path])}


@pytest.mark.slow
def test_a_folds_state_holds_what_is_trained_and_nothing_else():
    everything = capacity.tree_bytes(Steps().start)
    paths = set(flat(whole()))
    stem = {path for path in paths if path.startswith("encoder/conv_stem/")}
    found = {name: Steps(fields).start for name, fields in (("stem", STEM), ("encoder", ENCODER), ("lora", LORA))}
    assert stem and set(flat(found["stem"].params)) == paths - stem
    head = {path for path in paths if path.startswith("head/")}
    assert set(flat(found["encoder"].params)) == head
    adapters = {f"lora/{name}/{part}" for name in ("query", "value") for part in "ab"}
    assert set(flat(found["lora"].params)) == head | adapters
    for state in found.values():
        # Parameters, two moments, the best parameters; two counts of updates, Adam's and the fold's.
        assert capacity.tree_bytes(state) == 4 * capacity.tree_bytes(state.params) + 8 < everything


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(STEM, id="stem", marks=pytest.mark.slow),
        pytest.param(ENCODER, id="encoder"),
        pytest.param(LORA, id="lora", marks=pytest.mark.slow),
    ],
)
def test_what_is_trained_moves_and_the_first_outputs_are_the_sources(fields):
    steps, rows = Steps(fields), jnp.arange(4, dtype=jnp.int32)
    plain = Steps()
    outputs = [jax.jit(one.learner.outputs)(one.start.params, one.fold, one.data, rows)[1] for one in (steps, plain)]
    np.testing.assert_allclose(*outputs, atol=1e-5)
    first, *_, last = steps.states(3)
    still = set(flat(first.params)) - moved(first.params, last.params)
    assert still <= {"encoder/mask_embedding"}


def flops(channels, width, adapt_of):
    """Of a loss and its gradient, counted from the compiled program; with wide layers, so that products dominate."""
    plain = tiny_learners.tiny_learner(((4, 2400),))
    encoder = dataclasses.replace(plain.config.encoder, conv_channels=channels, width=width, inner_width=4 * width)
    plain = dataclasses.replace(plain, config=dataclasses.replace(plain.config, encoder=encoder))
    everything = jax.eval_shape(plain.init, jax.random.key(0))
    learner = dataclasses.replace(plain, adapt=adapt_of(names.flatten(everything)))
    data = {
        "blocks": jnp.zeros((9, resident.BLOCK_SAMPLES), jnp.int16),
        "frozen": adaptation.only(everything, learner.adapt.frozen),
    }
    data |= {name: jnp.zeros(4, jnp.int32) for name in ("block_start", "samples", "labels")}

    def loss(params, data):
        rows = jnp.arange(4, dtype=jnp.int32)
        return learner.loss(params, {"class_weights": jnp.ones(3)}, data, rows, jax.random.key(0))[0]

    lowered = jax.jit(jax.grad(loss)).lower(jax.eval_shape(learner.init, jax.random.key(0)), data)
    return lowered.compile().cost_analysis()["flops"]


@pytest.mark.slow
def test_frozen_parts_have_no_backward_pass():
    everything = adaptation.Adaptation()
    stem, encoder = (
        lambda flat, start=start: adaptation.Adaptation(tuple(path for path in flat if path.startswith(start)))
        for start in ("encoder/conv_stem/", "encoder/")
    )
    low = lambda flat: dataclasses.replace(encoder(flat), lora=lora.Config(2))  # noqa: E731
    convolutions, blocks = ((128, 128), 16), ((4, 4), 64)
    found = [
        flops(*sizes, adapt) / flops(*sizes, lambda flat: everything)
        for sizes, adapt in ((convolutions, stem), (blocks, encoder), (blocks, low))
    ]
    print(found)
    # Forward 1, backward 2: of the inputs and of the weights. A frozen stem keeps its forward pass alone, adapters the
    # gradients of inputs and of two products in twelve.
    assert found[0] < 0.6 and found[1] < 0.4 and found[2] < 0.85


@pytest.mark.slow
def test_the_encoder_stands_still_for_the_first_updates_and_then_begins_as_new():
    held = Steps(freeze_updates=2)
    states = held.states(4)
    encoder = {path for path in flat(whole()) if path.startswith("encoder/")}
    for before, after in ((0, 1), (1, 2)):
        assert not moved(states[before].params, states[after].params) & encoder
    assert moved(states[1].params, states[2].params) == {path for path in flat(whole()) if path.startswith("head/")}
    assert moved(states[2].params, states[3].params) & encoder
    # Adam's first update of a parameter is the rate in size: m / sqrt(v) of one gradient, whatever came before.
    change = flat(states[3].params)["encoder/norm/scale"] - flat(states[2].params)["encoder/norm/scale"]
    lr = float(fold_engine.rate(held.recipe, jnp.int32(2), jnp.int32(20)))
    np.testing.assert_allclose(np.abs(change), lr, rtol=0.02)


def test_layers_have_the_rates_of_beit():
    learner = tiny_learners.tiny_learner(PARTS, adapt=adapted(layer_decay=0.5, **LORA))
    params = jax.jit(learner.init)(jax.random.key(0)) | {"encoder": {"norm": {"scale": jnp.ones(3)}}}
    found = flat(learner.rates(params))
    assert found["head/classifier/kernel"] == 1 and found["encoder/norm/scale"] == 0.125
    assert found["lora/query/a"].shape == (2, 1, 1) and found["lora/query/a"].ravel().tolist() == [0.25, 0.5]
    last = learner.adapt.rates(params, norm_first=True)
    assert last["encoder"]["norm"]["scale"] == 1
    assert tiny_learners.tiny_learner(PARTS).rates(params) is None


@pytest.mark.slow
def test_a_blocks_update_is_its_rate_times_the_one_without_decay():
    plain, decayed = Steps(), Steps({"layer_decay": 0.5})
    first, after = (flat(one.states(2)[2].params) for one in (plain, decayed))
    start = flat(plain.start.params)
    for path, factor in (("encoder/layers/mlp_in/kernel", [0.25, 0.5]), ("head/classifier/kernel", [1.0] * 3)):
        # The first step has a rate of 0, so that both take their second step from the same place.
        axis = 0 if "layers" in path else 1
        changes = [np.moveaxis(one[path] - start[path], axis, 0) for one in (after, first)]
        for k, wanted in enumerate(factor):
            np.testing.assert_allclose(changes[0][k], wanted * changes[1][k], rtol=1e-3, atol=1e-6)


def test_merged_adapters_are_the_sum_of_both_branches():
    config = lora.Config(rank=2, alpha=6.0, targets=("query", "mlp_in"))
    encoder = {"layers": whole()["encoder"]["layers"]}
    adapters = lora.init(config, jax.random.key(1), encoder)
    assert {name: pair["a"].shape for name, pair in adapters.items()} == {"query": (2, 16, 2), "mlp_in": (2, 16, 2)}
    assert not any(pair["b"].any() for pair in adapters.values())
    adapters = jax.tree.map(lambda x: x + 0.1, adapters)
    found = lora.merged(config, encoder, adapters)
    x = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
    for name, place in (("query", ("attention", "query")), ("mlp_in", ("mlp_in",))):
        kernel = functools.reduce(lambda tree, part: tree[part], place, encoder["layers"])["kernel"][1]
        merged = functools.reduce(lambda tree, part: tree[part], place, found["layers"])["kernel"][1]
        branch = x @ adapters[name]["a"][1] @ adapters[name]["b"][1]
        np.testing.assert_allclose(x @ merged, x @ kernel + 3 * branch, atol=1e-4)
    assert found["layers"]["attention"]["value"] is encoder["layers"]["attention"]["value"]


def test_a_bias_of_a_layer_with_an_adapter_stays():
    found = lora.merged(
        lora.Config(1), whole()["encoder"], lora.init(lora.Config(1), jax.random.key(0), whole()["encoder"])
    )
    assert flat(found).keys() == flat(whole()["encoder"]).keys()


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"lora_rank": 2, "lora_targets": "query,q"}, "lora_targets=query,q: 'q' is none of query, key"),
        ({"lora_rank": 2, "fresh": True}, "fresh=true trains random weights, and --config.lora_rank=2 would keep"),
        ({"lora_rank": 2, "freeze": "encoder"}, "freeze=encoder trains the head alone, and --config.lora_rank=2"),
        ({"freeze": "stem", "fresh": True}, "fresh=true trains random weights, and --config.freeze=stem would keep"),
    ],
)
def test_fields_that_contradict_one_another_are_refused(fields, says):
    with pytest.raises(errors.InputError, match=says):
        adaptation.check(config_of(**fields))


def test_a_model_without_a_stem_has_none_to_freeze():
    source = reader.ModelWeights("wav2vec2", None, {"encoder": {"layers": {"x": np.zeros(1)}}})
    with pytest.raises(errors.InputError, match="has no convolutional stem: set --config.freeze=none"):
        adaptation.of_config(config_of(**STEM), source)
