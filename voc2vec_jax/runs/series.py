"""The curves of a run in bounded memory: every metric as at most `CAPACITY` stretches of steps.

    steps          1  2  3  4  5  6  7  8        width 1: every value is a stretch of its own
    capacity full  [0 1][2 3][4 5][6 7][8        width 2: neighbours are joined, and the width doubles

A stretch has the mean of its steps, and the mean, minimum and maximum of its values.
"""

import math
from array import array
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

CAPACITY = 4096
MOST_GAPS = 64  # that are told apart; of more, the last one reaches over all that come after it


class Points(NamedTuple):
    """What is drawn of a series, by stretch. `counts` are the values in each."""

    steps: Float64[np.ndarray, "n"]
    values: Float64[np.ndarray, "n"]
    low: Float64[np.ndarray, "n"]
    high: Float64[np.ndarray, "n"]
    counts: Float64[np.ndarray, "n"]


class Series:
    """One metric. Values arrive in the order of their steps."""

    def __init__(self) -> None:
        self._width = 1
        self._number = -1  # of the last stretch: its steps divided by the width
        self._counts, self._steps, self._totals, self._low, self._high = (array("d") for _ in range(5))

    def add(self, step: int, value: float | int) -> None:
        """Take one finite value."""
        if step // self._width != self._number and len(self._counts) == CAPACITY:
            self._join()
        if step // self._width != self._number:
            self._number = step // self._width
            for column, first in zip(self._columns(), (1, step, value, value, value)):
                column.append(first)
            return
        self._counts[-1] += 1
        self._steps[-1] += step
        self._totals[-1] += value
        self._low[-1] = min(self._low[-1], value)
        self._high[-1] = max(self._high[-1], value)

    def points(self) -> Points:
        """A copy of what is known so far."""
        counts, steps, totals, low, high = map(np.array, self._columns())
        return Points(steps / counts, totals / counts, low, high, counts)

    def _columns(self) -> tuple[array, ...]:
        return self._counts, self._steps, self._totals, self._low, self._high

    def _join(self) -> None:
        """Join neighbours by doubling the width, which halves the number of stretches or leaves sparse ones apart."""
        while len(self._counts) == CAPACITY:
            self._width *= 2
            counts, steps, totals, low, high = map(np.array, self._columns())
            numbers = steps / counts // self._width
            starts = np.flatnonzero(np.diff(numbers, prepend=-1))
            sums = (np.add.reduceat(column, starts) for column in (counts, steps, totals))
            self._counts, self._steps, self._totals = (array("d", column.tobytes()) for column in sums)
            self._low = array("d", np.minimum.reduceat(low, starts).tobytes())
            self._high = array("d", np.maximum.reduceat(high, starts).tobytes())
            self._number = int(numbers[-1])


class History(NamedTuple):
    """What the rows of a run said, for its picture: the points of every (split, metric), how many rows and the last.

    `gaps` are the stretches of steps (first, last) without a row of training, of which `lost` counts all steps.
    """

    points: Mapping[tuple[str, str], Points]
    rows: Mapping[str, int]
    last_step: Mapping[str, int]
    gaps: tuple[tuple[int, int], ...] = ()
    lost: int = 0

    def of(self, split: str, name: str) -> Points:
        """The points of a metric, none when it was not recorded."""
        return self.points.get((split, name)) or Series().points()


class Recorder:
    """Thins rows as they come."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self._series: dict[tuple[str, str], Series] = {}
        self._rows: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._gaps: list[tuple[int, int]] = []
        self._lost = 0
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one row of metrics. What is not a finite number leaves no point."""
        step, split = row["step"], row.get("split", "train")
        if split == "train":
            self._note_gap(step - 1)
        self._rows[split] = self._rows.get(split, 0) + 1
        self._last[split] = step
        for name, value in row.items():
            if name != "step" and type(value) in (int, float) and math.isfinite(value):
                series = self._series.get((split, name))
                if series is None:
                    series = self._series[split, name] = Series()
                series.add(step, value)

    def _note_gap(self, last: int) -> None:
        """Every step of training has a row: those that have none up to `last` are missing."""
        first = self._last.get("train", 0) + 1
        if last < first:
            return
        self._lost += last - first + 1
        if len(self._gaps) == MOST_GAPS:
            first = self._gaps.pop()[0]
        self._gaps.append((first, last))

    def close_gap(self, step: int) -> None:
        """Nothing more will come up to `step`, which a resume starts from."""
        self._note_gap(step)
        self._last["train"] = max(step, self._last.get("train", 0))

    def history(self) -> History:
        """A copy that may be drawn in another thread while rows go on coming."""
        points = {key: series.points() for key, series in self._series.items()}
        return History(points, dict(self._rows), dict(self._last), tuple(self._gaps), self._lost)
