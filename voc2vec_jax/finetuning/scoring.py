"""How a task is scored, by its kind: one class a clip, any number of tags a clip, or numbers.

n = clips, v = classes, tags or numbers, g = groups.
"""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from voc2vec_jax.finetuning import folds
from voc2vec_jax.ops import metrics

# What answers without listening: the names of `baselines`, in words.
BASELINES = {
    "chance": "chance: a class at random",
    "majority": "always the most frequent class",
    "constant": "the same answer for every clip",
}
DRAWS, CHUNK = 2000, 100  # of the bootstrap; resampled together
SHARE = 95  # % of the draws, which an interval holds


class Kind(NamedTuple):
    """What is told of a kind of task: its scores by name, in the order of tables, and which of them selects."""

    titles: Mapping[str, str]
    monitor: str  # selects the epoch; higher is better
    lower: tuple[str, ...] = ()  # scores of which lower is better


KINDS = {
    # macro F1 selects, as in the official script
    "classes": Kind({"uar": "UAR", "accuracy": "accuracy", "f1_macro": "macro F1"}, "f1_macro"),
    "multilabel": Kind({"map": "macro average precision", "auroc": "macro AUROC"}, "map"),
    "regression": Kind({"ccc": "CCC", "pearson": "Pearson", "mae": "MAE"}, "ccc", lower=("mae",)),
}


def averaged_classes(chosen: str, protocol: str) -> str:
    """One of `metrics.AVERAGED`: what `chosen` says, and for "auto" what the protocol does.

    The official script averages over the classes that occur among labels or predictions, so that one clip that is
    taken for a class that the part lacks counts as a class of no hits.
    """
    return chosen if chosen != "auto" else "occurring" if protocol == "paper" else "tested"


def scores(kind: str, targets: np.ndarray, logits: Float[np.ndarray, "n v"], averaged: str) -> dict[str, float]:
    """The scores of a kind by name. `targets`: classes [n], tags [n, v] of 0 and 1, or numbers [n] or [n, v].

    ValueError without clips.
    """
    if len(targets) == 0:
        raise ValueError("there are no scores of no clips")
    if kind == "classes":
        return metrics.scores(targets, logits.argmax(1), logits.shape[1], averaged)
    return {name: float(value[0]) for name, value in _weighted(kind, targets, logits, None).items()}


def baselines(kind: str, targets: np.ndarray, labels: int, averaged: str) -> dict[str, dict[str, float]]:
    """The scores of answers that do not listen, by the names of `BASELINES`; `targets` as for `scores`.

    Of classes, a class at random (expected counts, over the classes that have clips) and the most frequent one. Of tags
    and numbers, the mean for every clip, which ranks tags as chance does. ValueError without clips.
    """
    if len(targets) == 0:
        raise ValueError("there are no scores of no clips")
    if kind == "classes":
        return of_classes_without_listening(np.bincount(targets, minlength=labels), averaged)
    wide = np.reshape(np.asarray(targets, np.float64), (len(targets), -1))
    answers = np.broadcast_to(wide.mean(0), wide.shape)
    return {"constant": {name: float(value[0]) for name, value in _weighted(kind, wide, answers, None).items()}}


def of_classes_without_listening(clips: Int64[np.ndarray, "v"], averaged: str) -> dict[str, dict[str, float]]:
    """`baselines` of classes with so many `clips` each, of which there must be one."""
    there = clips > 0
    random = np.outer(clips, there / there.sum())
    majority = np.outer(clips, np.arange(len(clips)) == clips.argmax())
    return {
        name: {key: float(value) for key, value in metrics.of_confusion(matrix, averaged).items()}
        for name, matrix in (("chance", random), ("majority", majority))
    }


def confusion(kind: str, targets: np.ndarray, logits: Float[np.ndarray, "n v"]) -> list[list[int]] | None:
    """Clips by true (row) and predicted (column) class; None for kinds that have no classes."""
    if kind != "classes":
        return None
    return metrics.confusion(targets, logits.argmax(1), logits.shape[1]).tolist()


def loss(
    kind: str, targets: np.ndarray, logits: Float32[np.ndarray, "n v"], class_weights: Float32[np.ndarray, "v"]
) -> float:
    """The loss that training of this kind lowers, of some clips at once; see `learners.LOSSES`."""
    if kind == "classes":
        return _cross_entropy(logits, targets, class_weights)
    wide, true, weight = logits.astype(np.float64), np.reshape(targets, logits.shape), class_weights.astype(np.float64)
    if kind == "regression":
        return float((weight * np.square(wide - true)).mean())
    # -log s(z) = log (1 + exp(-z))
    return float((weight * true * np.logaddexp(0, -wide) + (1 - true) * np.logaddexp(0, wide)).mean())


def _cross_entropy(
    logits: Float32[np.ndarray, "n v"], true: Int64[np.ndarray, "n"], class_weights: Float32[np.ndarray, "v"]
) -> float:
    """Class-weighted cross-entropy, sum w_i l_i / sum w_i, in float64."""
    wide = logits.astype(np.float64)
    # log softmax(x) = x - max - log sum exp(x - max), which cannot overflow
    wide = wide - wide.max(1, keepdims=True)
    own = wide[np.arange(len(true)), true] - np.log(np.exp(wide).sum(1))
    weight = class_weights[true].astype(np.float64)
    # ulp(0.0) is the smallest number above 0: no clip with a weight gives 0 and not NaN.
    return float(-(own * weight).sum() / max(weight.sum(), math.ulp(0.0)))


def described(values: Mapping[str, float], kind: str) -> str:
    """The scores in one line: "UAR 0.512, accuracy 0.640, macro F1 0.498"."""
    return ", ".join(f"{title} {values[name]:.3f}" for name, title in KINDS[kind].titles.items())


def spread(mean: float, std: float, count: int) -> str:
    """The mean of `count` values and their deviation, which a single value has not: "0.512 ± 0.031" or "0.512"."""
    return f"{mean:.3f} ± {std:.3f}" if count > 1 else f"{mean:.3f}"


def with_deviation(kind: str, mean: Mapping[str, float], std: Mapping[str, float], count: int) -> str:
    """Means and deviations of `count` folds or seeds in one line: "UAR 0.512 ± 0.031, ..."."""
    return ", ".join(f"{title} {spread(mean[name], std[name], count)}" for name, title in KINDS[kind].titles.items())


def with_interval(found: Mapping[str, float | None]) -> str:
    """A pooled score: "0.512 [0.480, 0.551]", without brackets where it has no interval."""
    interval = f" [{found['low']:.3f}, {found['high']:.3f}]" if found["low"] is not None else ""
    return f"{found['value']:.3f}{interval}"


def _weighted(kind: str, targets: np.ndarray, logits: np.ndarray, weights: np.ndarray | None) -> dict[str, np.ndarray]:
    if kind == "multilabel":
        return metrics.of_tags(np.asarray(targets) > 0.5, logits, weights)
    return metrics.of_numbers(np.reshape(targets, logits.shape), logits, weights)


# --- all clips together -----------------------------------------------------------------------------------------------


def pooled(
    kind: str,
    targets: np.ndarray,
    logits: Float[np.ndarray, "n v"],
    groups: Int64[np.ndarray, "n"],
    averaged: str,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """{name: {"value", "low", "high"}}: scores of all clips at once, with bootstrap percentile intervals of 95 %.

    It draws as many groups as there are, with replacement and with all their clips, since clips of one
    group are no independent observations. A clip of group -1 (unknown) is a group by itself.
    """
    own = folds.own_groups(groups)
    count = int(own.max()) + 1
    rng = np.random.default_rng(seed)
    if kind == "classes":
        classes = logits.shape[1]
        matrices = np.zeros((count, classes, classes))
        np.add.at(matrices, (own, targets, logits.argmax(1)), 1)
        flat = matrices.reshape(count, -1)
        value = metrics.of_confusion(matrices.sum(0), averaged)
        drawn = [
            metrics.of_confusion((times @ flat).reshape(-1, classes, classes), averaged)
            for times in _resampled(count, draws, rng)
        ]
    else:
        value = {name: each[0] for name, each in _weighted(kind, targets, logits, None).items()}
        drawn = [_weighted(kind, targets, logits, times[:, own]) for times in _resampled(count, draws, rng)]
    found = {name: np.concatenate([each[name] for each in drawn]) for name in value}
    bounds = ((100 - SHARE) / 2, (100 + SHARE) / 2)
    return {
        name: {"value": float(value[name]), **dict(zip(("low", "high"), np.percentile(found[name], bounds).tolist()))}
        for name in KINDS[kind].titles
    }


def _resampled(count: int, draws: int, rng: np.random.Generator) -> Iterator[Float64[np.ndarray, "_ g"]]:
    """How often each group was drawn, in chunks of draws: arrays [_, g]."""
    for start in range(0, draws, CHUNK):
        rows = min(CHUNK, draws - start)
        drawn = rng.integers(0, count, (rows, count)) + count * np.arange(rows)[:, None]
        yield np.bincount(drawn.reshape(-1), minlength=rows * count).reshape(rows, count).astype(np.float64)
