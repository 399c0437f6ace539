"""The output folder of an evaluation, filled by any number of workers. A part appears whole or not at all.

    evaluation.json            what is evaluated and how; a rerun must ask for the same
    parts/00000.parquet        rows of consecutive items; a part is done when this file exists and no row is marked
    timelines/00000.csv        windows of the same items, with `--timeline`
    windows/00000.parquet      the same windows, with the probabilities of all classes
    errors/00000.csv           the part's unusable items, if any
    remarks/00000.csv          what is odd about usable items, if anything
    sources/00000.npy again/00000.npy      see `again`
    errors.csv remarks.csv metrics.json    over all parts, written by the worker that finds them all done

No file depends on which worker wrote it. The leftovers of a dead worker begin with a dot.
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from voc2vec_jax import audio, errors, opening
from voc2vec_jax.runs import csv_files, files

MANIFEST = "evaluation.json"
COLUMNS = {"errors": ("row", "id", "path", "reason"), "remarks": ("row", "id", "path", "kind", "remark")}
LEFTOVERS = (".*.tmp",)


class OutputFolder:
    """The folder `root`, claimed for the evaluation that `description` describes."""

    def __init__(self, root: str | os.PathLike, description: Mapping[str, Any]):
        """InputError for a folder that cannot be written or belongs to another evaluation."""
        self.root = pathlib.Path(root).expanduser()
        if self.root.exists() and not self.root.is_dir():
            raise errors.InputError(f"--output={root} is no folder: give one, it is made")
        try:
            for name in ("parts", *COLUMNS, *(("timelines", "windows") if description["kind"] == "timeline" else ())):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            self.description = _claim(self.root / MANIFEST, description)
        except OSError as fault:
            raise errors.InputError(f"--output={root} cannot be written: {fault.strerror or fault}") from fault
        self._check(description)
        self.parts = len(range(0, description["rows"], description["part_files"]))

    def _check(self, wanted: Mapping[str, Any]) -> None:
        for name in (*COMPARED, *wanted):
            before, now = self.description.get(name, EARLIER.get(name)), wanted[name]
            if before == json.loads(json.dumps(now)) or name in MAY_DIFFER:
                continue
            if name in ("rows", "items"):
                others = f"{wanted['rows']:,}" if name == "rows" else "as many in other names, order or labels"
                raise errors.InputError(
                    f"{self.root} holds an evaluation of {self.description['rows']:,} recordings, and --input lists "
                    f"{others}: give another --output, or an --input in which nothing was added, removed or renamed"
                )
            raise errors.InputError(
                f"{self.root} holds an evaluation whose {name} is {before}, and this one's is {now}: give another "
                "--output, or the same command"
            )

    def part(self, number: int) -> pathlib.Path:
        """The Parquet file of a part."""
        return self.root / "parts" / f"{number:05d}.parquet"

    def timeline(self, number: int) -> pathlib.Path:
        """The csv of a part's windows."""
        return self.root / "timelines" / f"{number:05d}.csv"

    def windows(self, number: int) -> pathlib.Path:
        """The Parquet file of a part's windows, with the probabilities of every class."""
        return self.root / "windows" / f"{number:05d}.parquet"

    def rows_of(self, kind: str, number: int) -> pathlib.Path:
        """The csv of a part's unusable items ("errors"), or of what is odd about others ("remarks")."""
        return self.root / kind / f"{number:05d}.csv"

    def sources(self, number: int) -> pathlib.Path:
        """The states of the files of a part."""
        return self.root / "sources" / f"{number:05d}.npy"

    def again(self, number: int) -> pathlib.Path:
        """The rows of a part that are to be computed again."""
        return self.root / "again" / f"{number:05d}.npy"

    def missing(self) -> list[int]:
        """The parts that are not done, or of which rows are to be computed again."""
        done = {path.stem for path in (self.root / "parts").glob("*.parquet")}
        done -= {path.stem for path in (self.root / "again").glob("*.npy")}
        return [number for number in range(self.parts) if self.part(number).stem not in done]

    def write_rows(self, kind: str, number: int, rows: Sequence[Sequence[Any]]) -> None:
        """Writes the errors or remarks of a part; without any, removes the file of an earlier attempt."""
        if not rows:
            self.rows_of(kind, number).unlink(missing_ok=True)
            return
        with whole(self.rows_of(kind, number)) as path:
            write_csv(path, COLUMNS[kind], rows)

    def merge_rows(self, kind: str) -> int:
        """Writes errors.csv or remarks.csv from those of all parts; returns the number of rows in it."""
        count = 0
        with whole(self.root / f"{kind}.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
            writer = csv_files.Writer(file)
            writer.writerow(COLUMNS[kind])
            for row in self.all_rows(kind):
                writer.writerow(row)
                count += 1
        return count

    def all_rows(self, kind: str) -> Iterator[list[str]]:
        """The rows of the errors or remarks of all parts, in order."""
        for number in range(self.parts):
            yield from self.rows(kind, number)

    def rows(self, kind: str, number: int) -> Iterator[list[str]]:
        """The errors or remarks of a part."""
        if self.rows_of(kind, number).exists():
            with opening.regular(self.rows_of(kind, number), "r", newline="", encoding="utf-8") as part:
                rows = csv_files.Reader(part)
                next(rows)
                yield from rows

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Writes a JSON file in the folder, replacing an older one atomically."""
        with whole(self.root / name) as path:
            path.write_text(json.dumps(values, indent=2) + "\n")

    def clean(self) -> None:
        """Removes leftovers of dead workers. Only call it when no part is missing, so that no worker is writing one."""
        for folder in (self.root, *(path for path in self.root.iterdir() if path.is_dir())):
            for pattern in LEFTOVERS:
                for path in folder.glob(pattern):
                    path.unlink(missing_ok=True)


MAY_DIFFER = ("model", "input")  # paths; the fingerprints say what is found there
EARLIER = audio.DEFAULT._asdict()  # of folders whose version did not write it down
COMPARED = ("kind", "rows")  # compared first, because they say most


def _claim(path: pathlib.Path, description: Mapping[str, Any]) -> dict[str, Any]:
    """The description that the first worker wrote to `path`; of several starting at once, exactly one is first."""
    if not path.exists():
        with files.temporary(path) as temporary:
            files.write_atomic(temporary, f"{json.dumps(description, indent=2)}\n".encode())
            try:
                os.link(temporary, path)
            except FileExistsError:
                pass
            except OSError:  # a file system without hard links
                os.replace(temporary, path)
        files.sync_folder(path.parent)
    try:
        return opening.read_json(path)
    except ValueError as fault:
        raise errors.InputError(f"{path} is damaged ({fault}): give another --output") from fault


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary path. Its file durably replaces `path` at the end, or is removed after an error.

    RunError when it cannot be written (a full disk).
    """
    try:
        with files.atomic_path(path) as temporary:
            yield temporary
    except OSError as fault:
        # Another worker that found everything done may have cleaned up; it has left the same file.
        if not (isinstance(fault, FileNotFoundError) and path.exists()):
            raise errors.RunError(f"{path} cannot be written: {fault.strerror or fault}") from fault


def write_csv(path: pathlib.Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Writes a csv file in UTF-8, quoting fields that hold separators, quotes or line breaks."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv_files.Writer(file).writerows([columns, *rows])
