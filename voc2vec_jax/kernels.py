"""Convolutions as matrix products on reshaped input.

Strided 1-D convolutions of this model family are nearly matrix products: with x cut in blocks of `stride`
samples, tap block j of the kernel meets block t + j of the input. That form runs at the machine's matrix
rate on CPU and GPU, in bfloat16 too, keeps its speed when parameters carry a batch axis (folds), and so do
its gradients, which are matrix products as well.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt32

UNFOLD_WIDTH = 64  # inputs narrower than this are unfolded and multiplied once
POSITIONAL_TAPS = 8  # taps that one product of the positional convolution takes together


def rows_matmul(x: Float[Array, "*b i"], kernel: Float[Array, "i o"], precision=None) -> Float[Array, "*b o"]:
    """x @ kernel over flattened leading axes.

    The kernel's gradient then sums over one axis; over several, XLA's CPU compiler first transposes in memory.
    """
    out = jnp.matmul(x.reshape(-1, x.shape[-1]), kernel, precision=precision)
    return out.reshape(*x.shape[:-1], kernel.shape[-1])


def strided_conv(x: Float[Array, "b n i"], kernel: Float[Array, "k i o"], stride: int) -> Float[Array, "b _t o"]:
    """Valid 1-D convolution (cross-correlation) of `stride`, t = (n - k) // stride + 1."""
    b, n, i = x.shape
    k, _, o = kernel.shape
    t = (n - k) // stride + 1
    pieces = -(-k // stride)
    blocks = t + pieces - 1
    x = x[:, : blocks * stride]
    x = jnp.pad(x, ((0, 0), (0, blocks * stride - x.shape[1]), (0, 0)))
    x = x.reshape(b, blocks, stride * i)
    kernel = kernel.reshape(k * i, o)
    if i < UNFOLD_WIDTH:
        x = jnp.concatenate([x[:, j : j + t] for j in range(pieces)], axis=2)
        return rows_matmul(x[:, :, : k * i], kernel)
    out = None
    for j in range(pieces):
        taps = kernel[j * stride * i : (j + 1) * stride * i]
        part = rows_matmul(x[:, j : j + t, : taps.shape[0]], taps)
        out = part if out is None else out + part
    return out


def grouped_conv(x: Float[Array, "b t d"], kernel: Float[Array, "k i d"], groups: int) -> Float[Array, "b t d"]:
    """Same-length 1-D convolution in `groups` groups, k // 2 zeros before and (k - 1) // 2 after.

    This is torch's Conv1d(padding=k // 2) without the last output of an even kernel (fairseq's SamePad).
    """
    b, t, d = x.shape
    k, i, _ = kernel.shape
    o = d // groups
    taps = min(POSITIONAL_TAPS, k)
    pieces = -(-k // taps)
    extra = pieces * taps - k
    x = jnp.pad(x, ((0, 0), (k // 2, (k - 1) // 2 + extra), (0, 0)))
    x = x.reshape(b, -1, groups, i).transpose(2, 0, 1, 3)
    span = t + (pieces - 1) * taps
    x = jnp.concatenate([x[:, :, j : j + span] for j in range(taps)], axis=3)
    kernel = jnp.pad(kernel, ((0, extra), (0, 0), (0, 0)))
    kernel = kernel.reshape(pieces, taps, i, groups, o).transpose(0, 3, 1, 2, 4).reshape(pieces, groups, taps * i, o)
    out = None
    for j in range(pieces):
        rows = x[:, :, j * taps : j * taps + t].reshape(groups, b * t, taps * i)
        part = jnp.einsum("gni,gio->gno", rows, kernel[j])
        out = part if out is None else out + part
    return out.reshape(groups, b, t, o).transpose(1, 2, 0, 3).reshape(b, t, d)


def weight_norm(g: Float[Array, "k 1 1"], v: Float[Array, "k i d"]) -> Float[Array, "k i d"]:
    """Each tap of v scaled to length g (torch's weight_norm over the last dimension of a Conv1d's weight)."""
    return v * (g / jnp.sqrt(jnp.sum(v * v, axis=(1, 2), keepdims=True)))


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


_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_KEY_PARITY = 0x1BD11BDA


def random_bits(keys: Key[Array, "b"], size: int) -> UInt32[Array, "b {size}"]:
    """`jax.random.bits(key, (size,))` of each threefry key, to the bit, as one expression without a loop.

    On CPUs JAX computes the rounds of threefry in a loop that passes through memory each time, which takes six times
    as long as what a compiler can fuse with the use of the bits (Salmon et al. 2011, threefry-2x32 with 20 rounds).
    """
    first, second = (half[:, None] for half in jax.random.key_data(keys).T)
    schedule = (first, second, first ^ second ^ np.uint32(_KEY_PARITY))
    x = jnp.zeros((1, size), jnp.uint32) + schedule[0]
    y = jax.lax.iota(jnp.uint32, size)[None] + schedule[1]
    for i in range(5):
        for turn in _ROTATIONS[i % 2]:
            x = x + y
            y = x ^ ((y << np.uint32(turn)) | (y >> np.uint32(32 - turn)))
        x = x + schedule[(i + 1) % 3]
        y = y + schedule[(i + 2) % 3] + np.uint32(i + 1)
    return x ^ y
