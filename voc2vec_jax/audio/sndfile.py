"""Recordings that libsndfile decodes."""

import contextlib
import io
from collections.abc import Iterator, Sequence

import numpy as np
import soundfile
from jaxtyping import Float32

from voc2vec_jax import errors
from voc2vec_jax.audio import ffmpeg, files, flac, joining, ogg, reading, wav

MOST_FRAMES = 1 << 36  # weeks; a header with more is damaged
LONGEST_PAGE_FRAMES = 255 * 4096  # of Vorbis in Ogg; in the last page, libsndfile seeks to wrong places
BLOCK_FRAMES = 1 << 18
BLOCK_CHANNELS = 8  # more make blocks shorter: libsndfile reads up to 1,024


class Decoder:
    """An open recording: `rate_hz`, `channels`, and `frames` by its header, as far as that is checked.

    `floats` says whether its samples are stored as floats, which have no scale of their own.
    """

    def __init__(self, file: io.IOBase, reporter: reading.Reporter):
        """AudioError for a file that cannot be decoded."""
        self._reporter = reporter
        self._source = flac.corrected(wav.corrected(file, reporter), reporter)
        with translated(reporter):
            self._calm = files.Calm(self._source)
            with files.stoppable(self._calm):
                self._file = soundfile.SoundFile(self._calm)
            self._check_end()
            self.rate_hz, self.channels, self.frames = self._file.samplerate, self._file.channels, self._file.frames
            self.floats = self._file.subtype in ("FLOAT", "DOUBLE")
        reporter.check_rate(self.rate_hz)
        self._block_frames = BLOCK_FRAMES * BLOCK_CHANNELS // max(BLOCK_CHANNELS, self.channels)
        if self.frames > MOST_FRAMES:
            raise reporter.error("its header gives an impossible length")

    def blocks(self, first: int = 0, stop: int | None = None) -> Iterator[Float32[np.ndarray, "frames channels"]]:
        """The frames from `first` to `stop` (None: the end); a recording that ends before is told or refused."""
        if first and not self._file.seekable():
            yield from joining.stretch(self.blocks(0, stop), first, stop)
            return
        wanted = self.frames if stop is None else min(stop, self.frames)
        at = first
        with translated(self._reporter):
            if first:
                with files.stoppable(self._calm):
                    self._file.seek(min(first, self.frames))
            while at < wanted:
                block, fault = self._read(min(self._block_frames, wanted - at))
                at += len(block)
                if len(block):
                    yield block
                if fault is not None:
                    yield from self._rest(at, stop, fault)
                    return
                if not len(block):
                    break
        if stop is None and self._file.format == "FLAC":
            flac.tell_another(self._source, self._reporter)
        if not at:
            raise self._reporter.error("holds no audio (zero frames)")
        if at < wanted:
            self._reporter.ends_early(f"is truncated: its header promises {self.frames} frames, {at} are there")

    def seconds(self, exact: bool = True) -> float | None:
        """How long the recording is."""
        del exact  # the lengths in the headers that libsndfile reads are exact
        return self.frames / self.rate_hz

    def close(self) -> None:
        """Closes what was opened here."""
        self._file.close()

    def _read(self, frames: int) -> tuple[Float32[np.ndarray, "frames channels"], soundfile.LibsndfileError | None]:
        """The next frames, at most so many, and the error that ended them."""
        block = np.zeros((frames, self.channels), np.float32)
        with files.stoppable(self._calm):
            before = self._file.tell() if self._file.seekable() else 0
            try:
                block, fault = self._file.read(out=block), None
            except soundfile.LibsndfileError as error:
                block = block[: max(0, self._file.tell() - before) if self._file.seekable() else 0]
                fault = error
        self._check_end()
        return block, fault

    def _check_end(self) -> None:
        """AudioError for a file that its decoder never comes to the end of."""
        if self._calm.ended:
            raise self._reporter.error("cannot be decoded (its parts have no end: it is damaged or crafted)")

    def _rest(
        self, at: int, stop: int | None, fault: soundfile.LibsndfileError
    ) -> Iterator[Float32[np.ndarray, "frames channels"]]:
        """What FFmpeg finds from frame `at` on, where libsndfile gives up; it also tells what is wrong."""
        if not at:
            raise fault
        try:
            decoder = ffmpeg.Decoder(self._source, self._reporter)
        except reading.AudioError:
            self._reporter.ends_early(f"is truncated: nothing can be decoded after {at} of {self.frames} frames")
            return
        with contextlib.closing(decoder):
            yield from decoder.blocks(at, self.frames if stop is None else min(stop, self.frames))
        if not (self._reporter.has_told("damaged") or self._reporter.has_told("truncated")):
            self._reporter.tell(
                "damaged", f"is damaged after {at} of {self.frames} frames: of the rest, some may be lost"
            )


class Chain:
    """A recording of several links, such as joined Ogg files; at the rate and with the channels of the first."""

    def __init__(self, file: io.IOBase, links: Sequence[ogg.Link], reporter: reading.Reporter):
        """AudioError for a file that cannot be decoded."""
        self._reporter = reporter
        self._parts: list[Decoder | ffmpeg.Decoder] = []
        try:
            for link in links:
                part = wav.part(file, link.start, link.stop)
                # After a missing page libsndfile gives samples from other places
                self._parts.append((ffmpeg.Decoder if link.damaged else Decoder)(part, reporter))
        except reading.AudioError:
            self.close()
            raise
        self._early, self._pages = links[-1].early, sum(link.pages for link in links)
        self._damaged = sum(link.damaged for link in links)
        self.rate_hz, self.channels = self._parts[0].rate_hz, self._parts[0].channels
        self.floats = False

    def blocks(self, first: int = 0, stop: int | None = None) -> Iterator[Float32[np.ndarray, "frames channels"]]:
        """The frames from `first` to `stop` (None: the end); a recording that ends before is told or refused."""
        if self._damaged:
            missing = f"{self._damaged} of its {self._pages + self._damaged} pages"
            self._reporter.tell("damaged", f"is damaged: {missing} cannot be read and are left out")
        if self._early:
            self._reporter.ends_early(f"is truncated: {self._early}")
        if len(self._parts) == 1:
            start = max(0, first - LONGEST_PAGE_FRAMES)
            pieces = self._parts[0].blocks(start, stop)
            yield from joining.stretch(pieces, first - start, None if stop is None else stop - start)
            return
        parts = ((part.rate_hz, block) for part in self._parts for block in part.blocks())
        yield from joining.stretch(joining.alike(parts, self.rate_hz, self.channels, self._reporter), first, stop)

    def seconds(self, exact: bool = True) -> float | None:
        """How long the recording is."""
        return sum(part.seconds(exact) or 0.0 for part in self._parts)

    def close(self) -> None:
        """Closes what was opened here."""
        for part in self._parts:
            part.close()


@contextlib.contextmanager
def translated(reporter: reading.Reporter) -> Iterator[None]:
    """Turns libsndfile's errors into AudioError."""
    try:
        yield
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        if isinstance(error, errors.RunError):
            raise
        text = str(getattr(error, "error_string", "") or error)
        raise reporter.error(f"cannot be decoded ({' '.join(text.split()).rstrip('.')})") from error
