"""The pickles inside PyTorch's files, read and written by an interpreter that runs no code.

Reading imports nothing and calls nothing that a file names: a global is one of the few that stand for tensors and
plain containers, or an inert `Record`, or a reason to refuse the file.
"""

import dataclasses
import math
import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from voc2vec_jax import errors

_STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
    "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128,
}
# Classes that training code leaves in checkpoints beside the weights; they become records and are never imported.
_RECORD_MODULES = ("fairseq.", "omegaconf.")
_RECORDS = {
    "argparse.Namespace",
    "collections.defaultdict",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "torch.device",
    "_codecs.encode",
    "typing.Any",
}
_TYPE_NAMES = "dict list tuple str unicode bytes int long float complex bool set frozenset object"
_TYPES = set(_TYPE_NAMES.split())
_KEYS = (str, int, float, bool, bytes, type(None))
_DEEPEST = 100


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor that still lies in its file; `read` returns it as an array that may be a read-only view."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray] = dataclasses.field(repr=False)


@dataclasses.dataclass(eq=False)
class Record:
    """What a pickle says of an object whose class is not built: the name, and the arguments, state and contents."""

    name: str
    args: tuple
    fields: dict = dataclasses.field(default_factory=dict)
    items: dict = dataclasses.field(default_factory=dict)
    entries: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class _Global:
    """An allowed name on the interpreter's stack; `build` makes a plain value of a call's arguments."""

    name: str
    build: Callable[..., Any] | None = None


@dataclasses.dataclass(frozen=True)
class _Storage:
    dtype: np.dtype
    size: int
    view: Callable[[], memoryview]


class _Interpreter:
    """Runs the opcodes of one pickle on values that cannot do anything.

    `open_storage` takes a key and gives the size in bytes and a function that maps them.
    """

    def __init__(self, origin: str, open_storage: Callable[[str], tuple[int, Callable[[], memoryview]]]):
        self._origin = origin
        self._open_storage = open_storage
        self._stack: list = []
        self._frames: list[list] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        try:
            for opcode, argument, _ in pickletools.genops(data):
                if opcode.name == "STOP":
                    return self._stack.pop()
                operation = _OPERATIONS.get(opcode.name)
                if operation is None:
                    raise errors.InputError(
                        f"{self._origin}: its pickle has the opcode {opcode.name}, which is refused"
                    )
                operation(self, argument)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as fault:
            if isinstance(fault, errors.InputError):
                raise
            reason = " ".join(str(fault).split())[:200]
            raise errors.InputError(f"{self._origin}: its pickle is damaged or crafted ({reason})") from fault
        raise errors.InputError(f"{self._origin}: its pickle ends without a result; the file is truncated")

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        return self._stack.pop()

    def take(self, count: int) -> list:
        return [self._stack.pop() for _ in range(count)][::-1]

    def mark(self, _: Any) -> None:
        self._frames.append(self._stack)
        self._stack = []

    def pop_mark(self) -> list:
        items, self._stack = self._stack, self._frames.pop()
        return items

    def put(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def get(self, index: int) -> None:
        self.push(self._memo[index])

    def extend(self, items: list) -> None:
        target = self._stack[-1]
        (target.entries if isinstance(target, Record) else _expect(list, target)).extend(items)

    def update(self, items: list) -> None:
        target = self._stack[-1]
        target = target.items if isinstance(target, Record) else _expect(dict, target)
        target.update(_mapping(zip(items[::2], items[1::2], strict=True)))

    def find(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if module == "torch" and name in _STORAGES:
            self.push(_Global(full))
        elif full in _BUILDERS:
            self.push(_Global(full, _BUILDERS[full]))
        elif module in ("builtins", "__builtin__") and name in _TYPES:
            self.push(_Global(full, (lambda items=(): list(items)) if name.endswith("set") else None))
        elif full in _RECORDS or module.startswith(_RECORD_MODULES):
            self.push(_Global(full, lambda *args: Record(full, args)))
        else:
            raise errors.InputError(
                f"{self._origin}: its pickle names {full}, which is neither a tensor nor a plain container, "
                "so the file is refused"
            )

    def call(self) -> None:
        function, args = self.take(2)
        self.push(_build(function)(*_expect(tuple, args)))

    def state(self) -> None:
        """BUILD: the state of a record; that of a dict (the `_metadata` of a state dict) is dropped."""
        target, state = self._stack[-2], self._stack.pop()
        if isinstance(target, Record):
            for part in state if isinstance(state, tuple) else (state,):
                target.fields.update(part if isinstance(part, dict) else {"state": part} if part is not None else {})
        else:
            _expect(dict, target)

    def persistent(self) -> None:
        tag, kind, key, _, size = _expect(tuple, self.pop())
        if tag != "storage" or not isinstance(kind, _Global) or not isinstance(key, str) or not _whole(size):
            raise ValueError("a reference to something that is not a storage")
        dtype = np.dtype(_STORAGES[kind.name.removeprefix("torch.")])
        held, view = self._open_storage(key)
        if size * dtype.itemsize > held:
            raise errors.InputError(
                f"{self._origin}: storage {key} should hold {size} elements of {dtype} but has {held} bytes"
            )
        self.push(_Storage(dtype, size, view))


def _expect(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} where a {kind.__name__} should be")
    return value


def _whole(*numbers: Any) -> bool:
    return all(type(n) is int and n >= 0 for n in numbers)


def _mapping(pairs: Any = ()) -> dict:
    return {key if isinstance(key, _KEYS) else str(_scalar(key)): value for key, value in pairs}


def _scalar(value: Any) -> Any:
    """The value of an enumeration's record, such as a choice in fairseq's configuration."""
    if isinstance(value, Record) and len(value.args) == 1 and isinstance(value.args[0], _KEYS) and not value.fields:
        return value.args[0]
    raise TypeError(f"{type(value).__name__} as a key")


def _build(function: Any) -> Callable[..., Any]:
    build = _expect(_Global, function).build
    if build is None:
        raise TypeError(f"a call of {function.name}")
    return build


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Tensor:
    """`torch._utils._rebuild_tensor_v2`; every element must lie in the storage, and none may be repeated."""
    _expect(_Storage, storage)
    shape, stride = tuple(shape), tuple(stride)
    if not _whole(offset, *shape, *stride) or len(shape) != len(stride) or len(shape) > 32:
        raise ValueError(f"a tensor at offset {offset} of shape {shape} and strides {stride}")
    count = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride))
    if count > storage.size or (count and last >= storage.size):
        raise ValueError(f"a tensor of shape {shape} reaches outside its storage of {storage.size} elements")

    def read() -> np.ndarray:
        if not count:
            return np.empty(shape, storage.dtype)
        size = storage.dtype.itemsize
        return np.ndarray(shape, storage.dtype, storage.view(), offset * size, tuple(step * size for step in stride))

    return Tensor(shape, storage.dtype, read)


def _rebuild_from_type(function: Any, _: Any, args: Any, *__: Any) -> Any:
    return _expect(Tensor, _build(function)(*_expect(tuple, args)))


_BUILDERS: dict[str, Callable[..., Any] | None] = {
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: _expect(Tensor, data),
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: _expect(Tensor, data),
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.Tensor": None,
    "torch.nn.parameter.Parameter": None,
    "torch.Size": lambda items=(): tuple(items),
    "collections.OrderedDict": _mapping,
    "collections.Counter": lambda items=(): _mapping(_expect(dict, items).items()),
}

_LITERALS = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "BINBYTES SHORT_BINBYTES BINBYTES8 STRING BINSTRING SHORT_BINSTRING"
)
_OPERATIONS: dict[str, Callable[[_Interpreter, Any], None]] = {
    **dict.fromkeys(_LITERALS.split(), _Interpreter.push),
    **dict.fromkeys(("PROTO", "FRAME"), lambda vm, _: None),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Interpreter.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Interpreter.get),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda vm, _: vm.call()),
    "MARK": _Interpreter.mark,
    "NONE": lambda vm, _: vm.push(None),
    "NEWTRUE": lambda vm, _: vm.push(True),
    "NEWFALSE": lambda vm, _: vm.push(False),
    "EMPTY_DICT": lambda vm, _: vm.push({}),
    "EMPTY_LIST": lambda vm, _: vm.push([]),
    "EMPTY_SET": lambda vm, _: vm.push([]),
    "EMPTY_TUPLE": lambda vm, _: vm.push(()),
    "TUPLE": lambda vm, _: vm.push(tuple(vm.pop_mark())),
    "TUPLE1": lambda vm, _: vm.push(tuple(vm.take(1))),
    "TUPLE2": lambda vm, _: vm.push(tuple(vm.take(2))),
    "TUPLE3": lambda vm, _: vm.push(tuple(vm.take(3))),
    "LIST": lambda vm, _: vm.push(list(vm.pop_mark())),
    "DICT": lambda vm, _: vm.push(_mapping(zip(*[iter(vm.pop_mark())] * 2, strict=True))),
    "APPEND": lambda vm, _: vm.extend(vm.take(1)),
    "APPENDS": lambda vm, _: vm.extend(vm.pop_mark()),
    "ADDITEMS": lambda vm, _: vm.extend(vm.pop_mark()),
    "SETITEM": lambda vm, _: vm.update(vm.take(2)),
    "SETITEMS": lambda vm, _: vm.update(vm.pop_mark()),
    "POP": lambda vm, _: vm.pop(),
    "GLOBAL": lambda vm, name: vm.find(*name.split(" ", 1)),
    "STACK_GLOBAL": lambda vm, _: vm.find(*(_expect(str, part) for part in vm.take(2))),
    "BUILD": lambda vm, _: vm.state(),
    "BINPERSID": lambda vm, _: vm.persistent(),
}


def loads(data: bytes, origin: str, open_storage: Callable[[str], tuple[int, Callable[[], memoryview]]]) -> Any:
    """The object in a pickle of `torch.save`: plain containers, `Tensor`s, inert `Record`s.

    Namespaces, omegaconf trees and enumerations come as the dicts, lists and values that they hold. Raises
    InputError, which names `origin`, for damage and for any name that is not allowed.
    """
    return _plain(_Interpreter(origin, open_storage).run(data), {}, origin)


def _unwrapped(value: Any) -> Any:
    """What a record stands for; records of other kinds stay."""
    while isinstance(value, Record):
        field = "_content" if value.name.endswith((".DictConfig", ".ListConfig")) else "_val"
        if value.name == "argparse.Namespace":
            return value.fields
        if value.name == "collections.defaultdict":
            return value.items
        if value.name.startswith("omegaconf.") and field in value.fields:
            value = value.fields[field]
        elif len(value.args) == 1 and isinstance(value.args[0], _KEYS) and not value.fields:
            return value.args[0]
        else:
            return value
    return value


def _plain(value: Any, done: dict[int, Any], origin: str, depth: int = 0) -> Any:
    value = _unwrapped(value)
    if not isinstance(value, (dict, list, tuple)):
        return value
    if depth > _DEEPEST:
        raise errors.InputError(f"{origin}: its containers are nested deeper than {_DEEPEST}, so the file is refused")
    if id(value) not in done:
        done[id(value)] = None  # what contains itself ends here
        if isinstance(value, dict):
            done[id(value)] = {key: _plain(item, done, origin, depth + 1) for key, item in value.items()}
        else:
            done[id(value)] = type(value)(_plain(item, done, origin, depth + 1) for item in value)
    return done[id(value)]


def dumps(value: Any, storages: list[np.ndarray]) -> bytes:
    """A pickle (protocol 2) that torch.load(weights_only=True) reads; each array becomes a tensor with its own storage.

    Arrays are appended to `storages`; the n-th is the storage with the key str(n). `value` is made of dicts, lists,
    tuples, str, int, float, bool, None and arrays; anything else raises TypeError.
    """
    return b"\x80\x02" + b"".join(_opcodes(value, storages)) + b"."


def _opcodes(value: Any, storages: list[np.ndarray]) -> list[bytes]:
    def several(items: Any) -> list[bytes]:
        return [code for item in items for code in _opcodes(item, storages)]

    if value is None or isinstance(value, bool):
        return [{None: b"N", True: b"\x88", False: b"\x89"}[value]]
    if isinstance(value, int):
        if -(2**31) <= value < 2**31:
            return [b"J" + struct.pack("<i", value)]
        raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return [b"\x8a" + bytes([len(raw)]) + raw]
    if isinstance(value, float):
        return [b"G" + struct.pack(">d", value)]
    if isinstance(value, str):
        raw = value.encode()
        return [b"X" + struct.pack("<I", len(raw)) + raw]
    if isinstance(value, np.ndarray):
        return _tensor_opcodes(value, storages)
    if isinstance(value, Mapping):
        return [b"}(", *several(part for item in value.items() for part in item), b"u"]
    if isinstance(value, (list, tuple)):
        return [b"](", *several(value), b"e"] if isinstance(value, list) else [b"(", *several(value), b"t"]
    raise TypeError(f"{type(value).__name__} cannot be written to a PyTorch file")


def _tensor_opcodes(array: np.ndarray, storages: list[np.ndarray]) -> list[bytes]:
    names = {np.dtype(dtype): name for name, dtype in _STORAGES.items()}
    if array.dtype not in names:
        raise TypeError(f"an array of {array.dtype} cannot be written to a PyTorch file")
    key = str(len(storages))
    storages.append(array)
    strides = tuple(math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim))

    def codes(value: Any) -> list[bytes]:
        return _opcodes(value, storages)

    return [
        b"ctorch._utils\n_rebuild_tensor_v2\n(",
        *(b"(", *codes("storage"), f"ctorch\n{names[array.dtype]}\n".encode()),
        *(*codes(key), *codes("cpu"), *codes(array.size), b"tQ"),
        *(*codes(0), *codes(array.shape), *codes(strides), *codes(False)),
        b"ccollections\nOrderedDict\n)RtR",
    ]
