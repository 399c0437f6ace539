"""Scores equal scikit-learn's, summaries are the paper's, tests are what the statistics books say."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from voc2vec_jax.ops import metrics


@pytest.mark.parametrize("seed", range(40))
def test_scores_equal_scikit_learns_with_absent_and_only_predicted_classes(seed):
    rng = np.random.default_rng(seed)
    classes, n = int(rng.integers(2, 9)), int(rng.integers(1, 40))
    true = rng.choice(rng.choice(classes, max(1, classes // 2), replace=False), n)
    predicted = np.where(rng.random(n) < 0.4, true, rng.integers(0, classes, n))
    ours = metrics.scores(true, predicted, classes)
    assert ours["uar"] == pytest.approx(reference.recall_score(true, predicted, average="macro", zero_division=0))
    assert ours["f1_macro"] == pytest.approx(reference.f1_score(true, predicted, average="macro", zero_division=0))
    assert ours["accuracy"] == pytest.approx(reference.accuracy_score(true, predicted))
    labels = range(classes)
    matrix = metrics.confusion(true, predicted, classes)
    np.testing.assert_array_equal(matrix, reference.confusion_matrix(true, predicted, labels=labels))


def test_a_literal_case_rows_true_columns_predicted():
    true, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 2, 1])
    ours, matrix = metrics.scores(true, predicted, 4), metrics.confusion(true, predicted, 4)
    np.testing.assert_array_equal(matrix, [[2, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    assert ours["accuracy"] == 0.75
    assert ours["uar"] == pytest.approx((2 / 3 + 1 + 0) / 3)  # class 2 is only predicted and counts, class 3 does not
    assert ours["f1_macro"] == pytest.approx((0.8 + 1 + 0) / 3)
    np.testing.assert_array_equal(metrics.recalls(matrix), [2 / 3, 1, np.nan, np.nan])


def test_int32_and_many_classes_do_not_overflow():
    true = np.full(3, 69_999, np.int32) % 300
    assert metrics.confusion(true, true, 300)[99, 99] == 3


@pytest.mark.parametrize(
    ("true", "predicted", "says"),
    [
        ([0, 3], [0, 0], "the label 3 is none of 3 classes"),
        ([0, 0], [0, -1], "the prediction -1 is none of 3 classes"),
        ([0], [0, 1], "1 labels against 2 predictions"),
        ([], [], "no clips"),
    ],
)
def test_what_has_no_score_is_refused(true, predicted, says):
    with pytest.raises(ValueError, match=says):
        metrics.scores(np.array(true, int), np.array(predicted, int), 3)


def test_the_summary_has_population_deviation():
    one, other = (dict(zip(metrics.NAMES, values)) for values in ((0.2, 0.5, 0.1), (0.6, 0.5, 0.5)))
    got = metrics.summarise([one, other])
    assert got.mean == {"uar": pytest.approx(0.4), "accuracy": 0.5, "f1_macro": pytest.approx(0.3)}
    assert got.std == {"uar": pytest.approx(0.2), "accuracy": 0.0, "f1_macro": pytest.approx(0.2)}
    with pytest.raises(ValueError, match="no folds"):
        metrics.summarise([])


A, B = np.random.default_rng(0).normal([[0.6], [0.55]], 0.05, (2, 10))


def test_plain_tests_are_scipys_and_the_correction_divides_t_by_its_known_factor():
    got = metrics.paired(A, B, train=90, test=10)
    plain = stats.ttest_rel(A, B)
    assert (got.t_plain, got.p_plain) == (pytest.approx(plain.statistic), pytest.approx(plain.pvalue))
    assert got.p_wilcoxon == pytest.approx(stats.wilcoxon(A, B).pvalue)
    assert got.difference == pytest.approx((A - B).mean()) and got.folds == 10
    assert got.t_corrected == pytest.approx(got.t_plain * np.sqrt((1 / 10) / (1 / 10 + 10 / 90)))
    assert got.p_corrected == pytest.approx(2 * stats.t.sf(abs(got.t_corrected), 9))
    assert metrics.paired(A, B) == got  # ten folds: test/train is 1/9
    assert metrics.paired(A, B, train=10, test=90).p_corrected > got.p_corrected


def test_swapping_the_systems_flips_the_sign_only():
    one, other = metrics.paired(A, B), metrics.paired(B, A)
    assert one.difference == -other.difference and one.t_corrected == -other.t_corrected
    assert one[3] == other[3] and one[5:] == other[5:]


def test_the_corrected_test_holds_its_level_where_the_plain_one_does_not():
    """Two equal systems on resampled folds that share training clips: correlation 1/k between the differences."""
    rng, k, rounds = np.random.default_rng(1), 10, 800
    shared, own = rng.normal(size=(rounds, 1)), rng.normal(size=(rounds, k))
    results = [metrics.paired(row, np.zeros(k)) for row in np.sqrt(1 / k) * shared + np.sqrt(1 - 1 / k) * own]
    assert np.mean([result.p_plain < 0.05 for result in results]) > 0.10
    assert np.mean([result.p_corrected < 0.05 for result in results]) < 0.07


def test_undefined_tests_are_none_and_raise_no_warning():
    same = metrics.paired(A, A)
    assert same[1:] == (0, None, None, None, None, None)
    shifted = metrics.paired(A, A - 0.1)
    assert shifted.t_corrected is None and shifted.p_wilcoxon == pytest.approx(2 / 2**10)
    assert metrics.paired([0.5], [0.4])[2:] == (None,) * 5
    assert np.isnan(metrics.paired([], []).difference)


def test_two_folds_are_enough_for_a_test():
    """Differences .1 and .2: t = mean / (std sqrt(1/k + test/train)), and test/train is 1."""
    found = metrics.paired([0.5, 0.7], [0.4, 0.5])
    assert (found.t_plain, found.t_corrected) == pytest.approx((3, np.sqrt(3)))
    assert found.p_plain == pytest.approx(2 * np.arctan(1 / 3) / np.pi)  # Student's t with one degree is Cauchy's


def test_numbers_without_any_spread_say_nothing():
    same = np.full((3, 2), 2.0)
    assert {name: value.tolist() for name, value in metrics.of_numbers(same, same).items()} == {
        "ccc": [0],
        "pearson": [0],
        "mae": [0],
    }


def test_sizes_and_folds_must_fit():
    with pytest.raises(ValueError, match="10 folds cannot be paired with 9"):
        metrics.paired(A, B[:9])
    with pytest.raises(ValueError, match="train=0, test=3"):
        metrics.paired(A, B, train=0, test=3)
    with pytest.raises(ValueError, match="train=None, test=3"):
        metrics.paired(A, B, test=3)


def test_differences_within_rounding_of_each_other_are_equal():
    up = metrics.paired([0.3, 0.8, 0.5], [0.2, 0.7, 0.4])  # 0.09999999999999998, 0.10000000000000009, ...
    assert up.t_plain is None and up.t_corrected is None
    ties = metrics.paired([0.3, 0.7, 0.7, 0.5, 0.6, 0.9, 0.8], [0.2, 0.8, 0.8, 0.3, 0.3, 0.5, 0.3])
    assert ties.p_wilcoxon == pytest.approx(stats.wilcoxon([1, -1, -1, 2, 3, 4, 5]).pvalue)
    assert ties.p_wilcoxon != pytest.approx(stats.wilcoxon([2, -1, -3, 4, 5, 6, 7]).pvalue)


def test_signed_ranks_are_scipys_exact_test_without_ties_and_split_zeros_as_demsar_does():
    one_sign = np.array([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])
    assert metrics.signed_rank(one_sign) == pytest.approx(2 / 2**6)
    assert metrics.signed_rank(one_sign[:5]) == pytest.approx(2 / 2**5)  # so that five can never reach 0.05
    mixed = np.array([0.03, -0.01, 0.04, 0.02, 0.07, -0.05])
    assert metrics.signed_rank(mixed) == pytest.approx(stats.wilcoxon(mixed, method="exact").pvalue)
    # Two zeros have ranks 1 and 2, half of each to either side, and the rest is gone through by hand.
    with_zeros, ranks = np.array([0, 0, -0.1, -0.2, -0.3, 0.4]), np.array([3, 4, 5, 6])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 4)).reshape(4, -1)
    assert metrics.signed_rank(with_zeros) == pytest.approx(np.mean(abs(ranks @ signs) >= abs(6 - 3 - 4 - 5)))
    assert metrics.signed_rank(np.zeros(4)) is None
    assert metrics.signed_rank(-mixed) == pytest.approx(metrics.signed_rank(mixed))
