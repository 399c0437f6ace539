"""Recordings that libsndfile decodes."""

import contextlib
import io
from collections.abc import Iterator

import numpy as np
import soundfile
from jaxtyping import Float32

from voc2vec_jax.audio import flac, reading, wav

LOWEST_RATE_HZ = 1_000  # a header with less is damaged, and resampling would blow the file up
MOST_FRAMES = 1 << 36  # weeks; a header with more is damaged
BLOCK_FRAMES = 1 << 18


class Decoder:
    """An open recording: `rate_hz`, `channels`, and `frames` by its header, as far as that is checked."""

    def __init__(self, file: io.IOBase, reporter: reading.Reporter):
        """AudioError for a file that cannot be decoded."""
        self._reporter = reporter
        self._source = flac.corrected(wav.corrected(file, reporter), reporter)
        with translated(reporter):
            self._file = soundfile.SoundFile(self._source)
            self.rate_hz, self.channels, self.frames = self._file.samplerate, self._file.channels, self._file.frames
        if self.rate_hz < LOWEST_RATE_HZ:
            raise reporter.error(f"its header gives a rate of {self.rate_hz} Hz, which is not a rate of audio")
        if self.frames > MOST_FRAMES:
            raise reporter.error("its header gives an impossible length")

    def blocks(self, first: int = 0, stop: int | None = None) -> Iterator[Float32[np.ndarray, "frames channels"]]:
        """The frames from `first` to `stop` (None: the end); a recording that ends before is told or refused."""
        wanted = self.frames if stop is None else stop
        at = first
        with translated(self._reporter):
            if first:
                self._file.seek(first)
            while stop is None or at < stop:
                size = BLOCK_FRAMES if stop is None else min(BLOCK_FRAMES, stop - at)
                block = self._file.read(size, dtype="float32", always_2d=True)
                if not len(block):
                    break
                at += len(block)
                yield block
        if stop is None and self._file.format == "FLAC":
            flac.tell_another(self._source, self._reporter)
        if not at:
            raise self._reporter.error("holds no audio (zero frames)")
        if at < wanted:
            self._reporter.ends_early(f"is truncated: its header promises {self.frames} frames, {at} are there")

    def close(self) -> None:
        """Closes what was opened here."""
        self._file.close()


@contextlib.contextmanager
def translated(reporter: reading.Reporter) -> Iterator[None]:
    """Turns libsndfile's errors into AudioError."""
    try:
        yield
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        text = str(getattr(error, "error_string", "") or error)
        raise reporter.error(f"cannot be decoded ({' '.join(text.split()).rstrip('.')})") from error
