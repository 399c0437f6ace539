"""The benchmark of folds trains the same folds whichever way."""

import dataclasses

import jax
import numpy as np
import pytest
from benchmarks import finetune as finetune_benchmark
from benchmarks import measuring

from voc2vec_jax import errors


@pytest.mark.slow
def test_every_way_trains_the_same_folds(monkeypatch):
    ways = []
    original = finetune_benchmark._Schedule

    def kept(*arguments):
        ways.append(original(*arguments))
        return ways[-1]

    monkeypatch.setattr(finetune_benchmark, "_Schedule", kept)
    monkeypatch.setattr(measuring, "matmul_rate", lambda dtype: 1e9)
    settings = finetune_benchmark.FinetuneBenchmark(folds=2, clips=6, least_seconds=0.3, most_seconds=0.4, passes=1)
    settings = dataclasses.replace(settings, against="transformers")
    figures = list(finetune_benchmark.figures(settings))
    assert [figure["figure"] for figure in figures] == [
        "finetune matmul rate",
        "finetune one after another",
        "finetune side by side",
        "finetune side by side on 2 devices",
        "finetune transformers",
    ]
    assert figures[1]["speedup"] == figures[4]["ratio"] == 1
    assert all(figure["audio_seconds_per_second"] > 0 and figure["model_gflop"] > 0 for figure in figures[1:])
    assert [way.rounds for way in ways] == [2, 1, 1]
    one, two = (jax.device_get(way.state.params) for way in ways[1:])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, two)


@pytest.mark.parametrize(
    "fault, message",
    [
        ({"folds": 0}, "--folds=0: give 1 or more"),
        ({"batch_clips": 0}, "--batch_clips=0: give 1 or more"),
        ({"least_seconds": 5.0, "most_seconds": 1.0}, "--least_seconds=5 --most_seconds=1"),
        ({"least_seconds": -1.0}, "--least_seconds=-1"),
        ({"most_seconds": float("nan")}, "--most_seconds=nan"),
        ({"model": "huge"}, "--model=huge is none of tiny, base"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(fault, message):
    with pytest.raises(errors.InputError, match=message):
        next(finetune_benchmark.figures(finetune_benchmark.FinetuneBenchmark(**fault)))
