"""Prepared sets on disk: ArrayRecord shards that TFDS can read, an index beside them, and a fast reader.

`data_dir/<name>/1.0.0/` holds the shards, `dataset_info.json` and `features.json` (for
`tfds.builder_from_directory`), `index.npz` (every array in record order) and `report.json`. Reading needs neither
TensorFlow nor TFDS.
"""

import dataclasses
import functools
import os
import pathlib
import re
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from array_record.python import array_record_module
from jaxtyping import Int16, Int32, Int64

from voc2vec_jax import errors, opening
from voc2vec_jax.runs import logs

VERSION = "1.0.0"
SPLIT = "train"
INDEX_FILE = "index.npz"
REPORT_FILE = "report.json"
READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
READER_BUFFER_BYTES = 1 << 15
DECODERS = "libsndfile; FFmpeg for MP3 and for what libsndfile does not read"
_MP3 = re.compile(rb"\.mp3(#[0-9.-]+)?\0", re.IGNORECASE)


class Example(NamedTuple):
    """One record: mono int16 audio at 16 kHz and where it came from."""

    audio: Int16[np.ndarray, " s"]
    id: str
    recording: str
    group: str
    label: str
    start_sample: int


def set_folder(data_dir: str | os.PathLike, name: str) -> pathlib.Path:
    """The folder of a prepared set, which need not exist."""
    return pathlib.Path(data_dir) / name / VERSION


def shard_name(name: str, shard: int, shards: int) -> str:
    """The file name that TFDS gives a shard."""
    return f"{name}-{SPLIT}.array_record-{shard:05d}-of-{shards:05d}"


def list_sets(data_dir: str | os.PathLike) -> list[str]:
    """The names of the sets completely prepared in `data_dir`, sorted; [] where there is no such folder."""
    return sorted(found.parts[-3] for found in pathlib.Path(data_dir).glob(f"*/{VERSION}/{INDEX_FILE}"))


def open_set(data_dir: str | os.PathLike, name: str, warn: bool = True) -> "PreparedSet":
    """Opens a prepared set; `errors.InputError` when it is absent, half prepared or damaged.

    With `warn`, says once of a set that it was prepared when MP3 files without a length tag lost their ends.
    """
    opened = _open(data_dir, name)
    if warn:
        _warn_of_misread(opened)
    return opened


def _open(data_dir: str | os.PathLike, name: str) -> "PreparedSet":
    folder = set_folder(data_dir, name)
    if not (folder / INDEX_FILE).is_file():
        raise errors.InputError(_why_absent(folder, data_dir, name))
    return open_folder(folder, name)


def open_folder(folder: pathlib.Path, name: str) -> "PreparedSet":
    """The complete set `name` in a folder, which need not be in its place."""
    with np.load(opening.checked(folder / INDEX_FILE), allow_pickle=False) as index:
        arrays = {key: index[key] for key in (*_COLUMNS, "shard_records", "shard_bytes")}
        fingerprint = str(index["fingerprint"])
    _check_shards(folder, name, arrays["shard_bytes"])
    return PreparedSet(
        name=name,
        folder=folder,
        fingerprint=fingerprint,
        shard_ends=np.cumsum(arrays["shard_records"], dtype=np.int64),
        **{key: arrays[key] for key in _COLUMNS},
    )


def fingerprint(folder: pathlib.Path) -> str:
    """The fingerprint of the set in a folder; FileNotFoundError without one."""
    with np.load(opening.checked(folder / INDEX_FILE), allow_pickle=False) as index:
        return str(index["fingerprint"])


def _reopened(data_dir: str | os.PathLike, name: str, expected: str) -> "PreparedSet":
    """The set that another process has opened; RunError if it was prepared anew since."""
    opened = _open(data_dir, name)
    _check_same(opened.folder, opened.fingerprint, expected)
    return opened


def _check_same(folder: pathlib.Path, found: str, expected: str) -> None:
    if found != expected:
        raise errors.RunError(f"{folder} was prepared anew while it was read: run again")


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedSet:
    """A prepared set, opened: per-record arrays in record order and random access to the audio.

    `samples` are lengths at 16 kHz. `recording`, `group` and `label` index `recordings`, `groups` and `labels`; -1 is
    an unknown group or no label. `start_sample` is a segment's offset in its recording. `fingerprint` changes whenever
    the prepared data changes. A pickle holds only the path.
    """

    name: str
    folder: pathlib.Path
    fingerprint: str
    samples: Int32[np.ndarray, " n"]
    recording: Int64[np.ndarray, " n"]
    group: Int64[np.ndarray, " n"]
    label: Int64[np.ndarray, " n"]
    start_sample: Int64[np.ndarray, " n"]
    shard_ends: Int64[np.ndarray, " k"]
    _readers: dict[int, Any] = dataclasses.field(default_factory=dict, init=False, repr=False)
    _lock: Any = dataclasses.field(default_factory=threading.Lock, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.samples)

    def __reduce__(self):
        return _reopened, (self.folder.parents[1], self.name, self.fingerprint)

    def read(self, indices: Sequence[int] | Int64[np.ndarray, " m"]) -> list[Int16[np.ndarray, "_"]]:
        """The audio of some records, in the order of `indices`; the arrays are read-only. Thread-safe."""
        rows = np.asarray(indices, np.int64)
        outside = rows[(rows < 0) | (rows >= len(self))]
        if outside.size:
            raise IndexError(f"record {outside[0]} of {self.name}, which has {len(self)}")
        shards = np.searchsorted(self.shard_ends, rows, side="right")
        starts = np.concatenate([[0], self.shard_ends])[shards]
        return [self._read_one(int(k), int(row - start)) for k, row, start in zip(shards, rows, starts)]

    def _read_one(self, shard: int, position: int) -> Int16[np.ndarray, " s"]:
        try:
            return decode_audio(self._reader(shard).read([position])[0])
        except errors.RunError:
            raise
        except (RuntimeError, ValueError, IndexError) as error:
            path = self.folder / shard_name(self.name, shard, len(self.shard_ends))
            raise errors.InputError(
                f"record {position} of {path} is damaged ({error}): delete {self.folder} and prepare {self.name} again"
            ) from error

    def _reader(self, shard: int) -> array_record_module.ArrayRecordReader:
        with self._lock:
            if shard not in self._readers:
                path = self.folder / shard_name(self.name, shard, len(self.shard_ends))
                reader = array_record_module.ArrayRecordReader(
                    str(path), READER_OPTIONS, file_reader_buffer_size=READER_BUFFER_BYTES
                )
                _check_same(self.folder, fingerprint(self.folder), self.fingerprint)  # of the shard just opened
                self._readers[shard] = reader
            return self._readers[shard]

    @functools.cached_property
    def ids(self) -> np.ndarray:
        """Unicode [n], unique in the set: the source path, and "#<k>" for segment k of a longer recording."""
        return self._names("ids")

    @functools.cached_property
    def recordings(self) -> np.ndarray:
        """Unicode: the source path of each recording."""
        return self._names("recordings")

    @functools.cached_property
    def groups(self) -> np.ndarray:
        """Unicode: the name of each group, such as a speaker."""
        return self._names("groups")

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """Unicode: class names in label order."""
        return self._names("labels")

    @functools.cached_property
    def report(self) -> dict[str, Any]:
        """What preparing found: files, hours, mean seconds, unreadable files and why, clipped samples."""
        return opening.read_json(self.folder / REPORT_FILE)

    def _names(self, key: str) -> np.ndarray:
        with np.load(opening.checked(self.folder / INDEX_FILE), allow_pickle=False) as index:
            _check_same(self.folder, str(index["fingerprint"]), self.fingerprint)
            return unpack_names(index[key])


_COLUMNS = ("samples", "recording", "group", "label", "start_sample")


def pack_names(names: Sequence[str]) -> np.ndarray:
    """Names as one uint8 array of NUL-terminated UTF-8: much smaller than NumPy's fixed-width unicode."""
    return np.frombuffer("".join(f"{name}\0" for name in names).encode(), np.uint8)


def unpack_names(packed: np.ndarray) -> np.ndarray:
    """The inverse of `pack_names`, as a unicode array."""
    return np.array(packed.tobytes().decode().split("\0")[:-1], dtype=np.str_)


@functools.lru_cache
def _warn_of_misread_once(folder: pathlib.Path, number: int) -> None:
    logs.warn(
        f"{folder} holds {number} MP3 recordings that an earlier version read, perhaps only in part: delete it and "
        "prepare it again"
    )


def _warn_of_misread(opened: PreparedSet) -> None:
    if not (opened.folder / REPORT_FILE).is_file() or "decoders" in opened.report:
        return
    with np.load(opening.checked(opened.folder / INDEX_FILE), allow_pickle=False) as index:
        number = len(_MP3.findall(index["recordings"].tobytes()))
    if number:
        _warn_of_misread_once(opened.folder, number)


def _why_absent(folder: pathlib.Path, data_dir: str | os.PathLike, name: str) -> str:
    remedy = f"run `voc2vec prepare {name} --manual_dir=DIR --data_dir={data_dir}`"
    if partial_folder(data_dir, name).is_dir():
        return f"set {name} is only half prepared in {folder.parent}: {remedy} to finish it"
    if folder.is_dir():
        return f"{folder} has no {INDEX_FILE}, so it was not written by voc2vec prepare: move it away and {remedy}"
    there = ", ".join(list_sets(data_dir)) or "none"
    return f"set {name} is not prepared in {data_dir} (prepared there: {there}): {remedy}"


def partial_folder(data_dir: str | os.PathLike, name: str) -> pathlib.Path:
    """Where an unfinished preparation keeps its finished shards."""
    return pathlib.Path(data_dir) / name / f"{VERSION}.partial"


def _check_shards(folder: pathlib.Path, name: str, shard_bytes: Int64[np.ndarray, " k"]) -> None:
    for shard, expected in enumerate(shard_bytes.tolist()):
        path = folder / shard_name(name, shard, len(shard_bytes))
        found = path.stat().st_size if path.is_file() else 0
        if found != expected:
            raise errors.InputError(
                f"{path} has {found} bytes where its index says {expected}: delete {folder} and prepare {name} again"
            )


# A record is a tf.train.Example: map entries in key order, so that equal examples are equal bytes.
_AUDIO_KEY = b"\x0a\x05audio"


def encode(example: Example) -> bytes:
    """The bytes of a tf.train.Example with the features of a prepared set."""
    features = {
        "audio": _field(1, _field(1, example.audio.astype("<i2", copy=False).tobytes())),
        "group": _field(1, _field(1, example.group.encode())),
        "id": _field(1, _field(1, example.id.encode())),
        "label": _field(1, _field(1, example.label.encode())),
        "recording": _field(1, _field(1, example.recording.encode())),
        "start_sample": _field(3, _field(1, _varint(example.start_sample))),
    }
    entries = (_field(1, _field(1, key.encode()) + _field(2, value)) for key, value in sorted(features.items()))
    return _field(1, b"".join(entries))


def decode_audio(record: bytes) -> Int16[np.ndarray, " s"]:
    """The audio of an encoded example as a read-only view, without a copy. The audio entry must come first."""
    at = record.find(_AUDIO_KEY, 0, 32)
    if at < 0:
        raise ValueError("the record does not begin with its audio")
    at += len(_AUDIO_KEY)
    for _ in range(3):  # Feature, BytesList, bytes: each a tag and a length
        size, at = _read_varint(record, at + 1)
    return np.frombuffer(record, "<i2", count=size // 2, offset=at)


def _field(number: int, payload: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(record: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = record[at]
        value |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:
            return value, at
