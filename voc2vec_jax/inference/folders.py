"""The recordings in a folder."""

from pathlib import Path

from voc2vec_jax import audio, errors
from voc2vec_jax.datasets import scanning, trees
from voc2vec_jax.runs import logs


def scan(root: Path) -> scanning.Scan:
    """What a folder and those below it hold; what is left out is said. InputError without a recording."""
    found = scanning.scan(trees.FolderTree(root), sizes=False)
    for note in found.notes:
        logs.warn(f"{root}: {note}")
    if found.unsupported:
        logs.warn(f"{root}: left out what must be converted first: {', '.join(found.unsupported[:3])}")
    if not found.recordings:
        raise errors.InputError(f"{root} holds no audio file ({', '.join(audio.SUFFIXES)})")
    return found


def recordings(root: Path) -> list[str]:
    """The paths of all recordings in a folder and those below it, sorted."""
    return [str(root / name) for name, _ in scan(root).recordings]
