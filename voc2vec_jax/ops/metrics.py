"""Scores of a classifier, their summary over folds, and paired tests between two systems.

n (and m) = clips, v = classes, k = folds.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

NAMES = ("uar", "accuracy", "f1_macro")
Values = Sequence[float] | Float[np.ndarray, "_"]  # one per fold


class Scores(NamedTuple):
    """Shares in [0, 1], and the confusion matrix (rows true, columns predicted)."""

    uar: float
    accuracy: float
    f1_macro: float
    confusion: Int[np.ndarray, "v v"]


class Summary(NamedTuple):
    """Mean and population standard deviation over folds, by metric."""

    mean: dict[str, float]
    std: dict[str, float]


class PairedTest(NamedTuple):
    """Two systems on the same folds; every p is two-sided, and None where the test is undefined."""

    folds: int
    difference: float  # mean of a - b
    t_corrected: float | None  # Nadeau and Bengio (2003)
    p_corrected: float | None
    t_plain: float | None
    p_plain: float | None
    p_wilcoxon: float | None


def confusion(true: Int[np.ndarray, "n"], predicted: Int[np.ndarray, "m"], classes: int) -> Int[np.ndarray, "v v"]:
    """Clips by true (row) and predicted (column) class; ValueError for a class outside [0, classes)."""
    if len(true) != len(predicted):
        raise ValueError(f"{len(true)} labels against {len(predicted)} predictions")
    for name, values in (("label", true), ("prediction", predicted)):
        outside = values[(values < 0) | (values >= classes)]
        if len(outside):
            raise ValueError(f"the {name} {outside[0]} is none of {classes} classes")
    # Each (row, column) is one number of base `classes`, so one count over numbers fills the matrix.
    return np.bincount(true.astype(np.int64) * classes + predicted, minlength=classes**2).reshape(classes, classes)


def recalls(matrix: Int[np.ndarray, "v v"]) -> Float[np.ndarray, "v"]:
    """Recall of each class; NaN where the class has no clip."""
    count = matrix.sum(1)
    return np.where(count > 0, np.diagonal(matrix) / np.maximum(count, 1), np.nan)


def scores(true: Int[np.ndarray, "n"], predicted: Int[np.ndarray, "m"], classes: int) -> Scores:
    """UAR, accuracy and macro F1: scikit-learn's recall_score, accuracy_score and f1_score.

    With average="macro" and zero_division=0, over the classes that occur among labels or predictions. A class that is
    only predicted counts with recall and F1 of 0. ValueError without clips.
    """
    if len(true) == 0:
        raise ValueError("there are no scores of no clips")
    return scores_of(confusion(true, predicted, classes))


def scores_of(matrix: Int[np.ndarray, "v v"]) -> Scores:
    """`scores` of the clips in a confusion matrix, which must hold at least one."""
    hits, occurring = np.diagonal(matrix), matrix.sum(1) + matrix.sum(0)
    present = occurring > 0
    recall = hits[present] / np.maximum(matrix.sum(1)[present], 1)
    # F1 = 2 TP / (2 TP + FP + FN), and a class's row and column together count TP twice.
    f1 = 2 * hits[present] / occurring[present]
    return Scores(float(recall.mean()), float(hits.sum() / matrix.sum()), float(f1.mean()), matrix)


def summarise(folds: Sequence[Scores]) -> Summary:
    """Mean and population standard deviation of each metric, as in the paper; ValueError without folds."""
    if not folds:
        raise ValueError("there is no mean over no folds")
    values = {name: np.array([getattr(fold, name) for fold in folds], float) for name in NAMES}
    return Summary(
        {name: float(value.mean()) for name, value in values.items()},
        {name: float(value.std()) for name, value in values.items()},
    )


def paired(a: Values, b: Values, *, train: int | float | None = None, test: int | float | None = None) -> PairedTest:
    """Tests of a - b = 0 over folds; `train` and `test` are the mean numbers of clips on a fold's two sides.

    The corrected resampled t-test (Nadeau and Bengio 2003) scales the variance by 1/k + test/train, because folds share
    training clips and the plain t-test assumes independence. Without sizes, test/train = 1/(k - 1), as in k-fold
    cross-validation. The Wilcoxon signed-rank test is exact for up to 50 folds without ties or zeros, as SciPy chooses.
    All tests are undefined for fewer than two folds, the t-tests also if all differences are equal. ValueError for
    unequal numbers of folds or a size that is not positive.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} folds cannot be paired with {len(b)}")
    if any(size is not None and not size > 0 for size in (train, test)) or (train is None) != (test is None):
        raise ValueError(f"the sizes of the sides are positive and given together, not train={train}, test={test}")
    difference, k = np.asarray(a, float) - np.asarray(b, float), len(a)
    mean = float(difference.mean()) if k else math.nan
    if k < 2:
        return PairedTest(k, mean, None, None, None, None, None)
    # t = mean / (std * sqrt(w)): w = 1/k is the plain test, w = 1/k + test/train the corrected one.
    ratio = 1 / (k - 1) if train is None else test / train
    corrected = _student(difference, 1 / k + ratio)
    return PairedTest(k, mean, *corrected, *_student(difference, 1 / k), _wilcoxon(difference))


def _student(difference: Float[np.ndarray, "k"], widening: float) -> tuple[float | None, float | None]:
    """t and two-sided p of the mean, whose variance is `widening` times that of the differences."""
    spread = difference.std(ddof=1)
    if spread <= 1e-12:  # scores are shares; a smaller spread is rounding
        return None, None
    t = float(difference.mean() / (spread * math.sqrt(widening)))
    return t, float(2 * stats.t.sf(abs(t), len(difference) - 1))


def _wilcoxon(difference: Float[np.ndarray, "k"]) -> float | None:
    """Two-sided p, or None if all differences are zero."""
    # The same difference computed in two ways may differ in its last bits; rounded, the two are a tie.
    difference = np.round(difference, 12)
    return float(stats.wilcoxon(difference).pvalue) if difference.any() else None
