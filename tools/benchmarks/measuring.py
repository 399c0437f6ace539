"""What every benchmark measures and says in the same way: time, memory, the machine."""

import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

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
