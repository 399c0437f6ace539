"""Which algorithm each platform takes, and why. The platform is the one that a program is compiled for.

A choice is a branch of `jax.lax.platform_dependent`. It is made when a program is lowered, so that a TPU's program can
be compiled on a laptop; branches of other platforms are not lowered. Platforms are JAX's: cpu, tpu, cuda; `default`
stands for all that are not named.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax

# operation: {platform: algorithm}
# Figures of accelerators: base, 8 clips of 10 s, bfloat16, forward and backward, counted from the programs that jax
# 0.10.2 compiles, on 2026-11-28. "Instead of" names the matrix products that CPUs take.
CHOICES: dict[str, dict[str, str]] = {
    # tpu: 12 blocks with dropout take 53 M cycles on v5e instead of 83.8 (45.0 of XLA's own and 7.9 of the kernels,
    # whose bundles are counted). cuda: they take 19.5 GB on H100 instead of 36.1; the kernel's second reads, from the
    # L2 cache, are not counted. cpu, default: no kernel
    "attention": {"cpu": "plain", "tpu": "mosaic kernel", "cuda": "triton kernel", "default": "plain"},
    # cpu: 1.07 times faster (tools/benchmarks/cpu_tricks.py paired_conv). default: the stem takes 6.2 GB and 26.3 M
    # cycles on v5e instead of 22.2 GB and 70.7 M, and 7.6 GB on H100 instead of 12.7. tpu: with the norm below, 18.8 M
    # cycles instead of 22.2 M with lax's own backward pass
    "strided_conv": {"cpu": "fewer products", "tpu": "lax, backward by phases", "default": "lax"},
    # cpu: for a sum over several axes XLA's CPU compiler transposes the layer's input first. tpu: rows in one axis are
    # rearranged, as 499 frames are no whole tiles: 3 blocks take 10.4 M cycles on v5e instead of 11.6, and 26 such
    # copies of a block, of which XLA estimates no cycles, are gone
    "kernel_gradient": {"cpu": "one sum", "tpu": "sum over axes", "default": "one sum"},
    # cpu: 1.12 times faster (cpu_tricks.py in_turn). default: the positional convolution takes
    # 5.0 M cycles on v5e instead of 20.3 M, and .33 GB on H100 instead of 1.3
    "grouped_conv": {"cpu": "groups in turn", "default": "lax"},
    # cpu: sums in stretches are 1.42 times faster (cpu_tricks.py time_sums). tpu: the sums join the
    # convolution, the stem takes 22.2 M cycles and 5.5 GB on v5e instead of 26.3 M and 6.2 GB. default: nothing of
    # the array's size is written for GELU's gradient, the stem takes 6.3 GB on H100 instead of 7.6 GB
    "gelu_of_time_norm": {"cpu": "two passes", "tpu": "one pass", "default": "one pass, again"},
    # default: the stem of large models, with a layer norm after each convolution, takes 8.0 GB on H100 instead of 13.3
    "layer_norm_gradients": {"cpu": "free", "tpu": "free", "default": "kept"},
}


def choose(operation: str, algorithms: Mapping[str, Callable], *arrays: Any) -> Any:
    """`algorithms[name](*arrays)`, with the name that `CHOICES[operation]` gives to the platform compiled for.

    Inside a function with a backward pass use `differentiable`: the gradient of a choice would keep what any of its
    branches needs.
    """
    names = CHOICES[operation]
    branches = {platform: algorithms[name] for platform, name in names.items()}
    if len(set(names.values())) == 1:
        return branches["default"](*arrays)
    return jax.lax.platform_dependent(*arrays, **branches)


def differentiable(operation: str, algorithms: Mapping[str, Callable]) -> Callable:
    """`choose` as a function of arrays that keeps them for its backward pass, and nothing else.

    The backward pass is that of the chosen algorithm, which computes again what it needs.
    """

    @jax.custom_vjp
    def run(*arrays):
        return choose(operation, algorithms, *arrays)

    def forward(*arrays):
        return run(*arrays), arrays

    def backward(arrays, gradient):
        def pulled(algorithm):
            return lambda gradient, *arrays: jax.vjp(algorithm, *arrays)[1](gradient)

        pullbacks = {name: pulled(algorithm) for name, algorithm in algorithms.items()}
        return choose(operation, pullbacks, gradient, *arrays)

    run.defvjp(forward, backward)
    return run
