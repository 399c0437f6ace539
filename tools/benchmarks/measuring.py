"""What all benchmarks share: timing, memory, the machine, and its rate of matrix products."""

import math
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

RECIPE = pathlib.Path(__file__).parents[2] / "configs" / "voc125.py"
WARM_UP_STEPS = 2  # run before each measurement, not counted
MIN_MEASUREMENT_SECONDS = 1.0  # fast steps repeat until this is filled, so that start-up and waiting weigh little
# Rows, inner size, columns. These sizes are the fastest that CPUs and accelerators were found to run.
CPU_MATMUL_SIZES = ((4096, 768, 3072), (2048, 2048, 2048), (8192, 1024, 4096))
ACCELERATOR_MATMUL_SIZES = ((8192, 8192, 8192), (16384, 4096, 4096), (16384, 1024, 4096))
BURST_SECONDS = 0.05  # products dispatched together before the host waits


def seconds_of(call: Callable[[], Any]) -> float:
    """Seconds that one call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def steady_seconds(run: Callable[[int], Any], least_seconds: float = MIN_MEASUREMENT_SECONDS) -> float:
    """Seconds for one step in the middle of a run; `run(count)` runs that many steps and waits for them.

    The warm-up pages memory back in after the other program ran. Fast steps repeat until `least_seconds` are filled.
    """
    for _ in range(WARM_UP_STEPS):
        run(1)
    once = seconds_of(lambda: run(1))
    count = math.ceil(least_seconds / once)
    return once if count <= 1 else seconds_of(lambda: run(count)) / count


def speed(times: Sequence[float], audio_seconds: float, operations: float, rate: float) -> dict[str, Any]:
    """Throughput over all measurements of one program, and how busy the machine was.

    Each measurement took one of `times` (in seconds) for `audio_seconds` of audio and `operations` in matrix products;
    `rate` is the machine's rate of products (`matmul_rate`).
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
    """The machine, and the type it computed in."""
    return {
        "dtype": dtype,
        "device": jax.devices()[0].device_kind,
        "cpus": len(os.sched_getaffinity(0)),
        "jax": jax.__version__,
    }


def peak_bytes() -> int:
    """The most memory that this process has held so far; 0 where the system does not report it."""
    status = pathlib.Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def memory_held() -> dict[str, int]:
    """Peak memory of this process, and of its device where JAX reports it, in MB."""
    stats = jax.devices()[0].memory_stats() or {}
    device = {"peak_mb": round(stats["peak_bytes_in_use"] / 1e6)} if "peak_bytes_in_use" in stats else {}
    return {"process_peak_mb": round(peak_bytes() / 1e6), **device}


def matmul_rate(dtype: str, sizes: Sequence[tuple[int, int, int]] = (), seconds: float = 0.5) -> float:
    """Operations per second of the fastest of these products on one device; each is repeated for `seconds`.

    By default the sizes are the fastest for the platform. The numbers are random, because some devices save work on
    constants.
    """
    sizes = sizes or (CPU_MATMUL_SIZES if jax.default_backend() == "cpu" else ACCELERATOR_MATMUL_SIZES)
    return max(_rate(size, dtype, seconds) for size in sizes)


def _rate(size: tuple[int, int, int], dtype: str, seconds: float) -> float:
    rows, inner, columns = size
    precision = "highest" if dtype == "float32" else "default"
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))
    a, b = (jax.random.normal(jax.random.key(0), shape, dtype) for shape in ((rows, inner), (inner, columns)))

    def burst(count):
        jax.block_until_ready([product(a, b) for _ in range(count)])

    burst(1)
    count = max(4, math.ceil(BURST_SECONDS / seconds_of(lambda: burst(1))))
    best, end = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        best = min(best, seconds_of(lambda: burst(count)))
    return count * 2.0 * rows * inner * columns / best
