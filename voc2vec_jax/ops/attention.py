"""Scaled dot-product attention: our own, and JAX's.

The backward pass of our own stores nothing of score size. It is FlashAttention's (Dao et al. 2022, algorithm 4): it
keeps each row's largest score m and softmax denominator z, recomputes the weights as exp(s - m) / z, and draws the
dropout mask again.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from voc2vec_jax import errors
from voc2vec_jax.ops import attention_gpu, attention_tpu, dropout, masking, platforms

# "auto" is `attend` by the kernel of the platform, or the plain form where there is none; "plain" is always the latter.
# "xla" and "cudnn" are `jax.nn.dot_product_attention`, cudnn being FlashAttention on NVIDIA GPUs.
IMPLEMENTATIONS = ("auto", "plain", "xla", "cudnn")
OWN = ("auto", "plain")
# The modules of kernels, by their names in `platforms.CHOICES`. Where one does not support its input, "plain" is used.
KERNELS = {"mosaic kernel": attention_tpu, "triton kernel": attention_gpu}


def check(implementation: str, dtype: str, drops: bool) -> None:
    """InputError for an implementation that cannot compute this; `drops`: training drops attention weights."""
    if implementation not in IMPLEMENTATIONS:
        raise errors.InputError(f"attention {implementation!r} is none of {', '.join(IMPLEMENTATIONS)}")
    if implementation not in OWN and drops:
        raise errors.InputError(
            f"attention {implementation!r} cannot drop weights: set attention_dropout to 0, or attention to auto"
        )
    if implementation == "cudnn" and jnp.finfo(dtype).bits > 16:
        raise errors.InputError(
            f"attention 'cudnn' computes in bfloat16 and float16, and dtype is {dtype}: change one of the two"
        )


def by_library(
    query: Float[Array, "b t h c"],
    key: Float[Array, "b t h c"],
    value: Float[Array, "b t h c"],
    bias: Float[Array, "h t t"] | None,
    gate: Float[Array, "b h t"] | None,
    frames: Int[Array, "b"],
    implementation: str,
) -> Float[Array, "b t h c"]:
    """`attend` without dropout, by `jax.nn.dot_product_attention`.

    InputError where cuDNN is absent or cannot compute these shapes.
    """
    t = query.shape[1]
    if bias is not None:
        bias = _gated(bias, gate).astype(query.dtype)
    odd = t % 2 if implementation == "cudnn" and bias is not None else 0
    if odd:
        # cuDNN has no backward pass for an odd number of frames with a bias. The lengths hide the one that is added.
        query, key, value = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (query, key, value))
        bias = jnp.pad(bias, ((0, 0), (0, 0), (0, 1), (0, 1)))
    # The lengths say without a mask of score size which keys are seen.
    lengths = jnp.maximum(frames, 1)  # an empty row's output is not used
    try:
        out = jax.nn.dot_product_attention(
            query, key, value, bias, scale=1.0, key_value_seq_lengths=lengths, implementation=implementation
        )
    except RuntimeError as error:  # cuDNN is absent; NotImplementedError, a kind of it: it does not know the shapes
        if implementation != "cudnn":
            raise
        raise errors.InputError(
            f"attention 'cudnn' needs an NVIDIA GPU with cuDNN, and shapes that it knows ({error}): set attention to "
            "auto or xla"
        ) from error
    return out[:, :t]


def attend(
    query: Float[Array, "b t h c"],
    key: Float[Array, "b t h c"],
    value: Float[Array, "b t h c"],
    *rest,
) -> Float[Array, "b t h c"]:
    """`attend_joined` of arrays with an axis for the heads."""
    joined = (x.reshape(*x.shape[:2], math.prod(x.shape[2:])) for x in (query, key, value))
    return attend_joined(query.shape[2], *joined, *rest).reshape(query.shape)


def attend_joined(
    heads: int,
    query: Float[Array, "b t d"],
    key: Float[Array, "b t d"],
    value: Float[Array, "b t d"],
    bias: Float[Array, "h t t"] | None,
    gate: Float[Array, "b h t"] | None,
    frames: Int[Array, "b"],
    key_data: UInt32[Array, "b 2"] | None = None,
    drops: dropout.Rule | None = None,
    implementation: str = "auto",
) -> Float[Array, "b t d"]:
    """Values weighted by the softmax of query . key + gate * bias over each row's first `frames` keys, for each head.

    Scores and their softmax are in float32 or wider. Without `gate`, the bias is added as it is.

    `drops` says which weights are dropped, by the key of each row: entry [h, q, k] of a row [h, t, t] of weights.

    The heads lie one after the other, as dense layers give and take them. Both keep arrays for their backward passes,
    and a scan over blocks would store two shapes of one twice, or rearrange it.
    """
    return _attend(heads, query, key, value, bias, gate, frames, key_data, drops, implementation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 8, 9))
def _attend(heads, query, key, value, bias, gate, frames, key_data, drops, implementation):
    return _attend_forward(heads, query, key, value, bias, gate, frames, key_data, drops, implementation)[0]


def _attend_forward(heads, query, key, value, bias, gate, frames, key_data, drops, implementation):
    split = [_split(heads, x) for x in (query, key, value)]
    out, most, total = _by_platform("forward", implementation, drops, *split, bias, gate, frames, key_data)
    out = out.reshape(query.shape)
    # `most` and `total` are kept apart. Their usual sum m + log(z) would round the weights to the digits of m.
    return out, (query, key, value, bias, gate, frames, key_data, out, most, total)


def _attend_backward(heads, drops, implementation, saved, gradient):
    *joined, bias, gate, frames, key_data, out, most, total = saved
    query, key, value, out, gradient = (_split(heads, x) for x in (*joined, out, gradient))
    arrays = query, key, value, bias, gate, frames, key_data, out, most, total, gradient
    found = _by_platform("backward", implementation, drops, *arrays)
    none = [None if x is None else np.zeros(x.shape, jax.dtypes.float0) for x in (frames, key_data)]
    return (*(x.reshape(joined[0].shape) for x in found[:3]), *found[3:], *none)


_attend.defvjp(_attend_forward, _attend_backward)


def _split(heads, x):
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads)


def _by_platform(part: str, implementation: str, drops: dropout.Rule | None, *arrays):
    """The pass ("forward", "backward") of the algorithm that `platforms.CHOICES` gives the platform."""
    plain = functools.partial({"forward": plain_forward, "backward": plain_backward}[part], drops=drops)
    query, bias = arrays[0], arrays[3]
    supported = {name: kernel for name, kernel in KERNELS.items() if kernel.supports(query, bias, drops)}
    if implementation == "plain" or not supported:
        return plain(*arrays)
    kernels = {name: functools.partial(getattr(kernel, part), drops=drops) for name, kernel in supported.items()}
    return platforms.choose("attention", dict.fromkeys(KERNELS, plain) | kernels | {"plain": plain}, *arrays)


def _heads_first(x):
    return x.transpose(0, 2, 1, 3)


def _gated(bias, gate):
    return bias[None] if gate is None else gate[..., None] * bias[None]


def _scores(query, key, bias, gate, frames):
    """[b, h, t, t]; queries and keys are [b, h, t, c]."""
    scores = _wide_matmul(query, key)
    if bias is not None:
        scores = scores + _gated(bias, gate)
    # The least finite number, not -inf: a row without valid keys would give -inf - (-inf), which is NaN.
    valid = masking.valid_frames(frames, key.shape[2])
    return jnp.where(valid[:, None, None], scores, jnp.finfo(scores.dtype).min)


def _wide_matmul(x, y):
    """x times y transposed, in float32 or wider: rounded to a narrow type, large scores would become equal."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.matmul(x, y.transpose(0, 1, 3, 2), preferred_element_type=wide)


def _dropped(weights, key_data, drops):
    return (
        weights if drops is None else jnp.where(dropout.kept(key_data, weights.shape, drops), weights * drops.scale, 0)
    )


def plain_forward(query, key, value, bias, gate, frames, key_data, *, drops):
    """(`attend`, each row's largest score [b, h, t], its softmax denominator [b, h, t])."""
    query, key, value = map(_heads_first, (query, key, value))
    scores = _scores(query, key, bias, gate, frames)
    most = scores.max(-1, keepdims=True, initial=jnp.finfo(scores.dtype).min)  # `initial`, for clips without frames
    weights = jnp.exp(scores - most)
    total = weights.sum(-1, keepdims=True)
    weights = _dropped(weights, key_data, drops).astype(value.dtype)
    # Division after the product: t * c quotients instead of t * t.
    out = jnp.matmul(weights, value, preferred_element_type=scores.dtype) / total
    return _heads_first(out.astype(value.dtype)), most[..., 0], total[..., 0]


def plain_backward(query, key, value, bias, gate, frames, key_data, out, most, total, gradient, *, drops):
    """Gradients of query, key, value, bias and gate from what `plain_forward` gave."""
    query, key, value, out, gradient = map(_heads_first, (query, key, value, out, gradient))
    weights = jnp.exp(_scores(query, key, bias, gate, frames) - most[..., None]) / total[..., None]
    to_value = jnp.matmul(_dropped(weights, key_data, drops).astype(value.dtype).transpose(0, 1, 3, 2), gradient)
    to_weights = _wide_matmul(gradient, value)
    # ds = w (dw - sum(w dw)), and the sum over keys is the inner product of a row's output and its gradient:
    # sum_j w_j (v_j . dy) = (sum_j w_j v_j) . dy = y . dy. No sum over scores is needed.
    inner = (out.astype(weights.dtype) * gradient.astype(weights.dtype)).sum(-1, keepdims=True)
    to_scores = weights * (_dropped(to_weights, key_data, drops) - inner)
    to_bias = to_gate = None
    if gate is not None:
        to_bias = (gate[..., None] * to_scores).sum(0).astype(bias.dtype)
        to_gate = (to_scores * bias[None]).sum(-1).astype(gate.dtype)
    elif bias is not None:
        to_bias = to_scores.sum(0).astype(bias.dtype)
    narrow = to_scores.astype(query.dtype)
    to_query, to_key = jnp.matmul(narrow, key), jnp.matmul(narrow.transpose(0, 1, 3, 2), query)
    return (*map(_heads_first, (to_query, to_key, to_value)), to_bias, to_gate)
