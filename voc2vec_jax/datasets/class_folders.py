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
    Folders of two or more parts are no classes, if all files lie in them: below the folders that all files share, or
    in folders of classes. Folders of one name in several others are a note, as those above could be the classes.
    """
    split = {folder: folder.split("/") if folder else [] for folder in dict.fromkeys(map(folder_of, names))}
    above = _shared(list(split.values()))
    at = above
    tops = {parts[above] if len(parts) > above else "" for parts in split.values()}
    inner = {parts[-1] if len(parts) > above + 1 else "" for parts in split.values()}
    if len(tops) > 1 and all(map(part_of, inner)) and len(set(map(part_of, inner))) > 1:
        at, tops = -1, inner
    found = {folder: part_of(folder) for folder in sorted(tops) if part_of(folder)}
    divided, notes = len(set(found.values())) > 1, []
    if divided and len(found) < len(tops):
        divided = False
        beside = next((folder for folder in sorted(tops) if folder and folder not in found), "a file")
        notes.append(
            f"the folders {', '.join(found)} are not taken for parts of a division, as {beside} lies beside them"
        )
    classes = {
        folder: parts[:-1] if at < 0 else parts[above + 1 :] if divided else parts for folder, parts in split.items()
    }
    written = {folder: parts[-1] if parts else "" for folder, parts in classes.items()}
    labels = {text: list_text.plain(text) for text in sorted(set(written.values()))}
    labelled = len(set(labels.values()) - {""}) > 1
    if divided:
        taken = ", ".join(f"{folder} as {part}" for folder, part in found.items())
        which = "around" if at < 0 else "in"
        inside = f"classes are the folders {which} them" if any(labels.values()) else "their files have no class"
        notes.append(f"folders are taken for parts of a division, and not for classes ({taken}); {inside}")
    parts = [text for text in labels if part_of(text)]
    if labelled and not divided and not notes and len(set(map(part_of, parts))) > 1:
        notes.append(f"the folders {', '.join(parts)} are taken for classes, as not all files lie in folders of parts")
    if labelled:
        notes += [f"the folder {text!a} is the class {label!r}" for text, label in labels.items() if text != label]
        notes += _repeated(sorted({tuple(parts[-2:]) for parts in classes.values() if len(parts) > 1}))
    here = {
        folder: Place(labels[written[folder]] if labelled else "", found[parts[at]] if divided else "")
        for folder, parts in split.items()
    }
    return here, notes


def _repeated(pairs: Sequence[tuple[str, ...]]) -> list[str]:
    """A note where class folders of one name lie in several folders, from (folder, class folder in it)."""
    above, classes = (list(dict.fromkeys(each)) for each in zip(*pairs)) if pairs else ([], [])
    if len(pairs) == len(classes):
        return []
    return [
        f"a file's class is the folder that it lies in ({_few(classes)}) and not the one above ({_few(above)}): list "
        "the files in a manifest with a column label if it is to be that"
    ]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def _shared(split: Sequence[Sequence[str]]) -> int:
    """How many folders, from the top, all paths share."""
    first, last = min(split, default=[]), max(split, default=[])
    pairs = zip(first, last)
    return next((count for count, (one, other) in enumerate(pairs) if one != other), min(len(first), len(last)))
