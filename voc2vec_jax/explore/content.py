"""What the page of an exploration says, as plain values for its template. No path of the machine is among them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from voc2vec_jax import audio
from voc2vec_jax.datasets import fingerprints
from voc2vec_jax.explore import mapping, wording
from voc2vec_jax.explore import probe as explore_probe
from voc2vec_jax.explore import settings as explore_settings
from voc2vec_jax.finetuning import leak_badges, tasks
from voc2vec_jax.reports import sounds

MISTAKES, COPIES = 12, 12  # most confident mistakes, pairs of copies
EXAMPLES = 2  # right and wrong ones of each class


class Exploration(NamedTuple):
    """All that was found. `no_probe` and `no_map` say why one is missing; `places` are rows on the map, from 0 to 1."""

    task: tasks.Task
    settings: explore_settings.ExploreSettings
    width: int
    probe: explore_probe.Probe | None
    no_probe: str
    pairs: Sequence[fingerprints.Pair]
    places: Mapping[int, tuple[float, float]]
    no_map: str


class Clip(NamedTuple):
    """One clip as it is shown; `place` is that of its class in the palette, `sound` an MP3 (None: not on the page)."""

    row: int
    name: str
    label: str
    place: int
    seconds: float
    predicted: str  # "" without a probe
    probability: float
    sound: bytes | None
    spot: tuple[float, float] | None  # on the map, from 0 to 1

    @property
    def right(self) -> bool | None:
        """Whether the probe is right; None where it says nothing."""
        return self.predicted == self.label if self.predicted else None


class ClassRow(NamedTuple):
    """A class: its clips, its recall (None: unknown), and examples."""

    label: str
    place: int
    clips: int
    recall: float | None
    right: Sequence[Clip]
    wrong: Sequence[Clip]


class CopyPair(NamedTuple):
    """Two clips that hold the same sound, and how, in words."""

    first: Clip
    second: Clip
    how: str


class Page(NamedTuple):
    """The content of the page, section by section; an empty section is not shown."""

    title: str
    facts: Sequence[tuple[str, str]]
    answer: Sequence[str]
    badges: Sequence[leak_badges.Badge]
    scores: Sequence[explore_probe.Score]
    no_probe: str
    map_title: str
    no_map: str
    clips: Sequence[Clip]  # every clip of the page, by class and name
    classes: Sequence[ClassRow]
    labels: Sequence[str]  # of the confusion matrix
    matrix: Sequence[Sequence[int]]
    mistakes: Sequence[Clip]
    copies: Sequence[CopyPair]
    copies_said: Sequence[str]
    left_out: Sequence[tuple[str, str]]
    shown_said: str
    method: Sequence[str]


def of(whole: Exploration) -> Page:
    """The content of the page."""
    rows = sorted(whole.places) or mapping.drawn(len(whole.task), whole.settings.seed).tolist()
    silent = {row: _clip(whole, row) for row in rows}
    pairs = _worst_pairs(whole, silent)
    mistakes = _mistakes(silent.values())
    examples = {label: _examples(silent.values(), label) for label in whole.task.labels}
    featured = [clip.row for clip in mistakes]
    featured += [row for pair in pairs for row in (pair.first, pair.second)]
    featured += [clip.row for each in examples.values() for clip in (*each[0], *each[1])]
    heard = sounds.packed(_wanted(featured, silent), lambda row: whole.task.read([row])[0], _room(whole))
    clips = {row: clip._replace(sound=heard.get(row)) for row, clip in silent.items()}
    probe, recalls = whole.probe, explore_probe.recalls(whole.probe) if whole.probe else {}
    classes = [
        ClassRow(
            label,
            place,
            int((whole.task.label == place).sum()),
            recalls.get(label),
            *([clips[clip.row] for clip in each] for each in examples[label]),
        )
        for place, label in enumerate(whole.task.labels)
    ]
    return Page(
        title=whole.task.title,
        facts=wording.facts(whole.task, whole.settings.model, whole.width),
        answer=wording.answer(probe) if probe else (),
        badges=leak_badges.badges(probe.leaks) if probe else (),
        scores=probe.scores if probe else (),
        no_probe=wording.without_paths(whole.no_probe),
        map_title=mapping.TITLES[whole.settings.map],
        no_map=whole.no_map,
        clips=sorted(clips.values(), key=lambda clip: (clip.place, clip.name)),
        classes=classes,
        labels=probe.labels if probe else (),
        matrix=probe.matrix.tolist() if probe else (),
        mistakes=[clips[clip.row] for clip in mistakes],
        copies=[CopyPair(clips[pair.first], clips[pair.second], wording.COPIES[pair.kind]) for pair in pairs],
        copies_said=wording.copies(whole.task, whole.pairs, len(pairs)),
        left_out=[(entry["path"], wording.without_paths(entry["reason"])) for entry in whole.task.dropped],
        shown_said=wording.shown(len(whole.task), len(clips), len(heard)),
        method=wording.method(whole.settings, probe),
    )


def _clip(whole: Exploration, row: int) -> Clip:
    task = whole.task
    name = str(task.ids[row])
    said = whole.probe.predictions.get(name) if whole.probe else None
    return Clip(
        row=row,
        name=name,
        label=task.labels[task.label[row]],
        place=int(task.label[row]),
        seconds=float(task.samples[row]) / audio.RATE_HZ,
        predicted=said.label if said else "",
        probability=said.probability if said else 0.0,
        sound=None,
        spot=whole.places.get(row),
    )


def _mistakes(clips: Iterable[Clip]) -> list[Clip]:
    """The most confident ones, most confident first."""
    wrong = [clip for clip in clips if clip.right is False]
    return sorted(wrong, key=lambda clip: (-clip.probability, clip.name))[:MISTAKES]


def _examples(clips: Iterable[Clip], label: str) -> tuple[list[Clip], list[Clip]]:
    """Of a class, the clips that the probe is most confident of, right and wrong; without a probe, the first ones."""
    own = sorted((clip for clip in clips if clip.label == label), key=lambda clip: (-clip.probability, clip.name))
    right, wrong = ([clip for clip in own if (clip.right is False) == missed] for missed in (False, True))
    return right[:EXAMPLES], wrong[:EXAMPLES]


def _worst_pairs(whole: Exploration, shown: Mapping[int, Clip]) -> list[fingerprints.Pair]:
    """Copies whose clips the page shows: those of two classes first, then the most similar, each clip once."""
    label = whole.task.label
    found, seen = [], set()
    order = sorted(whole.pairs, key=lambda pair: (label[pair.first] == label[pair.second], pair.kind, -pair.similarity))
    for pair in order:
        if {pair.first, pair.second} <= shown.keys() and not {pair.first, pair.second} & seen:
            found.append(pair)
            seen |= {pair.first, pair.second}
    return found[:COPIES]


def _wanted(featured: Sequence[int], clips: Mapping[int, Clip]) -> list[tuple[int, int]]:
    """(row, how often it is on the page) in the order in which clips get a player: featured ones, then all classes
    in turn.
    """
    times = {row: 1 + featured.count(row) for row in featured}
    by_class: dict[int, list[int]] = {}
    for clip in clips.values():
        by_class.setdefault(clip.place, []).append(clip.row)
    turns = [(turn, place, row) for place, rows in by_class.items() for turn, row in enumerate(rows)]
    return [*times.items(), *((row, 1) for _, _, row in sorted(turns) if row not in times)]


def _room(whole: Exploration) -> float:
    """Bytes of the page for sounds: all but what its text takes, about."""
    text = 40_000 + 700 * len(whole.task)
    return max(0.0, whole.settings.page_mb * 1e6 - text)


def shares(matrix: Sequence[Sequence[int]]) -> list[list[float]]:
    """The share of each true class (row) that went to each predicted one."""
    return [[count / max(1, sum(row)) for count in row] for row in matrix]
