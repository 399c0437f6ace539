"""Cross-validation splits: the official script's, and stratified ones that keep groups together.

n = clips of a task, v = classes, g = groups; rows are positions in the task.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from voc2vec_jax import errors

PROTOCOLS = ("paper", "strict")
RARE = ("stop", "keep")
OFFICIAL_SEED = 42  # of the official fine-tuning script


class FoldSplit(NamedTuple):
    """The rows of a fold's three parts; with the paper's protocol validation and test are the same rows."""

    train: Int64[np.ndarray, "_n"]
    validation: Int64[np.ndarray, "_m"]
    test: Int64[np.ndarray, "_k"]


def paper(n: int, folds: int = 10, seed: int = OFFICIAL_SEED) -> list[FoldSplit]:
    """The folds of the official fine-tuning script, rows in its shuffled order.

    The script shuffles the clips after `random.seed(42)`, gives each fold n // folds of them and the last one the
    remainder too, and selects the epoch on the fold that it reports. Classes and speakers play no part. InputError
    for more folds than clips.
    """
    _check_count(folds, n, "clips")
    order = list(range(n))
    random.Random(seed).shuffle(order)  # the same order as random.seed(seed) and random.shuffle, without the global
    rows = np.array(order, np.int64)
    #   n = 23 clips, 10 folds:  | 0 1 | 2 3 | 4 5 | ... | 16 17 | 18 19 20 21 22 |   positions in the shuffled order
    bounds = [*(k * (n // folds) for k in range(folds)), n]
    tests = [rows[start:stop] for start, stop in zip(bounds[:-1], bounds[1:])]
    return [FoldSplit(np.concatenate([*tests[:k], *tests[k + 1 :]]), test, test) for k, test in enumerate(tests)]


def strict(
    labels: np.ndarray,
    groups: Int64[np.ndarray, "n"],
    folds: int = 10,
    seed: int = 0,
    validation_share: float = 0.1,
    every_class: bool = True,
) -> list[FoldSplit]:
    """Stratified folds with an inner validation part; all clips of a group stay in one part.

    `labels` are class indices [n], or tags [n, v] of 0 and 1. A clip of group -1 (unknown) is a group by itself.
    Validation takes about `validation_share` of what is not tested and, with `every_class`, leaves every class in
    train. Rows are sorted, and the folds are a pure function of the arguments. InputError for more folds than groups, a
    share outside (0, 0.5], and a fold that has no group to spare for validation.
    """
    if not 0 < validation_share <= 0.5:
        raise errors.InputError(f"validation_share is {validation_share}: give a share above 0 and at most 0.5")
    own = own_groups(groups)
    _check_count(folds, len(np.unique(own)), "groups of clips")
    # Separate streams, [seed, 0] here and [seed, 1, fold] below: a change of validation_share moves no test part.
    part = _deal(labels, own, folds, np.random.default_rng([seed, 0]))
    splits = []
    for fold in range(folds):
        rest, rng = np.flatnonzero(part != fold), np.random.default_rng([seed, 1, fold])
        validation = _validation(labels[rest], own[rest], validation_share, rng, every_class)
        if validation is None:
            raise errors.InputError(
                f"fold {fold} has no group of clips to spare for validation, because each is the only one of some "
                "class: give more groups of each class or fewer folds, or take protocol=paper"
            )
        validation = rest[validation]
        splits.append(FoldSplit(np.setdiff1d(rest, validation), validation, np.flatnonzero(part == fold)))
    return splits


class DealtFolds(NamedTuple):
    """Folds, and why they are fewer than were asked for; "" where they are not."""

    splits: list[FoldSplit]
    fewer: str = ""


def strict_or_fewer(
    labels: np.ndarray,
    groups: Int64[np.ndarray, "n"],
    folds: int = 10,
    seed: int = 0,
    validation_share: float = 0.1,
    every_class: bool = True,
) -> DealtFolds:
    """`strict`; of clips from fewer groups than folds, as many folds as there are groups.

    InputError as `strict`, and for clips of one group.
    """
    there = len(np.unique(own_groups(groups)))
    if there >= folds:
        return DealtFolds(strict(labels, groups, folds, seed, validation_share, every_class))
    if there < 2:
        raise errors.InputError(
            f"all {len(labels)} clips are of one group, so that none can be tested by a model that has not heard it: "
            "give clips of three groups or more (a column group says which belong together, else a recording is one), "
            "or take --config.protocol=paper"
        )
    # No fewer: the rest of a fold would be smaller still, and leave no more groups for validation.
    splits = strict(labels, groups, there, seed, validation_share, every_class)
    whole = "each of which stays on one side of a fold"
    return DealtFolds(splits, f"the clips come from {there} groups (speakers or recordings), {whole}")


def given(
    part: np.ndarray,
    labels: np.ndarray,
    groups: Int64[np.ndarray, "n"],
    seed: int = 0,
    validation_share: float = 0.1,
    every_class: bool = True,
) -> list[FoldSplit]:
    """One fold of the parts that the user gives: `part` holds "train", "validation" or "test" for each clip.

    Without clips for validation, about `validation_share` of those for training are taken, whole groups as in `strict`.
    InputError where train or test has no clips, and where train has no group to spare.
    """
    rows = [np.flatnonzero(part == name) for name in FoldSplit._fields]
    for name, own in zip(FoldSplit._fields, rows):
        if not len(own) and name != "validation":
            raise errors.InputError(
                f"none of the {len(part)} clips is in the part {name}: put some there, or leave the parts out"
            )
    train, validation, test = rows
    if not len(validation):
        rng = np.random.default_rng([seed, 1, 0])
        chosen = _validation(labels[train], own_groups(groups)[train], validation_share, rng, every_class)
        if chosen is None:
            raise errors.InputError(
                "no clips are given for validation, and train has no group to spare for it, because each is the only "
                "one of some class: give more groups of each class, or a part validation"
            )
        train, validation = np.delete(train, chosen), train[chosen]
    return [FoldSplit(train, validation, test)]


def check_parts(part: np.ndarray, groups: Int64[np.ndarray, "n"], names: Sequence[str], ids: Sequence[str]) -> None:
    """InputError for a group with clips in two parts; `names` are those of the groups, and `ids` those of the clips."""
    first: dict[int, int] = {}
    for row in np.flatnonzero(groups >= 0).tolist():
        other = first.setdefault(int(groups[row]), row)
        if part[other] != part[row]:
            raise errors.InputError(
                f"group {names[groups[row]]} has clips in two parts, {ids[other]} in {part[other]} and {ids[row]} in "
                f"{part[row]}: put all clips of a group into one part"
            )


def own_groups(groups: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
    """Dense group numbers; every clip of an unknown group gets a number of its own."""
    # groups 0 1 1 -1 -1  ->  0 1 1 5 6  ->  0 1 1 2 3
    alone = groups.max(initial=-1) + 1 + np.arange(len(groups))
    return np.unique(np.where(groups < 0, alone, groups), return_inverse=True)[1].reshape(-1).astype(np.int64)


def _members(labels: np.ndarray) -> Float[np.ndarray, "n v"]:
    """1 where a clip has a class: `labels` are classes [n], or this already."""
    return labels if labels.ndim == 2 else np.eye(labels.max(initial=-1) + 1)[labels]


def _by_group(members: Float[np.ndarray, "n v"], own: Int64[np.ndarray, "n"], count: int) -> Float[np.ndarray, "g v"]:
    """The clips of each class in each of `count` groups."""
    found = np.zeros((count, members.shape[1]))
    np.add.at(found, own, members)
    return found


def _deal(
    labels: np.ndarray, own: Int64[np.ndarray, "n"], parts: int, rng: np.random.Generator
) -> Int64[np.ndarray, "n"]:
    """The part of each row: groups stay whole, and every part gets about the same share of every class.

    Greedy: with s[g, v] the share of class v's clips that group g holds, groups are dealt by falling sum_v s[g, v]^2,
    each to the part p with the least sum_v held[p, v] s[g, v]. The random order decides between equals.
    """
    used, own = np.unique(own, return_inverse=True)
    counts, clips = _by_group(_members(labels), own.reshape(-1), len(used)), np.bincount(own.reshape(-1))
    shares = counts / np.maximum(counts.sum(0), 1)
    # Rounding makes ties of sums that differ in the last bit, which may depend on the machine; a stable sort then
    # leaves ties in their random order. Together they make the folds the same everywhere.
    order = rng.permutation(len(used))
    order = order[np.argsort(-np.round((shares[order] ** 2).sum(1), 12), kind="stable")]
    held, size, part = np.zeros((parts, counts.shape[1])), np.zeros(parts), np.zeros(len(used), np.int64)
    for group in order:
        crowding = np.round(held @ shares[group], 12)
        # lexsort's last key counts first: the least crowded part, and of equal ones the smallest.
        part[group] = np.lexsort((size, crowding))[0]
        held[part[group]] += shares[group]
        size[part[group]] += clips[group]
    return part[own.reshape(-1)]


def _validation(
    labels: np.ndarray,
    own: Int64[np.ndarray, "n"],
    share: float,
    rng: np.random.Generator,
    every_class: bool = True,
) -> Int64[np.ndarray, "_m"] | None:
    """Sorted rows for validation, of as many classes as possible; None if every choice takes a class from train."""
    members, (used, dense) = _members(labels), np.unique(own, return_inverse=True)
    held = _by_group(members, dense.reshape(-1), len(used)) > 0
    groups_of_class = held.sum(0)
    # The only groups of some class: train needs them.
    only = used[held[:, groups_of_class == 1].any(1) & every_class]
    free = np.flatnonzero(~np.isin(own, only))
    classes, groups = np.count_nonzero(groups_of_class), len(np.unique(own[free]))
    # Deal the rest into parts of about the wanted size; when each lacks a class in train, try smaller ones.
    for cuts in range(max(1, min(round(len(free) / (share * len(labels))), groups)), groups + 1):
        part = _deal(labels[free], own[free], cuts, rng)
        options = [free[part == k] for k in range(cuts)]
        there = [np.count_nonzero(np.delete(members, rows, 0).any(0)) for rows in options]
        options = [rows for rows, left in zip(options, there) if left == classes or not every_class]
        if options:
            return max(options, key=lambda rows: np.count_nonzero(members[rows].any(0)))
    return None


def _check_count(folds: int, n: int, what: str) -> None:
    if folds < 2:
        raise errors.InputError(f"folds={folds} makes no cross-validation: give 2 or more")
    if folds > n:
        raise errors.InputError(f"folds={folds} is more than the {n} {what}: give {n} or fewer")


def check(
    labels: np.ndarray,
    names: Sequence[str],
    folds: Sequence[FoldSplit],
    protocol: str,
    groups: Int64[np.ndarray, "n"] | None = None,
    rare: str = "stop",
) -> list[str]:
    """Refuse folds that cannot train or be scored, by InputError; returns the warnings, each a sentence.

    Refused are fewer than two classes, a class that a train part lacks, and a class of fewer clips or `groups` than
    folds, which some test parts will lack. The last is only a warning with protocol "paper" or `rare` "keep"; so is
    the second with "keep", where two classes are left to train on.
    """
    for name, value, allowed in (("protocol", protocol, PROTOCOLS), ("rare", rare, RARE)):
        if value not in allowed:
            raise errors.InputError(f"{name} {value!r} is none of {', '.join(allowed)}")
    members = labels if labels.ndim == 2 else np.eye(len(names))[labels]
    clips = members.sum(0).astype(np.int64)
    if np.count_nonzero(clips) < 2:
        there = names[int(clips.argmax())] if len(labels) else "none"
        raise errors.InputError(f"all {len(labels)} clips are of one class ({there}): give clips of two or more")
    untrained = []
    for number, fold in enumerate(folds):
        trained = members[fold.train].sum(0)
        absent = np.flatnonzero((trained == 0) & (clips > 0))
        for k in absent:
            many = f"{clips[k]} clip{'' if clips[k] == 1 else 's'}"
            text = f"class {names[k]} ({many}) is absent from the train part of fold {number}"
            if rare == "stop" or np.count_nonzero(trained) < 2:
                kept = ", or accept it with --config.rare=keep" if np.count_nonzero(trained) >= 2 else ""
                raise errors.InputError(f"{text}: give more clips of it, or leave the class out{kept}")
            untrained.append(f"{text}, which can only miss it")
    warnings = _rare_classes(members, names, len(folds), np.full(len(labels), -1) if groups is None else groups)
    if warnings and protocol == "strict" and rare == "stop":
        fewest = min(number for number, _ in warnings)
        fewer = f"take --config.folds={fewest} or fewer, " if fewest > 1 else ""
        raise errors.InputError(f"{warnings[0][1]}: {fewer}leave the class out, or accept it with --config.rare=keep")
    return [*(sentence for _, sentence in warnings), *untrained]


def _rare_classes(
    members: Float[np.ndarray, "n v"], names: Sequence[str], folds: int, groups: Int64[np.ndarray, "n"]
) -> list[tuple[int, str]]:
    """(number of groups, a sentence) for each class that cannot be in every test part."""
    own, found = own_groups(groups), []
    for k, name in enumerate(names):
        rows = np.flatnonzero(members[:, k])
        clips, sets = len(rows), len(np.unique(own[rows]))
        if 0 < sets < folds:
            what = f"{clips} clips" if clips < folds else f"clips of only {sets} groups"
            found.append((sets, f"class {name} has {what}, too few for each of {folds} folds to test it"))
    return found
