"""What a finished evaluation of timelines leaves to be looked at and worked with, in its output folder.

    events.csv events.rttm     the events of all recordings
    pages/night.html           the page of a recording; index.html where there are several
    pages/night.png            the same as a picture
    labels/night.txt           its events for Audacity; night.TextGrid for Praat, night.selections.txt for Raven

Pages, pictures and label files are those of the first recordings; the number is given.
"""

import collections
import contextlib
import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from voc2vec_jax import audio, errors, opening
from voc2vec_jax.datasets.annotations import audacity, raven, rttm, text, textgrid
from voc2vec_jax.inference.evaluation import inputs as evaluation_inputs
from voc2vec_jax.inference.evaluation import output as evaluation_output
from voc2vec_jax.inference.evaluation import recordings, rows, window_rows
from voc2vec_jax.inference.timelines import events as timeline_events
from voc2vec_jax.inference.timelines import listening, page, picture
from voc2vec_jax.runs import csv_files, files, logs

EVENT_COLUMNS = ("row", "id", "path", "start", "end", "label", "probability", "mean_probability")
CLIPS, CLIP_SECONDS = 24, 8.0  # sounds of events in a page that does not hold the whole
MOST_NAME = 100
HIGHEST_HZ = audio.RATE_HZ / 2
_PART_OF_RUN = re.compile(r"model|final|best|fold_\d+")
TITLES = {audacity.ENDING: "Audacity labels", textgrid.ENDING: "Praat TextGrid", raven.ENDING: "Raven table"}


class Wanted(NamedTuple):
    """How many recordings get a page, and up to how many minutes a page holds the whole sound."""

    pages: int = 50
    sound_minutes: float = 10.0


@dataclasses.dataclass
class _Recording:
    """A recording with its windows."""

    item: evaluation_inputs.Item
    seconds: float
    at: np.ndarray
    chances: np.ndarray
    events: list[timeline_events.Event]

    @property
    def name(self) -> str:
        """Its name for people and for label files, without folders that say where the recordings lie."""
        return os.path.basename(self.item.id) if os.path.isabs(self.item.path) else self.item.id

    def segments(self) -> list[text.Segment]:
        """The events as labels."""
        stem = os.path.splitext(self.name)[0]
        return [text.Segment(each.start, each.end, each.label, 0, stem, each.peak) for each in self.events]


def check(rules: timeline_events.Rules, wanted: Wanted, classes: Sequence[str]) -> None:
    """InputError for what cannot be meant."""
    timeline_events.check(rules, classes)
    if wanted.pages < 0 or not 0 <= wanted.sound_minutes < math.inf:
        raise errors.InputError(
            f"--pages={wanted.pages} and --sound_minutes={wanted.sound_minutes:g}: give numbers of 0 or more"
        )


def opened(root: pathlib.Path) -> evaluation_output.OutputFolder:
    """The output folder of a complete evaluation of timelines; InputError for anything else."""
    path = root / evaluation_output.MANIFEST
    try:
        description = opening.read_json(path)
    except (OSError, ValueError) as fault:
        raise errors.InputError(f"{root} is no output folder of evaluate ({path} cannot be read): give one") from fault
    if description.get("kind") != "timeline":
        raise errors.InputError(f"{root} holds {description.get('kind')} and no timelines: evaluate with --timeline")
    output = evaluation_output.OutputFolder(root, description)
    if missing := output.missing():
        raise errors.InputError(f"{len(missing):,} of the {output.parts:,} parts of {root} are missing: evaluate first")
    return output


def reading_of(output: evaluation_output.OutputFolder) -> audio.Reading:
    """How the recordings of an evaluation were read."""
    return audio.Reading(**{name: output.description.get(name, was) for name, was in audio.DEFAULT._asdict().items()})


def draw(
    output: evaluation_output.OutputFolder,
    items: evaluation_inputs.Items,
    rules: timeline_events.Rules,
    wanted: Wanted,
    how: audio.Reading = audio.DEFAULT,
) -> str:
    """Writes all of it for a complete evaluation, and says in a sentence what there is. What is older is replaced.

    InputError where `items` are not those that were evaluated.
    """
    if items.fingerprint != output.description["items"]:
        raise errors.InputError(
            f"{output.root} holds timelines of other recordings than {items.name}: give --input as it was evaluated"
        )
    check(rules, wanted, output.description["classes"])
    artist = _Artist(output, items, rules, wanted, how)
    absent, count, number = 0, 0, 0
    with contextlib.ExitStack() as stack:
        table = stack.enter_context(_EventFiles.opened(output.root)) if artist.has_events else None
        for part in range(output.parts):
            there = _rows_of(output, part)
            for windows in window_rows.read(output.windows(part)) if output.windows(part).exists() else ():
                if windows.row not in there:
                    continue
                recording = artist.recording(windows, there.pop(windows.row))
                count, number = count + 1, number + len(recording.events)
                if table:
                    table.add(recording)
                if windows.row < wanted.pages:
                    artist.draw(recording)
            absent += len(there)
    artist.finish(count)
    if absent:
        logs.warn(
            f"{absent:,} recordings were evaluated by an earlier version, which kept no windows: "
            "give another --output to draw them"
        )
    events = f"{errors.counted(number, 'event')} in {errors.counted(count, 'recording')}"
    said = f"{events} (events.csv, events.rttm)" if artist.has_events else "timelines"
    pages = len(artist.drawn)
    where = output.root / "pages" / (artist.drawn[0][0].href if pages == 1 else "index.html") if pages else None
    return f"{said}; {pages:,} page{'s' * (pages != 1)}{f', see {where}' if where else ''}"


def _rows_of(output: evaluation_output.OutputFolder, part: int) -> dict[int, float]:
    """The seconds of the recordings of a part, by row."""
    table = pq.read_table(opening.checked(output.part(part)), columns=["row", "seconds"])
    return dict(zip(table["row"].to_pylist(), table["seconds"].to_pylist()))


class _EventFiles:
    """events.csv and events.rttm, written recording by recording."""

    def __init__(self, table: IO[str], lines: IO[str]):
        self._lines, self._writer = lines, csv_files.Writer(table)
        self._writer.writerow(EVENT_COLUMNS)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, root: pathlib.Path) -> Iterator["_EventFiles"]:
        """Both files, which replace older ones at the end."""
        with contextlib.ExitStack() as stack:
            paths = [stack.enter_context(evaluation_output.whole(root / f"events.{end}")) for end in ("csv", "rttm")]
            own = [stack.enter_context(path.open("w", newline="", encoding="utf-8")) for path in paths]
            yield cls(*own)

    def add(self, recording: _Recording) -> None:
        """The events of a recording."""
        item = recording.item
        for each in recording.events:
            times = (text.time_text(each.start), text.time_text(each.end))
            chances = (f"{each.peak:.4f}", f"{each.mean:.4f}")
            self._writer.writerow((item.row, item.id, rows.shown(item.path), *times, each.label, *chances))
        self._lines.write(rttm.write(recording.segments()))


class _Artist:
    """Makes recordings from windows, and draws them."""

    def __init__(
        self,
        output: evaluation_output.OutputFolder,
        items: evaluation_inputs.Items,
        rules: timeline_events.Rules,
        wanted: Wanted,
        how: audio.Reading,
    ):
        description = output.description
        self._root, self._items, self._rules, self._wanted, self._how = output.root, items, rules, wanted, how
        self._classes = description["classes"] or ["value"]
        self._model = model_name(description["model"])
        self.has_events = description.get("target", "classes") != "regression"
        self.drawn: list[tuple[page.Link, float, int]] = []
        self._names: set[str] = set()

    def recording(self, windows: window_rows.Windows, seconds: float) -> _Recording:
        """A recording with its events."""
        at = timeline_events.edges(windows.start, windows.end, seconds)
        found = timeline_events.find(at, windows.chances, self._classes, self._rules) if self.has_events else []
        (item,) = self._items.rows(windows.row, windows.row + 1)
        return _Recording(item, seconds, at, windows.chances, found)

    def draw(self, recording: _Recording) -> None:
        """The page, the picture and the label files of a recording. One that cannot be read again is warned about."""
        samples = round(recording.seconds * audio.RATE_HZ)
        keep = recording.seconds <= 60 * self._wanted.sound_minutes
        clips = [] if keep else _likeliest(recording.events)
        spans = [(max(0.0, event.start), min(event.end, event.start + CLIP_SECONDS)) for event in clips]
        blocks = self._items.stream(recording.item, self._how, audio.Told())
        try:
            heard = listening.listen(blocks, samples, keep, spans)
        except errors.InputError as fault:
            logs.warn(f"{recording.item.id} gets no page: {recordings.reason(fault)}")
            return
        name = free_name(recording.name, self._names)
        rules = self._rules if self.has_events else None
        threshold = self._rules.threshold if rules else None
        parts = (recording.at, recording.chances, self._classes, recording.events)
        still = picture.draw(recording.name, heard.image, *parts, threshold)
        labels = self._labels(recording, name) if rules else []
        subject = page.Subject(recording.name, recording.seconds, self._sources(recording.item), self._model)
        carried = labels if len(recording.events) <= page.MOST_EVENTS else []
        document = page.page(subject, *parts, rules, heard, clips, still, carried)
        self._write(f"pages/{name}.png", still)
        for each in labels:
            self._write(f"labels/{each.name}", each.text.encode())
        self._write(f"pages/{name}.html", document.encode())
        self.drawn.append((page.Link(f"{name}.html", recording.name), recording.seconds, len(recording.events)))

    def finish(self, count: int) -> None:
        """The page that lists the others, of which there are several; `count` is that of all recordings."""
        if len(self.drawn) > 1:
            listed = page.index("Timelines", self.drawn, count - len(self.drawn))
            self._write("pages/index.html", listed.encode())

    def _labels(self, recording: _Recording, name: str) -> list[page.Download]:
        segments = recording.segments()
        classes = [label for label in self._classes if label not in self._rules.background]
        texts = {
            audacity.ENDING: audacity.write(segments),
            textgrid.ENDING: textgrid.write(segments, recording.seconds, classes),
            raven.ENDING: raven.write(segments, HIGHEST_HZ),
        }
        return [page.Download(f"{name}{ending}", TITLES[ending], said) for ending, said in texts.items()]

    def _sources(self, item: evaluation_inputs.Item) -> tuple[str, ...]:
        """Where a page may find the recording: beside it, or below the folder that holds the output folder."""
        starts = self._items.starts
        if self._items.file is None or (starts is not None and not np.isnan(starts[item.row])):
            return ()
        file, pages = pathlib.Path(self._items.file(item)).resolve(), (self._root / "pages").resolve()
        near = [os.path.relpath(file, pages)] if file.is_relative_to(pages.parent.parent) else []
        return tuple(dict.fromkeys([os.path.basename(item.path), *(each.replace(os.sep, "/") for each in near)]))

    def _write(self, name: str, content: bytes) -> None:
        path = self._root / name
        try:
            path.parent.mkdir(exist_ok=True)
            files.write_atomic(path, content)
        except OSError as fault:
            raise errors.RunError(f"{path} cannot be written: {fault.strerror or fault}") from fault


def free_name(name: str, taken: set[str]) -> str:
    """A name for files, after that of a recording, that is not `taken`; it is then."""
    stem = re.sub(r"[^\w.-]+", "_", os.path.splitext(name)[0]).strip("._")[:MOST_NAME] or "recording"
    free, number = stem, 1
    while free in taken or free == "index":
        number += 1
        free = f"{stem}_{number}"
    taken.add(free)
    return free


def _likeliest(found: Sequence[timeline_events.Event]) -> list[timeline_events.Event]:
    """The likeliest CLIPS events in their order, of all classes in turn."""
    seen: collections.Counter[str] = collections.Counter()
    ranked = []
    for event in sorted(found, key=lambda event: -event.peak):
        ranked.append((seen[event.label], len(ranked), event))
        seen[event.label] += 1
    return sorted(event for _, _, event in sorted(ranked)[:CLIPS])


def model_name(source: str) -> str:
    """A model's name for people: a Hub id, or the end of a path from the run folder on."""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not os.path.exists(source):
        return source
    parts = pathlib.PurePath(source).parts
    first = next((k for k in reversed(range(len(parts))) if not _PART_OF_RUN.fullmatch(parts[k])), 0)
    return "/".join(parts[first:])
