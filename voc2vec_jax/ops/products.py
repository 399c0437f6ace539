"""The product of dense layers."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from voc2vec_jax.ops import platforms


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def rows_product(x: Float[Array, "*b i"], kernel: Float[Array, "i o"], precision=None) -> Float[Array, "*b o"]:
    """x @ kernel; the backward pass keeps x in its own shape."""
    return jnp.matmul(x, kernel, precision=precision)


def _forward(x, kernel, precision):
    return rows_product(x, kernel, precision), (x, kernel)


def _backward(precision, kept, gradient):
    x, kernel = kept
    to_x = jnp.matmul(gradient, kernel.T, precision=precision)

    def to_kernel(x, gradient):
        rows = tuple(range(x.ndim - 1))
        options = {"precision": precision, "preferred_element_type": kernel.dtype}
        return jax.lax.dot_general(x, gradient, ((rows, rows), ((), ())), **options)

    def flat(x, gradient):
        return to_kernel(x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1]))

    return to_x, platforms.choose("kernel_gradient", {"one sum": flat, "sum over axes": to_kernel}, x, gradient)


rows_product.defvjp(_forward, _backward)
