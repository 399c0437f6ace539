"""AudioSet, human vocalizations: clips whose segment carries one of the chosen labels.

AudioSet publishes segment lists and no audio. A clip is an audio file anywhere beside the lists, named by its YouTube
id, with or without the start and end of the segment: `<id>.wav`, `Y<id>_<start>_<end>.wav`, in seconds or
milliseconds. The paper does not say which labels it chose; `LABELS` are the non-verbal ones of the ontology.
"""

import pathlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from voc2vec_jax import errors
from voc2vec_jax.datasets import layouts, listings, tables, trees

LABELS = {
    "/m/01j3sz": "Laughter",
    "/t/dd00001": "Baby laughter",
    "/m/07r660_": "Giggle",
    "/m/07s04w4": "Snicker",
    "/m/07sq110": "Belly laugh",
    "/m/07rgt08": "Chuckle, chortle",
    "/m/0463cq4": "Crying, sobbing",
    "/t/dd00002": "Baby cry, infant cry",
    "/m/07qz6j3": "Whimper",
    "/m/07qw_06": "Wail, moan",
    "/m/03qc9zr": "Screaming",
    "/m/07plz5l": "Sigh",
    "/m/02fxyj": "Humming",
    "/m/07s2xch": "Groan",
    "/m/07r4k75": "Grunt",
    "/m/01j423": "Yawn",
    "/m/0lyf6": "Breathing",
    "/m/07mzm6": "Wheeze",
    "/m/01d3sd": "Snoring",
    "/m/07s0dtb": "Gasp",
    "/m/07pyy8b": "Pant",
    "/m/07q0yl5": "Snort",
    "/m/01b_21": "Cough",
    "/m/0dl9sf8": "Throat clearing",
    "/m/01hsr_": "Sneeze",
    "/m/07ppn3j": "Sniff",
    "/m/03cczk": "Chewing, mastication",
    "/m/07pdhp0": "Biting",
    "/m/0939n_": "Gargling",
    "/m/03q5_w": "Burping, eructation",
    "/m/02p3nc": "Hiccup",
}
BORDERLINE = {
    "/m/07p6fty": "Shout",
    "/m/07q4ntr": "Bellow",
    "/m/07rwj3x": "Whoop",
    "/m/07sr1lc": "Yell",
    "/m/04gy_2": "Battle cry",
    "/t/dd00135": "Children shouting",
    "/m/02rtxlg": "Whispering",
    "/m/0261r1": "Babbling",
    "/m/01w250": "Whistling",
    "/m/01g90h": "Stomach rumble",
    "/m/02_nn": "Fart",
    "/m/053hz1": "Cheering",
    "/m/04v5dt": "Booing",
    "/m/015lz1": "Singing",
    "/m/01swy6": "Yodeling",
    "/m/02bk07": "Chant",
}

LAYOUT = layouts.ArchiveLayout(
    archives=("audioset*",),
    path=r"(?:balanced_train|unbalanced_train|eval)_segments\.csv",
    parts=("*",),
)
CLIP = re.compile(r"(?:.*/)?(?P<name>Y?[A-Za-z0-9_-]{11}(?:_[0-9.]+){0,2})\.[^./]+")


class Segment(NamedTuple):
    """A row of a segment list that carries a chosen label."""

    video: str
    start_seconds: float
    label: str


def list_recordings(
    source: listings.Source,
    manual_dir: pathlib.Path | None,
    *,
    labels: Sequence[str] = (),
    borderline: bool = False,
) -> listings.Listing:
    """The clips of chosen segments, grouped by video; a clip's label is the first chosen label that it carries.

    `labels` are AudioSet's ids or names, to be used instead of `LABELS`; `borderline` adds those in `BORDERLINE`.
    """
    chosen = choose(labels, borderline)
    found = layouts.find(source, LAYOUT, manual_dir)
    segments, rows = _segments(found, chosen)
    clips = found.select(layouts.ANY_AUDIO)
    taken = dict(_join(segments, [match["path"] for match, _ in clips.matches]))

    def describe(match: re.Match) -> tuple[str, str]:
        return taken[match["path"]].video, taken[match["path"]].label

    of_segments = [entry for entry in clips.matches if entry[0]["path"] in taken]
    notes = _notes(segments, rows, set(taken.values()), len(clips.matches) - len(of_segments))
    files = [entry for entry in found.files if not trees.is_audio(entry[0])]
    kept = layouts.Found(found.tree, found.root, files, of_segments)
    return layouts.describe(kept, LAYOUT, describe=describe, labels=list(chosen.values()), notes=notes)


def choose(labels: Sequence[str] = (), borderline: bool = False) -> dict[str, str]:
    """The chosen labels, names by id; `errors.InputError` for an unknown one."""
    known = {**LABELS, **BORDERLINE}
    chosen = {}
    for label in labels or LABELS:
        ids = [key for key, name in known.items() if label in (key, name)]
        if not ids:
            raise errors.InputError(
                f"{label!r} is not a label of a vocalization: known are {', '.join(known.values())}"
            )
        chosen[ids[0]] = known[ids[0]]
    return {**chosen, **(BORDERLINE if borderline else {})}


def _segments(found: layouts.Found, chosen: dict[str, str]) -> tuple[dict[str, list[Segment]], int]:
    """Chosen segments by video, and the number of rows in all lists."""
    segments: dict[str, list[Segment]] = defaultdict(list)
    rows = 0
    order, names = {label: number for number, label in enumerate(chosen)}, list(chosen.values())
    for match, _ in found.matches:
        for row in _rows(found, match[0]):
            rows += 1
            numbers = [order[label] for label in row[3].split(",") if label in order]
            if numbers:
                label = names[min(numbers)]
                segments[row[0]].append(Segment(row[0], float(row[1]), label))
    return dict(segments), rows


def _rows(found: layouts.Found, name: str) -> Iterator[list[str]]:
    lines = (line for line in tables.text(found.tree, name).splitlines() if line and not line.startswith("#"))
    for number, row in enumerate(tables.split(lines, name), 1):
        if len(row) != 4 or not re.fullmatch(r"[0-9.]+", row[1]):
            raise errors.InputError(
                f"row {number} of {name} of {found.tree.root} is {','.join(row)[:80]!r} and not an id, start, end and "
                f"labels: get it again"
            )
        yield row


def _join(segments: dict[str, list[Segment]], paths: Iterable[str]) -> Iterator[tuple[str, Segment]]:
    """Each path that holds a chosen segment, with that segment."""
    for path in paths:
        match = CLIP.fullmatch(path)
        name = match["name"] if match else ""
        for prefix in (0, 1) if name.startswith("Y") else (0,):
            video, rest = name[prefix : prefix + 11], name[prefix + 11 :]
            if video in segments and (not rest or rest.startswith("_")):
                segment = _at(segments[video], rest.split("_")[1] if rest else "")
                if segment:
                    yield path, segment
                    break


def _at(segments: list[Segment], start: str) -> Segment | None:
    """The segment that starts at `start`, in seconds or milliseconds; without a start, the only segment."""
    if not start:
        return segments[0] if len(segments) == 1 else None
    near = [s for s in segments if min(abs(float(start) - s.start_seconds * unit) / unit for unit in (1, 1000)) < 1]
    return near[0] if near else None


def _notes(segments: dict[str, list[Segment]], rows: int, taken: set[Segment], others: int) -> list[str]:
    chosen = [segment for same in segments.values() for segment in same]
    missing = [segment.video for segment in chosen if segment not in taken]
    notes = [f"{len(chosen)} of the {rows} segments of the lists carry a chosen label"]
    if missing:
        notes.append(f"{len(missing)} of these segments have no clip: {listings.some(missing)}")
    if others:
        notes.append(f"{others} audio files hold no chosen segment and were left out")
    return notes


SOURCE = listings.Source(
    name="audioset_vocalization",
    title="AudioSet, human vocalizations",
    url="https://research.google.com/audioset/download.html",
    licence="labels CC BY 4.0, the clips belong to their YouTube authors",
    holds="the segment csv files and a folder of the 10 s clips",
    paper_hours=36.94,
    paper_samples=13439,
    paper_mean_seconds=9.9,
    list_recordings=list_recordings,
    difference="which labels and clips the paper chose is not published",
)
