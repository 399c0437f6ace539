"""What a data set is before it is prepared: where it is to be had, and the list of its recordings."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from voc2vec_jax import errors
from voc2vec_jax.datasets import downloads

NOMINAL_BYTES = 512 << 10  # of a recording whose size the listing does not know


class Recording(NamedTuple):
    """A source recording; listings are sorted by `path`, which is unique in its set and names its records."""

    path: str
    locator: str  # what the listing's loader takes
    group: str = ""
    label: str = ""
    source_bytes: int = NOMINAL_BYTES


@runtime_checkable
class Loader(Protocol):
    """Reads recordings, in any process: it is pickled."""

    def load(self, locator: str) -> Float32[np.ndarray, " s"]:
        """Mono audio at 16 kHz; `audio.AudioError` for a recording that cannot be used."""
        ...


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a source found: recordings in their final order, class names in label order, and what it left out."""

    recordings: list[Recording]
    labels: tuple[str, ...]
    loader: Loader
    unreadable: list[dict[str, str]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    default_name: str = ""  # of the prepared set, where the source has no name of its own


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set as the catalogue knows it.

    `holds` says what its folder or archive must hold; the numbers that begin with `paper_` are those
    of the voc2vec paper's tables, None where it has none, and `difference` is what is known of why ours may be others;
    `remote` is a plain public link. `list_recordings(source, manual_dir, **options)` lists it where a user put it.
    """

    name: str
    title: str
    url: str
    licence: str
    holds: str
    list_recordings: Callable[..., Listing]
    paper_hours: float | None = None
    paper_samples: int | None = None
    paper_mean_seconds: float | None = None
    paper_classes: int | None = None
    difference: str = ""
    remote: downloads.Remote | None = None


class MissingError(errors.InputError):
    """A data set is not where it was looked for."""


def missing(source: Source, manual_dir: pathlib.Path | None, why: str = "") -> MissingError:
    """The error that tells a user where to get a data set and where to put it; `why` it could not be downloaded."""
    where = "no --manual_dir was given" if manual_dir is None else f"it is not in {manual_dir}"
    if manual_dir is not None and not manual_dir.exists():
        where = f"there is no {manual_dir}"
    where = why or where
    place = manual_dir / source.name if manual_dir else f"DIR/{source.name} and give --manual_dir=DIR"
    return MissingError(
        f"{source.title} cannot be prepared, {where}: get it from {source.url} (licence: {source.licence}) and put "
        f"the archive or the unpacked folder, which must hold {source.holds}, into {place}"
    )
