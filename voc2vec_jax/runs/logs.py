"""What a run reports: messages for people, `metrics.jsonl` and boards for programs."""

import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import tqdm

from voc2vec_jax import errors, printable
from voc2vec_jax.runs import agreement, boards, files, rows, series

_SHOWN_GAPS = 3  # stretches of missing steps that a warning names


def speaks() -> bool:
    """Whether this process prints lines and writes metrics: process 0 does."""
    return agreement.process_index() == 0


def say(text: str) -> None:
    """Print a line on stderr, in process 0 only, without breaking a progress bar."""
    if speaks():
        tqdm.tqdm.write(printable.line(text), file=sys.stderr)


def warn(text: str) -> None:
    """Print a warning on stderr, in process 0 only, because the others would print the same."""
    if speaks():
        tqdm.tqdm.write(printable.line(f"warning: {text}"), file=sys.stderr)


class Metrics:
    """Writer of `metrics.jsonl`, with every (step, split) once even after kills.

    It first drops rows after `resume_step`, and warns of steps before it that have none. Each row reaches the system
    at once; call `flush`, which makes all rows durable, before each checkpoint. Only process 0 writes. RunError when
    the disk is full.

    `recorder` holds the thinned curves of all rows, those from before `resume_step` included.
    """

    def __init__(
        self, workdir: str | pathlib.Path, resume_step: int = 0, tensorboard: bool = False, wandb: bool = False
    ) -> None:
        folder = pathlib.Path(workdir)
        self.path = folder / "metrics.jsonl"
        self.recorder = series.Recorder()
        self._file = None
        self._boards: list[boards.TensorBoard | boards.WeightsAndBiases] = []
        if not speaks():
            return
        wanted = ((boards.TensorBoard, tensorboard), (boards.WeightsAndBiases, wandb))
        self._boards = [board(folder, resume_step) for board, asked in wanted if asked]
        try:
            rows.repair(self.path, resume_step, self.recorder.add)
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115  (open until `close`)
        except OSError as error:
            raise errors.RunError(f"{self.path} cannot be written: {error.strerror}") from error
        self._warn_of_gaps(resume_step)

    def _warn_of_gaps(self, resume_step: int) -> None:
        self.recorder.close_gap(resume_step)
        found = self.recorder.history()
        if not found.lost:
            return
        stretches = [f"{first}" if first == last else f"{first} to {last}" for first, last in found.gaps]
        more = f" and {len(stretches) - _SHOWN_GAPS} more stretches" if len(stretches) > _SHOWN_GAPS else ""
        warn(
            f"{self.path} has no rows of {found.lost:,} of the {resume_step:,} steps before this resume (steps "
            f"{', '.join(stretches[:_SHOWN_GAPS])}{more}): it was deleted or cut. The model is as it was; curves.png "
            "hatches these steps"
        )

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        """Append one row. `row["split"]` tells rows of one step apart; training rows have none."""
        if self._file is None:
            return
        text = rows.line({"step": step, **row})
        try:
            written = self._file.write(text)
        except OSError as error:
            raise errors.RunError(f"{self.path} cannot be written: {error.strerror}") from error
        if written != len(text):
            raise errors.RunError(f"{self.path} cannot be written: only {written} of {len(text)} bytes fitted")
        plain = json.loads(text)
        self.recorder.add(plain)
        for board in self._boards:
            board.write(step, plain)

    def flush(self) -> None:
        """Make every row written so far survive a power cut."""
        if self._file is None:
            return
        try:
            files.sync_file(self._file)
        except OSError as error:
            raise errors.RunError(f"{self.path} cannot be written: {error.strerror}") from error
        for board in self._boards:
            board.flush()

    def close(self, failed: bool = False) -> None:
        """Make every row durable and end the boards, one that shows whether the run `failed` included."""
        if self._file is not None:
            self.flush()
            self._file.close()
            self._file = None
        while self._boards:
            self._boards.pop().close(failed)

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, kind: type | None, *exception: object) -> None:
        self.close(failed=kind is not None)
