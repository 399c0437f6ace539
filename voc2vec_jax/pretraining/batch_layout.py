"""What the batches of a run look like: loss groups, the lengths that clips are padded to, and the rows of a step.

A loss group is a flat buffer of `group_rows * crop_samples` samples, whatever the length of its rows. They lie one
after another:

    group_rows 2, crop 10 s:    bucket 10 s    | ---------- | ---------- |         20 s of audio
                                bucket  5 s    | ----- | ----- | ----- | ----- |   20 s of audio

So the groups of an update may differ in length, and one array holds them.
"""

import dataclasses
import math
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int, Int32, Int64

from voc2vec_jax import errors

EMPTY = -1  # the row of a step that holds no example
Batching = Literal["pad", "crop"]


@dataclasses.dataclass(frozen=True)
class BatchLayout:
    """Shape of the steps. A group has `group_rows` rows of `crop_samples`; in shorter buckets it has more rows.

    `bucket_samples` ascends and ends in `crop_samples`. A clip goes to the smallest bucket that holds it. Of the
    groups of a step, `same_length_groups` in a row share a bucket, or as many as divide the step; 0: all.
    """

    groups: int
    group_rows: int
    crop_samples: int = 160_000
    bucket_samples: tuple[int, ...] = (40_000, 80_000, 160_000)
    same_length_groups: int = 0

    def __post_init__(self):
        for name in ("groups", "group_rows", "crop_samples"):
            if getattr(self, name) < 1:
                raise errors.InputError(f"{name} is {getattr(self, name)}: set it to 1 or more")
        if self.same_length_groups < 0:
            raise errors.InputError(f"same_length_groups is {self.same_length_groups}: set it to 0 or more")
        buckets = tuple(self.bucket_samples)
        ascending = all(a < b for a, b in zip((0, *buckets), buckets))
        if not buckets or not ascending or buckets[-1] != self.crop_samples:
            raise errors.InputError(f"bucket_samples {buckets} must ascend and end in crop_samples {self.crop_samples}")

    @property
    def unit(self) -> int:
        """Loss groups in a row that share a bucket; a divisor of `groups`."""
        # With one bucket all groups share it, however they are counted.
        return self.groups if len(self.bucket_samples) == 1 else math.gcd(self.groups, self.same_length_groups)

    @property
    def step_units(self) -> int:
        """Units of a step; with 1 a step holds one bucket."""
        return self.groups // self.unit

    @property
    def buffer_samples(self) -> int:
        """Samples of the flat buffer of a group."""
        return self.group_rows * self.crop_samples

    @property
    def most_rows(self) -> int:
        """Rows of a group of the shortest bucket: no group has more."""
        return self.group_rows_of(0)

    def group_rows_of(self, bucket: int) -> int:
        """Rows of one loss group in bucket number `bucket`; every group holds about the same amount of audio."""
        return self.group_rows * (self.crop_samples // self.bucket_samples[bucket])

    def unit_rows_of(self, bucket: int) -> int:
        """Rows of a unit in bucket number `bucket`."""
        return self.unit * self.group_rows_of(bucket)

    def bucket_of(self, samples: Int[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
        """Number of the smallest bucket that holds each clip after cropping to `crop_samples`."""
        # From the left, so that a clip as long as a bucket is in it:   39,999 -> 0   40,000 -> 0   40,001 -> 1
        return np.searchsorted(self.bucket_samples, np.minimum(samples, self.crop_samples))


@dataclasses.dataclass(frozen=True)
class StepRows:
    """One step: corpus rows of its groups, the start of each crop as a share of its slack, the groups' buckets.

    The first `group_rows_of(bucket)` places of a group are its rows, the others are EMPTY.
    """

    rows: Int64[np.ndarray, "g r"]
    start_u: Float64[np.ndarray, "g r"]  # uniform in [0, 1)
    bucket: Int64[np.ndarray, "g"]


@runtime_checkable
class Plan(Protocol):
    """The steps of a run or of a validation."""

    layout: BatchLayout

    def step(self, k: int) -> StepRows:
        """The rows of step k."""


def step_rows(
    layout: BatchLayout, bucket: Int64[np.ndarray, "g"], rows: Int64[np.ndarray, "n"], start_u: Float64[np.ndarray, "n"]
) -> StepRows:
    """A step from the buckets of its groups and their rows, group after group."""
    of_group = np.array([layout.group_rows_of(b) for b in range(len(layout.bucket_samples))])[bucket]
    used = np.arange(layout.most_rows) < of_group[:, None]
    placed = StepRows(np.full(used.shape, EMPTY, np.int64), np.zeros(used.shape), bucket)
    placed.rows[used], placed.start_u[used] = rows, start_u
    return placed


def crops(
    layout: BatchLayout, step: StepRows, samples: Int[np.ndarray, "n"], batching: Batching = "pad"
) -> tuple[Int64[np.ndarray, "g r"], Int32[np.ndarray, "g r"]]:
    """Start and length of each row's crop in samples; EMPTY rows have length 0.

    "pad" keeps min(clip, bucket) samples. "crop" cuts all rows of a loss group to its shortest (fairseq's collater).
    """
    present = step.rows != EMPTY
    # samples[EMPTY] is the last clip's length, which `present` drops.
    whole = np.where(present, samples[step.rows], 0)
    bucket = np.array(layout.bucket_samples)[step.bucket][:, None]
    length = np.minimum(whole, bucket)
    if batching == "crop":
        # An EMPTY row must not be the shortest: it would cut its group to nothing.
        shortest = np.where(present, length, bucket).min(axis=1, keepdims=True)
        length = np.where(present, shortest, 0)
    # slack = whole - length; start is uniform over the slack + 1 places 0 ... slack
    start = np.floor(step.start_u * (whole - length + 1)).astype(np.int64)
    return start, length.astype(np.int32)


@dataclasses.dataclass(frozen=True)
class HostRows:
    """This host's groups of a step: corpus rows (or EMPTY), crop starts and lengths in samples, buckets."""

    index: Int64[np.ndarray, "g r"]
    start: Int64[np.ndarray, "g r"]
    lengths: Int32[np.ndarray, "g r"]
    bucket: Int64[np.ndarray, "g"]


def host_rows(
    plan: Plan,
    samples: Int[np.ndarray, "n"],
    k: int,
    batching: Batching = "pad",
    host: tuple[int, int] | None = None,
) -> HostRows:
    """What this host needs of step k: with `host` (i, n) part i of n, as checked by `check_hosts`.

    groups   | 0 | 1 | 2 | 3 |
    (0, 2)   |-------|
    (1, 2)           |-------|
    """
    step = plan.step(k)
    start, lengths = crops(plan.layout, step, samples, batching)
    part, parts = host or (0, 1)
    share = plan.layout.groups // parts
    own = slice(part * share, (part + 1) * share)
    return HostRows(step.rows[own], start[own], lengths[own], step.bucket[own])


def check_hosts(layout: BatchLayout, host: tuple[int, int] | None) -> None:
    """InputError unless the hosts' equal parts are whole loss groups."""
    part, parts = host or (0, 1)
    if layout.groups % parts or not 0 <= part < parts:
        raise errors.InputError(
            f"{layout.groups} loss groups do not divide over {parts} hosts: change batch_seconds or group_rows"
        )
