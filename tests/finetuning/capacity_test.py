"""As many folds at once as memory allows: never more."""

import jax
import numpy as np
import pytest
import tiny_learners

from voc2vec_jax.datasets import resident
from voc2vec_jax.finetuning import capacity
from voc2vec_jax.finetuning import engine as fold_engine


@pytest.mark.parametrize("axis", ["map", "vmap"])
def test_the_folds_that_fit_fit_and_one_more_would_not(axis):
    for free in (10**9, 24 * 10**9, 139 * 10**9):
        for state, step in ((3 * 10**6, 10**8), (15 * 10**8, 9 * 10**9)):
            n = capacity.fitting(free, state, step, axis)

            def needed(n, state=state, step=step):
                return 2 * n * state + (step if axis == "map" else n * step)

            assert n >= 1 and (n == 1 or needed(n) <= capacity.SHARE * free) and needed(n + 1) > capacity.SHARE * free


def test_folds_on_cpus_take_twice_their_state_of_a_share_of_the_memory():
    assert [capacity.fitting_on_cpu(free, 10**8) for free in (0, 10**9, 15 * 10**8, 10**10)] == [1, 2, 3, 20]


@pytest.mark.slow
def test_a_step_is_measured_and_grows_with_its_audio():
    clips = tiny_learners.Clips(8)
    kept = resident.Resident(clips, np.arange(8))
    data = {"blocks": kept.blocks, "block_start": kept.block_start, "samples": clips.samples, "labels": clips.labels}
    fold = {"number": np.int32(0), "total_steps": np.int32(9), "class_weights": np.ones(3, np.float32)}
    recipe = tiny_learners.recipe(batch_clips=4)
    found = []
    for samples in (2400, 9600):
        learner = tiny_learners.tiny_learner(((4, samples),))
        state = jax.eval_shape(lambda learner=learner: fold_engine.start(learner, recipe, 0))
        found.append(capacity.step_bytes(learner, recipe, state, fold, data, jax.devices()[0]))
    # at least the 4 clips after the first convolution of 8 channels, in float32
    assert found[0] > 4 * 2400 / 5 * 8 * 4
    assert found[1] > 2.5 * found[0]
