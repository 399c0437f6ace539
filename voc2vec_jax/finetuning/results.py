"""What folds leave in their folders: scores, predictions, features, and metrics of every epoch."""

import io
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from voc2vec_jax import audio, errors
from voc2vec_jax.finetuning import tasks
from voc2vec_jax.runs import agreement, files

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
    writer = files.csv_writer(text)
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


def own_folder(workdir: pathlib.Path) -> pathlib.Path:
    """Where this process keeps its folds in progress: the run folder itself when it is alone."""
    if agreement.count() == 1:
        return workdir
    return workdir / "processes" / f"{agreement.index():02d}_of_{agreement.count():02d}"


def gather_metrics(workdir: pathlib.Path, folds: int) -> None:
    """metrics.jsonl of all processes: what is done from the folds, the rest from who trains it."""
    if agreement.count() == 1:
        return
    rows: dict[int, list] = {}
    for path in sorted((workdir / "processes").glob(f"*_of_{agreement.count():02d}/metrics.jsonl")):
        for row in map(json.loads, path.read_text().splitlines()):
            rows.setdefault(row["fold"], []).append(row)
    rows |= {k: read_fold(workdir, k)["history"] for k in range(folds) if is_done(workdir, k)}
    write_metrics(workdir, rows)


def write_metrics(folder: pathlib.Path, rows: Mapping[int, list]) -> None:
    """metrics.jsonl, fold by fold."""
    text = "".join(json.dumps(row) + "\n" for fold in sorted(rows) for row in rows[fold])
    files.write_atomic(folder / "metrics.jsonl", text.encode())
