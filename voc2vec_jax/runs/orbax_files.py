"""What Orbax's files claim, before Orbax is let at them: a stranger may have written them, and the manifest's hashes.

A few bytes can describe an array of terabytes, since what is not stored counts as zeros, and a tree that is nested
deeper than a process has stack for.
"""

import math
import pathlib
from typing import Any

import jax

from voc2vec_jax import errors, opening, printable

_MOST_BYTES = 16_000_000  # of the description of a tree; one of 1,000 arrays has 200,000
_MOST_LEAVES, _DEEPEST = 20_000, 32
_FREE_BYTES, _MOST_EXPANSION = 1 << 28, 20  # arrays of so many bytes, or of so many times their files


def check(state: pathlib.Path) -> None:
    """Raises InputError or ValueError unless `state` describes a tree of bounded size. Other files are not opened."""
    described = opening.read_json(state / "_METADATA", _MOST_BYTES)
    leaves = described["tree_metadata"]
    if len(leaves) > _MOST_LEAVES or any(len(leaf["key_metadata"]) > _DEEPEST for leaf in leaves.values()):
        raise ValueError(f"a tree of more than {_MOST_LEAVES} arrays, or deeper than {_DEEPEST}")


def tree(metadata: Any) -> dict[str, Any]:
    """The tree of arrays in Orbax's answer. ValueError where it found none."""
    found = getattr(metadata.item_metadata, "tree", None)
    if not isinstance(found, dict):
        raise ValueError("the files of its arrays are absent or damaged")
    return found


def check_claims(state: pathlib.Path, tree: Any) -> None:
    """Raises InputError for arrays of Orbax's metadata that need far more memory than their files have bytes."""
    held = sum(path.stat().st_size for path in state.rglob("*") if path.is_file())
    most = max(_FREE_BYTES, _MOST_EXPANSION * held)
    needed = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        size = _size(leaf.shape, leaf.dtype)
        chunk = _size(getattr(leaf.storage, "chunk_shape", None) or (), leaf.dtype)
        needed += size
        if needed > most or chunk > max(_FREE_BYTES, 2 * size):
            name = printable.name(jax.tree_util.keystr(path, simple=True, separator="/"))
            shape = printable.value(tuple(leaf.shape))
            raise errors.InputError(
                f"{state.parent}: its arrays up to {name} of shape {shape} would take {max(needed, chunk):,} bytes, "
                f"and its files have {held:,}: take another checkpoint"
            )


def _size(shape: tuple[int, ...], dtype: Any) -> int:
    return math.prod(shape) * dtype.itemsize
