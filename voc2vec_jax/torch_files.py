"""PyTorch's zip files (`.pt`, `.bin`) without PyTorch: an interpreter of pickles that runs no code.

The interpreter imports nothing and calls nothing that a file names: a global is either one of the few that stand
for tensors and plain containers, or an inert `Record`, or a reason to refuse the file.
"""

import argparse
import collections
import dataclasses
import importlib.util
import math
import mmap
import pickletools
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
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
STORAGE_NAMES = {np.dtype(dtype): name for name, dtype in _STORAGES.items()}
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
    "typing.Any",
}
_TYPES = {"dict", "list", "tuple", "str", "int", "float", "bool", "set", "frozenset", "object"}
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_DEEPEST = 100


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor that still lies in its file; `read` returns it as an array that may be a read-only view."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray] = dataclasses.field(repr=False)


@dataclasses.dataclass(eq=False)
class Record:
    """What a pickle says about an object of a class that is not built: the class's name, arguments, fields, items."""

    name: str
    args: tuple
    fields: dict = dataclasses.field(default_factory=dict)
    items: dict = dataclasses.field(default_factory=dict)
    entries: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class _Global:
    """An allowed name on the interpreter's stack; `build` turns the arguments of a call into a plain value."""

    name: str
    build: Callable[..., Any] | None


@dataclasses.dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    size: int
    member: "_Member"


class _Member:
    """The bytes of one uncompressed zip member, mapped; the checksum is verified once, at the first reading."""

    def __init__(self, archive: "_Archive", info: zipfile.ZipInfo):
        self._archive, self._info = archive, info
        self._start: int | None = None

    @property
    def size(self) -> int:
        return self._info.file_size

    def view(self) -> memoryview:
        data = memoryview(self._archive.map)
        if self._start is None:
            start = self._archive.data_start(self._info)
            if zlib.crc32(data[start : start + self.size]) != self._info.CRC:
                raise errors.InputError(
                    f"{self._archive.path}: member {self._info.filename} does not match its checksum; "
                    "the file is damaged, fetch it again"
                )
            self._start = start
        return data[self._start : self._start + self.size]


class _Archive:
    """A zip file with the layout of `torch.save`: ROOT/data.pkl and ROOT/data/KEY, all uncompressed."""

    def __init__(self, path: Path):
        self.path = path
        with path.open("rb") as file:
            try:
                infos = zipfile.ZipFile(file).infolist()
            except (zipfile.BadZipFile, ValueError, OSError, EOFError) as fault:
                raise errors.InputError(
                    f"{path} is not a complete zip file ({fault}); it is truncated, fetch it again"
                ) from fault
            self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        roots = [i.filename.removesuffix("data.pkl") for i in infos if i.filename.split("/")[1:] == ["data.pkl"]]
        if len(roots) != 1:
            raise errors.InputError(f"{path} is a zip file without one data.pkl; torch.save did not write it")
        self._members = {i.filename.removeprefix(roots[0]): i for i in infos if i.filename.startswith(roots[0])}

    def member(self, name: str) -> _Member:
        if name not in self._members:
            raise errors.InputError(f"{self.path} lacks the member {name} that its data.pkl refers to; fetch it again")
        return _Member(self, self._members[name])

    def has(self, name: str) -> bool:
        return name in self._members

    def data_start(self, info: zipfile.ZipInfo) -> int:
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise errors.InputError(
                f"{self.path}: member {info.filename} is compressed or encrypted; write the file again with torch.save"
            )
        header = self.map[info.header_offset : info.header_offset + 30]
        start = info.header_offset + 30 + int.from_bytes(header[26:28], "little")
        start += int.from_bytes(header[28:30], "little")
        if header[:4] != b"PK\3\4" or start + info.file_size > len(self.map):
            raise errors.InputError(f"{self.path}: member {info.filename} lies outside the file; it is truncated")
        return start


def _whole(*numbers: Any) -> bool:
    return all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers)


class _Interpreter:
    """Runs the opcodes of one data.pkl on values that cannot do anything."""

    def __init__(self, archive: _Archive):
        self._archive = archive
        self._members: dict[str, _Member] = {}
        self._stack: list = []
        self._frames: list[list] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        path = self._archive.path
        try:
            for opcode, argument, _ in pickletools.genops(data):
                if opcode.name == "STOP":
                    return self._stack.pop()
                operation = _OPERATIONS.get(opcode.name)
                if operation is None:
                    raise errors.InputError(f"{path}: the pickle opcode {opcode.name} is refused")
                operation(self, argument)
        except errors.InputError:
            raise
        except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError) as fault:
            raise errors.InputError(f"{path}: its data.pkl is damaged ({type(fault).__name__}: {fault})") from fault
        raise errors.InputError(f"{path}: its data.pkl ends without a result; the file is truncated")

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        return self._stack.pop()

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
        target.update(zip(items[::2], items[1::2], strict=True))

    def find(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if module == "torch" and name in _STORAGES:
            self.push(_Global(full, None))
        elif full in _BUILDERS:
            self.push(_Global(full, _BUILDERS[full]))
        elif module in ("builtins", "__builtin__") and name in _TYPES:
            self.push(_Global(full, lambda *args: list(*args) if name in ("set", "frozenset") else _refuse(full)))
        elif full in _RECORDS or f"{module}.".startswith(_RECORD_MODULES):
            self.push(_Global(full, lambda *args: Record(full, args)))
        else:
            raise errors.InputError(
                f"{self._archive.path}: its pickle names {full}, which is not a tensor or a plain container; "
                "the file may run code when it is loaded elsewhere, and is refused"
            )

    def call(self) -> None:
        args, function = _expect(tuple, self.pop()), self.pop()
        if not isinstance(function, _Global) or function.build is None:
            raise TypeError(f"a call of {getattr(function, 'name', type(function).__name__)}")
        self.push(function.build(*args))

    def state(self) -> None:
        """BUILD: fields of a record; the state of a dict (a state dict's `_metadata`) is dropped."""
        state, target = self.pop(), self._stack[-1]
        if isinstance(target, Record):
            for part in state if isinstance(state, tuple) else (state,):
                target.fields.update(part if isinstance(part, dict) else {"state": part} if part is not None else {})
        elif not isinstance(target, dict):
            raise TypeError(f"a state for {type(target).__name__}")

    def persistent(self) -> None:
        tag, kind, key, _, size = _expect(tuple, self.pop())
        if tag != "storage" or not isinstance(kind, _Global) or not isinstance(key, str) or not _whole(size):
            raise ValueError(f"the storage {key!r} of {size!r} elements")
        dtype = np.dtype(_STORAGES[kind.name.removeprefix("torch.")])
        member = self._members.setdefault(key, self._archive.member(f"data/{key}"))
        if size * dtype.itemsize > member.size:
            raise errors.InputError(
                f"{self._archive.path}: the storage {key} should hold {size} elements of {dtype} "
                f"but has only {member.size} bytes"
            )
        self.push(_Storage(key, dtype, size, member))


def _expect(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} where a {kind.__name__} should be")
    return value


def _refuse(name: str) -> Any:
    raise TypeError(f"a call of {name}")


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Tensor:
    """`torch._utils._rebuild_tensor_v2`; every element must lie in the storage, and none may be repeated."""
    _expect(_Storage, storage)
    if not _whole(offset, *shape, *stride) or len(shape) != len(stride):
        raise ValueError(f"a tensor at offset {offset!r} of shape {shape!r} and strides {stride!r}")
    count = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride))
    if count > storage.size or (count and last >= storage.size):
        raise ValueError(
            f"a tensor at offset {offset} of shape {shape} and strides {stride} reaches outside its "
            f"storage of {storage.size} elements"
        )

    def read() -> np.ndarray:
        flat = np.frombuffer(storage.member.view(), storage.dtype, storage.size)
        steps = tuple(step * storage.dtype.itemsize for step in stride)
        return np.lib.stride_tricks.as_strided(flat[offset:], shape, steps, writeable=False)

    return Tensor(tuple(shape), storage.dtype, read)


def _rebuild_from_type(function: Any, _: Any, args: Any, *__: Any) -> Any:
    if _expect(_Global, function).name not in _REBUILDERS:
        _refuse(function.name)
    return function.build(*args)


_REBUILDERS = {
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda data, *_: _expect(Tensor, data),
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: _expect(Tensor, data),
}
_BUILDERS = _REBUILDERS | {
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.Tensor": None,
    "torch.nn.parameter.Parameter": None,
    "torch.Size": lambda items=(): tuple(items),
    "collections.OrderedDict": lambda items=(): dict(items),
    "collections.Counter": lambda items=(): dict(items),
    "_codecs.encode": lambda text, encoding="latin1": Record("_codecs.encode", (text, encoding)),
}


def _swap(vm: _Interpreter, build: Callable[[list], Any]) -> None:
    items = vm.pop_mark()
    vm.push(build(items))


def _take(vm: _Interpreter, count: int) -> list:
    return [vm.pop() for _ in range(count)][::-1]


def _literal(vm: _Interpreter, argument: Any) -> None:
    vm.push(argument)


def _nothing(vm: _Interpreter, argument: Any) -> None:
    pass


_LITERALS = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "BINBYTES SHORT_BINBYTES BINBYTES8 STRING BINSTRING SHORT_BINSTRING BYTEARRAY8"
)
_OPERATIONS: dict[str, Callable[[_Interpreter, Any], None]] = {
    **dict.fromkeys(_LITERALS.split(), _literal),
    **dict.fromkeys(("PROTO", "FRAME"), _nothing),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Interpreter.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Interpreter.get),
    "MARK": _Interpreter.mark,
    "NONE": lambda vm, _: vm.push(None),
    "NEWTRUE": lambda vm, _: vm.push(True),
    "NEWFALSE": lambda vm, _: vm.push(False),
    "EMPTY_DICT": lambda vm, _: vm.push({}),
    "EMPTY_LIST": lambda vm, _: vm.push([]),
    "EMPTY_SET": lambda vm, _: vm.push([]),
    "EMPTY_TUPLE": lambda vm, _: vm.push(()),
    "TUPLE": lambda vm, _: _swap(vm, tuple),
    "TUPLE1": lambda vm, _: vm.push(tuple(_take(vm, 1))),
    "TUPLE2": lambda vm, _: vm.push(tuple(_take(vm, 2))),
    "TUPLE3": lambda vm, _: vm.push(tuple(_take(vm, 3))),
    "LIST": lambda vm, _: _swap(vm, list),
    "DICT": lambda vm, _: _swap(vm, lambda items: dict(zip(items[::2], items[1::2], strict=True))),
    "APPEND": lambda vm, _: vm.extend(_take(vm, 1)),
    "APPENDS": lambda vm, _: vm.extend(vm.pop_mark()),
    "ADDITEMS": lambda vm, _: vm.extend(vm.pop_mark()),
    "SETITEM": lambda vm, _: vm.update(_take(vm, 2)),
    "SETITEMS": lambda vm, _: vm.update(vm.pop_mark()),
    "POP": lambda vm, _: vm.pop(),
    "GLOBAL": lambda vm, name: vm.find(*name.split(" ", 1)),
    "STACK_GLOBAL": lambda vm, _: vm.find(*(_expect(str, part) for part in _take(vm, 2))),
    "REDUCE": lambda vm, _: vm.call(),
    "NEWOBJ": lambda vm, _: vm.call(),
    "BUILD": lambda vm, _: vm.state(),
    "BINPERSID": lambda vm, _: vm.persistent(),
}


def _plain(value: Any, done: dict[int, Any], path: Path, depth: int = 0) -> Any:
    """`value` with argparse and omegaconf records as the dicts and lists that they stand for."""
    if isinstance(value, Record):
        field = {"DictConfig": "_content", "ListConfig": "_content"}.get(value.name.rsplit(".", 1)[-1], "_val")
        if value.name == "argparse.Namespace":
            value = value.fields
        elif value.name == "collections.defaultdict":
            value = value.items
        elif value.name.startswith("omegaconf.") and field in value.fields:
            return _plain(value.fields[field], done, path, depth + 1)
    if not isinstance(value, (dict, list, tuple)):
        return value
    if id(value) not in done:
        if depth > _DEEPEST:
            raise errors.InputError(f"{path}: its containers are nested deeper than {_DEEPEST}; the file is refused")
        done[id(value)] = None  # what contains itself ends here
        if isinstance(value, dict):
            done[id(value)] = {key: _plain(item, done, path, depth + 1) for key, item in value.items()}
        else:
            done[id(value)] = type(value)(_plain(item, done, path, depth + 1) for item in value)
    return done[id(value)]


def load(path: str | Path) -> Any:
    """The object in a `torch.save` file: plain containers, `Tensor`s that are read on demand, inert `Record`s.

    Namespaces and omegaconf trees come as dicts and lists. Raises InputError for a damaged file, for a pickle that
    names anything else, and for the layout that PyTorch wrote before 1.6 when PyTorch is not installed (with it,
    such a file goes through `torch.load(weights_only=True)`).
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(len(_LEGACY_MAGIC))
    except OSError as fault:
        raise errors.InputError(f"{path} cannot be read: {fault.strerror}") from fault
    if start == _LEGACY_MAGIC:
        return _load_legacy(path)
    if start[:2] != b"PK":
        raise errors.InputError(f"{path} is not a file of torch.save: it starts with {start[:8]!r}")
    archive = _Archive(path)
    if archive.has("byteorder") and bytes(archive.member("byteorder").view()) != b"little":
        raise errors.InputError(f"{path} was written on a big-endian machine; write it again on a little-endian one")
    return _plain(_Interpreter(archive).run(bytes(archive.member("data.pkl").view())), {}, path)


def _load_legacy(path: Path) -> Any:
    if importlib.util.find_spec("torch") is None:
        raise errors.InputError(
            f"{path} has PyTorch's layout from before 1.6, which only PyTorch reads: install the extra 'torch'"
        )
    import torch

    def wrap(tensor: Any) -> Tensor:
        bits = tensor.detach().view(torch.int16).numpy() if tensor.dtype == torch.bfloat16 else None
        array = tensor.detach().numpy() if bits is None else bits.view(ml_dtypes.bfloat16)
        return Tensor(array.shape, array.dtype, lambda: array)

    def walk(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return wrap(value)
        if isinstance(value, argparse.Namespace):
            value = vars(value)
        if isinstance(value, (dict, collections.OrderedDict)):
            return {key: walk(item) for key, item in value.items()}
        return [walk(item) for item in value] if isinstance(value, (list, tuple)) else value

    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return walk(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as fault:  # torch.load raises a dozen unrelated types
        reason = str(fault).strip().splitlines()[0] if str(fault).strip() else type(fault).__name__
        raise errors.InputError(f"{path}: PyTorch's restricted loading refuses it: {reason}") from fault
