"""Reads and checks finished and unfinished runs of fine-tuning for a report."""

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from voc2vec_jax import errors, opening
from voc2vec_jax.convert import paper_systems
from voc2vec_jax.finetuning import leak_badges, scoring
from voc2vec_jax.ops import metrics

_NEEDED = {"dataset": str, "system": str, "protocol": str, "planned_folds": int, "folds": list, "labels": list}
_OPTIONAL = {"title": str, "model": str, "complete": bool, "audio_root": str, "clips": int, "leaks": dict}
_OPTIONAL |= {"groups": int, "baselines": dict}
_OPTIONAL |= {
    "kind": str,
    "averaged_classes": str,
    "pooled": dict,
    "asked_folds": int,
    "fewer_folds": str,
    "seeds": list,
}
_FAULT = "fault.json"
_TRACES = ("config.json", "metrics.jsonl", "fold_00")  # of a run that has no summary yet


class ReportedFold(NamedTuple):
    """One fold's scores on its test clips; `train` counts training clips, `confusion` is None without classes."""

    fold: int
    scores: Mapping[str, float]
    confusion: Int[np.ndarray, "v v"] | None
    best_epoch: int | None
    train: int
    test: frozenset[str]


@dataclasses.dataclass(frozen=True, eq=False)
class ReportedRun:
    """A run folder's summary. `name` is the system's, made unique within its data set and protocol by `named`."""

    folder: pathlib.Path
    origin: pathlib.Path  # the argument that it was found under
    dataset: str
    title: str
    system: str
    name: str
    model: str
    protocol: str
    kind: str  # of `scoring.KINDS`
    averaged: str  # of `metrics.AVERAGED`
    complete: bool
    planned_folds: int
    folds: tuple[ReportedFold, ...]
    labels: tuple[str, ...]
    pooled: Mapping[str, Mapping[str, float | None]]  # as `scoring.pooled` makes them; empty without folds
    clips: int | None
    audio_root: str | None
    leaks: Mapping[str, Any]
    badges: tuple[leak_badges.Badge, ...]  # of `leaks`
    groups: int | None  # of the tested clips; one of no group counts as one
    hours: float | None
    baselines: Mapping[str, Mapping[str, float]]  # as `scoring.baselines` makes them; empty where they are not known
    fewer: str  # why these are fewer folds than were asked for; "" where they are not
    # With several seeds each of `folds` holds the mean of its scores over them and all their predictions.
    seeds: Mapping[int, tuple[ReportedFold, ...]]

    @property
    def progress(self) -> str:
        """Such as "7 of 10", or "10 of 10, 3 seeds"."""
        if not self.seeds:
            return f"{len(self.folds)} of {self.planned_folds}"
        done = {len(folds) for folds in self.seeds.values()}
        if len(done) == 1:
            return f"{done.pop()} of {self.planned_folds}, {len(self.seeds)} seeds"
        total = sum(len(folds) for folds in self.seeds.values())
        return f"{total} of {self.planned_folds * len(self.seeds)}, {len(self.seeds)} seeds"

    @property
    def leaks_in_words(self) -> list[str]:
        """What of the training is known to be in the tested clips; empty where nothing is."""
        return [badge.text for badge in self.badges if badge.kind == leak_badges.LEAK]

    @property
    def details_folder(self) -> pathlib.Path:
        """Where its predictions, curves and embeddings lie; with several seeds, those of the first."""
        return self.folder / f"seed_{next(iter(self.seeds))}" if self.seeds else self.folder

    @property
    def summary(self) -> metrics.Summary | None:
        """Over the finished folds; with several seeds the deviation is over their means. None without any fold."""
        if not self.folds:
            return None
        each = [metrics.summarise([fold.scores for fold in folds]).mean for folds in self.seeds.values()]
        return metrics.summarise(each or [fold.scores for fold in self.folds])

    @property
    def confusion(self) -> Int[np.ndarray, "v v"]:
        """Test clips of all folds; rows are true classes, columns predicted ones. For kind "classes" alone."""
        empty = np.zeros((len(self.labels),) * 2, np.int64)
        return sum((fold.confusion for fold in self.folds), empty)


class ReportedFault(NamedTuple):
    """A job that failed, or several of its seeds that failed alike."""

    folder: pathlib.Path
    dataset: str
    title: str
    system: str
    protocol: str
    reason: str
    seeds: tuple[int, ...]  # () for a job of one seed

    @property
    def name(self) -> str:
        """The system, and the seeds that failed."""
        plural = "s" * (len(self.seeds) > 1)
        return f"{self.system}, seed{plural} {', '.join(map(str, self.seeds))}" if self.seeds else self.system

    def left_nothing(self, runs: Sequence[ReportedRun]) -> bool:
        """Whether no run stands for it: neither one of the same folder nor one of all its seeds."""
        return not {self.folder, self.folder.parent} & {run.folder for run in runs}


class Found(NamedTuple):
    """What lies under some folders."""

    runs: list[ReportedRun]  # in the order of the tables
    waiting: list[pathlib.Path]  # run folders without a summary yet
    faults: list[ReportedFault]  # run folders that failed


def find(words: Sequence[str | os.PathLike]) -> Found:
    """The runs under the given folders, and what has no summary yet.

    A word is a run folder, or a folder of them: `<system>/summary.json` or `<dataset>/<system>/summary.json`, or one
    level more for the layers of probes. Runs of several seeds are one run. A run found twice counts once. InputError
    for a word with no run, or a summary that cannot be used.
    """
    found: dict[pathlib.Path, ReportedRun] = {}
    failed: dict[pathlib.Path, ReportedFault] = {}
    waiting = set()
    for word in words:
        origin = pathlib.Path(word).expanduser()
        if not origin.is_dir():
            raise errors.InputError(f"{origin} is not a folder; give a run folder of fine-tuning, or a folder of them")
        folders = [origin, *sorted(origin.glob("*/")), *sorted(origin.glob("*/*/"))]
        deepest = [*folders, *sorted(origin.glob("*/*/*/"))]
        done = [folder for folder in deepest if (folder / "summary.json").is_file() and not _of_seeds(folder, origin)]
        faulty = [folder for folder in deepest if (folder / _FAULT).is_file()]
        if not done:
            why = f": {read_fault(faulty[0]).reason}" if faulty else "; let at least one fold of a run finish"
            raise errors.InputError(
                f"{origin} holds no summary.json, neither itself nor in RUN/<system> or RUN/<dataset>/<system>{why}"
            )
        for folder in done:
            found.setdefault(folder.resolve(), read(folder, origin))
        for folder in faulty:
            failed.setdefault(folder.resolve(), read_fault(folder))
        if origin not in done:
            settled = {*done, *faulty}
            waiting |= {
                folder
                for folder in folders[1:]
                if folder not in settled and _started(folder) and not _of_seeds(folder, origin)
            }
    runs = named(sorted(found.values(), key=_rank))
    return Found(runs, sorted(waiting), _over_seeds(list(failed.values())))


def _over_seeds(faults: Sequence[ReportedFault]) -> list[ReportedFault]:
    """Seeds of one job that failed for the same reason as one fault."""
    found: dict[tuple, ReportedFault] = {}
    for fault in faults:
        key = (fault.folder.parent if fault.seeds else fault.folder, fault.reason)
        seeds = (*found[key].seeds, *fault.seeds) if key in found else fault.seeds
        found[key] = found.get(key, fault)._replace(seeds=seeds)
    return list(found.values())


def _of_seeds(folder: pathlib.Path, origin: pathlib.Path) -> bool:
    """Whether a folder is one of several seeds, which the folder above sums up."""
    return folder != origin and folder.name.startswith("seed_") and (folder.parent / "summary.json").is_file()


def read_fault(folder: pathlib.Path) -> ReportedFault:
    """The fault that the job of one folder ended with; InputError if its file cannot be used."""
    path = folder / _FAULT
    raw = _json(path)
    for key in ("dataset", "system", "protocol", "reason"):
        if not isinstance(raw.get(key), str):
            refuse(path, f"{key!r} is {'missing' if key not in raw else 'not a str'}")
    title, seed = raw.get("title"), raw.get("seed")
    title = title if isinstance(title, str) else raw["dataset"]
    seeds = (seed,) if type(seed) is int else ()
    return ReportedFault(folder, raw["dataset"], title, raw["system"], raw["protocol"], raw["reason"], seeds)


def _started(folder: pathlib.Path) -> bool:
    return any((folder / trace).exists() for trace in _TRACES)


def _rank(run: ReportedRun) -> tuple:
    order = list(paper_systems.SYSTEMS)
    place = order.index(run.system) if run.system in paper_systems.SYSTEMS else len(order)
    return run.title, run.dataset, run.protocol, place, run.system, str(run.folder)


def named(runs: Sequence[ReportedRun]) -> list[ReportedRun]:
    """Names runs of the same data set, protocol and system by where they were found, alike in every data set.

    A system that ran under two protocols on one data set has the protocol in its name.
    """
    places: dict[tuple, set[pathlib.Path]] = {}
    for run in runs:
        places.setdefault((run.dataset, run.protocol, run.system), set()).add(_place(run))
    common = {key[1:] + (place,) for key, several in places.items() if len(several) > 1 for place in several}
    shared = os.path.commonpath([place.absolute() for *_, place in common]) if common else ""
    found = [
        dataclasses.replace(run, name=f"{run.system} ({os.path.relpath(_place(run).absolute(), shared)})")
        if (run.protocol, run.system, _place(run)) in common
        else run
        for run in runs
    ]
    under: dict[tuple[str, str], set[str]] = {}
    for run in found:
        under.setdefault((run.dataset, run.name), set()).add(run.protocol)
    several = {name for (_, name), protocols in under.items() if len(protocols) > 1}
    return [
        dataclasses.replace(run, name=f"{run.name}, {run.protocol}") if run.name in several else run for run in found
    ]


def _place(run: ReportedRun) -> pathlib.Path:
    """What distinguishes a run from its equals: the grid it belongs to, else its own folder."""
    grid = run.origin / run.dataset / run.system
    return run.origin if grid == run.folder else run.folder


def _title(raw: Mapping[str, Any]) -> str:
    """What people call the clips. Version 0.1.0 called a user's own as their set, `clips_5f233e14` beside a `clips`."""
    title = raw.get("title") or raw["dataset"]
    return re.sub(r"_[0-9a-f]{8}$", "", title) if title == raw["dataset"] else title


def read(folder: pathlib.Path, origin: pathlib.Path | None = None) -> ReportedRun:
    """The run in one folder; InputError, naming the file and the key, if its summary cannot be used."""
    path = folder / "summary.json"
    raw = _json(path)
    for key, kind in {**_NEEDED, **_OPTIONAL}.items():
        value = raw.get(key)
        if value is None and key in _OPTIONAL:
            continue
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            refuse(path, f"{key!r} is {'missing' if key not in raw else f'not a {kind.__name__}'}")
    labels = tuple(raw["labels"])
    if not labels or not all(isinstance(label, str) for label in labels) or len(set(labels)) < len(labels):
        refuse(path, "'labels' is not a list of different names")
    # Summaries of earlier versions do not say these: there were only classes, averaged as the official script does.
    kind, averaged = raw.get("kind") or "classes", raw.get("averaged_classes") or "occurring"
    if kind not in scoring.KINDS:
        refuse(path, f"'kind' is none of {', '.join(scoring.KINDS)}")
    each = _folds(path, raw["folds"], kind, len(labels))
    folds = _merged(path, each) if raw.get("seeds") else each.get(None, ())
    return ReportedRun(
        folder=folder,
        origin=origin or folder,
        dataset=raw["dataset"],
        title=_title(raw),
        system=raw["system"],
        name=raw["system"],
        model=raw.get("model") or "",
        protocol=raw["protocol"],
        kind=kind,
        averaged=averaged,
        complete=raw.get("complete", True) is True and len(folds) == raw["planned_folds"],
        fewer=raw.get("fewer_folds") or "",
        seeds=each if raw.get("seeds") else {},
        planned_folds=raw["planned_folds"],
        folds=folds,
        labels=labels,
        pooled=_pooled(path, raw.get("pooled"), kind, averaged, folds),
        clips=raw.get("clips"),
        audio_root=raw.get("audio_root"),
        leaks=raw.get("leaks") or {},
        badges=tuple(leak_badges.badges(raw.get("leaks"))),
        groups=raw.get("groups"),
        hours=hours if type(hours := raw.get("hours")) in (int, float) and math.isfinite(hours) else None,
        baselines=_baselines(path, raw.get("baselines"), kind, averaged, folds),
    )


def _folds(path: pathlib.Path, entries: Sequence[Any], kind: str, classes: int) -> dict[Any, tuple[ReportedFold, ...]]:
    """The folds of each seed in order; those of a run of one seed under None."""
    each: dict[Any, list[ReportedFold]] = {}
    for entry in entries:
        seed = entry.get("seed") if isinstance(entry, dict) else None
        each.setdefault(seed, []).append(_fold(path, entry, kind, classes))
    for folds in each.values():
        if len({fold.fold for fold in folds}) < len(folds):
            refuse(path, "a fold is there twice")
    return {seed: tuple(sorted(folds, key=lambda fold: fold.fold)) for seed, folds in each.items()}


def _merged(path: pathlib.Path, each: Mapping[int, tuple[ReportedFold, ...]]) -> tuple[ReportedFold, ...]:
    """Each fold over its seeds: mean scores, and all predictions."""
    found = []
    for number in sorted({fold.fold for folds in each.values() for fold in folds}):
        same = [fold for folds in each.values() for fold in folds if fold.fold == number]
        if len({fold.test for fold in same}) > 1:
            refuse(path, f"fold {number} was tested on other clips with another seed")
        matrix = None if same[0].confusion is None else sum(fold.confusion for fold in same)
        scores = metrics.summarise([fold.scores for fold in same]).mean
        found.append(same[0]._replace(scores=scores, confusion=matrix, best_epoch=None))
    return tuple(found)


def _fold(path: pathlib.Path, entry: Any, kind: str, classes: int) -> ReportedFold:
    place = f"fold {entry.get('fold')}" if isinstance(entry, dict) else "a fold"
    try:
        matrix = np.array(entry["confusion"]) if kind == "classes" else None
        scores = {name: float(entry[name]) for name in scoring.KINDS[kind].titles}
        number, best, train, test = entry["fold"], entry.get("best_epoch"), len(entry["train"]), entry["test"]
    except KeyError as error:
        refuse(path, f"{place}: {error} is missing")
    except (TypeError, ValueError, AttributeError):
        refuse(path, f"{place} is not as fine-tuning writes it")
    if not all(map(math.isfinite, scores.values())):
        refuse(path, f"{place} has a score that is no number")
    if matrix is not None:
        if not all(0 <= value <= 1 for value in scores.values()):
            refuse(path, f"{place} has a score outside 0 to 1")
        if matrix.shape != (classes, classes) or matrix.dtype.kind not in "iu" or matrix.min() < 0:
            refuse(path, f"{place}: 'confusion' is not a table of counts of {classes} by {classes} classes")
        matrix = matrix.astype(np.int64)
    if type(number) is not int or not isinstance(test, list) or (matrix is not None and matrix.sum() != len(test)):
        refuse(path, f"{place}: 'fold', 'test' and 'confusion' do not fit each other")
    best = best if type(best) is int else None
    return ReportedFold(number, scores, matrix, best, train, frozenset(map(str, test)))


def _pooled(
    path: pathlib.Path, found: Any, kind: str, averaged: str, folds: Sequence[ReportedFold]
) -> Mapping[str, Mapping[str, float | None]]:
    """The summary's scores of all clips; those of an earlier version are made from its confusion matrices."""
    if not folds:
        return {}
    if found is None:
        if kind != "classes":
            refuse(path, "'pooled' is missing")
        value = metrics.of_confusion(sum(fold.confusion for fold in folds), averaged)
        return {name: {"value": float(value[name]), "low": None, "high": None} for name in value}
    for name in scoring.KINDS[kind].titles:
        entry = found.get(name)
        numbers = [entry.get(key) for key in ("value", "low", "high")] if isinstance(entry, dict) else [None]
        if not all(isinstance(one, (int, float)) and math.isfinite(one) for one in numbers if one is not None):
            refuse(path, f"'pooled' holds no numbers for {name}")
        if numbers[0] is None or (numbers[1] is None) != (numbers[2] is None):
            refuse(path, f"'pooled' lacks numbers for {name}")
    return found


def _baselines(
    path: pathlib.Path, found: Any, kind: str, averaged: str, folds: Sequence[ReportedFold]
) -> Mapping[str, Mapping[str, float]]:
    """The summary's scores of answers that do not listen; those of classes come from their counts."""
    if kind == "classes":
        clips = sum(fold.confusion for fold in folds).sum(1) if folds else np.zeros(1)
        return scoring.of_classes_without_listening(clips, averaged) if clips.any() else {}
    for name, scores in (found or {}).items():
        values = [scores.get(metric) for metric in scoring.KINDS[kind].titles] if isinstance(scores, dict) else [None]
        if name not in scoring.BASELINES or not all(type(value) in (int, float) for value in values):
            refuse(path, f"'baselines' holds no scores for {name}")
    return found or {}


def _json(path: pathlib.Path) -> dict[str, Any]:
    try:
        raw = opening.read_json(path)
    except OSError as error:
        refuse(path, f"it cannot be read ({error.strerror})")
    except (ValueError, RecursionError):
        refuse(path, "it is not JSON")
    if not isinstance(raw, dict):
        refuse(path, "it is not a JSON object")
    return raw


def refuse(path: pathlib.Path, what: str) -> None:
    raise errors.InputError(f"{path}: {what}; run the fine-tuning again with the same --workdir, or leave it out")
