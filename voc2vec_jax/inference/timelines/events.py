"""Events: stretches of a recording in which a class is heard, from the probabilities of its windows.

A window's probability holds from midway to the centre of the window before it to midway to that of the one behind it:

    windows        |----- 0 -----|
                           |----- 1 -----|
                                   |----- 2 -----|
    holds   |===== 0 ======|== 1 ==|====== 2 =====|
            0                                     end
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from voc2vec_jax import errors

RELEASE = 0.7  # of the threshold, where no release is given


class Rules(NamedTuple):
    """An event begins at `threshold` and lasts while the probability is at least `release`.

    release: 0 stands for 0.7 of the threshold.
    gap_seconds: events of a class that are at most this far apart are one.
    least_seconds: shorter events are left out, once gaps are bridged.
    background: classes that are no events, such as noise.
    """

    threshold: float = 0.5
    release: float = 0.0
    least_seconds: float = 0.0
    gap_seconds: float = 0.0
    background: tuple[str, ...] = ()

    @property
    def lower(self) -> float:
        """The probability at which an event ends."""
        return self.release or RELEASE * self.threshold


class Event(NamedTuple):
    """Start and end in seconds, with the highest and the mean probability in between."""

    start: float
    end: float
    label: str
    peak: float
    mean: float


def check(rules: Rules, classes: Sequence[str]) -> None:
    """InputError for rules that make no sense, and for a background that is no class."""
    if not 0 < rules.threshold <= 1:
        raise errors.InputError(f"--threshold={rules.threshold:g} is no probability: give one above 0, at most 1")
    if not 0 < rules.lower <= rules.threshold:
        raise errors.InputError(
            f"--release={rules.release:g}: an event ends at a probability above 0, at most --threshold="
            f"{rules.threshold:g}"
        )
    for name in ("least_seconds", "gap_seconds"):
        if not 0 <= (value := getattr(rules, name)) < math.inf:
            raise errors.InputError(f"--{name}={value:g}: give seconds, 0 or more")
    if unknown := [name for name in rules.background if name not in classes]:
        raise errors.InputError(f"--background={unknown[0]} is none of the model's classes ({', '.join(classes)})")


def edges(starts: Float[np.ndarray, " w"], ends: Float[np.ndarray, " w"], seconds: float) -> Float[np.ndarray, " e"]:
    """From where to where each window's probability holds."""
    centres = (starts + ends) / 2
    return np.concatenate([[0.0], (centres[:-1] + centres[1:]) / 2, [seconds]])


def find(
    at: Float[np.ndarray, " e"], chances: Float[np.ndarray, "w v"], classes: Sequence[str], rules: Rules
) -> list[Event]:
    """The events of all classes, by their start. `at` is that of `edges`."""
    found = []
    for number, label in enumerate(classes):
        if label not in rules.background:
            found += _of_class(at, chances[:, number].astype(np.float64), label, rules)
    return sorted(found)


def _of_class(at: Float[np.ndarray, " e"], chance: Float[np.ndarray, " w"], label: str, rules: Rules) -> list[Event]:
    runs: list[list[int]] = []  # first window, and the one behind the last
    for first, stop in _runs(chance >= rules.lower):
        if chance[first:stop].max() < rules.threshold:
            continue
        if runs and at[first] - at[runs[-1][1]] <= rules.gap_seconds:
            runs[-1][1] = stop
        else:
            runs.append([first, stop])
    spans = np.diff(at)
    return [
        Event(
            float(at[first]),
            float(at[stop]),
            label,
            float(chance[first:stop].max()),
            float(np.average(chance[first:stop], weights=spans[first:stop])),
        )
        for first, stop in runs
        if at[stop] - at[first] >= rules.least_seconds
    ]


def _runs(on: np.ndarray) -> list[tuple[int, int]]:
    """Where `on` is true: the first place of each run, and the place behind its last."""
    changes = np.flatnonzero(np.diff(np.concatenate([[0], on.astype(np.int8), [0]])))
    return list(zip(changes[::2].tolist(), changes[1::2].tolist()))
