"""The pickles inside PyTorch's files. Reading one imports nothing and calls nothing that the file names.

    bytes -> pickle_check.check -> pickle.Unpickler -> a tree of containers and `Record`s -> plain values and `Tensor`s

Whatever a file names becomes an inert `Record`, or a reason to refuse the file. Only once the tree is complete do we
interpret the records that we know.
"""

import dataclasses
import io
import math
import pickle
import struct
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from voc2vec_jax import errors, printable
from voc2vec_jax.convert import pickle_check

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
_TYPES = "dict list tuple str unicode bytes int long float complex bool object set frozenset"
_BUILTINS = {f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _TYPES.split()}
_SETS = {name for name in _BUILTINS if name.endswith("set")}
# A pickle may mention these names, and may call those below: each call becomes a record.
_MENTIONED = {f"torch.{name}" for name in _STORAGES} | {"torch.Tensor", "torch.nn.parameter.Parameter"}
_MENTIONED |= _BUILTINS - _SETS
_CALLED = """
argparse.Namespace collections.Counter collections.OrderedDict collections.defaultdict _codecs.encode typing.Any
pathlib.PosixPath pathlib._local.PosixPath
numpy.core.multiarray._reconstruct numpy.core.multiarray.scalar numpy.dtype numpy.ndarray
numpy._core.multiarray._reconstruct numpy._core.multiarray.scalar
torch.Size torch.device torch._utils._rebuild_tensor_v2 torch._tensor._rebuild_from_type_v2
torch._utils._rebuild_parameter torch._utils._rebuild_parameter_with_state
"""
_ALLOWED = _MENTIONED | _SETS | set(_CALLED.split())
# The objects that training code leaves beside the weights
_ALLOWED_MODULES = ("fairseq.", "omegaconf.", "lightning.", "lightning_fabric.", "pytorch_lightning.")
# Other kinds of tensors, which no model that is read here has
_OTHER_TENSORS = {
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_nested_tensor": "a nested tensor",
    "_rebuild_qtensor": "a quantised tensor",
    "_rebuild_meta_tensor_no_storage": "a tensor of the meta device, which has no numbers",
    "_rebuild_wrapper_subclass": "a tensor without storage",
    "_rebuild_device_tensor_from_numpy": "a tensor of a device of its own",
    "_rebuild_device_tensor_from_cpu_tensor": "a tensor of a device of its own",
}
_KEYS = (str, int, float, bool, bytes, type(None))
_DEEPEST = 100
_MOST_NAMES = 1000
_LONGEST_STORAGE_KEY = 100
_MOST_VALUES = 1_000_000
_LARGEST = 2**63 - 1
_FAULTS = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError),
    *(AttributeError, ArithmeticError, RecursionError),
)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor that still lies in its file; `read` returns it as an array that may be a read-only view."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray] = dataclasses.field(repr=False)


class Record:
    """Stands for an object whose class is not built: its name, and the arguments, state and contents it was given.

    The unpickler gets a subclass for each name, and only ever calls the methods below. None of them copies or
    inspects what it is given, so a value that a file uses a thousand times costs no more than one.
    """

    __slots__ = ("args", "entries", "fields", "items")
    name = ""

    def __new__(cls, *args):
        record = super().__new__(cls)
        record.args, record.fields, record.items, record.entries = args, {}, {}, []
        return record

    def __call__(self, *_):
        raise TypeError(f"a call of {self.name}")

    def __setitem__(self, key, value):
        self.items[key] = value

    def extend(self, values):
        """The unpickler's way to append."""
        self.entries.extend(values)

    def __setstate__(self, state):
        """The object's attributes: a dict, or the dict among (attributes, slots); another state is kept as it is."""
        if self.fields:
            raise TypeError(f"a second state of {self.name}")
        parts = state[:2] if isinstance(state, tuple) else (state,)
        dicts = [part for part in parts if isinstance(part, dict)]
        self.fields = dicts[0] if dicts else {"state": state}


class _Storage(Record):
    """args: dtype, number of elements, and a function that maps the bytes."""

    __slots__ = ()
    name = "a storage"


# Takes a storage's key, number of elements and their type; gives a function that maps the bytes. InputError.
OpenStorage = Callable[[str, int, np.dtype], Callable[[], memoryview]]


class _Unpickler(pickle.Unpickler):
    """Finds records instead of classes, and storages by their keys."""

    def __init__(self, data: bytes, origin: str, open_storage: OpenStorage):
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._origin, self._open_storage = origin, open_storage
        self._found: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full not in self._found:
            if module == "torch._utils" and name in _OTHER_TENSORS:
                raise errors.InputError(
                    f"{self._origin} holds {_OTHER_TENSORS[name]}: save it again as an ordinary one, such as "
                    "tensor.to_dense() or dequantize() gives"
                )
            if full not in _ALLOWED and not module.startswith(_ALLOWED_MODULES):
                raise errors.InputError(
                    f"{self._origin}: its pickle names {printable.name(full)}, which is neither a tensor nor a plain "
                    "container, so the file is refused"
                )
            if len(self._found) == _MOST_NAMES:
                raise ValueError(f"more than {_MOST_NAMES} names of classes")
            kind = type("Record", (Record,), {"__slots__": (), "name": full})
            self._found[full] = kind() if full in _MENTIONED else kind
        return self._found[full]

    def persistent_load(self, pid: Any) -> _Storage:
        tag, kind, key, _, size, *view = _expect(tuple, pid)
        dtype = _STORAGES.get(kind.name.removeprefix("torch.")) if isinstance(kind, Record) else None
        if tag != "storage" or dtype is None or not isinstance(key, str) or len(key) > _LONGEST_STORAGE_KEY:
            raise ValueError("a reference to something that is not a storage")
        if not _whole(size) or view not in ([], [None]):  # the layout before PyTorch 1.6 has a place for views
            raise ValueError("a storage without a size, or one inside another")
        dtype = np.dtype(dtype)
        return _Storage(dtype, size, self._open_storage(key, size, dtype))


def loads(data: Any, origin: str, open_storage: OpenStorage) -> Any:
    """The object in a pickle of `torch.save`: plain containers, `Tensor`s, inert `Record`s.

    `data` is what `pickle_check.check` takes. Namespaces, omegaconf trees and enumerations come as the dicts, lists and
    values that they hold. Raises InputError, which names `origin`, for damage, for any name that is not allowed and for
    a pickle that is costly beyond its size.
    """
    try:
        checked = pickle_check.check(data, origin)
        return plain(_Unpickler(checked, origin, open_storage).load(), _meaning)
    except errors.InputError:
        raise
    except _FAULTS as fault:
        reason = " ".join(str(fault).split())[:200]
        raise errors.InputError(f"{origin}: its pickle is damaged or crafted ({reason})") from fault


def plain(value: Any, meaning: Callable[[Any], Any]) -> Any:
    """The tree of dicts, lists, tuples and leaves that `value` stands for; `meaning` gives that of one value.

    Shared containers and records stay shared, and one inside itself becomes None. Raises ValueError for a tree that is
    deeper than 100 or that has over a million values when shared ones count each time.
    """
    return _Plain(meaning).walk(value, 0)[0]


class _Plain:
    def __init__(self, meaning: Callable[[Any], Any]):
        self._meaning = meaning
        # By identity, for all of `value`, which stays in memory: the plain value, and how many it holds
        self._done: dict[int, tuple[Any, int]] = {}
        self._kept: list[Any] = []  # what records have made, so that nothing else gets its identity

    def walk(self, value: Any, depth: int) -> tuple[Any, int]:
        """The plain value and the number of values in it."""
        if not isinstance(value, (dict, list, tuple, set, Record)):
            return self._meaning(value), 1
        if depth > _DEEPEST:
            raise ValueError(f"its containers are nested deeper than {_DEEPEST}")
        if id(value) not in self._done:
            self._done[id(value)] = None, 1  # what contains itself ends here
            self._done[id(value)] = self._walked(value, depth)
        return self._done[id(value)]

    def _walked(self, value: Any, depth: int) -> tuple[Any, int]:
        if isinstance(value, Record):
            meant = self._meaning(value)
            self._kept.append(meant)
            return (meant, 1) if isinstance(meant, Record) else self.walk(meant, depth)
        parts = [self.walk(part, depth + 1) for part in (value.values() if isinstance(value, dict) else value)]
        size = 1 + sum(count for _, count in parts)
        if size > _MOST_VALUES:
            raise ValueError(f"more than {_MOST_VALUES} values")
        return self._rebuilt(value, [part for part, _ in parts]), size

    def _rebuilt(self, value: Any, parts: list) -> Any:
        if isinstance(value, dict):
            keys = (_key(self._meaning(key)) if isinstance(key, Record) else key for key in value)
            return dict(zip(keys, parts, strict=True))
        if isinstance(value, set):
            return sorted(parts, key=lambda part: (_key(part), type(part).__name__))
        return tuple(parts) if isinstance(value, tuple) else parts


def _key(value: Any) -> str:
    """A plain value as text, of a length that may be copied."""
    if isinstance(_expect(_KEYS, value), (str, bytes)) and len(value) > pickle_check.LONGEST_KEY:
        raise ValueError(f"more than {pickle_check.LONGEST_KEY} characters as a key")
    return str(value)


def _meaning(value: Any) -> Any:
    """What a record stands for; a record of another kind, and any other value, is returned as it is."""
    for _ in range(_DEEPEST):
        if not isinstance(value, Record):
            return value
        field = "_content" if value.name.endswith((".DictConfig", ".ListConfig")) else "_val"
        if value.name in _MEANINGS:
            value = _MEANINGS[value.name](value)
        elif value.name.startswith("omegaconf.") and field in value.fields:
            value = value.fields[field]
        elif len(value.args) == 1 and isinstance(value.args[0], _KEYS) and not value.fields:
            value = value.args[0]  # a member of an enumeration
        else:
            return value
    raise ValueError("records that stand for each other")


def _expect(kind: type | tuple[type, ...], value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} where a {getattr(kind, '__name__', 'plain value')} should be")
    return value


def _whole(*numbers: Any) -> bool:
    return all(type(n) is int and 0 <= n <= _LARGEST for n in numbers)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Tensor:
    """`torch._utils._rebuild_tensor_v2`; every element must lie in the storage, and none may be repeated."""
    dtype, size, view = _expect(_Storage, storage).args
    shape, stride = _meaning(shape), _meaning(stride)
    _expect((tuple, list), shape), _expect((tuple, list), stride)
    if len(shape) != len(stride) or len(shape) > 32 or not _whole(offset, *shape, *stride):
        raise ValueError("a tensor whose offset, shape and strides are not whole numbers of at most 32 axes")
    shape, stride = tuple(shape), tuple(stride)
    count = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride))
    if count > size or (count and last >= size):
        raise ValueError(f"a tensor of shape {shape} reaches outside its storage of {size} elements")

    def read() -> np.ndarray:
        if not count:
            return np.empty(shape, dtype)
        strides = tuple(step * dtype.itemsize for step in stride)
        return np.ndarray(shape, dtype, view(), offset * dtype.itemsize, strides)

    return Tensor(shape, dtype, read)


def _parameter(data: Any, *_: Any) -> Tensor:
    return _expect(Tensor, _meaning(data))


def _tensor_of_type(function: Any, _: Any, args: Any, *__: Any) -> Tensor:
    """`torch._tensor._rebuild_from_type_v2`: a call of another function, for a subclass of tensors."""
    if not isinstance(function, type) or len(_expect(tuple, args)) > pickle_check.MOST_ARGUMENTS:
        raise TypeError("a tensor of a type without its function")
    return _expect(Tensor, _meaning(function(*args)))


def _only(kind: type) -> Callable[[Record], Any]:
    return lambda record: _expect(kind, *record.args) if record.args else kind()


_MEANINGS: dict[str, Callable[[Record], Any]] = {
    "argparse.Namespace": lambda record: record.fields,
    "collections.Counter": _only(dict),
    "collections.OrderedDict": lambda record: record.items,
    "collections.defaultdict": lambda record: record.items,
    "torch.Size": _only(tuple),
    "torch._tensor._rebuild_from_type_v2": lambda record: _tensor_of_type(*record.args),
    "torch._utils._rebuild_parameter": lambda record: _parameter(*record.args),
    "torch._utils._rebuild_parameter_with_state": lambda record: _parameter(*record.args),
    "torch._utils._rebuild_tensor_v2": lambda record: _tensor(*record.args),
    **dict.fromkeys(_SETS, _only(list)),
}


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
