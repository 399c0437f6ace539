"""Convolutions as matrix products against `jax.lax`'s, outputs and gradients; what each platform takes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from voc2vec_jax.ops import convolution, cpu, norms, platforms


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def assert_same_with_gradients(ours, theirs, *args):
    weight = normal(9, *jax.eval_shape(theirs, *args).shape)

    @jax.jit
    def run(*args):
        values = [f(*args) for f in (ours, theirs)]
        grads = [jax.grad(lambda *a, f=f: (f(*a) * weight).sum(), argnums=(0, 1))(*args) for f in (ours, theirs)]
        return values, grads

    (found, wanted), grads = run(*args)
    assert found.shape == wanted.shape
    for a, b in [(found, wanted), *zip(*grads)]:
        assert np.abs(a - b).max() <= 1e-5 * max(1, np.abs(b).max())


@pytest.mark.parametrize("channels", [1, 80])
@pytest.mark.parametrize("kernel, stride", [(10, 5), (3, 2), (2, 2), (5, 3), (4, 4), (1, 1), (2, 3), (7, 1)])
@pytest.mark.parametrize("n", [3, 40, 41, 43])
@pytest.mark.parametrize("algorithm", ["chosen", *convolution.strided_algorithms(1)])
def test_strided_conv(channels, kernel, stride, n, algorithm):
    n = max(n, kernel)
    ours = {"chosen": functools.partial(convolution.strided_conv, stride=stride)}
    ours = (ours | convolution.strided_algorithms(stride))[algorithm]

    def theirs(x, w):
        return jax.lax.conv_general_dilated(x, w, (stride,), "VALID", dimension_numbers=("NWC", "WIO", "NWC"))

    x, w = normal(0, 2, n, channels), normal(1, kernel, channels, 6)
    assert_same_with_gradients(ours, theirs, x, w)


@pytest.mark.parametrize("algorithm", ["chosen", *convolution.GROUPED])
@pytest.mark.parametrize("kernel", [1, 3, 8, 19, 33])
@pytest.mark.parametrize("t", [1, 50, 301])
def test_grouped_conv(algorithm, kernel, t):
    """Few and many frames."""
    groups, width = 4, 24
    ours = functools.partial(convolution.grouped_conv, groups=groups)
    if algorithm != "chosen":
        ours = with_gradients(*convolution.GROUPED[algorithm], groups)

    def theirs(x, w):
        padding = [(kernel // 2, (kernel - 1) // 2)]
        dims = ("NWC", "WIO", "NWC")
        return jax.lax.conv_general_dilated(x, w, (1,), padding, dimension_numbers=dims, feature_group_count=groups)

    x, w = normal(0, 2, t, width), normal(1, kernel, width // groups, width)
    assert_same_with_gradients(ours, theirs, x, w)


def with_gradients(forward, backward, groups):
    """A function of x and the kernel with the gradients that `backward` gives."""
    run = jax.custom_vjp(lambda x, w: forward(x, w, groups))
    run.defvjp(lambda x, w: (forward(x, w, groups), (x, w)), lambda kept, pulled: backward(*kept, pulled, groups))
    return run


@pytest.mark.parametrize("platform", ["cpu", "tpu", "cuda"])
def test_accelerators_take_the_convolutions_of_the_compiler(platform):
    """Whatever this process runs on; forward and backward."""

    def loss(x, stem, positional):
        x = convolution.strided_conv(x, stem, 2)
        return jnp.square(convolution.grouped_conv(x, positional, 4)).sum()

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 99, 64), (3, 64, 64), (8, 16, 64))]
    traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*shapes)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    convolutions, products = (text.count(f"stablehlo.{name}") for name in ("convolution", "dot_general"))
    assert (convolutions, products > 0) == ((0, True) if platform == "cpu" else (6, False))


def test_every_choice_names_its_algorithm():
    known = {
        "strided_conv": convolution.strided_algorithms(2),
        "grouped_conv": convolution.GROUPED,
        "gelu_of_time_norm": norms.TIME_NORMS,
        "layer_norm_gradients": norms.STATISTICS,
    }
    for operation, algorithms in known.items():
        assert (
            set(platforms.CHOICES[operation].values()) <= set(algorithms) and "default" in platforms.CHOICES[operation]
        )


def test_weight_norm_gives_each_tap_its_length():
    w = convolution.weight_norm(jnp.arange(1.0, 6.0)[:, None, None], normal(0, 5, 3, 4))
    assert jnp.sqrt((w**2).sum((1, 2))) == pytest.approx(np.arange(1.0, 6.0), rel=1e-6)


def test_options_are_the_compilers_own_and_for_cpus_only():
    options = cpu.forward_options("cpu")
    assert options and jax.jit(lambda x: x + 1, compiler_options=options)(1.0) == 2.0
    assert cpu.forward_options("tpu") == cpu.forward_options("gpu") == {}


@pytest.mark.parametrize("algorithm", convolution.strided_algorithms(1))
@pytest.mark.parametrize("kernel, stride", [(10, 5), (3, 2), (2, 2)])
def test_narrow_convolutions_are_rounded_once(kernel, stride, algorithm):
    """Of a sum of rounded products the error would be half as large again."""
    x, w = (normal(seed, *shape).astype(jnp.bfloat16) for seed, shape in ((0, (2, 203, 96)), (1, (kernel, 96, 64))))
    found = convolution.strided_algorithms(stride)[algorithm](x, w)
    wanted = convolution.strided_conv(x.astype(jnp.float32), w.astype(jnp.float32), stride)
    assert found.dtype == jnp.bfloat16
    assert relative_error(found, wanted) < 1.05 * relative_error(wanted.astype(jnp.bfloat16), wanted)


def relative_error(found, wanted):
    return np.linalg.norm(found.astype(jnp.float32) - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("algorithm", convolution.strided_algorithms(1))
def test_gradients_of_narrow_convolutions_are_rounded_no_more_than_on_cpus(algorithm):
    x, w, pulled = (
        normal(seed, *shape).astype(jnp.bfloat16)
        for seed, shape in enumerate([(2, 203, 96), (3, 96, 64), (2, 101, 64)])
    )
    wide = functools.partial(convolution.strided_conv, stride=2)
    wanted = jax.vjp(wide, *(a.astype(jnp.float32) for a in (x, w)))[1](pulled.astype(jnp.float32))

    def errors(algorithm):
        found = jax.vjp(convolution.strided_algorithms(2)[algorithm], x, w)[1](pulled)
        return [relative_error(a, b) for a, b in zip(found, wanted, strict=True)]

    for ours, cpus in zip(errors(algorithm), errors("fewer products"), strict=True):
        assert ours <= 1.05 * cpus and cpus < 4e-3


def test_a_narrow_grouped_convolution_and_its_gradients():
    x, w, pulled = (
        normal(seed, *shape).astype(jnp.bfloat16) for seed, shape in enumerate([(2, 99, 64), (16, 16, 64), (2, 99, 64)])
    )
    wide = [a.astype(jnp.float32) for a in (x, w)]
    (found, pull), (wanted, wide_pull) = (
        jax.vjp(lambda *a: convolution.grouped_conv(*a, 4), *a) for a in ((x, w), wide)
    )
    pairs = [(found, wanted), *zip(pull(pulled), wide_pull(pulled.astype(jnp.float32)), strict=True)]
    for a, b in pairs:
        assert a.dtype == jnp.bfloat16
        assert np.linalg.norm(a.astype(jnp.float32) - b) < 2.5e-3 * np.linalg.norm(b)
