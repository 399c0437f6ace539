"""The compiled pre-training step does no more work than it did: operations, bytes and compilations are counted.

Times depend on the machine; these counts do not, so that a slow-down by extra work is seen anywhere.
"""

import dataclasses
import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp

from voc2vec_jax import train_benchmark, update, work
from voc2vec_jax.models import wav2vec2

ROWS, SAMPLES = 2, 160_000
# What the optimised step of the tiny model, 16 clips of 1.5 s, was counted at; a change of the compiler moves it little
TINY_GFLOP, TINY_GIGABYTES = 1.17, 0.423
MARGIN = 1.15

COUNT = """
import json
from voc2vec_jax import train_benchmark
settings = train_benchmark.Settings(model="tiny", rows=16, seconds=1.5)
cost = train_benchmark.Ours(settings).compiled.cost_analysis()
print(json.dumps([cost["flops"], cost["bytes accessed"]]))
"""


def test_the_gradient_of_base_is_three_times_its_forward_pass_and_little_more(monkeypatch):
    # The body of a loop is counted once, however often it runs: one block, and all groups at once as on accelerators
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    base = wav2vec2.Config()
    model = dataclasses.replace(base, encoder=dataclasses.replace(base.encoder, depth=1))
    params = jax.eval_shape(functools.partial(wav2vec2.init_params, model, jax.random.key(0)))
    micro = {
        "audio": jax.ShapeDtypeStruct((1, ROWS, SAMPLES), jnp.int16),
        "lengths": jax.ShapeDtypeStruct((1, ROWS), jnp.int32),
    }

    def loss(params, micro):
        keys, step = update.noise(jax.random.key(0), jnp.arange(1), ROWS), jnp.zeros([], jnp.int32)
        return update.loss_sums(wav2vec2, model, params, micro, keys, step, train=True, equal_masks=False)

    counted = jax.jit(jax.grad(loss, has_aux=True)).lower(params, micro).cost_analysis()["flops"]
    least = ROWS * sum(work.training(model, SAMPLES).values())
    assert least < counted < 1.12 * least


def test_the_optimised_step_counts_no_more_than_it_did():
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run([sys.executable, "-c", COUNT], env=environment, capture_output=True, text=True, check=True)
    operations, accessed = json.loads(done.stdout)
    assert 0.8 * TINY_GFLOP < operations / 1e9 < MARGIN * TINY_GFLOP
    assert accessed / 1e9 < MARGIN * TINY_GIGABYTES


def test_steps_of_one_shape_are_compiled_once():
    ours = train_benchmark.Ours(train_benchmark.Settings(model="tiny", rows=1, seconds=1.0, step="update"))
    step = jax.jit(ours.step)
    state = ours.state
    for _ in range(3):
        state, _ = step(state, ours.batch)
    assert step._cache_size() == 1 and int(state["step"]) == 3
