"""What a report reads of a run folder beside its summary: predictions, learning curves and embeddings."""

import csv
import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from voc2vec_jax import audio, errors, opening
from voc2vec_jax.finetuning import results as fold_results
from voc2vec_jax.reports import runs as report_runs
from voc2vec_jax.runs import csv_files

_PREDICTION = ("fold", "id", "path", "start_seconds", "seconds", "label", "predicted", "probability")


class ReportedPrediction(NamedTuple):
    """One test clip; `path` is relative to the run's audio root, "" when unknown; `probability` of `predicted`."""

    fold: int
    id: str
    path: str
    start_seconds: float
    seconds: float
    label: str
    predicted: str
    probability: float


class Embeddings(NamedTuple):
    """Vectors of one fold's test clips; `labels` index the run's labels."""

    fold: int
    labels: Int[np.ndarray, "n"]
    vectors: Float[np.ndarray, "n d"]


def predictions(run: report_runs.ReportedRun) -> list[ReportedPrediction] | None:
    """The run's predictions.csv, or None if it has none; InputError, naming the line, for a broken one."""
    path = run.details_folder / "predictions.csv"
    if not path.is_file():
        return None
    rows = []
    with opening.regular(path, "r", newline="", encoding="utf-8", errors="surrogateescape") as file:
        reader = csv_files.DictReader(file, restval="")
        try:
            absent = [name for name in _PREDICTION if name not in (reader.fieldnames or ())]
            if absent:
                report_runs.refuse(path, f"the column {absent[0]!r} is missing")
            rows = [_prediction(path, reader.line_num, row) for row in reader]
        except csv.Error as error:
            report_runs.refuse(path, f"line {reader.line_num} is not csv ({error})")
    return rows


def _prediction(path: pathlib.Path, line: int, row: Mapping[str, str]) -> ReportedPrediction:
    try:
        numbers = [float(row[name]) for name in ("start_seconds", "seconds", "probability")]
        fold = int(row["fold"])
    except ValueError as error:
        report_runs.refuse(path, f"line {line}: {error}")
    if not all(map(math.isfinite, numbers)):
        report_runs.refuse(path, f"line {line} holds a number that is not finite")
    start, seconds, probability = numbers
    return ReportedPrediction(fold, row["id"], row["path"], start, seconds, row["label"], row["predicted"], probability)


def config(run: report_runs.ReportedRun) -> dict[str, Any]:
    """The run's config.json; empty where it has none that can be read."""
    path = run.details_folder / "config.json"
    try:
        found = opening.read_json(path)
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def reading(run: report_runs.ReportedRun) -> audio.Reading:
    """How the run read its recordings; as it is done by default where its config.json does not tell."""
    found = config(run)
    how = audio.Reading(*(found.get(name, getattr(audio.DEFAULT, name)) for name in audio.Reading._fields))
    how = how._replace(rescale_float=how.rescale_float is True)
    try:
        audio.check(how)
    except errors.InputError:
        return audio.DEFAULT
    return how


def curves(run: report_runs.ReportedRun) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl that have a fold and an epoch; a line cut short by a kill is skipped."""
    path = run.details_folder / "metrics.jsonl"
    return fold_results.metrics_rows(path) if path.is_file() else []


def embeddings(run: report_runs.ReportedRun) -> Embeddings | None:
    """Of the first finished fold, or None if it stored none; InputError for a file that cannot be used."""
    for fold in run.folds[:1]:
        path = run.details_folder / f"fold_{fold.fold:02d}" / "embeddings.npz"
        if not path.is_file():
            return None
        try:
            with np.load(opening.checked(path), allow_pickle=False) as stored:
                if run.kind != "classes":  # there is no class to colour by
                    return None
                labels, vectors = stored["labels"].astype(np.int64), stored["vectors"].astype(np.float32)
        except Exception as error:  # zip, zlib, NumPy and struct each have their own
            report_runs.refuse(path, f"it cannot be read ({type(error).__name__})")
        if vectors.ndim != 2 or labels.shape != vectors.shape[:1] or not np.isfinite(vectors).all():
            report_runs.refuse(
                path, f"labels of shape {labels.shape} and finite vectors of shape {vectors.shape} do not fit"
            )
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(run.labels):
            report_runs.refuse(path, f"a label is none of the run's {len(run.labels)}")
        return Embeddings(fold.fold, labels, vectors)
    return None
