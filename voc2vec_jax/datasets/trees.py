"""Finding a data set where a user put it: an archive or a folder, read in place and never unpacked."""

import dataclasses
import fnmatch
import functools
import io
import os
import pathlib
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float32

from voc2vec_jax import audio, errors
from voc2vec_jax.datasets import sources

_UNPACK_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a published data set looks on disk.

    `archives` are file name patterns of the archive as users download it; `path` matches a recording's
    path below the set's root folder, in any case; `describe` gives (group, label) of such a match.
    """

    archives: tuple[str, ...]
    path: str
    labels: tuple[str, ...]
    describe: Callable[[re.Match], tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class FolderTree:
    """A folder of files, symbolic links followed; hidden files do not count."""

    root: pathlib.Path

    def files(self) -> Iterator[tuple[str, int]]:
        """(posix path below the root, bytes) of every file, in no particular order."""
        seen = set()
        for folder, subfolders, names in os.walk(self.root, followlinks=True, onerror=_refuse_folder):
            seen.add(os.path.realpath(folder))
            subfolders[:] = [
                s for s in subfolders if not _hidden(s) and os.path.realpath(os.path.join(folder, s)) not in seen
            ]
            for name in names:
                path = pathlib.Path(folder, name)
                if not _hidden(name):
                    yield path.relative_to(self.root).as_posix(), path.stat().st_size if path.exists() else 0

    def load(self, locator: str) -> Float32[np.ndarray, " s"]:
        """The recording at a path below the root (or an absolute one), as `audio.load`."""
        return audio.load(self.root / locator, locator)


@dataclasses.dataclass(frozen=True)
class ZipTree:
    """A zip archive whose members are read in place; `errors.InputError` when it is damaged or climbs out."""

    root: pathlib.Path

    def files(self) -> Iterator[tuple[str, int]]:
        """(name with forward slashes, unpacked bytes) of every member."""
        for member in self._archive.infolist():
            name = member.filename.replace("\\", "/")
            if name.startswith("/") or ".." in name.split("/") or re.match("[A-Za-z]:", name):
                raise errors.InputError(
                    f"{self.root} is refused: its entry {member.filename!r} climbs out of the folder"
                )
            if not member.is_dir() and not any(_hidden(part) for part in name.split("/")):
                yield name, member.file_size

    def load(self, locator: str) -> Float32[np.ndarray, " s"]:
        """The recording that is a member of the archive, as `audio.load`."""
        try:
            data = self._archive.read(self._members[locator])
        except _UNPACK_ERRORS as error:
            raise audio.AudioError(locator, f"cannot be unpacked ({error})") from error
        return audio.load(io.BytesIO(data), locator)

    @functools.cached_property
    def _archive(self) -> zipfile.ZipFile:
        return _open_zip(self.root)

    @functools.cached_property
    def _members(self) -> dict[str, zipfile.ZipInfo]:
        return {member.filename.replace("\\", "/"): member for member in self._archive.infolist()}

    def __reduce__(self):
        return ZipTree, (self.root,)


def listing(source: sources.Source, layout: Layout, manual_dir: pathlib.Path | None) -> sources.Listing:
    """Finds `source` in `manual_dir` or `manual_dir/<name>` (or as the archive itself) and lists it by path."""
    tree, files = _locate(source, layout, manual_dir)
    pattern = re.compile(f"(?P<root>(?:.*?/)??)(?P<path>{layout.path})", re.IGNORECASE)
    matches = [(match, size) for name, size in files if (match := pattern.fullmatch(name))]
    root = _only_root(source, tree, {match["root"] for match, _ in matches})
    recordings = []
    for match, size in matches:
        group, label = layout.describe(match)
        recordings.append(sources.Recording(match["path"], match[0], group, label, size))
    taken = {match[0] for match, _ in matches}
    left_out = [name for name, _ in files if name.startswith(root) and is_audio(name) and name not in taken]
    notes = [f"{len(left_out)} audio files outside the published layout were left out: {_some(left_out)}"]
    return sources.Listing(
        recordings=sorted(recordings), labels=layout.labels, loader=tree, notes=notes if left_out else []
    )


def is_audio(name: str) -> bool:
    """Whether a file name ends like a format that `audio` reads."""
    return name.lower().endswith(audio.SUFFIXES)


def _locate(
    source: sources.Source, layout: Layout, manual_dir: pathlib.Path | None
) -> tuple[FolderTree | ZipTree, list[tuple[str, int]]]:
    if manual_dir is None or not manual_dir.exists():
        raise sources.missing(source, manual_dir)
    pattern = re.compile(f"(?:.*/)?{layout.path}", re.IGNORECASE)
    trees = [ZipTree(manual_dir)] if manual_dir.is_file() else _candidates(source, layout, manual_dir)
    for tree in trees:
        files = sorted(tree.files())
        if any(pattern.fullmatch(name) for name, _ in files):
            return tree, files
        if isinstance(tree, ZipTree):
            raise errors.InputError(
                f"{tree.root} is not {source.title}, which must hold {source.holds}: "
                f"it holds {len(files)} files, the first {files[0][0] if files else None}; get it from {source.url}"
            )
    raise sources.missing(source, manual_dir)


def _candidates(source: sources.Source, layout: Layout, manual_dir: pathlib.Path) -> Iterator[FolderTree | ZipTree]:
    """In order of preference: archive, then folder, in `manual_dir/<name>` and then in `manual_dir`."""
    for folder, patterns in ((manual_dir / source.name, ("*.zip",)), (manual_dir, layout.archives)):
        if not folder.is_dir():
            continue
        zips = [
            path
            for path in sorted(folder.iterdir())
            if path.is_file() and any(fnmatch.fnmatch(path.name.lower(), pattern.lower()) for pattern in patterns)
        ]
        if len(zips) > 1:
            raise errors.InputError(
                f"{folder} holds {len(zips)} archives of {source.title} ({_some([path.name for path in zips])}): "
                f"leave one there or give its path as --manual_dir"
            )
        if zips:
            yield ZipTree(zips[0])
        yield FolderTree(folder)


def _only_root(source: sources.Source, tree: FolderTree | ZipTree, roots: set[str]) -> str:
    if len(roots) > 1:
        found = _some([root or "." for root in sorted(roots)])
        raise errors.InputError(
            f"{tree.root} holds {len(roots)} copies of {source.title} ({found}): leave one, or give the path of one "
            f"as --manual_dir"
        )
    return roots.pop()


def _open_zip(path: pathlib.Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, EOFError) as error:
        size = path.stat().st_size
        raise errors.InputError(
            f"{path} ({size} bytes) is no complete zip archive ({error}): download it again"
        ) from error
    except OSError as error:
        raise errors.InputError(f"{path} cannot be opened ({error.strerror}): check its permissions") from error


def _refuse_folder(error: OSError) -> None:
    raise errors.InputError(f"{error.filename} cannot be listed ({error.strerror}): check its permissions") from error


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
