"""Updates hold the data sets about as the corpus does, and keep the devices equally busy."""

import json

import benchmark
import numpy as np
import pytest
import recipes
from benchmarks import mixing

from voc2vec_jax import errors
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.runs import configuration

UPDATES = 60


def measured(config, devices):
    """Mean total variation by clips and by audio, and the mean of the largest device's work to the mean one's."""
    layout = pretraining_recipe.batch_layout(config, pretraining_recipe.loss_groups(config, devices)[0])
    samples, sets = mixing.like_voc125()
    update = mixing.planned(layout, samples, sets, devices)
    found = [update(k) for k in range(UPDATES)]
    weights = np.ones(len(samples)), samples.astype(float)
    by_clips, by_audio = (np.mean([mixing.variation(rows, w, sets) for rows, _ in found]) for w in weights)
    return by_clips, by_audio, np.mean([work.max() / work.mean() for _, work in found])


def test_clips_like_the_papers_are_as_many_and_as_long():
    samples, sets = mixing.like_voc125()
    assert len(np.unique(sets)) == 10 and samples.max() <= 160_000
    assert samples.sum() / 16_000 / 3600 == pytest.approx(125.2, abs=1)


def test_updates_of_the_papers_recipe_mix_the_sets_and_share_the_work():
    by_clips, by_audio, work = measured(recipes.full(), devices=8)
    assert by_clips <= 0.12 and by_audio <= 0.12
    assert work <= 1.02
    alone = recipes.full()
    alone.same_length_groups = 0
    assert min(measured(alone, devices=8)[:2]) > 0.3, "what updates of one length have"


@pytest.mark.parametrize("words", ["one_gpu", "two_gpus"])
def test_small_updates_mix_the_sets_too(words):
    by_clips, by_audio, _ = measured(configuration.load(f"{recipes.CONFIGS / 'voc125.py'}:{words}"), devices=1)
    assert by_clips <= 0.14 and by_audio <= 0.14


def test_the_benchmark_prints_a_figure_for_each_plan(capsys):
    benchmark.main(["mixing", "--updates=5"])
    figures = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(figures) == 1 + len(mixing.UNITS) and all(0 < f["variation_of_clips"] < 0.6 for f in figures)
    with pytest.raises(errors.InputError, match="--groups=3 do not divide over --devices=2"):
        benchmark.main(["mixing", "--groups=3", "--devices=2"])
