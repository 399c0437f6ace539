"""Preparing a data set: list its recordings, decode them in parallel, leave a prepared set on disk.

Which recording goes to which shard is a pure function of the listing, shards appear whole or not at all,
and a rerun keeps those that are there: the records are the same whatever was killed when.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import multiprocessing
import os
import pathlib
import re
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent import futures
from multiprocessing import connection
from typing import Any

import tqdm

from voc2vec_jax import audio, errors
from voc2vec_jax.datasets import records, shards, sources

SHARD_SOURCE_BYTES = 256 << 20
LEAST_SHARDS = 8  # of a small set, so that every core has work and a kill costs little
MOST_SHARDS = 512
PROCEDURE = "mean, soxr HQ 16 kHz, int16, segments <= 10 s, 1"
LISTING_FILE = "listing.json"
NAME_PATTERN = "[a-z][a-z0-9_]*"
PROGRESS_SECONDS = 10.0


def prepare(
    source: sources.Source,
    *,
    data_dir: pathlib.Path,
    manual_dir: pathlib.Path | None = None,
    workers: int | None = None,
    progress: bool = True,
    name: str | None = None,
    reserved: Collection[str] = (),
    **options: Any,
) -> records.PreparedSet:
    """Prepares `source` as set `name`, none of the `reserved`, and opens it; a set that is there is kept as it is.

    `workers` processes (default: the cores) share the shards; a script that calls this with more than one
    needs the usual `if __name__ == "__main__"`. `errors.InputError` for a fault of the data,
    `errors.RunError` for one of the disk or of a worker.
    """
    try:
        listing = list_source(source, manual_dir, **options)
    except sources.MissingError:
        if (name or source.name) in records.list_sets(data_dir):
            return records.open_set(data_dir, name or source.name)
        raise
    name = _checked_name(name or listing.default_name or source.name, reserved)
    with _locked(data_dir, name):
        if not _is_there(data_dir, name, listing):
            _prepare(source, listing, data_dir, name, workers or _cores(), progress)
    return records.open_set(data_dir, name)


def list_source(source: sources.Source, manual_dir: pathlib.Path | None, **options: Any) -> sources.Listing:
    """The recordings of a source, each path once; `errors.InputError` when it has no builder or no data."""
    if source.list_recordings is None:
        raise errors.InputError(
            f"{source.title} has no builder yet: prepare its audio with `folder --name={source.name}`; it is to be had "
            f"from {source.url} (licence: {source.licence}) and holds {source.holds}"
        )
    return _unique(source.list_recordings(source, manual_dir, **options))


def listing_digest(listing: sources.Listing) -> str:
    """SHA-256 of everything that decides the records: paths, sizes, groups, labels, procedure."""
    digest = hashlib.sha256(f"{PROCEDURE}\n{listing.labels}\n".encode())
    for recording in listing.recordings:
        fields = (recording.path, recording.group, recording.label, str(recording.source_bytes))
        digest.update("\0".join(fields).encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def assign(recordings: Sequence[sources.Recording]) -> list[list[sources.Recording]]:
    """Consecutive recordings to shards of about equal source bytes; no shard is empty."""
    total = sum(recording.source_bytes for recording in recordings)
    count = max(-(-total // SHARD_SOURCE_BYTES), min(LEAST_SHARDS, len(recordings)))
    count = min(count, MOST_SHARDS)
    plan: dict[int, list[sources.Recording]] = {}
    before = 0
    for recording in recordings:
        plan.setdefault(before * count // max(total, 1), []).append(recording)
        before += recording.source_bytes
    return list(plan.values())


def _unique(listing: sources.Listing) -> sources.Listing:
    first: dict[str, sources.Recording] = {}
    for recording in listing.recordings:
        first.setdefault(recording.path, recording)
    repeats = len(listing.recordings) - len(first)
    if not repeats:
        return listing
    notes = [*listing.notes, f"{repeats} recordings are listed more than once: the first entry of each was kept"]
    return dataclasses.replace(listing, recordings=list(first.values()), notes=notes)


def _checked_name(name: str, reserved: Collection[str]) -> str:
    if name in reserved:
        raise errors.InputError(f"{name!r} is the name of another data set: choose a --name for this one")
    if not re.fullmatch(NAME_PATTERN, name):
        raise errors.InputError(
            f"{name!r} is no name for a prepared set: use small letters, digits and underscores, a letter first"
        )
    return name


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _locked(data_dir: pathlib.Path, name: str) -> Iterator[None]:
    try:
        (data_dir / name).mkdir(parents=True, exist_ok=True)
        lock = (data_dir / name / ".lock").open("w")
    except OSError as error:
        raise errors.InputError(
            f"{data_dir / name} cannot be written ({error.strerror}): choose another --data_dir"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise errors.InputError(f"{data_dir / name} is being prepared by another process: wait for it") from error
        yield


def _is_there(data_dir: pathlib.Path, name: str, listing: sources.Listing) -> bool:
    folder = records.set_folder(data_dir, name)
    if not folder.exists():
        return False
    prepared = records.open_set(data_dir, name)
    if prepared.report["listing"] != listing_digest(listing):
        raise errors.InputError(
            f"{folder} was prepared from other recordings ({prepared.report['listed']} then, {len(listing.recordings)} "
            f"now, or changed ones): delete it to prepare again, or choose another --name"
        )
    return True


def _prepare(
    source: sources.Source, listing: sources.Listing, data_dir: pathlib.Path, name: str, workers: int, progress: bool
) -> None:
    partial = _partial_folder(data_dir, name, listing)
    plan = assign(listing.recordings)
    paths = [partial / records.shard_name(name, shard, len(plan)) for shard in range(len(plan))]
    jobs = [Job(path, listing.loader, tuple(part)) for path, part in zip(paths, plan)]
    done = sum(len(job.recordings) for job in jobs if _finished(job))
    with _shown(name, len(listing.recordings), done, progress) as advance:
        _run([job for job in jobs if not _finished(job)], workers, advance)
    made = [shards.load(path) for path in paths]
    report = build_report(source, listing, made)
    if not report["records"]:
        shutil.rmtree(partial)
        raise errors.InputError(_why_nothing(name, listing, report["unreadable"]))
    info = {"description": source.title, "homepage": source.url, "license": source.licence}
    try:
        shards.finish(partial, name, made, listing.labels, report, **info)
        for path in (*map(shards.sidecar, paths), partial / LISTING_FILE):
            path.unlink()
        _clear_temporaries(partial)
        os.replace(partial, records.set_folder(data_dir, name))
    except OSError as error:
        raise errors.RunError(f"cannot finish {partial} ({error}): free the disk and run again to continue") from error


def _partial_folder(data_dir: pathlib.Path, name: str, listing: sources.Listing) -> pathlib.Path:
    """The folder of finished shards, emptied when another listing left them there."""
    partial = records.partial_folder(data_dir, name)
    digest = listing_digest(listing)
    marker = partial / LISTING_FILE
    if partial.exists() and (not marker.exists() or json.loads(marker.read_text())["listing"] != digest):
        print(f"{name}: the recordings have changed since the unfinished run: starting over", file=sys.stderr)
        shutil.rmtree(partial)
    partial.mkdir(exist_ok=True)
    _clear_temporaries(partial)
    shards.write_text(marker, json.dumps({"listing": digest}))
    return partial


def _clear_temporaries(folder: pathlib.Path) -> None:
    """Removes what killed workers left, also those that outlived their parent by a moment."""
    for stale in folder.glob("*.tmp"):
        stale.unlink(missing_ok=True)


def _why_nothing(name: str, listing: sources.Listing, unreadable: Sequence[dict[str, str]]) -> str:
    first = f"{unreadable[0]['path']}: {unreadable[0]['reason']}" if unreadable else "none is listed"
    return f"none of the {len(listing.recordings)} recordings of {name} can be used, the first is {first}"


@dataclasses.dataclass(frozen=True)
class Job:
    """One shard to make; a pure function of its fields."""

    path: pathlib.Path
    loader: sources.Loader
    recordings: tuple[sources.Recording, ...]


def _finished(job: Job) -> bool:
    """Whether an earlier run left this shard, with nothing unreadable that may be readable by now."""
    shard = shards.load(job.path)
    return shard is not None and not shard.unreadable


def make_shard(job: Job) -> int:
    """Decodes and writes one shard; returns how many recordings were seen."""
    unreadable: list[dict[str, str]] = []
    clipped: dict[str, int] = {}
    shards.write(job.path, examples(job.loader, job.recordings, unreadable, clipped), unreadable, clipped)
    return len(job.recordings)


def examples(
    loader: sources.Loader,
    recordings: Iterable[sources.Recording],
    unreadable: list[dict[str, str]],
    clipped: dict[str, int],
) -> Iterator[records.Example]:
    """The records of some recordings, one recording in memory at a time; appends what is unusable or clipped."""
    for recording in recordings:
        path = recording.path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        try:
            samples, over = audio.to_int16(loader.load(recording.locator))
        except audio.AudioError as error:
            unreadable.append({"path": path, "reason": error.reason})
            continue
        if over:
            clipped[path] = over
        cuts = audio.segments(len(samples))
        for k, (start, stop) in enumerate(cuts):
            name = f"{path}#{k}" if len(cuts) > 1 else path
            yield records.Example(samples[start:stop], name, path, recording.group, recording.label, start)


def _run(jobs: Sequence[Job], workers: int, advance: Callable[[int], None]) -> None:
    if min(workers, len(jobs)) <= 1:
        for job in jobs:
            advance(make_shard(job))
        return
    workers = min(workers, len(jobs))
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(workers, context, _start_worker) as pool:
        try:
            for future in futures.as_completed([pool.submit(make_shard, job) for job in jobs]):
                advance(future.result())
        except futures.process.BrokenProcessPool as error:
            raise errors.RunError(
                "a worker process died, perhaps for want of memory: run again to continue, with fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start_worker() -> None:
    """Leaves Ctrl-C to the parent, and ends the worker when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(errors.EXIT_FAULT)


@contextlib.contextmanager
def _shown(name: str, total: int, done: int, progress: bool) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with each number of recordings done: a bar on a terminal, lines elsewhere."""
    if not progress:
        yield lambda count: None
    elif sys.stderr.isatty():
        with tqdm.tqdm(total=total, initial=done, desc=name, unit="file") as bar:
            yield bar.update
    else:
        yield _line_printer(name, total, done)


def _line_printer(name: str, total: int, done: int) -> Callable[[int], None]:
    last = time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        if done == total or time.monotonic() - last >= PROGRESS_SECONDS:
            last = time.monotonic()
            print(f"{name}: {done} of {total} recordings", file=sys.stderr, flush=True)

    return advance


def build_report(source: sources.Source, listing: sources.Listing, made: Sequence[shards.Shard]) -> dict[str, Any]:
    """What preparing found: counts, hours, clipped samples, unreadable files, warnings and the paper's numbers."""
    samples: Counter[str] = Counter()
    for shard in made:
        for row in shard.rows:
            samples[row.recording] += row.samples
    hours = sum(samples.values()) / audio.RATE_HZ / 3600
    clipped = {path: count for shard in made for path, count in shard.clipped.items()}
    warnings = []
    if source.paper_samples and len(listing.recordings) != source.paper_samples:
        warnings.append(f"{len(listing.recordings)} recordings where the paper has {source.paper_samples}")
    return {
        "title": source.title,
        "listing": listing_digest(listing),
        "listed": len(listing.recordings),
        "files": len(samples),
        "records": sum(len(shard.rows) for shard in made),
        "hours": hours,
        "mean_seconds": hours * 3600 / max(len(samples), 1),
        "paper_samples": source.paper_samples,
        "paper_hours": source.paper_hours,
        "clipped_samples": sum(clipped.values()),
        "clipped_files": clipped,
        "unreadable": [*listing.unreadable, *(bad for shard in made for bad in shard.unreadable)],
        "warnings": warnings,
        "notes": listing.notes,
    }
