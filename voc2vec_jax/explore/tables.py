"""The vectors as files: vectors.parquet for programs, vectors.csv for spreadsheets; and copies.csv."""

import io
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Float32

from voc2vec_jax import audio
from voc2vec_jax.datasets import fingerprints
from voc2vec_jax.explore import probe as explore_probe
from voc2vec_jax.finetuning import tasks
from voc2vec_jax.inference import vector_files
from voc2vec_jax.runs import csv_files, files

ABOUT = (
    pa.field("id", pa.string(), nullable=False),
    pa.field("path", pa.string(), nullable=False),
    pa.field("start", pa.float64(), nullable=False),  # seconds, within the file
    pa.field("seconds", pa.float64(), nullable=False),
    pa.field("label", pa.string()),
    pa.field("group", pa.string()),
    pa.field("predicted", pa.string()),  # by a fold that had not heard the clip
    pa.field("probability", pa.float32()),
    pa.field("map_x", pa.float32()),
    pa.field("map_y", pa.float32()),
)


def about(
    task: tasks.Task, predictions: Mapping[str, explore_probe.Prediction], places: Mapping[int, Sequence[float]]
) -> pa.Table:
    """A row for each clip, without its vector; a value that is not known is null."""
    ids = task.ids.tolist()
    said = [predictions.get(name) for name in ids]
    points = [places.get(row, (None, None)) for row in range(len(task))]
    columns = [
        [_text(name) for name in ids],
        [_text(path) for path in task.paths.tolist()],
        task.start_seconds.tolist(),
        (task.samples / audio.RATE_HZ).tolist(),
        [task.labels[number] or None for number in task.label],
        [task.groups[number] if number >= 0 else None for number in task.group],
        [each and each.label for each in said],
        [each and each.probability for each in said],
        [x for x, _ in points],
        [y for _, y in points],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, ABOUT, strict=True)]
    return pa.Table.from_arrays(arrays, schema=pa.schema(ABOUT))


def _text(name: str) -> str:
    """A name as UTF-8 can hold it."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def write_vectors(folder: pathlib.Path, rows: pa.Table, vectors: Float32[np.ndarray, "n d"]) -> None:
    """vectors.parquet with a column of vectors, and vectors.csv with a column for each of their numbers."""
    vector_files.write_parquet(folder / "vectors.parquet", rows, vectors)
    vector_files.write_csv(folder / "vectors.csv", rows, vectors)


def write_copies(folder: pathlib.Path, task: tasks.Task, pairs: Sequence[fingerprints.Pair]) -> None:
    """copies.csv: a line for each pair of clips that hold the same sound."""
    text = io.StringIO()
    writer = csv_files.Writer(text)
    writer.writerow(["first", "second", "kind", "similarity", "first_label", "second_label"])
    for pair in pairs:
        names = [_text(str(task.ids[row])) for row in (pair.first, pair.second)]
        labels = [task.labels[task.label[row]] for row in (pair.first, pair.second)]
        writer.writerow([*names, pair.kind, f"{pair.similarity:.4f}", *labels])
    files.write_atomic(folder / "copies.csv", text.getvalue().encode())
