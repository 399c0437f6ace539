"""The compiled pre-training step does no more work than it did: operations, bytes and compilations are counted.

Times depend on the machine; these counts do not, so that a slow-down by extra work is seen anywhere.
"""

import dataclasses
import functools
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recipes

from voc2vec_jax.models import encoder, flops, wav2vec2
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.pretraining import step as training_step
from voc2vec_jax.runs import sharding

TOOLS = pathlib.Path(__file__).parents[2] / "tools"
ROWS, SAMPLES = 2, 160_000
SCATTER = r'"stablehlo.scatter"\(.*?unique_indices = (\w+).*?\) -> tensor<\S*x(\w+)>'
# What the optimised update of the tiny model, 16 clips of 1.5 s, was counted at: operations, gigabytes moved, held at
# once beside arguments and results, and of the state that the new one takes over
TINY = {"gflop": 1.088, "moved": 0.3150, "held": 0.0395, "donated": 0.001905}
MARGIN = 1.05

COUNT = """
import json
from benchmarks import train as train_benchmark
settings = train_benchmark.TrainBenchmark(model="tiny", rows=16, seconds=1.5, step="update")
compiled = train_benchmark.CompiledStep(settings).compiled
cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
counts = cost["flops"], cost["bytes accessed"], memory.temp_size_in_bytes, memory.alias_size_in_bytes
print(json.dumps([count / 1e9 for count in counts]))
"""


@pytest.mark.slow
def test_the_gradient_of_base_is_three_times_its_forward_pass_and_little_more():
    # The body of a loop is counted once, however often it runs: one block, and all groups at once as on accelerators.
    # Plain attention: kernels are not counted
    base = wav2vec2.Config()
    model = dataclasses.replace(base, encoder=dataclasses.replace(base.encoder, depth=1, attention="plain"))
    params = jax.eval_shape(functools.partial(wav2vec2.init_params, model, jax.random.key(0)))
    micro = {
        "audio": jax.ShapeDtypeStruct((1, ROWS, SAMPLES), jnp.int16),
        "lengths": jax.ShapeDtypeStruct((1, ROWS), jnp.int32),
    }

    def loss(params, micro):
        keys, step = training_step.noise(jax.random.key(0), jnp.arange(1), ROWS), jnp.zeros([], jnp.int32)
        return training_step.loss_sums(wav2vec2, model, params, micro, keys, step, train=True, equal_masks=False)

    traced = jax.jit(jax.grad(loss, has_aux=True)).trace(params, micro)
    counted = traced.lower(lowering_platforms=("tpu",)).cost_analysis()["flops"]
    least = ROWS * sum(flops.training(model, SAMPLES).values())
    assert least < counted < 1.12 * least


@pytest.mark.slow
def test_the_optimised_step_counts_no_more_than_it_did():
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment["PYTHONPATH"] = str(TOOLS)
    done = subprocess.run([sys.executable, "-c", COUNT], env=environment, capture_output=True, text=True, check=True)
    for (name, pinned), count in zip(TINY.items(), json.loads(done.stdout), strict=True):
        assert pinned / MARGIN < count < pinned * MARGIN, name


@pytest.mark.slow
def test_a_run_compiles_its_step_once_for_all_lengths():
    config = recipes.tiny()
    config.group_rows, config.bucket_samples, config.batch_seconds = 1, (12_000, 24_000), 6.0
    config.same_length_groups = 1
    family, model = pretraining_recipe.build_model(config)
    mesh = sharding.make_mesh(1, jax.devices()[:2])
    run = training_step.on_mesh(config, family, model, mesh)
    state = run.init()
    for buckets in ([0, 0, 1, 1], [1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]):
        bucket = np.reshape(buckets, (2, 2, 1)).astype(np.int32)
        batch = {"audio": np.ones((2, 2, 1, 24_000), np.int16), "bucket": bucket}
        batch["lengths"] = np.where(bucket[..., None] == 0, [12_000, 12_000], [24_000, 0]).astype(np.int32)
        state, row = run.update(state, jax.device_put(batch, sharding.over_batch(mesh, 0)))
        assert float(row["audio_seconds"]) == pytest.approx(6)
    assert run.update._cache_size() == 1 and int(state["step"]) == 4


@pytest.mark.parametrize("norm_first", [False, True])
def test_what_the_backward_pass_keeps_of_a_block(norm_first):
    """Of the width of the frames: what enters query, key and value, these three and the output of attention, what
    enters both norms and the first dense layer; of the inner width, what that one gives."""
    config = encoder.EncoderConfig(norm_first=norm_first, depth=3)
    stack = encoder.block_stack(config)
    b, t, d = 2, 49, config.width
    noise = encoder.Noise(*jax.random.split(jax.random.key(0), (2, b)))
    carry, keep = (jnp.zeros((b, t, d)), jnp.full((b,), t), noise), jnp.ones((config.depth, b), bool)

    def run(params, x):
        return stack.apply(params, (x, *carry[1:]), jnp.arange(config.depth), keep, None)[0][0]

    params = jax.eval_shape(stack.init, jax.random.key(0), carry, jnp.arange(config.depth), keep, None)
    kept = jax.tree.leaves(jax.eval_shape(lambda params, x: jax.vjp(run, params, x)[1], params, carry[0]))
    kernels = sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim == 3)
    stacked = [leaf for leaf in kept if leaf.dtype == jnp.float32 and leaf.shape[0] == config.depth]
    for_each_frame = (sum(leaf.size for leaf in stacked) - kernels) / (config.depth * b * t)
    assert 0 <= for_each_frame - 8 * d - config.inner_width < 50  # a few numbers beside


def test_the_scan_over_blocks_stores_neither_kernels_nor_flags_of_entries():
    """Kernels are cast before the scan, so that its backward pass reads them again; LayerDrop stores a flag a row."""
    config = encoder.EncoderConfig(depth=3, dtype="bfloat16")
    stack = encoder.block_stack(config)
    b, t, d = 2, 49, config.width
    noise = encoder.Noise(*jax.random.split(jax.random.key(0), (2, b)))
    x, numbers, keep = jnp.zeros((b, t, d), jnp.bfloat16), jnp.arange(config.depth), jnp.ones((config.depth, b), bool)

    def run(params, x):
        return stack.apply(params, (x, jnp.full((b,), t), noise), numbers, keep, None)[0][0]

    init = encoder.block_stack(config, narrow=False).init
    params = jax.eval_shape(init, jax.random.key(0), (x, jnp.full((b,), t), noise), numbers, keep, None)
    jaxpr = jax.make_jaxpr(lambda params, x: jax.vjp(run, params, x)[1])(params, x)
    (scan,) = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "scan"]
    stored = [var.aval for var in scan.outvars]
    kernels = {leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim == 3}
    assert kernels and not [x for x in stored if x.shape in kernels]
    assert not [x for x in stored if x.dtype == bool and x.ndim > 2]


@pytest.mark.parametrize("family", ["wav2vec2", "hubert"])
def test_gradients_are_scattered_at_most_to_places_that_differ(family):
    """GPUs add what meets in one place in random order, or, told to be deterministic, sort it first."""
    config = recipes.tiny(family)
    if family == "hubert":
        config.model.classes = 12
    config.dtype = "bfloat16"
    config.model.encoder.attention_dropout = 0.1
    module, model = pretraining_recipe.build_model(config)
    rows, samples = 3, 24_000
    batch = {
        "audio": jax.ShapeDtypeStruct((1, rows, samples), jnp.int16),
        "lengths": jax.ShapeDtypeStruct((1, rows), jnp.int32),
        "units": jax.ShapeDtypeStruct((1, rows, model.encoder.frames(samples)), jnp.int32),
    }
    batch = batch if family == "hubert" else {name: batch[name] for name in ("audio", "lengths")}
    params = jax.eval_shape(functools.partial(module.init_params, model, jax.random.key(0)))

    def loss(params, batch):
        keys, step = training_step.noise(jax.random.key(0), jnp.arange(1), rows), jnp.zeros([], jnp.int32)
        return training_step.loss_sums(module, model, params, batch, keys, step, train=True, equal_masks=False)

    text = jax.jit(jax.grad(loss, has_aux=True)).trace(params, batch).lower(lowering_platforms=("cuda",)).as_text()
    scatters = re.findall(SCATTER, text, re.DOTALL)
    assert ("true", "bf16") in scatters
    assert [kind for unique, kind in scatters if unique == "false" and "f" in kind] == []
