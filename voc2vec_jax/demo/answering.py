"""What the demo says of one sound: probabilities, a timeline, and the nearest training clips. It knows no page.

w = windows, v = classes.
"""

import dataclasses
import math
import os

import numpy as np
from jaxtyping import Float32

from voc2vec_jax import audio, errors
from voc2vec_jax.demo import neighbours
from voc2vec_jax.inference import pretrained, windowing
from voc2vec_jax.inference.timelines import events as timeline_events
from voc2vec_jax.inference.timelines import listening, picture

MOST_SECONDS = 600.0
MOST_WINDOWS = 120
NEAREST = 4


@dataclasses.dataclass(frozen=True)
class Answer:
    """`said` is the label in words, `probabilities` are those of all classes, or the numbers of a regression."""

    said: str
    probabilities: dict[str, float]
    nearest: list[neighbours.Neighbour]
    seconds: float
    remarks: tuple[str, ...]  # what is odd about the file


@dataclasses.dataclass(frozen=True)
class Answerer:
    """A model, its training clips if they are at hand, and the windows of timelines in seconds."""

    model: pretrained.Model
    clips: neighbours.TrainingClips | None = None
    window_seconds: float = 2.0
    hop_seconds: float = 0.5

    def __post_init__(self):
        for name in ("window_seconds", "hop_seconds"):
            if not 0 < (value := getattr(self, name)) <= 30:
                raise errors.InputError(f"{name} is {value:g}: give seconds, above 0 and at most 30")

    def answer(self, path: str | os.PathLike) -> Answer:
        """Of one sound file. InputError in one sentence for a sound that is unreadable, too short or too long."""
        told = audio.Told()
        wave = self.read(path, told)
        sound = [(wave, audio.RATE_HZ)]
        found = self.model.predict(sound)
        nearest = [] if self.clips is None else self.clips.nearest(self.model.embed(sound)[0], NEAREST)
        values = dict(zip(self.model.labels, map(float, found.probabilities[0])))
        remarks = tuple(text for _, text in told.remarks)
        return Answer(found.labels[0], values, nearest, len(wave) / audio.RATE_HZ, remarks)

    def read(self, path: str | os.PathLike, told: audio.Remark | None = None) -> Float32[np.ndarray, " s"]:
        """The sound at 16 kHz; `told` hears what is odd about it. A long file is not read to its end."""
        told = told or (lambda kind, text: None)
        blocks, samples, least = [], 0, self.model.config.encoder.samples_for(1)
        for block in audio.stream(path, "the sound", remark=told):
            blocks.append(block)
            samples += len(block)
            if samples > MOST_SECONDS * audio.RATE_HZ:
                raise errors.InputError(
                    f"the sound is longer than {MOST_SECONDS:.0f} s: cut it, or use voc2vec evaluate --timeline"
                )
        if samples < least:
            raise errors.InputError(
                f"the sound has {samples} samples at 16 kHz, and the model needs {least}: record more"
            )
        return np.concatenate(blocks)

    def windows(self, samples: int) -> list[windowing.Window]:
        """Windows every hop, or further apart where they would be more than MOST_WINDOWS."""
        window = max(round(self.window_seconds * audio.RATE_HZ), self.model.config.encoder.samples_for(1))
        hop = max(round(self.hop_seconds * audio.RATE_HZ), math.ceil((samples - window) / MOST_WINDOWS), 1)
        return windowing.sliding(window, hop, self.model.config.encoder.frames)(samples)

    def timeline(self, wave: Float32[np.ndarray, " s"]) -> bytes:
        """Spectrogram, probabilities over time and events, as PNG."""
        windows = self.windows(len(wave))
        chances = self.model.predict([(wave[w.start : w.stop], audio.RATE_HZ) for w in windows]).probabilities
        bounds = np.array([(w.start, w.stop) for w in windows]) / audio.RATE_HZ
        seconds = len(wave) / audio.RATE_HZ
        at = timeline_events.edges(bounds[:, 0], bounds[:, 1], seconds)
        is_share = self.model.checkpoint.kind != "regression"
        rules = timeline_events.Rules()
        found = timeline_events.find(at, chances, self.model.labels, rules) if is_share else []
        spectrogram = listening.Spectrogram(len(wave))
        spectrogram.add(wave)
        threshold = rules.threshold if is_share else None
        return picture.draw("", spectrogram.image(), at, chances, self.model.labels, found, threshold)
