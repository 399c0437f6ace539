"""A set `calls` of forty clips of noise, prepared in a data folder; one of them may hold a planted sample."""

import numpy as np
import soundfile

from voc2vec_jax import datasets


def prepare(data_dir, planted=0, number=3):
    """Clip `number` has the sample `planted`, the others 0 in its place."""
    folder = data_dir / "audio"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(40):
        clip = rng.integers(-3000, 3000, int(rng.integers(6_000, 16_000))).astype(np.int16)
        clip[100] = planted if i == number else 0
        soundfile.write(folder / f"{i:02d}.wav", clip, 16_000, "PCM_16")
    datasets.prepare("folder", data_dir=data_dir, manual_dir=folder, name="calls", progress=False)
