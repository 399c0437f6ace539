"""Lists of recordings of every kind: what `manifests` reads, and label files of other programs beside recordings."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Collection, Iterator, Sequence

from voc2vec_jax import errors
from voc2vec_jax.datasets import listings, manifests, trees
from voc2vec_jax.datasets.annotations import formats, rttm, text

KIND = "labels"  # of a table of label files
COLUMNS = ("path", "label", "start", "end")
_WILD = "*?["


@contextlib.contextmanager
def opened(
    source: pathlib.Path, columns: Collection[str] = manifests.COLUMNS, strict: bool = False
) -> Iterator[manifests.Table]:
    """As `manifests.opened`; `source` may also be a label file, or a pattern of several such as FOLDER/*.TextGrid.

    InputError also for a pattern that fits other files than label files.
    """
    files = _label_files(source)
    if not files:
        with manifests.opened(source, columns, strict) as table:
            yield table
        return
    known = tuple(name for name in columns if name in COLUMNS)
    yield LabelTable(source, KIND, root_of(source), iter(()), header=COLUMNS, columns=known, strict=strict, files=files)


def is_there(source: pathlib.Path) -> bool:
    """Whether there is such a file or folder, or a pattern fits any."""
    return source.exists() or any(_fitting(source))


def are_same(source: pathlib.Path, other: pathlib.Path) -> bool:
    """Whether two paths or patterns are of the same list."""
    return source == other or (source.exists() and other.exists() and source.samefile(other))


def root_of(source: pathlib.Path) -> pathlib.Path:
    """The folder that a list lies in, or that a pattern searches."""
    if source.exists():
        return source.parent
    parts = source.parent.parts
    wild = next((k for k, part in enumerate(parts) if _is_wild(part)), len(parts))
    return pathlib.Path(*parts[:wild])


def _is_wild(text_: str) -> bool:
    return any(sign in text_ for sign in _WILD)


def _fitting(source: pathlib.Path) -> Iterator[pathlib.Path]:
    """The files that a pattern fits; none for what is no pattern."""
    if _is_wild(os.fspath(source)):
        root = root_of(source)
        yield from (path for path in root.glob(os.path.relpath(source, root)) if path.is_file())


def _label_files(source: pathlib.Path) -> list[tuple[pathlib.Path, str]]:
    """The label files that `source` names and their formats; none where it is a list."""
    if source.exists():
        kind = formats.kind_of(source) if source.is_file() else ""
        return [(source, kind)] if kind else []
    found = [(path, formats.kind_of(path)) for path in sorted(_fitting(source))]
    if others := [str(path) for path, kind in found if not kind]:
        raise errors.InputError(
            f"{listings.some(others)} are no label files ({', '.join(formats.FORMATS)}): give a pattern that fits "
            "label files alone"
        )
    return found


@dataclasses.dataclass
class LabelTable(manifests.Table):
    """Label files as a list: a row for each segment. While rows are read, `manifest` is the file of the last one."""

    files: Sequence[tuple[pathlib.Path, str]] = ()

    def rows(self) -> Iterator[manifests.Row]:
        """Every segment with its recording, which lies in the folder of the label file.

        InputError for what is malformed, and for a recording that is not there or may be one of several.
        """
        source, folders, used = self.manifest, Recordings(self.root), set()
        for file, kind in self.files:
            self.manifest = file
            found = formats.read(file, kind)
            own = folders.beside(file) if kind != rttm.NAME and not _names_recordings(found) else ""
            used.add(own)
            for each in found.segments:
                path = folders.named(file, each) if each.recording else own
                used.add(path)
                yield manifests.Row(each.line, path, each.label, start_seconds=each.start, end_seconds=each.end)
            self.notes += [*found.notes, *_left_out(found)]
        self.manifest = source
        if without := sorted(folders.seen - used):
            many = (
                "recordings beside the label files have" if len(without) > 1 else "recording beside the label file has"
            )
            self.notes.append(f"{source}: {len(without)} {many} no labels and is not used: {listings.some(without)}")


def _names_recordings(found: text.LabelFile) -> bool:
    return any(each.recording for each in found.segments)


def _left_out(found: text.LabelFile) -> list[str]:
    """A note on the segments of a file that cannot be used."""
    if not found.left_out:
        return []
    (line, reason), count = found.left_out[0], len(found.left_out)
    what = f"line {line}, which {reason}" if count == 1 else f"{count} lines, such as {line}, which {reason}"
    return [f"{found.path}: left out {what}"]


class Recordings:
    """Finds the recordings that label files speak of, in the folders of these files. Paths are relative to `root`."""

    def __init__(self, root: pathlib.Path):
        self._root, self.seen = root, set[str]()
        self._folders: dict[pathlib.Path, dict[str, list[str]]] = {}

    def beside(self, file: pathlib.Path) -> str:
        """The recording that a label file is called after."""
        stems = formats.stems(file.name)
        for stem in stems:
            if found := self._find(file.parent, stem, str(file)):
                return found
        raise errors.InputError(
            f"{file} has no recording beside it: put one called {stems[-1]}.wav (or of another ending) into its folder"
        )

    def named(self, file: pathlib.Path, segment: text.Segment) -> str:
        """The recording that a line of a label file names."""
        name = pathlib.PurePosixPath(segment.recording.replace("\\", "/"))
        where = f"{file} line {segment.line}"
        if name.is_absolute() or ".." in name.parts or "\0" in segment.recording:
            raise errors.InputError(
                f"{where} names the recording {segment.recording[:80]!r}: name one below the folder of the label file"
            )
        found = self._find(file.parent / name.parent, name.name, where)
        if not found:
            raise errors.InputError(
                f"{where} names the recording {segment.recording[:80]!r}, which is not in {file.parent}: put the label "
                "file beside its recordings"
            )
        return found

    def _find(self, folder: pathlib.Path, name: str, where: str) -> str:
        found = self._listed(folder).get(name, [])
        if len(found) > 1:
            raise errors.InputError(f"{where} may speak of {' or '.join(found)}: leave one of them in its folder")
        return found[0] if found else ""

    def _listed(self, folder: pathlib.Path) -> dict[str, list[str]]:
        """The recordings in a folder by what they may be called: with their ending or without, spaces as in RTTM."""
        if folder not in self._folders:
            names: dict[str, list[str]] = {}
            try:
                there = sorted(os.listdir(folder))
            except OSError:
                there = []
            for name in filter(trees.is_audio, there):
                path = os.path.relpath(folder / name, self._root)
                self.seen.add(path)
                for called in {name, rttm.word(name), stem := name.rpartition(".")[0], rttm.word(stem)}:
                    names.setdefault(called, []).append(path)
            self._folders[folder] = names
        return self._folders[folder]
