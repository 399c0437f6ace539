"""The user's own audio: a folder of files, an archive of one, or a manifest that lists them.

In a folder, a file's class is the folder it lies in, if there are at least two such folders. A manifest is a csv or
tsv file with a header (`manifests.COLUMNS`), or a fairseq tsv (the root folder in the first line, then path and number
of frames). Relative paths start at the manifest, or at fairseq's root. A set may come in two or three such parts.
"""

import dataclasses
import operator
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float32

from voc2vec_jax import audio, errors
from voc2vec_jax.datasets import class_folders, listings, lists, manifest_listings, scanning, trees


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
    if manual_dir is None or not lists.is_there(manual_dir):
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
        listing = _list_tree(path, trees.FolderTree(path))
    elif path.name.lower().endswith(trees.ARCHIVE_SUFFIXES):
        listing = _list_tree(path, trees.archive_tree(path))
    else:
        listing = manifest_listings.list_manifest(path)
    return dataclasses.replace(listing, default_name=default_name(path))


def root_of(paths: Sequence[pathlib.Path]) -> pathlib.Path:
    """What paths of recordings are relative to: a folder or archive itself, else the folder of the manifests.

    With several paths, the folder that holds all of them.
    """
    if len(paths) == 1:
        return paths[0]
    return pathlib.Path(os.path.commonpath([_root_of_part(path) for path in paths]))


def _root_of_part(path: pathlib.Path) -> pathlib.Path:
    is_whole = path.is_dir() or path.name.lower().endswith(trees.ARCHIVE_SUFFIXES)
    return path.resolve() if is_whole else lists.root_of(path).resolve()


@dataclasses.dataclass(frozen=True)
class PartsLoader(listings.Loader):
    """Several loaders as one; a locator begins with the number of its loader and a space."""

    loaders: tuple[listings.Loader, ...]

    def stream(
        self, locator: str, how: audio.Reading = audio.DEFAULT, remark: audio.Remark | None = None
    ) -> Iterator[Float32[np.ndarray, " _"]]:
        """The recording of one of the loaders."""
        number, _, rest = locator.partition(" ")
        return self.loaders[int(number)].stream(rest, how, remark)

    def file(self, locator: str) -> str | None:
        """The file of the recording."""
        number, _, rest = locator.partition(" ")
        return self.loaders[int(number)].file(rest)


def _list_parts(given: dict[str, pathlib.Path]) -> listings.Listing:
    """One listing of the recordings for training, validation and test; InputError for one that is in two parts."""
    common = root_of(list(given.values()))
    found = {part: _list_one(path) for part, path in given.items()}
    every: list[listings.Recording] = []
    names, inside_common = manifest_listings.Names(common), []
    for number, (part, listing) in enumerate(found.items()):
        inside = os.path.relpath(_root_of_part(given[part]), common)
        for recording in listing.recordings:
            if recording.part:
                raise errors.InputError(
                    f"{given[part]} has a column split and is itself the part {part}: leave out the column, or give "
                    "one manifest as --config.data alone"
                    if given[part].is_file()
                    else f"{given[part]} has folders of parts and is itself the part {part}: give one of them"
                )
            path, group = (os.path.normpath(os.path.join(inside, recording.path)), recording.group)
            if group and recording.path.startswith(f"{group}#"):  # the group of a file's stretches is the file
                group = os.path.normpath(os.path.join(inside, group))
            file = manifest_listings.file_of(recording, listing.has_stretches)
            inside_common.append(names.name(os.path.normpath(os.path.join(inside, file))))
            own = {"path": path, "group": group, "part": part, "locator": f"{number} {recording.locator}"}
            every.append(recording._replace(**own))
    names.unite(every, inside_common)
    recordings: dict[str, listings.Recording] = {}
    for recording in every:
        other = recordings.setdefault(recording.path, recording)
        if other.part != recording.part:
            raise errors.InputError(
                f"{recording.path} is in {given[other.part]} and in {given[recording.part]}: a recording belongs to "
                "one part"
            )
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
    """The name for a prepared set, made from that of its folder or manifest, or of the folder of label files."""
    path = path if path.exists() else lists.root_of(path)
    name = re.sub("[^a-z0-9]+", "_", path.resolve().stem.lower()).strip("_")
    return name if name[:1].isalpha() else f"folder_{name}".rstrip("_")


def _list_tree(root: pathlib.Path, tree: trees.Tree) -> listings.Listing:
    found = scanning.scan(tree)
    if not found.recordings:
        raise errors.InputError(
            f"{root} holds no audio that can be read ({found.files} files, {len(found.unsupported)} of them in formats "
            f"to convert first): give a folder with wav, flac, mp3, m4a or other recordings"
        )
    names = [name for name, _ in found.recordings]
    places, said = class_folders.places(names)
    recordings = [
        listings.Recording(name, name, label=place.label, source_bytes=size, part=place.part)
        for name, size in found.recordings
        for place in (places[class_folders.folder_of(name)],)
    ]
    if found.has_links:
        linked = manifest_listings.Names(root)
        linked.unite(recordings, [linked.name(name) for name in names])
        recordings, repeats = manifest_listings.each_once(f"{root} holds", recordings, "leave it in one folder alone")
        said += [f"counted once, {errors.counted(repeats, 'file')} by another name (a link)"] if repeats else []
    return listings.Listing(
        recordings=recordings,
        labels=tuple(sorted({recording.label for recording in recordings} - {""})),
        loader=tree,
        unreadable=[
            {"path": name, "reason": "its format is not supported: convert it to wav or flac"}
            for name in found.unsupported
        ],
        notes=[f"{root}: {note}" for note in (*said, *found.notes)],
    )


SOURCE = listings.Source(
    name="folder",
    title="A folder of audio",
    url="your own disk",
    licence="your own",
    holds="recordings (wav, flac, mp3, m4a and others) in any folders, or is a csv or tsv manifest of them",
    list_recordings=list_recordings,
)
