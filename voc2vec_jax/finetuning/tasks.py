"""A classification task: the labelled recordings of a prepared set, each a clip from its start.

n = clips, s = samples at 16 kHz.
"""

import dataclasses
import difflib
import hashlib
import os
import pathlib
import re
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Float64, Int16, Int32, Int64

from voc2vec_jax import audio, datasets, errors
from voc2vec_jax.datasets import catalog, file_states, preparing, records, renewal
from voc2vec_jax.finetuning import own_data, targets
from voc2vec_jax.runs import logs

_TITLES = ("ASVP-ESD", "ASVP-ESD (babies)", "CNVVE", "Donate A Cry", "NonVerbal Vocalization", "VIVAE")
PAPER_TASKS = dict(zip(catalog.TASKS, _TITLES, strict=True))  # name of the data set: title in the paper's tables
ON_UNREADABLE = ("stop", "drop")
LEAST_SAMPLES = 400  # one frame of the base architecture
SHOWN = 10  # clips that a message names
FRONT = "--config."  # of the fields that say how recordings are read
_STRETCH = re.compile(r"(?P<file>.+)#(?P<start>[0-9.]+)-[0-9.]+", re.DOTALL)


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """The clips of a task in the order of the prepared set, and their audio. Made by `open_task`; can be pickled.

    `labels` are the names of a model's outputs, which for classes are those that occur and `label` indexes; for tags
    and numbers see `targets.Targets`. `group` is a speaker or the like, an index into
    `groups`, or -1 where the set knows none. `ids` are unique. `paths` are posix, relative to `audio_root` where that
    is known. `samples` are lengths at 16 kHz after the cut, and `start_seconds` is where a clip begins in its
    recording. `fingerprint` changes with the audio, the labels, the groups and the choice of clips. `dropped` tells
    what was left out, and why. `part` says of each clip whether it is for "train", "validation" or "test", where the
    user has divided them. `merged` counts the pairs of copies whose groups became one (`copies.merge`).
    """

    name: str
    title: str
    labels: tuple[str, ...]
    label: Int64[np.ndarray, "n"]
    group: Int64[np.ndarray, "n"]
    groups: tuple[str, ...]
    ids: np.ndarray
    paths: np.ndarray
    start_seconds: Float64[np.ndarray, "n"]
    samples: Int32[np.ndarray, "n"]
    audio_root: pathlib.Path | None
    fingerprint: str
    dropped: tuple[dict[str, str], ...]
    prepared: records.PreparedSet
    segments: tuple[tuple[int, ...], ...]  # records of each clip, in order
    kind: str = "classes"  # one of `answers.KINDS`
    values: Float32[np.ndarray, "n v"] | None = None  # of tags and numbers
    part: np.ndarray | None = None
    merged: Mapping[str, int] | None = None

    @property
    def targets(self) -> np.ndarray:
        """What a model is to say of each clip, as `scoring.scores` takes it."""
        return self.label if self.values is None else self.values

    @property
    def strata(self) -> np.ndarray:
        """What folds are to have about equal shares of: classes or bins of numbers [n], or tags [n, v]."""
        return self.values if self.kind == "multilabel" else self.label

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, rows: Sequence[int] | Int64[np.ndarray, "m"]) -> list[Int16[np.ndarray, "_"]]:
        """The audio of some clips at 16 kHz, in the order of `rows`. Thread-safe."""
        wanted = [self.segments[row] for row in np.asarray(rows, np.int64)]
        # One read for the records of all clips; the clips then take theirs from it in turn.
        parts = iter(self.prepared.read([record for segments in wanted for record in segments]))
        return [
            np.concatenate([next(parts) for _ in segments])[: self.samples[row]]
            for row, segments in zip(np.asarray(rows, np.int64), wanted)
        ]


def check_name(name: str, data_dir: str | os.PathLike) -> None:
    """InputError, with the nearest name, for a data set that is neither known nor prepared."""
    there = records.list_sets(data_dir)
    if name not in datasets.CATALOG and name not in there:
        known = sorted({*datasets.CATALOG, *there})
        near = difflib.get_close_matches(name, known, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        raise errors.InputError(f"there is no data set {name!r}: {hint}")


def open_task(
    name: str,
    *,
    data_dir: str | os.PathLike,
    data: str | os.PathLike | None = None,
    validation_data: str | os.PathLike | None = None,
    test_data: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
    on_unreadable: str = "stop",
    max_seconds: float | int = 7.0,
    least_samples: int = LEAST_SAMPLES,
    kind: str = "classes",
    how: audio.Reading = audio.DEFAULT,
) -> Task:
    """Open the task of a data set, which is prepared first if `data_dir` does not hold it.

    The name "folder" stands for the clips of `data`: a folder of class folders, a zip of one, or a manifest
    (`manifests.COLUMNS`); with `test_data` these are for training, and those for test and perhaps validation are there.
    Recordings that are not prepared yet are read by `how`.
    A clip is the first `max_seconds` of a recording. Clips that cannot be decoded, or have fewer
    than `least_samples`, are an InputError that names them; with `on_unreadable` "drop" they are left out and named
    in a warning. Another clip never takes their place. InputError also for an unknown name, a set without labels,
    clips without one, and those that are none of `kind` (see `targets.read`); `targets.ANY` takes them as they are.
    """
    if on_unreadable not in ON_UNREADABLE:
        raise errors.InputError(f"on_unreadable {on_unreadable!r} is none of {', '.join(ON_UNREADABLE)}")
    max_samples = round(max_seconds * audio.RATE_HZ)
    if max_samples < least_samples:
        raise errors.InputError(f"max_seconds {max_seconds} is shorter than one frame of {least_samples} samples")
    if (name == own_data.FOLDER) != (data is not None):
        raise errors.InputError(
            "the data set folder needs --config.data=PATH: class folders or a manifest"
            if data is None
            else f"data {data} belongs to the data set folder, and not to {name}: give --config=...:folder"
        )
    if data is None:
        prepared, root = _named(name, data_dir, manual_dir, how), manual_dir and pathlib.Path(manual_dir).expanduser()
        remedy = f"repair them and delete {prepared.folder}"
        title = _title(prepared)
        opened = own_data.OwnClips(prepared, title, root, prepared.report["unreadable"], {}, remedy)
        if prepared.report.get("divided"):
            logs.warn(
                f"the parts that the manifest of {name} gives are not kept in a prepared set: folds are dealt, unless "
                "--config=...:folder and --config.data=MANIFEST are given"
            )
    else:
        try:
            opened = own_data.open_own(data, validation_data, test_data, data_dir, how)
        except errors.InputError as fault:
            raise errors.InputError(audio.spelt(str(fault), FRONT)) from fault
    return _task(opened, on_unreadable, max_samples, least_samples, kind)


def _named(
    name: str, data_dir: str | os.PathLike, manual_dir: str | os.PathLike | None, how: audio.Reading
) -> records.PreparedSet:
    check_name(name, data_dir)
    if name not in records.list_sets(data_dir):
        return datasets.prepare(name, data_dir=data_dir, manual_dir=manual_dir, how=how)
    prepared = records.open_set(data_dir, name)
    reading = prepared.report.get("reading", audio.DEFAULT._asdict())
    for field, wanted in how._asdict().items():
        made = reading[field]
        if wanted != made and wanted != getattr(audio.DEFAULT, field):
            raise errors.InputError(
                f"{prepared.folder} was prepared with --{field}={made}, and --config.{field}={wanted} is asked for: "
                f"leave it out, or delete the folder and prepare the set again with --{field}={wanted}"
            )
    if manual_dir is not None and name in datasets.CATALOG:
        _warn_of_changes(prepared, pathlib.Path(manual_dir).expanduser(), audio.Reading(**reading))
    return prepared


def _warn_of_changes(prepared: records.PreparedSet, manual_dir: pathlib.Path, how: audio.Reading) -> None:
    """Say how a set differs from what `manual_dir` holds of it, if anything."""
    try:
        listing = preparing.list_source(datasets.CATALOG[prepared.name], manual_dir, how)
    except errors.InputError:
        return  # it was prepared from elsewhere
    states = file_states.of_listing(listing)
    found = renewal.difference(prepared, listing, states)
    if found.changed:
        logs.warn(
            f"{prepared.folder} {found.changed}: it is used as it was prepared; delete it to prepare {manual_dir} again"
        )


def _title(prepared: records.PreparedSet) -> str:
    entry = datasets.CATALOG.get(prepared.name)
    return entry.title if entry else prepared.name


def _task(opened: own_data.OwnClips, on_unreadable: str, max_samples: int, least_samples: int, kind: str) -> Task:
    prepared, title, root, unreadable, part_of, remedy = opened
    first, segments, lengths = _clips(prepared, max_samples)
    names, label = prepared.recordings[prepared.recording[first]], prepared.label[first]
    if kind != targets.ANY:
        _check_labelled(prepared, title, names[label < 0])
    unusable = [*unreadable, *_too_short(names, lengths, least_samples)]
    _answer_for(unusable, remedy, title, on_unreadable)
    odd = ((said["path"], said["kind"], said["text"]) for said in prepared.report.get("remarks", ()))
    for line in audio.summary(odd, FRONT):
        logs.warn(line)
    kept = np.flatnonzero(lengths >= least_samples)
    found = targets.read(kind, prepared.labels, label[kept], names[kept], title)
    if kind not in ("regression", targets.ANY):
        counts = np.bincount(found.label) if found.values is None else found.values.sum(0).astype(int)
        own_data.check_names(found.labels, counts.tolist(), title)
    group, ids = own_data.one_of_each(prepared.group[first[kept]], prepared.groups.tolist(), title), names[kept]
    paths = _files(ids, prepared.start_sample[first[kept]]) if prepared.report.get("stretches") else ids
    task = Task(
        name=prepared.name,
        title=title,
        labels=found.labels,
        label=found.label,
        group=group,
        groups=tuple(prepared.groups.tolist()),
        ids=ids,
        paths=paths,
        start_seconds=prepared.start_sample[first[kept]] / audio.RATE_HZ,
        samples=lengths[kept].astype(np.int32),
        audio_root=_audio_root(root, prepared.name, str(paths[0])),
        fingerprint="",
        dropped=tuple(unusable),
        prepared=prepared,
        segments=tuple(segments[row] for row in kept),
        part=np.array([part_of[name] for name in ids.tolist()]) if part_of else None,
        kind="classes" if kind == targets.ANY else kind,
        values=found.values,
    )
    return with_fingerprint(task)


def _clips(
    prepared: records.PreparedSet, max_samples: int
) -> tuple[Int64[np.ndarray, "n"], list[tuple[int, ...]], Int64[np.ndarray, "n"]]:
    """For every recording in the order of the set: its first record, its records within the cut, its samples."""
    # Preparing cut long recordings into segments; a clip joins those that begin before `max_samples` again.
    order = np.lexsort((prepared.start_sample, prepared.recording))
    # Where a recording is a stretch of a file, its first record begins where the stretch does.
    _, begins, counts = np.unique(prepared.recording[order], return_index=True, return_counts=True)
    within = prepared.start_sample[order] - np.repeat(prepared.start_sample[order[begins]], counts)
    order = order[within < max_samples]
    recording = prepared.recording[order]
    # recording 0 0 0 1 1 2  ->  starts 0 3 5, where the recording changes
    starts = np.flatnonzero(np.concatenate([[True], recording[1:] != recording[:-1]]))
    segments = [tuple(part.tolist()) for part in np.split(order, starts[1:])]
    lengths = np.add.reduceat(prepared.samples[order], starts, dtype=np.int64)
    return order[starts], segments, np.minimum(lengths, max_samples)


def _files(names: np.ndarray, start_sample: Int64[np.ndarray, "n"]) -> np.ndarray:
    """The file of each recording, some of which are stretches: `a.wav` of `a.wav#1.5-3`."""
    found = []
    for name, start in zip(names.tolist(), start_sample.tolist()):
        match = _STRETCH.fullmatch(name)
        is_stretch = match and round(float(match["start"]) * audio.RATE_HZ) == start
        found.append(match["file"] if is_stretch else name)
    return np.array(found)


def _check_labelled(prepared: records.PreparedSet, title: str, unlabelled: np.ndarray) -> None:
    if not len(prepared.labels):
        raise errors.InputError(
            f"{title} has no labels, so it is no task: put the clips into a folder per class, or list them in a "
            "manifest with a column label"
        )
    if len(unlabelled):
        raise errors.InputError(
            f"{len(unlabelled)} of {len(prepared.recordings)} clips of {title} have no label "
            f"({shown(unlabelled.tolist())}): give them one, or leave them out"
        )


def _too_short(names: np.ndarray, lengths: Int64[np.ndarray, "n"], least_samples: int) -> list[dict[str, str]]:
    reason = "has {} samples at 16 kHz, and " + f"{least_samples} are needed"
    short = np.flatnonzero(lengths < least_samples)
    return [{"path": str(names[row]), "reason": reason.format(lengths[row])} for row in short]


def _answer_for(unusable: Sequence[dict[str, str]], remedy: str, title: str, on_unreadable: str) -> None:
    """Stop at clips that cannot be used, or warn that they are left out."""
    if not unusable:
        return
    listed = shown([f"{entry['path']} {audio.spelt(entry['reason'], FRONT)}" for entry in unusable], "; ")
    many = f"{len(unusable)} clip{'s' if len(unusable) > 1 else ''} of {title}"
    if on_unreadable == "stop":
        raise errors.InputError(
            f"{many} cannot be used ({listed}): {remedy}, or go on without them with --config.on_unreadable=drop"
        )
    logs.warn(f"{many} left out: {listed}")


def shown(items: Sequence[str], separator: str = ", ") -> str:
    """The first few items, and how many more there are."""
    more = [f"and {len(items) - SHOWN} more"] if len(items) > SHOWN else []
    return separator.join([*items[:SHOWN], *more])


def _audio_root(root: pathlib.Path | None, name: str, path: str) -> pathlib.Path | None:
    """The folder that `path` is relative to; None where the recordings do not lie there as plain files."""
    if root is None:
        return None
    root = root.resolve()
    places = (
        [root, root / name, *sorted(root.glob("*/")), *sorted(root.glob("*/*/"))] if root.is_dir() else [root.parent]
    )
    return next((place for place in places if (place / path).is_file()), None)


def with_fingerprint(task: Task) -> Task:
    """The task with the fingerprint of what it holds."""
    return dataclasses.replace(task, fingerprint=_fingerprint(task))


def _fingerprint(task: Task) -> str:
    digest = hashlib.sha256(f"{task.prepared.fingerprint} {task.labels}".encode())
    for array in (task.label, task.group, task.samples):
        digest.update(np.ascontiguousarray(array).tobytes())
    if task.values is not None:
        digest.update(np.ascontiguousarray(task.values).tobytes())
    digest.update("\0".join(task.ids.tolist()).encode())
    if task.part is not None:
        digest.update("\0".join(task.part.tolist()).encode())
    return digest.hexdigest()


def audio_key(task: Task) -> str:
    """Changes with the audio of the clips and their order; not with the task's labels, groups or kind."""
    digest = hashlib.sha256(task.prepared.fingerprint.encode())
    digest.update(np.ascontiguousarray(task.samples).tobytes())
    digest.update(repr(task.segments).encode())
    return digest.hexdigest()
