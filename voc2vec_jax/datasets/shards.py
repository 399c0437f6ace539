"""Writing prepared sets: shards, each whole or absent, and the metadata that completes a set."""

import dataclasses
import hashlib
import json
import pathlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from array_record.python import array_record_module

from voc2vec_jax import errors, opening
from voc2vec_jax.datasets import records
from voc2vec_jax.runs import files

# One record per chunk for random access. Uncompressed, because brotli saves a tenth of the bytes of voices and makes
# reading three times slower.
WRITER_OPTIONS = "group_size:1,uncompressed"


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """What the index keeps of one record."""

    id: str
    recording: str
    group: str
    label: str
    start_sample: int
    samples: int


@dataclasses.dataclass(frozen=True)
class Shard:
    """A finished shard: its rows, size and SHA-256, and the recordings that were unreadable, clipped or odd.

    `sources` is the digest of the states of the files it was made of; "" in a shard of an earlier version.
    """

    rows: list[Row]
    bytes: int
    sha256: str
    unreadable: list[dict[str, str]]
    clipped: dict[str, int]
    remarks: list[dict[str, str]] = dataclasses.field(default_factory=list)
    sources: str = ""


def write(
    path: pathlib.Path,
    examples: Iterable[records.Example],
    unreadable: list[dict[str, str]],
    clipped: dict[str, int],
    remarks: list[dict[str, str]],
    sources: str = "",
) -> Shard:
    """Writes a shard under a temporary name, renames it, then leaves its `.json` beside it.

    `unreadable`, `clipped` and `remarks` may be filled while `examples` is consumed. A shard whose `.json` is there
    is complete. `errors.RunError` when the disk refuses.
    """
    try:
        with files.atomic_path(path) as temporary:
            rows = _write_records(temporary, examples)
            _check_written(temporary, len(rows))
            of = (unreadable, clipped, remarks, sources)
            shard = Shard(rows, temporary.stat().st_size, files.sha256(temporary), *of)
        files.write_atomic(sidecar(path), json.dumps(dataclasses.asdict(shard)).encode())
    except (OSError, RuntimeError) as error:
        raise errors.RunError(f"cannot write {path} ({error}): free the disk and run again to continue") from error
    return shard


def sidecar(path: pathlib.Path) -> pathlib.Path:
    """The file beside a shard that marks it as complete and describes it."""
    return path.with_name(f"{path.name}.json")


def load(path: pathlib.Path) -> Shard | None:
    """A shard finished earlier; None when it is absent, damaged or not of the recorded size."""
    try:
        saved = opening.read_json(sidecar(path))
        if path.stat().st_size != saved["bytes"]:
            return None
        return Shard(**{**saved, "rows": [_row(**row) for row in saved["rows"]]})
    except (FileNotFoundError, json.JSONDecodeError, KeyError, TypeError):
        return None


def _row(id: str, recording: str, group: str, label: str, start_sample: int, samples: int) -> Row:
    """A row that shares strings with other rows: among millions, most groups and labels are equal."""
    recording = id if recording == id else sys.intern(recording)
    return Row(id, recording, sys.intern(group), sys.intern(label), start_sample, samples)


def _write_records(path: pathlib.Path, examples: Iterable[records.Example]) -> list[Row]:
    rows = []
    writer = array_record_module.ArrayRecordWriter(str(path), WRITER_OPTIONS)
    try:
        for example in examples:
            writer.write(records.encode(example))
            rows.append(
                Row(
                    example.id,
                    example.recording,
                    example.group,
                    example.label,
                    example.start_sample,
                    len(example.audio),
                )
            )
    finally:
        writer.close()
    return rows


def _check_written(path: pathlib.Path, expected: int) -> None:
    reader = array_record_module.ArrayRecordReader(str(path), records.READER_OPTIONS)
    try:
        found = reader.num_records()
    finally:
        reader.close()
    if found != expected:
        raise OSError(f"{found} of {expected} records arrived")


def finish(
    folder: pathlib.Path,
    name: str,
    shards: Sequence[Shard],
    labels: Sequence[str],
    report: dict[str, Any],
    **info: Any,
) -> None:
    """Writes index, report and TFDS metadata beside complete shards; `info` goes to `tfds.core.DatasetInfo`."""
    index = build_index(shards, labels)
    with files.atomic(folder / records.INDEX_FILE) as file:
        np.savez(file, **index)
    files.write_atomic(folder / records.REPORT_FILE, json.dumps(report, indent=1, ensure_ascii=False).encode())
    _write_tfds_metadata(folder, name, shards, info)


def build_index(shards: Sequence[Shard], labels: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of `index.npz`. Every label must be one of `labels`."""
    rows = [row for shard in shards for row in shard.rows]
    recordings = list(dict.fromkeys(row.recording for row in rows))
    groups = sorted({row.group for row in rows} - {""})
    index = {
        "samples": np.array([row.samples for row in rows], np.int32),
        "recording": _dense([row.recording for row in rows], recordings),
        "group": _dense([row.group for row in rows], groups),
        "label": _dense([row.label for row in rows], labels),
        "start_sample": np.array([row.start_sample for row in rows], np.int64),
        "ids": records.pack_names([row.id for row in rows]),
        "recordings": records.pack_names(recordings),
        "groups": records.pack_names(groups),
        "labels": records.pack_names(labels),
        "shard_records": np.array([len(shard.rows) for shard in shards], np.int64),
        "shard_bytes": np.array([shard.bytes for shard in shards], np.int64),
    }
    digest = hashlib.sha256()
    for key, array in index.items():
        digest.update(f"{key} {array.dtype} {array.shape}\n".encode() + array.tobytes())
    for shard in shards:
        digest.update(shard.sha256.encode())
    return {**index, "fingerprint": np.array(digest.hexdigest())}


def _dense(values: Sequence[str], names: Sequence[str]) -> np.ndarray:
    number = {"": -1} | {name: k for k, name in enumerate(names)}
    return np.array([number[value] for value in values], np.int64)


def _write_tfds_metadata(folder: pathlib.Path, name: str, shards: Sequence[Shard], info: dict[str, Any]) -> None:
    import tensorflow_datasets as tfds  # imported late: readers and worker processes do not need it

    split = tfds.core.SplitInfo(
        name=records.SPLIT,
        shard_lengths=[len(shard.rows) for shard in shards],
        num_bytes=sum(shard.bytes for shard in shards),
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features(),
        split_infos=[split],
        version=records.VERSION,
        check_data=False,  # its check reads with TensorFlow
        **info,
    )


def features() -> Any:
    """The `tfds.features.FeaturesDict` of a prepared set."""
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {
            "audio": tfds.features.Tensor(shape=(None,), dtype=np.int16, encoding="bytes"),
            "group": tfds.features.Text(),
            "id": tfds.features.Text(),
            "label": tfds.features.Text(),
            "recording": tfds.features.Text(),
            "start_sample": np.int64,
        }
    )
