"""Dropout whose masks are drawn where they are used, again in the backward pass, and are never stored.

An entry's bits are a hash of its row's key and its position in the row (a counter-based generator, as in Salmon et al.
2011). A mask therefore depends neither on the batch nor on the devices, and a compiler fuses the few integer
operations of an entry with what multiplies by the mask.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Integer, Key, UInt32

# "hash" is `hashed`; "threefry" are the masks of version 0.1.0, which draws them by `jax.random.bits`.
BITS = ("hash", "threefry")


class Rule(NamedTuple):
    """Which entries a dropout drops: those with 16 random bits below `threshold`."""

    threshold: int
    bits: str = "hash"

    @property
    def scale(self) -> float:
        """What the other entries are multiplied by; exact for the share as rounded to a multiple of 2**-16."""
        return 1 / (1 - self.threshold / 2**16)


def rule(share: float, bits: str = "hash") -> Rule | None:
    """The rule of a dropout of `share`, which is rounded to a multiple of 2**-16; None where that drops nothing."""
    threshold = round(share * 2**16)
    return Rule(threshold, bits) if threshold else None


def drop(x: Float[Array, "b *d"], keys: Key[Array, "b"], how: Rule | None) -> Float[Array, "b *d"]:
    """x with the dropped entries 0 and the others scaled up, each row by its own key; None: x itself."""
    return x if how is None else _drop(x, jax.random.key_data(keys), how)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _drop(x, key_data, how):
    return jnp.where(kept(key_data, x.shape, how), x * how.scale, 0).astype(x.dtype)


def _drop_forward(x, key_data, how):
    return _drop(x, key_data, how), key_data


def _drop_backward(how, key_data, gradient):
    return _drop(gradient, key_data, how), np.zeros(key_data.shape, jax.dtypes.float0)


_drop.defvjp(_drop_forward, _drop_backward)


def kept(key_data: UInt32[Array, "b 2"], shape: tuple[int, ...], how: Rule) -> Bool[Array, "b *d"]:
    """Which entries of an array [b, ...] are kept. A row may have up to 2**32 entries."""
    if how.bits == "threefry":
        return _by_threefry(key_data, shape, how.threshold)
    first, second = (key_data[:, i].reshape((-1,) + (1,) * (len(shape) - 1)) for i in (0, 1))
    return top(first, second, positions(shape)) >= np.uint32(how.threshold)


def positions(shape: tuple[int, ...]) -> UInt32[Array, "1 *d"]:
    """The number of each entry within its row, counted as in C."""
    out, size = None, 1
    row = (1, *shape[1:])
    for axis in range(len(shape) - 1, 0, -1):
        part = jax.lax.broadcasted_iota(jnp.uint32, row, axis) * np.uint32(size)
        out = part if out is None else out + part
        size *= shape[axis]
    return jnp.zeros((1,), jnp.uint32) if out is None else out


def hashed(first: Integer[Array, "*a"], second: Integer[Array, "*b"], position: Integer[Array, "*c"]):
    """32 bits for each position under a key of two words: two rounds of `mixed`, a word of the key before each.

    Arithmetic is that of 32 bits without sign, in uint32 or int32 (kernels have the latter only).
    """
    return mixed(mixed(position ^ first) + second)


def top(first: Integer[Array, "*a"], second: Integer[Array, "*b"], position: Integer[Array, "*c"]):
    """The top 16 bits of `hashed`, which its last folding leaves as they are."""
    return _right(_stirred(mixed(position ^ first) + second), 16)


def mixed(x: Integer[Array, "*d"]) -> Integer[Array, "*d"]:
    """A permutation of the numbers of 32 bits in which each bit depends on all (lowbias32 of C. Wellons, 2018)."""
    x = _stirred(x)
    return x ^ _right(x, 16)


def _stirred(x):
    """`mixed` but for its last folding."""
    x = (x ^ _right(x, 16)) * np.array(0x7FEB352D, np.uint32).view(x.dtype)[()]
    return (x ^ _right(x, 15)) * np.array(0x846CA68B, np.uint32).view(x.dtype)[()]


def _right(x, bits):
    return jax.lax.shift_right_logical(x, jnp.full(x.shape, bits, x.dtype))


def _by_threefry(key_data, shape, threshold):
    """The masks of version 0.1.0: two entries share a word of 32 bits, low half first."""
    size = int(np.prod(shape[1:]))
    if not shape[0] * size:
        return jnp.zeros(shape, bool)
    keys = jax.random.wrap_key_data(key_data)
    words = jax.vmap(lambda key: jax.random.bits(key, (-(-size // 2),)))(keys)
    halves = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(shape[0], -1)
    return (halves[:, :size] >= threshold).reshape(shape)
