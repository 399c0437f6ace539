"""The batch plan: the rows of step k as a pure NumPy function of (seed, epoch, lengths).

A *step* is one array of rows from one length bucket, cut into equal *loss groups*. Nothing here reads audio, knows
a device or keeps state. Therefore step k is the same on every host, in every process and after every resume.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int, Int32, Int64

from voc2vec_jax import errors

EMPTY = -1  # the row of a step that holds no example
Batching = Literal["pad", "crop"]

# A purpose's place is part of its random key: another order would be another plan.
_PURPOSES = ("rotate", "epoch", "crop", "split")


@dataclasses.dataclass(frozen=True)
class BatchLayout:
    """Shape of the steps. A group has `group_rows` rows of `crop_samples`; in shorter buckets it has more rows.

    `bucket_samples` ascends and ends in `crop_samples`. A clip goes to the smallest bucket that holds it.
    """

    groups: int
    group_rows: int
    crop_samples: int = 160_000
    bucket_samples: tuple[int, ...] = (40_000, 80_000, 160_000)

    def __post_init__(self):
        for name in ("groups", "group_rows", "crop_samples"):
            if getattr(self, name) < 1:
                raise errors.InputError(f"{name} is {getattr(self, name)}: set it to 1 or more")
        buckets = tuple(self.bucket_samples)
        ascending = all(a < b for a, b in zip((0, *buckets), buckets))
        if not buckets or not ascending or buckets[-1] != self.crop_samples:
            raise errors.InputError(f"bucket_samples {buckets} must ascend and end in crop_samples {self.crop_samples}")

    def group_rows_of(self, bucket: int) -> int:
        """Rows of one loss group in bucket number `bucket`; every group holds about the same amount of audio."""
        # group_rows 2, crop 10 s:    bucket 10 s    | ---------- | ---------- |         20 s of audio
        #                             bucket  5 s    | ----- | ----- | ----- | ----- |   20 s of audio
        return self.group_rows * (self.crop_samples // self.bucket_samples[bucket])

    def step_rows_of(self, bucket: int) -> int:
        """Rows of a step (all its groups) in bucket number `bucket`."""
        return self.groups * self.group_rows_of(bucket)

    def bucket_of(self, samples: Int[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
        """Number of the smallest bucket that holds each clip after cropping to `crop_samples`."""
        # From the left, so that a clip as long as a bucket is in it:   39,999 -> 0   40,000 -> 0   40,001 -> 1
        return np.searchsorted(self.bucket_samples, np.minimum(samples, self.crop_samples))


@dataclasses.dataclass(frozen=True)
class StepRows:
    """One step, group after group: corpus rows (or EMPTY), and the start of each crop as a share of its slack."""

    rows: Int64[np.ndarray, "r"]
    bucket_samples: int
    start_u: Float64[np.ndarray, "r"]  # uniform in [0, 1)


@dataclasses.dataclass(frozen=True)
class _Stratum:
    """The examples of one set in one bucket. Each comes `whole` times in an epoch, and `extra` of them once more."""

    bucket: int
    rows: Int64[np.ndarray, "n"]
    whole: int
    extra: int

    def copies(self, epoch: int) -> Int64[np.ndarray, "m"]:
        """The rows of an epoch. The extra ones rotate, so that over the epochs all examples come equally often."""
        # Weight 1.4 and five rows, so extra = 2:   epoch 0: rows 0 1   epoch 1: rows 2 3   epoch 2: rows 4 0   ...
        turn = (epoch * self.extra + np.arange(self.extra)) % len(self.rows)
        return np.concatenate([np.tile(self.rows, self.whole), self.rows[turn]])


class BatchPlan:
    """Endless shuffled training steps; step k belongs to epoch `k // steps_per_epoch`.

    Every epoch has each example of a set floor(weight) or ceil(weight) times, in turn when the weight is no integer.
    Leftovers that do not fill a step move up to the next bucket:

        bucket 0   | step | step | left   moves up
        bucket 1                   left + | step | left   moves up
        bucket 2                                   left + | step | step | left + fill_rows repeats |

    Sets of weight 0 are left out (`excluded_rows` examples).
    """

    def __init__(
        self,
        layout: BatchLayout,
        samples: Int[np.ndarray, "n"],
        set_index: Int[np.ndarray, "n"],
        rows: Int64[np.ndarray, "m"],
        *,
        seed: int,
        weights: Sequence[float | int] | None = None,
    ):
        """`samples` and `set_index` describe the whole corpus, `rows` are the training part, `weights` one per set.

        InputError when a weight is negative or not finite, or when nothing is left to draw from.
        """
        if not 0 <= seed < 2**64:
            raise errors.InputError(f"seed {seed} is outside 0 to 2**64 - 1: choose one inside")
        weights = _checked_weights(weights, set_index)
        kept = rows[weights[set_index[rows]] > 0]
        if not len(kept):
            raise errors.InputError(
                f"no example among {len(rows)} rows has a weight above 0 ({weights.tolist()}): add a set or a weight"
            )
        self.layout = layout
        self.seed = seed
        self.excluded_rows = len(rows) - len(kept)
        self._strata = list(_strata(layout, samples, set_index, kept, weights, seed))
        self._last_bucket = max(stratum.bucket for stratum in self._strata)
        self._epochs: dict[int, tuple[int, list]] = {}
        # An epoch draws the same number of rows from each bucket as any other: epoch 0 gives the size of all.
        steps, tail = self._cut(0, np.random.Philox(key=_key(seed, "epoch", 0)))
        step_rows = layout.step_rows_of(self._last_bucket)
        self.fill_rows = -len(tail) % step_rows
        self.rows_per_epoch = sum(len(rows) for _, rows in steps) + len(tail) + self.fill_rows
        buckets = [bucket for bucket, _ in steps] + [self._last_bucket] * bool(len(tail))
        self.steps_per_epoch = len(buckets)
        self.bucket_steps = {layout.bucket_samples[b]: buckets.count(b) for b in sorted(set(buckets))}
        self.samples_per_epoch = _epoch_samples(self._strata, samples, layout.crop_samples)

    def step(self, k: int) -> StepRows:
        """Rows and crop positions of step k >= 0; pure."""
        epoch, index = divmod(k, self.steps_per_epoch)
        bucket, rows = self._epoch(epoch)[index]
        # Crops have a stream of their own, keyed by k: `_draw` may draw more or less without moving them.
        return StepRows(rows, self.layout.bucket_samples[bucket], _uniform(self.seed, "crop", k, len(rows)))

    def _epoch(self, epoch: int) -> list[tuple[int, Int64[np.ndarray, "r"]]]:
        # Two slots, because around the end of an epoch prefetching threads ask for steps of both epochs in turn.
        number, steps = self._epochs.get(epoch % 2, (None, None))
        if number != epoch:
            steps = self._draw(epoch)
            self._epochs[epoch % 2] = (epoch, steps)
        return steps

    def _draw(self, epoch: int) -> list[tuple[int, Int64[np.ndarray, "r"]]]:
        stream = np.random.Philox(key=_key(self.seed, "epoch", epoch))
        steps, tail = self._cut(epoch, stream)
        if len(tail):
            full = np.concatenate([rows for _, rows in steps] or [tail[:0]])
            # Repeat rows of other steps first: only without any would a row come twice in the last step.
            spare = np.concatenate([full[_permutation(stream, len(full))], tail])
            steps.append((self._last_bucket, np.concatenate([tail, np.resize(spare, self.fill_rows)])))
        return [steps[i] for i in _permutation(stream, len(steps))]

    def _cut(self, epoch: int, stream: np.random.Philox):
        pools = []
        for bucket in range(self._last_bucket + 1):
            rows = [stratum.copies(epoch) for stratum in self._strata if stratum.bucket == bucket]
            pools.append(np.concatenate(rows or [np.zeros(0, np.int64)]))
        # The stream is read in a fixed order: here for the buckets, shortest first, then for what `_draw` needs.
        # Leftovers are shuffled again, among the rows of the bucket that they move up to.
        return _cut(self.layout, pools, lambda rows: rows[_permutation(stream, len(rows))])


class ValidationPlan:
    """Every row exactly once, shortest bucket first, cropped from its start. The last step ends in EMPTY rows."""

    def __init__(self, layout: BatchLayout, samples: Int[np.ndarray, "n"], rows: Int64[np.ndarray, "m"]):
        """`samples` describes the whole corpus, `rows` the validation part, which may be empty."""
        self.layout = layout
        rows = np.sort(rows)
        bucket = layout.bucket_of(samples[rows])
        pools = [rows[bucket == b] for b in range(bucket.max(initial=-1) + 1)]
        self._steps, tail = _cut(layout, pools, lambda rows: rows)
        self.fill_rows = 0
        if len(tail):
            last = len(pools) - 1
            self.fill_rows = layout.step_rows_of(last) - len(tail)
            # EMPTY rows and no repeats: a clip that came twice would count twice in the mean.
            self._steps.append((last, np.pad(tail, (0, self.fill_rows), constant_values=EMPTY)))
        self.steps_per_epoch = len(self._steps)

    def step(self, k: int) -> StepRows:
        """Rows of step k < steps_per_epoch."""
        bucket, rows = self._steps[k]
        return StepRows(rows, self.layout.bucket_samples[bucket], np.zeros(len(rows)))


def crops(
    step: StepRows, samples: Int[np.ndarray, "n"], *, groups: int, batching: Batching = "pad"
) -> tuple[Int64[np.ndarray, "r"], Int32[np.ndarray, "r"]]:
    """Start and length of each row's crop in samples; EMPTY rows have length 0.

    "pad" keeps min(clip, bucket) samples. "crop" cuts all rows of a loss group to its shortest (fairseq's collater).
    """
    present = step.rows != EMPTY
    # samples[EMPTY] is the last clip's length, which `present` drops.
    whole = np.where(present, samples[step.rows], 0)
    length = np.minimum(whole, step.bucket_samples)
    if batching == "crop":
        # An EMPTY row must not be the shortest: it would cut its group to nothing.
        shortest = np.where(present, length, step.bucket_samples).reshape(groups, -1).min(axis=1)
        length = np.where(present, np.repeat(shortest, len(length) // groups), 0)
    # slack = whole - length; start is uniform over the slack + 1 places 0 ... slack
    start = np.floor(step.start_u * (whole - length + 1)).astype(np.int64)
    return start, length.astype(np.int32)


@dataclasses.dataclass(frozen=True)
class HostRows:
    """This host's rows of a step, as [g, r]: corpus rows (or EMPTY), crop starts and lengths in samples."""

    index: Int64[np.ndarray, "g r"]
    start: Int64[np.ndarray, "g r"]
    lengths: Int[np.ndarray, "g r"]
    bucket_samples: int


def host_rows(
    plan: "BatchPlan | ValidationPlan",
    samples: Int[np.ndarray, "n"],
    k: int,
    batching: Batching = "pad",
    row_slice: tuple[int, int] | None = None,
) -> HostRows:
    """What this host needs of step k; `row_slice` as checked by `check_row_slice`.

    Rows lie group after group, so that part i of n is whole groups, or an equal part of one group:

        groups   | 0 0 0 0 | 1 1 1 1 | 2 2 2 2 | 3 3 3 3 |
        (0, 2)   |-------------------|
        (1, 2)                       |-------------------|
    """
    step = plan.step(k)
    groups = plan.layout.groups
    # Crops of the whole step, before it is cut: a group's shortest clip may be on another host.
    start, lengths = crops(step, samples, groups=groups, batching=batching)
    part, parts = row_slice or (0, 1)
    share = len(step.rows) // parts
    own = slice(part * share, (part + 1) * share)
    shape = (max(groups // parts, 1), -1)
    return HostRows(
        step.rows[own].reshape(shape), start[own].reshape(shape), lengths[own].reshape(shape), step.bucket_samples
    )


def check_row_slice(layout: BatchLayout, row_slice: tuple[int, int] | None) -> None:
    """InputError unless the hosts' equal parts are whole loss groups, or equal parts of one."""
    part, parts = row_slice or (0, 1)
    whole_groups = layout.groups % parts == 0
    within_groups = parts % layout.groups == 0 and layout.group_rows % (parts // layout.groups) == 0
    if not (whole_groups or within_groups) or not 0 <= part < parts:
        raise errors.InputError(
            f"{layout.groups} loss groups of {layout.group_rows} rows do not divide over {parts} hosts: "
            "change groups or group_rows"
        )


def split_rows(
    recording: Int64[np.ndarray, "n"], set_index: Int[np.ndarray, "n"], share: float | int, seed: int
) -> tuple[Int64[np.ndarray, "t"], Int64[np.ndarray, "v"]]:
    """Training and validation rows, ascending. Validation gets about `share` of every set, in whole recordings.

    With a share of 0 there is no validation. InputError when a side would be left without a recording.
    """
    if not 0 <= share < 1:
        raise errors.InputError(f"validation share {share} is not in [0, 1): choose 0.05, or 0 for none")
    rows = np.arange(len(recording), dtype=np.int64)
    if share == 0:
        return rows, rows[:0]
    _, first, dense, counts = np.unique(recording, return_index=True, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise errors.InputError(
            f"{len(counts)} recording(s) cannot be split for validation: add recordings or set the share to 0"
        )
    rank = _rank(set_index[first], counts, seed)
    # Held out is the prefix whose sum is nearest to share * n; [:-1] leaves a recording to train on, 1 + holds one out.
    #     counts 3 4 2 5   taken 3 7 9 14   share * n = 6   -> 7 is nearest, so the first two recordings
    taken = np.cumsum(counts[rank])
    count = 1 + np.argmin(np.abs(taken[:-1] - share * len(rows)))
    held_out = np.isin(dense, rank[:count])
    return rows[~held_out], rows[held_out]


def _rank(set_index, counts, seed) -> Int64[np.ndarray, "r"]:
    """Recordings in an order whose every prefix holds about the same share of each set's examples."""
    # Within its set a recording stands at the middle of its examples, as a share: sorting by it interleaves the sets.
    shuffled = _permutation(np.random.Philox(key=_key(seed, "split", 0)), len(counts))
    position = np.empty(len(counts))
    for number in np.unique(set_index):
        own = shuffled[set_index[shuffled] == number]
        reached = np.cumsum(counts[own])
        position[own] = (reached - counts[own] / 2) / reached[-1]
    return shuffled[np.argsort(position[shuffled], kind="stable")]


def _checked_weights(weights, set_index) -> Float64[np.ndarray, "s"]:
    n_sets = int(set_index.max(initial=-1)) + 1
    weights = np.ones(n_sets) if weights is None else np.asarray(weights, np.float64)
    if weights.ndim != 1 or len(weights) < n_sets:
        raise errors.InputError(f"{weights.size} mixing weights for {n_sets} sets: give one number per set")
    if not np.all(np.isfinite(weights) & (weights >= 0)):
        raise errors.InputError(f"mixing weights {weights.tolist()} must be finite and at least 0")
    return weights


def _strata(layout, samples, set_index, rows, weights, seed) -> Iterator[_Stratum]:
    """The examples by set and bucket, in the random order in which their extra copies rotate."""
    stream = np.random.Philox(key=_key(seed, "rotate", 0))
    bucket = layout.bucket_of(samples[rows])
    for number, weight in enumerate(weights):
        for b in range(len(layout.bucket_samples)):
            own = rows[(set_index[rows] == number) & (bucket == b)]
            if len(own):
                whole = int(weight)
                # 1e-9: (1.3 - 1) * 10 is a little above 3 in floating point and must not become 4 rows
                extra = int(np.ceil((weight - whole) * len(own) - 1e-9))
                yield _Stratum(b, own[_permutation(stream, len(own))], whole, extra)


def _cut(layout, pools, arrange) -> tuple[list[tuple[int, Int64[np.ndarray, "r"]]], Int64[np.ndarray, "m"]]:
    """Full steps (bucket, rows) of the buckets' pools, and the rows left over in the last bucket."""
    steps, left = [], np.zeros(0, np.int64)
    for bucket, pool in enumerate(pools):
        rows = arrange(np.concatenate([left, pool]))
        step_rows = layout.step_rows_of(bucket)
        full = len(rows) - len(rows) % step_rows
        steps += [(bucket, part) for part in rows[:full].reshape(-1, step_rows)]
        left = rows[full:]
    return steps, left


def _epoch_samples(strata, samples, crop_samples) -> int:
    """Expected real samples of an epoch without its fill; exact for whole weights."""
    total = 0.0
    for stratum in strata:
        heard = np.minimum(samples[stratum.rows], crop_samples).sum(dtype=np.int64)
        total += heard * (stratum.whole + stratum.extra / len(stratum.rows))
    return round(total)


@functools.cache
def _purpose(name: str) -> int:
    return _PURPOSES.index(name) << 56


def _key(seed: int, purpose: str, number: int) -> np.ndarray:
    # Philox takes a key of two words:   | seed (64 bits) | purpose (8 bits), number (56 bits) |
    return np.array([seed, _purpose(purpose) | number], np.uint64)


# Only the raw 64-bit words are used: NumPy may change what Generator's methods make of them between versions.
def _permutation(stream: np.random.Philox, count: int) -> Int64[np.ndarray, "n"]:
    # Ranks of random words are a random order; stable, so that equal words cannot depend on the sort's implementation.
    return np.argsort(stream.random_raw(count), kind="stable")


def _uniform(seed: int, purpose: str, number: int, count: int) -> Float64[np.ndarray, "n"]:
    raw = np.random.Philox(key=_key(seed, purpose, number)).random_raw(count)
    return (raw >> np.uint64(11)) * 2.0**-53  # 53 bits fill a float64: uniform in [0, 1)
