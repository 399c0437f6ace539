"""What the folders of a collection say of its files: their class, and the part of a given division they belong to."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from voc2vec_jax.datasets import list_text

# Folders that are parts and no classes, such as train, Test_set, validation2
_PARTS = {"train": "train(ing)?", "validation": "val|valid.*|dev(elopment)?", "test": "test(ing)?"}
_BEHIND = r"[ _-]?(set|data|split|\d+)?"


class Place(NamedTuple):
    """The class of a file and its part, one of `manifests.PARTS`; "" where folders do not tell."""

    label: str
    part: str


def part_of(folder: str) -> str:
    """The part that a folder's name stands for; "" for none."""
    name = folder.strip().lower()
    return next((part for part, pattern in _PARTS.items() if re.fullmatch(f"({pattern}){_BEHIND}", name)), "")


def folder_of(name: str) -> str:
    """The folder of a path with slashes; "" for none."""
    return name.rpartition("/")[0]


def places(names: Iterable[str]) -> tuple[dict[str, Place], list[str]]:
    """The place of the files of each folder, by `folder_of`, and notes on what was taken for what.

    `names` are paths with slashes. A file's class is the folder it lies in, if there are two such folders or more.
    Folders of two or more parts are no classes, if all files lie in them: below the folders that all files share.
    """
    split = {folder: folder.split("/") if folder else [] for folder in dict.fromkeys(map(folder_of, names))}
    above = _shared(list(split.values()))
    tops = {parts[above] if len(parts) > above else "" for parts in split.values()}
    found = {folder: part_of(folder) for folder in sorted(tops) if part_of(folder)}
    divided, notes = len(set(found.values())) > 1, []
    if divided and len(found) < len(tops):
        divided = False
        beside = next((folder for folder in sorted(tops) if folder and folder not in found), "a file")
        notes.append(
            f"the folders {', '.join(found)} are not taken for parts of a division, as {beside} lies beside them"
        )
    least = above + 1 if divided else 0
    written = {folder: parts[-1] if len(parts) > least else "" for folder, parts in split.items()}
    labels = {text: list_text.plain(text) for text in sorted(set(written.values()))}
    labelled = len(set(labels.values()) - {""}) > 1
    if divided:
        taken = ", ".join(f"{folder} as {part}" for folder, part in found.items())
        inside = "classes are the folders in them" if any(labels.values()) else "their files have no class"
        notes.append(f"folders are taken for parts of a division, and not for classes ({taken}); {inside}")
    if labelled:
        notes += [f"the folder {text!a} is the class {label!r}" for text, label in labels.items() if text != label]
    here = {
        folder: Place(labels[written[folder]] if labelled else "", found[parts[above]] if divided else "")
        for folder, parts in split.items()
    }
    return here, notes


def _shared(split: Sequence[Sequence[str]]) -> int:
    """How many folders, from the top, all paths share."""
    first, last = min(split, default=[]), max(split, default=[])
    pairs = zip(first, last)
    return next((count for count, (one, other) in enumerate(pairs) if one != other), min(len(first), len(last)))
