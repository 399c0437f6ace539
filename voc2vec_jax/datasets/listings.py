"""A data set before it is prepared: where to get it, and the list of its recordings."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from voc2vec_jax import audio, errors, printable
from voc2vec_jax.datasets import downloads

PROCEDURE = "mean, soxr HQ 16 kHz, int16, segments <= 10 s, 1"
RECORDINGS_AT_ONCE = 1 << 14
NOMINAL_BYTES = 512 << 10  # assumed for a recording of unknown size


class Recording(NamedTuple):
    """A source recording, or a stretch of one. `path` is unique in its set, names its records, and sorts listings.

    The path of a stretch is that of its file and the times in seconds, as in `a.wav#1.5-3`.
    """

    path: str
    locator: str  # argument of the listing's loader
    group: str = ""
    label: str = ""
    source_bytes: int = NOMINAL_BYTES
    part: str = ""  # of a division that the user gives: one of `manifests.PARTS`
    start_seconds: float = 0.0  # in its file


@runtime_checkable
class Loader(Protocol):
    """Reads recordings. It is pickled to worker processes."""

    def stream(
        self, locator: str, how: audio.Reading = audio.DEFAULT, remark: audio.Remark | None = None
    ) -> Iterator[Float32[np.ndarray, " _"]]:
        """Mono audio at 16 kHz in blocks, to be kept whole; `audio.AudioError` for an unusable recording."""
        ...

    def load(
        self, locator: str, how: audio.Reading = audio.DEFAULT, remark: audio.Remark | None = None
    ) -> Float32[np.ndarray, " s"]:
        """The blocks of `stream` as one."""
        return np.concatenate([*self.stream(locator, how, remark)])

    def file(self, locator: str) -> str | None:
        """The file on disk that holds a recording, such as an archive; None for a recording that is made."""
        ...


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a source found: recordings in their final order, class names in label order, and what was left out."""

    recordings: list[Recording]
    labels: tuple[str, ...]
    loader: Loader
    unreadable: list[dict[str, str]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    default_name: str = ""  # of the prepared set, where the source is not a set with a name
    has_stretches: bool = False  # some recordings are stretches of files
    how: audio.Reading = audio.DEFAULT  # how the recordings are read


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set as the catalogue knows it.

    holds: what its folder or archive must hold, for people.
    list_recordings: called as `list_recordings(source, manual_dir, **options)`; lists what a user has.
    paper_*: the numbers in tables I and II of the voc2vec paper, None where they have none.
    difference: why our numbers may differ from the paper's, as far as is known.
    remote: a plain public link, if there is one: without browser, account or agreement.
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
    """A data set was not found."""


def missing(source: Source, manual_dir: pathlib.Path | None, why: str = "") -> MissingError:
    """An error that says where to get a data set and where to put it; `why` is why a download failed."""
    where = "no --manual_dir was given" if manual_dir is None else f"it is not in {manual_dir}"
    if manual_dir is not None and not manual_dir.exists():
        where = f"there is no {manual_dir}"
    where = why or where
    place = manual_dir / source.name if manual_dir else f"DIR/{source.name} and give --manual_dir=DIR"
    return MissingError(
        f"{source.title} cannot be prepared, {where}: get it from {source.url} (licence: {source.licence}) and put "
        f"the archive or the unpacked folder, which must hold {source.holds}, into {place}"
    )


def shown(path: str) -> str:
    """A path as it is printed: its begin and its end if it is longer than people make them."""
    return printable.name(path, 160)


def some(names: Sequence[str]) -> str:
    """The first three names."""
    return ", ".join(map(shown, names[:3])) + (", ..." if len(names) > 3 else "")


def digest(listing: Listing, sizes: bool = True) -> str:
    """SHA-256 of everything that determines the records: paths, sizes, groups, labels, procedure.

    Without `sizes`, of everything that files themselves do not determine.
    """
    how = f"{dict(listing.how._asdict())}\n" if listing.how != audio.DEFAULT else ""
    found = hashlib.sha256(f"{PROCEDURE}\n{how}{listing.labels}\n".encode())
    for start in range(0, len(listing.recordings), RECORDINGS_AT_ONCE):
        lot = listing.recordings[start : start + RECORDINGS_AT_ONCE]
        lines = (f"{path}\0{group}\0{label}\0{size if sizes else 0}\n" for path, _, group, label, size, *_ in lot)
        found.update("".join(lines).encode("utf-8", "surrogateescape"))
    return found.hexdigest()
