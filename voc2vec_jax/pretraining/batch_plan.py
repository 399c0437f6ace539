"""The batch plan: the rows of step k as a pure NumPy function of (seed, epoch, lengths).

A step holds a fixed number of loss groups, and a *unit*, `BatchLayout.unit` groups in a row, holds rows of one length
bucket. Length goes with data set, so that a step of one bucket would see few of the sets: the units of a step come
from all buckets, in proportion. Nothing here reads audio, knows a device or keeps state. Therefore step k is the same
on every host, in every process and after every resume.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float64, Int, Int64

from voc2vec_jax import errors
from voc2vec_jax.pretraining import batch_layout

# A purpose's place is part of its random key: another order would be another plan.
_PURPOSES = ("rotate", "epoch", "crop", "split")

Unit = tuple[int, Int64[np.ndarray, "_"]]  # bucket and corpus rows


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
    Leftovers that do not fill a unit move up to the next bucket:

        bucket 0   | unit | unit | left   moves up
        bucket 1                   left + | unit | left   moves up
        bucket 2                                   left + | unit | unit | left + repeats |

    Units that come twice fill the last step. `fill_rows` of the `rows_per_epoch` rows are such repeats, and
    `bucket_groups` says how many groups of an epoch each bucket has. Sets of weight 0 are left out (`excluded_rows`
    examples).
    """

    def __init__(
        self,
        layout: batch_layout.BatchLayout,
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
        self._epochs: dict[int, tuple[int, list[Unit]]] = {}
        # An epoch draws the same number of rows from each bucket as any other: epoch 0 gives the size of all.
        units, tail = self._cut(0, np.random.Philox(key=_key(seed, "epoch", 0)))
        drawn = [bucket for bucket, _ in units] + [self._last_bucket] * bool(len(tail))
        self._units = _filled(np.bincount(drawn), layout.step_units)
        self.steps_per_epoch = int(self._units.sum()) // layout.step_units
        self.bucket_groups = {layout.bucket_samples[b]: int(n) * layout.unit for b, n in enumerate(self._units) if n}
        self.rows_per_epoch = sum(int(n) * layout.unit_rows_of(b) for b, n in enumerate(self._units))
        self.fill_rows = self.rows_per_epoch - sum(len(rows) for _, rows in units) - len(tail)
        self.samples_per_epoch = _epoch_samples(self._strata, samples, layout.crop_samples)

    def step(self, k: int) -> batch_layout.StepRows:
        """Rows and crop positions of step k >= 0; pure."""
        epoch, index = divmod(k, self.steps_per_epoch)
        count = self.layout.step_units
        units = self._epoch(epoch)[index * count : (index + 1) * count]
        rows = np.concatenate([rows for _, rows in units])
        # Crops have a stream of their own, keyed by k: `_draw` may draw more or less without moving them.
        start_u = _uniform(np.random.Philox(key=_key(self.seed, "crop", k)), len(rows))
        return batch_layout.step_rows(self.layout, _buckets(self.layout, units), rows, start_u)

    def _epoch(self, epoch: int) -> list[Unit]:
        # Two slots, because around the end of an epoch prefetching threads ask for steps of both epochs in turn.
        number, units = self._epochs.get(epoch % 2, (None, None))
        if number != epoch:
            units = self._draw(epoch)
            self._epochs[epoch % 2] = (epoch, units)
        return units

    def _draw(self, epoch: int) -> list[Unit]:
        """The units of an epoch, step after step."""
        stream = np.random.Philox(key=_key(self.seed, "epoch", epoch))
        units, tail = self._cut(epoch, stream)
        if len(tail):
            full = np.concatenate([rows for _, rows in units] or [tail[:0]])
            # Repeat rows of other units first: only without any would a row come twice in the last unit.
            spare = np.concatenate([full[_permutation(stream, len(full))], tail])
            fill = self.layout.unit_rows_of(self._last_bucket) - len(tail)
            units.append((self._last_bucket, np.concatenate([tail, np.resize(spare, fill)])))
        if self.layout.step_units == 1:
            return [units[i] for i in _permutation(stream, len(units))]
        return _interleaved(units, self._units, stream)

    def _cut(self, epoch: int, stream: np.random.Philox) -> tuple[list[Unit], Int64[np.ndarray, "m"]]:
        pools = []
        for bucket in range(self._last_bucket + 1):
            rows = [stratum.copies(epoch) for stratum in self._strata if stratum.bucket == bucket]
            pools.append(np.concatenate(rows or [np.zeros(0, np.int64)]))
        # The stream is read in a fixed order: here for the buckets, shortest first, then for what `_draw` needs.
        # Leftovers are shuffled again, among the rows of the bucket that they move up to.
        return _cut(self.layout, pools, lambda rows: rows[_permutation(stream, len(rows))])


class ValidationPlan:
    """Every row exactly once, shortest bucket first, cropped from its start. The last step ends in EMPTY rows."""

    def __init__(self, layout: batch_layout.BatchLayout, samples: Int[np.ndarray, "n"], rows: Int64[np.ndarray, "m"]):
        """`samples` describes the whole corpus, `rows` the validation part, which may be empty."""
        self.layout = layout
        rows = np.sort(rows)
        bucket = layout.bucket_of(samples[rows])
        pools = [rows[bucket == b] for b in range(bucket.max(initial=-1) + 1)]
        self._units, tail = _cut(layout, pools, lambda rows: rows)
        # EMPTY rows and no repeats: a clip that came twice would count twice in the mean.
        last = len(pools) - 1
        missing = -(len(self._units) + bool(len(tail))) % layout.step_units + bool(len(tail))
        for part in np.split(_padded(tail, missing * layout.unit_rows_of(last)), missing) if missing else ():
            self._units.append((last, part))
        self.steps_per_epoch = len(self._units) // layout.step_units

    def step(self, k: int) -> batch_layout.StepRows:
        """Rows of step k < steps_per_epoch."""
        count = self.layout.step_units
        units = self._units[k * count : (k + 1) * count]
        rows = np.concatenate([rows for _, rows in units])
        return batch_layout.step_rows(self.layout, _buckets(self.layout, units), rows, np.zeros(len(rows)))


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


def _cut(layout, pools, arrange) -> tuple[list[Unit], Int64[np.ndarray, "m"]]:
    """Full units of the buckets' pools, and the rows left over in the last bucket."""
    units, left = [], np.zeros(0, np.int64)
    for bucket, pool in enumerate(pools):
        rows = arrange(np.concatenate([left, pool]))
        unit_rows = layout.unit_rows_of(bucket)
        full = len(rows) - len(rows) % unit_rows
        units += [(bucket, part) for part in rows[:full].reshape(-1, unit_rows)]
        left = rows[full:]
    return units, left


def _filled(counts: Int64[np.ndarray, "b"], step_units: int) -> Int64[np.ndarray, "b"]:
    """Units of each bucket with as many more, in proportion, as fill the last step."""
    missing = -int(counts.sum()) % step_units
    # Largest remainders, in whole numbers: missing 3 of counts 4 1 0   ->   12 3 0 fifths   ->   2 0 0, and 0 1 0 more
    share, rest = np.divmod(missing * counts, counts.sum())
    more = np.argsort(-rest, kind="stable")[: missing - int(share.sum())]
    share[more] += 1
    return counts + share


def _interleaved(units: list[Unit], counts: Int64[np.ndarray, "b"], stream: np.random.Philox) -> list[Unit]:
    """`counts` units of each bucket in an order whose every stretch holds the buckets in proportion."""
    # Unit i of n stands at (i + start) / n of the epoch. Past its last unit a bucket begins again with its first:
    #     bucket 0, n 4   |  0     0     0     0  |
    #     bucket 1, n 2   |       1           1   |     ->   0 1 0 0 1 0
    placed = []
    for bucket, count in enumerate(counts):
        start = _uniform(stream, 1)[0]
        own = [unit for unit in units if unit[0] == bucket]
        placed += [((i + start) / count, own[i % len(own)]) for i in range(count)]
    return [unit for _, unit in sorted(placed, key=lambda x: (x[0], x[1][0]))]


def _buckets(layout: batch_layout.BatchLayout, units: list[Unit]) -> Int64[np.ndarray, "g"]:
    """The bucket of each loss group of a step."""
    return np.repeat([bucket for bucket, _ in units], layout.unit)


def _padded(rows: Int64[np.ndarray, "n"], count: int) -> Int64[np.ndarray, "m"]:
    return np.pad(rows, (0, count - len(rows)), constant_values=batch_layout.EMPTY)


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


def _uniform(stream: np.random.Philox, count: int) -> Float64[np.ndarray, "n"]:
    raw = stream.random_raw(count)
    return (raw >> np.uint64(11)) * 2.0**-53  # 53 bits fill a float64: uniform in [0, 1)
