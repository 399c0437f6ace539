"""Norms and activations whose backward passes keep little."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from voc2vec_jax.ops import cpu, platforms


def time_sums(x: Float[Array, "b t c"], weight: Float[Array, "b t"]) -> Float[Array, "b c"]:
    """Sums over time with a weight for each frame."""
    return _time_sums(x * weight[..., None])


TIME_SUMS = {"one sum": lambda x: x.sum(1), "stretches": cpu.time_sums}
_time_sums = platforms.differentiable("time_sums", TIME_SUMS)


@jax.custom_vjp
def gelu(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """x times the normal distribution function of x: the exact GELU, as in torch; in float32 or wider.

    The forward pass computes the derivative too, because it shares the exponential, and keeps nothing else. For types
    narrower than float32 it keeps x instead, so that the gradient is not rounded twice.
    """
    return _gelu(x)[0].astype(x.dtype)


def _gelu(x):
    """GELU and its derivative, in float32 or wider."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    # y = x P(x) and y' = P(x) + x p(x), with p and P the density and distribution function of the normal distribution.
    cdf = 0.5 + 0.5 * jax.lax.erf(wide * math.sqrt(0.5))
    density = jnp.exp(-0.5 * wide * wide) * (1 / math.sqrt(2 * math.pi))
    return wide * cdf, cdf + wide * density


def _gelu_forward(x):
    y, slope = _gelu(x)
    return y.astype(x.dtype), slope if slope.dtype == x.dtype else x


def _gelu_backward(kept, gradient):
    # A kept value of 32 bits or more is the slope, a narrower one is x.
    slope = kept if jnp.finfo(kept.dtype).bits >= 32 else _gelu(kept)[1]
    return ((gradient * slope).astype(gradient.dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(
    x: Float[Array, "*b d"], scale: Float[Array, "d"], bias: Float[Array, "d"], eps: float
) -> Float[Array, "*b d"]:
    """x with mean 0 and variance 1 over its last axis, times scale, plus bias, in float32 or wider (Ba et al. 2016).

    The backward pass keeps x in its own type and two numbers of each row.
    """
    return _layer_norm(x, scale, bias, eps)[0]


def _layer_norm(x, scale, bias, eps):
    wide = x.astype(jnp.promote_types(jnp.result_type(x, scale), jnp.float32))
    mean = wide.mean(-1, keepdims=True)
    centred = wide - mean
    factor = jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + eps)
    # Explicit leading axes, because rank promotion is an error in the tests.
    spread_scale, spread_bias = (y.reshape((1,) * (x.ndim - 1) + y.shape) for y in (scale, bias))
    return centred * (factor * spread_scale) + spread_bias, (x, scale, mean, factor)


def _layer_norm_backward(eps, kept, gradient):
    x, scale, mean, factor = kept
    normal = (x.astype(mean.dtype) - mean) * factor
    rows = tuple(range(x.ndim - 1))
    to_scale, to_bias = (gradient * normal).sum(rows), gradient.sum(rows)
    # With n the normalised row and g the gradient times scale: dx = factor (g - mean(g) - n mean(g n)).
    # The two means are what the row's own mean and variance take away.
    gradient = gradient * scale.reshape((1,) * (x.ndim - 1) + scale.shape)
    inner = (gradient * normal).mean(-1, keepdims=True)
    to_x = factor * (gradient - gradient.mean(-1, keepdims=True) - normal * inner)
    return to_x.astype(x.dtype), to_scale.astype(scale.dtype), to_bias.astype(scale.dtype)


layer_norm.defvjp(_layer_norm, _layer_norm_backward)
