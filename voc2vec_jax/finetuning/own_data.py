"""A user's own clips as a prepared set: class folders, an archive of them, or manifests; whole or divided in parts."""

import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from voc2vec_jax import audio, datasets, errors
from voc2vec_jax.datasets import file_states, list_text, listings, lists, preparing, records, renewal, shard_jobs
from voc2vec_jax.datasets.published import folder
from voc2vec_jax.inference import answers
from voc2vec_jax.runs import logs

FOLDER = "folder"
FORMS = (
    "a folder of class folders, a zip of one, a manifest (csv: path,label[,group,split,start,end]), or label files of "
    "other programs (FOLDER/*.TextGrid)"
)


MOST_NUMBERS = 20  # classes that may be whole numbers


class OwnClips(NamedTuple):
    """`title` is what people call the clips, `root` what paths are relative to, `unreadable` what cannot be used.

    `part` is the part of each recording, one of `manifests.PARTS`; {} where the clips are not divided. `remedy` is what
    to do about clips that cannot be used.
    """

    prepared: records.PreparedSet
    title: str
    root: pathlib.Path
    unreadable: list[dict[str, str]]
    part: Mapping[str, str]
    remedy: str = "repair them and run again"


def open_own(
    data: str | os.PathLike,
    validation_data: str | os.PathLike | None,
    test_data: str | os.PathLike | None,
    data_dir: str | os.PathLike,
    how: audio.Reading,
) -> OwnClips:
    """Prepare (by `how`) and open the clips of `data`, or of all parts; says what their manifests leave to say.

    InputError for a path that is not there, and for parts that are not complete.
    """
    if validation_data is not None and test_data is None:
        raise errors.InputError(
            f"validation_data {validation_data} is given and no test_data: give test clips with --config.test_data, or "
            "leave both to folds"
        )
    given = {"data": data, "validation_data": validation_data, "test_data": test_data}
    paths = {name: pathlib.Path(path).expanduser() for name, path in given.items() if path is not None}
    for name, path in paths.items():
        if not lists.is_there(path):
            raise errors.InputError(f"there is no {path}: give --config.{name} {FORMS}")
    for name, path in paths.items():
        if name != "data" and lists.are_same(path, paths["data"]):
            raise errors.InputError(f"data and {name} are both {path}: give each part clips of its own")
    listing, options = _listed(paths, how)
    for note in listing.notes:
        logs.warn(note)
    name = _set_for(paths["data"], listing, data_dir)
    options = {**options, "how": how, "renew": True}
    prepared = datasets.prepare(FOLDER, data_dir=data_dir, manual_dir=paths["data"], name=name, **options)
    listed = {recording.path for recording in listing.recordings}
    undecoded = [entry for entry in prepared.report["unreadable"] if entry["path"] in listed]
    parts = {
        shard_jobs.stored_name(recording.path): recording.part for recording in listing.recordings if recording.part
    }
    unreadable = [*listing.unreadable, *undecoded]
    return OwnClips(prepared, title(data), folder.root_of(list(paths.values())), unreadable, parts)


def title(data: str | os.PathLike) -> str:
    """What people call the clips of a folder, an archive or a manifest: its own name, whatever the set is called."""
    path = pathlib.Path(data).expanduser().resolve()
    return (path.name if path.is_dir() else path.stem) or str(path)


def _listed(paths: Mapping[str, pathlib.Path], how: audio.Reading) -> tuple[listings.Listing, dict[str, pathlib.Path]]:
    """The listing of all parts, and the parts other than `data`."""
    options = {name: path for name, path in paths.items() if name != "data"}
    return preparing.list_source(datasets.CATALOG[FOLDER], paths["data"], how, **options), options


def _names(path: pathlib.Path, listing: listings.Listing) -> list[str]:
    """What a set of the clips at a path may be called: another of the same name, or with other files, may be there.

    The last one is what an earlier version would call it.
    """
    name, digest = folder.default_name(path), listings.digest(listing, sizes=False)
    own = hashlib.sha256(os.fsencode(f"{digest} {path.resolve()}")).hexdigest()
    ends = ("", *(f"_{each[:8]}" for each in (digest, own, listings.digest(listing))))
    return [f"{name}{end}" for end in ends if f"{name}{end}" not in datasets.CATALOG]


def _set_for(path: pathlib.Path, listing: listings.Listing, data_dir: str | os.PathLike) -> str:
    """The name of the set that holds the clips as they are, else of one to prepare anew for them, else a free one.

    A set prepared by hand is not prepared anew, nor one of files of the same names elsewhere, as long as these exist.
    """
    names, there = _names(path, listing), records.list_sets(data_dir)
    states, adoptable = file_states.of_listing(listing), []
    for name in (each for each in names if each in there):
        prepared = records.open_set(data_dir, name, warn=False)
        found, origin = renewal.difference(prepared, listing, states), prepared.report.get("from")
        if not found.kind:
            return name
        by_hand = prepared.report.get("by_hand") and found.kind == "changed"
        if found.kind != "listing" and not by_hand and (origin == str(path.resolve()) or not _exists(origin)):
            adoptable.append((origin != str(path.resolve()), name))
    return min(adoptable)[1] if adoptable else [*(each for each in names[:-1] if each not in there), names[-1]][0]


def _exists(path: str | None) -> bool:
    return path is not None and os.path.exists(path)


def changed_since(
    paths: Mapping[str, pathlib.Path], data_dir: str | os.PathLike, fingerprint: str, how: audio.Reading
) -> str:
    """How the clips at `paths` ("data", "validation_data", "test_data") differ from the set with this fingerprint.

    "" where they do not, or where that set is not in `data_dir` any more and no newer one of the same clips either.
    """
    listing, _ = _listed(paths, how)
    states, there, newer = file_states.of_listing(listing), records.list_sets(data_dir), ""
    for each in (each for each in _names(paths["data"], listing) if each in there):
        prepared = records.open_set(data_dir, each, warn=False)
        if prepared.fingerprint == fingerprint:
            found = renewal.difference(prepared, listing, states).changed
            return f"{each} {found}" if found else ""
        if renewal.difference(prepared, listing, states).kind != "listing":
            newer = f"{each} was prepared anew since"
    return newer


def check_names(labels: Sequence[str], counts: Sequence[int], title: str) -> None:
    """InputError for classes that differ only in case, spaces or in how an accent is coded, or are values, not names.

    `counts` are the clips of each class. Warns of classes that are named by whole numbers.
    """
    seen: dict[str, int] = {}
    for number, label in enumerate(labels):
        other = seen.setdefault(list_text.plain(label).casefold(), number)
        if other != number:
            raise errors.InputError(
                f"the classes {labels[other]!r} ({counts[other]} clips) and {label!r} ({counts[number]}) of {title} "
                "differ only in case, in spaces or in how an accent is coded: write one of them for both"
            )
    values = [answers.number(label) for label in labels]
    if any(value is None for value in values):
        return
    if len(values) > MOST_NUMBERS or any(value != round(value) for value in values):
        raise errors.InputError(
            f"the labels of {title} are {len(labels)} different numbers, such as {labels[0]} and {labels[-1]}, each of "
            "which would be a class: did you mean --config.target=regression? Classes are named, or numbered by "
            f"at most {MOST_NUMBERS} whole numbers"
        )
    logs.warn(
        f"the labels of {title} are numbers ({', '.join(labels)}), each of which is taken as the name of a "
        "class; --config.target=regression learns them as numbers"
    )


def one_of_each(group: Int64[np.ndarray, " n"], groups: Sequence[str], title: str) -> Int64[np.ndarray, " n"]:
    """Groups by number, as one where their names differ only in spaces or in how an accent is coded, which is said.

    Sets that earlier versions prepared may hold such names.
    """
    first: dict[str, int] = {}
    same = np.array([first.setdefault(list_text.plain(name), number) for number, name in enumerate(groups)], np.int64)
    if odd := [number for number, other in enumerate(same.tolist()) if number != other]:
        logs.warn(f"{title}: the groups {groups[same[odd[0]]]!r} and {groups[odd[0]]!r} are taken as one")
        return np.where(group < 0, group, same[group])
    return group
