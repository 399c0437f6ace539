"""Convolutions as matrix products on reshaped input.

Strided 1-D convolutions of this model family are nearly matrix products: with x cut in blocks of `stride`
samples, tap block j of the kernel meets block t + j of the input. That form runs at the machine's matrix
rate on CPU and GPU, in bfloat16 too, keeps its speed when parameters carry a batch axis (folds), and so do
its gradients, which are matrix products as well.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

UNFOLD_WIDTH = 64  # inputs narrower than this are unfolded and multiplied once
GRADIENT_TAPS = 8  # of a grouped convolution's kernel that are neighbours in the product of its gradient
FEW_FRAMES = 600  # below which a grouped convolution spares the copies of its kernel rather than of its input


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
    if (k, stride) == (3, 2) and i >= UNFOLD_WIDTH and _counts_operations(x.dtype):
        return _paired_conv(x, kernel)
    pieces = -(-k // stride)
    blocks = t + pieces - 1
    x = x[:, : blocks * stride]
    x = jnp.pad(x, ((0, 0), (0, blocks * stride - x.shape[1]), (0, 0)))
    x = x.reshape(b, blocks, stride * i)
    kernel = kernel.reshape(k * i, o)
    if i < UNFOLD_WIDTH or jnp.finfo(x.dtype).bits < 32:  # a sum of narrow products would be rounded twice
        x = jnp.concatenate([x[:, j : j + t] for j in range(pieces)], axis=2)
        return rows_matmul(x[:, :, : k * i], kernel)
    out = None
    for j in range(pieces):
        taps = kernel[j * stride * i : (j + 1) * stride * i]
        part = rows_matmul(x[:, j : j + t, : taps.shape[0]], taps)
        out = part if out is None else out + part
    return out


def _counts_operations(dtype) -> bool:
    """Whether products take longest, so that fewer of them pay; in narrow types their sums would be rounded."""
    return jax.default_backend() == "cpu" and jnp.finfo(dtype).bits >= 32


def _paired_conv(x: Float[Array, "b n i"], kernel: Float[Array, "3 i o"]) -> Float[Array, "b _t o"]:
    """`strided_conv` with three taps and stride 2, by five products of samples for two outputs instead of six.

    The even samples meet the outer taps in a convolution of two taps, for which Winograd's F(2, 2) takes three
    products (Lavin and Gray 2016): x0 a + x1 c = (x0 - x1) a + x1 (a + c) and x1 a + x2 c = x1 (a + c) + (x2 - x1) c.
    """
    b, n, i = x.shape
    o = kernel.shape[2]
    t = (n - 3) // 2 + 1
    pairs = -(-t // 2)
    x = jnp.pad(x, ((0, 0), (0, 4 * pairs + 4 - n), (0, 0))).reshape(b, 2 * pairs + 2, 2, i)
    even = x[:, :, 0].reshape(b, pairs + 1, 2, i)
    x0, x1, x2 = even[:, :-1, 0], even[:, :-1, 1], even[:, 1:, 0]
    first, middle, last = kernel
    shared = rows_matmul(x1, first + last)
    outer = jnp.stack([rows_matmul(x0 - x1, first) + shared, shared + rows_matmul(x2 - x1, last)], axis=2)
    inner = rows_matmul(x[:, : 2 * pairs, 1], middle)
    return (outer.reshape(b, 2 * pairs, o) + inner)[:, :t]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def grouped_conv(x: Float[Array, "b t d"], kernel: Float[Array, "k i d"], groups: int) -> Float[Array, "b t d"]:
    """Same-length 1-D convolution in `groups` groups, k // 2 zeros before and (k - 1) // 2 after.

    This is torch's Conv1d(padding=k // 2) without the last output of an even kernel (fairseq's SamePad).
    """
    convolve = functools.partial(_convolved, before=kernel.shape[0] // 2)
    return _joined(_for_each_group(convolve, _parted(x, groups), _parted(kernel, groups)))


def _grouped_forward(x, kernel, groups):
    return grouped_conv(x, kernel, groups), (x, kernel)


def _grouped_backward(groups, kept, gradient):
    k = kept[1].shape[0]

    def gradients(x, kernel, gradient):
        back = _convolved(gradient, kernel.transpose(0, 2, 1)[::-1], k - 1 - k // 2)
        return back, _kernel_gradient(x, gradient, k)

    to_x, to_kernel = _for_each_group(gradients, *(_parted(y, groups) for y in (*kept, gradient)))
    return _joined(to_x), _joined(to_kernel)


grouped_conv.defvjp(_grouped_forward, _grouped_backward)


def _parted(x: Float[Array, "m n d"], groups: int) -> Float[Array, "{groups} m n _i"]:
    m, n, d = x.shape
    return x.reshape(m, n, groups, d // groups).transpose(2, 0, 1, 3)


def _joined(x: Float[Array, "g m n i"]) -> Float[Array, "m n _d"]:
    g, m, n, i = x.shape
    return x.transpose(1, 2, 0, 3).reshape(m, n, g * i)


def _for_each_group(f, *arrays):
    """f of each group: one after another on CPUs, where what a group needs stays in the cache; else all at once."""
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda one: f(*one), arrays)
    return jax.vmap(f)(*arrays)


def _at_once(frames: int, k: int) -> int:
    """How many neighbouring outputs of a convolution with k taps one row of the product gives."""
    return min(2 if frames < FEW_FRAMES else 8, 1 << (max(1, k // 4).bit_length() - 1))


def _convolved(x: Float[Array, "b t i"], kernel: Float[Array, "k i o"], before: int) -> Float[Array, "b t o"]:
    """Same-length convolution with `before` zeros in front.

    A row of the product gives several neighbouring outputs, for each of which the kernel is written once, shifted:
    a few zeros are multiplied, but the product is as wide as the machine likes it and copies its input less often.
    """
    b, t, _ = x.shape
    k, i, o = kernel.shape
    count = _at_once(b * t, k)
    shifted = [jnp.pad(kernel, ((p, count - 1 - p), (0, 0), (0, 0))) for p in range(count)]
    wide = jnp.stack(shifted, axis=2).reshape((k + count - 1) * i, count * o)
    return jnp.matmul(_rows(x, k, before, count), wide).reshape(b, -1, o)[:, :t]


def _rows(x: Float[Array, "b t i"], k: int, before: int, count: int) -> Float[Array, "_n _s"]:
    """The k + count - 1 frames that each `count` neighbouring outputs see."""
    b, t, i = x.shape
    n, seen = -(-t // count), k + count - 1
    x = jnp.pad(x, ((0, 0), (before, (n - 1) * count + seen - t - before), (0, 0)))
    frames = count * np.arange(n)[:, None] + np.arange(seen)
    return x.at[:, frames].get(mode="promise_in_bounds").reshape(b * n, seen * i)


def _kernel_gradient(x: Float[Array, "b t i"], gradient: Float[Array, "b t o"], k: int) -> Float[Array, "{k} i o"]:
    """Of `_convolved` with k // 2 zeros in front.

    Tap `taps` * p + r meets output u - `taps` * p at input u + r: with r neighbouring inputs and p shifted outputs side
    by side, all taps are one product over u, no larger than the kernel, which is what devices have to sum.
    """
    b, t, i = x.shape
    o = gradient.shape[2]
    taps = min(GRADIENT_TAPS, k)
    shifts = -(-k // taps)
    reach = taps * (shifts - 1)
    x = jnp.pad(x, ((0, 0), (k // 2, reach + taps - 1 - k // 2), (0, 0)))
    gradient = jnp.pad(gradient, ((0, 0), (reach, reach), (0, 0)))
    u = np.arange(t + reach)[:, None]
    inputs = x.at[:, u + np.arange(taps)].get(mode="promise_in_bounds").reshape(-1, taps * i)
    outputs = gradient.at[:, u + reach - taps * np.arange(shifts)].get(mode="promise_in_bounds").reshape(-1, shifts * o)
    product = jnp.matmul(inputs.T, outputs).reshape(taps, i, shifts, o)
    return product.transpose(2, 0, 1, 3).reshape(-1, i, o)[:k]


def weight_norm(g: Float[Array, "k 1 1"], v: Float[Array, "k i d"]) -> Float[Array, "k i d"]:
    """Each tap of v scaled to length g (torch's weight_norm over the last dimension of a Conv1d's weight)."""
    return v * (g / jnp.sqrt(jnp.sum(v * v, axis=(1, 2), keepdims=True)))
