"""One shard of a set to prepare: its recordings, decoded and cut, and what is found out about them on the way."""

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator

from voc2vec_jax import audio
from voc2vec_jax.datasets import listings, records, shards, whole


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """One shard to make; its fields determine its content."""

    path: pathlib.Path
    loader: listings.Loader
    recordings: tuple[listings.Recording, ...]
    how: audio.Reading = audio.DEFAULT
    sources: str = ""  # digest of the states of the files


@dataclasses.dataclass
class Oddities:
    """What is found out about recordings while they are read, each by its path.

    unreadable: reasons why a recording cannot be used. remarks: kind and text of what is odd about one that is used.
    clipped: the number of samples that are beyond int16.
    """

    unreadable: list[dict[str, str]] = dataclasses.field(default_factory=list)
    remarks: list[dict[str, str]] = dataclasses.field(default_factory=list)
    clipped: dict[str, int] = dataclasses.field(default_factory=dict)


def finished(job: ShardJob) -> bool:
    """Whether an earlier run left this shard of the same files, with no unreadable one, nor one that was cut."""
    shard = shards.load(job.path)
    if shard is None or shard.sources != job.sources:
        return False
    return not (shard.unreadable or any(said["kind"] == "truncated" for said in shard.remarks))


def make_shard(job: ShardJob) -> int:
    """Decodes and writes one shard; returns the number of recordings read."""
    odd = Oddities()
    found = examples(job.loader, job.recordings, odd, job.how)
    shards.write(job.path, found, odd.unreadable, odd.clipped, odd.remarks, job.sources)
    return len(job.recordings)


def stored_name(path: str) -> str:
    """The name under which a recording is kept: its path, with bytes that are no UTF-8 written out."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def examples(
    loader: listings.Loader, recordings: Iterable[listings.Recording], odd: Oddities, how: audio.Reading
) -> Iterator[records.Example]:
    """The records of some recordings, with one recording in memory at a time. Adds to `odd`."""
    for recording in recordings:
        path, told = stored_name(recording.path), audio.Told()
        try:
            samples = whole.filled(loader.stream(recording.locator, how, told))
        except audio.AudioError as error:
            odd.unreadable.append({"path": path, "reason": error.reason})
            continue
        with samples:
            odd.remarks += [{"path": path, "kind": kind, "text": text} for kind, text in told.remarks]
            if samples.clipped:
                odd.clipped[path] = samples.clipped
            cuts, offset = audio.segments(len(samples)), round(recording.start_seconds * audio.RATE_HZ)
            for k, (start, stop) in enumerate(cuts):
                name = f"{path}#{k}" if len(cuts) > 1 else path
                cut = samples.part(start, stop)
                yield records.Example(cut, name, path, recording.group, recording.label, offset + start)
