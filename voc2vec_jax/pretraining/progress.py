"""What pre-training prints: a line for each step that is shown, and a progress bar."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import tqdm

from voc2vec_jax.models import display
from voc2vec_jax.runs import durations, logs

_LOSS = (display.Column("loss", 8, ("loss",), ".4f"),)
_LAST = (
    display.Column("lr", 9, ("lr",), ".2e"),
    display.Column("gnorm", 8, ("grad_norm",), ".3g"),
    display.Column("audio_s/s", 9, ("audio_seconds_per_second",), ".0f"),
)


def header(total_steps: int, view: display.View) -> str:
    """The headings over the columns of `line`."""
    names = [f"{column.heading:>{column.width}}" for column in (*_LOSS, *view.columns, *_LAST)]
    return "  ".join([f"{'step':>{_step_width(total_steps)}}", *names, f"{'eta':>7}"])


def line(
    step: int, total_steps: int, row: Mapping[str, Any], view: display.View, eta_seconds: float | int | None = None
) -> str:
    """One aligned line for a step; a field that is absent or null becomes a dash."""
    place = "valid" if row.get("split") == "validation" else str(total_steps)
    cells = [f"{f'{step}/{place}':>{_step_width(total_steps)}}"]
    for column in (*_LOSS, *view.columns, *_LAST):
        text = ",".join(_number(row.get(name), column.form) for name in column.fields)
        cells.append(f"{text:>{column.width}}")
    return "  ".join([*cells, f"{durations.words(eta_seconds):>7}"])


def _step_width(total_steps: int) -> int:
    # "123/400000" and, of a validation, "123/valid": a step, a slash, and the total or five letters.
    return len(str(total_steps)) + 1 + max(5, len(str(total_steps)))


def _number(value: Any, form: str) -> str:
    return "-" if value is None else format(float(value), form)


class TrainingProgress:
    """Lines on stdout, and a bar under them when stderr is a terminal. Only process 0 prints.

    The time to go is the steps to go times the mean time of a step. The first step does not count: it compiles.
    """

    HEADER_EVERY_LINES = 25

    def __init__(self, total_steps: int, first_step: int = 0, view: display.View = display.COMMON) -> None:
        self._total, self._view = total_steps, view
        self._step = self._start_step = first_step
        self._start_time: float | None = None
        self._lines = 0
        # In a file a bar would be thousands of lines.
        shown = logs.speaks() and sys.stderr.isatty()
        self._bar = tqdm.tqdm(total=total_steps, initial=first_step, disable=not shown, unit="step", dynamic_ncols=True)

    def advance(self, step: int) -> None:
        """Move the bar: step number `step` is done."""
        # The clock starts at the end of the first step, which compiles; after k more steps, k steps took `now - start`:
        #     compile and step 1 |start| 2 | 3 | 4 |now        3 steps, not 4
        if self._start_time is None:
            self._start_step, self._start_time = step, time.monotonic()
        self._bar.update(step - self._step)
        self._step = step

    @property
    def eta_seconds(self) -> float | None:
        """Seconds to the last step; None until two steps are done."""
        done = self._step - self._start_step
        if self._start_time is None or done < 1:
            return None
        return (time.monotonic() - self._start_time) / done * (self._total - self._step)

    def show(self, step: int, row: Mapping[str, Any], remark: Callable[[], str] | None = None) -> None:
        """Print the line of a step. Every `HEADER_EVERY_LINES` lines the headings come again, after the `remark`."""
        if not logs.speaks():
            return
        if self._lines and self._lines % self.HEADER_EVERY_LINES == 0 and remark:
            tqdm.tqdm.write(remark(), file=sys.stdout)
        if self._lines % self.HEADER_EVERY_LINES == 0:
            # Not print: tqdm takes its bar off the terminal before it writes a line, and draws it again below.
            tqdm.tqdm.write(header(self._total, self._view), file=sys.stdout)
        self._lines += 1
        tqdm.tqdm.write(line(step, self._total, row, self._view, self.eta_seconds), file=sys.stdout)
        sys.stdout.flush()

    def close(self) -> None:
        self._bar.close()

    def __enter__(self) -> "TrainingProgress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
