"""A recording as int16, whatever its length: a long one lies in a temporary file while it is cut."""

import tempfile
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float32, Int16

from voc2vec_jax import audio

IN_MEMORY_BYTES = 1 << 25  # 17 minutes


class Samples:
    """The samples that were added, and how many of them were `clipped`."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115  (deleted with this)
        self._count = self.clipped = 0

    def __len__(self) -> int:
        return self._count

    def add(self, block: Float32[np.ndarray, " s"]) -> None:
        """Takes in the samples that follow, at a scale of 32768."""
        samples, clipped = audio.to_int16(block)
        self._file.write(samples.data)
        self._count += len(samples)
        self.clipped += clipped

    def part(self, start: int, stop: int) -> Int16[np.ndarray, " s"]:
        """The samples from `start` to `stop` - 1."""
        self._file.seek(start * 2)
        return np.frombuffer(self._file.read((stop - start) * 2), np.int16)

    def close(self) -> None:
        """Gives the memory or the file back."""
        self._file.close()

    def __enter__(self) -> "Samples":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def filled(blocks: Iterable[Float32[np.ndarray, " _"]]) -> Samples:
    """The samples of all blocks; open, to be closed by the caller."""
    samples = Samples()
    try:
        for block in blocks:
            samples.add(block)
    except BaseException:
        samples.close()
        raise
    return samples
