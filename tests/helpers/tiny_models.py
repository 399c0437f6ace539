"""Models of random weights that compute in no time, as sources on disk, and recordings for them."""

import io
import pathlib

import numpy as np
import soundfile

from voc2vec_jax import models
from voc2vec_jax.convert import names as convert_names
from voc2vec_jax.convert import reader, writer
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.models import heads


def write(folder: pathlib.Path, labels: tuple[str, ...] = (), pooling: str = "mean", **options) -> pathlib.Path:
    """A wav2vec 2.0 of two blocks, 50 frames a second; with `labels` it has a head."""
    encoder = encoders.EncoderConfig(
        conv_channels=(8, 8, 8), conv_kernels=(40, 8, 4), conv_strides=(20, 4, 4), width=16, depth=2, heads=2,
        inner_width=32, positional_kernel=4, positional_groups=2, **options,
    )  # fmt: skip
    config = models.FAMILIES["wav2vec2"].Config(encoder=encoder)
    head = heads.Config(classes=len(labels), width=8, pooling=pooling) if labels else None
    rng = np.random.default_rng(0)
    flat = {}
    for entry in convert_names.table("wav2vec2", config, head):
        if entry.ours.startswith(("encoder/", "head/")):
            ones = entry.ours.endswith(("/scale", "/g"))
            flat[entry.ours] = ones + 0.3 * rng.standard_normal(entry.full_shape, dtype=np.float32)
    writer.write_jax(
        folder, reader.ModelWeights("wav2vec2", config, convert_names.unflatten(flat), labels=labels, normalize=True)
    )
    return folder


def recordings(folder: pathlib.Path, seconds: list[float], classes: tuple[str, ...] = (), seed: int = 0) -> list[str]:
    """Noise of changing colour at 16 kHz; the names below the folder, in turns in class folders."""
    rng = np.random.default_rng(seed)
    names = []
    for number, length in enumerate(seconds):
        name = f"{classes[number % len(classes)]}/{number:03d}.wav" if classes else f"{number:03d}.wav"
        wave = rng.normal(size=round(length * 16_000)) * np.exp(rng.normal())
        wave = np.cumsum(wave) * 0.001 if number % 3 else 0.05 * wave
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, np.clip(wave - wave.mean(), -0.99, 0.99), 16_000)
        names.append(name)
    return names


def streamed_flac() -> bytes:
    """A FLAC whose header gives no length, as encoders leave it that write to a pipe."""
    data = io.BytesIO()
    soundfile.write(data, 0.1 * np.sin(np.arange(16_000)), 16_000, format="FLAC")
    whole = bytearray(data.getvalue())
    whole[21] &= 0xF0  # of the 36 bits for the number of samples, in STREAMINFO
    return bytes(whole[:22] + bytes(4) + whole[26:])
