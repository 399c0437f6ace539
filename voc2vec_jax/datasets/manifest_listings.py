"""The recordings of a list: whole files or stretches of them, each once, whatever the names the list gives them."""

import dataclasses
import math
import operator
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float32

from voc2vec_jax import audio, errors
from voc2vec_jax.datasets import file_names, listings, lists, manifests, trees

BYTES_PER_FRAME = 2
END_SLACK_SECONDS = 0.01  # by which a rounded end may lie behind the recording's
ONE_ROW = "leave one row of each clip (several labels of a clip stand in its row, as in cry|cough)"


def list_manifest(manifest: pathlib.Path) -> listings.Listing:
    """The recordings of a list in a file, sorted.

    InputError for a list without recordings, for a file that is listed twice and not alike, under whichever names, and
    whatever `lists` refuses.
    """
    with lists.opened(manifest) as table:
        names = Names(table.root)
        recordings, stretches, lengths = [], [], {}
        for row in table.rows():
            path = names.name(row.path)
            if "start" in table.columns:
                recordings.append(_stretch(table, row, path, lengths))
                stretches.append((path, row.start_seconds or 0.0, row.end_seconds or math.inf, row.label))
            elif row.frames is None:
                recordings.append(listings.Recording(path, row.path, row.group, row.label, part=row.part))
            else:
                size = row.frames * BYTES_PER_FRAME
                recordings.append(listings.Recording(path, row.path, source_bytes=size))
    if not recordings:
        first = "".join(f" that can be used: {each['path']} {each['reason']}" for each in table.unreadable[:1])
        raise errors.InputError(f"{manifest} lists no recordings{first}")
    names.unite(recordings, [path for path, *_ in stretches] or [each.path for each in recordings])
    recordings, repeats = each_once(f"{manifest} lists", recordings, ONE_ROW + manifests.hint(table.header))
    notes = [*table.notes]
    if repeats:
        many = "s repeat" if repeats > 1 else " repeats"
        notes.append(f"{manifest}: {repeats} row{many} an earlier one, and count once")
    if table.kind == lists.KIND:
        notes += _unlabelled(manifest, stretches, lengths)
    loader = trees.FolderTree(table.root)
    return listings.Listing(
        recordings=sorted(recordings, key=operator.attrgetter("path")),
        labels=tuple(sorted({recording.label for recording in recordings} - {""})),
        loader=StretchLoader(loader) if stretches else loader,
        unreadable=table.unreadable,
        notes=[*notes, *_overlapping(manifest, stretches)],
        has_stretches=bool(stretches),
    )


def _stretch(
    table: manifests.Table, row: manifests.Row, path: str, lengths: dict[str, float | None]
) -> listings.Recording:
    """A row of a manifest with `start` and `end`. Without a group of its own, a file is the group of its stretches.

    `lengths` remembers how long files are. InputError for a stretch that leaves its file, as far as that can be opened.
    """
    group, start, end = row.group or path, row.start_seconds, row.end_seconds
    if start is None or end is None:
        return listings.Recording(path, f"- - {row.path}", group, row.label, part=row.part)
    if path not in lengths:
        lengths[path] = audio.seconds(table.root / row.path)
    length = lengths[path]
    if length is not None and (start >= length or end > length + END_SLACK_SECONDS):
        raise errors.InputError(
            f"{table.manifest} line {row.line} takes {row.path} from {time_text(start)} to {time_text(end)} s, and the "
            f"recording has {length:.3f} s: give times within it"
        )
    size = round((end - start) * audio.RATE_HZ) * BYTES_PER_FRAME
    name, locator = name_of(path, start, end), f"{start!r} {end!r} {row.path}"
    return listings.Recording(name, locator, group, row.label, size, row.part, start)


def name_of(path: str, start_seconds: float, end_seconds: float) -> str:
    """The name of a stretch of a file, such as a.wav#1.5-3."""
    return f"{path}#{time_text(start_seconds)}-{time_text(end_seconds)}"


def file_of(recording: listings.Recording, has_stretches: bool) -> str:
    """The name of the file of a recording, where the loader is a `StretchLoader` if `has_stretches`."""
    is_whole = not has_stretches or recording.locator.startswith("- - ")
    return recording.path if is_whole else recording.path.rpartition("#")[0]


def time_text(seconds: float) -> str:
    """Every digit that counts and no more, as in 1.5 and 12."""
    return np.format_float_positional(seconds, trim="-")


@dataclasses.dataclass(frozen=True)
class StretchLoader(listings.Loader):
    """Reads stretches of files, or whole ones; a locator is start, end (in seconds, or two dashes) and path."""

    tree: trees.FolderTree

    def stream(
        self, locator: str, how: audio.Reading = audio.DEFAULT, remark: audio.Remark | None = None
    ) -> Iterator[Float32[np.ndarray, " _"]]:
        """The stretch at 16 kHz, of which alone is decoded, as `audio.load_stretch`."""
        start, end, path = locator.split(" ", 2)
        if start == "-":
            yield from self.tree.stream(path, how, remark)
            return
        yield audio.load_stretch(self.tree.root / path, float(start), float(end), path, how, remark)

    def file(self, locator: str) -> str:
        """The file that the stretch is of."""
        return self.tree.file(locator.split(" ", 2)[2])


def each_once(
    source: str, recordings: Sequence[listings.Recording], remedy: str
) -> tuple[list[listings.Recording], int]:
    """The recordings, each once, and how many are there again.

    InputError where two entries of a recording do not agree; it begins with `source` and ends with `remedy`.
    """
    first: dict[str, listings.Recording] = {}
    for recording in recordings:
        other = first.setdefault(recording.path, recording)
        if other is not recording and (recording.label, recording.group, recording.part) != (
            other.label,
            other.group,
            other.part,
        ):
            names = f" (by the names {other.locator} and {recording.locator})" * (other.locator != recording.locator)
            raise errors.InputError(
                f"{source} {recording.path} twice, as {_described(other)} and as {_described(recording)}{names}: "
                f"{remedy}"
            )
    return list(first.values()), len(recordings) - len(first)


def _described(recording: listings.Recording) -> str:
    about = {"label": recording.label, "group": recording.group, "split": recording.part}
    return ", ".join(f"{name} {value}" for name, value in about.items() if value) or "nothing"


def _unlabelled(
    manifest: pathlib.Path, stretches: list[tuple[str, float, float, str]], lengths: dict[str, float | None]
) -> list[str]:
    """A note on how much of the recordings of label files has no label."""
    total = sum(length or 0.0 for length in lengths.values())
    labelled, reached = 0.0, ("", 0.0)
    for path, start, end, _ in sorted(stretches):
        at = reached[1] if reached[0] == path else 0.0
        labelled += max(0.0, end - max(start, at))
        reached = (path, max(end, at))
    if total - labelled <= END_SLACK_SECONDS * len(lengths):
        return []
    return [
        f"{manifest}: labels cover {labelled:,.1f} s of {total:,.1f} s; what has no label is not used, so a class such "
        "as background needs labels of its own"
    ]


def _overlapping(manifest: pathlib.Path, stretches: list[tuple[str, float, float, str]]) -> list[str]:
    """A note on stretches (path, start, end, label) that overlap and have different labels."""
    count, example, running = 0, "", []
    for stretch in sorted(stretches):
        path, start, end, label = stretch
        running = [other for other in running if other[0] == path and other[2] > start]
        for other in running:
            if other[3] != label:
                example = example or (
                    f"{path} from {time_text(other[1])} to {time_text(other[2])} s ({other[3] or 'no label'}) and from "
                    f"{time_text(start)} to {time_text(end)} s ({label or 'no label'})"
                )
                count += 1
        running.append(stretch)
    if not count:
        return []
    return [f"{manifest}: {count} pairs of stretches overlap and have different labels, such as {example}"]


class Names:
    """The names of files in a list, without detours and relative to its root if they lie below it.

    `linked` are those that have other names, with what these have in common.
    """

    def __init__(self, root: pathlib.Path) -> None:
        self.linked: dict[str, str] = {}
        self._root = f"{root.resolve()}{os.sep}"
        self._identities = file_names.Identities(str(root.resolve()))

    def name(self, path: str) -> str:
        """The name of a file that a list calls `path`."""
        path = file_names.normal(path, self._root)
        identity = self._identities.of(path)
        if identity != path:
            self.linked[path] = identity
        return path

    def unite(self, recordings: list[listings.Recording], files: Sequence[str]) -> None:
        """Gives recordings whose files are one the first of its names; `files` are those of the recordings."""
        if not self.linked:
            return
        first: dict[str, str] = {}
        for k, (recording, path) in enumerate(zip(recordings, files)):
            name = first.setdefault(self.linked.get(path, path), path)
            if name != path:
                group = name if recording.group == path else recording.group
                recordings[k] = recording._replace(path=name + recording.path[len(path) :], group=group)
