"""What the devices of a program send each other: kind, times, bytes, and how many take part."""

import dataclasses
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

from voc2vec_jax.planning import hlo, loops

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute")
KINDS += ("collective-broadcast",)


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction, which runs `times` times. `payload_bytes` are of the whole array, a time."""

    kind: str
    dtypes: str  # of what is sent, such as "f32" or "bf16+f32"
    times: int
    payload_bytes: int
    group: int  # devices that take part with each other
    near: bool  # whether all links between them are those within a slice or host
    label: str

    @property
    def sent_bytes(self) -> float:
        """Bytes that a device sends at least, a time: of a ring of the group."""
        if self.kind == "collective-permute":
            return float(self.payload_bytes)
        share = (self.group - 1) / self.group
        return self.payload_bytes * share * (2 if self.kind == "all-reduce" else 1)


def found(program: hlo.Program, near: Sequence[int]) -> Iterator[Collective]:
    """All collectives of a program; `near[i]` is the slice or host of the i-th device of its mesh."""
    for step in loops.walk(program):
        one = step.instruction
        for inside in _inside(program, one):
            kind = inside.opcode.removesuffix("-start")
            if kind in KINDS:
                yield _collective(kind, inside, step.times, near)


def _inside(program: hlo.Program, one: hlo.Instruction) -> Iterator[hlo.Instruction]:
    """An instruction, or of a fusion all that it holds: XLA:TPU fuses collectives with the products beside them."""
    if one.opcode != "fusion":
        yield one
        return
    for inner in program.computations[one.called[0]].instructions:
        yield from _inside(program, inner)


def _collective(kind: str, one: hlo.Instruction, times: int, near: Sequence[int]) -> Collective:
    type_ = one.type
    if one.opcode.endswith("-start") and kind != "all-reduce" and not isinstance(type_, hlo.ArrayType):
        type_ = type_[1]
    arrays = list(hlo.arrays(type_))
    groups = groups_of(one.attributes, len(near))
    group = max(map(len, groups))
    # The whole array is the operand of a reduce-scatter, and the result of the others.
    scale = group if kind == "reduce-scatter" else 1
    return Collective(
        kind=kind,
        dtypes="+".join(sorted({array.dtype for array in arrays if array.sizes} or {array.dtype for array in arrays})),
        times=times,
        payload_bytes=scale * sum(array.plain_bytes for array in arrays),
        group=group,
        near=all(len({near[device] for device in of}) == 1 for of in groups),
        label=one.label,
    )


def groups_of(attributes: str, devices: int) -> list[list[int]]:
    """The groups of devices within which a collective works, in any of the forms in which XLA writes them."""
    if pairs := re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", attributes):
        return [list(map(int, pair.split(","))) for pair in re.findall(r"\{(\d+,\d+)\}", pairs[1])] or [[0]]
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, *device_ids=\([^)]*\))? *\{([^}]*)\}", attributes):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']*)'=(\d+)", mesh[1])}
        over = re.findall(r"'([^']*)'", mesh[2])
        names = [name for name in sizes if name not in over] + over
        grid = np.arange(math.prod(sizes.values())).reshape(*sizes.values())
        grid = grid.transpose([list(sizes).index(name) for name in names])
        return grid.reshape(-1, math.prod(sizes[name] for name in over)).tolist()
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes):
        grid = np.arange(devices).reshape([int(size) for size in iota[3].split(",")])
        grid = grid.transpose([int(axis) for axis in iota[4].split(",")]) if iota[4] else grid
        return grid.reshape(int(iota[1]), int(iota[2])).tolist()
    if listed := re.search(r"replica_groups=\{((?:\{[\d,]*\},?)+)\}", attributes):
        return [list(map(int, group.split(","))) for group in re.findall(r"\{([\d,]+)\}", listed[1])]
    return [list(range(devices))]
