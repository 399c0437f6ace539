"""How much arithmetic a model is: the operations of its matrix products, by part, and the rate of this machine.

Only products count (a multiplication and an addition are two operations), as is usual for model FLOPs: norms,
activations, softmax and dropout are left out, whatever they cost.
"""

from typing import Any

from voc2vec_jax.models import block_config, whisper
from voc2vec_jax.ops import log_mel, masking

BACKWARD = 2  # a product's gradient is two products of its size


def forward(config: Any, samples: int) -> dict[str, float]:
    """Operations of one clip's forward pass, by part of the model; `config` is a family's.

    The objective is that of wav2vec 2.0 (quantizer, projections, every pair of masked frames) and 0 for families
    without one.
    """
    e = config.encoder
    t = e.frames(e.window_samples if e.pads else samples)
    pairs = 2 * t * t * e.width * 2  # queries against keys, and weights against values
    # query, key, value and out: 4 d^2; the two layers of the MLP: 2 d inner
    linear = 2 * t * (4 * e.width**2 + 2 * e.width * e.inner_width)
    return {
        "conv stem": sum(_stem(e, samples)),
        **_behind_stem(e, t),
        "blocks": float(e.depth * (linear + pairs)),
        "objective": _objective(config, t),
    }


def training(config: Any, samples: int) -> dict[str, float]:
    """Operations of one clip's forward and backward pass, by part: the audio itself needs no gradient."""
    parts = {name: (1 + BACKWARD) * count for name, count in forward(config, samples).items()}
    # One of the two gradients, the one for the input, is not computed for the first convolution; a spectrum has none
    spectrum, first, *_ = _stem(config.encoder, samples)
    parts["conv stem"] -= BACKWARD * spectrum + first
    return parts


def _behind_stem(e: block_config.BlockConfig, t: int) -> dict[str, float]:
    """What is between the stem and the blocks: no product in Whisper."""
    if isinstance(e, whisper.EncoderConfig):
        return {"projection": 0.0, "positional conv": 0.0}
    return {
        "projection": 2.0 * t * e.conv_channels[-1] * e.width,
        "positional conv": 2.0 * t * e.positional_kernel * e.width**2 / e.positional_groups * e.positional_depth,
    }


def _stem(e: block_config.BlockConfig, samples: int) -> list[float]:
    """The spectrum, which only Whisper has, and each convolution."""
    if isinstance(e, whisper.EncoderConfig):
        m, bins = e.maskable(e.window_samples if e.pads else samples), log_mel.WINDOW // 2 + 1
        spectrum = 2.0 * m * bins * (2 * log_mel.WINDOW + e.mel_bands)
        return [spectrum, 6.0 * m * e.mel_bands * e.width, 6.0 * ((m + 1) // 2) * e.width**2]
    operations, fan_in = [0.0], 1
    for i, (channels, kernel) in enumerate(zip(e.conv_channels, e.conv_kernels)):
        t = masking.frame_lengths(samples, e.conv_kernels[: i + 1], e.conv_strides[: i + 1])
        operations.append(2.0 * t * kernel * fan_in * channels)
        fan_in = channels
    return operations


def _objective(config: Any, t: int) -> float:
    if not hasattr(config, "codebook_groups"):
        return 0.0
    m, v = config.masked_bound(t), config.codebook_entries * config.codebook_groups
    quantizer = v * config.encoder.conv_channels[-1] + v * config.codebook_width / config.codebook_groups
    projections = (config.codebook_width + config.encoder.width) * config.target_width
    # Every masked frame: scores of all entries, the chosen one as a one-hot product, both projections, its row of pairs
    return 2.0 * m * (quantizer + projections + m * config.target_width)
