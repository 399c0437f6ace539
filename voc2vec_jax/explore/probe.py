"""A linear probe of the vectors, cross-validated as `finetuning` does it, beside chance and the majority class.

n = clips, v = classes.
"""

import csv
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from jaxtyping import Float32, Int64

from voc2vec_jax import errors
from voc2vec_jax.explore import settings as explore_settings
from voc2vec_jax.finetuning import cross_validation, jobs, own_data, results, scoring, tasks
from voc2vec_jax.finetuning import recipe as finetuning_recipe
from voc2vec_jax.ops import metrics
from voc2vec_jax.runs import configuration, signals

RECIPE = "finetune"  # in configs/
# One linear layer on standardised features. 100 epochs bring it close to its optimum, so that the epoch kept by the
# validation part matters little. Few clips make few steps: a short warm-up and a high rate.
LINEAR = {"how": "features", "hidden_width": 0, "epochs": 100, "patience": 100, "peak_lr": 1e-2, "warmup_steps": 20}
# A step takes less than a millisecond, a checkpoint longer than a fold.
LINEAR |= {"checkpoint_every_epochs": 1_000_000, "save_models": "none", "rare": "keep", "on_unreadable": "drop"}


class Prediction(NamedTuple):
    """What the fold that had not heard a clip says of it."""

    fold: int
    label: str
    probability: float


class Score(NamedTuple):
    """A score over all clips with its interval (None: not known), and what guesses reach."""

    title: str
    value: float
    low: float | None
    high: float | None
    chance: float  # a class at random for each clip
    majority: float  # the most frequent class for every clip


class Probe(NamedTuple):
    """A finished cross-validation; `matrix` counts clips by true (row) and predicted class of `labels`."""

    run: pathlib.Path
    labels: tuple[str, ...]
    matrix: Int64[np.ndarray, "v v"]
    scores: tuple[Score, ...]  # UAR first
    predictions: Mapping[str, Prediction]  # by the id of the clip
    summary: Mapping[str, Any]


def run(
    settings: explore_settings.ExploreSettings, task: tasks.Task, vectors: Float32[np.ndarray, "n d"]
) -> Probe | None:
    """Probe the clips; None when a signal stopped it. InputError where there is nothing to probe, in one sentence."""
    if len(task.labels) < 2:
        raise errors.InputError(
            "the recordings lie in one folder, so that there are no classes to tell apart: put them into a folder for "
            "each class, or list them with a column label"
        )
    (job,) = jobs.plan_jobs(config_of(settings), _place(settings, task, vectors))
    finetuning_recipe.check(job.config)
    with signals.StopSignal() as stop:
        return read(job.workdir) if cross_validation.run(job, stop) else None


def config_of(settings: explore_settings.ExploreSettings) -> ml_collections.ConfigDict:
    """The configuration of the probe, with which `finetune` would do the same."""
    config = configuration.load(f"{RECIPE}:{own_data.FOLDER}")
    config.update({**LINEAR, **settings.how._asdict()})
    config.data, config.data_dir = str(settings.clips), str(settings.data_dir)
    config.model, config.folds, config.max_seconds = settings.model, settings.folds, float(settings.max_seconds)
    config.seed = config.split_seed = settings.seed
    return config


def _place(
    settings: explore_settings.ExploreSettings, task: tasks.Task, vectors: Float32[np.ndarray, "n d"]
) -> pathlib.Path:
    """A run folder for these vectors, labels and options: other ones get another, and nothing must be deleted."""
    digest = hashlib.sha256(f"{task.fingerprint} {settings.model} {settings.folds} {settings.seed}".encode())
    digest.update(np.ascontiguousarray(vectors).tobytes())
    return settings.data_dir / "probes" / digest.hexdigest()[:16]


def read(folder: pathlib.Path) -> Probe:
    """The probe in a run folder."""
    summary = results.read_summary(folder)
    matrix = sum(np.array(fold["confusion"]) for fold in summary["folds"])
    guesses = summary["baselines"]
    scores = tuple(
        Score(
            title,
            *(summary["pooled"][name][key] for key in ("value", "low", "high")),
            *(guesses[guess][name] for guess in ("chance", "majority")),
        )
        for name, title in scoring.KINDS["classes"].titles.items()
    )
    with open(folder / "predictions.csv", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = {
            row["id"]: Prediction(int(row["fold"]), row["predicted"], float(row["probability"]))
            for row in csv.DictReader(file)
        }
    return Probe(folder, tuple(summary["labels"]), matrix, scores, rows, summary)


def recalls(probe: Probe) -> dict[str, float]:
    """Recall of each class that has clips."""
    found = metrics.recalls(probe.matrix)
    return {label: float(value) for label, value in zip(probe.labels, found) if np.isfinite(value)}
