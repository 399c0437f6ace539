"""Attention's kernels for GPUs: against the plain form in Pallas' interpreter, and in programs for CUDA."""

import functools
import types

import compilers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from voc2vec_jax.ops import attention, attention_gpu, dropout

DROPS = dropout.rule(0.3)


def normal(seed, *shape, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def key_data(rows, seed=9):
    return jax.random.key_data(jax.random.split(jax.random.key(seed), rows))


def inputs(b, t, h, c, frames, biased="none", drops=True, dtype=jnp.float32):
    """Arguments of the forward pass, and a gradient of its result that is 0 where a row has no frames."""
    query, key, value, gradient = (normal(seed, b, t, h, c, dtype=dtype) for seed in range(4))
    bias = None if biased == "none" else normal(5, h, t, t)
    gate = normal(6, b, h, t) if biased == "gated" else None
    frames = jnp.array(frames)
    given = (query * c**-0.5, key, value, bias, gate, frames, key_data(b) if drops else None)
    return given, gradient * (frames > 0).astype(dtype)[:, None, None, None]


def both(given, gradient, drops, of=attention_gpu, **options):
    """All results of both passes, by the kernels or by the plain form."""
    names = ("plain_forward", "plain_backward") if of is attention else ("forward", "backward")
    forward, backward = (functools.partial(getattr(of, name), drops=drops, **options) for name in names)
    found = forward(*given)
    return *found, *backward(*given, *found, gradient)


def difference(found, wanted):
    """The largest difference over the largest number."""
    found, wanted = (np.asarray(x, np.float64) for x in (found, wanted))
    return np.abs(found - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize(
    "t, frames, h, c, biased, drops",
    [
        (17, [17, 9], 3, 16, "none", False),
        (17, [0, 17], 3, 32, "gated", True),
        (33, [32, 33], 2, 64, "bias", True),
        (129, [129, 64], 2, 64, "none", True),
        (129, [70, 129], 1, 128, "gated", False),
        pytest.param(499, [499, 301], 2, 64, "gated", True, marks=pytest.mark.slow),
    ],
)
def test_values_and_gradients_are_those_of_the_plain_form(t, frames, h, c, biased, drops):
    given, gradient = inputs(len(frames), t, h, c, frames, biased, drops)
    rule = DROPS if drops else None
    assert attention_gpu.supports(given[0], given[3], rule)
    with jax.default_matmul_precision("highest"):
        wanted = both(given, gradient, rule, attention)
    found = both(given, gradient, rule, interpret=True)
    full = np.array(frames) > 0  # the others' output and denominator are not used
    for name, a, b in zip(
        ("out", "most", "total", "query", "key", "value", "bias", "gate"), found, wanted, strict=True
    ):
        assert (a is None) == (b is None), name
        if a is None:
            continue
        assert a.shape == b.shape and a.dtype == b.dtype and np.isfinite(a).all(), name
        a, b = (a, b) if name == "bias" else (a[full], b[full])
        assert difference(a, b) < 2e-6, name
    assert not np.asarray(found[4])[0, frames[0] :].any() and not np.asarray(found[5])[0, frames[0] :].any()


def test_narrow_values_are_as_near_to_the_formula_as_the_plain_form():
    given, gradient = inputs(1, 150, 2, 64, [150], "gated", dtype=jnp.bfloat16)
    wide = [x.astype(jnp.float32) if x is not None and x.dtype == jnp.bfloat16 else x for x in given]
    with jax.default_matmul_precision("highest"):
        exact = both(wide, gradient.astype(jnp.float32), DROPS, attention)
        plain = both(given, gradient, DROPS, attention)
        found = both(given, gradient, DROPS, interpret=True)
    assert found[0].dtype == found[3].dtype == jnp.bfloat16 and found[6].dtype == jnp.float32

    def error(x, wanted):
        x, wanted = (np.asarray(y, np.float64) for y in (x, wanted))
        return np.linalg.norm(x - wanted) / np.linalg.norm(wanted)

    for a, b, wanted in zip(found, plain, exact, strict=True):
        assert error(a, wanted) < max(1.1 * error(b, wanted), 1e-6)


def test_masks_are_those_of_dropout_to_the_bit():
    """Equal scores, and values that are 1 for one key in each channel: outputs are the weights, 0 where dropped."""
    b, t, h, c = 2, 70, 2, 16
    zeros, words = jnp.zeros((b, t, h, c)), key_data(b)

    def weights(start):
        value = jnp.broadcast_to(jnp.eye(t, c, -start)[None, :, None], (b, t, h, c))
        return attention_gpu.forward(
            zeros, zeros, value, None, None, jnp.full((b,), t), words, drops=DROPS, interpret=True
        )[0]

    # A stretch of c keys at a time, under vmap: [stretches, b, q, h, c] -> [b, h, q, keys]
    found = jax.vmap(weights)(jnp.arange(0, t, c)).transpose(1, 3, 2, 0, 4).reshape(b, h, t, -1)[..., :t]
    kept = np.asarray(dropout.kept(words, (b, h, t, t), DROPS))
    assert 0.6 < kept.mean() < 0.8
    np.testing.assert_array_equal(np.asarray(found) > 0, kept)


def test_a_row_depends_neither_on_others_nor_on_its_padding():
    given, gradient = inputs(2, 70, 2, 16, [70, 33], drops=False)
    hidden = jnp.arange(70)[None, :, None, None] >= given[5][:, None, None, None]
    # NaN in padded keys and values reaches nothing
    dirty = [given[0], *(jnp.where(hidden, jnp.nan, x) for x in given[1:3]), *given[3:]]
    found = both(dirty, jnp.where(hidden, 0, gradient), None, interpret=True)
    alone = [x[1:, :33] for x in given[:3]] + [None, None, given[5][1:], None]
    wanted = both(alone, gradient[1:, :33], None, interpret=True)
    for i in (0, 3, 4, 5):
        assert difference(found[i][1:, :33], wanted[i]) < 1e-6
    assert all(np.isfinite(x).all() for x in found if x is not None)


@pytest.mark.parametrize("biased", ["none", "gated"])
def test_folds_under_vmap_are_those_of_the_plain_form(biased):
    folds = [inputs(2, 40, 2, 16, [40, 21 + i], biased) for i in range(2)]
    folds[1] = jax.tree.map(lambda x: x[::-1] if x.dtype != jnp.uint32 else x + 1, folds[1])
    run = functools.partial(both, drops=DROPS, interpret=True)
    found = jax.vmap(run)(*jax.tree.map(lambda *x: jnp.stack(x), *folds))
    for i, fold in enumerate(folds):
        with jax.default_matmul_precision("highest"):
            wanted = both(*fold, DROPS, attention)
        for a, b in zip(found, wanted, strict=True):
            assert a is None or difference(a[i], b) < 2e-6


def test_what_the_kernels_do_not_compute_is_left_to_the_plain_form():
    def supports(dtype=jnp.bfloat16, shape=(2, 9, 3, 64), bias=None, drops=DROPS):
        return attention_gpu.supports(jnp.zeros(shape, dtype), bias, drops)

    assert supports() and supports(jnp.float32) and supports(drops=None)
    assert supports(bias=jnp.zeros((3, 9, 9)))
    with jax.enable_x64(True):
        assert not supports(jnp.float64) and not supports(bias=jnp.zeros((3, 9, 9)))
    assert not supports(jnp.float16) and not supports(drops=dropout.rule(0.1, "threefry"))
    assert not supports(shape=(2, 9, 3, 8)) and not supports(shape=(2, 9, 3, 48))
    assert not supports(shape=(2, 0, 3, 64)) and not supports(shape=(2**16, 1, 1, 64))


@pytest.mark.parametrize(
    "kind, capability, supported",
    [
        ("Tesla T4", "7.5", False),
        ("NVIDIA RTX A6000", "8.6", True),
        ("NVIDIA B200", "10.0", True),
        ("AMD Instinct MI300X", "gfx942", False),
    ],
)
def test_cards_older_than_ampere_and_amd_s_take_the_plain_form(monkeypatch, kind, capability, supported):
    card = types.SimpleNamespace(platform="gpu", device_kind=kind, compute_capability=capability)
    query = jnp.zeros((2, 9, 3, 64), jnp.bfloat16)
    monkeypatch.setattr(jax, "devices", lambda: [card])
    assert attention_gpu.supports(query, None, DROPS) == supported


def kernels(f, *arrays):
    """The names of the kernels in a program lowered for CUDA, which needs neither a GPU nor its packages."""
    text = jax.jit(f).trace(*arrays).lower(lowering_platforms=("cuda",)).as_text()
    return [name for name in ("forward_kernel", "backward_kernel", "bias_kernel") if f'name = "{name}"' in text]


def loss(arrays, drops=DROPS, implementation="auto"):
    return attention.attend(*arrays, drops, implementation).astype(jnp.float32).sum()


def test_a_program_for_cuda_calls_the_kernels():
    given = inputs(2, 17, 2, 64, [17, 9], "gated", dtype=jnp.bfloat16)[0]

    def gradient(**options):
        return lambda floats, *others: jax.grad(lambda x: loss((*x, *others), **options))(floats)

    arguments = (given[:5], *given[5:])
    assert kernels(loss, given) == ["forward_kernel"]
    assert kernels(gradient(), *arguments) == ["forward_kernel", "backward_kernel", "bias_kernel"]
    assert kernels(gradient(), (*given[:3], None, None), *given[5:]) == ["forward_kernel", "backward_kernel"]
    assert kernels(gradient(implementation="plain"), *arguments) == []
    assert kernels(gradient(drops=dropout.rule(0.1, "threefry")), *arguments) == []
    with jax.default_matmul_precision("highest"), jax.enable_x64(True):
        assert kernels(gradient(), *arguments) == ["forward_kernel", "backward_kernel", "bias_kernel"]


def test_kernels_are_called_within_shard_map_scan_checkpoint_and_vmap():
    given = inputs(2, 17, 2, 64, [17, 9], dtype=jnp.bfloat16)[0]

    def stack(query, *others):
        block = jax.checkpoint(lambda x, _: (attention.attend(x, *others, DROPS), None))
        return jax.lax.scan(block, query, None, length=2)[0].astype(jnp.float32).sum()

    wanted = ["forward_kernel", "backward_kernel"]
    assert kernels(jax.grad(stack), *given) == wanted
    assert kernels(jax.vmap(jax.grad(stack)), *jax.tree.map(lambda x: jnp.stack([x] * 3), given)) == wanted
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    for check in (False, True):
        local = jax.shard_map(
            lambda *x: jax.lax.psum(stack(*x), "data"), mesh=mesh, in_specs=P("data"), out_specs=P(), check_vma=check
        )
        assert kernels(jax.grad(local), *given) == wanted


@pytest.mark.accelerator
@pytest.mark.parametrize("dtype, c", [("bfloat16", 64), ("bfloat16", 128), ("float32", 64)])
@pytest.mark.parametrize("name", ["a6000", "a100", "h100"])
def test_the_kernels_fit_each_card_and_leave_no_scores(name, dtype, c):
    """XLA refuses kernels that need more shared memory than the card has."""
    machine = compilers.machine(name)
    place = SingleDeviceSharding(machine.devices[0])
    given = inputs(2, 499, 4, c, [499, 301], "gated", dtype=dtype)[0]
    given = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), given)

    def gradient(floats, *others):
        return jax.grad(lambda x: loss((*x, *others)))(floats)

    compiled = jax.jit(gradient).lower(given[:5], *given[5:]).compile()
    for kernel in ("forward_kernel", "backward_kernel", "bias_kernel"):
        assert kernel in compiled.as_text()
    assert compiled.memory_analysis().temp_size_in_bytes < 2 * 4 * 499 * 499
