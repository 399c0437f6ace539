"""Whisper's encoder (Radford et al. 2022): log-mel spectra, two convolutions, sinusoidal positions, pre-LN blocks.

audio [b, s] -> log-mel [b, m, n], 100 frames a second -> convolutions, 50 a second -> + positions -> blocks -> norm

The decoder is no part of it.
"""

import dataclasses
import math
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from voc2vec_jax import errors
from voc2vec_jax.models import block_config, layers
from voc2vec_jax.models import encoder as encoders
from voc2vec_jax.ops import log_mel, masking, norms

# "padded": every clip becomes 30 s long with silence, and all of it is attended to, as in transformers
# "cut": a clip is as long as it is; its frames have the first positions and see one another alone
CONTEXTS = ("padded", "cut")
_KERNEL, _STRIDES = 3, (1, 2)  # of the two convolutions, over frames of the spectrum


@dataclasses.dataclass(frozen=True)
class EncoderConfig(block_config.BlockConfig):
    """Shapes and rates; the defaults are those of tiny.

    In both contexts a clip's result is that of the clip alone, whatever it is batched with. They are different
    functions: silence behind a clip is attended to, sets the floor of its spectrum where the clip is quieter than that
    of its end, and takes part in a mean over all frames.
    """

    mel_bands: int = 80
    positions: int = 1500  # frames of the longest clip: 30 s
    width: int = 384
    depth: int = 4
    heads: int = 6
    inner_width: int = 1536
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    layerdrop: float = 0.0
    context: str = "padded"  # of CONTEXTS
    # As in `encoders.EncoderConfig`; `padding` has no part in what is computed
    dtype: str = "float32"
    padding: str = "exact"
    remat: str = "none"
    attention: str = "auto"
    dropout_bits: str = dataclasses.field(default="hash", repr=False)

    norm_first: ClassVar[bool] = True
    norm_eps: ClassVar[float] = 1e-5
    hop_samples: ClassVar[int] = log_mel.HOP * math.prod(_STRIDES)
    middle_samples: ClassVar[float] = 0.0

    def __post_init__(self):
        if self.context not in CONTEXTS:
            raise errors.InputError(f"context {self.context!r} is none of {', '.join(CONTEXTS)}")

    @property
    def window_samples(self) -> int:
        return self.positions * self.hop_samples

    @property
    def pads(self) -> bool:
        return self.context == "padded"

    def maskable(self, samples):
        """Frames of the spectrum: transformers hides these, and not the encoder's."""
        enough = samples >= log_mel.LEAST_SAMPLES
        return log_mel.frames(samples) * enough

    def frames(self, samples):
        """The frames of a clip's own audio (an int or an integer array), in either context."""
        #    m = 5 frames of the spectrum, t = 3:   . 0 1 | 1 2 3 | 3 4 .      . a frame that is not there
        return (self.maskable(samples) + 1) // 2

    def samples_for(self, frames: int) -> int:
        """The fewest samples that give so many frames."""
        return max(log_mel.LEAST_SAMPLES, log_mel.HOP * (2 * frames - 1))


@dataclasses.dataclass(frozen=True)
class Config:
    """One Whisper encoder; the defaults are tiny."""

    encoder: EncoderConfig = EncoderConfig()

    @property
    def parts(self) -> encoders.Parts:
        # A bias of the keys would add the same to all scores of a query
        return encoders.Parts(key_bias=False, mask_embedding=False)


def sinusoids(length: int, width: int) -> Float[np.ndarray, "{length} {width}"]:
    """Sines, then cosines, of positions times rates that fall in a geometric series from 1 to 1 / 10,000."""
    rates = np.exp(-math.log(10_000) * np.arange(width // 2) / (width // 2 - 1))
    angles = np.arange(length)[:, None] * rates[None]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


class ConvStem(nn.Module):
    """Two convolutions of three taps, the second of stride two, as if each row ended with its own frames."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, mel: Float[Array, "b m n"], frames: Int[Array, "b"]) -> Float[Array, "b _t d"]:
        c = self.config
        x = mel.astype(c.compute_dtype)
        for i, stride in enumerate(_STRIDES):
            # The first convolution makes frames past a row's own non-zero, and the second would reach one of them
            x = jnp.where(masking.valid_frames(frames, x.shape[1])[..., None], x, 0)
            x = jnp.pad(x, ((0, 0), (_KERNEL // 2, _KERNEL // 2), (0, 0)))
            x = norms.gelu(layers.StridedConv(c.width, _KERNEL, stride, True, name=f"conv_{i}")(x))
        return x


class Encoder(encoders.Encoder):
    """Audio to contextual frames: spectrum, convolutions, positions, blocks."""

    config: EncoderConfig
    parts: encoders.Parts

    @nn.compact
    def __call__(
        self,
        audio: Float[Array, "b s"],
        lengths: Int[Array, "b"],
        *,
        noise: encoders.Noise | None = None,
        masked: Bool[Array, "b k"] | None = None,
        collect: bool = False,
    ) -> tuple[Float[Array, "b t d"], dict]:
        """Contextual frames and the intermediates by name, as `encoders.Encoder`.

        `masked` frames of the spectrum, the first k, become zeros. In a padded context there are `positions` frames,
        and all of them are valid. The last of `hidden_states` is the result, after the final norm, as in transformers.
        InputError for audio longer than the positions.
        """
        c = self.config
        audio, lengths = self.context(audio, lengths)
        mel = log_mel.log_mel(audio, lengths, c.mel_bands)
        if masked is not None:
            hidden = jnp.pad(masked, ((0, 0), (0, max(0, mel.shape[1] - masked.shape[1]))))[:, : mel.shape[1]]
            mel = jnp.where(hidden[..., None], 0, mel)
        conv_features = ConvStem(c, name="conv_stem")(mel, c.maskable(lengths))
        frames = c.frames(lengths)
        # Sinusoids, which transformers does not train
        table = self.param("positions", lambda _: jnp.asarray(sinusoids(c.positions, c.width), jnp.float32))
        positions = jax.lax.stop_gradient(table[: conv_features.shape[1]]).astype(c.compute_dtype)
        x = conv_features + positions[None]
        first = x = encoders.dropout(c, x, c.dropout, noise and noise.fold_in(4 * c.depth + 1))
        x, states = self.blocks(x, frames, noise, collect)
        x = encoders.layer_norm(c, "norm")(x)
        valid = masking.valid_frames(frames, x.shape[1])
        out = {"mel": mel, "conv_features": conv_features, "frames": frames, "valid": valid}
        if collect:
            out["hidden_states"] = jnp.concatenate([first[None], states[:-1], x[None]])
        return x, out

    def context(self, audio: Float[Array, "b s"], lengths: Int[Array, "b"]):
        """Audio with silence behind each row's own samples, and the samples that count: its own, or all positions'."""
        c, s = self.config, audio.shape[1]
        if s >= c.samples_for(c.positions + 1):
            raise errors.InputError(
                f"the audio has {s} samples, and this Whisper model takes {c.window_samples} "
                f"({c.window_samples / log_mel.RATE_HZ:g} s): cut it into windows"
            )
        audio = jnp.where(masking.valid_frames(lengths, s), audio, 0)
        if not c.pads:
            return jnp.pad(audio, ((0, 0), (0, max(0, log_mel.LEAST_SAMPLES - s)))), lengths
        # transformers cuts off what exceeds its 30 s, here less than a frame
        whole = jnp.pad(audio, ((0, 0), (0, max(0, c.window_samples - s))))[:, : c.window_samples]
        return whole, jnp.full_like(lengths, c.window_samples)


class Model(nn.Module):
    """Whisper's encoder alone: (audio, lengths) -> (contextual frames, intermediates)."""

    config: Config

    @nn.compact
    def __call__(self, audio: Float[Array, "b s"], lengths: Int[Array, "b"], **options):
        return Encoder(self.config.encoder, self.config.parts, name="encoder")(audio, lengths, **options)
