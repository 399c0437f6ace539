"""What the memory of a device decides: loss groups at once, recomputation, sharding."""

import dataclasses

import jax
import pytest
import tiny_config

from voc2vec_jax.planning import compiling
from voc2vec_jax.pretraining import capacity


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
