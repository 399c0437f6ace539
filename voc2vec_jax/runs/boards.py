"""Where a run's metrics can be watched besides `metrics.jsonl`: TensorBoard files, or Weights & Biases.

Both are optional packages, imported only when a run asks for them. A board gets the rows that are written while it is
open, never those from before a resume.
"""

import importlib
import os
import pathlib
import secrets
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from voc2vec_jax import errors, opening
from voc2vec_jax.runs import extras, files


def _package(name: str, extra: str, title: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise errors.InputError(f"{title} needs a package that is not installed: {extras.command(extra)}") from None


def _numbers(row: Mapping[str, Any]) -> Iterator[tuple[str, int | float]]:
    """The numbers of a row as `train/loss`."""
    split = row.get("split", "train")
    for name, value in row.items():
        if name != "step" and type(value) in (int, float):
            yield f"{split}/{name}", value


class TensorBoard:
    """Event files in RUN/tensorboard. After a resume, points of later steps are hidden."""

    def __init__(self, workdir: pathlib.Path, resume_step: int) -> None:
        package = _package("tensorboardX", "tensorboard", "TensorBoard")
        self._writer = package.SummaryWriter(str(workdir / "tensorboard"), purge_step=resume_step + 1)

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        """Take one row."""
        for name, value in _numbers(row):
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Write to disk what is buffered."""
        self._writer.flush()

    def close(self, failed: bool) -> None:
        """End the files."""
        self._writer.close()


class WeightsAndBiases:
    """One run of Weights & Biases per run folder, whose id is kept in RUN/wandb_id.txt, so that a rerun continues it.

    Project, entity, name and mode follow wandb's own environment variables, such as WANDB_PROJECT and
    WANDB_MODE=offline. RunError when it does not start.
    """

    def __init__(self, workdir: pathlib.Path, resume_step: int) -> None:
        package = _package("wandb", "wandb", "Weights & Biases")
        kept, described = workdir / "wandb_id.txt", workdir / "config.json"
        known = kept.is_file()
        if not known:
            files.write_atomic(kept, f"{secrets.token_hex(4)}\n".encode())
        try:
            self._run = package.init(
                dir=str(workdir),
                id=opening.read_text(kept).strip(),
                resume="allow",
                name=None if known else os.environ.get("WANDB_NAME", workdir.absolute().name),
                config=opening.read_json(described) if described.is_file() else None,
                allow_val_change=True,
                settings=package.Settings(console="off"),
            )
        except Exception as error:
            raise errors.RunError(
                f"Weights & Biases did not start ({str(error).splitlines()[0]}): log in by `wandb login`, set "
                "WANDB_MODE=offline, or leave out --config.wandb"
            ) from error
        # Its own counter only ascends, but a run that was killed computes some steps again.
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        """Take one row. It is sent in the background."""
        self._run.log({"step": step, **dict(_numbers(row))})

    def flush(self) -> None:
        """Nothing to do: rows are with wandb's own process at once."""

    def close(self, failed: bool) -> None:
        """Wait until everything is sent, or stored when offline."""
        self._run.finish(exit_code=int(failed))
