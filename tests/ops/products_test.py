"""The product of dense layers against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from voc2vec_jax.ops import platforms, products


@pytest.mark.parametrize("form", ["one sum", "sum over axes"])
@pytest.mark.parametrize("shape", [(5,), (2, 17, 5), (2, 3, 4, 5)])
def test_the_product_and_its_gradients(monkeypatch, form, shape):
    monkeypatch.setitem(platforms.CHOICES, "kernel_gradient", {"default": form})
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = jax.random.normal(keys[0], shape), jax.random.normal(keys[1], (5, 7))
    gradient = jax.random.normal(keys[2], (*shape[:-1], 7))
    with jax.default_matmul_precision("highest"):
        out, pull = jax.vjp(products.rows_product, x, kernel)
        found = out, *pull(gradient)
    x, kernel, gradient = (np.asarray(a, np.float64) for a in (x, kernel, gradient))
    rows, pulled = x.reshape(-1, 5), gradient.reshape(-1, 7)
    wanted = x @ kernel, gradient @ kernel.T, rows.T @ pulled
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * np.abs(b).max())


def test_the_kernels_gradient_has_its_type():
    x, kernel = jnp.ones((2, 3, 5), jnp.bfloat16), jnp.ones((5, 7), jnp.bfloat16)
    out, pull = jax.vjp(products.rows_product, x, kernel)
    assert out.dtype == jnp.bfloat16
    assert [g.dtype for g in pull(out)] == [jnp.bfloat16] * 2
