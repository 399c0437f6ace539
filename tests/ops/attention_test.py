"""Attention's own backward pass against automatic differentiation of the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from voc2vec_jax import errors
from voc2vec_jax.ops import attention as attention_ops
from voc2vec_jax.ops import dropout

B, H, T, C = 2, 3, 17, 8
DROPS = dropout.rule(0.3)
FRAMES = jnp.array([T, 9])


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def formula(query, key, value, bias, gate, frames, kept):
    scores = jnp.einsum("bqhc,bkhc->bhqk", query, key)
    if bias is not None:
        scores = scores + (bias[None] if gate is None else gate[..., None] * bias[None])
    valid = jnp.arange(key.shape[1])[None] < frames[:, None]
    share = jax.nn.softmax(jnp.where(valid[:, None, None], scores, -jnp.inf))
    share = share if kept is None else share * kept * DROPS.scale
    return jnp.einsum("bhqk,bkhc->bqhc", share, value)


def key_data(rows):
    return jax.random.key_data(jax.random.split(jax.random.key(9), rows))


@pytest.mark.parametrize("biased", ["none", "bias", "gated"])
@pytest.mark.parametrize("drops", [False, True])
def test_attention_and_its_gradients_are_those_of_the_formula(biased, drops):
    arrays = [normal(seed, B, T, H, C) for seed in range(3)]
    arrays += [normal(3, H, T, T)] if biased != "none" else []
    arrays += [normal(4, B, H, T)] if biased == "gated" else []
    drawn = (key_data(B), DROPS) if drops else (None, None)
    kept = dropout.kept(key_data(B), (B, H, T, T), DROPS) if drops else None

    def loss(f, *arrays):
        query, key, value, *bias = arrays
        out = f(query, key, value, *(*bias, None, None)[:2])
        return jnp.sum(jnp.sin(out)), out

    def ours(*arguments):
        return attention_ops.attend(*arguments, FRAMES, *drawn)

    numbers = tuple(range(len(arrays)))
    with jax.default_matmul_precision("highest"):
        found = jax.grad(lambda *a: loss(ours, *a), numbers, has_aux=True)(*arrays)
    with jax.enable_x64(True):
        wide = [x.astype(jnp.float64) for x in arrays]
        wanted = jax.grad(lambda *a: loss(lambda *b: formula(*b, FRAMES, kept), *a), numbers, has_aux=True)(*wide)
    for a, b in zip(*(map(np.asarray, jax.tree.leaves(side)) for side in (found, wanted)), strict=True):
        assert np.abs(a - b).max() < 2e-6 * np.abs(b).max()
    assert not np.asarray(found[0][1][1, 9:]).any() and not np.asarray(found[0][2][1, 9:]).any()


def relative(found, wanted):
    found, wanted = (np.asarray(x).astype(np.float64) for x in (found, wanted))
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("deviation", [1.0, 4.0])
def test_narrow_values_are_rounded_once(deviation):
    """Scores rounded to bfloat16 would be off by as much as the weights of large ones change: gradients by 1 %."""
    query, key, value, pulled = (normal(seed, 1, 299, H, 64).astype(jnp.bfloat16) for seed in range(4))
    query = (query * (deviation / 8)).astype(jnp.bfloat16)
    frames = jnp.array([299])
    found, pull = jax.vjp(lambda *x: attention_ops.attend(*x, None, None, frames), query, key, value)
    wide = [x.astype(jnp.float32) for x in (query, key, value)]
    wanted, wide_pull = jax.vjp(lambda *x: formula(*x, None, None, frames, None), *wide)
    assert found.dtype == jnp.bfloat16
    assert relative(found, wanted) < 4e-3
    for a, b in zip(pull(pulled), wide_pull(pulled.astype(jnp.float32)), strict=True):
        assert relative(a, b) < 4e-3


@pytest.mark.parametrize("biased", [False, True])
def test_the_librarys_attention_is_ours(biased):
    query, key, value = (normal(seed, B, T, H, C) for seed in range(3))
    bias, gate = (normal(3, H, T, T), normal(4, B, H, T)) if biased else (None, None)
    with jax.default_matmul_precision("highest"):
        found = attention_ops.by_library(query, key, value, bias, gate, FRAMES, "xla")
        wanted = attention_ops.attend(query, key, value, bias, gate, FRAMES)
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_cudnn_gets_an_even_number_of_frames_with_a_bias(monkeypatch):
    """It refuses others when it trains: `Unsupported sequence length`."""
    library, lengths = jax.nn.dot_product_attention, []

    def by_xla(query, *arguments, implementation, **options):
        lengths.append((implementation, query.shape[1]))
        return library(query, *arguments, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", by_xla)
    given = [normal(seed, B, T, H, C) for seed in range(3)] + [normal(3, H, T, T), normal(4, B, H, T), FRAMES]
    found = [attention_ops.by_library(*given, implementation) for implementation in ("cudnn", "xla")]
    attention_ops.by_library(*given[:3], None, None, FRAMES, "cudnn")
    assert lengths == [("cudnn", T + 1), ("xla", T), ("cudnn", T)]
    np.testing.assert_allclose(*found, atol=2e-6)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("flash", "float32", False), "attention 'flash' is none of auto, plain, xla, cudnn"),
        (("xla", "float32", True), "attention 'xla' cannot drop weights: set attention_dropout to 0"),
        (("cudnn", "float32", False), "attention 'cudnn' computes in bfloat16 and float16, and dtype is float32"),
    ],
)
def test_what_an_implementation_cannot_do_is_refused(arguments, message):
    with pytest.raises(errors.InputError, match=message):
        attention_ops.check(*arguments)
    attention_ops.check("auto", "float32", True)
    attention_ops.check("cudnn", "bfloat16", False)


def test_cudnn_is_for_gpus():
    narrow = normal(0, 1, T, H, C).astype(jnp.bfloat16)
    with pytest.raises(errors.InputError, match="'cudnn' needs an NVIDIA GPU with cuDNN, .* auto or xla"):
        attention_ops.by_library(narrow, narrow, narrow, None, None, jnp.array([T]), "cudnn")


def test_no_frames_give_no_values():
    empty, frames = jnp.zeros((1, 0, H, C)), jnp.zeros((1,), int)
    out, pull = jax.vjp(lambda x: attention_ops.attend(x, x, x, None, None, frames), empty)
    assert out.shape == pull(out)[0].shape == (1, 0, H, C)
