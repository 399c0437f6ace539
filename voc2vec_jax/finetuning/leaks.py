"""Leakage from training into test: copies of tested sounds and tested speakers in training, or in pre-training.

A clip is a whole recording from its start, so two clips share audio only when one recording copies the other.
"""

import collections
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from voc2vec_jax import opening
from voc2vec_jax.datasets import fingerprints, records
from voc2vec_jax.finetuning import copies, folds, provenance, tasks
from voc2vec_jax.runs import files, logs

FILE = "leaks.json"
WORST = 10  # examples that are listed


def write(
    workdir: str | os.PathLike,
    task: tasks.Task,
    splits: Sequence[folds.FoldSplit],
    data_dir: str | os.PathLike,
    heard: provenance.TrainingData = provenance.NONE,
) -> dict[str, Any]:
    """Write `report` as `leaks.json` into `workdir`, and its warnings to stderr."""
    found = report(task, splits, data_dir, heard)
    for sentence in found["warnings"]:
        logs.warn(sentence)
    if not found["warnings"]:
        logs.say(f"leak report of {task.title}: no sound and no known speaker is on both sides of a fold")
    files.write_atomic(pathlib.Path(workdir) / FILE, (json.dumps(found, indent=1) + "\n").encode())
    return found


def is_written(workdir: str | os.PathLike, task: tasks.Task) -> bool:
    """Whether the folder holds the report of these clips; that of an earlier version does not tell which it is of."""
    path = pathlib.Path(workdir) / FILE
    return path.is_file() and opening.read_json(path).get("task", task.fingerprint) == task.fingerprint


def report(
    task: tasks.Task,
    splits: Sequence[folds.FoldSplit],
    data_dir: str | os.PathLike,
    heard: provenance.TrainingData = provenance.NONE,
) -> dict[str, Any]:
    """Leaks within each fold and from what the model has `heard` before, as plain values for JSON.

    "task"          the fingerprint of the task
    "folds"         for each fold: how many test clips have an identical, else a near-identical, else an overlapping
                    clip in train or validation; how many belong to a group that is there too; how many such groups;
                    the worst examples
    "tested"        the same, summed over folds
    "pretraining"   the task's clips that occur in each set, and the data that cannot be compared ("unchecked"): sets
                    that `data_dir` lacks, corpora that the library has no page for, data that nobody tells
    "group_copies"  pairs of copies, and the groups before and after these were merged; None: they were not
    "warnings"      a sentence for each kind of leak

    Fingerprints are kept in `data_dir`.
    """
    prints, pairs = copies.find(task, data_dir)
    found = [_fold(task, prints, pairs, number, split) for number, split in enumerate(splits)]
    keys = ("clips", "identical", "near_identical", "overlapping", "same_group")
    tested = {key: sum(fold[key] for fold in found) for key in keys}
    tested["unknown_group"] = int((task.group[np.concatenate([split.test for split in splits])] < 0).sum())
    overlap = _pretraining(task, prints, data_dir, heard)
    selected = any(np.isin(split.validation, split.test).any() for split in splits)
    return {
        "task": task.fingerprint,
        "tested": tested,
        "selected_on_test": bool(selected),
        "folds": found,
        "pretraining": overlap,
        "group_copies": task.merged and dict(task.merged),
        "warnings": [
            *_split_warnings(tested, found, selected),
            *_pretraining_warnings(overlap, heard, len(task), data_dir),
        ],
    }


def _fold(
    task: tasks.Task,
    prints: fingerprints.Fingerprints,
    pairs: Sequence[fingerprints.Pair],
    number: int,
    split: folds.FoldSplit,
) -> dict[str, Any]:
    part = np.full(len(task), "", dtype="U10")
    for name in ("train", "validation", "test"):  # test last: the paper's protocol validates on the test clips
        part[getattr(split, name)] = name
    # Validation selects the epoch, so what it holds has been learnt from as well.
    learnt = np.flatnonzero((part == "train") | (part == "validation"))
    crossing = _crossing(pairs, part)
    # Sets of digests: a comparison of all pairs would be n * n for each fold.
    known = {digest.tobytes() for digest in prints.digests[learnt]}
    # By digest, because `pairs` links clips of a large group of copies only to the first of them.
    identical = {int(row) for row in split.test if prints.digests[row].tobytes() in known}
    near = {row for row, _, pair in crossing if pair.kind == "near"} - identical
    overlapping = {row for row, _, pair in crossing if pair.kind == "overlap"} - identical - near
    group = task.group[split.test]
    # Without -1: two clips of unknown speakers are not of the same speaker.
    shared = np.intersect1d(group[group >= 0], task.group[learnt])
    # "identical", "near" and "overlap" stand in this order in the alphabet too.
    worst = sorted(crossing, key=lambda each: (each[2].kind, -each[2].similarity, each[0]))[:WORST]
    return {
        "fold": number,
        "clips": len(split.test),
        "identical": len(identical),
        "near_identical": len(near),
        "overlapping": len(overlapping),
        "same_group": int(np.isin(group, shared).sum()),
        "shared_groups": len(shared),
        "worst": [
            {
                "test": str(task.ids[row]),
                "other": str(task.ids[other]),
                "part": str(part[other]),
                "kind": pair.kind,
                "similarity": round(pair.similarity, 4),
                "same_label": bool(np.array_equal(task.targets[row], task.targets[other])),
            }
            for row, other, pair in worst
        ],
    }


def _crossing(pairs: Sequence[fingerprints.Pair], part: np.ndarray) -> list[tuple[int, int, fingerprints.Pair]]:
    """(test row, other row, pair) for pairs with one side in the test part and the other in train or validation."""
    found = []
    for pair in pairs:
        sides = part[pair.first], part[pair.second]
        # A clip in no part of this fold is neither learnt from nor tested.
        if "" not in sides and (sides[0] == "test") != (sides[1] == "test"):
            rows = (pair.first, pair.second) if sides[0] == "test" else (pair.second, pair.first)
            found.append((*rows, pair))
    return found


def _pretraining(
    task: tasks.Task,
    prints: fingerprints.Fingerprints,
    data_dir: str | os.PathLike,
    heard: provenance.TrainingData,
) -> dict[str, Any]:
    there = set(records.list_sets(data_dir))
    sets: dict[str, Any] = {}
    overlapping: set[int] = set()
    for name in (name for name in heard.sets if name in there):
        prepared = records.open_set(data_dir, name)
        best = _closest(prints, fingerprints.cached(prepared, data_dir))
        kinds = collections.Counter(pair.kind for pair in best)
        overlapping |= {pair.first for pair in best}
        sets[name] = {
            "identical": kinds["identical"],
            "near_identical": kinds["near"],
            "worst": [
                {
                    "clip": str(task.ids[pair.first]),
                    "other": str(prepared.ids[pair.second]),
                    "kind": pair.kind,
                    "similarity": round(pair.similarity, 4),
                }
                for pair in best[:WORST]
            ],
        }
    unchecked = [*(name for name in heard.sets if name not in there), *heard.unchecked]
    return {"clips": len(overlapping), "sets": sets, "unchecked": unchecked}


def _closest(mine: fingerprints.Fingerprints, theirs: fingerprints.Fingerprints) -> list[fingerprints.Pair]:
    """The closest pair of each clip of mine that has one in theirs, closest first; in the memory of one part."""
    best: list[fingerprints.Pair] = []
    for first, part in fingerprints.parts(theirs):
        found = fingerprints.pairs(mine, part)
        best = _best([*best, *(pair._replace(second=pair.second + first) for pair in found)])
    return best


def _best(pairs: Sequence[fingerprints.Pair]) -> list[fingerprints.Pair]:
    """The closest pair of each clip that has one, closest first."""
    best: dict[int, fingerprints.Pair] = {}
    for pair in sorted(pairs, key=lambda pair: (pair.kind, -pair.similarity, pair.first, pair.second)):
        # The first of a clip is its closest, because the closest come first.
        best.setdefault(pair.first, pair)
    return list(best.values())


def _split_warnings(tested: dict[str, int], found: Sequence[dict[str, Any]], selected: bool) -> list[str]:
    clips, warnings = tested["clips"], []
    if tested["identical"] or tested["near_identical"] or tested["overlapping"]:
        examples = [(fold["fold"], pair["test"], pair["other"]) for fold in found for pair in fold["worst"]]
        example = " ({1} and {2} in fold {0})".format(*examples[0]) if examples else ""
        warnings.append(
            f"{tested['identical']} of {clips} tested clips are trained on too, sample for sample, "
            f"{tested['near_identical']} more nearly so, and {tested['overlapping']} more in part{example}: scores of "
            "these measure memory"
        )
    if tested["same_group"]:
        warnings.append(
            f"{tested['same_group']} of {clips} tested clips are of a speaker or group that is trained on too: "
            "protocol=strict keeps groups together"
        )
    if tested["unknown_group"]:
        warnings.append(
            f"the speakers of {tested['unknown_group']} of {clips} tested clips are not known, so that it cannot be "
            "said whether they are trained on too"
        )
    if selected:
        warnings.append(
            "the epoch is selected on the clips that are reported, as in the paper: protocol=strict selects on others"
        )
    return warnings


def _pretraining_warnings(
    overlap: dict[str, Any], heard: provenance.TrainingData, clips: int, data_dir: str | os.PathLike
) -> list[str]:
    warnings = []
    if overlap["clips"]:
        names = [name for name, found in overlap["sets"].items() if found["worst"]]
        warnings.append(
            f"{overlap['clips']} of {clips} clips, or near copies of them, were in the pre-training data "
            f"({', '.join(names)}), though without their labels"
        )
    absent = [name for name in heard.sets if name not in overlap["sets"]]
    if absent:
        warnings.append(
            f"overlap with the pre-training sets {', '.join(absent)} is not checked, for they are not prepared in "
            f"{data_dir}"
        )
    if heard.unchecked:
        warnings.append(
            f"overlap with other data that the model was trained on is not checked: {', '.join(heard.unchecked)}"
        )
    return warnings
