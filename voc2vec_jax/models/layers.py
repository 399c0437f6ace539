"""The layers that the encoder is built of: they know sizes and types, and no configuration."""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from voc2vec_jax.ops import convolution, norms, products

CONV_NORM_EPS = 1e-5  # of the norms between convolutions, whatever `norm_eps` says, as in fairseq and transformers
GUESS_EVERY = 64  # frames, of which one tells roughly where the mean over time is


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def scale_gradient(x: Float[Array, "*b"], scale: float) -> Float[Array, "*b"]:
    """x itself; its gradient times `scale` (fairseq's GradMultiply)."""
    return x


@scale_gradient.defjvp
def _scale_gradient_jvp(scale, primals, tangents):
    # A rule of its own: scale * x + stop_gradient((1 - scale) * x) has this gradient too, but rounds x
    return primals[0], tangents[0] * scale


@jax.custom_vjp
def where_rows(keep: Bool[Array, "b"], x: Float[Array, "b *d"], y: Float[Array, "b *d"]) -> Float[Array, "b *d"]:
    """The rows of x where `keep`, else those of y; the backward pass stores a flag a row, not an entry."""
    return jnp.where(keep.reshape((-1,) + (1,) * (x.ndim - 1)), x, y)


def _where_rows_forward(keep, x, y):
    return where_rows(keep, x, y), keep


def _where_rows_backward(keep, gradient):
    nothing = jnp.zeros_like(gradient)
    none = np.zeros(keep.shape, jax.dtypes.float0)
    return none, where_rows(keep, gradient, nothing), where_rows(keep, nothing, gradient)


where_rows.defvjp(_where_rows_forward, _where_rows_backward)


def torch_linear_init(fan_in: int) -> Callable:
    """torch's default for Linear weights and biases: uniform within 1 / sqrt(fan_in)."""
    # torch calls it kaiming_uniform with a = sqrt(5): sqrt(6 / ((1 + a^2) fan_in)) = 1 / sqrt(fan_in)
    limit = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -limit, limit)


def projection(fan_in: int, fan_out: int, dtype: jnp.dtype, name: str) -> nn.Dense:
    """A dense layer outside the blocks, initialised as torch's Linear."""
    init = torch_linear_init(fan_in)
    return nn.Dense(fan_out, dtype=dtype, kernel_init=init, bias_init=init, dot_general=_rows_dot, name=name)


def dense(width: int, dtype: jnp.dtype, name: str, before: Callable | None = None, *, bias: bool = True) -> nn.Dense:
    """A dense layer inside the blocks, with BERT's initialisation.

    The layer applies `before` to its input. The backward pass recomputes that result instead of storing it.
    """
    init = nn.initializers.normal(0.02)
    dot = _rows_dot if before is None else functools.partial(_rows_dot_after, before)
    return nn.Dense(width, use_bias=bias, dtype=dtype, kernel_init=init, dot_general=dot, name=name)


def _rows_dot(x, kernel, dimension_numbers, precision=None, **options):
    """nn.Dense's product, which is always over the last axis of x."""
    return products.rows_product(x, kernel, precision)


def _rows_dot_after(before, x, kernel, dimension_numbers, precision=None, **options):
    def product(x, kernel):
        return products.rows_product(before(x), kernel, precision)

    # prevent_cse would put a barrier between both passes to keep the compiler from merging them; the scan over blocks
    # already separates them
    return jax.checkpoint(product, prevent_cse=False)(x, kernel)


class LayerNorm(nn.Module):
    """Layer norm over channels. Statistics are in float32 or wider, in two passes as in torch."""

    eps: float
    dtype: jnp.dtype
    affine: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        wide = jnp.promote_types(self.dtype, jnp.float32)
        if self.affine:
            scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
            bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        else:
            scale, bias = jnp.ones(x.shape[-1:], wide), jnp.zeros(x.shape[-1:], wide)
        return norms.layer_norm(x, scale, bias, self.eps).astype(self.dtype)


class GeluOfTimeNorm(nn.Module):
    """GELU of each channel of each clip normalised over its valid frames: torch's GroupNorm with a channel a group."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t c"], valid: Bool[Array, "b t"], some: Float[Array, "b _n c"]
    ) -> Float[Array, "b t c"]:
        """`some` are every `GUESS_EVERY`-th of the frames: their means are a guess of the means of all."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        # Padding has no weight, so a clip's output does not depend on its batch
        weight = valid.astype(jnp.promote_types(x.dtype, jnp.float32))
        counted = weight[:, ::GUESS_EVERY, None]
        guess = (some.astype(weight.dtype) * counted).sum(1) / jnp.maximum(counted.sum(1), 1)
        guess = jax.lax.stop_gradient(guess)  # the result does not depend on it
        return norms.gelu_of_time_norm(x, scale, bias, weight, guess, CONV_NORM_EPS)


class StridedConv(nn.Module):
    """One valid strided convolution over [b, t, channels]."""

    channels: int
    kernel: int
    stride: int
    use_bias: bool

    @nn.compact
    def __call__(self, x: Float[Array, "b t i"], every: int = 1) -> Float[Array, "b _t o"]:
        """All outputs, or `every` how many one of them."""
        fan_in = x.shape[-1] * self.kernel
        init = nn.initializers.normal(math.sqrt(2 / fan_in))  # He's, as in fairseq
        kernel = self.param("kernel", init, (self.kernel, x.shape[-1], self.channels))
        out = convolution.strided_conv(x, kernel.astype(x.dtype), self.stride * every)
        if self.use_bias:
            bias = self.param("bias", torch_linear_init(fan_in), (self.channels,))
            out = out + bias.astype(x.dtype)[None, None]
        return out


class GroupedConv(nn.Module):
    """One same-length convolution in groups, with a bias; `shape` is (kernel, channels of a group, channels)."""

    shape: tuple[int, int, int]
    groups: int

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        # fan_in as torch counts it: an output sees the channels of its own group only
        init = torch_linear_init(self.shape[0] * self.shape[1])
        kernel = self.param("kernel", init, self.shape)
        bias = self.param("bias", init, (self.shape[2],))
        out = convolution.grouped_conv(x, kernel.astype(x.dtype), self.groups)
        return out + bias.astype(x.dtype)[None, None]
