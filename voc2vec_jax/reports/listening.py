"""The clips that a page plays: which ones, and what is heard of them, cut from the reader's own recordings."""

import base64
import functools
import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from voc2vec_jax import audio
from voc2vec_jax.ops import metrics
from voc2vec_jax.reports import details, sounds
from voc2vec_jax.reports import runs as report_runs

WRONG_CLIPS = 10  # of each run
EXAMPLE_RUNS = 3  # of a data set, the best, have examples of every class
EXAMPLE_CLASSES = 40  # of a run, those with most clips
MOST_SECONDS = 60  # of a clip


class Playback(NamedTuple):
    """What the page plays for a clip: the URL `source`, and `label` for screen readers; else `sentence` says why not.

    The path `missing` is that of a recording that was not found, below any of the folders that were searched.
    """

    source: str = ""
    label: str = ""
    sentence: str = ""
    missing: str = ""


class Example(NamedTuple):
    """The surest right and the surest wrong prediction of one class of `clips`, where there are any."""

    label: str
    clips: int
    recall: float
    right: details.ReportedPrediction | None
    wrong: details.ReportedPrediction | None


def wrong_clips(
    rows: Sequence[details.ReportedPrediction], count: int = WRONG_CLIPS
) -> list[details.ReportedPrediction]:
    """The wrong predictions with the highest probabilities, highest first."""
    return sorted((row for row in rows if row.predicted != row.label), key=_surest)[:count]


def _surest(row: details.ReportedPrediction) -> tuple:
    return -row.probability, row.fold, row.id


def examples(run: report_runs.ReportedRun, rows: Sequence[details.ReportedPrediction]) -> list[Example]:
    """An example of each class that was tested, in the order of the classes; of many classes the largest ones."""
    clips = run.confusion.sum(1) // max(1, len(run.seeds))
    recalls = metrics.recalls(run.confusion)
    shown = {run.labels[at] for at in np.argsort(-clips, kind="stable")[:EXAMPLE_CLASSES] if clips[at]}
    found = []
    for label, count, recall in zip(run.labels, clips.tolist(), recalls.tolist()):
        own = sorted((row for row in rows if row.label == label), key=_surest) if label in shown else []
        right = next((row for row in own if row.predicted == label), None)
        wrong = next((row for row in own if row.predicted != label), None)
        found += [Example(label, count, recall, right, wrong)] if own else []
    return found


def with_examples(runs: Sequence[report_runs.ReportedRun]) -> list[report_runs.ReportedRun]:
    """The best runs of a data set, complete ones first; their order stays."""
    of_classes = [run for run in runs if run.kind == "classes" and run.folds]
    best = sorted(of_classes, key=lambda run: (not run.complete, -run.summary.mean["uar"]))[:EXAMPLE_RUNS]
    return [run for run in of_classes if run in best]


class Clips:
    """Cuts what a page plays; `files` holds the clips by name where they are not `embedded` in the page."""

    def __init__(self, folder: str, audio_folder: str | os.PathLike | None = None, *, embedded: bool = False):
        """`folder` is where the page finds the files; `audio_folder` is searched before the runs' own."""
        self.folder, self.embedded = folder, embedded
        self.files: dict[str, bytes] = {}
        self._audio = None if audio_folder is None else pathlib.Path(audio_folder)
        self._sources: dict[tuple, str] = {}

    def player(self, run: report_runs.ReportedRun, row: details.ReportedPrediction) -> Playback:
        """What the page plays for one clip of a run. A path that leads out of its folder is not followed."""
        relative = pathlib.PurePosixPath(row.path)
        if not row.path:
            return Playback(sentence="This clip has no file of its own.")
        if relative.is_absolute() or ".." in relative.parts or "\0" in row.path:
            return Playback(sentence="The path of this clip leads out of its folder, so it is not opened.")
        roots = self._roots(run)
        if not roots:
            return Playback(sentence="The run does not know where its recordings are; give --audio=FOLDER.")
        file = next((root / relative for root in roots if (root / relative).is_file()), None)
        if file is None:
            return Playback(missing=row.path)
        try:
            source = self._source(file, run, row)
        except audio.AudioError as error:
            return Playback(sentence=f"This clip cannot be played: {error}.")
        return Playback(source, f"{row.id}, true {row.label}, predicted {row.predicted}")

    def _roots(self, run: report_runs.ReportedRun) -> list[pathlib.Path]:
        """The folders to search: <audio>/<data set>, <audio>, those up to two levels below, and the run's own."""
        own = [pathlib.Path(run.audio_root)] if run.audio_root else []
        if self._audio is None:
            return own
        return [self._audio / run.dataset, self._audio, *_below(self._audio), *own]

    def _source(self, file: pathlib.Path, run: report_runs.ReportedRun, row: details.ReportedPrediction) -> str:
        """The URL of a clip, which is cut once however often it is shown."""
        how, start = details.reading(run), max(0.0, row.start_seconds)
        key = (file, how, start, row.seconds)
        if key not in self._sources:
            content = cut(file, start, min(row.seconds, MOST_SECONDS), row.path, how)
            self._sources[key] = self._placed(content, row)
        return self._sources[key]

    def _placed(self, content: bytes, row: details.ReportedPrediction) -> str:
        if self.embedded:
            return f"data:audio/mpeg;base64,{base64.b64encode(content).decode()}"
        stem = re.sub(r"[^A-Za-z0-9]+", "-", row.id).strip("-")[-40:].lower() or "clip"
        name = f"{len(self.files) + 1:03d}_{stem}.mp3"
        self.files[name] = content
        return f"{self.folder}/{name}"


def cut(file: pathlib.Path, start: float, seconds: float, name: str, how: audio.Reading = audio.DEFAULT) -> bytes:
    """A clip as the model heard it, mono at 16 kHz, as MP3; `audio.AudioError` for a recording that cannot be read."""
    samples = audio.load_stretch(file, start, start + seconds, name, how, remark=lambda kind, text: None)
    return sounds.mp3(audio.to_int16(samples)[0])


@functools.lru_cache
def _below(folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """The folders up to two levels below, where an unpacked archive keeps its files."""
    return tuple(sorted({*folder.glob("*/"), *folder.glob("*/*/")}))
