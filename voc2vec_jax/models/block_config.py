"""What the configuration of any encoder offers, whatever is in front of its blocks."""

import jax.numpy as jnp


class BlockConfig:
    """What blocks and the users of any encoder ask of its configuration beside the fields of `EncoderConfig` from
    `width` to `heads`, and from `dropout` on.

    `hop_samples` lie between frames, `frames(samples)` are those of a clip (an int or an integer array), and
    `samples_for(frames)` the fewest samples that give so many; the middle of what the first frame sees lies at
    `middle_samples`. SpecAugment hides `maskable(samples)` places of a clip,
    its frames where a family does not say otherwise. `window_samples` are the most that the encoder takes, None for
    any number; `pads` says that it fills up every clip to that many itself.
    """

    window_samples: int | None = None
    pads: bool = False

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def compute_dtype(self) -> jnp.dtype:
        return jnp.dtype(self.dtype)

    def maskable(self, samples):
        return self.frames(samples)
