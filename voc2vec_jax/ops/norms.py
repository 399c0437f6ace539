"""Norms and activations whose backward passes keep little."""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from voc2vec_jax.ops import cpu, platforms


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


def gelu_of_time_norm(
    x: Float[Array, "b t c"],
    scale: Float[Array, "c"],
    bias: Float[Array, "c"],
    weight: Float[Array, "b t"],
    guess: Float[Array, "b c"],
    eps: float,
) -> Float[Array, "b t c"]:
    """GELU of each channel of each clip with mean 0 and variance 1 over its frames of weight 1, times scale, plus bias.

    In float32 or wider. Frames of weight 0 are normalised too, and count for nothing. `guess` is any guess of the
    means over time: the result does not depend on it, but a good one saves accelerators a pass over x. The backward
    pass keeps the arguments.
    """
    algorithms = {name: functools.partial(algorithm, eps=eps) for name, algorithm in TIME_NORMS.items()}
    return platforms.differentiable("gelu_of_time_norm", algorithms)(x, scale, bias, weight, guess)


def _in_two_passes(x, scale, bias, weight, guess, eps):
    wide = x.astype(weight.dtype)
    count = jnp.maximum(weight.sum(1, keepdims=True), 1)
    # Two passes: E[x^2] - E[x]^2 cancels where a channel's mean is large beside its spread
    centred = wide - (cpu.time_sums(wide * weight[..., None]) / count)[:, None]
    variance = cpu.time_sums(centred * centred * weight[..., None]) / count
    out = centred * (jax.lax.rsqrt(variance + eps) * scale[None])[:, None] + bias[None, None]
    return gelu(out.astype(x.dtype))


def _in_one_pass(x, scale, bias, weight, guess, eps):
    return gelu(_time_norm(x, scale, bias, weight, guess, eps).astype(x.dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _time_norm(x, scale, bias, weight, guess, eps):
    return _time_norm_forward(x, scale, bias, weight, guess, eps)[0]


def _time_norm_forward(x, scale, bias, weight, guess, eps):
    share, mean, factor = _statistics(x, weight, guess, eps)
    out = _normal(x, mean, factor) * scale[None, None] + bias[None, None]
    return out, (x, scale, share, mean, factor)


def _time_norm_backward(eps, kept, gradient):
    x, scale, share, mean, factor = kept
    normal = _normal(x, mean, factor)
    total, inner = gradient.sum(1), (gradient * normal).sum(1)
    to_x = _to_input(normal, gradient, scale, share, factor, total, inner)
    to_scale, to_bias = (sums.sum(0).astype(scale.dtype) for sums in (inner, total))
    return to_x.astype(x.dtype), to_scale, to_bias, share * 0, mean * 0


_time_norm.defvjp(_time_norm_forward, _time_norm_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _in_one_pass_again(x, scale, bias, weight, guess, eps):
    """The backward pass computes GELU's gradient twice, for the sums over time and for x, and does not write it."""
    return _again_forward(x, scale, bias, weight, guess, eps)[0]


def _again_forward(x, scale, bias, weight, guess, eps):
    share, mean, factor = _statistics(x, weight, guess, eps)
    out = _gelu(_normal(x, mean, factor) * scale[None, None] + bias[None, None])[0]
    return out.astype(x.dtype), (x, scale, bias, share, mean, factor)


def _again_backward(eps, kept, gradient):
    x, scale, bias, share, mean, factor = kept

    def to_norm(x, gradient):
        normal = _normal(x, mean, factor)
        return normal, gradient * _gelu(normal * scale[None, None] + bias[None, None])[1]

    normal, to_out = to_norm(x, gradient)
    total, inner = to_out.sum(1), (to_out * normal).sum(1)
    # One barrier keeps the sums over clips from being summed from the start, the other both uses from being one
    total, inner = jax.lax.optimization_barrier((total, inner))
    normal, to_out = to_norm(*jax.lax.optimization_barrier((x, gradient)))
    to_x = _to_input(normal, to_out, scale, share, factor, total, inner)
    to_scale, to_bias = (sums.sum(0).astype(scale.dtype) for sums in (inner, total))
    return to_x.astype(x.dtype), to_scale, to_bias, share * 0, mean * 0


_in_one_pass_again.defvjp(_again_forward, _again_backward)


def _statistics(x, weight, guess, eps):
    """Each frame's share in the mean, the mean, and 1 / the standard deviation."""
    # With d = x - guess: var = E[d^2] - E[d]^2. What cancels is E[d]^2, which a guess from every k-th frame bounds by
    # k var (Cauchy and Schwarz), so that at most log2(k + 1) bits are lost.
    share = weight / jnp.maximum(weight.sum(1, keepdims=True), 1)
    away = (x.astype(weight.dtype) - guess[:, None]) * share[..., None]
    off = away.sum(1)
    square = (away * (x.astype(weight.dtype) - guess[:, None])).sum(1)
    return share, guess + off, jax.lax.rsqrt(jnp.maximum(square - off * off, 0) + eps)


def _normal(x, mean, factor):
    return (x.astype(mean.dtype) - mean[:, None]) * factor[:, None]


def _to_input(normal, gradient, scale, share, factor, total, inner):
    """dx = factor scale (dy - share (sum(dy) + n sum(dy n))): what the mean and the variance take away."""
    return (factor * scale[None])[:, None] * (gradient - share[..., None] * (total[:, None] + normal * inner[:, None]))


# The algorithms of `gelu_of_time_norm`
TIME_NORMS = {"two passes": _in_two_passes, "one pass": _in_one_pass, "one pass, again": _in_one_pass_again}


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
    mean, factor = platforms.choose("layer_norm_gradients", STATISTICS, mean, factor)
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

# What the gradients of a layer norm make of a row's mean and factor: they may compute both again where they need them,
# or read the two numbers. If they compute them again on GPUs, they write products of x's size in float32 to sum them.
STATISTICS = {
    "free": lambda mean, factor: (mean, factor),
    "kept": lambda mean, factor: jax.lax.optimization_barrier((mean, factor)),
}
