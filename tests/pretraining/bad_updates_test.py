"""An update whose loss or gradient is not finite changes nothing and names its loss groups, on any devices."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_config

from voc2vec_jax import audio, errors
from voc2vec_jax.ops import optim
from voc2vec_jax.pretraining import bad_updates, batch_layout, data
from voc2vec_jax.pretraining import recipe as pretraining_recipe
from voc2vec_jax.pretraining import step as training_step
from voc2vec_jax.runs import sharding

GROUPS, ROWS, SAMPLES = 8, 2, 4000
LAYOUT = batch_layout.BatchLayout(GROUPS, ROWS, SAMPLES, (SAMPLES,))
PLANTED = -32768  # a sample that the tests read as NaN: int16 holds none
CONFIG = tiny_config.get_config()
FAMILY, MODEL = pretraining_recipe.build_model(CONFIG)
SCHEDULE = optim.linear_schedule(1e-3, 10, 0.0)
ADAM = optim.fairseq_adam(SCHEDULE, b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.01, clip_norm=0.0)
# (devices, fsdp, micro-batches); the groups that are computed together with group 3
WAYS = {"one": ((1, 1, 1), range(8)), "eight": ((8, 1, 1), [3]), "fsdp and accumulate": ((2, 2, 4), [3])}


@pytest.fixture
def planted(monkeypatch):
    plain = audio.from_int16
    monkeypatch.setattr(audio, "from_int16", lambda x: jnp.where(x == PLANTED, jnp.nan, plain(x)))


def batch_of(seed, bad=False):
    rng = np.random.default_rng(seed)
    clips = rng.normal(0, 3000, (GROUPS, ROWS, SAMPLES)).astype(np.int16)
    if bad:
        clips[3, 1, 17] = PLANTED
    lengths = np.full((GROUPS, ROWS), SAMPLES, np.int32)
    return {"audio": clips.reshape(GROUPS, -1), "lengths": lengths, "bucket": np.zeros(GROUPS, np.int32)}


def updates(way, batches, **options):
    """States and rows, on the host, after each of some batches."""
    devices, fsdp, micros = way
    mesh = sharding.make_mesh(fsdp, jax.devices()[:devices])
    rules = [(pattern, None if axis < 0 else axis) for pattern, axis in CONFIG.sharding_rules]
    init = functools.partial(training_step.init_state, FAMILY, MODEL, ADAM, 0, ema=True)
    places = sharding.shard_tree(jax.eval_shape(init), mesh, rules)
    state = jax.jit(init, out_shardings=places)()
    update = training_step.make_update(
        FAMILY, MODEL, ADAM, SCHEDULE, LAYOUT, mesh, rules, seed=7, equal_masks=False, ema_decay=0.9, **options
    )  # fmt: skip
    update = jax.jit(update, out_shardings=(places, sharding.replicated(mesh)))
    for batch in batches:
        batch = {name: x.reshape(mesh.size, micros, -1, *x.shape[1:]) for name, x in batch.items()}
        state, row = update(state, jax.device_put(batch, sharding.over_batch(mesh, 0)))
        yield jax.device_get(state), jax.device_get(row)


def assert_same(state, wanted):
    assert jax.tree.structure(state) == jax.tree.structure(wanted)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(wanted)))


class Clips:
    """A plan of two groups of three rows, the last of them empty, over clips that are named by their rows."""

    def __init__(self):
        rows = np.array([[7, 5, 5], [2, batch_layout.EMPTY, 5]])
        step = batch_layout.StepRows(rows, np.zeros(rows.shape), np.zeros(2, np.int64))
        self.plan = types.SimpleNamespace(step=lambda k: step)
        self.corpus = types.SimpleNamespace(ids=lambda row: f"x/{row}")


def listed(tmp_path, start_step=0):
    """As `BadUpdates`, of `Clips`."""
    examples = object.__new__(data.Examples)
    for name, value in vars(Clips()).items():
        object.__setattr__(examples, name, value)
    return bad_updates.BadUpdates(tmp_path, examples, start_step)


@pytest.mark.parametrize("marked, rows", [([1, 0], [5, 7]), ([0, 2], [2, 5]), ([1, 1], [2, 5, 7]), ([0, 0], [2, 5, 7])])
def test_the_clips_of_marked_groups_are_named_and_of_all_where_none_is(tmp_path, marked, rows):
    assert listed(tmp_path).clips(4, np.array(marked, np.float32)) == [f"x/{row}" for row in rows]


def test_the_list_of_clips_goes_on_from_the_step_of_a_resume(tmp_path, capsys):
    bad = listed(tmp_path)
    bad.add(3, {"loss": np.nan, "bad_in_row": 1.0}, ["x/1", "x/2", "x/3"])
    bad.add(9, {"loss": 1.5, "bad_in_row": 2.0}, ["x/1", "x/2", "x/3", "x/4"])
    told = capsys.readouterr().err
    assert "step 3: the loss is not finite" in told and "(1 in a row)" in told and "3 clips: x/1, x/2, x/3\n" in told
    assert "step 9: the gradient is not" in told and "(2 in a row)" in told and "4 clips: x/1, x/2, x/3, ...\n" in told
    path = tmp_path / bad_updates.LISTED
    before = path.read_text()
    assert before.splitlines() == ["id,step", *(f"x/{k},3" for k in (1, 2, 3)), *(f"x/{k},9" for k in (1, 2, 3, 4))]
    listed(tmp_path, 9)
    assert path.read_text() == before
    listed(tmp_path, 8)
    assert path.read_text().splitlines() == ["id,step", "x/1,3", "x/2,3", "x/3,3"]
    path.write_text("id,step\nx/1,three\n")
    with pytest.raises(errors.InputError, match="is no list of bad clips .*: remove it"):
        listed(tmp_path, 8)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "one")) for name in WAYS])
def test_a_bad_update_changes_nothing_and_names_its_groups(name, planted):
    way, together = WAYS[name]
    (before, good), (after, bad), (end, row) = updates(way, [batch_of(0), batch_of(1, bad=True), batch_of(2)])
    assert (good["bad_in_row"], bad["bad_in_row"], row["bad_in_row"]) == (0, 1, 0)
    assert before["step"] == 1 and np.isfinite(row["loss"]) and not np.isfinite(bad["loss"])
    assert_same(after, {**before, "bad_in_row": np.int32(1)})
    assert np.flatnonzero(bad["bad_groups"]).tolist() == list(together)
    assert not good["bad_groups"].any() and not row["bad_groups"].any()
    without = list(updates(way, [batch_of(0), batch_of(2)]))
    assert_same(end, without[-1][0])


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_counts_too(monkeypatch):
    plain = FAMILY.loss_fn

    def loss_fn(config, params, *rest, **options):
        loss, weight, sums = plain(config, params, *rest, **options)
        # sqrt has an infinite slope at 0: the loss is finite, the gradient is not
        return loss + jnp.sqrt(0 * jnp.sum(params["quantizer"]["codebook"])), weight, sums

    monkeypatch.setattr(FAMILY, "loss_fn", loss_fn)
    ((state, row),) = updates((1, 1, 1), [batch_of(0)])
    assert row["bad_in_row"] == 1 and np.isfinite(row["loss"]) and not row["bad_groups"].any()
    assert state["step"] == 0
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state["params"]))


@pytest.mark.slow
def test_after_the_last_bad_update_allowed_nothing_changes_any_more(planted):
    bad, good = batch_of(1, bad=True), batch_of(2)
    states, rows = zip(*updates((1, 1, 1), [batch_of(0), bad, bad, good, bad], max_bad=2))
    assert [int(row["bad_in_row"]) for row in rows] == [0, 1, 2, 2, 2]
    assert_same(states[-1], {**states[0], "bad_in_row": np.int32(2)})
