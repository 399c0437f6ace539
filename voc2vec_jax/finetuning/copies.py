"""Clips that are copies or slices of one recording: found by their sound, and made one group before folds are dealt.

n = clips.
"""

import collections
import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Int64

from voc2vec_jax import errors
from voc2vec_jax.datasets import fingerprints, overlaps
from voc2vec_jax.finetuning import tasks
from voc2vec_jax.runs import logs

GROUP_COPIES = ("auto", "true", "false")
NAMED = 3  # groups that the name of a merged one tells
MOST_AT_ONCE = 64  # stretches of a file with which one is paired


class Copies(NamedTuple):
    """The fingerprints of a task's clips, and the pairs of clips that hold the same sound, closest kind first."""

    prints: fingerprints.Fingerprints
    pairs: list[fingerprints.Pair]


def find(task: tasks.Task, data_dir: str | os.PathLike) -> Copies:
    """Copies, near copies and slices among the clips of a task; each pair once, by its closest kind.

    Fingerprints are kept in `data_dir`.
    """
    prints = fingerprints.cached(task, data_dir, key=tasks.audio_key(task))
    found = [*fingerprints.pairs(prints), *_same_stretches(task), *overlaps.find(task, prints, task.ids.tolist())]
    closest: dict[tuple[int, int], fingerprints.Pair] = {}
    for pair in sorted(found, key=lambda pair: (pair.kind, -pair.similarity)):
        closest.setdefault((pair.first, pair.second), pair)
    return Copies(prints, list(closest.values()))


def _same_stretches(task: tasks.Task) -> Iterator[fingerprints.Pair]:
    """Clips that are stretches of one file and overlap in time; no need to compare their sound."""
    rows = collections.defaultdict(list)
    for row, path in enumerate(task.paths.tolist()):
        rows[path].append(row)
    end = task.start_seconds + task.samples / fingerprints.RATE_HZ
    for lot in rows.values():
        open_rows: list[int] = []  # that have not ended where the next one begins
        for row in sorted(lot, key=lambda row: task.start_seconds[row]):
            open_rows = [other for other in open_rows if end[other] > task.start_seconds[row]][-MOST_AT_ONCE:]
            for other in open_rows:
                yield fingerprints.Pair(min(row, other), max(row, other), "overlap", 1.0)
            open_rows.append(row)


def check_parts(task: tasks.Task, pairs: Sequence[fingerprints.Pair]) -> None:
    """InputError for clips that hold the same sound and are in two of the parts that the user gives."""
    if task.part is None:
        return
    crossing = [pair for pair in pairs if task.part[pair.first] != task.part[pair.second]]
    if crossing:
        how = {"identical": "the same sound", "near": "nearly the same sound", "overlap": "a stretch of the same sound"}
        first, second, kind, _ = crossing[0]
        more = f", and {len(crossing) - 1} more pairs of clips do so" if len(crossing) > 1 else ""
        raise errors.InputError(
            f"{task.ids[first]} in {task.part[first]} and {task.ids[second]} in {task.part[second]} hold {how[kind]}"
            f"{more}: put copies into one part, leave them out, or accept them with --config.group_copies=false"
        )


def merge(task: tasks.Task, pairs: Sequence[fingerprints.Pair]) -> tasks.Task:
    """The task with all clips that `pairs` or their groups link in one group; says how many groups became one.

    `merged` tells it too, and the fingerprint changes when a group does.
    """
    group = united(task.group, pairs)
    before, after = (_number_of_groups(each) for each in (task.group, group))
    kinds = collections.Counter(pair.kind for pair in pairs)
    merged = {kind: kinds[kind] for kind in ("identical", "near", "overlap")}
    merged |= {"groups_before": before, "groups_after": after}
    if before == after:
        return dataclasses.replace(task, merged=merged)
    logs.say(
        f"{task.title}: {len(pairs)} pairs of clips hold the same sound ({kinds['identical']} identical, "
        f"{kinds['near']} nearly so, {kinds['overlap']} overlapping), so {before} groups of clips became {after}, a "
        "clip of no group counting as one; --config.group_copies=false keeps them apart"
    )
    dense = np.where(group < 0, -1, np.unique(group, return_inverse=True)[1].reshape(-1) - (group < 0).any())
    names = tuple(_name(task, np.flatnonzero(dense == number)) for number in range(dense.max() + 1))
    return tasks.with_fingerprint(dataclasses.replace(task, group=dense, groups=names, merged=merged))


def united(group: Int64[np.ndarray, "n"], pairs: Sequence[fingerprints.Pair]) -> Int64[np.ndarray, "n"]:
    """A number for each connected set of clips, -1 for a clip of no group that no pair links to another."""
    known, rows = group[group >= 0], np.flatnonzero(group >= 0)
    first = np.concatenate([rows, np.array([pair.first for pair in pairs], np.int64)])
    second = np.concatenate([len(group) + known, np.array([pair.second for pair in pairs], np.int64)])
    # Nodes are the clips and, behind them, the known groups: a clip is linked to its group and to its copies.
    size = len(group) + int(known.max(initial=-1)) + 1
    links = scipy.sparse.coo_matrix((np.ones(len(first), bool), (first, second)), (size, size))
    number = scipy.sparse.csgraph.connected_components(links, directed=False)[1][: len(group)].astype(np.int64)
    alone = np.ones(size, bool)
    alone[np.concatenate([first, second])] = False
    return np.where(alone[: len(group)], -1, number)


def _number_of_groups(group: Int64[np.ndarray, "n"]) -> int:
    return len(np.unique(group[group >= 0])) + int((group < 0).sum())


def _name(task: tasks.Task, rows: Int64[np.ndarray, "_"]) -> str:
    """The names of the groups that became one; the first clip's id where none was known."""
    names = [task.groups[number] for number in np.unique(task.group[rows]) if number >= 0]
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return " + ".join([*names[:NAMED], *more]) or str(task.ids[rows[0]])
