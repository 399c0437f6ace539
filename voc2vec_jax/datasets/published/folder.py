"""The user's own audio: a folder of files, an archive of one, or a manifest that lists them.

In a folder, a file's class is the folder it lies in, if there are at least two such folders. A manifest is a csv or
tsv file with a header (`manifests.COLUMNS`), or a fairseq tsv (the root folder in the first line, then path and number
of frames). Relative paths start at the manifest, or at fairseq's root. A set may come in two or three such parts.
"""

import csv
import dataclasses
import math
import operator
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float32

from voc2vec_jax import audio, errors
from voc2vec_jax.datasets import listings, manifests, trees

FAIRSEQ_ROW = re.compile(r"[^\t]+\t[0-9]+\s*")
BYTES_PER_FRAME = 2
END_SLACK_SECONDS = 0.01  # by which a rounded end may lie behind the recording's
DETOUR = re.compile("^[./]|//|/[.]|/$")  # what `os.path.normpath` could change, or an absolute path


def list_recordings(
    source: listings.Source,
    manual_dir: pathlib.Path | None,
    validation_data: pathlib.Path | None = None,
    test_data: pathlib.Path | None = None,
) -> listings.Listing:
    """Lists the folder, zip or manifest at `manual_dir`; `errors.InputError` when it holds no audio.

    With `test_data`, these are the recordings for training, and those for validation (if any) and test lie elsewhere.
    """
    del source
    if manual_dir is None or not manual_dir.exists():
        fault = "no --manual_dir was given" if manual_dir is None else f"there is no {manual_dir}"
        raise listings.MissingError(
            f"{fault}: give --manual_dir a folder with audio, a zip of one, or a manifest of it"
        )
    if test_data is None:
        return _list_one(manual_dir)
    given = {"train": manual_dir, "validation": validation_data, "test": test_data}
    return _list_parts({part: path for part, path in given.items() if path is not None})


def _list_one(path: pathlib.Path) -> listings.Listing:
    if path.is_dir():
        return _list_tree(path, trees.FolderTree(path))
    if path.name.lower().endswith(trees.ARCHIVE_SUFFIXES):
        return _list_tree(path, trees.archive_tree(path))
    return _list_manifest(path)


def root_of(paths: Sequence[pathlib.Path]) -> pathlib.Path:
    """What paths of recordings are relative to: a folder or archive itself, else the folder of the manifests.

    With several paths, the folder that holds all of them.
    """
    if len(paths) == 1:
        return paths[0]
    return pathlib.Path(os.path.commonpath([_root_of_part(path) for path in paths]))


def _root_of_part(path: pathlib.Path) -> pathlib.Path:
    is_whole = path.is_dir() or path.name.lower().endswith(trees.ARCHIVE_SUFFIXES)
    return path.resolve() if is_whole else path.resolve().parent


@dataclasses.dataclass(frozen=True)
class PartsLoader:
    """Several loaders as one; a locator begins with the number of its loader and a space."""

    loaders: tuple[listings.Loader, ...]

    def load(
        self, locator: str, how: audio.Reading = audio.DEFAULT, remark: audio.Remark | None = None
    ) -> Float32[np.ndarray, " s"]:
        """The recording of one of the loaders."""
        number, _, rest = locator.partition(" ")
        return self.loaders[int(number)].load(rest, how, remark)

    def file(self, locator: str) -> str | None:
        """The file of the recording."""
        number, _, rest = locator.partition(" ")
        return self.loaders[int(number)].file(rest)


def _list_parts(given: dict[str, pathlib.Path]) -> listings.Listing:
    """One listing of the recordings for training, validation and test; InputError for one that is in two parts."""
    common = root_of(list(given.values()))
    found = {part: _list_one(path) for part, path in given.items()}
    recordings: dict[str, listings.Recording] = {}
    for number, (part, listing) in enumerate(found.items()):
        inside = os.path.relpath(_root_of_part(given[part]), common)
        for recording in listing.recordings:
            if recording.part:
                raise errors.InputError(
                    f"{given[part]} has a column split and is itself the part {part}: leave out the column, or give "
                    "one manifest as --config.data alone"
                )
            path, group = (os.path.normpath(os.path.join(inside, recording.path)), recording.group)
            if group and recording.path.startswith(f"{group}#"):  # the group of a file's stretches is the file
                group = os.path.normpath(os.path.join(inside, group))
            if path in recordings and recordings[path].part != part:
                raise errors.InputError(
                    f"{path} is in {given[recordings[path].part]} and in {given[part]}: a recording belongs to one part"
                )
            own = {"path": path, "group": group, "part": part, "locator": f"{number} {recording.locator}"}
            recordings.setdefault(path, recording._replace(**own))
    return listings.Listing(
        recordings=sorted(recordings.values(), key=operator.attrgetter("path")),
        labels=tuple(sorted({label for listing in found.values() for label in listing.labels})),
        loader=PartsLoader(tuple(listing.loader for listing in found.values())),
        unreadable=[each for listing in found.values() for each in listing.unreadable],
        notes=[note for listing in found.values() for note in listing.notes],
        default_name=found["train"].default_name,
        has_stretches=any(listing.has_stretches for listing in found.values()),
    )


def default_name(path: pathlib.Path) -> str:
    """The name for a prepared set, made from that of its folder or manifest."""
    name = re.sub("[^a-z0-9]+", "_", path.resolve().stem.lower()).strip("_")
    return name if name[:1].isalpha() else f"folder_{name}".rstrip("_")


def _list_tree(root: pathlib.Path, tree: trees.Tree) -> listings.Listing:
    files = sorted(tree.files())
    found = [(name, size) for name, size in files if trees.is_audio(name)]
    unsupported = [name for name, _ in files if name.lower().endswith(trees.UNSUPPORTED)]
    if not found:
        raise errors.InputError(
            f"{root} holds no audio that can be read ({len(files)} files, {len(unsupported)} of them in formats to "
            f"convert first): give a folder with wav, flac, ogg or mp3 files"
        )
    classes = sorted({_parent(name) for name, _ in found} - {""})
    labelled = len(classes) > 1
    return listings.Listing(
        recordings=[
            listings.Recording(name, name, label=_parent(name) if labelled else "", source_bytes=size)
            for name, size in found
        ],
        labels=tuple(classes) if labelled else (),
        loader=tree,
        unreadable=[
            {"path": name, "reason": "its format is not supported: convert it to wav, flac, ogg or mp3"}
            for name in unsupported
        ],
        default_name=default_name(root),
    )


def _parent(name: str) -> str:
    return name.split("/")[-2] if "/" in name else ""


def _list_manifest(manifest: pathlib.Path) -> listings.Listing:
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            first, second = file.readline().rstrip("\r\n"), file.readline()
            file.seek(0)
            if "\t" not in first and FAIRSEQ_ROW.fullmatch(second):
                return _list_fairseq(manifest, first, file.readlines()[1:])
            return _list_table(manifest, first, file)
    except (UnicodeDecodeError, csv.Error) as error:
        raise errors.InputError(f"{manifest} is not a manifest in UTF-8 text ({error})") from error
    except OSError as error:
        raise errors.InputError(f"{manifest} cannot be read ({error.strerror})") from error


def _list_fairseq(manifest: pathlib.Path, first: str, lines: list[str]) -> listings.Listing:
    root = manifest.parent / first.strip()
    if not root.is_dir():
        raise errors.InputError(f"the first line of {manifest} names the folder {first!r}, which is not there")
    recordings, unreadable = [], []
    for number, line in enumerate(lines, 2):
        path, _, frames = line.rstrip("\r\n").rpartition("\t")
        if path and frames.strip().isdigit():
            size = int(frames) * BYTES_PER_FRAME
            recordings.append(listings.Recording(os.path.normpath(path), path, source_bytes=size))
        elif line.strip():
            unreadable.append({"path": f"{manifest} line {number}", "reason": "is not a path, a tab and a number"})
    return _manifest_listing(manifest, root, recordings, unreadable)


def _list_table(manifest: pathlib.Path, first: str, file: Iterator[str]) -> listings.Listing:
    table, lengths = manifests.Table(manifest, first, file), {}
    root = f"{manifest.parent.resolve()}{os.sep}"
    recordings, stretches = [], []
    for row in table.rows():
        path = _relative(row.path, root)
        if "start" in table.columns:
            recordings.append(_stretch(manifest, row, path, lengths))
            stretches.append((path, row.start_seconds or 0.0, row.end_seconds or math.inf, row.label))
        else:
            recordings.append(listings.Recording(path, row.path, row.group, row.label, part=row.part))
    recordings, repeats = _each_once(manifest, recordings)
    notes = [*table.notes, *repeats, *_overlapping(manifest, stretches)]
    listing = _manifest_listing(manifest, manifest.parent, recordings, table.unreadable)
    listing = dataclasses.replace(listing, notes=notes, has_stretches=bool(stretches))
    return dataclasses.replace(listing, loader=StretchLoader(listing.loader)) if stretches else listing


def _stretch(
    manifest: pathlib.Path, row: manifests.Row, path: str, lengths: dict[str, float | None]
) -> listings.Recording:
    """A row of a manifest with `start` and `end`. Without a group of its own, a file is the group of its stretches.

    `lengths` remembers how long files are. InputError for a stretch that leaves its file, as far as that can be opened.
    """
    group, start, end = row.group or path, row.start_seconds, row.end_seconds
    if start is None or end is None:
        return listings.Recording(path, f"- - {row.path}", group, row.label, part=row.part)
    if path not in lengths:
        lengths[path] = audio.seconds(manifest.parent / row.path)
    length = lengths[path]
    if length is not None and (start >= length or end > length + END_SLACK_SECONDS):
        raise errors.InputError(
            f"{manifest} line {row.line} takes {row.path} from {_time(start)} to {_time(end)} s, and the recording has "
            f"{length:.3f} s: give times within it"
        )
    size = round((end - start) * audio.RATE_HZ) * BYTES_PER_FRAME
    name, locator = f"{path}#{_time(start)}-{_time(end)}", f"{start!r} {end!r} {row.path}"
    return listings.Recording(name, locator, group, row.label, size, row.part, start)


def _time(seconds: float) -> str:
    """Every digit that counts and no more, as in 1.5 and 12."""
    return np.format_float_positional(seconds, trim="-")


@dataclasses.dataclass(frozen=True)
class StretchLoader:
    """Reads stretches of files, or whole ones; a locator is start, end (in seconds, or two dashes) and path."""

    tree: trees.FolderTree

    def load(
        self, locator: str, how: audio.Reading = audio.DEFAULT, remark: audio.Remark | None = None
    ) -> Float32[np.ndarray, " s"]:
        """The stretch at 16 kHz, of which alone is decoded, as `audio.load_stretch`."""
        start, end, path = locator.split(" ", 2)
        if start == "-":
            return self.tree.load(path, how, remark)
        return audio.load_stretch(self.tree.root / path, float(start), float(end), path, how, remark)

    def file(self, locator: str) -> str:
        """The file that the stretch is of."""
        return self.tree.file(locator.split(" ", 2)[2])


def _each_once(
    manifest: pathlib.Path, recordings: list[listings.Recording]
) -> tuple[list[listings.Recording], list[str]]:
    """The recordings without repeated rows, and a note on these; InputError where two rows do not agree."""
    first: dict[str, listings.Recording] = {}
    for recording in recordings:
        other = first.setdefault(recording.path, recording)
        if other is not recording and other != recording._replace(locator=other.locator):
            raise errors.InputError(
                f"{manifest} lists {recording.path} twice, as {_described(other)} and as {_described(recording)}: "
                "leave one row of each clip (several labels of a clip stand in its row, as in cry|cough)"
            )
    repeats = len(recordings) - len(first)
    said = f"{manifest}: {repeats} row{'s repeat' if repeats > 1 else ' repeats'} an earlier one, and count once"
    return list(first.values()), [said] if repeats else []


def _described(recording: listings.Recording) -> str:
    about = {"label": recording.label, "group": recording.group, "split": recording.part}
    return ", ".join(f"{name} {value}" for name, value in about.items() if value) or "nothing"


def _overlapping(manifest: pathlib.Path, stretches: list[tuple[str, float, float, str]]) -> list[str]:
    """A note on stretches (path, start, end, label) that overlap and have different labels."""
    count, example, running = 0, "", []
    for stretch in sorted(stretches):
        path, start, end, label = stretch
        running = [other for other in running if other[0] == path and other[2] > start]
        for other in running:
            if other[3] != label:
                example = example or (
                    f"{path} from {_time(other[1])} to {_time(other[2])} s ({other[3] or 'no label'}) and from "
                    f"{_time(start)} to {_time(end)} s ({label or 'no label'})"
                )
                count += 1
        running.append(stretch)
    if not count:
        return []
    return [f"{manifest}: {count} pairs of stretches overlap and have different labels, such as {example}"]


def _relative(path: str, root: str) -> str:
    """A path without detours, relative to `root` (which ends in a slash) if it lies below it."""
    if not DETOUR.search(path):
        return path
    return os.path.normpath(path).removeprefix(root)


def _manifest_listing(
    manifest: pathlib.Path,
    root: pathlib.Path,
    recordings: list[listings.Recording],
    unreadable: list[dict[str, str]],
) -> listings.Listing:
    if not recordings:
        raise errors.InputError(f"{manifest} lists no recordings")
    return listings.Listing(
        recordings=sorted(recordings, key=operator.attrgetter("path")),
        labels=tuple(sorted({recording.label for recording in recordings} - {""})),
        loader=trees.FolderTree(root),
        unreadable=unreadable,
        default_name=default_name(manifest),
    )


SOURCE = listings.Source(
    name="folder",
    title="A folder of audio",
    url="your own disk",
    licence="your own",
    holds="wav, flac, ogg or mp3 files in any folders, or is a csv or tsv manifest of them",
    list_recordings=list_recordings,
)
