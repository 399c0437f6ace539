"""Walk a program as it runs: every instruction with the number of times that it runs."""

import dataclasses
import functools
from collections.abc import Iterator

from voc2vec_jax.planning import hlo, traffic

_TRIPS = r'"known_trip_count":\{"n":"?(\d+)'
_SAME = ("copy", "bitcast", "copy-start", "copy-done", "reshape", "optimization-barrier", "convert")


@dataclasses.dataclass(frozen=True)
class Place:
    """A computation where it runs. The body of a loop knows the loop, to follow its values outwards."""

    computation: hlo.Computation
    loop: hlo.Instruction | None = None
    outer: "Place | None" = None


@dataclasses.dataclass(frozen=True)
class Step:
    """An instruction that runs `times` times."""

    instruction: hlo.Instruction
    place: Place
    times: int
    counted: bool  # False inside a loop whose number of turns the text does not tell, which counts as one


def walk(program: hlo.Program) -> Iterator[Step]:
    """All instructions that the entry runs; of a conditional, those of the branch that moves most bytes."""
    yield from _walk(program, Place(program.entry), 1, True)


def _walk(program: hlo.Program, place: Place, times: int, counted: bool) -> Iterator[Step]:
    for one in place.computation.instructions:
        if one.opcode == "while":
            turns = trips(program, one, place)
            body = Place(program.computations[one.called[0]], one, place)
            yield from _walk(program, body, times * (1 if turns is None else turns), counted and turns is not None)
        elif one.opcode == "conditional":
            branches = [list(_walk(program, Place(program.computations[name]), times, counted)) for name in one.called]
            yield from max(branches, key=functools.partial(_moved, program))
        elif one.opcode in ("call", "async-start"):
            for name in one.called:
                yield from _walk(program, Place(program.computations[name]), times, counted)
        else:
            yield Step(one, place, times, counted)


def _moved(program: hlo.Program, steps: list[Step]) -> int:
    return sum(step.times * traffic.moved(program, step.instruction, step.place.computation) for step in steps)


def trips(program: hlo.Program, loop: hlo.Instruction, place: Place) -> int | None:
    """The turns of a loop: as XLA states them, else from its condition `i < n`; None if neither tells."""
    stated = loop.attribute(_TRIPS)
    if stated:
        return int(stated)
    condition = program.computations[loop.attribute(r"condition=%?([\w.\-]+)")]
    inside = Place(condition, loop, place)
    sides = _compared(program, condition)
    if sides is None:
        return None
    counter, bound = (constant(name, inside) for name in sides)
    return None if bound is None else max(0, bound - (counter or 0))


def _compared(program: hlo.Program, condition: hlo.Computation) -> tuple[str, str] | None:
    """The names of i and n in a condition i < n, which may be a fusion of its own."""
    root = condition.root
    if root.opcode == "fusion":
        inner = program.computations[root.called[0]]
        names = {one.name: root.operands[number] for number, one in inner.parameters.items()}
        compare = inner.root
        if any(name not in names for name in compare.operands):
            return None
        return _sides(compare, tuple(names[name] for name in compare.operands))
    return _sides(root, root.operands)


def _sides(compare: hlo.Instruction, names: tuple[str, ...]) -> tuple[str, str] | None:
    direction = compare.attribute(r"direction=([A-Z]+)")
    if compare.opcode != "compare" or direction not in ("LT", "GT"):
        return None
    return names if direction == "LT" else names[::-1]


def constant(name: str, place: Place | None, index: tuple[int, ...] = ()) -> int | None:
    """The integer that a value is, followed through copies, tuples and the arguments of loops; None if it is none.

    `index` is the element of a tuple that is asked for, from the outermost tuple inwards. Of a value that a loop
    carries, it is the first.
    """
    while place is not None:
        one = place.computation.by_name.get(name)
        if one is None:
            return None
        if one.opcode == "constant":
            return int(one.arguments) if one.arguments.lstrip("-").isdecimal() else None
        if one.opcode == "get-tuple-element":
            index = (int(one.attribute(r"index=(\d+)")), *index)
        elif one.opcode == "tuple" and index:
            name, index = one.operands[index[0]], index[1:]
            continue
        elif one.opcode == "parameter":
            if place.loop is None:
                return None
            name, place = place.loop.operands[0], place.outer
            continue
        elif one.opcode not in _SAME:
            return None
        name = one.operands[0]
    return None
