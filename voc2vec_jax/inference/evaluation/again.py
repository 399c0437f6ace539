"""What is computed again in an output folder: recordings whose file has changed, and on demand those that failed.

    sources/00000.npy   size and time of modification of the file of each item of a part, from before it was read
    again/00000.npy     rows of a part that are to be computed again; without it, a part with a Parquet file is done

Rows are marked before anything of their part is replaced, and unmarked after all of it was, so that a kill in between
leaves what was there, and the next run goes on.
"""

import concurrent.futures
import dataclasses
import os
import pathlib
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Int64

from voc2vec_jax import errors, opening
from voc2vec_jax.datasets import file_states
from voc2vec_jax.inference import prefetch
from voc2vec_jax.inference.evaluation import inputs as evaluation_inputs
from voc2vec_jax.inference.evaluation import output as evaluation_output
from voc2vec_jax.runs import files

CHUNK = 256  # files that a thread looks at in a row
MISREAD = ".mp3"  # by earlier versions, which noted no states


@dataclasses.dataclass
class Finding:
    """What `mark` has found, to be said."""

    changed: int = 0
    misread: int = 0
    retried: int = 0
    gone: int = 0
    example: str = ""
    example_gone: str = ""

    def sentences(self) -> Iterator[str]:
        """One for each thing that was found."""
        if self.changed:
            what = "recordings have" if self.changed > 1 else "recording has"
            yield f"{self.changed:,} {what} changed since, such as {self.example}: computed again"
        if self.misread:
            what = "MP3s were" if self.misread > 1 else "MP3 was"
            yield f"{self.misread:,} {what} read by an earlier version, perhaps in part: computed again"
        if self.retried:
            what = "are" if self.retried > 1 else "is"
            yield f"{self.retried:,} of the recordings that could not be used {what} tried again"
        if self.gone:
            what = "recordings are" if self.gone > 1 else "recording is"
            yield f"{self.gone:,} {what} gone, such as {self.example_gone}: what was computed stays"


def mark(
    output: evaluation_output.OutputFolder,
    items: evaluation_inputs.Items,
    numbers: Iterable[int],
    retry: bool,
    threads: int,
) -> Finding:
    """Marks, in those of the parts that are there, items whose file changed, and with `retry` all unusable ones.

    Files that are gone are no change. RunError when a mark cannot be written.
    """
    finding, size = Finding(), output.description["part_files"]
    there = [number for number in numbers if output.part(number).exists()]
    if items.file is None and not retry:
        return finding
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for number in there:
            wanted = set(rows_of(output, number).tolist())
            if items.file is not None:
                listed = items.rows(number * size, min((number + 1) * size, len(items)))
                wanted |= _changed(output, number, items, listed, pool, finding)
            if retry:
                failed = {int(row[0]) for row in output.rows("errors", number)} - wanted
                finding.retried += len(failed)
                wanted |= failed
            if wanted:
                _save(output.again(number), np.array(sorted(wanted), np.int64))
    return finding


def _changed(
    output: evaluation_output.OutputFolder,
    number: int,
    items: evaluation_inputs.Items,
    listed: Sequence[evaluation_inputs.Item],
    pool: concurrent.futures.Executor,
    finding: Finding,
) -> set[int]:
    """The rows of a part whose file has changed. A part of an earlier version gets the states that it lacks."""
    paths = map(items.file, listed)
    found = prefetch.in_order(file_states.of_file, paths, pool, chunk=CHUNK, chunks=2 * (os.cpu_count() or 1))
    now = np.array(list(found), np.int64).reshape(-1, 2)
    before = states_of(output, number, len(listed))
    if before is None:
        written_ns = output.part(number).stat().st_mtime_ns
        misread = np.array([item.path.lower().endswith(MISREAD) for item in listed])
        there, newer = (now != file_states.GONE).any(1), now[:, 1] > written_ns
        finding.misread += int((misread & there & ~newer).sum())
        changed, wanted = np.flatnonzero(newer & there), np.flatnonzero((newer | misread) & there)
        if not len(wanted):
            _save(output.sources(number), now)
    else:
        changed, gone = file_states.compare(before, now)
        wanted = changed
        if len(gone):
            finding.example_gone = finding.example_gone or listed[gone[0]].id
        finding.gone += len(gone)
    if len(changed) and not finding.example:
        item, row = listed[changed[0]], changed[0]
        finding.example = item.id if before is None else file_states.example(item.id, before[row], now[row])
    finding.changed += len(changed)
    return {listed[row].row for row in wanted}


def rows_of(output: evaluation_output.OutputFolder, number: int) -> Int64[np.ndarray, "n"]:
    """The marked rows of a part."""
    found = _load(output.again(number))
    return np.zeros(0, np.int64) if found is None else found


def unmark(output: evaluation_output.OutputFolder, number: int, rows: Collection[int]) -> None:
    """Takes rows that were computed off the marked ones of a part."""
    left = np.setdiff1d(rows_of(output, number), np.array(sorted(rows), np.int64))
    if len(left):
        _save(output.again(number), left)
    else:
        output.again(number).unlink(missing_ok=True)


def states_of(output: evaluation_output.OutputFolder, number: int, count: int) -> Int64[np.ndarray, "n 2"] | None:
    """The states of the files of a part of `count` items; None where an earlier version wrote it."""
    found = _load(output.sources(number))
    return found if found is not None and found.shape == (count, 2) else None


def save_states(
    output: evaluation_output.OutputFolder,
    number: int,
    items: evaluation_inputs.Items,
    listed: Sequence[evaluation_inputs.Item],
    read: dict[int, tuple[int, int]],
) -> None:
    """Keeps the states of the files of a part, some of which were `read` just now (row: state)."""
    if items.file is None:
        return
    states = states_of(output, number, len(listed))
    if states is None:
        states = np.array([read.get(item.row) or file_states.of_file(items.file(item)) for item in listed], np.int64)
    for row, state in read.items():
        states[row - listed[0].row] = state
    _save(output.sources(number), states)


def merged(old: Iterable[Sequence], new: Iterable[Sequence], replaced: Collection[int]) -> list[Sequence]:
    """Rows of a csv file that begin with the row of an item: the old ones of items not `replaced`, and the new ones."""
    kept = (row for row in old if int(row[0]) not in replaced)
    return sorted([*kept, *new], key=lambda row: int(row[0]))


def _save(path: pathlib.Path, array: np.ndarray) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
        with files.atomic(path) as file:
            np.save(file, array, allow_pickle=False)
    except OSError as fault:
        raise errors.RunError(f"{path} cannot be written: {fault.strerror or fault}") from fault


def _load(path: pathlib.Path) -> np.ndarray | None:
    try:
        return np.load(opening.checked(path), allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as fault:
        raise errors.RunError(f"{path} is damaged ({fault}): delete it and run again") from fault
