"""Duplicate sounds in prepared sets: within a set, between two sets, and between pre-training and tasks."""

import os
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from voc2vec_jax.datasets import catalog, fingerprints, records
from voc2vec_jax.runs import csv_files, files


class Duplicate(NamedTuple):
    """Two records that hold the same sound; `kind` and `similarity` as in `fingerprints.Pair`."""

    first_set: str
    first: str
    second_set: str
    second: str
    kind: str
    similarity: float


def find(data_dir: str | os.PathLike, names: Sequence[str], workers: int | None = None) -> list[Duplicate]:
    """Every pair of records with the same sound, within a named set or between two of them.

    `workers` threads (default: the cores) compute fingerprints that are not cached yet.
    """
    opened = [records.open_set(data_dir, name) for name in names]
    prints = [fingerprints.cached(prepared, data_dir, workers) for prepared in opened]
    found = fingerprints.pairs(fingerprints.join(prints)) if prints else []
    ends = np.cumsum([len(prepared) for prepared in opened])

    def place(row: int) -> tuple[str, str]:
        number = int(np.searchsorted(ends, row, side="right"))
        start = int(ends[number - 1]) if number else 0
        return opened[number].name, str(opened[number].ids[row - start])

    return [Duplicate(*place(pair.first), *place(pair.second), pair.kind, pair.similarity) for pair in found]


def summary(found: Sequence[Duplicate]) -> list[tuple[str, ...]]:
    """Table rows, the header first: pairs and records for each two sets; marks those of pre-training and a task."""
    pairs: Counter[tuple[str, str, str]] = Counter()
    involved: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for pair in found:
        sets = (pair.first_set, pair.second_set)
        pairs[(*sets, pair.kind)] += 1
        involved.setdefault(sets, set()).update([(pair.first_set, pair.first), (pair.second_set, pair.second)])
    rows = [("set", "and set", "identical", "near", "records", "")]
    for sets, ids in sorted(involved.items()):
        counts = [f"{pairs[(*sets, kind)]}" for kind in ("identical", "near")]
        rows.append((*sets, *counts, f"{len(ids)}", "pre-training meets task" if crosses(*sets) else ""))
    return rows


def crosses(first: str, second: str) -> bool:
    """Whether one of two sets is for pre-training and the other a task."""
    return (first in catalog.PRETRAINING and second in catalog.TASKS) or (
        second in catalog.PRETRAINING and first in catalog.TASKS
    )


def write(found: Sequence[Duplicate], path: pathlib.Path) -> None:
    """Writes all pairs as a csv file, first those between a pre-training set and a task."""
    ordered = sorted(found, key=lambda pair: (not crosses(pair.first_set, pair.second_set), pair))
    with files.atomic(path, "w", encoding="utf-8", newline="") as file:
        out = csv_files.Writer(file)
        out.writerow(Duplicate._fields)
        out.writerows([*pair[:5], f"{pair.similarity:.4f}"] for pair in ordered)
