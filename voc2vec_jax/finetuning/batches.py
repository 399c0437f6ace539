"""The batches of a fold: which clips go together, in which order, and at which lengths they are computed.

n = clips, k = batches, r = rows of a batch, f = slots, c = batches of a chunk.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32, Int32, Int64

SAMPLINGS = ("all", "balanced")
EMPTY = -1  # a row of a batch that holds no clip
_ORDER, _DRAW = 7, 11  # keep the uses of the seed apart in Philox's key: the order of clips, and their choice


def sub_batches(
    lengths: Iterable[Int32[np.ndarray, "_"]], batch_clips: int, multiple: int
) -> tuple[tuple[int, int], ...]:
    """Shapes (rows, samples) into which a stratified batch is cut, longest first; each is computed at its own length.

    `lengths` are the samples of each set of clips that `batches` will cut up. A batch is cut in one, two or four: the
    fewest whose audio, padding included, is within 15 % of what four need. Samples are multiples of `multiple`.
    """
    # One compiled program serves every fold, so that each row must hold the longest clip of its stratum in any set.
    longest = np.max([_longest(samples, batch_clips) for samples in lengths], axis=0)
    longest = -(-longest // multiple) * multiple
    counts = [count for count in (1, 2, 4) if batch_clips % count == 0]

    def cut(count: int) -> tuple[tuple[int, int], ...]:
        rows = batch_clips // count
        return tuple((rows, int(longest[number * rows])) for number in range(count))

    def cost(count: int) -> int:
        return sum(rows * samples for rows, samples in cut(count))

    # Every sub-batch compiles the encoder once more: 15 % of padding is the cheaper price.
    return next(cut(count) for count in counts if cost(count) <= 1.15 * cost(counts[-1]))


def _longest(lengths: Int32[np.ndarray, "n"], batch_clips: int) -> Int64[np.ndarray, "r"]:
    """The longest clip of each stratum, 0 for those without clips."""
    steps = -(-len(lengths) // batch_clips)
    ordered = np.zeros(batch_clips * steps, np.int64)
    ordered[: len(lengths)] = np.sort(lengths)[::-1]
    return ordered[::steps]


def batches(
    rows: Int64[np.ndarray, "n"],
    samples: Int32[np.ndarray, "m"],
    batch_clips: int,
    *,
    stratified: bool,
    key: tuple[int, int, int] | None,
) -> Int32[np.ndarray, "k r"]:
    """Cut `rows` into batches: every clip once, EMPTY where a batch is not full.

    `key` is (seed, fold, epoch) and decides the random order; with None the order is fixed. `stratified`: row r of
    every batch comes from the r-th length stratum, longest first. Otherwise clips are shuffled and the last batch
    takes the rest, as torch's DataLoader does. `samples` are the lengths of all m clips of the task.
    """
    steps = -(-len(rows) // batch_clips)
    rng = None if key is None else _generator(key)
    filled = np.full(steps * batch_clips, EMPTY, np.int32)
    if not stratified:
        filled[: len(rows)] = rows if rng is None else rng.permutation(rows)
        return filled.reshape(steps, batch_clips)
    # Seven clips of lengths 9 ... 3 in batches of r = 3, so k = 3 batches:
    #
    #   sorted    9 8 7 | 6 5 4 | 3 . .      a stratum has k clips; EMPTY counts as the shortest
    #   strata    9 8 7                      each row is shuffled by itself,
    #             6 5 4                      and each column is a batch:
    #             3 . .                      one long, one middle and one short clip
    #
    # All batches then need about the same padding, and the shapes of `sub_batches` fit every one.
    filled[: len(rows)] = rows[np.argsort(-samples[rows], kind="stable")]
    strata = filled.reshape(batch_clips, steps)
    if rng is not None:
        strata = rng.permuted(strata, axis=1)
    return np.ascontiguousarray(strata.T)


def balanced(
    rows: Int64[np.ndarray, "n"], label: Int64[np.ndarray, "m"], key: tuple[int, int, int]
) -> Int64[np.ndarray, "n"]:
    """As many of the clips `rows` as there are, drawn so that every class of them comes equally often, or once more.

    A class's clips come equally often too, or once more. `key` is (seed, fold, epoch). `label` is of all m clips.
    """
    rng, own = _generator(key, _DRAW), label[rows]
    classes = rng.permutation(np.unique(own))
    # n = 11 clips of 3 classes: 4 4 3, and which class gets 3 is drawn anew every epoch
    wanted = [(len(rows) + k) // len(classes) for k in reversed(range(len(classes)))]
    drawn = []
    for k, count in zip(classes, wanted):
        clips = rows[own == k]
        whole = np.repeat(clips, count // len(clips))
        drawn += [whole, rng.permutation(clips)[: count - len(whole)]]
    return np.concatenate(drawn)


def _generator(key: tuple[int, int, int], use: int = _ORDER) -> np.random.Generator:
    # Counter-based: the order of any epoch of any fold is known without drawing those before, so a resumed run and
    # a fold in another process see the same batches.
    seed, fold, epoch = key
    words = np.array([seed | use << 32, fold << 32 | epoch], np.uint64)
    return np.random.Generator(np.random.Philox(key=words))


def chunks(planned: Sequence[Int32[np.ndarray, "_k r"]], size: int) -> list[Int32[np.ndarray, "f c r"]]:
    """Cut the batches of all slots into chunks of `size`, one compiled call each; EMPTY where a slot has fewer."""
    rows = planned[0].shape[1]
    count = -(-max(len(one) for one in planned) // size)
    filled = np.full((len(planned), count * size, rows), EMPTY, np.int32)
    for slot, one in enumerate(planned):
        filled[slot, : len(one)] = one
    return [filled[:, number * size : (number + 1) * size] for number in range(count)]


def by_row(
    rows: Int32[np.ndarray, "k r"], values: Float32[np.ndarray, "k r d"], wanted: Int64[np.ndarray, "n"]
) -> Float32[np.ndarray, "n d"]:
    """Undo the batching: values in the order of the clips `wanted`, each of which is in `rows`."""
    flat = rows.reshape(-1)
    place = np.full(int(max(flat.max(), wanted.max())) + 1, EMPTY, np.int64)
    place[flat[flat >= 0]] = np.flatnonzero(flat >= 0)
    return values.reshape(-1, values.shape[-1])[place[wanted]]
