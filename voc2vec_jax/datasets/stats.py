"""Tables I and II of the paper: its numbers and those of the prepared sets side by side."""

import os
from typing import NamedTuple

import numpy as np

from voc2vec_jax import audio, errors
from voc2vec_jax.datasets import catalog, listings, records

TITLES = ("Table I, pre-training sets", "Table II, tasks")


class Counts(NamedTuple):
    """What a set holds: recordings, hours, classes that occur, groups (0 if unknown)."""

    files: int
    hours: float
    classes: int
    groups: int

    @property
    def mean_seconds(self) -> float:
        """Of a recording."""
        return self.hours * 3600 / max(self.files, 1)


def count(prepared: records.PreparedSet) -> Counts:
    """Counts of a prepared set from its index."""
    return Counts(
        files=len(prepared.recordings),
        hours=float(prepared.samples.sum(dtype=np.int64)) / audio.RATE_HZ / 3600,
        classes=len(np.unique(prepared.label[prepared.label >= 0])),
        groups=len(prepared.groups),
    )


def tables(data_dir: str | os.PathLike) -> list[tuple[str, list[tuple[str, ...]]]]:
    """The title and rows of both tables, the header first; a set that is not prepared has dashes."""
    there = set(records.list_sets(data_dir))
    found = {name: count(records.open_set(data_dir, name)) for name in catalog.CATALOG if name in there}
    first = [_row(catalog.CATALOG[name], found.get(name), False) for name in catalog.PRETRAINING]
    second = [_row(catalog.CATALOG[name], found.get(name), True) for name in catalog.TASKS]
    return [
        (TITLES[0], [_header(False), *first, _voc125(found)]),
        (TITLES[1], [_header(True), *second]),
    ]


def differences(data_dir: str | os.PathLike) -> list[str]:
    """A line for each prepared set whose numbers differ from the paper's, and why, if that is known."""
    lines = []
    for name in (*catalog.PRETRAINING, *catalog.TASKS):
        if name in records.list_sets(data_dir):
            lines += _difference(catalog.CATALOG[name], records.open_set(data_dir, name))
    return lines


def _difference(source: listings.Source, prepared: records.PreparedSet) -> list[str]:
    ours = count(prepared)
    parts = []
    if ours.files != source.paper_samples:
        files = errors.counted(ours.files, "recording")
        parts.append(f"{files}, the paper has {source.paper_samples} ({_signed(ours, source)})")
    if round(ours.hours, 2) != source.paper_hours:
        parts.append(f"{ours.hours:.3f} h, the paper has {source.paper_hours}")
    if source.paper_classes is not None and ours.classes != source.paper_classes:
        parts.append(f"{ours.classes} classes, the paper has {source.paper_classes}")
    if prepared.report["unreadable"]:
        parts.append(f"left out, {errors.counted(len(prepared.report['unreadable']), 'file')}")
    why = source.difference or "the reason is not known"
    return [f"{source.name}: {'; '.join(parts)}: {why}"] if parts else []


def _signed(ours: Counts, source: listings.Source) -> str:
    return f"{ours.files - source.paper_samples:+d}"


def _header(task: bool) -> tuple[str, ...]:
    classes = ("classes", "paper") if task else ()
    return ("set", *classes, "hours", "paper", "recordings", "paper", "mean s", "paper", "groups")


def _row(source: listings.Source, ours: Counts | None, task: bool) -> tuple[str, ...]:
    mean = source.paper_mean_seconds
    papers = (f"{source.paper_hours:.2f}", f"{source.paper_samples}", f"{mean:.2f}")
    classes = (f"{ours.classes}" if ours else "-", f"{source.paper_classes}") if task else ()
    shown = (f"{ours.hours:.3f}", f"{ours.files}", f"{ours.mean_seconds:.2f}") if ours else ("-",) * 3
    groups = f"{ours.groups}" if ours and ours.groups else "-"
    return (source.name, *classes, *(cell for pair in zip(shown, papers) for cell in pair), groups)


def _voc125(found: dict[str, Counts]) -> tuple[str, ...]:
    ours = [found[name] for name in catalog.PRETRAINING if name in found]
    total = Counts(sum(each.files for each in ours), sum(each.hours for each in ours), 0, 0)
    name = f"Voc125 ({len(ours)} of {len(catalog.PRETRAINING)})"
    shown = (f"{total.hours:.3f}", f"{total.files}", f"{total.mean_seconds:.2f}") if ours else ("-",) * 3
    papers = tuple(f"{number}" for number in catalog.VOC125)
    return (name, *(cell for pair in zip(shown, papers) for cell in pair), "-")
