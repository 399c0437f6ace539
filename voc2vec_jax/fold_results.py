"""What a finished fold leaves in its folder: scores, predictions, features."""

import csv
import io
import json
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from voc2vec_jax import audio, errors, files, tasks

PREDICTION_COLUMNS = ("fold", "id", "path", "start_seconds", "seconds", "label", "predicted", "probability")


def fold_folder(workdir: pathlib.Path, fold: int) -> pathlib.Path:
    """RUN/fold_03."""
    return workdir / f"fold_{fold:02d}"


def is_done(workdir: pathlib.Path, fold: int) -> bool:
    """Whether a fold's results are all there."""
    return (fold_folder(workdir, fold) / "fold.json").is_file()


def read_fold(workdir: pathlib.Path, fold: int) -> dict[str, Any]:
    """A finished fold's record; InputError when its file is damaged."""
    path = fold_folder(workdir, fold) / "fold.json"
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as fault:
        raise errors.InputError(f"{path} is damaged ({fault}): delete it and run again, the fold is redone") from fault


def write_npz(path: pathlib.Path, **arrays: np.ndarray) -> None:
    """Arrays, none of them pickled, under a name that appears when they are complete."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    files.write_atomic(path, content.getvalue())


def write_predictions(
    path: pathlib.Path, task: tasks.Task, fold: int, rows: Int64[np.ndarray, "n"], logits: Float32[np.ndarray, "n v"]
) -> None:
    """One line a clip: where it is, its label, what was predicted with which probability, and all probabilities."""
    wide = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    shares = wide / wide.sum(1, keepdims=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*PREDICTION_COLUMNS, *(f"p:{label}" for label in task.labels)])
    for row, share in zip(rows, shares):
        best = int(share.argmax())
        writer.writerow(
            [
                fold,
                task.ids[row],
                task.paths[row],
                f"{task.start_seconds[row]:.3f}",
                f"{task.samples[row] / audio.RATE_HZ:.3f}",
                task.labels[task.label[row]],
                task.labels[best],
                f"{share[best]:.6f}",
                *(f"{value:.6f}" for value in share),
            ]
        )
    files.write_atomic(path, text.getvalue().encode())
