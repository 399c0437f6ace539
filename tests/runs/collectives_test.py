"""What the collectives of a compiled update carry, and what a device holds: counted on up to eight devices."""

import functools
import math

import cluster_config
import collectives
import jax
import jax.numpy as jnp
import pytest

from voc2vec_jax.ops import optim
from voc2vec_jax.pretraining import dry_run
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.pretraining import step as training_step
from voc2vec_jax.runs import sharding

CONFIG = cluster_config.get_config()
FAMILY, MODEL = pretraining_recipe.build_model(CONFIG)
SCHEDULE = optim.linear_schedule(1e-3, 10, 0.0)
ADAM = optim.fairseq_adam(SCHEDULE, b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.01, clip_norm=0.0)
GRADIENT_BYTES = 4 * sum(
    math.prod(x.shape) for x in jax.tree.leaves(jax.eval_shape(lambda: FAMILY.init_params(MODEL, jax.random.key(0))))
)


@functools.cache
def compiled(devices, fsdp=1, micros=1):
    """(compiled update, abstract state) of one loss group a device."""
    mesh = sharding.make_mesh(fsdp, jax.devices()[:devices])
    rules = [(pattern, None if axis < 0 else axis) for pattern, axis in CONFIG.sharding_rules]
    init = functools.partial(training_step.init_state, FAMILY, MODEL, ADAM, 0)
    abstract = jax.eval_shape(init)
    places = sharding.shard_tree(abstract, mesh, rules)
    state = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, places)
    step = training_step.make_update(FAMILY, MODEL, ADAM, SCHEDULE, seed=7, equal_masks=False)
    step = jax.jit(step, donate_argnums=0, out_shardings=(places, sharding.replicated(mesh)))
    layout = pretraining_recipe.batch_layout(CONFIG, devices * micros)
    batch = dry_run.batch_of(MODEL, layout, 0, micros, mesh)
    return step.lower(state, batch).compile(), state


def carried(*how):
    return collectives.result_bytes(compiled(*how)[0].as_text())


def cut_by_fsdp(state):
    return sum(math.prod(x.shape) for x in jax.tree.leaves(state["params"]) if not x.sharding.is_fully_replicated)


@pytest.mark.parametrize(
    "devices", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow), 8]
)
def test_replicas_sum_the_gradient_once_on_any_number_of_devices(devices):
    found = carried(devices)
    assert found["all-reduce"] == pytest.approx(GRADIENT_BYTES if devices > 1 else 0, rel=0.03, abs=64)
    assert found["all-gather"] <= 0.02 * GRADIENT_BYTES


def test_accumulation_sums_once_a_micro_batch():
    assert carried(2, 1, 2)["all-reduce"] == pytest.approx(2 * GRADIENT_BYTES, rel=0.03)


@pytest.mark.parametrize("devices, fsdp", [(8, 8), pytest.param(8, 2, marks=pytest.mark.slow)])
def test_fsdp_gathers_what_it_cuts_for_each_pass(devices, fsdp):
    """At most twice; what the compiler keeps it does not gather again. CPUs sum whole gradients."""
    cut_bytes = 4 * cut_by_fsdp(compiled(devices, fsdp)[1])
    found = carried(devices, fsdp)
    assert cut_bytes <= found["all-gather"] <= 1.03 * 2 * cut_bytes
    assert GRADIENT_BYTES <= found["all-reduce"] <= 1.35 * GRADIENT_BYTES


def test_a_loops_collectives_count_as_often_as_it_runs():
    def summed(x):
        return jax.lax.scan(lambda total, row: (total + jnp.sum(row, 0), None), jnp.zeros(6), x)[0]

    mesh = sharding.make_mesh(1)
    x = jax.ShapeDtypeStruct((5, 16, 6), jnp.float32, sharding=sharding.over_batch(mesh, 1))
    program = jax.jit(summed, out_shardings=sharding.replicated(mesh)).lower(x).compile()
    assert collectives.result_bytes(program.as_text())["all-reduce"] == 5 * 6 * 4
