"""Prepared sets read as one corpus: row i is one example of one set."""

import hashlib
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from voc2vec_jax import errors
from voc2vec_jax.datasets import records


class Corpus:
    """Prepared sets one after another: row i of the corpus is one example of one set.

    `samples` are lengths at 16 kHz, `set_index` points into `names`, `recording` ids are unique across the sets.
    """

    def __init__(self, parts: Sequence[records.PreparedSet]):
        self._parts = tuple(parts)
        sizes = [len(part) for part in self._parts]
        self._first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        recordings = [int(part.recording.max(initial=-1)) + 1 for part in self._parts]
        offsets = np.concatenate([[0], np.cumsum(recordings)])
        self.names = tuple(part.name for part in self._parts)
        self.samples = np.concatenate([part.samples for part in self._parts]).astype(np.int32)
        self.set_index = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        self.recording = np.concatenate([p.recording + o for p, o in zip(self._parts, offsets)]).astype(np.int64)
        self.fingerprints = tuple(part.fingerprint for part in self._parts)
        parts_text = " ".join(f"{part.name}={part.fingerprint}" for part in self._parts)
        self.fingerprint = hashlib.sha256(parts_text.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.samples)

    def ids(self, row: int | np.integer) -> str:
        """`set/id` of a row, for messages and logs."""
        part = int(self.set_index[row])
        return f"{self.names[part]}/{self._parts[part].ids[row - self._first[part]]}"

    def read(self, rows: Sequence[int] | Int[np.ndarray, "n"]) -> list[np.ndarray]:
        """Whole clips, int16 and read-only, in the order of `rows`; InputError names a damaged shard."""
        rows = np.asarray(rows, np.int64)
        clips: list[np.ndarray] = [None] * len(rows)
        for number in np.unique(self.set_index[rows]):
            own = np.flatnonzero(self.set_index[rows] == number)
            found = self._parts[number].read(rows[own] - self._first[number])
            for place, clip in zip(own.tolist(), found):
                clips[place] = clip
        for row, clip in zip(rows, clips):
            if len(clip) != self.samples[row]:
                raise errors.InputError(
                    f"{self.ids(row)} has {len(clip)} samples and its index says {self.samples[row]}: prepare "
                    f"{self.names[self.set_index[row]]} again"
                )
        return clips


def open_corpus(data_dir: str | os.PathLike, sets: Sequence[str]) -> Corpus:
    """Concatenates prepared sets; InputError when one is named twice, missing or half prepared."""
    if not sets or len(set(sets)) < len(sets):
        raise errors.InputError(f"sets {list(sets)} must name at least one prepared set, and each only once")
    return Corpus([records.open_set(data_dir, name) for name in sets])
