"""Placement is a pure function of name and shape, and says so when it cannot be done."""

import functools
import types

import jax
import jax.numpy as jnp
import pytest
import recipes

from voc2vec_jax import errors
from voc2vec_jax.models import wav2vec2
from voc2vec_jax.ops import optim
from voc2vec_jax.pretraining import step as training_step
from voc2vec_jax.runs import sharding

TREE = {"layers": {"kernel": jnp.zeros((3, 8, 4))}, "norm": {"scale": jnp.zeros(5)}, "count": jnp.zeros([])}


def test_first_matching_rule_cuts():
    mesh = sharding.make_mesh(fsdp=4)
    places = sharding.shard_tree(TREE, mesh, [("kernel$", 1), (".*", None)])
    assert dict(mesh.shape) == {"replica": 2, "fsdp": 4}
    assert places["layers"]["kernel"].spec == jax.sharding.PartitionSpec(None, "fsdp")
    assert places["norm"]["scale"].is_fully_replicated
    assert jax.device_put(TREE["layers"]["kernel"], places["layers"]["kernel"]).addressable_shards[0].data.shape == (
        3,
        2,
        4,
    )


def test_an_unmatched_parameter_is_an_error():
    with pytest.raises(errors.InputError, match="norm/scale"):
        sharding.shard_tree(TREE, sharding.make_mesh(), [("kernel$", 1), ("count", None)])


def test_an_axis_that_does_not_divide_is_an_error():
    with pytest.raises(errors.InputError, match=r"axis 0 of layers/kernel \(3, 8, 4\)"):
        sharding.shard_tree(TREE, sharding.make_mesh(fsdp=2), [("kernel$", 0), (".*", None)])


def test_fsdp_must_divide_the_devices():
    with pytest.raises(errors.InputError, match="fsdp 3 does not divide the 8 devices"):
        sharding.make_mesh(fsdp=3)


def device(number, process, slice_index=None, platform="tpu"):
    return types.SimpleNamespace(id=number, process_index=process, slice_index=slice_index, platform=platform)


def numbers(devices, fsdp):
    return [[device.id for device in group] for group in sharding.grid(devices, fsdp)]


def test_groups_lie_within_slices_and_replicas_across_them():
    """Two slices of two processes with two chips each; processes were started in turn on the slices."""
    devices = [device(i, process, process % 2) for i, process in enumerate((0, 0, 1, 1, 2, 2, 3, 3))]
    assert numbers(devices[::-1], 4) == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert numbers(devices, 8) == [[0, 1, 4, 5, 2, 3, 6, 7]]
    ordered = [devices[i] for i in (0, 1, 4, 5, 2, 3, 6, 7)]
    assert [sharding.place_of_process(ordered, process) for process in range(4)] == [(0, 4), (2, 4), (1, 4), (3, 4)]


def test_a_group_must_not_cut_through_a_slice_or_a_host_of_gpus():
    slices = [device(i, i // 3, i // 6) for i in range(12)]
    with pytest.raises(errors.InputError, match="fsdp 4 cuts through slices of 6 devices.*divisor of 6"):
        sharding.grid(slices, 4)
    hosts = [device(i, i // 4, 0, platform="gpu") for i in range(12)]
    with pytest.raises(errors.InputError, match="fsdp 6 cuts through hosts of 4 devices.*divisor of 4"):
        sharding.grid(hosts, 6)
    assert len(numbers(hosts, 2)) == 6 and len(numbers(hosts, 12)) == 1
    one_slice = [device(i, i // 4) for i in range(12)]  # its links join the hosts
    assert len(numbers(one_slice, 6)) == 2


def test_the_recipes_rules_cut_nearly_all_of_base_and_its_optimizer_in_eight():
    config = recipes.full()
    model = wav2vec2.Config()
    adam = optim.fairseq_adam(lambda _: 1e-3, b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.01, clip_norm=0.0)
    shapes = jax.eval_shape(functools.partial(training_step.init_state, wav2vec2, model, adam, 0))
    rules = [(pattern, None if axis < 0 else axis) for pattern, axis in config.sharding_rules]
    places = sharding.shard_tree(shapes, sharding.make_mesh(fsdp=8), rules)
    whole = sum(x.size for x in jax.tree.leaves(shapes))
    cut = jax.tree.map(lambda x, s: int(jnp.prod(jnp.array(s.shard_shape(x.shape)))), shapes, places)
    assert sum(jax.tree.leaves(cut)) / whole == pytest.approx(1 / 8, rel=0.05)
