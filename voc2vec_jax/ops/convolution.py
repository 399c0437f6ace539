"""Convolutions: XLA's own on accelerators, matrix products on reshaped input on CPUs (`platforms.CHOICES`).

The strided convolutions of this model family are almost matrix products. With x cut into blocks of `stride` samples,
output t is a sum over blocks, here for 3 taps and stride 2:

    samples   | 0 1 | 2 3 | 4 5 |      y_0 = [x0 x1] [a b]' + [x2 x3] [c 0]'
    y_0         a b   c                y_1 = [x2 x3] [a b]' + [x4 x5] [c 0]'
    y_1               a b   c

This form runs at the matrix rate of a CPU, keeps that speed when parameters carry a batch axis (folds), and its
gradients are matrix products as well. Accelerators would move the reshaped copies through their memory.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from voc2vec_jax.ops import cpu, platforms, products

UNFOLD_WIDTH = 64  # narrower inputs are unfolded and multiplied once
GRADIENT_TAPS = 8  # neighbouring taps in one product of a grouped convolution's gradient
FEW_FRAMES = 600  # with fewer frames, a grouped convolution copies its input more often and its kernel less
LAYOUT = ("NWC", "WIO", "NWC")  # of `jax.lax`: rows, frames, channels; taps, inputs, outputs


def strided_conv(x: Float[Array, "b n i"], kernel: Float[Array, "k i o"], stride: int) -> Float[Array, "b _t o"]:
    """Valid 1-D convolution (cross-correlation) of `stride`, t = (n - k) // stride + 1.

    The backward pass keeps x and the kernel.
    """
    return platforms.differentiable("strided_conv", strided_algorithms(stride))(x, kernel)


def strided_algorithms(stride: int) -> dict[str, Callable]:
    """The algorithms of `strided_conv`, functions of x and the kernel."""
    return {
        "fewer products": functools.partial(_with_fewer_products, stride=stride),
        "products": functools.partial(by_products, stride=stride),
        "lax": functools.partial(by_lax, stride=stride),
        "lax, backward by phases": functools.partial(_by_lax_and_phases, stride=stride),
    }


def by_lax(x: Float[Array, "b n i"], kernel: Float[Array, "k i o"], stride: int) -> Float[Array, "b _t o"]:
    """`strided_conv` as XLA's convolution."""
    return jax.lax.conv_general_dilated(x, kernel, (stride,), "VALID", dimension_numbers=LAYOUT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _by_lax_and_phases(x, kernel, stride):
    return by_lax(x, kernel, stride)


def _phases_forward(x, kernel, stride):
    return by_lax(x, kernel, stride), (x, kernel)


def _phases_backward(stride, kept, gradient):
    """XLA's own gradient by x multiplies with the zeros that it puts between the entries of dy: this one does not.

    Sample q of block u sees dx[u, q] = sum_d dy[u - d] K[d `stride` + q]', a convolution over blocks. Its second axis,
    over q, meets dy once and zeros else, and XLA leaves those out. The product's layout is that of dx.
    """
    x, kernel = kept
    k, i, o = kernel.shape
    b, t, _ = gradient.shape
    pieces = -(-k // stride)
    taps = jnp.pad(kernel.transpose(0, 2, 1), ((0, pieces * stride - k), (0, 0), (0, 0)))[::-1]
    padding = [(pieces - 1, pieces - 1), (stride - 1, stride - 1)]
    blocks = jax.lax.conv_general_dilated(
        gradient[:, :, None],
        taps.reshape(pieces, stride, o, i),
        (1, 1),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    samples = blocks.reshape(b, (t + pieces - 1) * stride, i)[:, : x.shape[1]]
    to_x = jnp.pad(samples, ((0, 0), (0, x.shape[1] - samples.shape[1]), (0, 0)))
    to_kernel = jax.vjp(lambda kernel: by_lax(x, kernel, stride), kernel)[1](gradient)[0]
    return to_x, to_kernel


_by_lax_and_phases.defvjp(_phases_forward, _phases_backward)


def _with_fewer_products(x, kernel, stride):
    """Fewer products pay on CPUs, where they take longest, unless sums would be rounded to a narrow type."""
    if (kernel.shape[0], stride) == (3, 2) and x.shape[2] >= UNFOLD_WIDTH and jnp.finfo(x.dtype).bits >= 32:
        return cpu.paired_conv(x, kernel)
    return by_products(x, kernel, stride)


def by_products(x: Float[Array, "b n i"], kernel: Float[Array, "k i o"], stride: int) -> Float[Array, "b _t o"]:
    """`strided_conv` as matrix products over blocks of `stride` samples."""
    b, n, i = x.shape
    k, _, o = kernel.shape
    t = (n - k) // stride + 1
    # Whole blocks only: samples behind the last output's are cut off, a missing end of the last block is filled up.
    pieces = -(-k // stride)
    blocks = t + pieces - 1
    x = x[:, : blocks * stride]
    x = jnp.pad(x, ((0, 0), (0, blocks * stride - x.shape[1]), (0, 0)))
    x = x.reshape(b, blocks, stride * i)
    kernel = kernel.reshape(k * i, o)
    # One product over all blocks where it is cheap to copy them side by side (few channels), and in narrow types,
    # where a sum of products would be rounded twice. Else a product per block, added up: nothing is copied.
    if i < UNFOLD_WIDTH or jnp.finfo(x.dtype).bits < 32:
        x = jnp.concatenate([x[:, j : j + t] for j in range(pieces)], axis=2)
        return products.rows_product(x[:, :, : k * i], kernel)
    out = None
    for j in range(pieces):
        taps = kernel[j * stride * i : (j + 1) * stride * i]
        part = products.rows_product(x[:, j : j + t, : taps.shape[0]], taps)
        out = part if out is None else out + part
    return out


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def grouped_conv(x: Float[Array, "b t d"], kernel: Float[Array, "k i d"], groups: int) -> Float[Array, "b t d"]:
    """Same-length 1-D convolution in `groups` groups, with k // 2 zeros in front and (k - 1) // 2 behind.

    torch's Conv1d(padding=k // 2), without the last output of an even kernel (fairseq's SamePad).
    """
    algorithms = {name: functools.partial(forward, groups=groups) for name, (forward, _) in GROUPED.items()}
    return platforms.choose("grouped_conv", algorithms, x, kernel)


def _grouped_forward(x, kernel, groups):
    return grouped_conv(x, kernel, groups), (x, kernel)


def _grouped_backward(groups, kept, gradient):
    algorithms = {name: functools.partial(backward, groups=groups) for name, (_, backward) in GROUPED.items()}
    return platforms.choose("grouped_conv", algorithms, *kept, gradient)


grouped_conv.defvjp(_grouped_forward, _grouped_backward)


def _grouped_by_lax(x, kernel, groups):
    k = kernel.shape[0]
    padding = [(k // 2, (k - 1) // 2)]
    return jax.lax.conv_general_dilated(x, kernel, (1,), padding, dimension_numbers=LAYOUT, feature_group_count=groups)


def _grouped_by_lax_gradients(x, kernel, gradient, groups):
    return jax.vjp(functools.partial(_grouped_by_lax, groups=groups), x, kernel)[1](gradient)


def _grouped_in_turn(x, kernel, groups):
    #     k = 4    0 0 x0 x1 x2 0
    #     y_0      a b  c  d            y_0 sees x_-2 to x_1: one more frame before it than behind it
    #     y_2           a  b  c d
    convolve = functools.partial(_convolved, before=kernel.shape[0] // 2)
    return _joined(cpu.in_turn(convolve, _parted(x, groups), _parted(kernel, groups)))


def _grouped_in_turn_gradients(x, kernel, gradient, groups):
    k = kernel.shape[0]

    def gradients(x, kernel, gradient):
        # The input's gradient is a convolution with the reversed kernel, so front and back padding change places.
        back = _convolved(gradient, kernel.transpose(0, 2, 1)[::-1], k - 1 - k // 2)
        return back, _kernel_gradient(x, gradient, k)

    to_x, to_kernel = cpu.in_turn(gradients, *(_parted(y, groups) for y in (x, kernel, gradient)))
    return _joined(to_x), _joined(to_kernel)


# The algorithms of `grouped_conv`, each with its gradients: (x, kernel, groups) -> y; (x, kernel, dy, groups) -> both
GROUPED = {
    "lax": (_grouped_by_lax, _grouped_by_lax_gradients),
    "groups in turn": (_grouped_in_turn, _grouped_in_turn_gradients),
}


def _parted(x: Float[Array, "m n d"], groups: int) -> Float[Array, "{groups} m n _i"]:
    m, n, d = x.shape
    return x.reshape(m, n, groups, d // groups).transpose(2, 0, 1, 3)


def _joined(x: Float[Array, "g m n i"]) -> Float[Array, "m n _d"]:
    g, m, n, i = x.shape
    return x.transpose(1, 2, 0, 3).reshape(m, n, g * i)


def _at_once(frames: int, k: int) -> int:
    """The number of neighbouring outputs that one row of the product gives, for k taps."""
    return min(2 if frames < FEW_FRAMES else 8, 1 << (max(1, k // 4).bit_length() - 1))


def _convolved(x: Float[Array, "b t i"], kernel: Float[Array, "k i o"], before: int) -> Float[Array, "b t o"]:
    """Same-length convolution with `before` zeros in front.

    One row of the product gives `count` neighbouring outputs. For each of them the kernel is written once, shifted; for
    3 taps and 2 outputs:

                      | a 0 |    Some products with zeros are wasted. But a group has few channels (48 in the base
        [x0 x1 x2 x3] | b a |    model), and the wider product runs faster and copies each frame of its input about
                      | c b |    k / count times instead of k times.
                      | 0 c |
    """
    b, t, _ = x.shape
    k, i, o = kernel.shape
    count = _at_once(b * t, k)
    shifted = [jnp.pad(kernel, ((p, count - 1 - p), (0, 0), (0, 0))) for p in range(count)]
    wide = jnp.stack(shifted, axis=2).reshape((k + count - 1) * i, count * o)
    return jnp.matmul(_rows(x, k, before, count), wide).reshape(b, -1, o)[:, :t]


def _rows(x: Float[Array, "b t i"], k: int, before: int, count: int) -> Float[Array, "_n _s"]:
    """The k + count - 1 frames that `count` neighbouring outputs see, a row for each run of outputs."""
    b, t, i = x.shape
    n, seen = -(-t // count), k + count - 1
    x = jnp.pad(x, ((0, 0), (before, (n - 1) * count + seen - t - before), (0, 0)))
    frames = count * np.arange(n)[:, None] + np.arange(seen)
    return x.at[:, frames].get(mode="promise_in_bounds").reshape(b * n, seen * i)


def _kernel_gradient(x: Float[Array, "b t i"], gradient: Float[Array, "b t o"], k: int) -> Float[Array, "{k} i o"]:
    """The kernel's gradient of `_convolved` with k // 2 zeros in front.

    dK[j] is the sum over t of x[t + j] dy[t], for every tap j. Write j = `taps` p + r and u = t + `taps` p; then
    dK[`taps` p + r] is the sum over u of x[u + r] dy[u - `taps` p]. With `taps` neighbouring inputs (r) and `shifts`
    shifted outputs (p) side by side, one product over u gives all taps. Its result is no larger than the kernel, and
    that result is all that devices have to sum.
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
    """Each tap of v scaled to length g: torch's weight_norm over the last dimension of a Conv1d's weight."""
    return v * (g / jnp.sqrt(jnp.sum(v * v, axis=(1, 2), keepdims=True)))
