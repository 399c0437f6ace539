"""Changes to the waveforms of a batch, on the device: speed, shift, noise and gain.

Every row draws from its own key and sees its own samples only, so that a clip is changed alike in any batch, at any
place and beside any neighbours. What lies behind a row's length stays zero. b = rows, s = samples of the static shape.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

CROSSINGS = 8  # zero crossings of the resampling filter on each side
STEPS = 1024  # a speed is a whole number of these parts: positions are then exact however long the clip is
_SPEED, _SHIFT, _NOISE, _GAIN = range(4)  # what a row's key is split for


@dataclasses.dataclass(frozen=True)
class Waveform:
    """How strongly clips are changed; the defaults change nothing."""

    speed: float = 0.0  # factors from 1 - speed to 1 + speed
    shift: float = 0.0  # at most this share of the clip's length, to either side
    noise: float = 0.0  # share of the clips that get noise
    snr: tuple[float, float] = (10.0, 40.0)  # dB, from and to
    gain: float = 0.0  # dB, at most, up or down

    @property
    def any(self) -> bool:
        """Whether anything is changed."""
        return bool(self.speed or self.shift or self.noise or self.gain)


def augment(
    keys: Key[Array, "b"], audio: Float[Array, "b s"], lengths: Int[Array, "b"], how: Waveform, least_samples: int
) -> tuple[Float[Array, "b s"], Int[Array, "b"]]:
    """The changed clips and their lengths, which only the speed changes; `audio` is zero behind `lengths`.

    `least_samples` are left of a clip that has as many: a faster one may be too short for the model.
    """

    def own(purpose: int) -> Key[Array, "b"]:
        return jax.vmap(jax.random.fold_in, (0, None))(keys, purpose)

    if how.speed:
        audio, lengths = speed(own(_SPEED), audio, lengths, how.speed, least_samples)
    if how.shift:
        audio = shift(own(_SHIFT), audio, lengths, how.shift)
    if how.noise:
        audio = noise(own(_NOISE), audio, lengths, how.noise, how.snr)
    if how.gain:
        audio = gain(own(_GAIN), audio, how.gain)
    return audio, lengths


def speed(
    keys: Key[Array, "b"], audio: Float[Array, "b s"], lengths: Int[Array, "b"], spread: float, least_samples: int
) -> tuple[Float[Array, "b s"], Int[Array, "b"]]:
    """Play each clip faster or slower by a factor uniform in [1 - spread, 1 + spread]; its pitch changes too.

    Speed perturbation (Ko, Peddinti, Povey and Khudanpur 2015). A clip of n samples gets floor(n / factor), but no
    more than s, beyond which a slower clip is cut, and no fewer than `least_samples`. `spread` is at most 0.5.
    """
    most = round(spread * STEPS)
    parts = STEPS + jax.vmap(lambda key: jax.random.randint(key, (), -most, most + 1))(keys)
    # The fastest that leaves `least_samples`; only clips under twice as long can come near.
    near = jnp.minimum(lengths, 2 * least_samples)
    parts = jnp.where(lengths < 2 * least_samples, jnp.minimum(parts, near * STEPS // least_samples), parts)
    parts = jnp.maximum(parts, 1)  # of rows without a clip
    # n / (parts / STEPS), with n = parts q + u: no product that could leave int32
    whole, rest = lengths // parts, lengths % parts
    found = jnp.minimum(whole * STEPS + rest * STEPS // parts, audio.shape[1])
    return resample(audio, lengths, parts, math.ceil(CROSSINGS * (1 + spread)), found), found


def resample(
    audio: Float[Array, "b s"], lengths: Int[Array, "b"], parts: Int[Array, "b"], taps: int, found: Int[Array, "b"]
) -> Float[Array, "b s"]:
    """Sample t of a result is the clip at t parts / STEPS, by a sinc under a Hann window; zero from `found` on.

    The filter passes what both rates can hold: its cutoff is the lower of the two Nyquist frequencies. `taps` are its
    samples on each side, CROSSINGS times the largest factor above 1.
    """
    t = jnp.arange(audio.shape[1], dtype=jnp.int32)[None]
    # t parts / STEPS = t + t extra / STEPS; with t = STEPS q + u no product leaves int32, and nothing is rounded
    extra = parts[:, None] - STEPS
    rest = (t % STEPS) * extra
    place = t + (t // STEPS) * extra + rest // STEPS
    fraction = (rest % STEPS).astype(audio.dtype) / STEPS
    cutoff = jnp.minimum(1.0, STEPS / parts.astype(audio.dtype))[:, None]

    def tap(number: Int[Array, ""], total: Float[Array, "b s"]) -> Float[Array, "b s"]:
        offset = number - taps + 1
        at = place + offset
        x = jnp.take_along_axis(audio, at, axis=1, mode="clip")
        x = jnp.where((at >= 0) & (at < lengths[:, None]), x, 0)
        distance = (fraction - offset) * cutoff  # in zero crossings
        window = jnp.where(jnp.abs(distance) < CROSSINGS, jnp.cos(0.5 * jnp.pi * distance / CROSSINGS) ** 2, 0)
        return total + x * cutoff * jnp.sinc(distance) * window

    # A loop, since 2 * taps gathers in a row would only make the program longer.
    total = jax.lax.fori_loop(0, 2 * taps, tap, jnp.zeros_like(audio))
    return jnp.where(t < found[:, None], total, 0)


def shift(
    keys: Key[Array, "b"], audio: Float[Array, "b s"], lengths: Int[Array, "b"], share: float
) -> Float[Array, "b s"]:
    """Move each clip by up to `share` of its length to either side; the length stays.

    Zeros move in, and what leaves the clip is lost: a circular shift would join the clip's end to its beginning.
    """
    drawn = jax.vmap(lambda key: jax.random.uniform(key, (), audio.dtype, -share, share))(keys)
    offset = jnp.round(drawn * lengths.astype(audio.dtype)).astype(jnp.int32)
    s = audio.shape[1]
    # |0 0 0 ... 0|x x x . .|0 0 0 ... 0|   a window of s that starts at s - offset
    padded = jnp.pad(audio, ((0, 0), (s, s)))
    moved = jax.vmap(lambda row, start: jax.lax.dynamic_slice(row, (start,), (s,)))(padded, s - offset)
    return jnp.where(_inside(moved, lengths), moved, 0)


def noise(
    keys: Key[Array, "b"], audio: Float[Array, "b s"], lengths: Int[Array, "b"], share: float, snr: tuple[float, float]
) -> Float[Array, "b s"]:
    """Add white or pink noise, by a coin, to a `share` of the clips, at a signal-to-noise ratio uniform in `snr` dB.

    Both powers are means over the clip's own samples. A silent clip stays silent.
    """

    def drawn(key: Key[Array, ""]) -> tuple[Float[Array, "s"], Float[Array, ""], Float[Array, ""]]:
        noise_key, colour_key, snr_key, chosen_key = jax.random.split(key, 4)
        white = jax.random.normal(noise_key, audio.shape[1:], audio.dtype)
        # Power falls with 1 / f, so that amplitudes fall with its root; the mean is left out.
        number = jnp.arange(audio.shape[1] // 2 + 1, dtype=audio.dtype)
        slope = jnp.where(number > 0, jax.lax.rsqrt(jnp.maximum(number, 1)), 0)
        pink = jnp.fft.irfft(jnp.fft.rfft(white) * slope, n=audio.shape[1]).astype(audio.dtype)
        decibels = jax.random.uniform(snr_key, (), audio.dtype, *snr)
        return jnp.where(jax.random.bernoulli(colour_key), pink, white), decibels, jax.random.uniform(chosen_key)

    added, decibels, chosen = jax.vmap(drawn)(keys)
    inside = _inside(audio, lengths)
    power = lambda x: jnp.where(inside, jnp.square(x), 0).sum(1)  # noqa: E731
    # The number of samples is the same on both sides and cancels.
    factor = jnp.sqrt(power(audio) / jnp.maximum(power(added), 1e-20)) * 10 ** (-decibels / 20)
    factor = jnp.where(chosen < share, factor, 0)
    return jnp.where(inside, audio + factor[:, None] * added, 0)


def gain(keys: Key[Array, "b"], audio: Float[Array, "b s"], decibels: float) -> Float[Array, "b s"]:
    """Multiply each clip by a gain uniform in [-decibels, decibels] dB."""
    drawn = jax.vmap(lambda key: jax.random.uniform(key, (), audio.dtype, -decibels, decibels))(keys)
    return audio * 10 ** (drawn[:, None] / 20)


def _inside(audio: Float[Array, "b s"], lengths: Int[Array, "b"]) -> Array:
    """True on each row's own samples."""
    return jnp.arange(audio.shape[1])[None] < lengths[:, None]


def mix(
    key: Key[Array, ""],
    row_keys: Key[Array, "b"],
    audio: Float[Array, "b s"],
    lengths: Int[Array, "b"],
    alpha: float,
) -> tuple[Float[Array, "b s"], Int[Array, "b"], Int[Array, "b"], Float[Array, "b"]]:
    """Mixup (Zhang, Cisse, Dauphin and Lopez-Paz 2018): lambda x_i + (1 - lambda) x_j, lambda ~ Beta(alpha, alpha).

    `key` pairs the rows at random, and each row draws its own lambda. Also returns the lengths, the longer of the two
    clips', the partner j of each row, and lambda, which is 1 where one of the two rows has no clip.
    """
    partner = jax.random.permutation(key, audio.shape[0])
    share = jax.vmap(lambda key: jax.random.beta(key, alpha, alpha, dtype=audio.dtype))(row_keys)
    share = jnp.where((lengths > 0) & (lengths[partner] > 0), share, 1)
    mixed = share[:, None] * audio + (1 - share)[:, None] * audio[partner]
    longer = jnp.where(share < 1, jnp.maximum(lengths, lengths[partner]), lengths)
    return mixed, longer, partner, share
