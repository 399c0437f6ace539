"""The TPU's attention kernels, interpreted, against the plain form; and compiled for a TPU, where its compiler is."""

import functools

import compilers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from voc2vec_jax.ops import attention as attention_ops
from voc2vec_jax.ops import attention_tpu, dropout

DROPS = dropout.rule(0.3)
BIASES = ("none", "bias", "gated")


def arrays(length, heads, width, frames, biased, drops, dtype=jnp.float32, seed=0):
    """What the forward pass takes, and a gradient; it is zero for a row without frames, whose output is not used."""
    rows = len(frames)

    def normal(number, *shape):
        return jax.random.normal(jax.random.fold_in(jax.random.key(seed), number), shape)

    shape = (rows, length, heads, width)
    query, key, value, gradient = (normal(i, *shape).astype(dtype) for i in range(4))
    query = (query * width**-0.5).astype(dtype)
    bias = normal(4, heads, length, length) if biased != "none" else None
    gate = normal(5, rows, heads, length) if biased == "gated" else None
    frames = jnp.array(frames, jnp.int32)
    gradient = jnp.where((frames > 0)[:, None, None, None], gradient, 0)
    key_data = jax.random.key_data(jax.random.split(jax.random.key(9), rows)) if drops else None
    return (query, key, value, bias, gate, frames, key_data), gradient


def kernels(taken, gradient, drops):
    """(output, maxima, sums), gradients."""
    run = functools.partial(jax.jit, static_argnames=("drops", "interpret"))
    found = run(attention_tpu.forward)(*taken, drops=drops, interpret=True)
    return found, run(attention_tpu.backward)(*taken, *found, gradient, drops=drops, interpret=True)


def plain(taken, gradient, drops):
    """The same in float64."""
    with jax.enable_x64(True):
        *taken, gradient = jax.tree.map(
            lambda x: x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x, [*taken, gradient]
        )
        found = attention_ops.plain_forward(*taken, drops=drops)
        return found, attention_ops.plain_backward(*taken, *found, gradient, drops=drops)


def each(found, wanted, frames):
    """Pairs of arrays in float64, of rows that have frames."""
    used = np.asarray(frames) > 0
    for number, (a, b) in enumerate(zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)):
        assert a.shape == b.shape
        a, b = (np.asarray(x).astype(np.float64) for x in (a, b))
        assert np.isfinite(a).all()
        yield (a, b) if number == 6 else (a[used], b[used])  # the gradient of the bias has no rows


CASES = [
    # length, heads, width, frames of each row
    (17, 2, 64, (17, 9, 0)),
    (2, 1, 64, (2, 1)),
    (129, 4, 32, (129, 9)),
    (200, 1, 128, (3, 200)),
    (299, 3, 8, (299, 0, 100)),
    (499, 2, 64, (499, 257)),
]


@pytest.mark.parametrize("biased", BIASES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_those_of_the_plain_form(case, biased):
    drops = DROPS if case[0] != 200 else None
    taken, gradient = arrays(*case, biased, drops)
    assert attention_tpu.supports(taken[0], taken[3], drops)
    found, wanted = kernels(taken, gradient, drops), plain(taken, gradient, drops)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(found))
    for a, b in each(found, wanted, case[3]):
        assert np.abs(a - b).max() <= 2e-6 * np.abs(b).max()


@pytest.mark.parametrize("biased", ["none", "gated"])
def test_queries_in_several_programs_give_the_same(monkeypatch, biased):
    monkeypatch.setattr(attention_tpu, "QUERIES", 128)
    monkeypatch.setattr(attention_tpu, "BIASED_QUERIES", 128)
    frames = (299, 120)
    taken, gradient = arrays(299, 2, 64, frames, biased, DROPS, seed=3)
    for a, b in each(kernels(taken, gradient, DROPS), plain(taken, gradient, DROPS), frames):
        assert np.abs(a - b).max() <= 2e-6 * np.abs(b).max()


def test_bfloat16_is_as_near_to_float64_as_the_plain_form():
    frames = (299, 100)
    taken, gradient = arrays(299, 2, 64, frames, "gated", DROPS, jnp.bfloat16)
    wanted = plain(taken, gradient, DROPS)
    found = kernels(taken, gradient, DROPS)
    same = attention_ops.plain_forward(*taken, drops=DROPS)
    same = same, attention_ops.plain_backward(*taken, *same, gradient, drops=DROPS)
    for (a, b), (c, _) in zip(each(found, wanted, frames), each(same, wanted, frames), strict=True):
        assert np.linalg.norm(a - b) <= 1.05 * np.linalg.norm(c - b) + 1e-6 * np.linalg.norm(b)


@pytest.mark.parametrize("length", [17, 300])
def test_the_masks_are_those_of_dropout_to_the_bit(length):
    """Equal scores and values of one key each at a time show in a channel whether that key is kept."""
    heads, width = 2, 64
    (query, key, _, _, _, frames, key_data), _ = arrays(length, heads, width, (length, length), "none", DROPS)
    kept = []
    for first in range(0, length, width):
        one = jnp.eye(length, width, -first)[None, :, None]
        value = jnp.broadcast_to(one, query.shape)
        taken = (query * 0, key, value, None, None, frames, key_data)
        kept.append(attention_tpu.forward(*taken, drops=DROPS, interpret=True)[0] > 0)
    found = jnp.concatenate(kept, -1)[..., :length].transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(found, dropout.kept(key_data, (2, heads, length, length), DROPS))


def test_a_row_depends_on_no_other_and_not_on_its_padding():
    taken, gradient = arrays(150, 2, 64, (90, 40), "none", None)
    found = jax.tree.leaves(kernels(taken, gradient, None))
    alone = [x if x is None else x[1:, :90] if x.ndim == 4 else x[1:] for x in (*taken, gradient)]
    cut = jax.tree.leaves(kernels(alone[:-1], alone[-1], None))
    for number in (0, 1, 2):  # what belongs to queries; gradients of keys sum over queries that were cut off
        axis = 1 if number == 0 else 2
        a = np.take(np.asarray(found[number][1:]), range(90), axis)
        np.testing.assert_allclose(a, cut[number], rtol=0, atol=1e-6 * np.abs(a).max())


@pytest.mark.parametrize("biased", BIASES)
def test_mapped_over_an_axis_each_entry_is_what_it_is_alone(biased):
    folds = [arrays(40, 2, 64, (40, 13), biased, DROPS, seed=seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *folds)
    found = jax.vmap(lambda fold: kernels(*fold, DROPS))(stacked)
    wanted = jax.tree.map(lambda *x: jnp.stack(x), *(kernels(*fold, DROPS) for fold in folds))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.abs(b).max())


def test_what_is_not_mapped_has_a_gradient_for_each_entry():
    (query, *rest), gradient = arrays(40, 2, 64, (40, 13), "bias", None)
    queries = jnp.stack([query, 2 * query])

    def gradients(query):
        return kernels((query, *rest), gradient, None)[1]

    found, wanted = jax.vmap(gradients)(queries), [gradients(x) for x in queries]
    for a, *b in zip(*(jax.tree.leaves(x) for x in (found, *wanted)), strict=True):
        np.testing.assert_allclose(a, jnp.stack(b), rtol=0, atol=1e-6 * np.abs(a).max())


def test_each_device_computes_its_rows():
    taken, gradient = arrays(40, 2, 64, (40, 13, 7, 40), "none", DROPS)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = PartitionSpec("data")
    spread = jax.shard_map(
        lambda *x: kernels(x[:-1], x[-1], DROPS), mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False
    )
    found, wanted = spread(*taken, gradient), kernels(taken, gradient, DROPS)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": jnp.float16},
        {"shape": (2, 0, 12, 64)},
        {"shape": (2, 17, 3, 64)},  # 192 lanes
        {"shape": (2, 17, 16, 80)},
        {"shape": (2, 17, 32, 4)},
        {"shape": (2, 5000, 12, 64)},
        {"drops": dropout.rule(0.1, "threefry")},
        {"bias": jax.ShapeDtypeStruct((12, 17, 17), jnp.float16)},
    ],
    ids=str,
)
def test_what_the_kernels_cannot_do_is_left_to_the_plain_form(changes):
    usual = {"shape": (2, 17, 12, 64), "dtype": jnp.bfloat16, "bias": None, "drops": DROPS}

    def supported(shape, dtype, bias, drops):
        found = []
        jax.eval_shape(
            lambda *x: found.append(attention_tpu.supports(*x, drops)), jax.ShapeDtypeStruct(shape, dtype), bias
        )
        return found[0]

    assert supported(**usual)
    assert not supported(**usual | changes)
    with jax.enable_x64(True):
        assert not supported(**usual)


COMPILED = [
    # rows, length, heads, width, type, bias, folds
    (8, 499, 12, 64, jnp.bfloat16, "none", None),
    (2, 499, 12, 64, jnp.bfloat16, "gated", None),
    (2, 1499, 4, 64, jnp.bfloat16, "bias", None),
    (1, 17, 2, 64, jnp.float32, "gated", None),
    (4, 99, 12, 64, jnp.bfloat16, "bias", 3),
]


@pytest.mark.accelerator
def test_with_types_of_64_bits_a_tpu_takes_the_plain_form():
    place = jax.sharding.SingleDeviceSharding(compilers.machine("v5e:1x1").devices[0])
    query = jax.ShapeDtypeStruct((2, 17, 2, 64), jnp.float32, sharding=place)
    frames = jax.ShapeDtypeStruct((2,), jnp.int32, sharding=place)

    def attend(query, frames):
        return attention_ops.attend(query, query, query, None, None, frames)

    for wide in (False, True):
        with jax.enable_x64(wide):
            text = jax.jit(attend).lower(query, frames).compile().as_text()
        assert ("tpu_custom_call" in text) != wide


@pytest.mark.accelerator
@pytest.mark.parametrize("case", COMPILED, ids=str)
def test_a_tpu_program_holds_the_kernels_and_nothing_of_the_size_of_scores(case):
    rows, length, heads, width, dtype, biased, folds = case
    taken, gradient = jax.eval_shape(lambda: arrays(length, heads, width, (length,) * rows, biased, DROPS, dtype))
    mesh = jax.sharding.Mesh(np.array(compilers.machine("v5e:1x1").devices), ("data",))
    place = jax.sharding.NamedSharding(mesh, PartitionSpec())

    def loss(taken, gradient):
        differentiated = [x for x in taken[:5] if x is not None]

        def run(*found):
            query, key, value, *more = found
            bias, gate = (*more, None, None)[:2]
            return attention_ops.attend(query, key, value, bias, gate, *taken[5:], DROPS)

        out, pull = jax.vjp(run, *differentiated)
        return out, pull(gradient)

    lead = () if folds is None else (folds,)
    structs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(lead + x.shape, x.dtype, sharding=place), (taken, gradient))
    with jax.default_matmul_precision("highest"):
        text = jax.jit(loss if folds is None else jax.vmap(loss)).lower(*structs).compile().as_text()
    assert text.count("tpu_custom_call") == 2
    if biased == "none":
        assert f"{length},{length}]" not in text
