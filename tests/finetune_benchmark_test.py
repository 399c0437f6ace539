"""The benchmark of folds trains the same folds whichever way."""

import jax
import numpy as np
import pytest

from voc2vec_jax import errors, finetune_benchmark


def test_every_way_trains_the_same_folds(monkeypatch):
    ways = []
    original = finetune_benchmark._Way

    def kept(*arguments):
        ways.append(original(*arguments))
        return ways[-1]

    monkeypatch.setattr(finetune_benchmark, "_Way", kept)
    settings = finetune_benchmark.Settings(folds=2, clips=6, least_seconds=0.1, most_seconds=0.1, passes=1)
    figures = list(finetune_benchmark.figures(settings))
    assert [figure["figure"] for figure in figures] == [
        "finetune one after another",
        "finetune side by side",
        "finetune side by side on 2 devices",
    ]
    assert figures[0]["speedup"] == 1 and all(figure["audio_seconds_per_second"] > 0 for figure in figures)
    assert [way.rounds for way in ways] == [2, 1, 1]
    one, two = (jax.device_get(way.state.params) for way in ways[1:])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, two)


def test_numbers_that_make_no_sense_are_refused():
    with pytest.raises(errors.InputError, match="--folds=0"):
        next(finetune_benchmark.figures(finetune_benchmark.Settings(folds=0)))
