"""Whisper's input: log-mel spectra of 16 kHz audio, 100 frames a second, as transformers' WhisperFeatureExtractor
makes them.

b = rows, s = samples, m = frames, n = mel bands.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

RATE_HZ = 16_000
WINDOW, HOP = 400, 160  # samples
LEAST_SAMPLES = WINDOW // 2 + 1  # a shorter clip cannot be mirrored at its ends
LEAST_POWER = 1e-10
RANGE = 8.0  # powers of ten; what is weaker than the strongest band of the clip by more is raised to that


def frames(samples):
    """Frames of `samples` samples (an int or an integer array): frame k has sample k * HOP in its middle."""
    return samples // HOP


def log_mel(audio: Float[Array, "b s"], lengths: Int[Array, "b"], bands: int) -> Float[Array, "b _m {bands}"]:
    """(log10(power) + 4) / 4 of mel bands, for each row's own samples as if it were alone; 0 past its own frames.

    In float32 or wider. A row is mirrored at its ends; `lengths` below LEAST_SAMPLES give finite values of no meaning.
    The range is that of the row's own frames, so that a clip with silence behind it is not the same clip cut.
    """
    wide = jnp.promote_types(audio.dtype, jnp.float32)
    count = frames(audio.shape[1])
    spectra = jnp.matmul(_windows(_mirrored(audio.astype(wide), lengths), count), fourier().astype(wide), **_EXACT)
    power = jnp.square(spectra[..., : WINDOW // 2 + 1]) + jnp.square(spectra[..., WINDOW // 2 + 1 :])
    mel = jnp.matmul(power, mel_filters(bands).astype(wide), **_EXACT)
    logs = jnp.log10(jnp.maximum(mel, LEAST_POWER))
    valid = (jnp.arange(count)[None] < frames(lengths)[:, None])[..., None]
    strongest = jnp.where(valid, logs, np.log10(LEAST_POWER)).max((1, 2), keepdims=True)
    return jnp.where(valid, (jnp.maximum(logs, strongest - RANGE) + 4) / 4, 0)


# Rounded factors, bfloat16's or TF32's, would drown the weak bands in the noise of the strong ones
_EXACT = {"precision": jax.lax.Precision.HIGHEST}


def _mirrored(audio: Float[Array, "b s"], lengths: Int[Array, "b"]) -> Float[Array, "b _e"]:
    """Half a window of each row's mirror image before its first and behind its last sample.

    A row a b c d e with half a window of two:   c b | a b c d e | d c
    """
    half = WINDOW // 2

    def row(x, length):
        extended = jnp.concatenate([x[half:0:-1], x, jnp.zeros(half, x.dtype)])
        tail = jax.lax.dynamic_slice(x, (length - half - 1,), (half,))
        return jax.lax.dynamic_update_slice(extended, tail[::-1], (half + length,))

    return jax.vmap(row)(audio, lengths)


def _windows(extended: Float[Array, "b e"], count: int) -> Float[Array, "b {count} w"]:
    """Frame k of each row: samples k * HOP up to k * HOP + WINDOW of the extended row."""
    # Five blocks of 80 samples, two further for each frame: reshaped slices, where an index would gather
    block = 80
    step, of = HOP // block, WINDOW // block
    blocks = extended[:, : (step * count + of - step) * block].reshape(len(extended), -1, block)
    last = step * (count - 1) + 1
    return jnp.concatenate([blocks[:, k : k + last : step] for k in range(of)], axis=2)


@functools.cache
def fourier() -> Float[np.ndarray, "w _f"]:
    """The windowed Fourier transform of a frame: real parts, then imaginary parts, of 0 to 8 kHz."""
    n = np.arange(WINDOW)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / WINDOW)
    # n k modulo the period, so that no cosine is of a large angle
    angle = 2 * np.pi * (np.outer(n, np.arange(WINDOW // 2 + 1)) % WINDOW) / WINDOW
    return hann[:, None] * np.concatenate([np.cos(angle), -np.sin(angle)], axis=1)


@functools.cache
def mel_filters(bands: int) -> Float[np.ndarray, "_f {bands}"]:
    """Slaney's triangles from 0 to 8 kHz, each of area 1 over frequency in Hz (Auditory Toolbox, 1998).

    The scale is linear up to 1 kHz, with three mels for every 200 Hz, and logarithmic above, 27 mels for a factor 6.4.
    """
    step, knee = 200 / 3, 1000.0
    above = np.log(6.4) / 27
    highest = knee / step + np.log(RATE_HZ / 2 / knee) / above
    mels = np.linspace(0, highest, bands + 2)
    edges = np.where(mels < knee / step, mels * step, knee * np.exp(above * (mels - knee / step)))
    bins = np.linspace(0, RATE_HZ / 2, WINDOW // 2 + 1)
    rising = (bins[:, None] - edges[None, :-2]) / (edges[1:-1] - edges[:-2])[None]
    falling = (edges[None, 2:] - bins[:, None]) / (edges[2:] - edges[1:-1])[None]
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[None]
