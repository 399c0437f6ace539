"""Synthetic vocalizations of six classes, made from a seed, so that everything runs without a file.

A glottal pulse train with jitter, mixed with breath noise, passes three moving formants. Classes differ in pitch,
rhythm, breathiness and vowel; speakers in pitch, size of the vocal tract and breathiness.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np
from jaxtyping import Complex128, Float32, Float64

from voc2vec_jax import audio, errors
from voc2vec_jax.datasets import listings

SPEAKERS = 12
DEFAULT_CLIPS = 240
MOST_CLIPS = 100_000
HOP_SAMPLES = 256  # formants are constant for 16 ms
FFT_SAMPLES = 4 * HOP_SAMPLES  # a window of two hops, and two more for the filter's tail
BANDWIDTHS_HZ = (80.0, 110.0, 170.0)


@dataclasses.dataclass(frozen=True)
class SoundRecipe:
    """The parameters of a class: `seconds` is the range of a uniform draw, `pitch` goes from start to end."""

    seconds: tuple[float, float]
    pitch: tuple[float, float]  # relative to the speaker's
    bursts_hz: float  # syllables per second, 0 for one sustained sound
    sharpness: float  # how fast a burst dies away
    breath: float  # share of noise in the source, 0..1
    jitter: float  # relative deviation of the pitch from its course
    vibrato: float
    formants_start_hz: tuple[int, int, int]
    formants_end_hz: tuple[int, int, int]


RECIPES = {
    "cough": SoundRecipe((0.5, 2.0), (1.0, 0.8), 2.2, 9.0, 0.85, 0.06, 0.0, (750, 1500, 2600), (550, 1200, 2400)),
    "cry": SoundRecipe((2.0, 6.0), (2.3, 1.7), 0.9, 1.0, 0.08, 0.01, 0.05, (850, 1350, 2900), (650, 1100, 2800)),
    "groan": SoundRecipe((1.0, 4.0), (0.8, 0.55), 0.0, 1.0, 0.12, 0.04, 0.0, (420, 850, 2300), (340, 750, 2200)),
    "laugh": SoundRecipe((0.8, 4.5), (1.7, 1.2), 4.8, 3.0, 0.30, 0.02, 0.0, (750, 1300, 2600), (600, 1500, 2500)),
    "scream": SoundRecipe((0.7, 3.0), (4.2, 4.8), 0.0, 1.0, 0.15, 0.05, 0.02, (1000, 1800, 3200), (1150, 1900, 3400)),
    "sigh": SoundRecipe((0.6, 2.5), (1.1, 0.7), 0.0, 2.5, 0.95, 0.01, 0.0, (600, 1600, 2700), (450, 1000, 2400)),
}
LABELS = tuple(RECIPES)


def list_recordings(
    source: listings.Source, manual_dir: pathlib.Path | None, *, clips: int = DEFAULT_CLIPS, seed: int = 0
) -> listings.Listing:
    """`clips` vocalizations of 0.5 to 6 s; classes and speakers alternate. `manual_dir` is ignored."""
    del source, manual_dir
    if not 1 <= clips <= MOST_CLIPS or seed < 0:
        raise errors.InputError(f"clips={clips} seed={seed}: clips is 1 to {MOST_CLIPS}, seed not negative")
    recordings = []
    for index in range(clips):
        label, speaker = LABELS[index % len(LABELS)], index // len(LABELS) % SPEAKERS
        path = f"seed{seed}/{index:05d}_{label}"
        recordings.append(listings.Recording(path, str(index), f"speaker{speaker:02d}", label))
    return listings.Listing(recordings, LABELS, Vocalizer(seed))


@dataclasses.dataclass(frozen=True)
class Vocalizer(listings.Loader):
    """Makes the clip with number `locator` of a seed: a pure function of both."""

    seed: int

    def stream(
        self, locator: str, how: audio.Reading = audio.DEFAULT, remark: audio.Remark | None = None
    ) -> Iterator[Float32[np.ndarray, " _"]]:
        """Mono audio at 16 kHz, peak at most 0.9."""
        del how, remark
        index = int(locator)
        label, speaker = LABELS[index % len(LABELS)], index // len(LABELS) % SPEAKERS
        yield vocalize(RECIPES[label], speaker_voice(self.seed, speaker), _generator(self.seed, "clip", index))

    def file(self, locator: str) -> None:
        """None: no file is read."""
        del locator


@dataclasses.dataclass(frozen=True)
class Voice:
    """A speaker: pitch, a factor on the formants for the length of the vocal tract, and breathiness."""

    pitch_hz: float
    formants: float
    breath: float


def speaker_voice(seed: int, speaker: int) -> Voice:
    """The voice of a speaker, drawn from the seed."""
    rng = _generator(seed, "speaker", speaker)
    size = rng.uniform(0.0, 1.0)
    return Voice(110.0 * 2 ** (size + rng.uniform(-0.15, 0.15)), 0.88 + 0.3 * size, rng.uniform(0.0, 0.08))


def vocalize(recipe: SoundRecipe, voice: Voice, rng: np.random.Generator) -> Float32[np.ndarray, " s"]:
    """One vocalization of a class by a voice; all randomness comes from `rng`."""
    samples = round(rng.uniform(*recipe.seconds) * audio.RATE_HZ)
    position = np.linspace(0.0, 1.0, samples)
    pitch_hz = _pitch(recipe, voice, position, rng)
    breath = min(1.0, recipe.breath + voice.breath)
    noise = 0.5 * rng.standard_normal(samples)
    source = (1.0 - breath) * _glottal_pulses(pitch_hz) + breath * noise
    shaped = _formants(source * _envelope(recipe, position, rng), recipe, voice, rng)
    shaped += 1e-3 * np.max(np.abs(shaped)) * rng.standard_normal(samples)
    return (shaped * rng.uniform(0.3, 0.9) / np.max(np.abs(shaped))).astype(np.float32)


def _pitch(
    recipe: SoundRecipe, voice: Voice, position: Float64[np.ndarray, " s"], rng: np.random.Generator
) -> Float64[np.ndarray, " s"]:
    seconds = position * len(position) / audio.RATE_HZ
    start, end = np.array(recipe.pitch) * rng.uniform(0.9, 1.1)
    knots = np.linspace(0.0, 1.0, max(2, round(seconds[-1] * 100)))
    jitter = np.interp(position, knots, rng.standard_normal(len(knots)))
    vibrato = np.sin(2 * np.pi * (rng.uniform(4.5, 6.5) * seconds + rng.uniform()))
    course = start + (end - start) * position
    return voice.pitch_hz * course * (1 + recipe.jitter * jitter + recipe.vibrato * vibrato)


def _glottal_pulses(pitch_hz: Float64[np.ndarray, " s"]) -> Float64[np.ndarray, " s"]:
    """The derivative of a raised-cosine flow through vocal folds that are open for 60 % of a cycle."""
    phase = np.cumsum(pitch_hz / audio.RATE_HZ) % 1.0
    return np.where(phase < 0.6, np.sin(2 * np.pi * phase / 0.6), 0.0)


def _envelope(
    recipe: SoundRecipe, position: Float64[np.ndarray, " s"], rng: np.random.Generator
) -> Float64[np.ndarray, " s"]:
    seconds = len(position) / audio.RATE_HZ
    fade = np.minimum(1.0, np.minimum(position, 1.0 - position) * seconds / 0.03)
    if not recipe.bursts_hz:
        return fade * np.exp(-(recipe.sharpness - 1.0) * position)
    bursts = max(1, round(seconds * recipe.bursts_hz * rng.uniform(0.85, 1.15)))
    phase = position * bursts % 1.0
    attack = np.minimum(1.0, phase / 0.08)
    loudness = rng.uniform(0.6, 1.0, bursts + 1)[(position * bursts).astype(int)]
    return fade * loudness * attack * (1.0 - phase) ** recipe.sharpness


def _formants(
    source: Float64[np.ndarray, " s"], recipe: SoundRecipe, voice: Voice, rng: np.random.Generator
) -> Float64[np.ndarray, " s"]:
    padded = np.pad(source, (HOP_SAMPLES, HOP_SAMPLES + -len(source) % HOP_SAMPLES))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * HOP_SAMPLES)[::HOP_SAMPLES]
    start, end = np.array(recipe.formants_start_hz), np.array(recipe.formants_end_hz)
    moving = start + (end - start) * np.linspace(0.0, 1.0, len(windows))[:, None]
    responses = _responses(moving * (1 + 0.04 * rng.standard_normal(3)) * voice.formants)
    hann = np.sin(np.pi * np.arange(2 * HOP_SAMPLES) / (2 * HOP_SAMPLES)) ** 2
    shaped = np.fft.irfft(np.fft.rfft(windows * hann, FFT_SAMPLES) * responses, FFT_SAMPLES)
    out = np.zeros((len(windows) + 3, HOP_SAMPLES))
    for part in range(4):
        out[part : part + len(windows)] += shaped[:, part * HOP_SAMPLES : (part + 1) * HOP_SAMPLES]
    return out.reshape(-1)[HOP_SAMPLES : HOP_SAMPLES + len(source)]


def _responses(centres_hz: Float64[np.ndarray, "windows 3"]) -> Complex128[np.ndarray, "windows bins"]:
    """Three two-pole resonators in series at the bins of the FFT, with a gain of one at 0 Hz."""
    radius = np.exp(-np.pi * np.array(BANDWIDTHS_HZ) / audio.RATE_HZ)
    a1 = -2 * radius * np.cos(2 * np.pi * centres_hz / audio.RATE_HZ)
    a2 = radius**2
    delay = np.exp(-2j * np.pi * np.arange(FFT_SAMPLES // 2 + 1) / FFT_SAMPLES)
    poles = 1 + a1[..., None] * delay + a2[:, None] * delay**2
    return np.prod(1 + a1 + a2, axis=1)[:, None] / np.prod(poles, axis=1)


def _generator(seed: int, purpose: str, number: int) -> np.random.Generator:
    sequence = np.random.SeedSequence([seed, *purpose.encode(), number])
    return np.random.Generator(np.random.Philox(sequence))


SOURCE = listings.Source(
    name="synthetic",
    title="Synthetic vocalizations",
    url="this package",
    licence="that of this package",
    holds="nothing: it is made on the spot",
    list_recordings=list_recordings,
)
