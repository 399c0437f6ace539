"""Preparing a data set: list its recordings, decode them in parallel, write a prepared set to disk.

The listing alone decides which recording goes to which shard. A shard appears whole or not at all, and a rerun keeps
the shards that are there. So the records are the same, whatever was killed on the way.
"""

import dataclasses
import fcntl
import functools
import gc
import itertools
import json
import pathlib
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent import futures
from typing import Any

import numpy as np
from jaxtyping import Int64

from voc2vec_jax import audio, errors, opening, printable
from voc2vec_jax.datasets import file_states, listings, records, renewal, shard_jobs, shards, worker_processes
from voc2vec_jax.datasets import progress as progresses
from voc2vec_jax.runs import files

SHARD_SOURCE_BYTES = 256 << 20
LEAST_SHARDS = 8  # so that a small set keeps every core busy and a kill costs little
MOST_SHARDS = 512
LISTING_FILE = "listing.json"
NAME_PATTERN = "[a-z][a-z0-9_]*"
SAMPLED_RECORDINGS = 8  # decoded to predict the size of the others
SPACE_MARGIN = 1.05
BYTES_PER_SAMPLE = 2


def prepare(
    source: listings.Source,
    *,
    data_dir: pathlib.Path,
    manual_dir: pathlib.Path | None = None,
    workers: int | None = None,
    progress: bool = True,
    how: audio.Reading = audio.DEFAULT,
    name: str | None = None,
    reserved: Collection[str] = (),
    part: tuple[int, int] | None = None,
    renew: bool = False,
    replace: bool = False,
    **options: Any,
) -> records.PreparedSet | None:
    """Prepares `source` as set `name` and opens it; a set that is there is kept as it is.

    workers: processes (default: one per core); a script that uses several needs `if __name__ == "__main__"`.
    how: how recordings are read.
    reserved: names of other sets, which are refused.
    part: `(i, n)` makes only every n-th shard, from the i-th (counted from 1), for n machines that share `data_dir`.
        The machine that finds all shards made finishes the set; on the others the result is None.
    renew: a set whose files have changed is prepared anew and replaced; without, that is an error.
    replace: as `renew`, as somebody asked for it: so is a set of other recordings, such as those of a corrected list.
    options: passed to `source.list_recordings`.

    `errors.InputError` for a fault of the data, `errors.RunError` for one of the disk or of a worker.
    """
    try:
        listing = list_source(source, manual_dir, how, **options)
    except listings.MissingError:
        if (name or source.name) in records.list_sets(data_dir):
            return records.open_set(data_dir, name or source.name)
        raise
    name = _checked_name(name or listing.default_name or source.name, reserved)
    states = file_states.of_listing(listing)
    plan = PreparationPlan(source, listing, data_dir, name, part, states, manual_dir, by_hand=not renew)
    with renewal.locked(data_dir, name, part):
        kept = renewal.is_kept(data_dir, name, listing, states, renew, replace)
        if not kept and not _make(plan, workers or worker_processes.cores(), progress):
            return None
    return records.open_set(data_dir, name)


def list_source(
    source: listings.Source, manual_dir: pathlib.Path | None, how: audio.Reading = audio.DEFAULT, **options: Any
) -> listings.Listing:
    """The recordings of a source, each path once; raises what `source.list_recordings` raises."""
    collecting = gc.isenabled()
    gc.disable()  # it would visit millions of new tuples over and over
    try:
        return dataclasses.replace(_unique(source.list_recordings(source, manual_dir, **options)), how=how)
    finally:
        if collecting:
            gc.enable()


def assign(recordings: Sequence[listings.Recording]) -> list[list[listings.Recording]]:
    """Splits recordings into consecutive shards of about equal source bytes; no shard is empty."""
    sizes = [recording.source_bytes for recording in recordings]
    total = sum(sizes)
    count = max(-(-total // SHARD_SOURCE_BYTES), min(LEAST_SHARDS, len(recordings)))
    count = min(count, MOST_SHARDS)
    shard = [before * count // max(total, 1) for before in itertools.accumulate(sizes[:-1], initial=0)] if sizes else []
    starts = [k for k, number in enumerate(shard) if not k or number != shard[k - 1]]
    return [list(recordings[start:stop]) for start, stop in zip(starts, [*starts[1:], len(recordings)])]


def _unique(listing: listings.Listing) -> listings.Listing:
    repeats = len(listing.recordings) - len({recording.path for recording in listing.recordings})
    if not repeats:
        return listing
    first: dict[str, listings.Recording] = {}
    for recording in listing.recordings:
        first.setdefault(recording.path, recording)
    notes = [*listing.notes, f"left out, {errors.counted(repeats, 'repeat')} of a recording listed before"]
    return dataclasses.replace(listing, recordings=list(first.values()), notes=notes)


def _checked_name(name: str, reserved: Collection[str]) -> str:
    if name in reserved:
        raise errors.InputError(f"{name!r} is the name of another data set: choose a --name for this one")
    if not re.fullmatch(NAME_PATTERN, name):
        raise errors.InputError(
            f"{name!r} cannot name a prepared set: use small letters, digits and underscores, a letter first"
        )
    return name


@dataclasses.dataclass(frozen=True)
class PreparationPlan:
    """A set to make. Its shards depend on the listing alone; `part` selects some of them.

    `states` are those of the files of the recordings, before they are read.
    """

    source: listings.Source
    listing: listings.Listing
    data_dir: pathlib.Path
    name: str
    part: tuple[int, int] | None
    states: Int64[np.ndarray, "n 2"]
    manual_dir: pathlib.Path | None
    by_hand: bool

    @functools.cached_property
    def digest(self) -> str:
        """`listings.digest` of the listing."""
        return listings.digest(self.listing)

    @functools.cached_property
    def jobs(self) -> list[shard_jobs.ShardJob]:
        """Every shard of the set."""
        folder, plan = records.partial_folder(self.data_dir, self.name), assign(self.listing.recordings)
        paths = [folder / records.shard_name(self.name, shard, len(plan)) for shard in range(len(plan))]
        ends = list(itertools.accumulate(map(len, plan)))
        states = [file_states.digest(self.states[end - len(part) : end]) for end, part in zip(ends, plan)]
        loader, how = self.listing.loader, self.listing.how
        return [
            shard_jobs.ShardJob(path, loader, tuple(part), how, state) for path, part, state in zip(paths, plan, states)
        ]


def _make(plan: PreparationPlan, workers: int, progress: bool) -> bool:
    """Makes the missing shards of a plan and finishes the set when all are there; returns whether they are."""
    _open_partial(plan)
    first, step = plan.part or (1, 1)
    mine = plan.jobs[first - 1 :: step]
    missing = [job for job in mine if not shard_jobs.finished(job)]
    _check_space(plan, [recording for job in missing for recording in job.recordings])
    total, left = (sum(len(job.recordings) for job in jobs) for jobs in (mine, missing))
    label = f"{plan.name} {first}/{step}" if plan.part else plan.name
    with progresses.shown(label, total, total - left, "recordings", progress) as advance:
        _run(missing, workers, advance)
    return _finish_if_complete(plan)


def _finish_if_complete(plan: PreparationPlan) -> bool:
    """Writes index, report and metadata once every shard is there; of several machines only one does so."""
    if not all(shards.sidecar(job.path).exists() for job in plan.jobs):
        return records.set_folder(plan.data_dir, plan.name).exists()
    if not plan.part:
        _finish(plan)
        return True
    with (plan.data_dir / plan.name / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not records.set_folder(plan.data_dir, plan.name).exists():
            _finish(plan)
    return True


def _finish(plan: PreparationPlan) -> None:
    partial = records.partial_folder(plan.data_dir, plan.name)
    made = [shards.load(job.path) for job in plan.jobs]
    report = _report(plan, made)
    if not report["records"]:
        shutil.rmtree(partial)
        raise errors.InputError(_why_nothing(plan.name, plan.listing, report["unreadable"]))
    info = {"description": plan.source.title, "homepage": plan.source.url, "license": plan.source.licence}
    try:
        shards.finish(partial, plan.name, made, plan.listing.labels, report, **info)
        file_states.save(partial, plan.states)
        for path in (*(shards.sidecar(job.path) for job in plan.jobs), partial / LISTING_FILE):
            path.unlink()
        _clear_temporaries(partial)
        renewal.put(partial, records.set_folder(plan.data_dir, plan.name))
    except OSError as error:
        raise errors.RunError(f"cannot finish {partial} ({error}): free the disk and run again to continue") from error


def _report(plan: PreparationPlan, made: Sequence[shards.Shard]) -> dict[str, Any]:
    """The content of `report.json`: counts, hours, clipping, unreadable files, warnings and the paper's numbers."""
    source, listing = plan.source, plan.listing
    samples: Counter[str] = Counter()
    for shard in made:
        for row in shard.rows:
            samples[row.recording] += row.samples
    hours = sum(samples.values()) / audio.RATE_HZ / 3600
    clipped = {path: count for shard in made for path, count in shard.clipped.items()}
    warnings = []
    if source.paper_samples and len(listing.recordings) != source.paper_samples:
        known = f" ({source.difference})" if source.difference else ""
        here = errors.counted(len(listing.recordings), "recording")
        warnings.append(f"{here} where the paper has {source.paper_samples:,}{known}")
    return {
        "title": source.title,
        "listing": plan.digest,
        "reading": listing.how._asdict(),
        "recordings": listings.digest(listing, sizes=False),
        "sources": file_states.digest(plan.states),
        "from": plan.manual_dir and str(plan.manual_dir.resolve()),
        "by_hand": plan.by_hand,
        "decoders": records.DECODERS,
        "listed": len(listing.recordings),
        "files": len(samples),
        "records": sum(len(shard.rows) for shard in made),
        "hours": hours,
        "mean_seconds": hours * 3600 / max(len(samples), 1),
        "paper_samples": source.paper_samples,
        "paper_hours": source.paper_hours,
        "clipped_samples": sum(clipped.values()),
        "clipped_files": clipped,
        "remarks": [remark for shard in made for remark in shard.remarks],
        "unreadable": [*listing.unreadable, *(bad for shard in made for bad in shard.unreadable)],
        "stretches": listing.has_stretches,
        "divided": any(recording.part for recording in listing.recordings),
        "warnings": warnings,
        "notes": listing.notes,
    }


def _check_space(plan: PreparationPlan, missing: Sequence[listings.Recording]) -> None:
    """`errors.RunError` when the records of the `missing` recordings will not fit on the disk of `data_dir`."""
    needed = expected_bytes(plan.listing, missing)
    free = shutil.disk_usage(plan.data_dir).free
    if needed > free:
        raise errors.RunError(
            f"{plan.data_dir} has {free / 1e9:.2f} GB free and the records take about {needed / 1e9:.2f} GB: free the "
            f"disk or choose another --data_dir"
        )


def expected_bytes(listing: listings.Listing, missing: Sequence[listings.Recording]) -> int:
    """Bytes that the records of some recordings will take, estimated by decoding a few of them."""
    sample = missing[:: -(-len(missing) // SAMPLED_RECORDINGS)] if missing else []
    source = decoded = 0
    for recording in sample:
        try:
            blocks = listing.loader.stream(recording.locator, listing.how, audio.Told())
            decoded += sum(map(len, blocks)) * BYTES_PER_SAMPLE
        except audio.AudioError:
            continue  # it is reported when its shard is made
        source += recording.source_bytes
    every = sum(recording.source_bytes for recording in missing)
    return round(SPACE_MARGIN * every * decoded / max(source, 1))


def _open_partial(plan: PreparationPlan) -> None:
    """Creates the folder of finished shards; shards of another listing are deleted, or for a part refused."""
    partial = records.partial_folder(plan.data_dir, plan.name)
    marker = partial / LISTING_FILE
    other = partial.exists() and (not marker.exists() or opening.read_json(marker)["listing"] != plan.digest)
    if other and plan.part and marker.exists():
        raise errors.InputError(
            f"{partial} holds shards of other recordings: give every part the same --manual_dir, or delete the folder"
        )
    if other and not plan.part:
        printable.show(
            f"{plan.name}: the recordings have changed since the unfinished run: starting over", file=sys.stderr
        )
        shutil.rmtree(partial)
    partial.mkdir(exist_ok=True)
    if not plan.part:
        _clear_temporaries(partial)
    files.write_atomic(marker, json.dumps({"listing": plan.digest}).encode())


def _clear_temporaries(folder: pathlib.Path) -> None:
    """Removes what killed workers left, even those that outlived their parent for a moment."""
    for stale in folder.glob("*.tmp"):
        stale.unlink(missing_ok=True)


def _why_nothing(name: str, listing: listings.Listing, unreadable: Sequence[dict[str, str]]) -> str:
    first = f"{listings.shown(unreadable[0]['path'])}: {unreadable[0]['reason']}" if unreadable else "none is listed"
    return f"none of the {len(listing.recordings)} recordings of {name} can be used, the first is {first}"


def _run(jobs: Sequence[shard_jobs.ShardJob], workers: int, advance: Callable[[int], None]) -> None:
    if min(workers, len(jobs)) <= 1:
        for job in jobs:
            advance(shard_jobs.make_shard(job))
        return
    with worker_processes.Pool(min(workers, len(jobs))) as pool:
        try:
            for future in futures.as_completed([pool.submit(shard_jobs.make_shard, job) for job in jobs]):
                advance(future.result())
        except futures.process.BrokenProcessPool as error:
            raise errors.RunError(
                "a worker process died, perhaps out of memory: run again to continue, with fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
