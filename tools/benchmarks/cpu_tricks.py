"""What each trick for CPUs brings: `python tools/benchmarks/cpu_tricks.py [TRICK...]` prints a JSON line for each.

A base-size function is compiled with the trick and without it, and the two take turns. `ratio` is the median time
without over the median time with; above 1 the trick pays. `cpu_ratio` compares CPU seconds, which a busy machine
disturbs less.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from voc2vec_jax.inference import forward
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.models import wav2vec2
from voc2vec_jax.ops import convolution, cpu

TURNS = 11
ROWS, SECONDS = 4, 5
CONFIG = encoders.EncoderConfig()


def stem() -> tuple[Callable, tuple]:
    """The convolutional stem on one clip of 10 s, forward and backward."""
    clip, lengths = 0.1 * jax.random.normal(jax.random.key(0), (1, 160_000)), jnp.array([160_000])
    module = encoders.ConvStem(CONFIG)
    params = module.init(jax.random.key(1), clip, lengths)["params"]
    return _gradient(lambda params: module.apply({"params": params}, clip, lengths)), (params,)


def grouped() -> tuple[Callable, tuple]:
    """The positional convolution's products on one clip of 10 s, forward and backward."""
    x = jax.random.normal(jax.random.key(0), (1, CONFIG.frames(160_000), CONFIG.width))
    kernel = 0.01 * jax.random.normal(jax.random.key(1), (128, CONFIG.width // 16, CONFIG.width))
    return _gradient(lambda kernel, x: convolution.grouped_conv(x, kernel, 16), (0, 1)), (kernel, x)


def embedding() -> tuple[Callable, tuple]:
    """The mean of the last frames of ROWS clips, forward only."""
    model = wav2vec2.Config()
    params = {"encoder": jax.jit(lambda: wav2vec2.init_params(model, jax.random.key(0)))()["encoder"]}
    samples = 16_000 * SECONDS
    clips, lengths = 0.1 * jax.random.normal(jax.random.key(1), (ROWS, samples)), jnp.full(ROWS, samples)
    kept = jnp.array([[0, model.encoder.frames(samples)]] * ROWS)
    last = (model.encoder.depth + 1,)
    return lambda *args: forward.embed_batch("wav2vec2", model, last, "mean", *args), (params, clips, lengths, kept)


def _gradient(function: Callable, by: int | tuple[int, ...] = 0) -> Callable:
    def loss(*arguments):
        return jnp.square(function(*arguments)).sum()

    return jax.grad(loss, by)


def _cases() -> dict[str, tuple[Callable, list[Any], dict[str, str]]]:
    """For each trick: what is measured, the patches that take it out, and the compiler options that it consists of."""
    patch = mock.patch.object
    return {
        "paired_conv": (stem, [patch(convolution, "_with_fewer_products", convolution.by_products)], {}),
        "time_sums": (stem, [patch(cpu, "time_sums", lambda x: x.sum(1))], {}),
        "in_turn": (grouped, [patch(cpu, "in_turn", lambda f, *arrays: jax.vmap(f)(*arrays))], {}),
        "forward_options": (embedding, [], cpu.forward_options("cpu")),
    }


def figure(trick: str) -> dict[str, Any]:
    """The two times and their ratio."""
    make, patches, options = _cases()[trick]
    function, arguments = make()
    programs = [_compiled(function, arguments, [], options), _compiled(function, arguments, patches, {})]
    times: list[list[tuple[float, float]]] = [[], []]
    for turn in range(TURNS):
        for k in (0, 1) if turn % 2 else (1, 0):
            wall, used = time.perf_counter(), time.process_time()
            jax.block_until_ready(programs[k](*arguments))
            times[k].append((time.perf_counter() - wall, time.process_time() - used))
    medians = np.median(times[1:], axis=1)[0] / np.median(times[:1], axis=1)[0]
    seconds = round(float(np.median([wall for wall, _ in times[0]])), 3)
    return {"trick": trick, "seconds": seconds, **dict(zip(("ratio", "cpu_ratio"), medians.round(3).tolist()))}


def _compiled(function: Callable, arguments: tuple, patches: list[Any], options: dict[str, str]) -> Callable:
    with contextlib.ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        jax.clear_caches()  # functions traced before do not see the patches
        program = jax.jit(lambda *args: function(*args)).lower(*arguments).compile(options or None)
    jax.block_until_ready(program(*arguments))
    return program


if __name__ == "__main__":
    for name in sys.argv[1:] or _cases():
        print(json.dumps(figure(name)), flush=True)
