"""Convolutions as matrix products on reshaped input.

Strided 1-D convolutions of this model family are nearly matrix products: with x cut in blocks of `stride`
samples, tap block j of the kernel meets block t + j of the input. That form runs at the machine's matrix
rate on CPU and GPU, in bfloat16 too, keeps its speed when parameters carry a batch axis (folds), and so do
its gradients, which are matrix products as well.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

UNFOLD_WIDTH = 64  # inputs narrower than this are unfolded and multiplied once
POSITIONAL_TAPS = 8  # taps that one product of the positional convolution takes together


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
        return x[:, :, : k * i] @ kernel
    out = None
    for j in range(pieces):
        taps = kernel[j * stride * i : (j + 1) * stride * i]
        part = x[:, j : j + t, : taps.shape[0]] @ taps
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
        part = jnp.einsum("gbti,gio->gbto", x[:, :, j * taps : j * taps + t], kernel[j])
        out = part if out is None else out + part
    return out.transpose(1, 2, 0, 3).reshape(b, t, d)


def weight_norm(g: Float[Array, "k 1 1"], v: Float[Array, "k i d"]) -> Float[Array, "k i d"]:
    """Each tap of v scaled to length g (torch's weight_norm over the last dimension of a Conv1d's weight)."""
    return v * (g / jnp.sqrt(jnp.sum(v * v, axis=(1, 2), keepdims=True)))
