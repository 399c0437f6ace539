"""The encoder that all families share: convolutional stem, positional convolution, Transformer blocks.

audio [b, s] -> stem -> norm -> projection -> masked frames replaced -> + positional conv -> blocks -> [b, t, d]
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from voc2vec_jax.models import block_config, layers
from voc2vec_jax.ops import attention as attention_ops
from voc2vec_jax.ops import convolution, masking, norms
from voc2vec_jax.ops import dropout as dropouts

# What the backward pass recomputes of a block: nothing | everything | everything but the products of dense layers
REMAT = {
    "none": None,
    "layer": jax.checkpoint_policies.nothing_saveable,
    "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


@dataclasses.dataclass(frozen=True)
class EncoderConfig(block_config.BlockConfig):
    """Shapes and rates of the shared encoder; the defaults are wav2vec 2.0 base."""

    conv_channels: tuple[int, ...] = (512,) * 7  # of each layer of the stem
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)  # of each layer of the stem
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)  # of each layer; their product in samples is the hop
    conv_bias: bool = False  # whether the stem's convolutions add a bias
    conv_norm: str = "group"  # "group": over time after the first layer | "layer": over channels after every layer
    width: int = 768  # of the frames
    depth: int = 12  # number of blocks
    heads: int = 12  # of attention
    inner_width: int = 3072  # inside a block
    norm_first: bool = False  # pre-LN blocks and a final norm (large models) instead of post-LN
    positional_kernel: int = 128  # frames that the positional convolution sees
    positional_groups: int = 16  # of the positional convolution
    positional_depth: int = 1  # 1: one weight-normed convolution | more: a stack, each with a plain norm (data2vec)
    norm_eps: float = 1e-5  # added to the variance in norms
    dropout: float = 0.1  # behind attention and feed-forward parts
    attention_dropout: float = 0.1  # of attention's weights
    activation_dropout: float = 0.0  # inside the feed-forward part
    input_dropout: float = 0.1  # after the projection to the encoder's width
    layerdrop: float = 0.05  # chance that a block is left out of an update
    dtype: str = "float32"  # of the computation; parameters stay float32
    padding: str = "exact"  # "exact": padding changes nothing | "legacy": what transformers computes when padded
    remat: str = "none"  # of REMAT: what of each block the backward pass recomputes
    attention: str = "auto"  # of attention.IMPLEMENTATIONS
    # Digests on disk lack the fields that follow
    dropout_bits: str = dataclasses.field(default="hash", repr=False)  # of dropout.BITS
    feature_norm: bool = dataclasses.field(default=True, repr=False)  # between stem and projection; not in DistilHuBERT

    @property
    def hop_samples(self) -> int:
        return math.prod(self.conv_strides)

    def frames(self, samples):
        """Frames for `samples` samples at 16 kHz (an int or an integer array)."""
        return masking.frame_lengths(samples, self.conv_kernels, self.conv_strides)

    def samples_for(self, frames: int) -> int:
        """The fewest samples that give so many frames."""
        return masking.samples_for_frames(frames, self.conv_kernels, self.conv_strides)

    @property
    def middle_samples(self) -> float:
        return self.samples_for(1) / 2


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a family adds to the shared encoder; its functions may create parameters in the module they are given."""

    position_bias: Callable | None = None  # (encoder, length) -> [h, length, length], added to all blocks' scores
    position_gate: Callable | None = None  # (attention, its input [b, t, d]) -> [b, h, t], a factor per query
    never_dropped: int = 0  # so many blocks, the first, are not subject to LayerDrop
    extra_tokens: int = 0  # learned, put before the frames ahead of the first norm, removed from outputs
    mask_embedding: bool = True  # learned, in the place of masked frames; else zeros
    hide_padding: bool = True  # zeros for padding before the positional convolution, with legacy padding too
    feature_norm_eps: float | None = None  # of the norm after the stem; None: `norm_eps`
    key_bias: bool = True  # the projection to keys has a bias


class Noise(NamedTuple):
    """The randomness of a training pass: one key per row, and the key of each row's loss group.

    A row's noise depends on its own key alone, so it is the same in every batch and on any number of devices.
    """

    rows: Key[Array, "b"]
    groups: Key[Array, "b"]

    def fold_in(self, purpose: int | Int[Array, ""]) -> "Noise":
        """Independent noise for another purpose."""
        return Noise(_folded(self.rows, purpose), _folded(self.groups, purpose))


@jax.jit
def _folded(keys, purpose):
    return jax.vmap(jax.random.fold_in, (0, None))(keys, purpose)


def dropout(
    config: block_config.BlockConfig, x: Float[Array, "b *d"], share: float, noise: Noise | None
) -> Float[Array, "b *d"]:
    """Zero a share of the entries and scale up the rest, each row by its own key; None: no dropout."""
    return x if noise is None else dropouts.drop(x, noise.rows, dropouts.rule(share, config.dropout_bits))


def layer_norm(config: block_config.BlockConfig, name: str | None = None, eps: float | None = None) -> layers.LayerNorm:
    """Layer norm over channels of the config's type, and of its `norm_eps` unless another is given."""
    return layers.LayerNorm(config.norm_eps if eps is None else eps, config.compute_dtype, name=name)


class ConvStem(nn.Module):
    """Seven strided convolutions: samples to frames of about 20 ms."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, audio: Float[Array, "b s"], lengths: Int[Array, "b"]) -> Float[Array, "b t c"]:
        c = self.config
        x = audio[..., None].astype(c.compute_dtype)
        frames = lengths
        for i, (channels, kernel, stride) in enumerate(zip(c.conv_channels, c.conv_kernels, c.conv_strides)):
            conv = layers.StridedConv(channels, kernel, stride, c.conv_bias, name=f"conv_{i}")
            before, x = x, conv(x)
            frames = masking.frame_lengths(frames, (kernel,), (stride,))
            if c.conv_norm == "group" and i == 0:
                # transformers normalises over padding too: "legacy" counts every frame as valid
                counted = frames if c.padding == "exact" else jnp.full_like(frames, x.shape[1])
                valid = masking.valid_frames(counted, x.shape[1])
                x = layers.GeluOfTimeNorm(name="norm_0")(x, valid, conv(before, layers.GUESS_EVERY))
                continue
            if c.conv_norm == "layer":
                x = layer_norm(c, f"norm_{i}", layers.CONV_NORM_EPS)(x)
            x = norms.gelu(x)
        return x


class PositionalConv(nn.Module):
    """Position from context: one wide weight-normed convolution in groups, or a stack of narrower plain ones."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], valid: Bool[Array, "b t"]) -> Float[Array, "b t d"]:
        c = self.config
        shape = (c.positional_kernel, c.width // c.positional_groups, c.width)
        if c.positional_depth == 1:
            # w = g v / |v| with one norm |v[k]| for each tap k, as in fairseq; g starts as |v|, so w starts as v
            init = nn.initializers.normal(math.sqrt(4 / (c.positional_kernel * c.width)))
            v = self.param("v", init, shape)
            g = self.param("g", lambda key: jnp.sqrt(jnp.sum(v * v, (1, 2), keepdims=True)))
            bias = self.param("bias", nn.initializers.zeros, (c.width,))
            out = convolution.grouped_conv(x, convolution.weight_norm(g, v).astype(x.dtype), c.positional_groups)
            return norms.gelu(out + bias.astype(x.dtype)[None, None])
        for j in range(c.positional_depth):
            # The layer before made padding frames non-zero, and this kernel would reach them
            if c.padding == "exact" and j > 0:
                x = jnp.where(valid[..., None], x, 0)
            x = layers.GroupedConv(shape, c.positional_groups, name=f"conv_{j}")(x)
            x = norms.gelu(layers.LayerNorm(layers.CONV_NORM_EPS, c.compute_dtype, affine=False)(x))
        return x


class Attention(nn.Module):
    """Multi-head self-attention over each row's own frames, its first; softmax in float32 or wider."""

    config: block_config.BlockConfig
    parts: Parts

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        frames: Int[Array, "b"],
        bias: Float[Array, "h t t"] | None,
        noise: Noise | None,
    ) -> Float[Array, "b t d"]:
        c = self.config
        b, t, d = x.shape

        def product(name, bias=True):
            return layers.dense(d, c.compute_dtype, name, bias=bias)(x)

        # softmax(q k' / sqrt(head_width) + gate * bias) v, over valid keys only
        gate = self.parts.position_gate
        gate = None if bias is None or gate is None else gate(self, x)
        query, value = product("query") * c.head_width**-0.5, product("value")
        key = product("key", self.parts.key_bias)
        drops = None if noise is None else dropouts.rule(c.attention_dropout, c.dropout_bits)
        attention_ops.check(c.attention, c.dtype, drops is not None)
        if c.attention in attention_ops.OWN:
            key_data = None if drops is None else jax.random.key_data(noise.rows)
            arrays = query, key, value, bias, gate, frames, key_data
            out = attention_ops.attend_joined(c.heads, *arrays, drops, c.attention)
        else:
            split = (x.reshape(b, t, c.heads, c.head_width) for x in (query, key, value))
            out = attention_ops.by_library(*split, bias, gate, frames, c.attention).reshape(b, t, d)
        return layers.dense(d, c.compute_dtype, "out")(out)


class Block(nn.Module):
    """One Transformer block, norms after (post-LN) or before (pre-LN) the residual branches.

    Called by `nn.scan`: the carry is (x, frames, noise); the scanned inputs are the layer's number and, per
    row, whether LayerDrop keeps the layer; the bias of the attention scores is the same for every layer.
    """

    config: block_config.BlockConfig
    parts: Parts
    collect: bool

    @nn.compact
    def __call__(self, carry, layer: Int[Array, ""], keep: Bool[Array, "b"], bias: Float[Array, "h t t"] | None):
        c = self.config
        x, frames, noise = carry
        # Purposes 4 * layer + 0..3 are the blocks'; the encoder itself uses 4 * depth + 0..2
        noises = [noise and noise.fold_in(4 * layer + i) for i in range(4)]
        attention_norm, mlp_norm = layer_norm(c, "attention_norm"), layer_norm(c, "mlp_norm")

        def attend(x):
            attended = Attention(c, self.parts, name="attention")(x, frames, bias, noises[0])
            return dropout(c, attended, c.dropout, noises[1])

        def mlp(x):
            x = layers.dense(c.inner_width, c.compute_dtype, "mlp_in")(x)
            drop = functools.partial(dropout, c, share=c.activation_dropout, noise=noises[2])
            # Of [b, t, inner_width] only mlp_in's output is stored; GELU and dropout are computed again
            x = layers.dense(c.width, c.compute_dtype, "mlp_out", before=lambda x: drop(norms.gelu(x)))(x)
            return dropout(c, x, c.dropout, noises[3])

        # pre-LN: y = x + f(norm(x)); post-LN: y = norm(x + f(x)), once for attention and once for the MLP
        if c.norm_first:
            y = x + attend(attention_norm(x))
            y = y + mlp(mlp_norm(y))
        else:
            y = attention_norm(x + attend(x))
            y = mlp_norm(y + mlp(y))
        # LayerDrop: the layer runs for all rows, since loss groups of one batch may drop different layers
        if noise is not None:
            y = layers.where_rows(keep, y, x)
        return (y, frames, noise), (y if self.collect else None)


class Encoder(nn.Module):
    """Audio to contextual frames: stem, norm, projection, positional convolution, blocks."""

    config: EncoderConfig
    parts: Parts = Parts()

    @nn.compact
    def __call__(
        self,
        audio: Float[Array, "b s"],
        lengths: Int[Array, "b"],
        *,
        noise: Noise | None = None,
        masked: Bool[Array, "b t"] | None = None,
        feature_gradient_scale: float = 1.0,
        collect: bool = False,
    ) -> tuple[Float[Array, "b t d"], dict]:
        """Contextual frames and the intermediates by name.

        `lengths` are samples; frames past a row's own are undefined. `noise` None: no dropout, no LayerDrop.
        `masked` frames are replaced by the mask embedding. `collect` adds `hidden_states` [depth + 1, b, t, d]:
        what enters the first block, then each block's output. The final norm of pre-LN models comes after them
        all, so that the last is not the result itself, as in transformers since version 5.
        """
        c, parts = self.config, self.parts
        conv_features = layers.scale_gradient(ConvStem(c, name="conv_stem")(audio, lengths), feature_gradient_scale)
        frames = c.frames(lengths)
        valid = masking.valid_frames(frames, conv_features.shape[1])
        features = conv_features
        if c.feature_norm:
            features = layer_norm(c, "feature_norm", parts.feature_norm_eps)(conv_features)
        x = layers.projection(features.shape[-1], c.width, c.compute_dtype, "feature_projection")(features)
        x = dropout(c, x, c.input_dropout, noise and noise.fold_in(4 * c.depth))
        x = self.positioned(self.hidden(x, masked), valid)
        x = self.with_tokens(x)
        norm = layer_norm(c, "norm")
        # The one norm outside the blocks, as in fairseq: post-LN normalises what enters them, pre-LN what leaves them
        x = x if c.norm_first else norm(x)
        x = dropout(c, x, c.dropout, noise and noise.fold_in(4 * c.depth + 1))
        first = x
        x, states = self.blocks(x, frames + parts.extra_tokens, noise, collect)
        x = norm(x) if c.norm_first else x
        out = {"conv_features": conv_features, "features": features, "frames": frames, "valid": valid}
        if parts.extra_tokens:
            out["with_extra_tokens"] = x
        if collect:
            out["hidden_states"] = jnp.concatenate([first[None], states])[:, :, parts.extra_tokens :]
        return x[:, parts.extra_tokens :], out

    def hidden(self, x: Float[Array, "b t d"], masked: Bool[Array, "b t"] | None) -> Float[Array, "b t d"]:
        """x with the mask embedding, or zeros, in the place of masked frames."""
        replacement = jnp.zeros(x.shape[-1:], x.dtype)
        if self.parts.mask_embedding:
            replacement = self.param("mask_embedding", nn.initializers.uniform(1.0), x.shape[-1:]).astype(x.dtype)
        return x if masked is None else jnp.where(masked[..., None], replacement[None, None], x)

    def positioned(self, x: Float[Array, "b t d"], valid: Bool[Array, "b t"]) -> Float[Array, "b t d"]:
        """x plus its positional convolution."""
        if self.parts.hide_padding or self.config.padding == "exact":
            x = jnp.where(valid[..., None], x, 0)
        return x + PositionalConv(self.config, name="positional_conv")(x, valid)

    def with_tokens(self, x: Float[Array, "b t d"]) -> Float[Array, "b n d"]:
        """x behind the extra tokens, which are valid for every row."""
        tokens = self.parts.extra_tokens
        if not tokens:
            return x
        b, _, d = x.shape
        learned = self.param("extra_tokens", nn.initializers.normal(1.0), (tokens, d)).astype(x.dtype)
        return jnp.concatenate([jnp.broadcast_to(learned[None], (b, tokens, d)), x], axis=1)

    def blocks(self, x, frames: Int[Array, "b"], noise: Noise | None, collect: bool):
        """The stack of blocks as one scanned body; LayerDrop draws once per layer and loss group."""
        c, parts = self.config, self.parts
        keep = jnp.ones((c.depth, x.shape[0]), bool)
        if noise is not None:
            # One draw per loss group: fairseq drops a layer for the whole batch of a GPU
            draw = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - c.layerdrop, (c.depth,)))
            keep = draw(noise.fold_in(4 * c.depth + 2).groups).T
            keep = keep | (jnp.arange(c.depth) < parts.never_dropped)[:, None]
        bias = None if parts.position_bias is None else parts.position_bias(self, x.shape[1])
        carry, numbers = (x, frames, noise), jnp.arange(c.depth)
        (x, _, _), states = block_stack(c, parts, collect, not self.is_initializing(), "layers")(
            carry, numbers, keep, bias
        )
        return x, states


def block_stack(
    config: block_config.BlockConfig,
    parts: Parts = Parts(),
    collect: bool = False,
    narrow: bool = True,
    name: str | None = None,
):
    """All blocks as one scanned module, (carry, numbers, keep, bias) -> (carry, their outputs); see `Block`.

    `narrow` casts dense layers' parameters before the scan, if the config's type is narrower; it must be False in
    `init`. Cast inside, the narrow kernels of every layer would be stored for the backward pass once more.
    """
    policy = REMAT[config.remat]
    block = Block if policy is None else nn.remat(Block, prevent_cse=False, policy=policy)
    scan = nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=(0, 0, nn.broadcast),
        length=config.depth,
        check_constancy_invariants=False,  # else the body is traced twice; it has no outputs that are the same for all
    )
    if narrow and config.compute_dtype.itemsize < 4:
        scan = nn.map_variables(scan, "params", functools.partial(_narrow, dtype=config.compute_dtype))
    return scan(config, parts, collect, name=name)


def _narrow(params, dtype: jnp.dtype):
    """Kernels and biases of dense layers in `dtype`, which these compute in; other parameters as they are."""
    dense = "kernel" in params
    return {
        name: _narrow(x, dtype) if isinstance(x, dict) else x.astype(dtype) if dense else x
        for name, x in params.items()
    }
