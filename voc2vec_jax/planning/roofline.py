"""The least time that a compiled program can take on a machine, from its counts and the machine's figures.

Each part is computed as if it ran alone at its best rate, and the longest is said to bind. Real programs take longer:
rates are not reached, and parts wait for each other. The figures are for comparing programs and machines.
"""

import dataclasses

from voc2vec_jax.planning import chips, counts


@dataclasses.dataclass(frozen=True)
class Work:
    """What one run of a program computes."""

    flops: float  # operations of matrix products, on all devices
    audio_seconds: float  # on all devices
    dtype: str  # of the computation
    precision: str  # `matmul_precision`


def seconds(chip: chips.Chip, devices: int, work: Work, counted: counts.Counts) -> dict[str, float]:
    """Seconds that each part takes at least: arithmetic, memory, collectives and, on TPUs, cycles."""
    near = sum(one.times * one.sent_bytes for one in counted.collectives if one.near) * chip.devices
    far = sum(one.times * one.sent_bytes for one in counted.collectives if not one.near) * chip.devices
    parts = {
        "arithmetic": work.flops / devices / chip.flops(work.dtype, work.precision),
        "memory": counted.traffic_bytes * chip.devices / chip.memory_bandwidth,
        "collectives": near / chip.link_bandwidth + far / chip.network_bandwidth,
    }
    if counted.cycles and chip.clock_hz:
        parts["cycles"] = counted.cycles / chip.clock_hz + kernel_seconds(chip, work, counted)
    return parts


def kernel_seconds(chip: chips.Chip, work: Work, counted: counts.Counts) -> float:
    """The least that the kernels take of which XLA estimates no cycles, from the costs that they state."""
    products = counted.kernel_flops / chip.flops(work.dtype, work.precision)
    return max(products, counted.kernel_bytes * chip.devices / chip.memory_bandwidth)


def binding(parts: dict[str, float]) -> str:
    """The part that takes longest."""
    return max(parts, key=parts.get)
