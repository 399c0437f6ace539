"""Checks the opcodes of a pickle before `pickle.Unpickler` runs them.

The unpickler trusts the numbers in a file: one memo index makes it allocate gigabytes, and a nested tuple that a file
uses as a key takes it years to hash. `check` follows the stack and the memo without building any value; what it lets
through costs memory and time in proportion to its length.
"""

import pickletools
from collections.abc import Sequence
from typing import Any

from voc2vec_jax import errors

MOST_OPCODES = 1_000_000  # a checkpoint has about 40 for each tensor
MOST_ARGUMENTS = 32
LONGEST_KEY = 4096
MOST_BITS = 16384
MOST_LONG_INTEGERS = 1000  # above 64 bits; these can be chosen to collide in a dict, which is quadratic

_PUTS = frozenset(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"))
_GETS = frozenset(("GET", "BINGET", "LONG_BINGET"))
_CALLS = frozenset(("REDUCE", "NEWOBJ"))
_OTHERS = """
PROTO FRAME STOP MARK POP NONE NEWTRUE NEWFALSE GLOBAL STACK_GLOBAL BUILD BINPERSID
INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT
UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8
EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS
EMPTY_DICT DICT SETITEM SETITEMS EMPTY_SET ADDITEMS
"""
_ALLOWED = _PUTS | _GETS | _CALLS | set(_OTHERS.split())
_FRAME_BYTES = 9
_NO_KEY = -1


def check(data: bytes, origin: str) -> bytes:
    """The pickle without its FRAME opcodes, which only help to read from slow files.

    With frames, the C unpickler may read other opcodes than `pickletools` does. Raises InputError for an opcode that
    no checkpoint needs, ValueError or LookupError for a pickle that is damaged or over a limit.
    """
    stack, pieces, start, long_integers = _Stack(), [], 0, 0
    for count, (opcode, argument, position) in enumerate(pickletools.genops(data), 1):
        if opcode.name not in _ALLOWED:
            raise errors.InputError(f"{origin}: its pickle has the opcode {opcode.name}, which is refused")
        if count > MOST_OPCODES:
            raise ValueError(f"more than {MOST_OPCODES} opcodes")
        if isinstance(argument, int) and argument.bit_length() > 64:
            long_integers += 1
            if argument.bit_length() > MOST_BITS or long_integers > MOST_LONG_INTEGERS:
                raise ValueError(f"more than {MOST_LONG_INTEGERS} integers of over 64 bits, or one over {MOST_BITS}")
        if opcode.name == "FRAME":
            pieces.append(data[start:position])
            start = position + _FRAME_BYTES
            if argument > len(data) - start:
                raise ValueError(f"a frame of {argument} bytes that ends behind the file")
        stack.follow(opcode, argument)
    return b"".join((*pieces, data[start:]))


class _Stack:
    """An unpickler's stack and memo, with each value reduced to what makes it dangerous.

    A tuple is its length, a text or bytes too long for a key is `_NO_KEY`, and any other value is None.
    """

    def __init__(self):
        self._values: list[int | None] = []
        self._outside: list[list[int | None]] = []  # what lies below each open mark
        self._memo: dict[int, int | None] = {}

    def follow(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Applies one opcode."""
        if opcode.name == "MARK":
            self._outside.append(self._values)
            self._values = []
        elif opcode.name in _PUTS:
            self._put(len(self._memo) if argument is None else argument)
        elif opcode.name in _GETS:
            self._values.append(self._memo[argument])
        else:
            taken = self._take(opcode.stack_before)
            _check_taken(opcode.name, taken)
            self._values += [_reduced(kind, taken, argument) for kind in opcode.stack_after]

    def _put(self, index: int) -> None:
        if not 0 <= index <= len(self._memo):
            raise ValueError(f"the memo index {index} after {len(self._memo)} entries")
        self._memo[index] = self._values[-1]

    def _take(self, before: Sequence[pickletools.StackObject]) -> list[int | None]:
        """Removes an opcode's operands. Returns those above its mark; without a mark, all of them."""
        marked = pickletools.markobject in before
        if marked:
            above, self._values = self._values, self._outside.pop()
        left = len(self._values) - (before.index(pickletools.markobject) if marked else len(before))
        if left < 0:
            raise LookupError("an empty stack")
        operands = self._values[left:]
        del self._values[left:]
        return above if marked else operands


def _reduced(kind: pickletools.StackObject, taken: list[int | None], argument: Any) -> int | None:
    if kind is pickletools.pytuple:
        return len(taken)
    return _NO_KEY if isinstance(argument, (str, bytes)) and len(argument) > LONGEST_KEY else None


def _check_taken(name: str, taken: list[int | None]) -> None:
    keys = {"SETITEM": taken[1:2], "SETITEMS": taken[::2], "DICT": taken[::2], "ADDITEMS": taken}.get(name, ())
    if any(key is not None for key in keys):
        raise ValueError(f"a tuple or more than {LONGEST_KEY} characters as a key")
    if name in _CALLS and (taken[1] is None or not 0 <= taken[1] <= MOST_ARGUMENTS):
        raise ValueError(f"a call without a tuple of at most {MOST_ARGUMENTS} arguments")
