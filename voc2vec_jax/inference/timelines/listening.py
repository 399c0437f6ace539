"""One pass over a recording for its page: a spectrogram of bounded size, and sound to carry along.

s = samples at 16 kHz, b = bands from 0 to 8 kHz, c = columns.
"""

import dataclasses
import io
from collections.abc import Iterable, Sequence

import numpy as np
import soundfile
from jaxtyping import Float32, UInt8

from voc2vec_jax import audio

FFT = 512  # samples of a frame: 32 ms
BANDS = FFT // 4  # two bins each
HOP = 160  # samples from frame to frame, where the columns are few
MOST_COLUMNS = 6000
DECIBELS = 70.0  # from the darkest to the brightest colour
_SPARSE = 8  # frames in a column from which on the hop is a whole frame
_FRAMES_AT_ONCE = 4096


class Spectrogram:
    """Fills `columns` of a recording of `samples` block by block: the loudest of each band over a column's time."""

    def __init__(self, samples: int):
        frames = max(1, 1 + (samples - FFT) // HOP)
        self.columns = min(MOST_COLUMNS, frames)
        self._hop = HOP if frames <= _SPARSE * self.columns else FFT
        self._samples, self._frame = max(samples, 1), 0
        self._held = np.zeros(0, np.float32)
        self._power = np.zeros((self.columns, BANDS), np.float32)
        self._window = np.hanning(FFT).astype(np.float32)

    def add(self, block: Float32[np.ndarray, " s"]) -> None:
        """The next samples."""
        self._held = np.concatenate([self._held, block]) if len(self._held) else block
        while len(self._held) >= FFT:
            count = min(_FRAMES_AT_ONCE, 1 + (len(self._held) - FFT) // self._hop)
            frames = np.lib.stride_tricks.sliding_window_view(self._held, FFT)[:: self._hop][:count]
            self._add_frames(frames)
            self._held = self._held[count * self._hop :]

    def _add_frames(self, frames: Float32[np.ndarray, "f n"]) -> None:
        bins = np.abs(np.fft.rfft(frames * self._window))[:, 1:].astype(np.float32) ** 2
        power = bins.reshape(len(bins), BANDS, -1).max(-1)
        middles = (self._frame + np.arange(len(frames))) * self._hop + FFT // 2
        column = np.minimum(middles * self.columns // self._samples, self.columns - 1)
        firsts = np.flatnonzero(np.diff(column, prepend=-1))
        loudest = np.maximum.reduceat(power, firsts)
        self._power[column[firsts]] = np.maximum(self._power[column[firsts]], loudest)
        self._frame += len(frames)

    def image(self) -> UInt8[np.ndarray, "b c"]:
        """Decibels below the loudest, from 0 (DECIBELS or more below) to 255; the highest band comes first."""
        if not self._frame and len(self._held):  # shorter than a frame
            self._add_frames(np.pad(self._held, (0, FFT - len(self._held)))[None])
        top = self._power.max()
        if not top > 0:
            return np.zeros((BANDS, self.columns), np.uint8)
        level = 1 + 10 * np.log10(np.maximum(self._power / top, 1e-12)) / DECIBELS
        return np.round(255 * np.clip(level, 0, 1)).astype(np.uint8).T[::-1]


@dataclasses.dataclass
class Heard:
    """What a pass found: the spectrogram, the whole recording as MP3 (None if it is long), and that of spans."""

    image: UInt8[np.ndarray, "b c"]
    sound: bytes | None
    clips: list[bytes]


def listen(
    blocks: Iterable[Float32[np.ndarray, " _"]],
    samples: int,
    keep: bool = False,
    spans: Sequence[tuple[float, float]] = (),
) -> Heard:
    """A pass over the audio of a recording of `samples`, in the memory of a block and of the spans.

    With `keep` the whole sound is kept too. `spans` are from where to where in seconds.
    """
    spectrogram, encoded, at = Spectrogram(samples), io.BytesIO(), 0
    bounds = [(round(start * audio.RATE_HZ), round(end * audio.RATE_HZ)) for start, end in spans]
    parts: list[list[np.ndarray]] = [[] for _ in bounds]
    writer = _mp3(encoded) if keep else None
    for block in blocks:
        spectrogram.add(block)
        if writer:
            writer.write(np.clip(block, -1, 1))
        for (start, stop), held in zip(bounds, parts):
            if start < at + len(block) and stop > at:
                held.append(block[max(0, start - at) : stop - at].copy())
        at += len(block)
    if writer:
        writer.close()
    clips = [_encoded(np.concatenate([np.zeros(0, np.float32), *held])) for held in parts]
    return Heard(spectrogram.image(), encoded.getvalue() if keep else None, clips)


def _mp3(file: io.BytesIO) -> soundfile.SoundFile:
    return soundfile.SoundFile(file, "w", audio.RATE_HZ, 1, format="MP3", subtype="MPEG_LAYER_III")


def _encoded(wave: Float32[np.ndarray, " s"]) -> bytes:
    file = io.BytesIO()
    with _mp3(file) as writer:
        writer.write(np.clip(wave, -1, 1))
    return file.getvalue()
