"""How much arithmetic a model is: the operations of its matrix products, by part, and the rate of this machine.

Only products count (a multiplication and an addition are two operations), as is usual for model FLOPs: norms,
activations, softmax and dropout are left out, whatever they cost.
"""

import math
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from benchmarks import measuring

from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.ops import masking

PARTS = ("conv stem", "projection", "positional conv", "blocks", "objective")
BACKWARD = 2  # a product's gradient is two products of its size
MATMUL_SIZES = ((4096, 768, 3072), (2048, 2048, 2048), (8192, 1024, 4096))  # rows, inner, columns
MATMUL_SIZES_ELSEWHERE = ((8192, 8192, 8192), (16384, 4096, 4096), (16384, 1024, 4096))  # of accelerators
BURST_SECONDS = 0.05  # of products that are waited for together


def forward(config: Any, samples: int) -> dict[str, float]:
    """Operations of one clip's forward pass, by part of the model; `config` is a family's.

    The objective is that of wav2vec 2.0 (quantizer, projections, every pair of masked frames) and 0 for families
    without one.
    """
    e = config.encoder
    t = e.frames(samples)
    pairs = 2 * t * t * e.width * 2
    linear = 2 * t * (4 * e.width**2 + 2 * e.width * e.inner_width)
    return {
        "conv stem": sum(_stem(e, samples)),
        "projection": 2.0 * t * e.conv_channels[-1] * e.width,
        "positional conv": 2.0 * t * e.positional_kernel * e.width**2 / e.positional_groups * e.positional_depth,
        "blocks": float(e.depth * (linear + pairs)),
        "objective": _objective(config, t),
    }


def training(config: Any, samples: int) -> dict[str, float]:
    """Operations of one clip's forward and backward pass, by part: the audio itself needs no gradient."""
    parts = {name: (1 + BACKWARD) * count for name, count in forward(config, samples).items()}
    parts["conv stem"] -= _stem(config.encoder, samples)[0]
    return parts


def _stem(e: encoders.EncoderConfig, samples: int) -> list[float]:
    operations, fan_in = [], 1
    for i, (channels, kernel) in enumerate(zip(e.conv_channels, e.conv_kernels)):
        t = masking.frame_lengths(samples, e.conv_kernels[: i + 1], e.conv_strides[: i + 1])
        operations.append(2.0 * t * kernel * fan_in * channels)
        fan_in = channels
    return operations


def _objective(config: Any, t: int) -> float:
    if not hasattr(config, "codebook_groups"):
        return 0.0
    m, v = config.masked_bound(t), config.codebook_entries * config.codebook_groups
    quantizer = v * config.encoder.conv_channels[-1] + v * config.codebook_width / config.codebook_groups
    projections = (config.codebook_width + config.encoder.width) * config.target_width
    return 2.0 * m * (quantizer + projections + m * config.target_width)


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
