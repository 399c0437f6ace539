"""Low-rank adapters of the blocks' dense layers: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021.

    W' = W + alpha / r  A B,   A [i, r] random, B [r, o] zero at first, so that W' begins as W

l = blocks, i, o = inputs and outputs of a layer, r = rank.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from voc2vec_jax.models import layers

# What an adapter may be put beside, and where its kernel is in a block
TARGETS = {name: ("attention", name) for name in ("query", "key", "value", "out")}
TARGETS |= {name: (name,) for name in ("mlp_in", "mlp_out")}


@dataclasses.dataclass(frozen=True)
class Config:
    """Which layers have adapters, and of which rank; the targets are those of the paper."""

    rank: int = 0  # 0: no adapters
    alpha: float = 16.0
    targets: tuple[str, ...] = ("query", "value")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


def init(config: Config, key: Key[Array, ""], encoder: Mapping[str, Any]) -> dict[str, dict[str, Array]]:
    """Adapters for an encoder's blocks: of each target `a` [l, i, r], drawn as peft does, and `b` [l, r, o], zeros."""
    adapters = {}
    for name in config.targets:
        count, fan_in, fan_out = kernel(encoder, name).shape
        drawn = layers.torch_linear_init(fan_in)(
            jax.random.fold_in(key, list(TARGETS).index(name)), (count, fan_in, config.rank)
        )
        adapters[name] = {"a": drawn, "b": jnp.zeros((count, config.rank, fan_out))}
    return adapters


def merged(config: Config, encoder: Mapping[str, Any], adapters: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder with its kernels W + scale A B: the parameters of an ordinary model, on the host or a device."""
    # The sum is as exact as a branch of its own, x W + (x A) B, and needs no change to any family's network. It costs
    # a gradient of the target's size: two of a block's twelve d x d products with the paper's targets.
    blocks = dict(encoder["layers"])
    for name, pair in adapters.items():
        blocks = _with_kernel(blocks, TARGETS[name], pair["a"] @ pair["b"] * config.scale)
    return {**encoder, "layers": blocks}


def kernel(encoder: Mapping[str, Any], name: str) -> Any:
    """The kernels [l, i, o] of an encoder's blocks that a target adds to."""
    found = encoder["layers"]
    for part in TARGETS[name]:
        found = found[part]
    return found["kernel"]


def _with_kernel(tree: Mapping[str, Any], place: tuple[str, ...], added: Any) -> dict[str, Any]:
    """`tree` with `added` to the kernel at a place."""
    if not place:
        return {**tree, "kernel": tree["kernel"] + added}
    first, *rest = place
    return {**tree, first: _with_kernel(tree[first], tuple(rest), added)}
