"""What the folders of a collection say of its files: their class, and the part of a given division they belong to."""

import re
from collections.abc import Sequence
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


def places(names: Sequence[str]) -> tuple[list[Place], list[str]]:
    """The place of each file, and notes on what was taken for what.

    `names` are paths with slashes. A file's class is the folder it lies in, if there are two such folders or more.
    Folders of two or more parts are no classes, if all files lie in them: below the folders that all files share.
    """
    split = [name.split("/") for name in names]
    above = _shared_folders(split)
    tops = {parts[above]: part_of(parts[above]) if len(parts) > above + 1 else "" for parts in split}
    found = {folder: part for folder, part in sorted(tops.items()) if part}
    divided, notes = len(set(found.values())) > 1, []
    if divided and len(found) < len(tops):
        divided = False
        beside = next(folder for folder, part in tops.items() if not part)
        notes.append(
            f"the folders {', '.join(found)} are not taken for parts of a division, as {beside} lies beside them"
        )
    labels = [_class(parts, above + 1 if divided else 0) for parts in split]
    classes = {plain for plain, _ in labels} - {""}
    if divided:
        taken = ", ".join(f"{folder} as {part}" for folder, part in found.items())
        inside = "classes are the folders in them" if classes else "their files have no class"
        notes.append(f"folders are taken for parts of a division, and not for classes ({taken}); {inside}")
    for plain, folder in sorted(set(labels)):
        if folder != plain and len(classes) > 1:
            notes.append(f"the folder {folder!a} is the class {plain!r}")
    here = [
        Place(plain if len(classes) > 1 else "", found[parts[above]] if divided else "")
        for parts, (plain, _) in zip(split, labels)
    ]
    return here, notes


def _shared_folders(split: Sequence[Sequence[str]]) -> int:
    """How many folders, from the top, all paths share."""
    first, last = min(split, default=[]), max(split, default=[])
    count = 0
    while count < min(len(first), len(last)) - 1 and first[count] == last[count]:
        count += 1
    return count


def _class(parts: Sequence[str], least: int) -> tuple[str, str]:
    """The folder that a file lies in as a class, and as it is written; "" above the first `least` folders."""
    folder = parts[-2] if len(parts) > least + 1 else ""
    return list_text.plain(folder), folder
