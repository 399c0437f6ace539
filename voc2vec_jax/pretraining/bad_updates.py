"""Updates that were skipped because their loss or gradient is not finite, and the clips that took part in them."""

import csv
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from voc2vec_jax import errors, opening
from voc2vec_jax.pretraining import batch_layout
from voc2vec_jax.pretraining import data as pretraining_data
from voc2vec_jax.runs import agreement, csv_files, files, logs

LISTED = "bad_clips.csv"
SHOWN_CLIPS = 3


class BadUpdates:
    """Keeps `RUN/bad_clips.csv`: the clips of skipped updates, with the step, as a list that `exclude` takes."""

    def __init__(self, workdir: pathlib.Path, examples: pretraining_data.Examples, start_step: int):
        """Clips of steps after `start_step` are dropped: those steps are computed again."""
        self.path, self._examples = workdir / LISTED, examples
        self._listed: list[tuple[str, int]] = []
        if self.path.is_file() and agreement.process_index() == 0:
            before = _read(self.path)
            self._listed = [(clip, step) for clip, step in before if step <= start_step]
            if self._listed != before:
                self._write()

    def clips(self, plan_step: int, bad_groups: Float[np.ndarray, "g"]) -> list[str]:
        """The clips of the loss groups marked in a step of the plan; of all its groups if none is marked."""
        rows = self._examples.plan.step(plan_step).rows
        if bad_groups.any():  # else the losses are finite and their gradients are not
            rows = rows[bad_groups > 0]
        return [self._examples.corpus.ids(row) for row in np.unique(rows[rows != batch_layout.EMPTY])]

    def add(self, step: int, row: Mapping[str, Any], clips: list[str]) -> None:
        """List the clips of a skipped step and say so."""
        self._listed += [(clip, step) for clip in clips]
        if agreement.process_index() == 0:
            self._write()
        what = "loss" if not np.isfinite(row["loss"]) else "gradient"
        some = ", ".join(clips[:SHOWN_CLIPS]) + ", ..." * (len(clips) > SHOWN_CLIPS)
        logs.warn(
            f"step {step}: the {what} is not finite, the update is skipped ({row['bad_in_row']:.0f} in a row); "
            f"{self.path} lists its {len(clips)} clips: {some}"
        )

    def give_up(self, step: int, in_row: int, saved: int | None) -> errors.RunError:
        """The error that ends a run after so many bad updates in a row, the last of them `step`."""
        # Without a checkpoint nothing is resumed, and every field may have another value.
        newest = "there is no checkpoint yet" if saved is None else f"the newest checkpoint is of step {saved}"
        without, lower = ("", "") if saved is None else ("--resume_with=exclude ", "--resume_with=peak_lr ")
        return errors.RunError(
            f"stopped at step {step}: {in_row} updates in a row have a loss or gradient that is not finite, and "
            f"{newest}; leave their clips out by {without}--config.exclude={self.path}, or lower the rate by "
            f"{lower}--config.peak_lr=RATE"
        )

    def _write(self) -> None:
        try:
            with files.atomic(self.path, "w", encoding="utf-8", newline="") as file:
                writer = csv_files.Writer(file)
                writer.writerow(("id", "step"))
                writer.writerows(self._listed)
        except OSError as error:
            raise errors.RunError(f"{self.path} cannot be written: {error.strerror}") from error


def _read(path: pathlib.Path) -> list[tuple[str, int]]:
    try:
        with opening.regular(path, "r", encoding="utf-8", newline="") as file:
            return [(row["id"], int(row["step"])) for row in csv_files.DictReader(file, strict=True)]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise errors.InputError(f"{path} is no list of bad clips ({error}): remove it; the run makes it anew") from None
