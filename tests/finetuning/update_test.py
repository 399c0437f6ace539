"""A step of a fold, with a learner of a few numbers: what it draws from, what stands still, what is kept."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_learners

from voc2vec_jax.finetuning import batches
from voc2vec_jax.finetuning import engine as fold_engine

DATA = np.array([1.0, 2.0, 4.0, 8.0], np.float32)
ROWS = np.array([2, 0, 3, batches.EMPTY], np.int32)


class Line:
    """Loss of a clip: encoder * its number + head * one draw of the step. The encoder's rate may be half the fold's."""

    def __init__(self, halved=False):
        self._rates = {"encoder": {"w": 0.5}, "head": {"w": 1.0}} if halved else None

    def init(self, key):
        first, second = jax.random.split(key)
        return {"encoder": {"w": jax.random.normal(first)}, "head": {"w": jax.random.normal(second)}}

    def rates(self, params):
        return self._rates

    def loss(self, params, fold, data, rows, key):
        one = params["encoder"]["w"] * data[rows] + params["head"]["w"] * jax.random.uniform(key)
        return jnp.where(rows >= 0, one, 0).sum(), (rows >= 0).sum()

    def outputs(self, params, fold, data, rows):
        return jnp.zeros((len(rows), 2)), jnp.zeros((len(rows), 1))


@functools.cache
def programs(halved, freeze_updates):
    """The compiled start and step of a fold."""
    shape = {"peak_lr": 0.5, "warmup_steps": 2, "short_warmup": False, "clip_norm": 0.0, "seed": 6}
    decay = 0.1 if freeze_updates else 0.0
    recipe = tiny_learners.recipe(**shape, freeze_updates=freeze_updates, weight_decay=decay)
    parts = fold_engine.start, fold_engine.update
    return [jax.jit(functools.partial(part, Line(halved), recipe)) for part in parts]


def stepped(fold=0, steps=1, rows=ROWS, total=10, halved=False, freeze_updates=0):
    """The states before and after each of some steps, and their losses."""
    start, step = programs(halved, freeze_updates)
    states, losses = [start(fold)], []
    for _ in range(steps):
        own = {"number": np.int32(fold), "total_steps": np.int32(total)}
        state, loss = step(states[-1], own, jnp.asarray(DATA), rows)
        states.append(state)
        losses.append(float(loss))
    return jax.device_get(states), losses


@pytest.mark.parametrize("fold", [0, 3])
def test_a_step_draws_by_seed_fold_and_number_and_its_loss_is_a_mean_over_clips(fold):
    states, losses = stepped(fold, steps=2)
    for number, (state, loss) in enumerate(zip(states, losses)):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(6), fold), number)
        encoder, head = state.params["encoder"]["w"], state.params["head"]["w"]
        assert loss == pytest.approx(encoder * DATA[[2, 0, 3]].mean() + head * float(jax.random.uniform(key)), rel=1e-5)
    assert [int(state.steps) for state in states] == [0, 1, 2]
    start = Line().init(jax.random.fold_in(jax.random.key(6), fold))
    assert states[0].params == states[0].best == states[2].best == jax.device_get(start)


def test_a_batch_without_clips_leaves_everything_as_it_was():
    (before, after), losses = stepped(rows=np.full(4, batches.EMPTY, np.int32))
    assert losses == [0]
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_a_parameters_own_rate_multiplies_the_folds():
    """Adam's first step is as long as the rate; the warm-up begins at 0, so the second step is the first that moves."""
    one, _ = stepped(steps=2)
    other, _ = stepped(steps=2, halved=True)
    for part, factor in (("encoder", 0.5), ("head", 1.0)):
        moved = [states[2].params[part]["w"] - states[0].params[part]["w"] for states in (one, other)]
        assert moved[1] == pytest.approx(factor * moved[0], rel=1e-5) and moved[0] < 0
    assert one[1].params == one[0].params


def test_held_parameters_stand_still_and_then_begin_as_if_at_their_first_update():
    states, _ = stepped(steps=5, freeze_updates=3)
    encoder, head = ([float(state.params[part]["w"]) for state in states] for part in ("encoder", "head"))
    assert encoder[:4] == [encoder[0]] * 4 and len(set(head)) == 5  # the head's rate is 0 at first
    # After three updates of ten, the warm-up of two among them, the rate is 7 / 8 of the peak.
    # AdamW's first step is then that long, and the decay of .1 w longer.
    assert encoder[4] - encoder[3] == pytest.approx(-0.5 * 7 / 8 * (1 + 0.1 * encoder[3]), rel=1e-4)


def test_only_better_slots_keep_their_parameters():
    old, new = np.zeros((3, 2), np.float32), np.arange(6, dtype=np.float32).reshape(3, 2)
    state = fold_engine.FoldState({"w": new}, (), np.zeros(3, np.int32), {"w": old})
    found = fold_engine._keep(state, jnp.array([True, False, True]))
    assert found.best["w"].tolist() == [[0, 1], [0, 0], [4, 5]]
    assert found.params["w"] is new
