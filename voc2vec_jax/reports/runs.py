"""Reads and checks finished and unfinished runs of fine-tuning for a report."""

import csv
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from voc2vec_jax import errors
from voc2vec_jax.finetuning import paper_systems, scoring
from voc2vec_jax.ops import metrics

_NEEDED = {"dataset": str, "system": str, "protocol": str, "planned_folds": int, "folds": list, "labels": list}
_OPTIONAL = {"title": str, "model": str, "complete": bool, "audio_root": str, "clips": int, "leaks": dict}
_OPTIONAL |= {"kind": str, "averaged_classes": str, "pooled": dict}
_PREDICTION = ("fold", "id", "path", "start_seconds", "seconds", "label", "predicted", "probability")
_TRACES = ("config.json", "metrics.jsonl", "fold_00")  # of a run that has no summary yet


class ReportedFold(NamedTuple):
    """One fold's scores on its test clips; `train` counts training clips, `confusion` is None without classes."""

    fold: int
    scores: Mapping[str, float]
    confusion: Int[np.ndarray, "v v"] | None
    best_epoch: int | None
    train: int
    test: frozenset[str]


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


@dataclasses.dataclass(frozen=True, eq=False)
class ReportedRun:
    """A run folder's summary. `name` is the system's, made unique within its data set and protocol by `named`."""

    folder: pathlib.Path
    origin: pathlib.Path  # the argument that it was found under
    dataset: str
    title: str
    system: str
    name: str
    model: str
    protocol: str
    kind: str  # of `scoring.KINDS`
    averaged: str  # of `metrics.AVERAGED`
    complete: bool
    planned_folds: int
    folds: tuple[ReportedFold, ...]
    labels: tuple[str, ...]
    pooled: Mapping[str, Mapping[str, float | None]]  # as `scoring.pooled` makes them; empty without folds
    clips: int | None
    audio_root: str | None
    leaks: Mapping[str, Any]

    @property
    def progress(self) -> str:
        """Such as "7 of 10"."""
        return f"{len(self.folds)} of {self.planned_folds}"

    @property
    def summary(self) -> metrics.Summary | None:
        """Over the finished folds; None without any."""
        return metrics.summarise([fold.scores for fold in self.folds]) if self.folds else None

    @property
    def confusion(self) -> Int[np.ndarray, "v v"]:
        """Test clips of all folds; rows are true classes, columns predicted ones. For kind "classes" alone."""
        empty = np.zeros((len(self.labels),) * 2, np.int64)
        return sum((fold.confusion for fold in self.folds), empty)


def find(words: Sequence[str | os.PathLike]) -> tuple[list[ReportedRun], list[pathlib.Path]]:
    """The runs under the given folders, in the order of the tables, and run folders without a summary yet.

    A word is a run folder, or a folder of them: `<system>/summary.json` or `<dataset>/<system>/summary.json`. A run
    found twice counts once. InputError for a word with no run, or a summary that cannot be used.
    """
    found: dict[pathlib.Path, ReportedRun] = {}
    waiting = set()
    for word in words:
        origin = pathlib.Path(word).expanduser()
        if not origin.is_dir():
            raise errors.InputError(f"{origin} is not a folder; give a run folder of fine-tuning, or a folder of them")
        folders = [origin, *sorted(origin.glob("*/")), *sorted(origin.glob("*/*/"))]
        done = [folder for folder in folders if (folder / "summary.json").is_file()]
        if not done:
            raise errors.InputError(
                f"{origin} holds no summary.json, neither itself nor in RUN/<system> or RUN/<dataset>/<system>; "
                f"let at least one fold of a run finish"
            )
        for folder in done:
            found.setdefault(folder.resolve(), read(folder, origin))
        if origin not in done:
            waiting |= {folder for folder in folders[1:] if folder not in done and _started(folder)}
    return named(sorted(found.values(), key=_rank)), sorted(waiting)


def _started(folder: pathlib.Path) -> bool:
    return any((folder / trace).exists() for trace in _TRACES)


def _rank(run: ReportedRun) -> tuple:
    order = list(paper_systems.SYSTEMS)
    place = order.index(run.system) if run.system in paper_systems.SYSTEMS else len(order)
    return run.title, run.dataset, run.protocol, place, run.system, str(run.folder)


def named(runs: Sequence[ReportedRun]) -> list[ReportedRun]:
    """Names runs of the same data set, protocol and system by where they were found, alike in every data set."""
    places: dict[tuple, set[pathlib.Path]] = {}
    for run in runs:
        places.setdefault((run.dataset, run.protocol, run.system), set()).add(_place(run))
    common = {key[1:] + (place,) for key, several in places.items() if len(several) > 1 for place in several}
    shared = os.path.commonpath([place.absolute() for *_, place in common]) if common else ""
    return [
        dataclasses.replace(run, name=f"{run.system} ({os.path.relpath(_place(run).absolute(), shared)})")
        if (run.protocol, run.system, _place(run)) in common
        else run
        for run in runs
    ]


def _place(run: ReportedRun) -> pathlib.Path:
    """What distinguishes a run from its equals: the grid it belongs to, else its own folder."""
    grid = run.origin / run.dataset / run.system
    return run.origin if grid == run.folder else run.folder


def read(folder: pathlib.Path, origin: pathlib.Path | None = None) -> ReportedRun:
    """The run in one folder; InputError, naming the file and the key, if its summary cannot be used."""
    path = folder / "summary.json"
    raw = _json(path)
    for key, kind in {**_NEEDED, **_OPTIONAL}.items():
        value = raw.get(key)
        if value is None and key in _OPTIONAL:
            continue
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            _refuse(path, f"{key!r} is {'missing' if key not in raw else f'not a {kind.__name__}'}")
    labels = tuple(raw["labels"])
    if not labels or not all(isinstance(label, str) for label in labels) or len(set(labels)) < len(labels):
        _refuse(path, "'labels' is not a list of different names")
    # Summaries of earlier versions do not say these: there were only classes, averaged as the official script does.
    kind, averaged = raw.get("kind") or "classes", raw.get("averaged_classes") or "occurring"
    if kind not in scoring.KINDS:
        _refuse(path, f"'kind' is none of {', '.join(scoring.KINDS)}")
    folds = sorted((_fold(path, entry, kind, len(labels)) for entry in raw["folds"]), key=lambda fold: fold.fold)
    if len({fold.fold for fold in folds}) < len(folds):
        _refuse(path, "a fold is there twice")
    return ReportedRun(
        folder=folder,
        origin=origin or folder,
        dataset=raw["dataset"],
        title=raw.get("title") or raw["dataset"],
        system=raw["system"],
        name=raw["system"],
        model=raw.get("model") or "",
        protocol=raw["protocol"],
        kind=kind,
        averaged=averaged,
        complete=raw.get("complete", True) is True and len(folds) == raw["planned_folds"],
        planned_folds=raw["planned_folds"],
        folds=tuple(folds),
        labels=labels,
        pooled=_pooled(path, raw.get("pooled"), kind, averaged, folds),
        clips=raw.get("clips"),
        audio_root=raw.get("audio_root"),
        leaks=raw.get("leaks") or {},
    )


def _fold(path: pathlib.Path, entry: Any, kind: str, classes: int) -> ReportedFold:
    place = f"fold {entry.get('fold')}" if isinstance(entry, dict) else "a fold"
    try:
        matrix = np.array(entry["confusion"]) if kind == "classes" else None
        scores = {name: float(entry[name]) for name in scoring.KINDS[kind].titles}
        number, best, train, test = entry["fold"], entry.get("best_epoch"), len(entry["train"]), entry["test"]
    except KeyError as error:
        _refuse(path, f"{place}: {error} is missing")
    except (TypeError, ValueError, AttributeError):
        _refuse(path, f"{place} is not as fine-tuning writes it")
    if not all(map(math.isfinite, scores.values())):
        _refuse(path, f"{place} has a score that is no number")
    if matrix is not None:
        if not all(0 <= value <= 1 for value in scores.values()):
            _refuse(path, f"{place} has a score outside 0 to 1")
        if matrix.shape != (classes, classes) or matrix.dtype.kind not in "iu" or matrix.min() < 0:
            _refuse(path, f"{place}: 'confusion' is not a table of counts of {classes} by {classes} classes")
        matrix = matrix.astype(np.int64)
    if type(number) is not int or not isinstance(test, list) or (matrix is not None and matrix.sum() != len(test)):
        _refuse(path, f"{place}: 'fold', 'test' and 'confusion' do not fit each other")
    best = best if type(best) is int else None
    return ReportedFold(number, scores, matrix, best, train, frozenset(map(str, test)))


def _pooled(
    path: pathlib.Path, found: Any, kind: str, averaged: str, folds: Sequence[ReportedFold]
) -> Mapping[str, Mapping[str, float | None]]:
    """The summary's scores of all clips; those of an earlier version are made from its confusion matrices."""
    if not folds:
        return {}
    if found is None:
        if kind != "classes":
            _refuse(path, "'pooled' is missing")
        value = metrics.of_confusion(sum(fold.confusion for fold in folds), averaged)
        return {name: {"value": float(value[name]), "low": None, "high": None} for name in value}
    for name in scoring.KINDS[kind].titles:
        entry = found.get(name)
        numbers = [entry.get(key) for key in ("value", "low", "high")] if isinstance(entry, dict) else [None]
        if not all(isinstance(one, (int, float)) and math.isfinite(one) for one in numbers if one is not None):
            _refuse(path, f"'pooled' holds no numbers for {name}")
        if numbers[0] is None or (numbers[1] is None) != (numbers[2] is None):
            _refuse(path, f"'pooled' lacks numbers for {name}")
    return found


def _json(path: pathlib.Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_bytes())
    except OSError as error:
        _refuse(path, f"it cannot be read ({error.strerror})")
    except (ValueError, RecursionError):
        _refuse(path, "it is not JSON")
    if not isinstance(raw, dict):
        _refuse(path, "it is not a JSON object")
    return raw


def _refuse(path: pathlib.Path, what: str) -> None:
    raise errors.InputError(f"{path}: {what}; run the fine-tuning again with the same --workdir, or leave it out")


def predictions(run: ReportedRun) -> list[ReportedPrediction] | None:
    """The run's predictions.csv, or None if it has none; InputError, naming the line, for a broken one."""
    path = run.folder / "predictions.csv"
    if not path.is_file():
        return None
    rows = []
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        reader = csv.DictReader(file, restval="")
        try:
            absent = [name for name in _PREDICTION if name not in (reader.fieldnames or ())]
            if absent:
                _refuse(path, f"the column {absent[0]!r} is missing")
            rows = [_prediction(path, reader.line_num, row) for row in reader]
        except csv.Error as error:
            _refuse(path, f"line {reader.line_num} is not csv ({error})")
    return rows


def _prediction(path: pathlib.Path, line: int, row: Mapping[str, str]) -> ReportedPrediction:
    try:
        numbers = [float(row[name]) for name in ("start_seconds", "seconds", "probability")]
        fold = int(row["fold"])
    except ValueError as error:
        _refuse(path, f"line {line}: {error}")
    if not all(map(math.isfinite, numbers)):
        _refuse(path, f"line {line} holds a number that is not finite")
    start, seconds, probability = numbers
    return ReportedPrediction(fold, row["id"], row["path"], start, seconds, row["label"], row["predicted"], probability)


def curves(run: ReportedRun) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl that have a fold and an epoch; a line cut short by a kill is skipped."""
    path = run.folder / "metrics.jsonl"
    rows = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and type(row.get("fold")) is int and type(row.get("epoch")) is int:
            rows.append(row)
    return rows


def embeddings(run: ReportedRun) -> Embeddings | None:
    """Of the first finished fold, or None if it stored none; InputError for a file that cannot be used."""
    for fold in run.folds[:1]:
        path = run.folder / f"fold_{fold.fold:02d}" / "embeddings.npz"
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as stored:
                if run.kind != "classes":  # there is no class to colour by
                    return None
                labels, vectors = stored["labels"].astype(np.int64), stored["vectors"].astype(np.float32)
        except Exception as error:  # zip, zlib, NumPy and struct each have their own
            _refuse(path, f"it cannot be read ({type(error).__name__})")
        if vectors.ndim != 2 or labels.shape != vectors.shape[:1] or not np.isfinite(vectors).all():
            _refuse(path, f"labels of shape {labels.shape} and finite vectors of shape {vectors.shape} do not fit")
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(run.labels):
            _refuse(path, f"a label is none of the run's {len(run.labels)}")
        return Embeddings(fold.fold, labels, vectors)
    return None
