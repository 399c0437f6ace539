"""Devices exchange once an update, in float32: the collectives of compiled updates, counted on up to eight devices."""

import functools
import math
import re

import cluster_config
import collectives
import jax
import jax.numpy as jnp
import pytest

from voc2vec_jax.ops import optim
from voc2vec_jax.pretraining import capacity
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.pretraining import step as training_step
from voc2vec_jax.runs import sharding

CONFIG = cluster_config.get_config()
CONFIG.dtype = "bfloat16"
FAMILY, MODEL = pretraining_recipe.build_model(CONFIG)
SCHEDULE = optim.linear_schedule(1e-3, 10, 0.0)
ADAM = optim.fairseq_adam(SCHEDULE, b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.01, clip_norm=0.0)
GRADIENT_BYTES = 4 * sum(
    math.prod(x.shape) for x in jax.tree.leaves(jax.eval_shape(lambda: FAMILY.init_params(MODEL, jax.random.key(0))))
)


@functools.cache
def lowered(devices, fsdp=1, micros=1):
    """(lowered update, abstract state) of one loss group a device and micro-batch, of either of two lengths."""
    mesh = sharding.make_mesh(fsdp, jax.devices()[:devices])
    rules = [(pattern, None if axis < 0 else axis) for pattern, axis in CONFIG.sharding_rules]
    init = functools.partial(training_step.init_state, FAMILY, MODEL, ADAM, 0)
    abstract = jax.eval_shape(init)
    places = sharding.shard_tree(abstract, mesh, rules)
    state = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, places)
    layout = pretraining_recipe.batch_layout(CONFIG, devices * micros)
    step = training_step.make_update(FAMILY, MODEL, ADAM, SCHEDULE, layout, mesh, rules, seed=7, equal_masks=False)
    step = jax.jit(step, donate_argnums=0, out_shardings=(places, sharding.replicated(mesh)))
    batch = capacity.batch_of(MODEL, layout, micros, mesh)
    return step.lower(state, batch), state


@functools.cache
def compiled_text(*how):
    return lowered(*how)[0].compile().as_text()


def bytes_of(kind, *how):
    return [c.size for c in collectives.every(compiled_text(*how)) if c.kind == kind]


def cuts(state):
    """Bytes of each parameter that fsdp cuts."""
    return [4 * math.prod(x.shape) for x in jax.tree.leaves(state["params"]) if not x.sharding.is_fully_replicated]


@pytest.mark.slow
@pytest.mark.parametrize("devices, micros", [(8, 4), (2, 1)])
def test_replicas_sum_gradient_and_metrics_in_one_reduction(devices, micros):
    (found,) = collectives.every(compiled_text(devices, 1, micros))
    assert found.kind == "all-reduce" and not found.in_loop
    flags = 4 * devices * micros  # for each loss group, whether its loss is finite
    assert 0 <= found.size - GRADIENT_BYTES - flags <= 64  # a dozen metrics


@pytest.mark.slow
@pytest.mark.parametrize("fsdp, micros", [(8, 4), (2, 1)])
def test_fsdp_gathers_and_scatters_what_it_cuts_once_an_update(fsdp, micros):
    how, replicas = (8, fsdp, micros), 8 // fsdp
    cut = cuts(lowered(*how)[1])
    assert sorted(bytes_of("all-gather", *how)) == sorted(cut)
    assert sorted(bytes_of("reduce-scatter", *how)) == sorted(size / fsdp for size in cut)
    # Between all devices is summed what is not cut, and between replicas what is; norms are a number for each array
    reduced = GRADIENT_BYTES - sum(cut) + sum(cut) / fsdp * (replicas > 1)
    flags = 4 * 8 * micros  # for each loss group, whether its loss is finite
    assert 0 <= sum(bytes_of("all-reduce", *how)) - reduced - flags <= 200
    assert not any(c.in_loop for c in collectives.every(compiled_text(*how)))


@pytest.mark.parametrize("how", [(8, 1, 4), (8, 8, 4)])
@pytest.mark.slow
def test_gradients_are_exchanged_in_float32(how):
    """Read before the compiler: CPUs widen what they reduce in bfloat16."""
    text = lowered(*how)[0].as_text()
    types = re.findall(r'"stablehlo.(?:all_reduce|reduce_scatter|all_gather)".*?\) -> (.*?)\n', text, re.DOTALL)
    assert types and all(set(re.findall(r"x?([a-z]+\d+)>", line)) == {"f32"} for line in types)


@pytest.mark.slow
def test_an_evaluation_sums_its_metrics_once():
    mesh = sharding.make_mesh(1)
    layout = pretraining_recipe.batch_layout(CONFIG, 32)
    evaluate = training_step.make_evaluate(FAMILY, MODEL, layout, mesh, seed=7, equal_masks=False)
    batch = capacity.batch_of(MODEL, layout, 4, mesh)
    (found,) = collectives.every(jax.jit(evaluate).lower(lowered(8)[1]["params"], batch).compile().as_text())
    assert found.kind == "all-reduce" and not found.in_loop and found.size <= 64


@pytest.mark.slow
def test_a_device_alone_exchanges_nothing():
    assert collectives.every(compiled_text(1)) == []


def test_a_loops_collectives_count_as_often_as_it_runs():
    def summed(x):
        return jax.lax.scan(lambda total, row: (total + jnp.sum(row, 0), None), jnp.zeros(6), x)[0]

    mesh = sharding.make_mesh(1)
    x = jax.ShapeDtypeStruct((5, 16, 6), jnp.float32, sharding=sharding.over_batch(mesh, 1))
    program = jax.jit(summed, out_shardings=sharding.replicated(mesh)).lower(x).compile()
    assert collectives.result_bytes(program.as_text())["all-reduce"] == 5 * 6 * 4
