"""Checks the opcodes of a pickle before `pickle.Unpickler` runs them.

The unpickler trusts the numbers in a file: one memo index makes it allocate gigabytes, and a nested tuple that a file
uses as a key takes it years to hash. `check` follows the stack and the memo without building any value; what it lets
through costs memory and time in proportion to its length.
"""

import io
import pickletools
from typing import Any, NamedTuple

from voc2vec_jax import errors

# A checkpoint has about 40 opcodes, 8 containers and 20 elements of calls for each tensor
MOST_OPCODES = 1_000_000
MOST_CONTAINERS = 250_000  # and objects: each takes some hundred bytes
MOST_COPIED = 1_000_000  # elements of tuples that calls copy
MOST_ARGUMENTS = 32
LONGEST_KEY = 4096
LONGEST_NAME = 256  # of a module or a class
MOST_BITS = 16384
MOST_LONG_INTEGERS = 1000  # above 64 bits; these can be chosen to collide in a dict, which is quadratic

_PUTS = frozenset(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"))
_GETS = frozenset(("GET", "BINGET", "LONG_BINGET"))
_CALLS = frozenset(("REDUCE", "NEWOBJ"))
_BUILT = """
MARK GLOBAL STACK_GLOBAL BINPERSID EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST EMPTY_DICT DICT EMPTY_SET
"""
_OTHERS = """
PROTO FRAME STOP POP NONE NEWTRUE NEWFALSE BUILD
INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT
UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8
APPEND APPENDS SETITEM SETITEMS ADDITEMS
"""
_CONTAINERS = _CALLS | set(_BUILT.split())
_ALLOWED = _PUTS | _GETS | _CONTAINERS | set(_OTHERS.split())
_FRAME_BYTES = 9


class _Effect(NamedTuple):
    """What an opcode does to the stack: whether it takes all above a mark, how many below, and what it leaves."""

    marked: bool
    below: int
    leaves: tuple[bool, ...]  # for each value left, whether it is a tuple


def _effect(opcode: pickletools.OpcodeInfo) -> _Effect:
    before = opcode.stack_before
    marked = pickletools.markobject in before
    below = before.index(pickletools.markobject) if marked else len(before)
    return _Effect(marked, below, tuple(kind is pickletools.pytuple for kind in opcode.stack_after))


_EFFECTS = {opcode.name: _effect(opcode) for opcode in pickletools.opcodes if opcode.name in _ALLOWED}


def check(data: Any, origin: str) -> bytes:
    """The pickle in `data`, bytes or a mapped file from its position on, without its FRAME opcodes, which only help to
    read from slow files.

    With frames, the C unpickler may read other opcodes than `pickletools` does. Raises InputError for an opcode that
    no checkpoint needs, ValueError or LookupError for a pickle that is damaged or over a limit.
    """
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    stack, pieces, start, long_integers, containers = _Stack(), [], stream.tell(), 0, 0
    for count, (opcode, argument, position) in enumerate(pickletools.genops(stream), 1):
        name = opcode.name
        if name not in _ALLOWED:
            raise errors.InputError(f"{origin}: its pickle has the opcode {name}, which is refused")
        containers += name in _CONTAINERS
        if count > MOST_OPCODES or containers > MOST_CONTAINERS:
            raise ValueError(f"more than {MOST_OPCODES} opcodes or {MOST_CONTAINERS} containers")
        if type(argument) is int and argument.bit_length() > 64:
            long_integers += 1
            if argument.bit_length() > MOST_BITS or long_integers > MOST_LONG_INTEGERS:
                raise ValueError(f"more than {MOST_LONG_INTEGERS} integers of over 64 bits, or one over {MOST_BITS}")
        if name == "FRAME":
            pieces.append(data[start:position])
            start = position + _FRAME_BYTES
            if argument > len(data) - start:
                raise ValueError(f"a frame of {argument} bytes that ends behind the file")
        stack.follow(name, argument)
    return b"".join((*pieces, data[start : stream.tell()]))


class _Stack:
    """An unpickler's stack and memo, with each value reduced to what makes it dangerous.

    A tuple is its length, a text or bytes -1 less its length, and any other value is None.
    """

    def __init__(self):
        self._values: list[int | None] = []
        self._outside: list[list[int | None]] = []  # what lies below each open mark
        self._memo: dict[int, int | None] = {}
        self._copied = 0

    def follow(self, name: str, argument: Any) -> None:
        """Applies one opcode."""
        if name == "MARK":
            self._outside.append(self._values)
            self._values = []
        elif name in _PUTS:
            self._put(len(self._memo) if argument is None else argument)
        elif name in _GETS:
            self._values.append(self._memo[argument])
        else:
            effect = _EFFECTS[name]
            taken = self._take(effect)
            if name in _CHECKED:
                self._copied += _check_taken(name, taken, argument)
                if self._copied > MOST_COPIED:
                    raise ValueError(f"calls that copy more than {MOST_COPIED} elements")
            for is_tuple in effect.leaves:
                self._values.append(len(taken) if is_tuple else _reduced(argument))

    def _put(self, index: int) -> None:
        if not 0 <= index <= len(self._memo):
            raise ValueError(f"the memo index {index} after {len(self._memo)} entries")
        self._memo[index] = self._values[-1]

    def _take(self, effect: _Effect) -> list[int | None]:
        """Removes an opcode's operands. Returns those above its mark; without a mark, all of them."""
        above: list[int | None] = []
        if effect.marked:
            above, self._values = self._values, self._outside.pop()
        if not effect.below:
            return above
        left = len(self._values) - effect.below
        if left < 0:
            raise LookupError("an empty stack")
        operands = self._values[left:]
        del self._values[left:]
        return above if effect.marked else operands


def _reduced(argument: Any) -> int | None:
    return -1 - len(argument) if isinstance(argument, (str, bytes)) else None


_CHECKED = _CALLS | {"SETITEM", "SETITEMS", "DICT", "ADDITEMS", "GLOBAL", "STACK_GLOBAL"}


def _check_taken(name: str, taken: list[int | None], argument: Any) -> int:
    """Raises ValueError for operands that cost more than their bytes; returns how many elements a call copies."""
    if name in _CALLS:
        if taken[1] is None or not 0 <= taken[1] <= MOST_ARGUMENTS:
            raise ValueError(f"a call without a tuple of at most {MOST_ARGUMENTS} arguments")
        return taken[1]
    if name in ("GLOBAL", "STACK_GLOBAL"):
        parts = [len(argument)] if name == "GLOBAL" else [-1 - part for part in taken if part is not None]
        if any(part > LONGEST_NAME for part in parts):
            raise ValueError(f"the name of a class with more than {LONGEST_NAME} characters")
        return 0
    keys = {"SETITEM": taken[1:2], "SETITEMS": taken[::2], "DICT": taken[::2], "ADDITEMS": taken}[name]
    if any(key is not None and (key >= 0 or key < -1 - LONGEST_KEY) for key in keys):
        raise ValueError(f"a tuple or more than {LONGEST_KEY} characters as a key")
    return 0
