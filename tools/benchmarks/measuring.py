"""What every benchmark measures and says in the same way: time, memory, the machine."""

import math
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measuring

RECIPE = pathlib.Path(__file__).parents[2] / "configs" / "voc125.py"
WARMING = 2  # steps before those that count
TURN_SECONDS = 1.0  # that a turn of something quick lasts at least, so that starting and waiting count little


def seconds_of(call: Callable[[], Any]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def steady_seconds(run: Callable[[int], Any], turn_seconds: float = TURN_SECONDS) -> float:
    """How long one of the steps takes that `run(count)` makes and waits for, right after others, as in training.

    Those before are not counted: memory that the system took back during the other side's turn is fetched anew. Of
    quick steps as many are made as fill `turn_seconds`.
    """
    for _ in range(WARMING):
        run(1)
    once = seconds_of(lambda: run(1))
    count = math.ceil(turn_seconds / once)
    return once if count <= 1 else seconds_of(lambda: run(count)) / count


def speed(times: Sequence[float], audio_seconds: float, operations: float, rate: float) -> dict[str, Any]:
    """The figures of one side's turns of `times` seconds each, and how busy the machine was.

    Each turn computes `audio_seconds` of audio in `operations` of matrix products, which the machine does at `rate`.
    """
    median = float(np.median(times))
    return {
        "audio_seconds_per_second": round(audio_seconds / median, 2),
        "best": round(audio_seconds / min(times), 2),
        "spread": round(max(times) / min(times), 2),
        "model_gflop": round(operations / 1e9, 3),
        "share_of_matmul_rate": round(operations / median / rate, 3),
        "passes": len(times),
        "load": round(os.getloadavg()[0], 1),
    }


def machine(dtype: str) -> dict[str, str | int]:
    """Where, and in what type, it was measured."""
    return {
        "dtype": dtype,
        "device": jax.devices()[0].device_kind,
        "cpus": len(os.sched_getaffinity(0)),
        "jax": jax.__version__,
    }


def memory_held(process_peak_bytes: int) -> dict[str, int]:
    """The most memory that this process has held, and where JAX tells, its device's arrays; in MB."""
    stats = jax.devices()[0].memory_stats() or {}
    device = {"peak_mb": round(stats["peak_bytes_in_use"] / 1e6)} if "peak_bytes_in_use" in stats else {}
    return {"process_peak_mb": round(process_peak_bytes / 1e6), **device}


MATMUL_SIZES = ((4096, 768, 3072), (2048, 2048, 2048), (8192, 1024, 4096))  # rows, inner, columns


MATMUL_SIZES_ELSEWHERE = ((8192, 8192, 8192), (16384, 4096, 4096), (16384, 1024, 4096))  # of accelerators


BURST_SECONDS = 0.05  # of products that are waited for together


def matmul_rate(dtype: str, sizes: Sequence[tuple[int, int, int]] = (), seconds: float = 0.5) -> float:
    """Operations per second of the best of these matrix products on one device, each tried for `seconds`.

    The sizes are by default such as the device is fastest at. The numbers are random: of constants some devices make
    less work.
    """
    sizes = sizes or (MATMUL_SIZES if jax.default_backend() == "cpu" else MATMUL_SIZES_ELSEWHERE)
    return max(_rate(size, dtype, seconds) for size in sizes)


def _rate(size: tuple[int, int, int], dtype: str, seconds: float) -> float:
    rows, inner, columns = size
    precision = "highest" if dtype == "float32" else "default"
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))
    a, b = (jax.random.normal(jax.random.key(0), shape, dtype) for shape in ((rows, inner), (inner, columns)))

    def burst(count):
        jax.block_until_ready([product(a, b) for _ in range(count)])

    burst(1)
    count = max(4, math.ceil(BURST_SECONDS / measuring.seconds_of(lambda: burst(1))))
    best, end = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        best = min(best, measuring.seconds_of(lambda: burst(count)))
    return count * 2.0 * rows * inner * columns / best
