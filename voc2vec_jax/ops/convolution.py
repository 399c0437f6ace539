"""Convolutions as matrix products on reshaped input.

Strided 1-D convolutions of this model family are nearly matrix products: with x cut in blocks of `stride`
samples, tap block j of the kernel meets block t + j of the input. That form runs at the machine's matrix
rate on CPU and GPU, in bfloat16 too, keeps its speed when parameters carry a batch axis (folds), and so do
its gradients, which are matrix products as well.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, UInt32

STRETCHES = 64  # in which a long sum over time is made
UNFOLD_WIDTH = 64  # inputs narrower than this are unfolded and multiplied once
GRADIENT_TAPS = 8  # of a grouped convolution's kernel that are neighbours in the product of its gradient
FEW_FRAMES = 600  # below which a grouped convolution spares the copies of its kernel rather than of its input


def forward_options() -> dict[str, str]:
    """Compiler options for programs that are a forward pass: on CPUs Eigen's products, where the compiler has others.

    YNNPACK's, the default since jaxlib 0.10, take longer for as many rows as the first convolutions have. Its sums are
    kept, which pass over memory once.
    """
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x, compiler_options=options)(0.0)
    except jax.errors.JaxRuntimeError:  # a compiler without this option
        return {}
    return options


def rows_matmul(x: Float[Array, "*b i"], kernel: Float[Array, "i o"], precision=None) -> Float[Array, "*b o"]:
    """x @ kernel over flattened leading axes.

    The kernel's gradient then sums over one axis; over several, XLA's CPU compiler first transposes in memory.
    """
    out = jnp.matmul(x.reshape(-1, x.shape[-1]), kernel, precision=precision)
    return out.reshape(*x.shape[:-1], kernel.shape[-1])


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


_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_KEY_PARITY = 0x1BD11BDA


@functools.partial(jax.jit, static_argnums=1)
def random_bits(keys: Key[Array, "b"], size: int) -> UInt32[Array, "b {size}"]:
    """`jax.random.bits(key, (size,))` of each threefry key, to the bit, as one expression without a loop.

    On CPUs JAX computes the rounds of threefry in a loop that passes through memory each time, which takes six times
    as long as what a compiler can fuse with the use of the bits (Salmon et al. 2011, threefry-2x32 with 20 rounds).
    """
    lax, shape = jax.lax, (keys.shape[0], size)  # operators of `jnp` would be traced for longer than all the rest

    def wide(x):
        return lax.broadcast_in_dim(x, shape, (0,))

    def rotated(x, turn):
        left, right = (lax.full(shape, np.uint32(bits)) for bits in (turn, 32 - turn))
        return lax.bitwise_or(lax.shift_left(x, left), lax.shift_right_logical(x, right))

    first, second = jax.random.key_data(keys).T
    schedule = (first, second, first ^ second ^ np.uint32(_KEY_PARITY))
    x = wide(schedule[0])
    y = lax.add(lax.broadcasted_iota(jnp.uint32, shape, 1), wide(schedule[1]))
    for i in range(5):
        for turn in _ROTATIONS[i % 2]:
            x = lax.add(x, y)
            y = lax.bitwise_xor(x, rotated(y, turn))
        x = lax.add(x, wide(schedule[(i + 1) % 3]))
        y = lax.add(y, wide(schedule[(i + 2) % 3] + np.uint32(i + 1)))
    return lax.bitwise_xor(x, y)


def random_shares(keys: Key[Array, "b"], size: int, threshold: int) -> Bool[Array, "b {size}"]:
    """Whether 16 random bits of each entry, a row for each key, are `threshold` or more: 1 - threshold / 2**16 are."""
    if jax.default_backend() != "cpu" or not keys.shape[0]:
        return _random_shares(keys, size, threshold)
    # XLA for CPUs fuses the bits with each of their uses and computes them anew each time, in the slow order of the
    # user's indices. Nothing is fused across the bounds of a loop; of this one only we know that it turns once.
    once = 1 + (jax.random.key_data(keys)[0, 0] >> 31 >> 1).astype(jnp.int32)
    nothing = jnp.zeros((keys.shape[0], size), bool)
    return jax.lax.fori_loop(0, once, lambda turn, before: _random_shares(keys, size, threshold), nothing)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _random_shares(keys, size, threshold):
    bits = jax.lax.bitcast_convert_type(random_bits(keys, -(-size // 2)), jnp.uint16)
    return bits.reshape(keys.shape[0], -1)[:, :size] >= threshold
