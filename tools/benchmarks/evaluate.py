"""Batch evaluation as a way to embed files, for the benchmark: Parquet written, synced and read back."""

import pathlib
import tempfile
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float32

from voc2vec_jax.inference import pretrained
from voc2vec_jax.inference.evaluation import inputs as evaluation_inputs
from voc2vec_jax.inference.evaluation import output as evaluation_output
from voc2vec_jax.inference.evaluation import scores as evaluation_scores
from voc2vec_jax.inference.evaluation import worker


def way(
    model: pretrained.Model, files: Sequence[pathlib.Path], batch_seconds: float | None
) -> Callable[[], Float32[np.ndarray, "n d"]]:
    """A function that gives a vector of each file as `evaluate --input=LIST --output=FOLDER` does."""
    settings = worker.EvaluationSettings(batch_seconds=batch_seconds or 0.0)

    def vectors() -> Float32[np.ndarray, "n d"]:
        with tempfile.TemporaryDirectory() as folder:
            listed = pathlib.Path(folder, "files.txt")
            listed.write_text("".join(f"{path.resolve()}\n" for path in files))
            items = evaluation_inputs.open_input(str(listed))
            output = evaluation_output.OutputFolder(
                pathlib.Path(folder, "out"), worker.describe(model, items, settings)
            )
            worker.Worker(model, items, output, settings).run(output.missing())
            evaluation_scores.finish(output)
            table = pq.read_table(output.root / "parts").sort_by("row")
            return np.stack(table[f"layer_{model.config.encoder.depth}"].to_numpy())

    return vectors
