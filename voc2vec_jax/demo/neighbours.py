"""The training clips of a model that are nearest to a sound, by the model's own features.

n = clips, d = width.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int16

from voc2vec_jax import audio, errors
from voc2vec_jax.datasets import records
from voc2vec_jax.finetuning import provenance, tasks
from voc2vec_jax.finetuning import results as fold_results
from voc2vec_jax.inference import answers, pretrained
from voc2vec_jax.reports import model_card


class Neighbour(NamedTuple):
    """A training clip: its name in the data set, its label in words, its sound at 16 kHz, and how near it is."""

    id: str
    label: str
    sound: Int16[np.ndarray, "_"]
    similarity: float  # cosine of both features without the mean of all clips, from -1 to 1


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingClips:
    """Clips that a model was trained on, and their features; `total` of them there are in all."""

    task: tasks.Task
    rows: np.ndarray  # of the task
    vectors: Float32[np.ndarray, "n d"]  # of unit length, without the mean
    mean: Float32[np.ndarray, "d"]
    total: int

    def nearest(self, vector: Float32[np.ndarray, "d"], count: int) -> list[Neighbour]:
        """The `count` nearest, the nearest first."""
        similarity = self.vectors @ _unit(vector - self.mean)
        found = np.argsort(-similarity, kind="stable")[:count]
        sounds = self.task.read(self.rows[found])
        return [
            Neighbour(str(self.task.ids[row]), self._label(row), sound, float(similarity[at]))
            for at, row, sound in zip(found, self.rows[found].tolist(), sounds)
        ]

    def _label(self, row: int) -> str:
        task = self.task
        values = np.eye(len(task.labels))[task.label[row]] if task.kind == "classes" else task.targets[row]
        return answers.in_words(task.kind, task.labels, np.atleast_1d(values))


def _unit(x: Float32[np.ndarray, "*n d"]) -> Float32[np.ndarray, "*n d"]:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.finfo(np.float32).tiny)


def open_clips(
    model: pretrained.Model, found: model_card.RunModel, data_dir: str | None = None, most: int = 1000
) -> TrainingClips:
    """The training clips of a model of a run, of which at most `most`, drawn evenly, are computed.

    They come from the prepared set, in the run's `data_dir` if none is given. Nothing is prepared or fetched.
    InputError, in one sentence, where the set is not there or is another one by now.
    """
    raw, config = fold_results.read_summary(found.run), provenance.json_of(found.run / "config.json")
    folder, name = data_dir or config.get("data_dir"), raw["dataset"]
    if not folder or name not in records.list_sets(folder):
        raise errors.InputError(
            f"the data set {name} is not prepared in {folder}, so that no training clip can be shown: give --data_dir"
        )
    task = tasks.open_task(
        name,
        data_dir=folder,
        on_unreadable="drop",
        max_seconds=float(config.get("max_seconds", 7.0)),
        least_samples=model.config.encoder.samples_for(1),
        kind=raw.get("kind") or "classes",
    )
    rows = np.arange(len(task))
    if found.part != model_card.FINAL:
        number = int(found.part.rpartition("_")[2])
        trained = next((fold["train"] for fold in raw["folds"] if fold["fold"] == number), [])
        rows = np.flatnonzero(np.isin(task.ids, trained))
    if not len(rows) or tuple(task.labels) != tuple(raw["labels"]):
        raise errors.InputError(
            f"the data set {name} in {folder} is not the one that {found.run} was trained on: give its --data_dir"
        )
    total = len(rows)
    rows = rows[np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(int))]
    vectors = model.embed([(clip, audio.RATE_HZ) for clip in task.read(rows)], progress=True)
    mean = vectors.mean(0)
    return TrainingClips(task, rows, _unit(vectors - mean), mean, total)
