"""Tricks that pay on CPUs only, each with the gain that it was measured to bring.

`platforms.CHOICES` says where they are used. The figures are ratios of time without a trick to time with it, for
base-size functions on two shared cores with jax 0.10.2; `tools/benchmarks/cpu_tricks.py` measures them again.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

STRETCHES = 64  # partial sums of a long sum over time


def paired_conv(x: Float[Array, "b n i"], kernel: Float[Array, "3 i o"]) -> Float[Array, "b _t o"]:
    """A convolution with three taps and stride 2, in five products of samples for two outputs instead of six.

    Output t is x_2t a + x_2t+1 b + x_2t+2 c. The even samples u meet only the outer taps, in a convolution of two
    taps, for which Winograd's F(2, 2) needs three products for two outputs (Lavin and Gray 2016):

        u0 a + u1 c = (u0 - u1) a + u1 (a + c)
        u1 a + u2 c =               u1 (a + c) + (u2 - u1) c
    """
    b, n, i = x.shape
    # 1.07 of the stem, forward and backward: cpu_tricks.py paired_conv, 2026-11-28
    o = kernel.shape[2]
    t = (n - 3) // 2 + 1
    pairs = -(-t // 2)
    # A pair of outputs sees five samples, and its last one is the first of the next pair: hence `pairs` + 1.
    #     samples   4p  4p+1  4p+2  4p+3  4p+4
    #     even      u0        u1          u2
    #     y_2p      a   b     c
    #     y_2p+1              a     b     c
    x = jnp.pad(x, ((0, 0), (0, 4 * pairs + 4 - n), (0, 0))).reshape(b, 2 * pairs + 2, 2, i)
    even = x[:, :, 0].reshape(b, pairs + 1, 2, i)
    u0, u1, u2 = even[:, :-1, 0], even[:, :-1, 1], even[:, 1:, 0]
    u0, u1, u2 = (u.reshape(-1, i) for u in (u0, u1, u2))
    first, middle, last = kernel
    shared = jnp.matmul(u1, first + last)
    outer = jnp.stack([jnp.matmul(u0 - u1, first) + shared, shared + jnp.matmul(u2 - u1, last)], axis=1)
    inner = jnp.matmul(x[:, : 2 * pairs, 1].reshape(-1, i), middle)
    return (outer.reshape(b, 2 * pairs, o) + inner.reshape(b, 2 * pairs, o))[:, :t]


def time_sums(x: Float[Array, "b t c"]) -> Float[Array, "b c"]:
    """x.sum(1) by way of STRETCHES partial sums: XLA compiles one sum over all frames of a clip to a slow loop."""
    # 1.42 of the stem, forward and backward: cpu_tricks.py time_sums, 2026-11-28
    b, t, c = x.shape
    length = t // STRETCHES
    even = STRETCHES * length
    return x[:, :even].reshape(b, STRETCHES, length, c).sum(2).sum(1) + x[:, even:].sum(1)


def in_turn(f: Callable[..., Any], *arrays: Array) -> Any:
    """`jax.vmap(f)(*arrays)`, one index after another: what one index needs then stays in the cache."""
    # 1.12 of the base model's grouped convolution, forward and backward: cpu_tricks.py in_turn, 2026-11-28
    return jax.lax.map(lambda one: f(*one), arrays)


def forward_options(platform: str) -> dict[str, str]:
    """Compiler options for a program that is a forward pass on `platform`; none elsewhere or if the compiler does not
    know them.

    YNNPACK's matrix products, the default since jaxlib 0.10, are slower than Eigen's for as many rows as the first
    convolutions have. Its sums stay: they pass over memory once.
    """
    # 1.03 of a base model's embedding: cpu_tricks.py forward_options, 2026-11-28
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
    if platform != "cpu":
        return {}
    try:
        with jax.default_device(jax.devices("cpu")[0]):
            jax.jit(lambda x: x, compiler_options=options)(0.0)
    except jax.errors.JaxRuntimeError:  # a compiler without this option
        return {}
    return options
