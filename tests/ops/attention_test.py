"""Attention's own backward pass against automatic differentiation of the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from voc2vec_jax import errors
from voc2vec_jax.ops import attention as attention_ops

B, H, T, C = 2, 3, 17, 8
SCALE = 1 / 0.7


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def formula(query, key, value, bias, valid, kept):
    scores = jnp.einsum("bqhc,bkhc->bhqk", *(jnp.moveaxis(x, 1, 2) for x in (query, key)))
    scores = scores if bias is None else scores + bias
    share = jax.nn.softmax(jnp.where(valid[:, None, None], scores, -jnp.inf))
    share = share if kept is None else share * kept * SCALE
    return jnp.einsum("bhqk,bhkc->bhqc", share, value)


@pytest.mark.parametrize("bias_rows", [0, 1, B])
@pytest.mark.parametrize("drops", [False, True])
def test_attention_and_its_gradients_are_those_of_the_formula(bias_rows, drops):
    arrays = [normal(seed, B, H, T, C) for seed in range(3)]
    arrays += [normal(3, bias_rows, H, T, T)] if bias_rows else []
    valid = jnp.arange(T)[None] < jnp.array([[T], [9]])
    kept = jax.random.uniform(jax.random.key(4), (B, H, T, T)) < 1 / SCALE if drops else None

    def loss(f, *arrays):
        query, key, value, *bias = arrays
        out = f(query, key, value, bias[0] if bias else None, valid, kept)
        return jnp.sum(jnp.sin(out)), out

    def ours(*arguments):
        return attention_ops.attend(*arguments, SCALE if drops else 1.0)

    numbers = tuple(range(len(arrays)))
    with jax.default_matmul_precision("highest"):
        found = jax.grad(lambda *a: loss(ours, *a), numbers, has_aux=True)(*arrays)
    with jax.enable_x64(True):
        wide = [x.astype(jnp.float64) for x in arrays]
        wanted = jax.grad(lambda *a: loss(formula, *a), numbers, has_aux=True)(*wide)
    for a, b in zip(*(map(np.asarray, jax.tree.leaves(side)) for side in (found, wanted)), strict=True):
        assert np.abs(a - b).max() < 2e-6 * np.abs(b).max()
    assert not np.asarray(found[0][1][1, :, 9:]).any() and not np.asarray(found[0][2][1, :, 9:]).any()


def relative(found, wanted):
    found, wanted = (np.asarray(x).astype(np.float64) for x in (found, wanted))
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("deviation", [1.0, 4.0])
def test_narrow_values_are_rounded_once(deviation):
    """Scores rounded to bfloat16 would be off by as much as the weights of large ones change: gradients by 1 %."""
    query, key, value, pulled = (normal(seed, 1, H, 299, 64).astype(jnp.bfloat16) for seed in range(4))
    query = (query * (deviation / 8)).astype(jnp.bfloat16)
    valid = jnp.ones((1, 299), bool)
    found, pull = jax.vjp(lambda *x: attention_ops.attend(*x, None, valid, None, 1.0), query, key, value)
    wide = [x.astype(jnp.float32) for x in (query, key, value)]
    wanted, wide_pull = jax.vjp(lambda *x: formula(*x, None, valid, None), *wide)
    assert found.dtype == jnp.bfloat16
    assert relative(found, wanted) < 4e-3
    for a, b in zip(pull(pulled), wide_pull(pulled.astype(jnp.float32)), strict=True):
        assert relative(a, b) < 4e-3


@pytest.mark.parametrize("biased", [False, True])
def test_the_librarys_attention_is_ours(biased):
    query, key, value = (normal(seed, B, H, T, C) for seed in range(3))
    bias = normal(3, B, H, T, T) if biased else None
    valid = jnp.arange(T)[None] < jnp.array([[T], [9]])
    with jax.default_matmul_precision("highest"):
        found = attention_ops.by_library(query, key, value, bias, valid, "xla")
        wanted = attention_ops.attend(query, key, value, bias, valid, None, 1.0)
    np.testing.assert_allclose(found, wanted, atol=2e-6)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("flash", "float32", False), "attention 'flash' is none of own, xla, cudnn"),
        (("xla", "float32", True), "attention 'xla' cannot drop weights: set attention_dropout to 0"),
        (("cudnn", "float32", False), "attention 'cudnn' computes in bfloat16 and float16, and dtype is float32"),
    ],
)
def test_what_an_implementation_cannot_do_is_refused(arguments, message):
    with pytest.raises(errors.InputError, match=message):
        attention_ops.check(*arguments)
    attention_ops.check("own", "float32", True)
    attention_ops.check("cudnn", "bfloat16", False)


def test_cudnn_is_for_gpus():
    narrow, valid = normal(0, 1, H, T, C).astype(jnp.bfloat16), jnp.ones((1, T), bool)
    with pytest.raises(errors.InputError, match="'cudnn' needs an NVIDIA GPU, and this is cpu"):
        attention_ops.by_library(narrow, narrow, narrow, None, valid, "cudnn")


def test_no_frames_give_no_values():
    empty, valid = jnp.zeros((1, H, 0, C)), jnp.ones((1, 0), bool)
    out, pull = jax.vjp(lambda x: attention_ops.attend(x, x, x, None, valid, None, 1.0), empty)
    assert out.shape == pull(out)[0].shape == (1, H, 0, C)
