"""The official folds to the index; strict folds stratified, grouped, with a validation part of their own."""

import itertools

import numpy as np
import pytest

from voc2vec_jax import errors
from voc2vec_jax.finetuning import folds


def task(rng, n=200, classes=5, groups=60, unknown=0.2):
    labels = rng.choice(classes, n, p=np.arange(1, classes + 1) / (classes * (classes + 1) / 2)).astype(np.int64)
    group = np.where(rng.random(n) < unknown, -1, rng.integers(0, groups, n)).astype(np.int64)
    return labels, group


@pytest.mark.parametrize(
    ("n", "sizes", "first"),
    [(1085, [108] * 9 + [113], [591, 91, 557, 231, 1002]), (457, [45] * 9 + [52], [143, 358, 344, 154, 400])],
)
def test_paper_folds_are_the_official_scripts(n, sizes, first):
    splits = folds.paper(n)
    assert splits[0].test[:5].tolist() == first
    assert [len(fold.test) for fold in splits] == sizes
    order = np.concatenate([fold.test for fold in splits])
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    for fold in splits:
        np.testing.assert_array_equal(fold.validation, fold.test)
        np.testing.assert_array_equal(fold.train, order[~np.isin(order, fold.test)])  # the shuffled order stays


@pytest.mark.parametrize("seed", range(6))
def test_strict_parts_are_disjoint_complete_and_no_group_straddles_them(seed):
    labels, group = task(np.random.default_rng(seed))
    splits = folds.strict(labels, group, seed=seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([fold.test for fold in splits])), np.arange(200))
    for fold in splits:
        np.testing.assert_array_equal(np.sort(np.concatenate(fold)), np.arange(200))
        for a, b in itertools.combinations(fold, 2):
            assert not set(group[a]) & set(group[b]) - {-1}
        for part in fold:
            np.testing.assert_array_equal(part, np.sort(part))
        assert set(labels[fold.train]) == set(labels) and 10 <= len(fold.validation) <= 30


def test_without_groups_every_part_has_its_share_of_every_class():
    labels = np.repeat(np.arange(4), [11, 25, 40, 124])
    unknown = np.full(200, -1)
    splits = folds.strict(labels, unknown, seed=3)
    tested = np.array([np.bincount(labels[fold.test], minlength=4) for fold in splits])
    assert (tested.max(0) - tested.min(0) <= 1).all() and np.ptp(tested.sum(1)) <= 2
    held = np.array([np.bincount(labels[fold.validation], minlength=4) for fold in splits])
    assert (held > 0).all() and (held.sum(1) >= 17).all() and (held.sum(1) <= 20).all()


def test_grouped_classes_spread_over_the_folds():
    labels, group = task(np.random.default_rng(0), n=1000, groups=250, unknown=0.0)
    tested = np.array([np.bincount(labels[fold.test], minlength=5) for fold in folds.strict(labels, group)])
    assert (np.abs(tested - tested.mean(0)) < 1.5).all()


def test_strict_folds_are_a_function_of_the_seed():
    labels, group = task(np.random.default_rng(1))
    same, again, other = (folds.strict(labels, group, seed=seed) for seed in (4, 4, 5))
    assert all(np.array_equal(a, b) for x, y in zip(same, again) for a, b in zip(x, y))
    assert not all(np.array_equal(x.test, y.test) for x, y in zip(same, other))
    small = folds.strict(np.array([0, 1, 0, 1, 0, 1, 0, 1]), np.full(8, -1), folds=2, seed=0, validation_share=0.25)
    assert [[part.tolist() for part in fold] for fold in small] == SMALL  # the same on every machine and version


SMALL = [[[4, 5, 6], [7], [0, 1, 2, 3]], [[1, 2, 3], [0], [4, 5, 6, 7]]]


def test_the_only_group_of_a_class_trains_and_never_validates():
    labels = np.array([0, 0, 1, 1, 2, 2, 0, 1, 2, 0, 1, 2])
    group = np.array([0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 7])
    for fold in folds.strict(labels, group, folds=2, validation_share=0.3):
        assert set(labels[fold.train]) == {0, 1, 2} and len(fold.validation)
    labels, group = np.array([0, 0, 1, 1, 2, 2, 3, 3, *[4] * 24]), np.array([*range(8), *[-1] * 24])
    for fold in folds.strict(labels, group, folds=2, validation_share=0.5):
        assert set(labels[fold.train]) == {0, 1, 2, 3, 4}
        assert set(labels[fold.validation]) == {4} and len(fold.validation) >= 6
    labels, group = np.array([0, 0, 1, 1, *[2] * 4]), np.array([0, 1, 2, 3, *[-1] * 4])
    for fold in folds.strict(labels, group, folds=2, validation_share=0.5):
        assert set(labels[fold.train]) == {0, 1, 2} and len(fold.validation) == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (dict(folds=1), "folds=1 makes no cross-validation"),
        (dict(folds=7), "folds=7 is more than the 3 groups of clips: give 3 or fewer"),
        (dict(folds=3, validation_share=0.7), "validation_share is 0.7"),
        (dict(folds=3), "fold 0 has no group of clips to spare for validation"),
    ],
)
def test_splits_that_cannot_be_are_refused(given, says):
    labels, group = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 2, 2])
    with pytest.raises(errors.InputError, match=says):
        folds.strict(labels, group, **given)


def test_more_paper_folds_than_clips_are_refused():
    with pytest.raises(errors.InputError, match="folds=10 is more than the 9 clips: give 9 or fewer"):
        folds.paper(9)


NAMES = ("cry", "laugh", "sigh")


@pytest.mark.parametrize(
    ("labels", "group", "says"),
    [
        (np.ones(40, int), None, "all 40 clips are of one class .laugh.: give clips of two or more"),
        (
            np.repeat([0, 1], [37, 3]),
            None,
            "class laugh has 3 clips, too few for each of 5 folds to test it: take --config.folds=3 or fewer",
        ),
        (np.repeat([0, 1], [30, 10]), np.r_[np.full(30, -1), np.arange(10) % 4], "laugh has clips of only 4 groups"),
    ],
)
def test_labels_that_do_not_fill_the_folds_are_refused(labels, group, says):
    splits = folds.strict(labels, np.full(40, -1) if group is None else group, folds=5)
    with pytest.raises(errors.InputError, match=says):
        folds.check(labels, NAMES, splits, "strict", group)


def test_a_class_absent_from_a_train_part_is_refused_by_fold_and_name():
    labels = np.zeros(20, int)
    labels[[7, 9]] = 2
    splits = [fold for fold in folds.paper(20, folds=2, seed=1)]
    splits[1] = splits[1]._replace(train=np.setdiff1d(splits[1].train, [7, 9]))
    with pytest.raises(errors.InputError, match=r"class sigh \(2 clips\) is absent from the train part of fold 1"):
        folds.check(labels, NAMES, splits, "paper")


def test_rare_classes_are_a_warning_where_they_are_accepted():
    labels = np.repeat([0, 1], [37, 3])
    splits = folds.strict(labels, np.full(40, -1), folds=5)
    expected = ["class laugh has 3 clips, too few for each of 5 folds to test it"]
    assert folds.check(labels, NAMES, splits, "strict", rare="keep") == expected
    assert folds.check(labels, NAMES, folds.paper(40, 5), "paper") == expected
    assert folds.check(np.arange(40) % 3, NAMES, folds.paper(40, 5), "paper") == []
    with pytest.raises(errors.InputError, match="protocol 'loose' is none of paper, strict"):
        folds.check(labels, NAMES, splits, "loose")


# --- fewer groups than folds


def test_three_groups_make_three_folds_with_a_validation_group_each_and_a_reason():
    labels, group = np.tile(np.arange(7), 6), np.repeat([0, 1, 2], 14)
    dealt = folds.strict_or_fewer(labels, group, folds=10)
    assert len(dealt.splits) == 3 and "the clips come from 3 groups" in dealt.fewer
    for split in dealt.splits:
        parts = [set(group[rows]) for rows in split]
        assert [len(part) for part in parts] == [1, 1, 1] and len(set.union(*parts)) == 3
        assert all(set(labels[rows]) == set(range(7)) for rows in split)


def test_enough_groups_are_dealt_as_ever_and_without_a_reason():
    labels, group = np.tile([0, 1], 30), np.repeat(np.arange(12), 5)
    dealt, wanted = folds.strict_or_fewer(labels, group, 10, seed=3), folds.strict(labels, group, 10, seed=3)
    assert dealt.fewer == ""
    for one, other in zip(dealt.splits, wanted, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other))


def test_a_clip_of_an_unknown_group_counts_as_a_group():
    dealt = folds.strict_or_fewer(np.tile([0, 1], 4), np.array([0, 0, 0, 0, -1, -1, -1, -1]), 10)
    assert len(dealt.splits) == 5 and "5 groups" in dealt.fewer


@pytest.mark.parametrize(
    ("group", "says"),
    [
        ([0, 0, 0, 0], "all 4 clips are of one group, .* give clips of three groups or more"),
        ([0, 0, 1, 1], "fold 0 has no group of clips to spare for validation"),
    ],
)
def test_groups_that_make_no_folds_at_all_are_refused(group, says):
    with pytest.raises(errors.InputError, match=says):
        folds.strict_or_fewer(np.array([0, 1, 0, 1]), np.array(group), 10)


def test_a_class_that_a_fold_cannot_learn_is_a_warning_where_rare_classes_are_kept():
    labels, group = np.array([0, 1] * 6 + [2, 2]), np.r_[np.repeat([0, 1, 2], 4), 0, 0]
    dealt = folds.strict_or_fewer(labels, group, 10)
    (fold,) = (number for number, split in enumerate(dealt.splits) if 12 in split.test)
    text = f"class sigh (2 clips) is absent from the train part of fold {fold}"
    found = folds.check(labels, NAMES, dealt.splits, "strict", group, "keep")
    assert found[-1] == f"{text}, which can only miss it"
    with pytest.raises(errors.InputError, match="leave the class out, or accept it with --config.rare=keep$"):
        folds.check(labels, NAMES, dealt.splits, "strict", group)
    alone = [split._replace(train=split.train[labels[split.train] == 0]) for split in dealt.splits]
    with pytest.raises(errors.InputError, match="give more clips of it, or leave the class out$"):
        folds.check(labels, NAMES, alone, "strict", group, "keep")


# --- parts that the user gives


def test_given_parts_are_the_one_fold():
    part = np.array(["train", "test", "validation", "train", "test"])
    labels, alone = np.array([0, 1, 1, 1, 0]), np.full(5, -1)
    (fold,) = folds.given(part, labels, alone)
    assert [rows.tolist() for rows in fold] == [[0, 3], [2], [1, 4]]
    for name in ("train", "test"):
        with pytest.raises(errors.InputError, match=f"none of the 5 clips is in the part {name}"):
            folds.given(np.where(part == name, "validation", part), labels, alone)


def test_without_a_validation_part_whole_groups_of_train_become_it():
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 3, 200), rng.integers(-1, 40, 200)
    part = np.where(np.arange(200) < 150, "train", "test")
    ((train, validation, test),) = folds.given(part, labels, groups, 0, 0.2)
    assert sorted([*train, *validation]) == list(range(150)) and test.tolist() == list(range(150, 200))
    assert 20 <= len(validation) <= 40 and set(labels[train]) == {0, 1, 2}
    known = set(groups[train]) & set(groups[validation])
    assert known <= {-1}
    other = folds.given(part, labels, groups, 1, 0.2)[0].validation
    assert other.tolist() != validation.tolist()
    only = np.array([0, 1, 0, 1])
    with pytest.raises(errors.InputError, match="train has no group to spare for it"):
        folds.given(np.array(["train", "train", "test", "test"]), only, np.full(4, -1))


def test_a_group_in_two_parts_is_named():
    part, groups = np.array(["train", "validation", "test", "test"]), np.array([-1, 1, 1, -1])
    with pytest.raises(errors.InputError, match="group ben has clips in two parts, b in validation and c in test"):
        folds.check_parts(part, groups, ("anna", "ben"), list("abcd"))
    folds.check_parts(part, np.array([-1, 1, 0, -1]), ("anna", "ben"), list("abcd"))
