"""What the memory of a device decides: loss groups at once, recomputation, sharding."""

import dataclasses
import types

import jax
import pytest
import tiny_config

from voc2vec_jax.planning import compiling
from voc2vec_jax.pretraining import batch_layout, capacity
from voc2vec_jax.runs import sharding


@pytest.fixture
def config():
    config = tiny_config.get_config()
    config.groups_per_device, config.remat, config.fsdp, config.same_length_groups = 0, "auto", 0, 0
    config.batch_seconds = 16 * config.group_rows * config.crop_samples / 16_000  # 16 loss groups
    return config


def memory(monkeypatch, needs):
    """Compiling gives `needs[remat]` bytes a group beside 100 of arguments; the choices that were compiled."""
    seen = []

    def compiled(config, devices, plan):
        seen.append((plan.groups_per_device, plan.remat))
        temporaries = needs[plan.remat] * plan.groups_per_device
        return dataclasses.replace(
            plan, compiled=compiling.Compiled(1.0, 60, temporaries, 60 + temporaries, ""), copied=40
        )

    monkeypatch.setattr(capacity, "compiled_plan", compiled)
    return seen


NEEDS = {"none": 50, "products": 30, "layer": 10}


@pytest.mark.parametrize(
    "room, remat, groups",
    [(1000, "none", 16), (510, "none", 8), (499, "none", 4), (150, "none", 1), (149, "products", 1), (112, "layer", 1)],
)
def test_the_fastest_choice_that_fits(config, monkeypatch, room, remat, groups):
    memory(monkeypatch, NEEDS)
    monkeypatch.setattr(capacity, "fitting_fsdp", lambda *arguments: 1)
    found = capacity.choose(config, jax.devices()[:1], room)
    assert (found.remat, found.groups_per_device) == (remat, groups)
    assert found.peak(groups) <= room


def test_groups_at_once_share_a_length(config, monkeypatch):
    memory(monkeypatch, NEEDS)
    config.same_length_groups, config.fsdp = 4, 1
    assert capacity.choose(config, jax.devices()[:1], 1000).groups_per_device == 4
    assert capacity.choose(config, jax.devices(), 1000).groups_per_device == 2


def test_what_does_not_fit_is_said_with_the_remedy(config, monkeypatch, capsys):
    memory(monkeypatch, NEEDS)
    monkeypatch.setattr(capacity, "fitting_fsdp", lambda *arguments: 1)
    assert capacity.choose(config, jax.devices()[:1], 105).remat == "layer"
    assert "expect it to fail; set fsdp higher, or group_rows or crop_samples lower" in capsys.readouterr().err


def test_what_is_given_stays(config, monkeypatch):
    seen = memory(monkeypatch, NEEDS)
    config.groups_per_device, config.remat, config.fsdp = 2, "products", 1
    assert capacity.settle(config, jax.devices()[:1], 1) is None and seen == []
    config.remat = "auto"
    found = str(capacity.settle(config, jax.devices()[:1], 1000))
    assert found == "2 loss groups at once on a device, remat none, fsdp 1: 0.0 GB planned"
    assert seen == [(2, "none")]


def test_cpus_compile_nothing(config, monkeypatch):
    seen = memory(monkeypatch, NEEDS)
    assert str(capacity.settle(config, jax.devices())) == "1 loss group at once on a device, remat none, fsdp 1"
    assert seen == [] and (config.groups_per_device, config.remat, config.fsdp) == (1, "none", 1)


def test_parameters_are_shared_by_as_few_devices_of_a_host_as_leave_room(config, monkeypatch):
    """1,000 numbers of 4 bytes: a device alone holds them, two moments and the gradient, in a sixth of the room."""
    family = types.SimpleNamespace(init_params=lambda model, key: jax.numpy.zeros(1000))
    monkeypatch.setattr(capacity.pretraining_recipe, "build_model", lambda config: (family, None))
    monkeypatch.setattr(capacity, "_splits", lambda config, family, model, devices, fsdp: True)

    def found(share, devices=None):
        return capacity.fitting_fsdp(config, devices or jax.devices(), 4000 * share / capacity.STATE_SHARE)

    assert [found(share) for share in (4, 3.5, 3, 2.75, 2.375)] == [1, 2, 4, 4, 8]
    assert found(2) == 1  # nothing fits
    assert found(3, jax.devices()[:6]) == 3  # 3 / 3 + 2 copies, and 4 does not divide 6
    config.ema_decay = 0.9
    assert [found(share) for share in (5, 4, 3)] == [1, 2, 4]


def test_a_steps_arrays_have_the_shapes_of_its_batches():
    layout = batch_layout.BatchLayout(12, 3, 16_000, (8_000, 16_000), same_length_groups=1)
    mesh = sharding.make_mesh(1, jax.devices()[:2])
    model = capacity.pretraining_recipe.build_model(tiny_config.get_config())[1]
    found = {name: (x.shape, x.dtype.name) for name, x in capacity.batch_of(model, layout, 3, mesh).items()}
    rows = ((2, 3, 2, 6), "int32")
    wanted = {"audio": ((2, 3, 2, 48_000), "int16"), "lengths": rows, "index": rows, "bucket": ((2, 3, 2), "int32")}
    assert found == wanted
    normalised = capacity.batch_of(model, layout, 3, mesh, 1e-5)
    assert {name: x.dtype.name for name, x in normalised.items() if name not in wanted} == {
        "mean": "float32",
        "factor": "float32",
    }


@pytest.mark.slow
def test_parameters_are_shared_where_they_are_large_beside_the_memory(config):
    devices = jax.devices()
    family, model = capacity.pretraining_recipe.build_model(capacity._with(config, capacity.MemoryPlan(1, "none", 1)))
    size = 4 * sum(x.size for x in jax.tree.leaves(family.init_params(model, jax.random.key(0))))
    assert len(devices) == 8
    assert capacity.fitting_fsdp(config, devices, 4 * size / capacity.STATE_SHARE) == 1
    assert capacity.fitting_fsdp(config, devices, 3.5 * size / capacity.STATE_SHARE) == 2
    assert capacity.fitting_fsdp(config, devices, 3 * size / capacity.STATE_SHARE) == 4
    config.ema_decay = 0.9  # one copy more
    assert capacity.fitting_fsdp(config, devices, 5 * size / capacity.STATE_SHARE) == 1
    assert capacity.fitting_fsdp(config, devices, 4 * size / capacity.STATE_SHARE) == 2
    assert capacity.fitting_fsdp(config, devices, 3 * size / capacity.STATE_SHARE) == 4


@pytest.mark.slow
def test_memory_is_that_of_the_compiled_update(config):
    config.batch_seconds = 2 * 8 * config.group_rows * config.crop_samples / 16_000
    one, two = (
        capacity.compiled_plan(config, jax.devices(), capacity.MemoryPlan(groups, "none", 1)) for groups in (1, 2)
    )
    assert one.compiled.temporary_bytes < two.compiled.temporary_bytes
    assert one.peak(1) < two.peak(2) < one.peak(2) * 1.01
    assert one.copied == 104_080  # parameters, two moments of each, four counts
