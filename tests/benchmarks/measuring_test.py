"""What all benchmarks share: the rate of products, steady seconds and the memory of the process."""

import os
import time

import jax
import jax.numpy as jnp
from benchmarks import measuring


def test_the_peak_is_at_least_what_was_held():
    before = measuring.peak_bytes()
    held = bytearray(os.urandom(1)) * 50_000_000
    assert measuring.peak_bytes() >= len(held) and measuring.peak_bytes() >= before > 0


def test_a_peak_is_told_in_megabytes():
    held = measuring.memory_held()["process_peak_mb"]
    assert 10 < held <= measuring.peak_bytes() / 1e6 + 1


def test_the_matmul_rate_is_a_rate():
    x = jax.random.normal(jax.random.key(0), (1024, 1024))
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    alone = min(measuring.seconds_of(lambda: product(x, x).block_until_ready()) for _ in range(20))
    found = measuring.matmul_rate("float32", sizes=((1024, 1024, 1024),), seconds=0.3)
    assert 0.3 < found * alone / (2 * 1024**3) < 3


def test_quick_steps_are_repeated_and_the_first_ones_left_out():
    calls = []

    def run(count):
        calls.append(count)
        time.sleep(0.02 * count + (0.2 if len(calls) <= measuring.WARM_UP_STEPS else 0))

    assert 0.02 <= measuring.steady_seconds(run, least_seconds=0.1) < 0.1
    assert calls[:-1] == [1] * (measuring.WARM_UP_STEPS + 1) and 2 <= calls[-1] <= 5
    assert measuring.steady_seconds(run, least_seconds=0.001) >= 0.02 and calls[-1] == 1
