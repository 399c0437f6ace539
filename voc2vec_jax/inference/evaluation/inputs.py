"""The input of an evaluation as one list in fixed order: files of a folder or manifest, or records of prepared sets.

Workers divide the work by this list, so it depends on names alone: not on the machine, the mount point or the time.
"""

import array
import dataclasses
import hashlib
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Float64, Int64

from voc2vec_jax import audio, errors
from voc2vec_jax.datasets import class_folders, file_names, lists, manifest_listings, records, trees
from voc2vec_jax.inference import buckets, folders, loading
from voc2vec_jax.runs import logs

COLUMNS = ("path", "id", "label", "start", "end")
BLOCK_SECONDS = 300  # of a stretch that are read at once
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
    with any id, path or label, with their order, and with the audio of a prepared set (but not of files). `file` gives
    the file that an item is read from; None for prepared sets. `starts` are where in their files items start, in
    seconds; NaN for whole files, and None where all are whole.
    """

    name: str
    table: pa.Table
    fingerprint: str
    stream: Callable[[Item, audio.Reading, audio.Remark], Iterator[Float32[np.ndarray, " _"]]]
    lengths: Callable[[], tuple[list[int], float]]
    file: Callable[[Item], str] | None = None
    starts: Float64[np.ndarray, "n"] | None = None

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

    A path is a folder, an audio file or a list. A folder is searched and sorted; `class_folders` says which folders are
    classes. A list is what `lists` reads, here with the columns `path`, `id`, `label`, `start` and `end`.
    InputError for anything else, for an empty list, and for a recording with two labels. What is odd is said.
    """
    path = pathlib.Path(source).expanduser()
    if data_dir is not None:
        return _of_sets([name.strip() for name in source.split(",") if name.strip()], data_dir)
    if path.is_dir():
        return _of_folder(path)
    if not lists.is_there(path):
        raise errors.InputError(
            f"--input={source} is neither a folder nor a file: give one, or --data_dir=DIR with the name of a set that "
            "is prepared there"
        )
    if trees.is_audio(path.name):
        return _of_files(str(path), path.parent, [(path.name, path.name, "")])
    if path.name.lower().endswith((*trees.ARCHIVE_SUFFIXES, ".parquet", ".npz", ".npy")):
        raise errors.InputError(f"--input={source} is no list of recordings: unpack it, or write a csv of their paths")
    return _of_list(path)


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


@dataclasses.dataclass(frozen=True)
class _Files:
    """Recordings that are files below `root`, or with `start` and `end` (in seconds; NaN for all) stretches of them."""

    root: pathlib.Path
    table: pa.Table
    start: Float64[np.ndarray, "n"] | None
    end: Float64[np.ndarray, "n"] | None

    def file(self, item: Item) -> str:
        """The path of the file of an item."""
        return os.path.join(self.root, item.path)

    def stream(self, item: Item, how: audio.Reading, remark: audio.Remark) -> Iterator[Float32[np.ndarray, " _"]]:
        """The audio of an item; AudioError also for a stretch that leaves its file."""
        if self.start is None or np.isnan(self.start[item.row]):
            yield from audio.stream(self.file(item), item.path, how, remark)
            return
        at, end, slack = float(self.start[item.row]), float(self.end[item.row]), manifest_listings.END_SLACK_SECONDS
        while at < end:
            to = end if end - at < BLOCK_SECONDS + slack else at + BLOCK_SECONDS
            block = audio.load_stretch(self.file(item), at, to, item.path, how, remark)
            if len(block) / audio.RATE_HZ < to - at - slack:
                seconds = at + len(block) / audio.RATE_HZ
                raise audio.AudioError(item.path, f"ends at {seconds:.3f} s, and the stretch at {end:g} s")
            yield block
            at = to

    def lengths(self) -> tuple[list[int], float]:
        """`Items.lengths`."""
        some, count = buckets.spread(self.table.num_rows), self.table.num_rows
        whole = some if self.start is None else [row for row in some if np.isnan(self.start[row])]
        paths = [self.root / os.fsdecode(self.table["path"][row].as_py()) for row in whole]
        found, _ = buckets.known_lengths(paths, count)
        if self.start is not None:
            found += [round((self.end[row] - self.start[row]) * audio.RATE_HZ) for row in some if row not in whole]
        return found, count / max(1, len(found))


def _of_files(
    name: str,
    root: pathlib.Path,
    entries: Iterable[tuple[str, str, str]],
    look: bool = False,
    times: tuple[array.array, array.array] | None = None,
) -> Items:
    """Items of files. With `look`, at links and several entries of a file, InputError for two labels of one.

    `times` are where a stretch of each file starts and ends; they are filled while `entries` are read.
    """
    front = f"{root.resolve()}{os.sep}"
    identities, keys = file_names.Identities(str(root.resolve())), array.array("q")

    def identity(path: str, row: int) -> tuple[Any, ...]:
        stretch = () if times is None or math.isnan(times[0][row]) else (times[0][row], times[1][row])
        return (identities.of(file_names.normal(path, front)), *stretch)

    def keyed() -> Iterator[tuple[str, str, str]]:
        for row, entry in enumerate(entries):
            keys.append(hash(identity(entry[1], row)))
            yield entry

    table, digest = _listed(keyed() if look else entries)
    if not table.num_rows:
        raise errors.InputError(f"--input={name} lists no recordings")
    if look:
        _refuse_two_labels(name, table, np.frombuffer(keys, np.int64), identity)
    for each in times or ():
        digest.update(each.tobytes())
    found = _Files(root, table, *([np.frombuffer(each) for each in times] if times else (None, None)))
    return Items(name, table, digest.hexdigest(), found.stream, found.lengths, found.file, found.start)


def _refuse_two_labels(
    name: str, table: pa.Table, keys: Int64[np.ndarray, " n"], identity: Callable[[str, int], Any]
) -> None:
    """InputError where rows with one identity (of which `keys` are hashes) have two labels."""
    codes = table["label"].combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
    rows = np.flatnonzero(codes >= 0)
    rows = rows[np.lexsort((codes[rows], keys[rows]))]
    first, second = rows[:-1], rows[1:]
    alike = (keys[first] == keys[second]) & (codes[first] != codes[second])
    for pair in zip(first[alike].tolist(), second[alike].tolist()):
        paths = {row: os.fsdecode(table["path"][row].as_py()) for row in sorted(pair)}
        if len({identity(path, row) for row, path in paths.items()}) == 1:
            there = " and as ".join(f"{path}, label {table['label'][row]}" for row, path in paths.items())
            raise errors.InputError(f"{name} has one file twice, as {there}: leave one (several stand as in cry|cough)")


def _of_folder(root: pathlib.Path) -> Items:
    found = folders.scan(root)
    names = [name for name, _ in found.recordings]
    places, said = class_folders.places(names)
    for note in said:
        logs.warn(f"{root}: {note}")
    labels = {folder: os.fsencode(place.label).decode("utf-8", "replace") for folder, place in places.items()}
    entries = ((name, name, labels[class_folders.folder_of(name)]) for name in names)
    return _of_files(str(root), root, entries, found.has_links)


def _of_list(path: pathlib.Path) -> Items:
    with lists.opened(path, COLUMNS, strict=True) as table:
        times = (array.array("d"), array.array("d")) if "start" in table.columns else None

        def entries() -> Iterator[tuple[str, str, str]]:
            for row in table.rows():
                name = row.id or row.path
                if times:
                    whole = row.start_seconds is None
                    times[0].append(math.nan if whole else row.start_seconds)
                    times[1].append(math.nan if whole else row.end_seconds)
                    name = row.id or (
                        name if whole else manifest_listings.name_of(row.path, times[0][-1], times[1][-1])
                    )
                yield name, row.path, row.label

        items = _of_files(str(path), table.root, entries(), "label" in table.columns, times)
    for note in table.notes:
        logs.warn(note)
    return items


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
