"""The encoder that every family shares: convolutional stem, positional convolution, Transformer blocks."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Shapes and rates of the shared encoder; the defaults are wav2vec 2.0 base."""

    conv_channels: tuple[int, ...] = (512,) * 7
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    conv_norm: str = "group"  # "group": over time after the first layer | "layer": over channels after every layer
    width: int = 768
    depth: int = 12
    heads: int = 12
    inner_width: int = 3072
    norm_first: bool = False  # pre-LN blocks and a final norm (large models) instead of post-LN
    positional_kernel: int = 128
    positional_groups: int = 16
    positional_depth: int = 1  # 1: one weight-normed convolution | more: a stack, each with a plain norm (data2vec)
    norm_eps: float = 1e-5
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    input_dropout: float = 0.1  # after the projection to the encoder's width
    layerdrop: float = 0.05
    dtype: str = "float32"  # of the computation; parameters stay float32
    remat: str = "none"  # "none" | "layer": recompute each block in the backward pass
