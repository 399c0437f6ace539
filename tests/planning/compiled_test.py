"""Programs compiled for TPUs and GPUs that are not there: what they say agrees with what they are."""

import compilers
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from voc2vec_jax import errors, train
from voc2vec_jax.planning import compiling, counts
from voc2vec_jax.runs import sharding

pytestmark = pytest.mark.accelerator
ROWS, WIDTH, LAYERS = 1024, 512, 4
TINY = ["--config=tests/helpers/tiny_config.py", "--workdir=nowhere", "--dry_run", "--config.bucket_samples=16000"]
# Two convolutions and one group at once compile in a third of the time.
TINY += ["--config.model.encoder.conv_channels=8,8", "--config.model.encoder.conv_kernels=10,8"]
TINY += ["--config.model.encoder.conv_strides=10,32", "--config.batch_seconds=8", "--config.groups_per_device=1"]


def gradient_of_layers(name, devices):
    """The compiled gradient of products in a scan, rows spread over the devices, and the counts of it."""
    machine = compilers.machine(name)
    mesh = sharding.make_mesh(1, machine.devices)
    assert mesh.size == devices

    def loss(kernels, x):
        x, _ = jax.lax.scan(lambda x, kernel: (jnp.tanh(x @ kernel), None), x, kernels)
        return jnp.sum(x.astype(jnp.float32))

    kernels = jax.ShapeDtypeStruct((LAYERS, WIDTH, WIDTH), jnp.bfloat16, sharding=sharding.replicated(mesh))
    place = NamedSharding(mesh, PartitionSpec(sharding.BATCH_AXES))
    x = jax.ShapeDtypeStruct((ROWS * devices, WIDTH), jnp.bfloat16, sharding=place)
    gradient = jax.jit(jax.grad(loss), out_shardings=sharding.replicated(mesh))
    compiled = compiling.compile(gradient.lower(kernels, x))
    return compiled, counts.count(compiled.text, [machine.near[device.id] for device in machine.devices])


@pytest.mark.parametrize("name, devices", [("v5e:2x2", 4), ("h100:4", 4), ("v5e:1x1", 1), ("a6000", 1)])
def test_a_gradient_s_arguments_cycles_and_collectives_are_those_of_its_arrays(name, devices):
    compiled, counted = gradient_of_layers(name, devices)
    kernel = WIDTH * WIDTH * 2
    assert compiled.argument_bytes == LAYERS * kernel + ROWS * WIDTH * 2
    assert counted.unknown_loops == 0
    reduced = sum(one.times * one.payload_bytes for one in counted.collectives if one.kind == "all-reduce")
    assert reduced == (LAYERS * kernel if devices > 1 else 0) or reduced == 2 * LAYERS * kernel  # in bf16 or float32
    assert {one.kind for one in counted.collectives} <= {"all-reduce"}
    assert all(one.group == devices and one.near for one in counted.collectives)
    if name.startswith("v5e"):
        # The two products of a turn backward and the one forward, at the rate of the matrix units.
        least = 3 * LAYERS * 2 * ROWS * WIDTH * WIDTH / 197e12 * 1.5e9
        assert least < counted.cycles < 6 * least
    else:
        assert counted.cycles is None


@pytest.mark.parametrize("name", ["v5e:1x1", "h100"])
def test_traffic_is_that_of_arrays_too_large_for_the_chip(name):
    machine = compilers.machine(name)
    place = sharding.replicated(sharding.make_mesh(1, machine.devices))

    def moved(f, *shapes):
        arguments = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place) for shape in shapes]
        return counts.count(compiling.compile(jax.jit(f).lower(*arguments)).text).traffic_bytes

    n = 2**17
    assert moved(lambda x: jnp.tanh(x) * 2 + 1, (n, 512)) == 2 * n * 512 * 4
    # A turn of the scan reads the carry and a slice, and writes the carry; zeros before the first are written once.
    scanned = moved(lambda xs: jax.lax.scan(lambda c, x: (jnp.tanh(c + x), None), xs[0] * 0, xs)[0], (6, n, 512))
    assert scanned == pytest.approx((6 * 3 + 2) * n * 512 * 4, rel=0.06)


@pytest.mark.parametrize("name, words", [("v5e:2x2", "cycles"), ("h100:2x2", "memory")])
def test_the_update_is_compiled_for_a_machine_by_name(name, words, capsys):
    compilers.machine(name)
    assert train.main([*TINY, f"--device={name}"]) == errors.EXIT_DONE
    printed = capsys.readouterr().out
    for word in (name.partition(":")[0].upper()[-3:], "temporaries", f"binds      {words}", "all-reduce", "at most"):
        assert word in printed.replace("v5e", "V5E"), printed


@pytest.mark.parametrize("name", ["v5e:1x1", "v5p:2x2x1"])
def test_a_program_that_is_too_large_says_what_it_needs(name):
    machine = compilers.machine(name)
    place = NamedSharding(sharding.make_mesh(1, machine.devices), PartitionSpec())
    x = jax.ShapeDtypeStruct((30, 2**30), jnp.float32, sharding=place)
    compiled = compiling.compile(jax.jit(lambda x: jnp.sort(x, axis=0)).lower(x))
    assert compiled.text is None and compiled.peak_bytes > 120 * 2**30
