"""Bytes that a program moves between main memory and the device, by what its instructions read and write.

An estimate: every instruction that runs reads each operand once and writes its result once. Caches save some of it, and
a fusion that reads an operand twice costs more. Counted less than whole:

    slice, dynamic-slice, gather      what is taken
    dynamic-update-slice, scatter     what is put in; the array itself stays where it is
    the same inside a fusion          of the operands that are used in no other way
"""

import dataclasses
from collections.abc import Iterator

from voc2vec_jax.planning import hlo

_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}
_FREE |= {"opt-barrier", "optimization-barrier", "domain", "add-dependency", "async-update", "rng-get-and-update-state"}
# Buffers and bitcasts of XLA:TPU that look like calls.
_FREE_CALLS = {"AllocateBuffer", "ConcatBitcast", "AssumeGatherIndicesInBound", "GatherScatterIndicesBitpacked"}
_TAKING = ("slice", "dynamic-slice", "gather")
_VIEWS = ("bitcast", "reshape", "get-tuple-element")


def moved(program: hlo.Program, one: hlo.Instruction, within: hlo.Computation) -> int:
    """Bytes that an instruction of a computation reads and writes in main memory."""
    opcode = one.opcode
    if opcode in _FREE or opcode.endswith("-done"):
        return 0
    if opcode == "custom-call" and one.attribute(r'custom_call_target="([^"]*)"') in _FREE_CALLS:
        return 0
    types = [within.by_name[name].type for name in dict.fromkeys(one.operands) if name in within.by_name]
    if opcode == "fusion":
        return _fusion(program, one, within)
    if opcode.endswith("-start"):
        return _started(opcode.removesuffix("-start"), one, types)
    return _plain(opcode, one.type, types)


def _plain(opcode: str, result: hlo.Type, operands: list[hlo.Type]) -> int:
    written = hlo.size(result)
    if opcode in _TAKING:
        return written + (_as_stored_in(operands[0], result) if operands else 0)
    if opcode == "dynamic-update-slice":
        # The written part is as large as the update, but lies where the array lies.
        return hlo.size(operands[1]) + _as_stored_in(operands[0], operands[1])
    if opcode == "scatter":
        arrays = list(map(hlo.size, operands))
        indices = len(arrays) // 2
        # Read the updates, and read and write the entries that they go to.
        return arrays[indices] + 3 * sum(arrays[indices + 1 :])
    return written + sum(map(hlo.size, operands))


def _as_stored_in(array: hlo.Type, part: hlo.Type) -> int:
    """The bytes of a part where the array lies: none on the chip."""
    if any(one.on_chip for one in hlo.arrays(array)):
        return 0
    sizes = (one if not one.on_chip else dataclasses.replace(one, on_chip=False) for one in hlo.arrays(part))
    return min(sum(one.bytes for one in sizes), hlo.size(array))


def _started(opcode: str, one: hlo.Instruction, operands: list[hlo.Type]) -> int:
    """An instruction that runs in the background, `copy-start` to `copy-done`; its type names operands and result."""
    parts = one.type
    if opcode == "copy":
        return hlo.size(parts[0]) + hlo.size(parts[1])
    # all-reduce-start has its result's own type; of the others the second part is the result.
    result = parts if opcode == "all-reduce" or isinstance(parts, hlo.ArrayType) else parts[1]
    return _plain(opcode, result, operands)


def _fusion(program: hlo.Program, one: hlo.Instruction, within: hlo.Computation) -> int:
    body = program.computations[one.called[0]]
    total, in_place = 0, set()
    for output in _outputs(body):
        written, kept = _written(program, body, output)
        total += written
        in_place |= kept
    for number, operand in enumerate(one.operands):
        parameter = body.parameters.get(number)
        if parameter is None or operand not in within.by_name:
            continue
        if parameter.name in in_place:
            total += _read_beside_update(program, body, parameter)
        else:
            total += _read(program, body, parameter, within.by_name[operand].type)
    return total


def _outputs(body: hlo.Computation) -> list[hlo.Instruction]:
    root = body.root
    return [body.by_name[name] for name in root.operands] if root.opcode == "tuple" else [root]


def _written(program: hlo.Program, body: hlo.Computation, output: hlo.Instruction) -> tuple[int, set[str]]:
    """Bytes written of one result of a fusion, and the parameters that it updates in place."""
    source = output
    while source.opcode in _VIEWS and source.operands:
        source = body.by_name[source.operands[0]]
    if source.opcode == "dynamic-update-slice":
        array, update = (body.by_name[name] for name in source.operands[:2])
        while array.opcode in _VIEWS and array.operands:
            array = body.by_name[array.operands[0]]
        if array.opcode == "parameter":
            return _as_stored_in(output.type, update.type), {array.name}
    if source.opcode == "fusion":
        inner = program.computations[source.called[0]]
        total, kept = 0, set()
        for one in _outputs(inner):
            written, names = _written(program, inner, one)
            total += written
            numbers = [number for number, parameter in inner.parameters.items() if parameter.name in names]
            kept |= {source.operands[number] for number in numbers}
        if kept & {one.name for one in body.parameters.values()}:
            return total, kept
    return hlo.size(output.type), set()


def _uses(body: hlo.Computation, name: str) -> Iterator[tuple[hlo.Instruction, str]]:
    """(instruction, name under which it uses the value) of all uses, through views of it."""
    for user in body.users.get(name, ()):
        if user.opcode in _VIEWS:
            yield from _uses(body, user.name)
        else:
            yield user, name


def _read(program: hlo.Program, body: hlo.Computation, parameter: hlo.Instruction, stored: hlo.Type) -> int:
    """Bytes that a fusion reads of a parameter: of slices alone what they take, at most all."""
    whole, taken = hlo.size(stored), 0
    if body.root is parameter:
        return whole
    for user, name in _uses(body, parameter.name):
        if user.opcode in _TAKING and user.operands[0] == name and name not in user.operands[1:]:
            taken += _as_stored_in(stored, user.type)
        elif user.opcode == "fusion":
            inner = program.computations[user.called[0]]
            numbers = [number for number, operand in enumerate(user.operands) if operand == name]
            taken += sum(_read(program, inner, inner.parameters[number], stored) for number in numbers)
        else:
            return whole
    return min(taken, whole)


def _read_beside_update(program: hlo.Program, body: hlo.Computation, parameter: hlo.Instruction) -> int:
    """Bytes read of a parameter that is updated in place: of its other uses."""
    taken = 0
    for user, name in _uses(body, parameter.name):
        if user.opcode == "dynamic-update-slice" and user.operands[0] == name:
            continue
        if user.opcode in _TAKING:
            taken += _as_stored_in(parameter.type, user.type)
        elif user.opcode != "fusion":
            return hlo.size(parameter.type)
    return min(taken, hlo.size(parameter.type))
