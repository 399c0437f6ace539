"""The windows of a timeline in Parquet, with the probabilities of all classes; written and read in bounded memory."""

import json
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from voc2vec_jax import errors, opening

GROUP = 1 << 15  # windows in a row group


class Windows(NamedTuple):
    """The windows of the recording in row `row`: start and end in seconds, probabilities (or one number) of each."""

    row: int
    start: Float[np.ndarray, " w"]
    end: Float[np.ndarray, " w"]
    chances: Float[np.ndarray, "w v"]


class WindowWriter:
    """Writes the windows of recordings as they come. Columns: row, start, end, probabilities."""

    def __init__(self, path: pathlib.Path, description: Mapping[str, Any]):
        own = [pa.field(name, pa.float64(), nullable=False) for name in ("start", "end")]
        kind = pa.list_(pa.float32(), len(description["classes"]))
        fields = [pa.field("row", pa.int64(), nullable=False), *own, pa.field("probabilities", kind)]
        self._schema = pa.schema(fields, {"voc2vec_jax": json.dumps(dict(description))})
        self._writer = pq.ParquetWriter(path, self._schema, compression="none", use_dictionary=["row"])
        self._waiting: list[Windows] = []

    def add(self, windows: Windows) -> None:
        """All windows of one recording."""
        self._waiting.append(windows)
        if sum(len(each.start) for each in self._waiting) >= GROUP:
            self._flush()

    def copy(self, path: pathlib.Path, without: Collection[int]) -> None:
        """The windows of a finished file but for those of some items. An earlier version wrote none."""
        if path.exists():
            for windows in read(path):
                if windows.row not in without:
                    self.add(windows)

    def close(self) -> None:
        """Finishes the file. Call it after an error, too."""
        if self._waiting:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        rows = np.concatenate([np.full(len(each.start), each.row) for each in self._waiting])
        start, end, chances = (np.concatenate(parts) for parts in list(zip(*self._waiting))[1:])
        flat = pa.array(np.ascontiguousarray(chances, np.float32).reshape(-1))
        vectors = pa.FixedSizeListArray.from_arrays(flat, chances.shape[1])
        columns = [pa.array(rows), pa.array(start), pa.array(end), vectors]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema), row_group_size=GROUP)
        self._waiting = []


def read(path: pathlib.Path) -> Iterator[Windows]:
    """The windows of a file, those of one recording at a time. RunError for a file that is damaged."""
    held: list[Windows] = []
    try:
        with pq.ParquetFile(opening.checked(path)) as file:
            for group in range(file.num_row_groups):
                for each in _split(file.read_row_group(group)):
                    if held and held[0].row != each.row:
                        yield _joined(held)
                        held = []
                    held.append(each)
    except (pa.ArrowException, OSError) as fault:
        reason = str(fault).splitlines()[0]
        raise errors.RunError(f"{path} is damaged ({reason}): delete it and its part, and evaluate again") from fault
    if held:
        yield _joined(held)


def _split(table: pa.Table) -> Iterator[Windows]:
    rows, start, end = (table[name].to_numpy() for name in ("row", "start", "end"))
    chances = table["probabilities"].combine_chunks().flatten().to_numpy().reshape(len(rows), -1)
    cuts = [0, *(np.flatnonzero(np.diff(rows)) + 1).tolist(), len(rows)]
    for first, stop in zip(cuts, cuts[1:]):
        if stop > first:
            yield Windows(int(rows[first]), start[first:stop], end[first:stop], chances[first:stop])


def _joined(parts: list[Windows]) -> Windows:
    return Windows(parts[0].row, *(np.concatenate(each) for each in list(zip(*parts))[1:]))
