"""What a model is to say of each clip, read from the labels of a set: one class, any number of tags, or a number.

n = clips, v = classes, tags or numbers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64

from voc2vec_jax import errors
from voc2vec_jax.inference import answers

ANY = "any"  # kind of clips that are only looked at: classes as they are written, or none
BINS, BIN_CLIPS = 10, 10  # of a quantity, for folds: at most so many, of about so many clips or more


class Targets(NamedTuple):
    """The names of a model's outputs, a class for each clip, and the outputs where classes do not say them.

    With tags `label` tells the sets of tags apart; with numbers it is the bin of the clip's number, by quantiles.
    """

    labels: tuple[str, ...]
    label: Int64[np.ndarray, "n"]
    values: Float32[np.ndarray, "n v"] | None = None


def read(kind: str, texts: np.ndarray, label: Int64[np.ndarray, "n"], ids: np.ndarray, title: str) -> Targets:
    """The targets of `kind` from labels as they are written: clip i has `texts[label[i]]`.

    InputError, naming a clip, for a label that is no target of this kind, and for clips among which nothing differs.
    With `ANY` there is no such fault: the classes are those that occur, "" for clips without one (label -1).
    """
    if kind == ANY:
        classes, label = np.unique(np.append(texts, "")[label], return_inverse=True)
        return Targets(tuple(classes.tolist()), label.reshape(-1).astype(np.int64))
    own = texts[label]
    if kind == "multilabel":
        return _tags(own, ids, title)
    if kind == "regression":
        return _numbers(own, ids, title)
    return _classes(texts, label, title)


def _classes(texts: np.ndarray, label: Int64[np.ndarray, "n"], title: str) -> Targets:
    classes, label = np.unique(label, return_inverse=True)
    labels = tuple(texts[classes].tolist())
    if len(labels) < 2:
        there = f"all {len(label)} clips are of one class ({labels[0]})" if labels else "no clip is left"
        raise errors.InputError(f"{there} in {title}: give clips of two classes or more")
    several = next((text for text in labels if answers.SEPARATOR in text), None)
    if several:
        raise errors.InputError(
            f"the label {several!r} of {title} names several classes: give --config.target=multilabel, or write it "
            f"without {answers.SEPARATOR!r} if it is one class"
        )
    return Targets(labels, label.reshape(-1).astype(np.int64))


def _tags(texts: np.ndarray, ids: np.ndarray, title: str) -> Targets:
    tags = [answers.split(text) for text in texts.tolist()]
    for own, text, clip in zip(tags, texts.tolist(), ids.tolist()):
        if not own or "" in own:
            raise errors.InputError(
                f"the label {text!r} of {clip} in {title} has an empty part: write labels with "
                f"{answers.SEPARATOR!r} between them, as in 'cry{answers.SEPARATOR}cough'"
            )
    labels = tuple(sorted(set().union(*tags)))
    place = {tag: k for k, tag in enumerate(labels)}
    values = np.zeros((len(tags), len(labels)), np.float32)
    for row, own in enumerate(tags):
        values[row, [place[tag] for tag in own]] = 1
    everywhere = np.flatnonzero(values.all(0))
    if len(everywhere):
        raise errors.InputError(
            f"every clip of {title} has the label {labels[everywhere[0]]}, so that there is nothing to tell apart: "
            "leave it out"
        )
    sets = np.unique(values, axis=0, return_inverse=True)[1]
    return Targets(labels, sets.reshape(-1).astype(np.int64), values)


def _numbers(texts: np.ndarray, ids: np.ndarray, title: str) -> Targets:
    found = [answers.number(text) for text in texts.tolist()]
    for number, text, clip in zip(found, texts.tolist(), ids.tolist()):
        if number is None:
            raise errors.InputError(
                f"the label {text!r} of {clip} in {title} is no finite number: --config.target=regression learns "
                "numbers, give --config.target=classes for names"
            )
    values = np.array(found, np.float64)
    if not len(values) or values.min() == values.max():
        there = f"all {len(values)} labels of {title} are {values[0]:g}" if len(values) else f"{title} has no clips"
        raise errors.InputError(f"{there}, so that there is nothing to learn: give clips of different numbers")
    return Targets((answers.VALUE,), bins(values), values[:, None].astype(np.float32))


def bins(values: Float64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """The bin of each number, so that bins hold about as many clips each; equal numbers share one."""
    count = min(BINS, max(2, len(values) // BIN_CLIPS))
    edges = np.unique(np.quantile(values, np.arange(1, count) / count))
    return np.unique(np.searchsorted(edges, values, side="right"), return_inverse=True)[1].reshape(-1).astype(np.int64)


def described(kind: str, labels: Sequence[str], targets: np.ndarray) -> str:
    """What there is to say of the clips: "6 classes", "12 labels, 1.8 a clip", "numbers from 1 to 7"."""
    if kind == "multilabel":
        return f"{len(labels)} labels, {targets.sum() / len(targets):.1f} a clip"
    if kind == "regression":
        return f"numbers from {targets.min():g} to {targets.max():g}"
    return f"{len(labels)} classes"
