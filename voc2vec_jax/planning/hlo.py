"""Read the text of an optimized program: XLA's HLO as `compiled.as_text()` prints it.

    %computation (parameters) -> type {
      %name = type opcode(%operand, %operand), attribute=..., metadata={...}, backend_config={...}
      ROOT %name = ...
    }

A type is `bf16[8,499,768]{2,1,0:T(8,128)(2,1)S(1)}`: element type, sizes, order of the axes from the fastest,
tile, memory space; or a tuple of types in parentheses. Tiles are a TPU's: the fastest axes are padded to multiples of
the first tile. Space 1 is then the memory on the chip, which costs no bandwidth of the main memory.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"([a-z]+\d*[a-z0-9]*)\[([^\]]*)\](?:\{([^{}]*)\})?")
_NAMES = re.compile(r"%([\w.\-]+)")
_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{$")
_START = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = ")
_CALLED = re.compile(
    r"(?:calls|to_apply|body|branch_computations|true_computation|false_computation)=(\{[^}]*\}|%[\w.\-]+)"
)
_OP_NAME = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class ArrayType:
    """An array of a program."""

    dtype: str
    sizes: tuple[int, ...]
    order: tuple[int, ...] = ()  # axes from the fastest
    tile: tuple[int, ...] = ()
    on_chip: bool = False

    @property
    def plain_bytes(self) -> int:
        """Bytes of the elements alone."""
        return math.prod(self.sizes) * _bits(self.dtype) // 8

    @property
    def bytes(self) -> int:
        """Bytes in main memory: with the padding of tiles, and none for an array on the chip."""
        if self.on_chip:
            return 0
        sizes = [self.sizes[axis] for axis in self.order] or list(self.sizes[::-1])
        sizes += [1] * (len(self.tile) - len(sizes))
        for position, tile in enumerate(reversed(self.tile)):
            sizes[position] = -(-sizes[position] // tile) * tile
        return math.prod(sizes) * _bits(self.dtype) // 8


Type = ArrayType | tuple


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    type: Type
    opcode: str
    operands: tuple[str, ...]
    arguments: str  # the text between the parentheses
    attributes: str  # the text behind them
    root: bool

    @functools.cached_property
    def called(self) -> tuple[str, ...]:
        """The computations that it runs, a condition of a loop not among them."""
        found = _CALLED.findall(self.attributes.partition(", metadata=")[0])
        return tuple(name for group in found for name in _NAMES.findall(group))

    def attribute(self, pattern: str) -> str | None:
        """The first group of a pattern in the attributes, or None."""
        found = re.search(pattern, self.attributes)
        return found[1] if found else None

    @property
    def label(self) -> str:
        """Where it comes from in the source: JAX's name stack, or its own name."""
        found = _OP_NAME.search(self.attributes)
        return found[1] if found else self.name


class Computation:
    """The instructions of a computation, in the order in which they run."""

    def __init__(self, name: str, instructions: list[Instruction]):
        self.name, self.instructions = name, instructions
        self.by_name = {instruction.name: instruction for instruction in instructions}

    @functools.cached_property
    def root(self) -> Instruction:
        """What it returns."""
        return next((one for one in self.instructions if one.root), self.instructions[-1])

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """Its parameters by number."""
        return {int(one.arguments): one for one in self.instructions if one.opcode == "parameter"}

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """The instructions that read a value, by its name."""
        found: dict[str, list[Instruction]] = {}
        for one in self.instructions:
            for operand in dict.fromkeys(one.operands):
                found.setdefault(operand, []).append(one)
        return found


@dataclasses.dataclass(frozen=True)
class Program:
    """A module: its computations by name, and the one that is run."""

    computations: dict[str, Computation]
    entry: Computation


def parse(text: str) -> Program:
    """The program of a text; ValueError if it has no entry."""
    computations, entry, name, lines = {}, None, None, []
    for line in text.splitlines():
        if name is None:
            header = _HEADER.match(line)
            if header:
                name, lines = header[2], []
                entry = name if header[1] else entry
        elif line.startswith("}"):
            computations[name] = Computation(name, lines)
            name = None
        elif start := _START.match(line):
            lines.append(_instruction(line, start))
    if entry not in computations:
        raise ValueError("the text holds no entry computation of an HLO module")
    return Program(computations, computations[entry])


def _instruction(line: str, start: re.Match) -> Instruction:
    line = re.sub(r"/\*[^*]*\*/", "", line)
    begin = start.end()
    end = _closing(line, begin) + 1 if line[begin] == "(" else line.index(" ", begin)
    opening = line.index("(", end)
    closing = _closing(line, opening)
    arguments = line[opening + 1 : closing]
    return Instruction(
        name=start[2],
        type=parse_type(line[begin:end]),
        opcode=line[end:opening].strip(),
        operands=tuple(_NAMES.findall(arguments)),
        arguments=arguments,
        attributes=line[closing + 1 :],
        root=bool(start[1]),
    )


def _closing(text: str, opening: int) -> int:
    """The index of the parenthesis that closes the one at `opening`."""
    depth = 0
    for at in range(opening, len(text)):
        depth += (text[at] == "(") - (text[at] == ")")
        if depth == 0:
            return at
    raise ValueError(f"no closing parenthesis: {text[opening : opening + 80]}")


def parse_type(text: str) -> Type:
    """The type of a text, nested tuples as tuples."""
    text = text.strip()
    if not text.startswith("("):
        return _array(text)
    parts, depth, part = [], 0, ""
    for letter in text[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts, part = [*parts, part], ""
        else:
            part += letter
    return tuple(parse_type(part) for part in [*parts, part] if part.strip())


@functools.lru_cache(maxsize=4096)
def _array(text: str) -> ArrayType:
    found = _ARRAY.match(text)
    if not found:
        return ArrayType("opaque", ())
    dtype, sizes, layout = found.groups()
    order, _, rest = (layout or "").partition(":")
    tile = re.search(r"T\(([\d,]+)\)", rest)
    return ArrayType(
        dtype,
        tuple(int(size.removeprefix("<=")) for size in sizes.split(",") if size),
        tuple(int(axis) for axis in order.split(",") if axis),
        tuple(int(size) for size in tile[1].split(",")) if tile else (),
        on_chip=bool(tile) and "S(1)" in rest,
    )


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    found = re.match(r"[a-z]+?(\d+)", dtype)
    return int(found[1]) if found else 0


def arrays(of: Type) -> Iterator[ArrayType]:
    """All arrays of a type."""
    if isinstance(of, ArrayType):
        yield of
    else:
        for part in of:
            yield from arrays(part)


def size(of: Type) -> int:
    """Bytes in main memory of all arrays of a type."""
    return sum(array.bytes for array in arrays(of))
