"""Scores of classes, tags and numbers, their summary over folds, and paired tests between two systems.

Scores of tags and numbers take weights of the clips, a row for each set of weights, so that a bootstrap is one call.
n (and m) = clips, v = classes or tags, k = folds, b = sets of weights.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

NAMES = ("uar", "accuracy", "f1_macro")  # of classes
# Over which classes recall and F1 are averaged: those with clips, or those that occur among labels or predictions.
AVERAGED = ("tested", "occurring")
Values = Sequence[float] | Float[np.ndarray, "_"]  # one per fold
Weights = Float[np.ndarray, "b n"]


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


def scores(
    true: Int[np.ndarray, "n"], predicted: Int[np.ndarray, "m"], classes: int, averaged: str = "occurring"
) -> dict[str, float]:
    """UAR, accuracy and macro F1 of clips; ValueError without clips.

    With `averaged` "occurring" these are scikit-learn's recall_score, accuracy_score and f1_score with average="macro"
    and zero_division=0: a class that is only predicted counts with recall and F1 of 0. With "tested" recall and F1 are
    averaged over the classes that have clips, as with `labels=np.unique(true)`.
    """
    if len(true) == 0:
        raise ValueError("there are no scores of no clips")
    return {name: float(value) for name, value in of_confusion(confusion(true, predicted, classes), averaged).items()}


def of_confusion(
    matrix: Int[np.ndarray, "*b v v"] | Float[np.ndarray, "*b v v"], averaged: str = "occurring"
) -> dict[str, Float[np.ndarray, "*b"]]:
    """`scores` of the clips in each confusion matrix, which must hold at least one."""
    hits, true = np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(-1)
    occurring = true + matrix.sum(-2)
    counted = occurring > 0 if averaged == "occurring" else true > 0
    recall = hits / np.maximum(true, 1)
    # F1 = 2 TP / (2 TP + FP + FN), and a class's row and column together count TP twice.
    f1 = 2 * hits / np.maximum(occurring, 1)
    return {
        "uar": _mean_of(recall, counted),
        "accuracy": np.asarray(hits.sum(-1) / true.sum(-1)),
        "f1_macro": _mean_of(f1, counted),
    }


def _mean_of(values: Float[np.ndarray, "*b v"], counted: Bool[np.ndarray, "*b v"]) -> Float[np.ndarray, "*b"]:
    if values.ndim == 1:  # zeros in between would regroup the sum, and equal scores of two versions must be equal
        return np.asarray(values[counted].mean())
    return (values * counted).sum(-1) / counted.sum(-1)


def of_tags(
    true: Bool[np.ndarray, "n v"], values: Float[np.ndarray, "n v"], weights: Weights | None = None
) -> dict[str, Float[np.ndarray, "b"]]:
    """Macro average precision and macro AUROC of clips with any number of tags.

    scikit-learn's average_precision_score and roc_auc_score with sample weights, of each tag; the means are over the
    tags that some weighted clip has, and for AUROC that some has not. Without any such tag they are 0 and 0.5, what
    chance approaches.
    """
    weights = np.ones((1, len(true))) if weights is None else weights
    found = [_of_tag(true[:, tag], values[:, tag], weights) for tag in range(true.shape[1])]
    precision, auroc = (np.stack(each) for each in zip(*found))
    return {"map": _mean_of_defined(precision, 0.0), "auroc": _mean_of_defined(auroc, 0.5)}


def _of_tag(
    true: Bool[np.ndarray, "n"], values: Float[np.ndarray, "n"], weights: Weights
) -> tuple[Float[np.ndarray, "b"], Float[np.ndarray, "b"]]:
    """Average precision and AUROC of one tag, NaN where they are undefined."""
    order = np.argsort(-values, kind="stable")
    # Clips of equal value come in together: only the last of each run is a threshold.
    last = np.flatnonzero(np.diff(values[order], append=-np.inf))
    weights, true = weights[:, order], true[order]
    hits, taken = np.cumsum(weights * true, 1)[:, last], np.cumsum(weights, 1)[:, last]
    gained, alarms = np.diff(hits, prepend=0), np.diff(taken - hits, prepend=0)
    positive, negative = hits[:, -1], taken[:, -1] - hits[:, -1]
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN, which says undefined
        precision = (gained * hits / np.maximum(taken, math.ulp(0.0))).sum(1) / positive
        # The trapezoid under hits over false alarms: a tie counts half.
        auroc = (alarms * (hits - gained / 2)).sum(1) / (positive * negative)
    return precision, auroc


def _mean_of_defined(values: Float[np.ndarray, "v b"], otherwise: float) -> Float[np.ndarray, "b"]:
    defined = np.isfinite(values)
    total = np.where(defined, values, 0).sum(0)
    return np.where(defined.any(0), total / np.maximum(defined.sum(0), 1), otherwise)


def of_numbers(
    true: Float[np.ndarray, "n v"], values: Float[np.ndarray, "n v"], weights: Weights | None = None
) -> dict[str, Float[np.ndarray, "b"]]:
    """CCC, Pearson's r and mean absolute error of v numbers for each clip, averaged over the v.

    The concordance correlation coefficient (Lin 1989, Biometrics 45) is 2 s_xy / (s_x^2 + s_y^2 + (m_x - m_y)^2), with
    population moments. It and r are 0 where they are undefined, as for a constant.
    """
    weights = np.ones((1, len(true))) if weights is None else weights
    share = weights / weights.sum(1, keepdims=True)
    true, values = true.astype(np.float64), values.astype(np.float64)
    centre = true.mean(0)  # moments about a common point lose no digits
    x, y = true - centre, values - centre
    mean_x, mean_y = share @ x, share @ y  # [b, v]
    var_x, var_y = share @ x**2 - mean_x**2, share @ y**2 - mean_y**2
    both = share @ (x * y) - mean_x * mean_y
    # Below rounding a variance is that of a constant.
    tiny = 1e-12 * (share @ x**2 + share @ y**2) + math.ulp(0.0)
    agreed, varied = var_x + var_y + (mean_x - mean_y) ** 2, (var_x > tiny) & (var_y > tiny)
    ccc = np.where(agreed > tiny, 2 * both / np.maximum(agreed, tiny), 0)
    r = np.where(varied, both / np.sqrt(np.where(varied, var_x * var_y, 1)), 0)
    return {"ccc": ccc.mean(1), "pearson": r.mean(1), "mae": (share @ np.abs(x - y)).mean(1)}


def summarise(folds: Sequence[Mapping[str, float]]) -> Summary:
    """Mean and population standard deviation of each metric, as in the paper; ValueError without folds."""
    if not folds:
        raise ValueError("there is no mean over no folds")
    values = {name: np.array([fold[name] for fold in folds], float) for name in folds[0]}
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


def signed_rank(difference: Float[np.ndarray, "k"]) -> float | None:
    """Exact two-sided p of the Wilcoxon signed-rank test of k <= 20 differences; None if all are zero.

    Over data sets, as Demsar (2006, JMLR 7, section 3.1.3) compares two classifiers: ranks of zero differences are
    split evenly between the signs, and ties share their mean rank. All 2^k signs are gone through, since the normal
    approximation is off for so few.
    """
    difference = np.round(difference, 12)
    if not difference.any():
        return None
    every = stats.PermutationMethod(n_resamples=2 ** len(difference))
    return min(1.0, float(stats.wilcoxon(difference, zero_method="zsplit", method=every).pvalue))
