"""Speed of each implementation of attention, by itself, at the lengths that clips have."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import measuring
from voc2vec_jax import errors
from voc2vec_jax.models import flops
from voc2vec_jax.ops import attention as attention_ops
from voc2vec_jax.ops import dropout

HEAD_WIDTH = 64
TOTAL = {"cpu": 2_000}  # frames of all rows together, by platform
TOTAL_ELSEWHERE = 64_000


@dataclasses.dataclass(frozen=True)
class AttentionBenchmark:
    """What to measure: for each length in `frames`, as many rows as hold about `total` frames (0: by platform)."""

    frames: tuple[int, ...] = (50, 150, 500, 1000, 1500)
    heads: int = 12
    total: int = 0
    dropout: float = 0.0
    dtype: str = "float32"
    passes: int = 3


def figures(settings: AttentionBenchmark) -> Iterator[dict[str, Any]]:
    """For every length and implementation, in turns: the forward pass, and the forward and backward pass.

    "error" is the largest difference from the forward pass in float32, divided by its largest value. An implementation
    that this machine or these settings rule out has a "not_measured" with the reason.
    """
    check(settings)
    rate = measuring.matmul_rate(settings.dtype)
    common = {"heads": settings.heads, "dropout": settings.dropout, **measuring.machine(settings.dtype)}
    yield {"figure": "attention matmul rate", "gflop_per_second": round(rate / 1e9, 1), **common}
    total = settings.total or TOTAL.get(jax.default_backend(), TOTAL_ELSEWHERE)
    for frames in settings.frames:
        rows = max(1, total // frames)
        yield from _at_length(settings, rows, frames, rate, {"frames": frames, "rows": rows, **common})


def check(settings: AttentionBenchmark) -> None:
    """InputError for settings that cannot be measured."""
    if min((*settings.frames, settings.heads, settings.passes)) < 1 or settings.total < 0:
        raise errors.InputError(
            f"--frames={','.join(map(str, settings.frames))} --heads={settings.heads} --total={settings.total} "
            f"--passes={settings.passes}: give 1 or more (as total 0 for the default)"
        )
    if not 0 <= settings.dropout < 1:
        raise errors.InputError(f"--dropout={settings.dropout:g}: give 0 or more and under 1")


def _at_length(
    settings: AttentionBenchmark, rows: int, frames: int, rate: float, common: dict
) -> Iterator[dict[str, Any]]:
    keys = jax.random.split(jax.random.key(0), 4)
    shape = (rows, frames, settings.heads, HEAD_WIDTH)
    arrays = [jax.random.normal(key, shape, settings.dtype) for key in keys[:3]]
    arrays[0] = arrays[0] * HEAD_WIDTH**-0.5
    lengths = jnp.full((rows,), frames)
    row_keys = jax.random.split(keys[3], rows)
    exact = [x.astype(jnp.float32) for x in arrays]
    with jax.default_matmul_precision("highest"):
        wanted = np.asarray(jax.jit(_plain)(*exact, lengths))
        runs, refused = {}, {}
        for name in attention_ops.IMPLEMENTATIONS:
            try:
                attention_ops.check(name, settings.dtype, settings.dropout > 0)
                runs[name] = _compiled(name, arrays, lengths, row_keys, settings.dropout)
            except (errors.InputError, jax.errors.JaxRuntimeError, RuntimeError, ValueError) as fault:
                refused[name] = str(fault).strip().splitlines()[0]
        turns = [
            {name: [measuring.steady_seconds(_repeat(f, arrays), 0.2) for f in both] for name, both in runs.items()}
            for _ in range(settings.passes)
        ]
    operations = 4.0 * math.prod(shape) * frames
    for name, (forward, _) in runs.items():
        seconds = np.median([turn[name] for turn in turns], axis=0)
        found = np.asarray(forward(*arrays)).astype(np.float32)
        error = {} if settings.dropout else {"error": float(np.abs(found - wanted).max() / np.abs(wanted).max())}
        yield {
            "figure": f"attention {name}",
            "forward_seconds": float(f"{seconds[0]:.3g}"),
            "gradient_seconds": float(f"{seconds[1]:.3g}"),
            "share_of_matmul_rate": round(operations / seconds[0] / rate, 3),
            "gradient_share": round((1 + flops.BACKWARD) * operations / seconds[1] / rate, 3),
            "temporary_mb": round(runs[name][1].memory_analysis().temp_size_in_bytes / 1e6, 1),
            "passes": settings.passes,
            **error,
            **common,
        }
    for name, why in refused.items():
        yield {"figure": f"attention {name}", "not_measured": why, **common}


def _plain(query: Any, key: Any, value: Any, lengths: Any) -> Any:
    return attention_ops.attend(query, key, value, None, None, lengths, None, None, "plain")


def _compiled(name: str, arrays: list, lengths: Any, keys: Any, share: float) -> tuple[Any, Any]:
    """The forward pass, and the gradients of all three arrays from a cotangent that varies."""

    def forward(query, key, value):
        if name not in attention_ops.OWN:
            return attention_ops.by_library(query, key, value, None, None, lengths, name)
        drops = dropout.rule(share)
        key_data = None if drops is None else jax.random.key_data(keys)
        return attention_ops.attend(query, key, value, None, None, lengths, key_data, drops, name)

    def loss(*arrays):
        out = forward(*arrays).astype(jnp.float32)
        return jnp.sum(out * out)

    gradient = jax.grad(loss, (0, 1, 2))
    return tuple(jax.jit(f).lower(*arrays).compile() for f in (forward, gradient))


def _repeat(compiled: Callable, arrays: list) -> Callable[[int], None]:
    def run(count: int) -> None:
        for _ in range(count):
            out = compiled(*arrays)
        jax.block_until_ready(out)

    return run
