"""The benchmark of a pre-training step measures what it says, for voc2vec_jax and for the reference."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks import measuring
from benchmarks import train as train_benchmark

from voc2vec_jax import errors
from voc2vec_jax.models import flops

MODEL = train_benchmark.built(train_benchmark.TrainBenchmark(model="tiny"))[1]
SMALL = train_benchmark.TrainBenchmark(model="tiny", rows=2, seconds=1.0, passes=1)


def by_name(settings):
    figures = list(train_benchmark.figures(settings))
    json.dumps(figures, allow_nan=False)
    return {figure["figure"]: figure for figure in figures}


@pytest.mark.slow
def test_both_sides_the_parts_and_the_growth_are_timed(monkeypatch, tmp_path):
    monkeypatch.setattr(measuring, "matmul_rate", lambda dtype: 1e9)
    monkeypatch.setattr(train_benchmark, "GROWTH", ((1, 2.0),))
    more = {"against": "transformers", "breakdown": True, "growth": True, "profile": str(tmp_path / "trace")}
    found = by_name(train_benchmark.TrainBenchmark(**{**vars(SMALL), **more}))
    ours, theirs = found["train voc2vec_jax"], found["train transformers"]
    assert theirs["ratio"] == 1.0
    assert math.isclose(ours["ratio"], ours["step_seconds"] / theirs["step_seconds"], rel_tol=0.05, abs_tol=0.01)
    assert ours["model_gflop"] == theirs["model_gflop"] > 0
    assert math.isclose(
        ours["share_of_matmul_rate"], ours["model_gflop"] / ours["step_seconds"], rel_tol=0.05, abs_tol=0.05
    )
    assert ours["compile_seconds"] > 0 and ours["step_mb"] >= 1
    parts = {name for name in found if name.startswith("train part")}
    names = ("conv stem", "positional conv", "blocks", "objective", "optimizer", "input to the device")
    assert parts == {f"train part: {name}" for name in names}
    assert all(found[name]["part_seconds"] > 0 for name in parts)
    floors = [found[f"train part: {name}"]["floor_seconds"] for name in names[:4]]
    projection = 2 * flops.training(MODEL, 16_000)["projection"] / 1e9
    assert math.isclose(sum(floors) + projection, ours["model_gflop"], rel_tol=0.02)
    assert not any(found[f"train part: {name}"]["floor_seconds"] for name in names[4:])
    grown = found["train growth"]
    assert (grown["rows"], grown["seconds"]) == (1, 2.0) and grown["step_mb_per_clip"] > 0
    assert math.isclose(grown["seconds_per_audio_second"], grown["step_seconds"] / 2, rel_tol=0.1, abs_tol=1e-3)
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))


def test_groups_and_accumulation_are_one_update():
    """A step of two groups, twice, holds four times the clips and has the mean gradient of them."""
    more = train_benchmark.TrainBenchmark(**{**vars(SMALL), "step": "update", "groups": 2, "micros": 2})
    ours = train_benchmark.CompiledStep(more)
    assert ours.batch["audio"].shape == (1, 2, 2, 2 * 16_000) and more.clips == 8
    _, row = ours.compiled(ours.state, ours.batch)
    least = MODEL.masked_bound(MODEL.encoder.frames(16_000))
    assert more.clips * least // 3 < row["masked_frames"] <= more.clips * least


@pytest.mark.slow
def test_the_gradient_is_that_of_an_update():
    """The timed program computes what training computes: a step of plain descent with it is the update's."""
    ours = train_benchmark.CompiledStep(SMALL)
    grads, sums = ours.compiled(ours.state, ours.batch)
    grads = jax.tree.map(lambda x: x / sums["weight"], grads)
    row = train_benchmark.CompiledStep(train_benchmark.TrainBenchmark(**{**vars(SMALL), "step": "update"}))
    _, row = row.compiled(row.state, row.batch)
    norm = jnp.sqrt(sum(jnp.sum(x * x) for x in jax.tree.leaves(grads)))
    np.testing.assert_allclose(norm, row["grad_norm"], rtol=1e-5)


FAULTS = [
    ({"rows": 0}, "--rows=0"),
    ({"passes": 0}, "--passes=0"),
    ({"seconds": 0.1}, "--seconds=0.1"),
    ({"seconds": float("inf")}, "--seconds=inf"),
    ({"groups": 0}, "--groups=0"),
    ({"micros": 2}, "--micros=2 is for whole updates: add --step=update"),
    ({"against": "transformers", "remat": "products"}, "--remat=products has no counterpart"),
]


@pytest.mark.parametrize("fault, message", FAULTS)
def test_values_without_sense_are_refused(fault, message):
    with pytest.raises(errors.InputError, match=message):
        next(train_benchmark.figures(train_benchmark.TrainBenchmark(**{**vars(SMALL), **fault})))
