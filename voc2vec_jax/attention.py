"""Scaled dot-product attention with a backward pass of its own, which keeps of the size of the scores but a mask.

That is FlashAttention's (Dao et al. 2022, algorithm 4, over whole rows of scores): with each row's largest score and
softmax denominator at hand the weights come back as one exponential, and the sum that a softmax's gradient needs is the
inner product of the output and its gradient. The two are kept apart: in the logarithm of the denominator, added to the
largest score, the weights would lose digits.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def attend(
    query: Float[Array, "b h t c"],
    key: Float[Array, "b h t c"],
    value: Float[Array, "b h t c"],
    bias: Float[Array, "_b h t t"] | None,
    valid: Bool[Array, "b t"],
    kept: Bool[Array, "b h t t"] | None,
    scale: float,
) -> Float[Array, "b h t c"]:
    """Values weighted by the softmax of query . key + bias over each row's `valid` keys, in float32 or wider.

    Weights that are not `kept` are dropped and the others multiplied by `scale`; None keeps all as they are.
    """
    return _forward(query, key, value, bias, valid, kept, scale)[0]


def _scores(query, key, bias, valid):
    scores = jnp.matmul(query, key.transpose(0, 1, 3, 2))
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    if bias is not None:
        scores = scores + bias
    return jnp.where(valid[:, None, None], scores, jnp.finfo(scores.dtype).min)


def _dropped(weights, kept, scale):
    return weights if kept is None else jnp.where(kept, weights * scale, 0)


def _forward(query, key, value, bias, valid, kept, scale):
    scores = _scores(query, key, bias, valid)
    most = scores.max(-1, keepdims=True, initial=jnp.finfo(scores.dtype).min)  # of no frames too
    weights = jnp.exp(scores - most)
    total = weights.sum(-1, keepdims=True)
    weights = _dropped(weights, kept, scale).astype(value.dtype)
    out = jnp.matmul(weights, value, preferred_element_type=scores.dtype) / total
    out = out.astype(value.dtype)
    return out, (query, key, value, bias, valid, kept, out, most, total)


def _backward(scale, saved, gradient):
    query, key, value, bias, valid, kept, out, most, total = saved
    weights = jnp.exp(_scores(query, key, bias, valid) - most) / total
    to_value = jnp.matmul(_dropped(weights, kept, scale).astype(value.dtype).transpose(0, 1, 3, 2), gradient)
    to_weights = jnp.matmul(gradient, value.transpose(0, 1, 3, 2)).astype(weights.dtype)
    inner = (out.astype(weights.dtype) * gradient.astype(weights.dtype)).sum(-1, keepdims=True)
    to_scores = weights * (_dropped(to_weights, kept, scale) - inner)
    to_bias = None
    if bias is not None:
        to_bias = to_scores.sum(0, keepdims=True) if bias.shape[0] == 1 else to_scores
        to_bias = to_bias.astype(bias.dtype)
    narrow = to_scores.astype(query.dtype)
    return (
        jnp.matmul(narrow, key),
        jnp.matmul(narrow.transpose(0, 1, 3, 2), query),
        to_value,
        to_bias,
        None,
        None,
    )


attend.defvjp(_forward, _backward)
