"""Random decisions, a row of them from each row's own key."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Key

from voc2vec_jax.ops import cpu


def random_shares(keys: Key[Array, "b"], size: int, threshold: int) -> Bool[Array, "b {size}"]:
    """True where 16 random bits are at least `threshold`: with probability 1 - threshold / 2**16."""
    if jax.default_backend() != "cpu" or not keys.shape[0]:
        return _random_shares(keys, size, threshold)
    return cpu.unfused(lambda: _random_shares(keys, size, threshold), keys)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _random_shares(keys, size, threshold):
    # Each word of 32 bits gives two entries; 16 bits suffice, since the caller scales by the probability as rounded.
    bits = jax.lax.bitcast_convert_type(cpu.random_bits(keys, -(-size // 2)), jnp.uint16)
    return bits.reshape(keys.shape[0], -1)[:, :size] >= threshold
