"""Sounds that are there twice in prepared sets: within a set, between sets, and between pre-training and tasks."""

import csv
import os
import pathlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from voc2vec_jax.datasets import catalog, fingerprints, records


class Copy(NamedTuple):
    """Two records that hold the same sound; `kind` and `similarity` as in `duplicates.Pair`."""

    first_set: str
    first: str
    second_set: str
    second: str
    kind: str
    similarity: float


def find(data_dir: str | os.PathLike, names: Sequence[str], workers: int | None = None) -> list[Copy]:
    """Every pair of records with the same sound, of the same set or of two of the named sets.

    `workers` threads (default: the cores) compute the fingerprints that are not there yet.
    """
    opened = [records.open_set(data_dir, name) for name in names]
    prints = [fingerprints.cached(prepared, data_dir, workers) for prepared in opened]
    found = fingerprints.pairs(fingerprints.join(prints)) if prints else []
    ends = np.cumsum([len(prepared) for prepared in opened])

    def place(row: int) -> tuple[str, str]:
        number = int(np.searchsorted(ends, row, side="right"))
        start = int(ends[number - 1]) if number else 0
        return opened[number].name, str(opened[number].ids[row - start])

    return [Copy(*place(pair.first), *place(pair.second), pair.kind, pair.similarity) for pair in found]


def summary(copies: Sequence[Copy]) -> list[tuple[str, ...]]:
    """Rows under a header: pairs and records of each two sets, those between pre-training and tasks marked."""
    pairs: Counter[tuple[str, str, str]] = Counter()
    involved: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for copy in copies:
        sets = (copy.first_set, copy.second_set)
        pairs[(*sets, copy.kind)] += 1
        involved.setdefault(sets, set()).update([(copy.first_set, copy.first), (copy.second_set, copy.second)])
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


def write(copies: Sequence[Copy], path: pathlib.Path) -> None:
    """All pairs as a csv file, those between pre-training and tasks first."""
    ordered = sorted(copies, key=lambda copy: (not crosses(copy.first_set, copy.second_set), copy))
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(Copy._fields)
        out.writerows([*copy[:5], f"{copy.similarity:.4f}"] for copy in ordered)
    os.replace(temporary, path)
