"""One entry of a name table: a parameter of ours, and its names and its array in fairseq and in transformers."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

_SPELLINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "own": (),
    "hf": (
        ("mask_time_emb_vector", "masked_spec_embed"),
        (".weight_g", ".parametrizations.weight.original0"),
        (".weight_v", ".parametrizations.weight.original1"),
    ),
    "fairseq": (
        (".parametrizations.weight.original0", ".weight_g"),
        (".parametrizations.weight.original1", ".weight_v"),
    ),
}


def spell(name: str, layout: str) -> str:
    """A stored name as the tables of `layout` spell it."""
    for old, new in _SPELLINGS[layout]:
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


@dataclasses.dataclass(frozen=True)
class Transform:
    """Turns a stored array into ours and back, without copying."""

    axes: tuple[int, ...] = ()  # a permutation that is its own inverse
    singletons: tuple[int, ...] = ()  # axes of length one that only the stored array has

    def to_ours(self, stored: np.ndarray) -> np.ndarray:
        array = stored.transpose(self.axes) if self.axes else stored
        return np.squeeze(array, self.singletons) if self.singletons else array

    def to_theirs(self, ours: np.ndarray) -> np.ndarray:
        array = np.expand_dims(ours, self.singletons) if self.singletons else ours
        return array.transpose(self.axes) if self.axes else array


SAME = Transform()
LINEAR = Transform(axes=(1, 0))
CONV = Transform(axes=(2, 1, 0))


@dataclasses.dataclass(frozen=True)
class Entry:
    """One of our parameters: its path, its shape (of one layer when stacked) and its names elsewhere.

    A stacked parameter has one name per layer. With `part` (k, n) it is the k-th of n equal parts of the stored array
    along its first axis. A source may lack a parameter that is not `needed`.
    """

    ours: str
    shape: tuple[int, ...]
    fairseq: tuple[str, ...]
    hf: tuple[str, ...]
    transform: Transform = SAME
    stacked: bool = False
    part: tuple[int, int] = (0, 1)
    needed: bool = True

    def names(self, layout: str, prefix: str = "") -> tuple[str, ...]:
        """The names in "fairseq" or "hf". transformers puts `prefix` before names of the encoder, not of heads."""
        names = self.fairseq if layout == "fairseq" else self.hf
        return tuple(prefix + name for name in names) if self.ours.startswith("encoder/") else names

    def own(self) -> "Entry":
        """The entry in our own file layout: the path with dots, and the array unchanged."""
        name = (self.ours.replace("/", "."),)
        return Entry(self.ours, self.full_shape, name, name, needed=self.needed and bool(self.fairseq or self.hf))

    @property
    def stored_shape(self) -> tuple[int, ...]:
        ours = np.broadcast_to(np.float32(0), self.shape)
        first, *rest = self.transform.to_theirs(ours).shape
        return (first * self.part[1], *rest)

    @property
    def full_shape(self) -> tuple[int, ...]:
        depth = len(self.fairseq or self.hf)
        return (depth, *self.shape) if self.stacked else self.shape


_KINDS = {  # kind -> (our leaf, stored leaf, transform, how its shape follows from the module's sizes)
    "linear": (("kernel", "weight", LINEAR, lambda s: s), ("bias", "bias", SAME, lambda s: s[1:])),
    "bare linear": (("kernel", "weight", LINEAR, lambda s: s),),
    "norm": (("scale", "weight", SAME, lambda s: s), ("bias", "bias", SAME, lambda s: s)),
    "conv": (("kernel", "weight", CONV, lambda s: s), ("bias", "bias", SAME, lambda s: s[2:])),
    "bare conv": (("kernel", "weight", CONV, lambda s: s),),
    "normed conv": (
        ("g", "weight_g", CONV, lambda s: (s[0], 1, 1)),
        ("v", "weight_v", CONV, lambda s: s),
        ("bias", "bias", SAME, lambda s: s[2:]),
    ),
}


def module(kind: str, ours: str, fairseq: str | None, hf: str | None, *sizes: int, **options: Any) -> Iterator[Entry]:
    """The entries of one module; None marks a layout without it."""
    for leaf, stored, transform, shape in _KINDS[kind]:
        names = [(f"{stem}.{stored}",) if stem is not None else () for stem in (fairseq, hf)]
        hf_names = tuple(spell(name, "hf") for name in names[1])
        yield Entry(f"{ours}/{leaf}", shape(sizes), names[0], hf_names, transform, **options)


def stacked(entries: Iterable[Entry], fairseq: Iterable[str], hf: Iterable[str]) -> Iterator[Entry]:
    """Entries of one block, with the stored names of every block, each behind its layer's stem."""
    fairseq, hf = tuple(fairseq), tuple(hf)
    for entry in entries:
        yield dataclasses.replace(
            entry,
            ours=f"encoder/layers/{entry.ours}",
            fairseq=tuple(f"{stem}.{name}" for stem in fairseq for name in entry.fairseq),
            hf=tuple(f"{stem}.{name}" for stem in hf for name in entry.hf),
            stacked=True,
        )
