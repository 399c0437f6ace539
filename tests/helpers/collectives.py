"""The collectives of a compiled program, and how many bytes they carry, read from its text."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
_BYTES |= {"s64": 8, "u64": 8, "f64": 8}
_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_OPERATION = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:body|to_apply|calls|branch_computations|true_computation|false_computation)=\{?([^,}\s]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Collective(NamedTuple):
    """One collective: the type of each array of its result, their bytes, and whether a loop repeats it."""

    kind: str
    types: tuple[str, ...]
    size: int
    in_loop: bool


def every(text: str) -> list[Collective]:
    """The collectives of `compiled.as_text()`, each once, however often a loop repeats it."""
    parts = {name: body for name, (_, body) in _computations(text)}
    looped, waiting = set(), [line for body in parts.values() for line in body if " while(" in line]
    while waiting:
        new = {called.lstrip("%") for called in _CALLED.findall(waiting.pop())} - looped
        looped |= new
        waiting += [line for name in new for line in parts.get(name, ())]
    found = []
    for name, body in parts.items():
        for operation in filter(None, map(_OPERATION.search, body)):
            shapes = _result_shapes(operation)
            types = tuple(kind for kind, _ in shapes)
            found.append(Collective(operation[2], types, sum(_array_bytes(*x) for x in shapes), name in looped))
    return found


def result_bytes(text: str) -> dict[str, int]:
    """Bytes of the results of each kind of collective in one run of `compiled.as_text()`, of one device.

    A loop's body counts as often as the compiler knows it to run. What a device sends is less: a ring of n sends
    2 (n - 1) / n of an all-reduce's result, (n - 1) / n of an all-gather's, n - 1 times a reduce-scatter's.
    """
    parts = dict(_computations(text))
    entry = next(name for name, (is_entry, _) in parts.items() if is_entry)
    return _count(entry, {name: body for name, (_, body) in parts.items()}, {})


def _computations(text: str) -> Iterator[tuple[str, tuple[bool, list[str]]]]:
    """Name, whether it is the entry, and lines of each computation."""
    name, is_entry, body = None, False, []
    for line in text.splitlines():
        if found := _HEADER.match(line):
            is_entry, name, body = bool(found[1]), found[2], []
        elif line.startswith("}") and name:
            yield name, (is_entry, body)
        else:
            body.append(line)


def _count(name: str, parts: dict[str, list[str]], known: dict[str, dict[str, int]]) -> dict[str, int]:
    if name in known:
        return known[name]
    total = dict.fromkeys(KINDS, 0)
    for line in parts.get(name, ()):
        if found := _OPERATION.search(line):
            total[found[2]] += sum(_array_bytes(*shape) for shape in _result_shapes(found))
            continue
        trips = int(found[1]) if " while(" in line and (found := _TRIPS.search(line)) else 1
        for called in _CALLED.findall(line):
            for kind, size in _count(called.lstrip("%"), parts, known).items():
                total[kind] += trips * size
    known[name] = total
    return total


def _result_shapes(operation: re.Match) -> list[tuple[str, str]]:
    shapes = _SHAPE.findall(operation[1])
    if operation[3] and operation[2] != "all-reduce":  # of operands and of results
        return shapes[len(shapes) // 2 :]
    return shapes


def _array_bytes(kind: str, sizes: str) -> int:
    return _BYTES.get(kind, 4) * math.prod(int(size) for size in sizes.split(",") if size)
