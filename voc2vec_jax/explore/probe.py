"""A linear probe of the vectors: logistic regression, cross-validated on the folds of `finetuning`'s strict protocol.

n = clips, m = clips for training, v = classes, d = width.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np
import threadpoolctl
from jaxtyping import Float, Float32, Float64, Int64

from voc2vec_jax import errors
from voc2vec_jax.explore import settings as explore_settings
from voc2vec_jax.finetuning import cross_validation, folds, jobs, leaks, own_data, scoring, tasks
from voc2vec_jax.finetuning import recipe as finetuning_recipe
from voc2vec_jax.inference import answers
from voc2vec_jax.ops import metrics
from voc2vec_jax.runs import configuration

RECIPE = "finetune"  # in configs/: how clips are read and folds are dealt
STRENGTH = 1.0  # scikit-learn's C, on standardised vectors
ITERATIONS = 3000
ABSENT = -100.0  # log probability of a class that a fold's training clips lack


class Prediction(NamedTuple):
    """What the fold that had not heard a clip says of it."""

    fold: int
    label: str
    probability: float


class Score(NamedTuple):
    """A score over all clips with its 95 % interval, and what answers without listening reach."""

    title: str
    value: float
    low: float
    high: float
    chance: float  # a class at random for each clip
    majority: float  # the most frequent class for every clip


class Probe(NamedTuple):
    """A finished cross-validation; `matrix` counts clips by true (row) and predicted class of `labels`.

    `leaks` is a report of `finetuning.leaks`; `fewer` says why there are fewer folds than asked for ("": there are
    not); `groups` counts the sets of clips that belong together, a clip of no group counting as one.
    """

    labels: tuple[str, ...]
    matrix: Int64[np.ndarray, "v v"]
    scores: tuple[Score, ...]  # UAR first
    predictions: Mapping[str, Prediction]  # by the id of the clip
    leaks: Mapping[str, Any]
    folds: int
    asked_folds: int
    fewer: str
    groups: int


def run(
    settings: explore_settings.ExploreSettings, looked_at: tasks.Task, vectors: Float32[np.ndarray, "n d"]
) -> Probe:
    """Probe the vectors of the clips of `looked_at`; InputError where there is nothing to probe, in one sentence."""
    if len(looked_at.labels) < 2:
        raise errors.InputError(
            "the recordings lie in one folder, so that there are no classes to tell apart: put them into a folder for "
            "each class, or list them with a column label"
        )
    (job,) = jobs.plan_jobs(config_of(settings), settings.output)
    finetuning_recipe.check(job.config)
    # Opened again, with what a task asks for: a label for each clip, and copies in one group.
    task = cross_validation.open_task(job, None)
    dealt = cross_validation.split(job.config, task)
    row_of = {name: row for row, name in enumerate(looked_at.ids.tolist())}
    vectors = vectors[[row_of[name] for name in task.ids.tolist()]]
    tested, logits = _logits(task, vectors, dealt.splits)
    splits = [folds.FoldSplit(_learnt(split), split.validation[:0], split.test) for split in dealt.splits]
    return Probe(
        labels=task.labels,
        matrix=metrics.confusion(task.label[tested], logits.argmax(1), len(task.labels)),
        scores=_scores(task, tested, logits),
        predictions=_predictions(task, dealt.splits, logits),
        leaks=leaks.report(task, splits, settings.data_dir, cross_validation.heard(job)),
        folds=len(splits),
        asked_folds=settings.folds,
        fewer=dealt.fewer,
        groups=len(np.unique(folds.own_groups(task.group)[tested])),
    )


def config_of(settings: explore_settings.ExploreSettings) -> ml_collections.ConfigDict:
    """The configuration that deals the folds."""
    config = configuration.load(f"{RECIPE}:{own_data.FOLDER}")
    config.update({"how": "features", "rare": "keep", "on_unreadable": "drop", **settings.how._asdict()})
    config.data, config.data_dir = str(settings.clips), str(settings.data_dir)
    config.model, config.folds, config.max_seconds = settings.model, settings.folds, float(settings.max_seconds)
    config.seed = config.split_seed = settings.seed
    return config


def _learnt(split: folds.FoldSplit) -> Int64[np.ndarray, "m"]:
    """What a fold learns from: there is nothing to select, so that the clips for validation are learnt from too."""
    return np.sort(np.concatenate([split.train, split.validation]))


def _logits(
    task: tasks.Task, vectors: Float32[np.ndarray, "n d"], splits: Sequence[folds.FoldSplit]
) -> tuple[Int64[np.ndarray, "_"], Float64[np.ndarray, "_ v"]]:
    """The tested rows, fold by fold, and their log probabilities by the probes that have not heard them."""
    found = [
        log_probabilities(vectors[_learnt(split)], task.label[_learnt(split)], vectors[split.test], len(task.labels))
        for split in splits
    ]
    return np.concatenate([split.test for split in splits]), np.concatenate(found)


def log_probabilities(
    learnt: Float[np.ndarray, "m d"], label: Int64[np.ndarray, "m"], tested: Float[np.ndarray, "k d"], classes: int
) -> Float64[np.ndarray, "k v"]:
    """Of each class, by scikit-learn's logistic regression with balanced class weights on standardised vectors."""
    from sklearn import exceptions, linear_model, pipeline, preprocessing  # here, because it takes a second

    model = linear_model.LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=ITERATIONS)
    model = pipeline.make_pipeline(preprocessing.StandardScaler(), model)
    with threadpoolctl.threadpool_limits(1), warnings.catch_warnings():  # the same numbers on any number of cores
        warnings.simplefilter("ignore", exceptions.ConvergenceWarning)  # so close that no clip changes its class
        model.fit(learnt.astype(np.float64), label)
        found = np.full((len(tested), classes), ABSENT)
        found[:, model.classes_] = model.predict_log_proba(tested.astype(np.float64))
    return np.maximum(found, ABSENT)


def _scores(task: tasks.Task, tested: Int64[np.ndarray, "_"], logits: Float64[np.ndarray, "_ v"]) -> tuple[Score, ...]:
    averaged = scoring.averaged_classes("auto", "strict")
    pooled = scoring.pooled(task.kind, task.label[tested], logits, task.group[tested], averaged)
    guesses = scoring.baselines(task.kind, task.label[tested], len(task.labels), averaged)
    return tuple(
        Score(
            title,
            *(pooled[name][key] for key in ("value", "low", "high")),
            *(guesses[guess][name] for guess in ("chance", "majority")),
        )
        for name, title in scoring.KINDS[task.kind].titles.items()
    )


def _predictions(
    task: tasks.Task, splits: Sequence[folds.FoldSplit], logits: Float64[np.ndarray, "_ v"]
) -> dict[str, Prediction]:
    shares = iter(answers.probabilities(task.kind, logits))
    return {
        str(task.ids[row]): Prediction(number, task.labels[share.argmax()], float(share.max()))
        for number, split in enumerate(splits)
        for row, share in ((row, next(shares)) for row in split.test)
    }


def recalls(probe: Probe) -> dict[str, float]:
    """Recall of each class that has clips."""
    found = metrics.recalls(probe.matrix)
    return {label: float(value) for label, value in zip(probe.labels, found) if np.isfinite(value)}
