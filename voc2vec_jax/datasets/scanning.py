"""A folder or archive searched for recordings: those to read, and notes on everything else that looks like one."""

import functools
import mimetypes
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from voc2vec_jax import audio
from voc2vec_jax.audio import sniffing
from voc2vec_jax.datasets import folder_walk, listings, trees

_TYPES = mimetypes.MimeTypes(filenames=())  # Python's own list, and not the system's


class Scan(NamedTuple):
    """`recordings` are (name, bytes), sorted; `unsupported` are in formats to convert first.

    `has_links` says whether a file may have several names. `notes` name what is left out.
    """

    recordings: list[tuple[str, int]]
    unsupported: list[str]
    files: int
    has_links: bool
    notes: list[str]


def scan(tree: trees.Tree, sizes: bool = True) -> Scan:
    """Search a tree. Without `sizes`, a folder's files are not looked at, and their bytes are 0."""
    walk, recordings, others = folder_walk.Walk(os.fspath(tree.root)), [], []
    for name, size in _files(tree, walk, sizes):
        if trees.is_audio(name):
            recordings.append((name, size))
        else:
            others.append(name)
    recordings.sort()
    unsupported = sorted(name for name in others if name.lower().endswith(trees.UNSUPPORTED))
    alike = like_recordings(tree, others)
    hidden = sorted(
        name for name in walk.hidden if trees.is_audio(name) and not os.path.basename(name).startswith("._")
    )
    left_out = [
        (sorted(f"{name} ({kind})" for name, kind in walk.no_files.items()), "is no file"),
        (sorted(walk.again), "is a link to a folder that is searched anyway"),
        (alike, f"looks like a recording and has none of their endings ({' '.join(audio.SUFFIXES)})"),
        (hidden, "is hidden"),
    ]
    notes = [f"left out, as it {why}: {_several(names)}" for names, why in left_out if names]
    return Scan(recordings, unsupported, len(recordings) + len(others), walk.has_links, notes)


def _files(tree: trees.Tree, walk: folder_walk.Walk, sizes: bool) -> Iterator[tuple[str, int]]:
    """Name and bytes of every file; completes `walk`."""
    if isinstance(tree, trees.FolderTree):
        for name, entry in walk.files():
            size, several = folder_walk.look(entry) if sizes else (0, False)
            walk.has_links |= several
            yield name, size
    else:
        yield from tree.files()
        walk.no_files = tree.no_files() if isinstance(tree, trees.TarTree) else {}


def like_recordings(tree: trees.Tree, names: Iterable[str]) -> list[str]:
    """Names, sorted, of files that begin like recordings though their endings are not those of recordings.

    Files whose endings say that they are text, images and so on are not looked at.
    """
    found = []
    for name in sorted(names):
        if not trees.is_audio(name) and not name.lower().endswith(trees.UNSUPPORTED):
            kind = _kind_by_ending(os.path.splitext(name)[1].lower())
            if kind in ("", "audio", "video") and _is_media(tree.head(name, sniffing.HEAD_BYTES)):
                found.append(name)
    return found


@functools.lru_cache(1 << 12)
def _kind_by_ending(ending: str) -> str:
    """Such as "audio", "image" or "text"; "" for an ending that tells nothing."""
    return (_TYPES.guess_type(f"a{ending}")[0] or "").partition("/")[0]


def _is_media(head: bytes) -> bool:
    """Whether a file begins as recordings do."""
    return bool(sniffing.kind(head).name and not sniffing.refusal(head)) or head.startswith(b"NIST_1A")


def _several(names: Sequence[str]) -> str:
    return listings.some(names) + (f" ({len(names)} of them)" if len(names) > 3 else "")
