"""The user's own audio: a folder of files, an archive of one, or a manifest that lists them.

In a folder, a file's class is the folder it lies in, if there are at least two such folders. A manifest is a csv or
tsv file with a header (`path`, optionally `label` and `group`), or a fairseq tsv (the root folder in the first line,
then path and number of frames). Relative paths start at the manifest, or at fairseq's root.
"""

import csv
import operator
import os
import pathlib
import re
from collections.abc import Iterator

from voc2vec_jax import errors
from voc2vec_jax.datasets import listings, trees

FAIRSEQ_ROW = re.compile(r"[^\t]+\t[0-9]+\s*")
BYTES_PER_FRAME = 2
DETOUR = re.compile("^[./]|//|/[.]|/$")  # what `os.path.normpath` could change, or an absolute path


def list_recordings(source: listings.Source, manual_dir: pathlib.Path | None) -> listings.Listing:
    """Lists the folder, zip or manifest at `manual_dir`; `errors.InputError` when it holds no audio."""
    del source
    if manual_dir is None or not manual_dir.exists():
        fault = "no --manual_dir was given" if manual_dir is None else f"there is no {manual_dir}"
        raise listings.MissingError(
            f"{fault}: give --manual_dir a folder with audio, a zip of one, or a manifest of it"
        )
    if manual_dir.is_dir():
        return _list_tree(manual_dir, trees.FolderTree(manual_dir))
    if manual_dir.name.lower().endswith(trees.ARCHIVE_SUFFIXES):
        return _list_tree(manual_dir, trees.archive_tree(manual_dir))
    return _list_manifest(manual_dir)


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
    rows = csv.reader(file, delimiter="\t" if "\t" in first else ",")
    header = [column.strip().lower() for column in next(rows, [])]
    if "path" not in header:
        raise errors.InputError(
            f"{manifest} begins with {first[:80]!r}: its first line must name the columns (path, optionally label and "
            f"group), or be the root folder of a fairseq manifest"
        )
    if header.count("path") > 1:
        raise errors.InputError(f"{manifest} has the column path {header.count('path')} times: leave one")
    at, group, label = (header.index(name) if name in header else None for name in ("path", "group", "label"))
    root = f"{manifest.parent.resolve()}{os.sep}"
    recordings, unreadable = [], []
    for row in rows:
        if len(row) != len(header) or not row[at].strip():
            row = row + [""] * (len(header) - len(row))
            reason = _row_fault(row, header, row[at], rows.line_num)
            if reason:
                unreadable.append({"path": row[at].strip() or str(manifest), "reason": reason})
            if reason or not row[at].strip():
                continue
        written = row[at].strip()
        about = ("" if group is None else row[group], "" if label is None else row[label])
        recordings.append(listings.Recording(_relative(written, root), written, *about))
    return _manifest_listing(manifest, manifest.parent, recordings, unreadable)


def _row_fault(row: list[str], header: list[str], path: str, line: int) -> str:
    """What is wrong with a row of a manifest; "" for a good or blank one."""
    if not any(field.strip() for field in row):
        return ""
    if len(row) > len(header):
        return f"line {line} has {len(row)} fields and the header {len(header)}: quote a path that holds a comma"
    return "" if path.strip() else f"line {line} has no path"


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
