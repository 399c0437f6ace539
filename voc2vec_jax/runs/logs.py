"""What a run reports: messages for people, `metrics.jsonl` and TensorBoard files for programs."""

import json
import math
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import tqdm

from voc2vec_jax import errors
from voc2vec_jax.runs import agreement, files


def speaks() -> bool:
    """Whether this process prints lines and writes metrics: process 0 does."""
    return agreement.process_index() == 0


def say(text: str) -> None:
    """Print a message on stderr, in process 0 only, without breaking a progress bar."""
    if speaks():
        tqdm.tqdm.write(text, file=sys.stderr)


def warn(text: str) -> None:
    """Print a warning on stderr, in process 0 only, because the others would print the same."""
    if speaks():
        tqdm.tqdm.write(f"warning: {text}", file=sys.stderr)


def json_line(row: Mapping[str, Any]) -> bytes:
    """`row` as one line of JSON. Scalars of NumPy and JAX become numbers; NaN and infinities become null."""
    return (json.dumps({name: _plain(value) for name, value in row.items()}, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if not isinstance(value, float):
        array = np.asarray(value)
        if array.ndim:
            raise ValueError(f"a metric is a scalar, not an array of shape {array.shape}")
        if array.dtype.kind in "biu":
            return array.item()
        value = float(str(array[()]))  # the shortest text: 0.1 of a float32, not 0.10000000149011612
    return value if math.isfinite(value) else None


class Metrics:
    """Writer of `metrics.jsonl`, with every (step, split) once even after kills.

    It first drops rows after `resume_step`. Each row reaches the system at once; call `flush`, which makes all rows
    durable, before each checkpoint. Only process 0 writes. RunError when the disk is full.
    """

    def __init__(self, workdir: str | pathlib.Path, resume_step: int = 0, *, tensorboard: bool = False) -> None:
        self.path = pathlib.Path(workdir) / "metrics.jsonl"
        self._file = None
        self._board = None
        if not speaks():
            return
        board = _board_class() if tensorboard else None
        try:
            _repair(self.path, resume_step)
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115  (open until `close`)
        except OSError as error:
            raise errors.RunError(f"{self.path} cannot be written: {error.strerror}") from error
        if board:
            self._board = board(str(self.path.with_name("tensorboard")), purge_step=resume_step + 1)

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        """Append one row. `row["split"]` tells rows of one step apart; training rows have none."""
        if self._file is None:
            return
        text = json_line({"step": step, **row})
        try:
            written = self._file.write(text)
        except OSError as error:
            raise errors.RunError(f"{self.path} cannot be written: {error.strerror}") from error
        if written != len(text):
            raise errors.RunError(f"{self.path} cannot be written: only {written} of {len(text)} bytes fitted")
        if self._board:
            self._write_board(step, json.loads(text))

    def _write_board(self, step: int, row: dict[str, Any]) -> None:
        split = row.get("split", "train")
        for name, value in row.items():
            if name != "step" and isinstance(value, (int, float)):
                self._board.add_scalar(f"{split}/{name}", value, step)

    def flush(self) -> None:
        """Make every row written so far survive a power cut."""
        if self._file is None:
            return
        try:
            files.sync_file(self._file)
        except OSError as error:
            raise errors.RunError(f"{self.path} cannot be written: {error.strerror}") from error
        if self._board:
            self._board.flush()

    def close(self) -> None:
        if self._file is not None:
            self.flush()
            self._file.close()
            self._file = None
        if self._board:
            self._board.close()
            self._board = None

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _board_class() -> type:
    try:
        import tensorboardX
    except ImportError:
        raise errors.InputError(
            "TensorBoard files need a package that is not installed: pip install 'voc2vec_jax[tensorboard]'"
        ) from None
    return tensorboardX.SummaryWriter


def read(path: str | pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a metrics file, in its order. A line that a kill cut short is left out."""
    rows = []
    for line in pathlib.Path(path).read_bytes().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def _repair(path: pathlib.Path, resume_step: int) -> None:
    """Keep each (step, split) up to `resume_step` once, and nothing else."""
    if not path.exists():
        return
    kept = {(row["step"], row.get("split")): row for row in read(path) if row["step"] <= resume_step}
    text = b"".join(json_line(row) for row in kept.values())
    if text != path.read_bytes():
        files.write_atomic(path, text)


def duration(seconds: float | int | None) -> str:
    """Seconds as people read them, two units at most: 2d03h, 3h12m, 12m30s, 45s; None is a dash."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours < 24 else f"{hours // 24}d{hours % 24:02d}h"
