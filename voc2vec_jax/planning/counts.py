"""All that is counted in the text of a compiled program: traffic, cycles, collectives, loops."""

import collections
import dataclasses
from collections.abc import Sequence

from voc2vec_jax.planning import collectives, hlo, loops, traffic

_CYCLES = r'"estimated_cycles":"(\d+)"'
_STATED = r'"cost_estimate":\{[^}]*"%s":"(\d+)"'
_NO_ESTIMATE = 2**40  # XLA writes the largest integer where it has none


@dataclasses.dataclass(frozen=True)
class Counts:
    """Of one device and one run of a program, estimated from its text."""

    traffic_bytes: int  # read from and written to main memory
    cycles: int | None  # XLA:TPU's own estimates, summed; None of other compilers
    kernels: int  # kernels that run, of which XLA estimates no cycles
    collectives: tuple[collectives.Collective, ...]
    unknown_loops: int  # loops whose turns the text does not tell: counted as one
    traffic_of: dict[str, int]  # by name in the source
    cycles_of: dict[str, int]
    kernel_flops: int = 0  # of those kernels, as their authors state them
    kernel_bytes: int = 0


def count(text: str, near: Sequence[int] = (0,)) -> Counts:
    """The counts of an optimized program; `near[i]` is the slice or host of the i-th device of its mesh."""
    program = hlo.parse(text)
    bytes_of, cycles_of = collections.Counter(), collections.Counter()
    kernels, unknown = collections.Counter(), set()
    for step in loops.walk(program):
        one = step.instruction
        bytes_of[one.label] += step.times * traffic.moved(program, one, step.place.computation)
        cycles = int(one.attribute(_CYCLES) or 0)
        if cycles < _NO_ESTIMATE:
            cycles_of[one.label] += step.times * cycles
        if one.attribute(r'custom_call_target="([^"]*)"') == "tpu_custom_call" and not cycles:
            kernels["calls"] += step.times
            for what in ("flops", "bytes_accessed"):
                kernels[what] += step.times * int(one.attribute(_STATED % what) or 0)
        if not step.counted:
            unknown.add(step.place.computation.name)
    total = sum(cycles_of.values())
    return Counts(
        traffic_bytes=sum(bytes_of.values()),
        cycles=total or None,
        kernels=kernels["calls"],
        collectives=tuple(collectives.found(program, near)),
        unknown_loops=len(unknown),
        traffic_of=dict(bytes_of),
        cycles_of=dict(cycles_of),
        kernel_flops=kernels["flops"],
        kernel_bytes=kernels["bytes_accessed"],
    )
