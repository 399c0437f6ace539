"""What a published data set looks like on disk, and how it is found where a user put it."""

import dataclasses
import fnmatch
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence

from voc2vec_jax import audio, errors, opening
from voc2vec_jax.datasets import listings, scanning, trees

ANY_AUDIO = rf"(?:[^/]+/)*[^/]+(?:{'|'.join(map(re.escape, audio.SUFFIXES))})"

Describe = Callable[[re.Match], tuple[str, str]]


class OddError(ValueError):
    """Raised by a `describe` for a recording that does not belong in the set; the text is the reason."""


@dataclasses.dataclass(frozen=True)
class ArchiveLayout:
    """How a published data set looks on disk.

    archives: patterns of the names of its archives as downloaded, in lower case and without the ending.
    path: regular expression of a recording's path below the set's root, in any case.
    describe: gives (group, label) of a match of `path`, or raises `OddError`.
    parts: archives that match one of these patterns hold a part each; they and their folder make up the set.
    own_place: look only in places that bear the set's name, because `path` fits any audio.
    shared_with: another set that comes in the same archive.
    """

    archives: tuple[str, ...]
    path: str
    labels: tuple[str, ...] = ()
    describe: Describe = lambda match: ("", "")
    parts: tuple[str, ...] = ()
    own_place: bool = False
    shared_with: str = ""


@dataclasses.dataclass(frozen=True)
class Found:
    """A set that was found: every file below `root` with its bytes, and the matches of the layout's path."""

    tree: trees.Tree
    root: str
    files: list[tuple[str, int]]
    matches: list[tuple[re.Match, int]]

    def select(self, path: str) -> "Found":
        """The same files with other matches: those of another `path` below the root."""
        pattern = re.compile(f"(?P<root>{re.escape(self.root)})(?P<path>{path})", re.IGNORECASE)
        matches = [(match, size) for name, size in self.files if (match := pattern.fullmatch(name))]
        return dataclasses.replace(self, matches=matches)

    def named(self, pattern: str) -> list[str]:
        """Files whose name, without folders, matches a pattern in any case."""
        wanted = re.compile(rf"(?:.*/)?(?:{pattern})", re.IGNORECASE)
        return [name for name, _ in self.files if wanted.fullmatch(name)]


def listing(source: listings.Source, layout: ArchiveLayout, manual_dir: pathlib.Path | None) -> listings.Listing:
    """Finds `source` in `manual_dir` or `manual_dir/<name>`, or as the archive itself, and lists it by path."""
    return describe(find(source, layout, manual_dir), layout)


def find(source: listings.Source, layout: ArchiveLayout, manual_dir: pathlib.Path | None) -> Found:
    """Where `source` is; `listings.MissingError` if nowhere, `errors.InputError` if damaged or there twice."""
    tree, files = _locate(source, layout, manual_dir)
    pattern = re.compile(f"(?P<root>(?:.*?/)??)(?P<path>{layout.path})", re.IGNORECASE)
    matches = [(match, size) for name, size in files if (match := pattern.fullmatch(name))]
    root = _only_root(source, tree, {match["root"] for match, _ in matches})
    return Found(tree, root, [entry for entry in files if entry[0].startswith(root)], matches)


def describe(
    found: Found,
    layout: ArchiveLayout,
    *,
    describe: Describe | None = None,
    labels: Sequence[str] | None = None,
    notes: Sequence[str] = (),
) -> listings.Listing:
    """The listing of what was found; `describe` and `labels` replace those of the layout."""
    describe = describe or layout.describe
    recordings, odd = [], []
    for match, size in found.matches:
        try:
            group, label = describe(match)
        except OddError as error:
            odd.append({"path": match["path"], "reason": str(error)})
            continue
        recordings.append(listings.Recording(match["path"], match[0], group, label, size))
    taken = {match[0] for match, _ in found.matches}
    left_out = [name for name, _ in found.files if trees.is_audio(name) and name not in taken]
    if left_out:
        notes = [
            *notes,
            f"left out, {errors.counted(len(left_out), 'audio file')} outside the published layout: "
            f"{listings.some(left_out)}",
        ]
    unsupported = [name for name, _ in found.files if name.lower().endswith(trees.UNSUPPORTED)]
    if unsupported:
        notes = [
            *notes,
            f"left out, {errors.counted(len(unsupported), 'file')} in a format to convert first: "
            f"{listings.some(unsupported)}",
        ]
    alike = scanning.like_recordings(found.tree, [name for name, _ in found.files])
    if alike:
        notes = [
            *notes,
            f"left out, {errors.counted(len(alike), 'file')} like a recording by another name: {listings.some(alike)}",
        ]
    return listings.Listing(
        recordings=sorted(recordings),
        labels=layout.labels if labels is None else tuple(labels),
        loader=found.tree,
        unreadable=odd,
        notes=list(notes),
    )


def refuse_mixed(source: listings.Source, found: Found, part: str, version: str) -> None:
    """`errors.InputError` when one `part` has several `version`s; both are named groups of the path."""
    versions: dict[str, set[str]] = {}
    for match, _ in found.matches:
        if match[part]:
            versions.setdefault(match[part].lower(), set()).add(match[version])
    for name, several in versions.items():
        if len(several) > 1:
            raise errors.InputError(
                f"{found.tree.root} mixes {len(several)} versions of {name} of {source.title} "
                f"({listings.some(sorted(several))}): leave one there"
            )


def _locate(
    source: listings.Source, layout: ArchiveLayout, manual_dir: pathlib.Path | None
) -> tuple[trees.Tree, list[tuple[str, int]]]:
    if manual_dir is None or not manual_dir.exists():
        raise listings.missing(source, manual_dir)
    pattern = re.compile(f"(?:.*/)?{layout.path}", re.IGNORECASE)
    found = [trees.archive_tree(manual_dir)] if manual_dir.is_file() else _candidates(source, layout, manual_dir)
    for tree in found:
        files = sorted(tree.files())
        if any(pattern.fullmatch(name) for name, _ in files):
            return tree, files
        if not isinstance(tree, trees.FolderTree):
            raise errors.InputError(
                f"{tree.root} is not {source.title}, which must hold {source.holds}: "
                f"it holds {len(files)} files, the first {files[0][0] if files else None}; get it from {source.url}"
            )
    raise listings.missing(source, manual_dir)


def _candidates(source: listings.Source, layout: ArchiveLayout, manual_dir: pathlib.Path) -> Iterator[trees.Tree]:
    """Candidate places, best first: `manual_dir/<name>`, then `manual_dir`; in each an archive, then the folder."""
    named = [(manual_dir / name, layout.parts or ("*",)) for name in (source.name, layout.shared_with) if name]
    for folder, patterns in (*named, (manual_dir, layout.archives)):
        if not folder.is_dir():
            continue
        archives = _matching(folder, patterns)
        bears_name = folder != manual_dir or _fits(folder.resolve().name + ".zip", layout.archives)
        if layout.parts and archives:
            yield trees.UnionTree((trees.FolderTree(folder), *map(trees.archive_tree, archives)))
        elif len(archives) > 1:
            names = listings.some([path.name for path in archives])
            raise errors.InputError(
                f"{folder} holds {len(archives)} archives of {source.title} ({names}): leave one there or give its "
                "path as --manual_dir"
            )
        elif archives:
            yield trees.archive_tree(archives[0])
        if bears_name or not layout.own_place:
            yield trees.FolderTree(folder)


def _matching(folder: pathlib.Path, patterns: Sequence[str]) -> list[pathlib.Path]:
    return [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and _fits(path.name, patterns) and os.path.isfile(opening.checked(path))
    ]


def _fits(name: str, patterns: Sequence[str]) -> bool:
    suffix = next((suffix for suffix in trees.ARCHIVE_SUFFIXES if name.lower().endswith(suffix)), None)
    stem = name.lower().removesuffix(suffix or "")
    return suffix is not None and any(fnmatch.fnmatch(stem, pattern) for pattern in patterns)


def _only_root(source: listings.Source, tree: trees.Tree, roots: set[str]) -> str:
    if len(roots) > 1:
        found = listings.some([root or "." for root in sorted(roots)])
        raise errors.InputError(
            f"{tree.root} holds {len(roots)} copies of {source.title} ({found}): leave one, or give the path of one "
            f"as --manual_dir"
        )
    return roots.pop()
