"""What the outputs of a trained head say of a recording, by the kind of its targets.

    classes       one class a recording: softmax                    "cry"
    multilabel    any number of labels: a sigmoid for each          "cry|cough"; "" where none reaches one half
    regression    a number, which is the output itself              "3.25"

n = recordings, v = classes, labels or numbers.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import special

from voc2vec_jax.convert import configs

KINDS = tuple(configs.KINDS)
SEPARATOR = "|"  # between the labels of one recording
VALUE = "value"  # the name of the output of a regression
LEAST = 0.5  # probability from which on a label is said


def probabilities(kind: str, logits: Float[np.ndarray, "*n v"]) -> Float[np.ndarray, "*n v"]:
    """The probability of each class or label; of a regression the numbers themselves."""
    if kind == "regression":
        return logits
    return special.softmax(logits, axis=-1) if kind == "classes" else special.expit(logits)


def in_words(kind: str, labels: Sequence[str], values: Float[np.ndarray, "v"]) -> str:
    """What `probabilities` of one recording say, as a label is written."""
    if kind == "regression":
        return f"{values[0]:.6g}"
    if kind == "multilabel":
        return SEPARATOR.join(label for label, value in zip(labels, values) if value >= LEAST)
    return labels[int(values.argmax())]


def split(text: str) -> list[str]:
    """The labels of a recording from one text, without spaces around them."""
    return [part.strip() for part in text.split(SEPARATOR)]


def number(text: str) -> float | None:
    """The finite number that a text says, else None."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
