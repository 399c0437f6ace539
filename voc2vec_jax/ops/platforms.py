"""Which algorithm each platform takes, and why. The platform is the one that a program is compiled for.

A choice is a branch of `jax.lax.platform_dependent`. It is made when a program is lowered, so that a TPU's program can
be compiled on a laptop; branches of other platforms are not lowered. Platforms are JAX's: cpu, tpu, cuda; `default`
stands for all that are not named.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax

# operation: {platform: algorithm}
CHOICES: dict[str, dict[str, str]] = {
    "attention": {"cpu": "plain", "default": "plain"},
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
