"""The input of an evaluation as one list in fixed order: files of a folder or manifest, or records of prepared sets.

Workers divide the work by this list, so it depends on names alone: not on the machine, the mount point or the time.
"""

import csv
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from voc2vec_jax import audio, errors
from voc2vec_jax.datasets import records, trees
from voc2vec_jax.datasets.published import folder
from voc2vec_jax.inference import buckets, loading

TABLES = (".csv", ".tsv")
SCHEMA = pa.schema([("id", pa.string()), ("path", pa.binary()), ("label", pa.string())])
CHUNK_ROWS = 1 << 15


class Item(NamedTuple):
    """One recording: its row in the list, its name, its path, and its class (None if unknown)."""

    row: int
    id: str
    path: str  # below the input's root; for a record, the path of the recording it was cut from
    label: str | None


@dataclasses.dataclass(frozen=True)
class Items:
    """The list of items.

    `stream(item, how, remark)` yields the audio of an item in blocks of mono float32 at 16 kHz, as `audio.stream`.
    `lengths` gives the samples at 16 kHz of some items, and how many items each one stands for. `fingerprint` changes
    with any id, path or label, with their order, and with the audio of a prepared set (but not of files).
    """

    name: str
    table: pa.Table
    fingerprint: str
    stream: Callable[[Item, audio.Reading, audio.Remark], Iterator[Float32[np.ndarray, " _"]]]
    lengths: Callable[[], tuple[list[int], float]]

    def __len__(self) -> int:
        return self.table.num_rows

    def rows(self, first: int, last: int) -> list[Item]:
        """The items `first` to `last` - 1."""
        columns = self.table.slice(first, last - first).to_pydict()
        return [
            Item(first + k, _as_text(path) if name is None else name, os.fsdecode(path), label)
            for k, (name, path, label) in enumerate(zip(*(columns[field] for field in SCHEMA.names), strict=True))
        ]


def open_input(source: str, data_dir: str | os.PathLike | None = None) -> Items:
    """The list that `source` names: with `data_dir` prepared sets (names separated by commas), else a path.

    A path is a folder, an audio file or a manifest. A folder is searched and sorted; if its files lie in two or more
    folders, these are the classes. A manifest is a csv or tsv with a column `path` and optionally `id` and `label`,
    fairseq's tsv, or a text file with one path per line; its paths are relative to it. InputError for anything else,
    and for an empty list.
    """
    path = pathlib.Path(source).expanduser()
    if data_dir is not None:
        return _of_sets([name.strip() for name in source.split(",") if name.strip()], data_dir)
    if path.is_dir():
        return _of_folder(path)
    if not path.exists():
        raise errors.InputError(
            f"--input={source} is neither a folder nor a file: give one, or --data_dir=DIR with the name of a set that "
            "is prepared there"
        )
    if trees.is_audio(path.name):
        return _of_files(path.name, path.parent, [(path.name, path.name, "")])
    if path.name.lower().endswith((*trees.ARCHIVE_SUFFIXES, ".parquet", ".npz", ".npy")):
        raise errors.InputError(f"--input={source} is no list of recordings: unpack it, or write a csv of their paths")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _of_manifest(path, file)
    except (UnicodeDecodeError, csv.Error) as fault:
        raise errors.InputError(f"--input={source} is no manifest in UTF-8 text ({fault})") from fault
    except OSError as fault:
        raise errors.InputError(f"--input={source} cannot be read ({fault.strerror})") from fault


def _listed(entries: Iterable[tuple[str, str, str]]) -> tuple[pa.Table, Any]:
    """A compact table of (id, path, label), and the hash over its rows."""
    digest, chunks, waiting = hashlib.sha256(), [], []

    def flush() -> None:
        columns = zip(*waiting)
        arrays = [pa.array(column, kind) for column, kind in zip(columns, SCHEMA.types)]
        chunks.append(pa.record_batch(arrays, schema=SCHEMA))
        waiting.clear()

    for name, path, label in entries:
        name, path = _as_text(os.fsencode(name)), os.fsencode(path)
        digest.update(b"\0".join((name.encode(), path, label.encode(), b"")))
        waiting.append((None if name == _as_text(path) else name, path, label or None))
        if len(waiting) == CHUNK_ROWS:
            flush()
    if waiting:
        flush()
    return pa.Table.from_batches(chunks, SCHEMA), digest


def _as_text(path: bytes) -> str:
    return path.decode("utf-8", "replace")


def _of_files(name: str, root: pathlib.Path, entries: Iterable[tuple[str, str, str]]) -> Items:
    table, digest = _listed(entries)
    if not table.num_rows:
        raise errors.InputError(f"--input={name} lists no recordings")

    def stream(item: Item, how: audio.Reading, remark: audio.Remark) -> Iterator[Float32[np.ndarray, " _"]]:
        return audio.stream(root / item.path, item.path, how, remark)

    def lengths() -> tuple[list[int], float]:
        some = buckets.spread(table.num_rows)
        return buckets.known_lengths([root / os.fsdecode(table["path"][row].as_py()) for row in some], table.num_rows)

    return Items(name, table, digest.hexdigest(), stream, lengths)


def _of_folder(root: pathlib.Path) -> Items:
    names = sorted(name for name in trees.FolderTree(root).names() if trees.is_audio(name))
    if not names:
        raise errors.InputError(f"--input={root} holds no audio file ({', '.join(audio.SUFFIXES)})")
    classes = {_parent(name) for name in names} - {""}
    labelled = len(classes) > 1
    return _of_files(str(root), root, ((name, name, _parent(name) if labelled else "") for name in names))


def _parent(name: str) -> str:
    label = name.split("/")[-2] if "/" in name else ""
    return os.fsencode(label).decode("utf-8", "replace")


def _of_manifest(path: pathlib.Path, file: Any) -> Items:
    first, second = file.readline().rstrip("\r\n"), file.readline()
    file.seek(0)
    if "\t" not in first and folder.FAIRSEQ_ROW.fullmatch(second):
        root = path.parent / first.strip()
        lines = (line.rpartition("\t")[0] for line in _lines(file, 1))
        return _of_files(str(path), root, ((line, line, "") for line in lines))
    tab = "\t" if "\t" in first else ","
    header = [column.strip().lower() for column in next(csv.reader([first], delimiter=tab), [])]
    if "path" in header:
        return _of_files(str(path), path.parent, _table_rows(path, file, header, tab))
    if path.suffix.lower() in TABLES:
        raise errors.InputError(
            f"{path} has the columns {', '.join(header) or 'of an empty file'} and none of them is path: name the "
            "column of the files path"
        )
    return _of_files(str(path), path.parent, ((line, line, "") for line in _lines(file, 0)))


def _lines(file: Iterable[str], skipped: int) -> Iterator[str]:
    for number, line in enumerate(file):
        if number >= skipped and line.strip():
            yield line.strip("\r\n")


def _table_rows(
    manifest: pathlib.Path, file: Iterable[str], header: list[str], tab: str
) -> Iterator[tuple[str, str, str]]:
    if "start" in header:
        raise errors.InputError(
            f"{manifest} lists stretches of recordings, and whole ones are read here: prepare them as a set with "
            f"tools/prepare.py folder --manual_dir={manifest}, and give its name"
        )
    rows = csv.reader(file, delimiter=tab)
    next(rows)
    at = {name: header.index(name) for name in ("path", "id", "label") if name in header}
    for row in rows:
        if not any(field.strip() for field in row):
            continue
        if len(row) > len(header):
            raise errors.InputError(
                f"{manifest} line {rows.line_num} has {len(row)} fields and the header {len(header)}: quote what "
                "holds a separator"
            )
        row += [""] * (len(header) - len(row))
        path = row[at["path"]].strip()
        if not path:
            raise errors.InputError(f"{manifest} line {rows.line_num} has no path: fill it in, or delete the line")
        name = row[at["id"]].strip() if "id" in at else ""
        yield name or path, path, row[at["label"]].strip() if "label" in at else ""


def _of_sets(names: list[str], data_dir: str | os.PathLike) -> Items:
    if not names or len(set(names)) < len(names):
        raise errors.InputError(f"--input={','.join(names)} names no set, or one twice: give each once")
    sets = [records.open_set(data_dir, name) for name in names]
    several = len(sets) > 1

    def entries() -> Iterator[tuple[str, str, str]]:
        for opened in sets:
            front = f"{opened.name}/" if several else ""
            labels = [*opened.labels.tolist(), ""]  # -1 is unlabelled
            for name, recording, label in zip(opened.ids, opened.recordings[opened.recording], opened.label):
                yield f"{front}{name}", f"{front}{recording}", labels[label]

    ends = np.cumsum([len(opened) for opened in sets])

    def stream(item: Item, how: audio.Reading, remark: audio.Remark) -> Iterator[Float32[np.ndarray, " _"]]:
        del how, remark  # of files; a record is as it was prepared
        which = int(np.searchsorted(ends, item.row, side="right"))
        within = item.row - int(ends[which]) + len(sets[which])
        yield loading.as_float(sets[which].read([within])[0])

    table, digest = _listed(entries())
    digest.update(" ".join(opened.fingerprint for opened in sets).encode())
    samples = np.concatenate([opened.samples for opened in sets])

    def lengths() -> tuple[list[int], float]:
        some = samples[buckets.spread(len(samples))].tolist()
        return some, len(samples) / len(some)

    return Items(",".join(names), table, digest.hexdigest(), stream, lengths)
