"""Scaled dot-product attention: our own, and JAX's.

The backward pass of our own stores nothing of score size except a dropout mask. It is FlashAttention's (Dao et al.
2022, algorithm 4) over whole rows of scores: it keeps each row's largest score m and softmax denominator z, and
recomputes the weights as exp(s - m) / z.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from voc2vec_jax import errors

# "own" is `attend`; "xla" and "cudnn" are `jax.nn.dot_product_attention`, cudnn being FlashAttention on NVIDIA GPUs.
IMPLEMENTATIONS = ("own", "xla", "cudnn")


def check(implementation: str, dtype: str, drops: bool) -> None:
    """InputError for an implementation that cannot compute this; `drops`: training drops attention weights."""
    if implementation not in IMPLEMENTATIONS:
        raise errors.InputError(f"attention {implementation!r} is none of {', '.join(IMPLEMENTATIONS)}")
    if implementation != "own" and drops:
        raise errors.InputError(
            f"attention {implementation!r} cannot drop weights: set attention_dropout to 0, or attention to own"
        )
    if implementation == "cudnn" and jnp.finfo(dtype).bits > 16:
        raise errors.InputError(
            f"attention 'cudnn' computes in bfloat16 and float16, and dtype is {dtype}: change one of the two"
        )


def by_library(
    query: Float[Array, "b h t c"],
    key: Float[Array, "b h t c"],
    value: Float[Array, "b h t c"],
    bias: Float[Array, "_b h t t"] | None,
    valid: Bool[Array, "b t"],
    implementation: str,
) -> Float[Array, "b h t c"]:
    """`attend` without dropout, by `jax.nn.dot_product_attention`. `valid` must be the first frames of each row.

    InputError for "cudnn" without a GPU.
    """
    if implementation == "cudnn" and jax.default_backend() != "gpu":
        raise errors.InputError(
            f"attention 'cudnn' needs an NVIDIA GPU, and this is {jax.default_backend()}: set attention to own or xla"
        )
    # JAX's layout is [b, t, h, c]. The lengths say what `valid` says, without a mask of score size.
    moved = (x.transpose(0, 2, 1, 3) for x in (query, key, value))
    out = jax.nn.dot_product_attention(
        *moved,
        None if bias is None else bias.astype(query.dtype),
        scale=1.0,
        key_value_seq_lengths=jnp.maximum(valid.sum(1, dtype=jnp.int32), 1),  # an empty row's output is not used
        implementation=implementation,
    )
    return out.transpose(0, 2, 1, 3)


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

    Weights outside `kept` are dropped, and the others multiplied by `scale`. With `kept` None, nothing is dropped.
    """
    return _forward(query, key, value, bias, valid, kept, scale)[0]


def _scores(query, key, bias, valid):
    scores = _wide_matmul(query, key)
    if bias is not None:
        scores = scores + bias
    # The least finite number, not -inf: a row without valid keys would give -inf - (-inf), which is NaN.
    return jnp.where(valid[:, None, None], scores, jnp.finfo(scores.dtype).min)


def _wide_matmul(x, y):
    """x times y transposed, in float32 or wider: rounded to a narrow type, large scores would become equal."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.matmul(x, y.transpose(0, 1, 3, 2), preferred_element_type=wide)


def _dropped(weights, kept, scale):
    return weights if kept is None else jnp.where(kept, weights * scale, 0)


def _forward(query, key, value, bias, valid, kept, scale):
    scores = _scores(query, key, bias, valid)
    most = scores.max(-1, keepdims=True, initial=jnp.finfo(scores.dtype).min)  # `initial`, for clips without frames
    weights = jnp.exp(scores - most)
    total = weights.sum(-1, keepdims=True)
    weights = _dropped(weights, kept, scale).astype(value.dtype)
    # Division after the product: t * c quotients instead of t * t.
    out = jnp.matmul(weights, value, preferred_element_type=scores.dtype) / total
    out = out.astype(value.dtype)
    # `most` and `total` are kept apart. Their usual sum m + log(z) would round the weights to the digits of m.
    return out, (query, key, value, bias, valid, kept, out, most, total)


def _backward(scale, saved, gradient):
    query, key, value, bias, valid, kept, out, most, total = saved
    weights = jnp.exp(_scores(query, key, bias, valid) - most) / total
    to_value = jnp.matmul(_dropped(weights, kept, scale).astype(value.dtype).transpose(0, 1, 3, 2), gradient)
    to_weights = _wide_matmul(gradient, value)
    # ds = w (dw - sum(w dw)), and the sum over keys is the inner product of a row's output and its gradient:
    # sum_j w_j (v_j . dy) = (sum_j w_j v_j) . dy = y . dy. No sum over scores is needed.
    inner = (out.astype(weights.dtype) * gradient.astype(weights.dtype)).sum(-1, keepdims=True)
    to_scores = weights * (_dropped(to_weights, kept, scale) - inner)
    to_bias = None
    if bias is not None:
        # One bias for all rows collects the gradients of all.
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
