"""Random bits of each row's own key."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Key, UInt32

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
