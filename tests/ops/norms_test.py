"""Norms and GELU against their formulas in float64, outputs and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from voc2vec_jax.ops import cpu, norms

SOME = 64


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("shape", [(4, 768), (2, 5, 12), (0, 8)])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_layer_norm(shape, offset):
    """Against the formula in float64, with the gradients that JAX derives of it."""
    width = shape[-1]
    x, scale, bias = offset + normal(0, *shape), 1 + 0.3 * normal(1, width), normal(2, width)
    with jax.enable_x64(True):
        wide = [np.asarray(value, np.float64) for value in (x, scale, bias)]
        wanted, wanted_pull = jax.vjp(plain_layer_norm, *wide)
        weight = np.asarray(normal(3, *shape), np.float64)
        wanted = jax.tree.map(np.asarray, (wanted, *wanted_pull(jnp.asarray(weight))))
    found, pull = jax.vjp(lambda *a: norms.layer_norm(*a, 1e-5), x, scale, bias)
    for a, b in zip((found, *pull(jnp.asarray(weight, jnp.float32))), wanted, strict=True):
        assert a.dtype == jnp.float32 and a.shape == b.shape
        assert np.abs(a - b).max(initial=0) <= 2e-6 * (1 + offset) * max(1, np.abs(b).max(initial=0))


def plain_layer_norm(x, scale, bias):
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    return centred / jnp.sqrt(variance + 1e-5) * scale[(None,) * (x.ndim - 1)] + bias[(None,) * (x.ndim - 1)]


def test_layer_norm_of_narrow_values_is_computed_wide_and_its_gradient_rounded_once():
    x = (10 + normal(0, 64, 768)).astype(jnp.bfloat16)
    scale, bias, weight = 1 + 0.3 * normal(1, 768), normal(2, 768), normal(3, 64, 768)
    found, pull = jax.vjp(lambda *a: norms.layer_norm(*a, 1e-5), x, scale, bias)
    wanted, wanted_pull = jax.vjp(lambda *a: norms.layer_norm(*a, 1e-5), x.astype(jnp.float32), scale, bias)
    to_x, *others = pull(weight)
    wanted_to_x, *wanted_others = wanted_pull(weight)
    assert found.dtype == jnp.float32 and to_x.dtype == jnp.bfloat16
    for a, b in zip((found, *others), (wanted, *wanted_others), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(to_x, wanted_to_x.astype(jnp.bfloat16))


@pytest.mark.parametrize("platform, barriers", [("cpu", 0), ("tpu", 0), ("cuda", 1)])
def test_gradients_of_a_layer_norm_read_the_statistics_on_gpus(platform, barriers):
    def loss(x, scale, bias):
        return jnp.square(norms.layer_norm(x, scale, bias, 1e-5)).sum()

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 5, 8), (8,), (8,))]
    text = jax.jit(jax.grad(loss, (0, 1, 2))).trace(*shapes).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("optimization_barrier") == barriers


@pytest.mark.parametrize("statistics", norms.STATISTICS)
def test_statistics_are_not_changed(statistics):
    found = jax.jit(norms.STATISTICS[statistics])(normal(0, 4, 1), normal(1, 4, 1))
    np.testing.assert_array_equal(found, (normal(0, 4, 1), normal(1, 4, 1)))


@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-6), ("bfloat16", 8e-3), ("float16", 1e-3)])
def test_gelu_and_its_derivative_are_exact(dtype, tolerance):
    x = jnp.concatenate([jnp.linspace(-12, 12, 4001), jnp.array([0.0, -0.0, 40.0, -40.0])])

    def wanted(x):
        return jax.nn.gelu(x, approximate=False)

    found, pull = jax.vjp(norms.gelu, x.astype(dtype))
    assert found.dtype == dtype and pull(found)[0].dtype == dtype
    narrow = x.astype(dtype).astype(jnp.float32)
    np.testing.assert_allclose(found.astype(jnp.float32), wanted(narrow), rtol=tolerance, atol=1e-6)
    slope = pull(jnp.ones_like(found))[0].astype(jnp.float32)
    np.testing.assert_allclose(slope, jax.vmap(jax.grad(wanted))(narrow), rtol=tolerance, atol=2e-6)


@pytest.mark.parametrize("t", [0, 5, 64, 203])
def test_sums_over_time(t):
    x = normal(0, 2, t, 3)
    np.testing.assert_allclose(cpu.time_sums(x), np.asarray(x, np.float64).sum(1), atol=1e-5)


def plain_gelu_of_time_norm(x, scale, bias, weight):
    count = weight.sum(1)[:, None, None]
    centred = x - (x * weight[..., None]).sum(1, keepdims=True) / count
    variance = (centred**2 * weight[..., None]).sum(1, keepdims=True) / count
    return jax.nn.gelu(centred / jnp.sqrt(variance + 1e-5) * scale[None, None] + bias[None, None], approximate=False)


def time_norm_case(t, offset, dtype=jnp.float32):
    """Arguments: two clips, the second one with padding, and a guess from some of the frames."""
    x = (offset + normal(0, 2, t, 24)).astype(dtype)
    weight = (jnp.arange(t)[None] < jnp.array([[t], [max(1, t // 3)]])).astype(jnp.float32)
    some = weight[:, ::SOME, None]
    near = (x[:, ::SOME].astype(jnp.float32) * some).sum(1) / some.sum(1)
    return x, 1 + 0.3 * normal(1, 24), normal(2, 24), weight, near


@pytest.mark.parametrize("algorithm", norms.TIME_NORMS)
@pytest.mark.parametrize("t", [2, 199, 640])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_gelu_of_time_norm(algorithm, t, offset):
    arguments = time_norm_case(t, offset)
    pulled = normal(3, 2, t, 24)
    with jax.enable_x64(True):
        *wide, weight, wide_pulled = (jnp.asarray(np.asarray(a, np.float64)) for a in (*arguments[:4], pulled))
        wanted, wanted_pull = jax.vjp(lambda *a: plain_gelu_of_time_norm(*a, weight), *wide)
        wanted = jax.tree.map(np.asarray, (wanted, *wanted_pull(wide_pulled)))
    found, pull = jax.vjp(lambda *a: norms.TIME_NORMS[algorithm](*a, eps=1e-5), *arguments)
    for a, b in zip((found, *pull(pulled)[:3]), wanted, strict=True):
        assert a.dtype == jnp.float32 and a.shape == b.shape
        assert np.abs(a - b).max() <= 2e-6 * (1 + offset) * max(1, np.abs(b).max())


@pytest.mark.parametrize("algorithm", norms.TIME_NORMS)
def test_a_far_guess_of_the_mean_changes_little(algorithm):
    """The farthest that a mean over some frames can be: they stand out, and the others are equal but for noise.

    The variance then loses the digits of its ratio to the square of what is guessed wrong, which is at most `SOME`.
    """
    x = jnp.zeros((1, 640, 3)).at[:, ::SOME].set(8.0) + 0.1 * normal(0, 1, 640, 3)
    arguments = (x, jnp.ones(3), jnp.zeros(3), jnp.ones((1, 640)), x[:, ::SOME].mean(1))
    wanted = plain_gelu_of_time_norm(*arguments[:4])
    rounding = SOME * np.finfo(np.float32).eps
    np.testing.assert_allclose(norms.TIME_NORMS[algorithm](*arguments, eps=1e-5), wanted, rtol=rounding, atol=1e-5)


@pytest.mark.parametrize("algorithm", norms.TIME_NORMS)
def test_time_norm_over_many_frames_far_from_zero(algorithm):
    """Sums of one frame after another would be off by a hundred times the tolerance."""
    weight = (jnp.arange(20_000)[None] < jnp.array([[20_000], [15_000]])).astype(jnp.float32)
    x = 100 + normal(0, 2, 20_000, 5)
    near = x[:, : SOME * 200 : SOME].mean(1)
    found = norms.TIME_NORMS[algorithm](x, jnp.ones(5), jnp.zeros(5), weight, near, eps=1e-5)
    for row, count in zip(range(2), (20_000, 15_000)):
        wide = np.asarray(x[row, :count], np.float64)
        wanted = jax.nn.gelu((wide - wide.mean(0)) / np.sqrt(wide.var(0) + 1e-5), approximate=False)
        np.testing.assert_allclose(found[row, :count], wanted, atol=1e-4)


@pytest.mark.parametrize("algorithm", norms.TIME_NORMS)
def test_narrow_time_norm_is_rounded_no_more_than_on_cpus(algorithm):
    arguments = time_norm_case(640, 0.3, jnp.bfloat16)
    pulled = normal(3, 2, 640, 24).astype(jnp.bfloat16)
    wide = [a.astype(jnp.float32) for a in arguments]
    wanted, wanted_pull = jax.vjp(lambda *a: plain_gelu_of_time_norm(*a, wide[3]), *wide[:3])
    wanted = (wanted, *wanted_pull(pulled.astype(jnp.float32)))

    def errors(algorithm):
        found, pull = jax.vjp(lambda *a: norms.TIME_NORMS[algorithm](*a, eps=1e-5), *arguments)
        found = (found, *pull(pulled)[:3])
        assert found[0].dtype == found[1].dtype == jnp.bfloat16
        return [np.linalg.norm(a.astype(jnp.float32) - b) / np.linalg.norm(b) for a, b in zip(found, wanted)]

    for ours, cpus in zip(errors(algorithm), errors("two passes"), strict=True):
        assert ours <= 1.02 * cpus + 1e-6 and cpus < 4e-3


def test_the_choices_of_time_norm_agree():
    arguments = time_norm_case(199, 0.3)
    wanted = norms.TIME_NORMS["one pass"](*arguments, eps=1e-5)
    np.testing.assert_allclose(norms.gelu_of_time_norm(*arguments, 1e-5), wanted, atol=1e-5)
