"""Rows of a part: their columns, and a writer with bounded memory.

n = rows, d = width, l = layers, t = frames, w = windows, v = classes.
"""

import json
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from voc2vec_jax import audio, errors, opening
from voc2vec_jax.inference import answers, windowing
from voc2vec_jax.inference.evaluation import inputs as evaluation_inputs
from voc2vec_jax.inference.evaluation import window_rows
from voc2vec_jax.runs import csv_files

FLOAT16_END = 65_520.0  # from here on, the nearest float16 is infinite
GROUP_BYTES = 32 << 20  # vectors in a row group
TIMELINE_COLUMNS = ("row", "id", "start", "end", "label", "probability")
COMMON = [
    pa.field("row", pa.int64(), nullable=False),
    pa.field("id", pa.string(), nullable=False),
    pa.field("path", pa.string(), nullable=False),
    pa.field("seconds", pa.float64(), nullable=False),
    pa.field("label", pa.string()),
]


class Columns:
    """The columns of an evaluation's rows, as its description (evaluation.json) defines them."""

    def __init__(self, description: Mapping[str, Any], hop_samples: int, middle_samples: float):
        """The first frame sees audio around `middle_samples`, each other `hop_samples` further on."""
        self.description = description
        self.kind, self.layers = description["kind"], description["layers"]
        self.target = description.get("target", "classes")  # one of `answers.KINDS`
        self.classes, self.framed = description["classes"], description["pool"] == "none"
        self.item = pa.float16() if description["store_dtype"] == "float16" else pa.float32()
        self._hop, self._middle = hop_samples, middle_samples
        own = self._vector_fields(description["width"]) if self.kind == "embeddings" else self._class_fields()
        self.schema = pa.schema([*COMMON, *own], {"voc2vec_jax": json.dumps(dict(description))})
        self.plain = [field.name for field in self.schema if field.name in ("id", "path", "label", "predicted")]

    def _vector_fields(self, width: int) -> list[pa.Field]:
        kind = pa.list_(self.item, width)
        times = [pa.field("frame_times", pa.list_(pa.float32()))] if self.framed else []
        kind = pa.list_(kind) if self.framed else kind
        return [*times, *(pa.field(f"layer_{layer}", kind) for layer in self.layers)]

    def _class_fields(self) -> list[pa.Field]:
        windows = [pa.field("windows", pa.int32())] if self.kind == "timeline" else []
        if self.target == "regression":
            return [pa.field(answers.VALUE, pa.float32()), *windows]
        return [
            pa.field("predicted", pa.string()),
            pa.field("probability", pa.float32()),
            pa.field("probabilities", pa.list_(pa.float32(), len(self.classes))),
            *windows,
        ]

    def arrays(self, values: list[np.ndarray]) -> list[pa.Array]:
        """The columns after COMMON, from vectors [l, d] or [t, l, d], or from logits [v] or [w, v]."""
        if self.kind != "embeddings":
            return self._class_arrays(values)
        if not self.framed:
            stacked = np.stack(values)
            return [self._vectors(stacked[:, k]) for k in range(len(self.layers))]
        counts = [len(value) for value in values]
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
        times = np.concatenate([self.frame_times(count) for count in counts])
        frames = np.concatenate(values)
        vectors = (self._vectors(frames[:, k]) for k in range(len(self.layers)))
        return [pa.ListArray.from_arrays(offsets, column) for column in (pa.array(times), *vectors)]

    def frame_times(self, frames: int) -> Float[np.ndarray, "t"]:
        """The middle of what each frame sees, in seconds."""
        return ((np.arange(frames) * self._hop + self._middle) / audio.RATE_HZ).astype(np.float32)

    def holds(self, value: np.ndarray) -> bool:
        """Whether every number is finite, also in the type that is stored."""
        if self.item == pa.float16() and np.abs(value).max(initial=0) >= FLOAT16_END:
            return False
        return bool(np.isfinite(value).all())

    def _vectors(self, x: Float[np.ndarray, "n d"]) -> pa.Array:
        flat = np.ascontiguousarray(x.reshape(-1)).astype(self.item.to_pandas_dtype())
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), x.shape[1])

    def _class_arrays(self, values: list[np.ndarray]) -> list[pa.Array]:
        chances = np.stack([self.chances(value).reshape(-1, len(self.classes)).mean(0) for value in values])
        windows = [pa.array([len(value) for value in values], pa.int32())] if self.kind == "timeline" else []
        if self.target == "regression":
            return [pa.array(chances[:, 0]), *windows]
        said = [answers.in_words(self.target, self.classes, row) for row in chances]
        return [pa.array(said, pa.string()), pa.array(chances.max(1)), self._vectors(chances), *windows]

    def chances(self, logits: Float[np.ndarray, "*n v"]) -> Float[np.ndarray, "*n v"]:
        """Probabilities, or numbers, in float32."""
        return answers.probabilities(self.target, logits.astype(np.float32))


class PartWriter:
    """Writes the rows of a part as they come; within a row group they are sorted by `row`.

    Holds up to GROUP_BYTES of rows. The bytes written depend only on the rows and on their order of arrival.
    """

    def __init__(self, path: pathlib.Path, columns: Columns, items: list[evaluation_inputs.Item]):
        self._columns, self._items = columns, items
        self._writer = pq.ParquetWriter(
            path, columns.schema, compression="none", use_dictionary=columns.plain, write_statistics=columns.plain
        )
        self._waiting: list[tuple[int, float, np.ndarray]] = []
        self._bytes = 0

    def add(self, row: int, seconds: float, value: np.ndarray) -> None:
        """One item's value, as `Columns.arrays` takes it."""
        self._waiting.append((row, seconds, value))
        self._bytes += value.nbytes
        if self._bytes >= GROUP_BYTES:
            self._flush()

    def copy(self, path: pathlib.Path, without: Collection[int]) -> None:
        """The rows of a finished file but for some, as they are. RunError when it cannot be read."""
        try:
            with pq.ParquetFile(opening.checked(path)) as old:
                for group in range(old.num_row_groups):
                    table = old.read_row_group(group)
                    kept = [row not in without for row in table["row"].to_pylist()]
                    if any(kept):
                        self._writer.write_table(table.filter(pa.array(kept)).cast(self._columns.schema))
        except (pa.ArrowException, FileNotFoundError) as fault:
            reason = str(fault).splitlines()[0]
            raise errors.RunError(f"{path} is damaged ({reason}): delete it and run again") from fault

    def close(self) -> None:
        """Finishes the file. Call it after an error, too."""
        if self._waiting:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._waiting.sort(key=lambda entry: entry[0])
        rows, seconds, values = zip(*self._waiting)
        items = [self._items[row - self._items[0].row] for row in rows]
        common = (rows, [item.id for item in items], [shown(item.path) for item in items], seconds)
        labels = [item.label for item in items]
        arrays = [pa.array(column, field.type) for column, field in zip((*common, labels), COMMON)]
        arrays += self._columns.arrays(list(values))
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._columns.schema))
        self._waiting, self._bytes = [], 0


def shown(path: str) -> str:
    """A path as text, with bytes that are not UTF-8 replaced."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class TimelineWriter:
    """Writes the windows of a part's items as they come: one csv row per window, and all probabilities as Parquet.

    With several labels the probability is that of the likeliest one; of a number, there is none.
    """

    def __init__(self, path: pathlib.Path, windows: pathlib.Path, columns: Columns, cut: windowing.Cut):
        """To the csv file `path` and the Parquet file `windows`. `cut` gives the windows of so many samples."""
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv_files.Writer(self._file)
        self._writer.writerow(TIMELINE_COLUMNS)
        self._columns, self._cut = columns, cut
        self._windows = window_rows.WindowWriter(windows, columns.description)

    def copy(self, path: pathlib.Path, windows: pathlib.Path, without: Collection[int]) -> None:
        """The windows of finished files but for those of some items, as they are."""
        self._windows.copy(windows, without)
        with opening.regular(path, "r", newline="", encoding="utf-8") as file:
            rows = csv_files.Reader(file)
            next(rows)
            self._writer.writerows(row for row in rows if int(row[0]) not in without)

    def add(self, item: evaluation_inputs.Item, samples: int, logits: Float[np.ndarray, "w v"]) -> None:
        """Writes the windows of one recording."""
        chances, target = self._columns.chances(logits), self._columns.target
        times = np.array([window[:2] for window in self._cut(samples)]) / audio.RATE_HZ
        self._windows.add(window_rows.Windows(item.row, times[:, 0], times[:, 1], chances))
        for k, (start, end) in enumerate(times.tolist()):
            said = answers.in_words(target, self._columns.classes, chances[k])
            chance = "" if target == "regression" else f"{chances[k].max():.4f}"
            self._writer.writerow((item.row, item.id, f"{start:.3f}", f"{end:.3f}", said, chance))

    def close(self) -> None:
        """Finishes the files."""
        self._file.close()
        self._windows.close()
