"""The sentences of the page, for a reader who knows the recordings and not the method."""

import pathlib
import re
from collections.abc import Sequence

import numpy as np

from voc2vec_jax import audio, errors
from voc2vec_jax.convert import paper_systems
from voc2vec_jax.datasets import fingerprints
from voc2vec_jax.explore import mapping
from voc2vec_jax.explore import probe as explore_probe
from voc2vec_jax.explore import settings as explore_settings
from voc2vec_jax.finetuning import jobs, tasks

COPIES = {
    "identical": "the same, sample for sample",
    "near": "nearly the same: another copy, changed in volume, format or length",
    "overlap": "a stretch of both is the same",
}
# An absolute path, whose last part is kept
_PATH = re.compile(r"(?<![\w./~])(?:~|[A-Za-z]:)?(?:[/\\][^\s/\\,;:()'\"]+)*[/\\]([^\s/\\,;:()'\"]+)")


def without_paths(text: str) -> str:
    """A sentence in which absolute paths are cut to their last part: where files lie concerns nobody else."""
    return _PATH.sub(r"\1", text)


def model(name: str) -> str:
    """What a reader calls a model."""
    system, _ = paper_systems.resolve(name)
    return system.title if system else jobs.slug(str(pathlib.PurePath(name)))


def duration(seconds: float) -> str:
    """Such as 12 s, 7 min or 3.2 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def facts(task: tasks.Task, source: str, width: int) -> list[tuple[str, str]]:
    """What the recordings are, for the card at the top."""
    seconds = task.samples / audio.RATE_HZ
    groups = len(np.unique(task.group[task.group >= 0]))
    low, middle, high = (f"{value:.1f}" for value in np.quantile(seconds, (0, 0.5, 1)))
    labelled = len([label for label in task.labels if label])
    return [
        ("recordings", f"{len(task):,}"),
        ("in all", duration(float(seconds.sum()))),
        ("length", f"{middle} s (median), {low} to {high} s"),
        ("classes", str(labelled) if len(task.labels) > 1 else "none: one folder"),
        ("speakers or groups", str(groups) if groups else "not known"),
        ("model", model(source)),
        ("a vector", f"{width:,} numbers"),
    ]


def scores(probe: explore_probe.Probe) -> str:
    """All scores in one line, with intervals."""
    return ", ".join(f"{each.title} {each.value:.3f} [{each.low:.3f}, {each.high:.3f}]" for each in probe.scores)


def answer(probe: explore_probe.Probe) -> list[str]:
    """What the probe found, in sentences."""
    score, classes = probe.scores[0], len(probe.labels)
    said = [
        f"From its vector alone, a simple classifier names the right one of {classes} classes for "
        f"{100 * score.value:.0f} of 100 recordings, counting each class equally. Guessing reaches "
        f"{100 * score.chance:.0f} of 100."
    ]
    interval = f"With 95 % confidence it is from {100 * score.low:.0f} to {100 * score.high:.0f} of 100"
    if score.low > score.chance:
        said.append(f"{interval}, so that the vectors do tell these classes apart.")
    else:
        said.append(
            f"{interval}: not clearly above guessing, so that these recordings do not show that the vectors tell the "
            "classes apart."
        )
    if probe.fewer:
        said.append(
            f"There are {errors.counted(probe.folds, 'fold')} and not {probe.asked_folds}, since {probe.fewer}."
        )
    return said


def copies(task: tasks.Task, pairs: Sequence[fingerprints.Pair], shown_pairs: int) -> list[str]:
    """How many recordings are copies of others."""
    if not pairs:
        return []
    rows = {row for pair in pairs for row in (pair.first, pair.second)}
    across = [pair for pair in pairs if task.label[pair.first] != task.label[pair.second]]
    said = [
        f"{len(rows):,} of {len(task):,} recordings share their sound with another ({len(pairs):,} pairs). The probe "
        "keeps copies together, in training or in test, so that they do not raise its score."
    ]
    if across:
        said.append(
            f"{len(across):,} of the pairs are in two different classes: at least one of each two is in the wrong one."
        )
    if shown_pairs < len(pairs):
        said.append(f"Here are {shown_pairs} pairs, each recording once; copies.csv, beside this page, lists all.")
    return said


def shown(clips: int, drawn: int, heard: int) -> str:
    """How many of the recordings the page holds."""
    said = "" if drawn == clips else f"Shown are {drawn:,} of {clips:,} recordings, drawn at random. "
    if heard == drawn:
        return f"{said}All of them can be heard here."
    return f"{said}{heard:,} of them can be heard here; the others are left out to keep this file small enough to mail."


def method(settings: explore_settings.ExploreSettings, probe: explore_probe.Probe | None) -> list[str]:
    """How all of it was computed."""
    said = [
        f"Of each recording the first {settings.max_seconds:g} s were used, as 16 kHz mono. Its vector is the mean "
        f"over time of the last layer of {model(settings.model)}; the map is {mapping.TITLES[settings.map]} of the "
        f"vectors (seed {settings.seed})."
    ]
    if probe:
        said.append(
            f"The classifier is logistic regression, cross-validated in {errors.counted(probe.folds, 'fold')}: every "
            "recording is named by a classifier that has heard neither it, nor a copy of it, nor another one of its "
            "speaker or group where these are known. UAR is the mean recall over classes. Intervals of 95 % are by "
            "bootstrap over "
            f"{probe.groups:,} groups of recordings that belong together. Chance is a class drawn at random."
        )
    return said
