"""Norms and activations with backward passes that keep little."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

STRETCHES = 64  # in which a long sum over time is made


def time_sums(x: Float[Array, "b t c"], weight: Float[Array, "b t"]) -> Float[Array, "b c"]:
    """Sums over time with a weight for each frame.

    On CPUs of `STRETCHES` first: a sum over all of one clip's frames is compiled to one that takes ten times as long.
    """
    x = x * weight[..., None]
    if jax.default_backend() != "cpu":
        return x.sum(1)
    b, t, c = x.shape
    length = t // STRETCHES
    even = STRETCHES * length
    return x[:, :even].reshape(b, STRETCHES, length, c).sum(2).sum(1) + x[:, even:].sum(1)


@jax.custom_vjp
def gelu(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """x times the normal distribution function of x, exact (torch's GELU); statistics in float32 or wider.

    The derivative is taken where the exponential is at hand and is all that the backward pass keeps; types narrower
    than float32 keep x instead, so that the gradient is as exact as x.
    """
    return _gelu(x)[0].astype(x.dtype)


def _gelu(x):
    """GELU and its derivative, in float32 or wider."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    cdf = 0.5 + 0.5 * jax.lax.erf(wide * math.sqrt(0.5))
    density = jnp.exp(-0.5 * wide * wide) * (1 / math.sqrt(2 * math.pi))
    return wide * cdf, cdf + wide * density


def _gelu_forward(x):
    y, slope = _gelu(x)
    return y.astype(x.dtype), slope if slope.dtype == x.dtype else x


def _gelu_backward(kept, gradient):
    slope = kept if jnp.finfo(kept.dtype).bits >= 32 else _gelu(kept)[1]
    return ((gradient * slope).astype(gradient.dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: Float[Array, "*b d"], scale: Float[Array, "d"], bias: Float[Array, "d"], eps: float):
    """x of mean 0 and variance 1 over its last axis, times scale, plus bias (of its type), in float32 or wider [*b, d].

    The backward pass keeps x and two numbers of each row (Ba et al. 2016; the gradient is that of torch's layer_norm).
    """
    return _layer_norm(x, scale, bias, eps)[0]


def _layer_norm(x, scale, bias, eps):
    wide = x.astype(jnp.promote_types(jnp.result_type(x, scale), jnp.float32))
    mean = wide.mean(-1, keepdims=True)
    centred = wide - mean
    factor = jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + eps)
    spread_scale, spread_bias = (y.reshape((1,) * (x.ndim - 1) + y.shape) for y in (scale, bias))
    return centred * (factor * spread_scale) + spread_bias, (x, scale, mean, factor)


def _layer_norm_backward(eps, kept, gradient):
    x, scale, mean, factor = kept
    normal = (x.astype(mean.dtype) - mean) * factor
    rows = tuple(range(x.ndim - 1))
    to_scale, to_bias = (gradient * normal).sum(rows), gradient.sum(rows)
    gradient = gradient * scale.reshape((1,) * (x.ndim - 1) + scale.shape)
    inner = (gradient * normal).mean(-1, keepdims=True)
    to_x = factor * (gradient - gradient.mean(-1, keepdims=True) - normal * inner)
    return to_x.astype(x.dtype), to_scale.astype(scale.dtype), to_bias.astype(scale.dtype)


layer_norm.defvjp(_layer_norm, _layer_norm_backward)
