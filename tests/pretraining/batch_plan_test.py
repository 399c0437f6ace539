"""The batch plan: counts, buckets, constant epochs, purity and the split by recording."""

import hashlib
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from voc2vec_jax import errors
from voc2vec_jax.pretraining import batch_layout, batch_plan

HERE, ROOT = pathlib.Path(__file__).parent, pathlib.Path(__file__).parents[2]
BUCKETS = (40, 80, 160)


MIXED = batch_layout.BatchLayout(8, 3, 160, BUCKETS, same_length_groups=2)


def layout(groups=2, group_rows=3):
    """All groups of a step share a bucket."""
    return batch_layout.BatchLayout(groups, group_rows, crop_samples=160, bucket_samples=BUCKETS)


def present(step):
    return step.rows[step.rows != batch_layout.EMPTY]


def buckets(step):
    """The bucket of each group in samples."""
    return [BUCKETS[b] for b in step.bucket]


def corpus(n, seed=0, sets=3, longest=200):
    draw = np.random.default_rng(seed)
    return draw.integers(5, longest, n, dtype=np.int32), draw.integers(0, sets, n, dtype=np.int32)


def make(n=500, weights=None, seed=7, shape=None, rows=None, **kwargs):
    samples, set_index = corpus(n, **kwargs)
    rows = np.arange(n) if rows is None else rows
    drawn = batch_plan.BatchPlan(shape or layout(), samples, set_index, rows, seed=seed, weights=weights)
    return drawn, samples, set_index


def epoch_rows(drawn, epoch):
    first = epoch * drawn.steps_per_epoch
    return [drawn.step(k) for k in range(first, first + drawn.steps_per_epoch)]


@pytest.mark.parametrize("shape", [layout(), MIXED])
@pytest.mark.parametrize("weights", [None, (1, 1, 1), (2.5, 1, 0.3), (3, 0.01, 1)])
def test_every_example_at_least_floor_and_no_more_than_the_fill_adds(weights, shape):
    drawn, _, set_index = make(weights=weights, shape=shape)
    copies = np.asarray(weights or (1, 1, 1), float)[set_index]
    for epoch in range(4):
        steps = epoch_rows(drawn, epoch)
        counts = np.bincount(np.concatenate([present(s) for s in steps]), minlength=len(set_index))
        assert np.all(counts >= np.floor(copies))
        surplus = np.maximum(counts - np.ceil(copies), 0).sum()
        # What fills the last unit, and units that fill the last step: of at most four times the longest rows
        assert surplus <= drawn.fill_rows < drawn.layout.groups * drawn.layout.most_rows
        assert counts.sum() == drawn.rows_per_epoch


def test_fractional_copies_are_dealt_in_turn():
    drawn, _, set_index = make(weights=(0.25, 2.5, 1), n=400)
    expected = np.asarray((0.25, 2.5, 1))[set_index]
    counts = np.zeros(len(set_index))
    for step in (s for epoch in range(8) for s in epoch_rows(drawn, epoch)):
        counts += np.bincount(present(step), minlength=len(set_index))
    # 8 epochs: the fill and the rounding up of each stratum may add a little, the rotation never takes away.
    assert np.all(counts >= np.floor(8 * expected))
    assert counts.sum() <= 8 * (expected.sum() + drawn.fill_rows + 3 * len(BUCKETS))


@pytest.mark.parametrize("shape", [layout(), MIXED])
def test_steps_per_epoch_and_the_mix_of_buckets_are_constant(shape):
    drawn, _, _ = make(weights=(2.5, 1, 0.3), shape=shape)
    orders = [sum(map(buckets, epoch_rows(drawn, epoch)), []) for epoch in range(5)]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert {b: orders[0].count(b) for b in set(orders[0])} == drawn.bucket_groups
    assert len(set(map(tuple, orders))) == 5, "each epoch has an order of its own"


@pytest.mark.parametrize("shape", [layout(), MIXED])
def test_a_unit_holds_one_bucket_and_its_groups_about_equal_audio(shape):
    drawn, samples, _ = make(shape=shape)
    moved = 0
    for step in epoch_rows(drawn, 0):
        assert np.all(step.bucket.reshape(-1, shape.unit) == step.bucket[:: shape.unit, None])
        for bucket, rows in zip(step.bucket, step.rows):
            count = 3 * (160 // BUCKETS[bucket])
            assert np.all(rows[:count] != batch_layout.EMPTY) and np.all(rows[count:] == batch_layout.EMPTY)
            own = shape.bucket_of(samples[rows[:count]])
            assert np.all(own <= bucket)
            moved += np.sum(own < bucket)
    # Only leftovers move up: fewer than a unit of each smaller bucket, and what the last unit is filled with.
    assert moved < sum(map(shape.unit_rows_of, range(3)))


def test_a_clip_goes_to_the_smallest_bucket_that_holds_it():
    samples = np.array([1, 40, 41, 80, 81, 160, 161, 10**6], np.int32)
    np.testing.assert_array_equal(layout().bucket_of(samples), [0, 0, 1, 1, 2, 2, 2, 2])


def test_leftovers_move_up_one_bucket():
    shape = batch_layout.BatchLayout(1, 1, crop_samples=160, bucket_samples=BUCKETS)  # 4, 2 and 1 rows a step
    samples = np.array([10] * 5 + [70, 150], np.int32)
    drawn = batch_plan.BatchPlan(shape, samples, np.zeros(7, np.int32), np.arange(7), seed=0)
    assert drawn.bucket_groups == {40: 1, 80: 1, 160: 1} and drawn.fill_rows == 0
    middle = next(s for s in epoch_rows(drawn, 0) if buckets(s) == [80])
    assert sorted(samples[present(middle)]) == [10, 70]


def test_the_last_step_repeats_no_row_while_others_are_left():
    drawn, _, _ = make(n=50, shape=batch_layout.BatchLayout(1, 8, 160, (160,)))
    assert drawn.fill_rows == 6
    for step in epoch_rows(drawn, 0):
        assert len(set(present(step))) == 8


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_corpus_smaller_than_a_step(n):
    shape = layout(groups=2, group_rows=4)
    samples, rows = np.full(n, 30, np.int32), np.arange(n)
    drawn = batch_plan.BatchPlan(shape, samples, np.zeros(n, np.int32), rows, seed=1)
    assert drawn.steps_per_epoch == 1 and drawn.fill_rows == 32 - n
    step = drawn.step(3)
    assert buckets(step) == [40, 40], "no longer than the longest clip needs"
    counts = np.bincount(present(step), minlength=n)
    assert counts.sum() == 32 and counts.max() - counts.min() <= 1


def test_a_single_bucket():
    drawn, samples, _ = make(shape=batch_layout.BatchLayout(2, 3, 160, (160,)))
    assert drawn.bucket_groups == {160: 2 * -(-500 // 6)}
    assert drawn.samples_per_epoch == np.minimum(samples, 160).sum()


def test_weight_zero_excludes_a_set_and_says_how_many():
    drawn, _, set_index = make(weights=(1, 0, 1))
    seen = np.unique(np.concatenate([present(s) for s in epoch_rows(drawn, 0)]))
    assert not np.any(set_index[seen] == 1)
    assert drawn.excluded_rows == np.sum(set_index == 1) and len(seen) + drawn.excluded_rows == 500


def test_only_the_given_rows_are_drawn():
    rows = np.arange(0, 500, 3)
    drawn, _, _ = make(rows=rows)
    assert set(np.concatenate([present(s) for s in epoch_rows(drawn, 1)])) == set(rows)


def digest(drawn, steps=range(0, 300, 7)):
    total = hashlib.sha256()
    for k in steps:
        step = drawn.step(k)
        total.update(step.rows.tobytes() + step.start_u.tobytes() + step.bucket.tobytes())
    return total.hexdigest()


@pytest.mark.parametrize("shape", ["layout()", "MIXED"])
def test_a_step_is_the_same_in_any_order_and_in_a_fresh_process(shape):
    here = digest(make(weights=(2.5, 1, 0.3), shape=eval(shape))[0])
    backwards, _, _ = make(weights=(2.5, 1, 0.3), shape=eval(shape))
    for k in range(299, -1, -11):
        backwards.step(k)
    assert digest(backwards) == here
    drawn = f"t.make(weights=(2.5, 1, 0.3), shape=t.{shape})[0]"
    code = f"import batch_plan_test as t; print(t.digest({drawn}))"
    fresh = subprocess.run(
        [sys.executable, "-c", code],
        cwd=HERE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert fresh.stdout.strip() == here


def test_the_draw_is_pinned_across_versions():
    # Literal numbers: another NumPy, or a change of the plan, must not change the examples of a resumed run.
    raw = [12556226347673473054, 12010982669567619963, 5068676189509316935, 5238672394560775717]
    step = batch_plan.BatchPlan(batch_layout.BatchLayout(1, 4, 160, (160,)), *corpus(4), np.arange(4), seed=7).step(3)
    np.testing.assert_array_equal(step.start_u, [[(word >> 11) / 2**53 for word in raw]])
    assert step.rows.tolist() == [[1, 2, 0, 3]]


def test_steps_of_one_length_are_those_of_version_0_1_0():
    """Its runs go on with the same clips, crops and order: the hash was made with its code."""
    drawn, _, _ = make(weights=(2.5, 1, 0.3))
    total = hashlib.sha256()
    for k in range(0, 300, 7):
        step = drawn.step(k)
        used = step.rows != batch_layout.EMPTY
        total.update(step.rows[used].tobytes() + step.start_u[used].tobytes() + bytes(buckets(step)[:1]))
    assert total.hexdigest() == "a72813a1d6b9c793bbf352f2cccb0fc2f88f863d438078a9081f29adeee190e4"


def test_a_group_is_a_buffer_of_its_longest_rows():
    assert (MIXED.buffer_samples, MIXED.most_rows, MIXED.unit, MIXED.step_units) == (3 * 160, 12, 2, 4)
    assert [MIXED.unit_rows_of(bucket) for bucket in range(3)] == [24, 12, 6]


@pytest.mark.parametrize("host", [None, (0, 1), (0, 2), (7, 8)])
def test_hosts_take_whole_groups(host):
    batch_layout.check_hosts(MIXED, host)


@pytest.mark.parametrize("host", [(0, 3), (2, 2), (-1, 2), (0, 16)])
def test_groups_that_do_not_divide_over_the_hosts_are_refused(host):
    with pytest.raises(errors.InputError, match=f"8 loss groups do not divide over {host[1]} hosts"):
        batch_layout.check_hosts(MIXED, host)


def test_any_seed_of_64_bits_is_one():
    assert len({make(n=50, seed=seed)[0].step(0).rows.tobytes() for seed in (0, 129, 2**63, 2**64 - 1)}) == 4
    for seed in (-1, 2**64):
        with pytest.raises(errors.InputError, match=f"seed {seed} is outside 0 to 2"):
            make(n=50, seed=seed)


@pytest.mark.parametrize(
    ("counts", "step_units", "filled"),
    [
        ([4, 1, 0], 8, [6, 2, 0]),
        ([4, 1, 0], 5, [4, 1, 0]),
        ([3, 3, 3], 10, [4, 3, 3]),
        ([1, 0, 9], 16, [2, 0, 14]),
    ],
)
def test_the_last_step_is_filled_in_proportion_by_largest_remainders(counts, step_units, filled):
    assert batch_plan._filled(np.array(counts), step_units).tolist() == filled


def test_seeds_and_epochs_differ():
    one, two = make(seed=1)[0], make(seed=2)[0]
    assert digest(one) != digest(two)
    first, second = (np.concatenate([present(s) for s in epoch_rows(one, e)]) for e in (0, 1))
    assert not np.array_equal(first, second)


def test_start_u_is_uniform_and_keyed_by_row():
    drawn, _, _ = make(n=2000)
    steps = [drawn.step(k) for k in range(3 * drawn.steps_per_epoch)]
    u = np.concatenate([step.start_u[step.rows != batch_layout.EMPTY] for step in steps])
    assert u.min() >= 0 and u.max() < 1 and len(np.unique(u)) == len(u)
    np.testing.assert_allclose(np.histogram(u, 10, (0, 1))[0] / len(u), 0.1, atol=0.02)


def test_crops_stay_inside_and_reach_both_ends():
    samples = np.array([100, 160, 163, 5000], np.int32)
    rows = np.tile(np.arange(4), 2000)
    u = np.linspace(0, 1, len(rows), endpoint=False)
    shape = batch_layout.BatchLayout(1, 8000, 160, (160,))
    step = batch_layout.StepRows(rows[None], u[None], np.zeros(1, int))
    start, length = (x[0] for x in batch_layout.crops(shape, step, samples))
    np.testing.assert_array_equal(length, np.minimum(samples, 160)[rows])
    assert start.min() == 0 and np.all(start + length <= samples[rows])
    assert set(start[rows == 2]) == {0, 1, 2, 3} and set(start[rows < 2]) == {0}


def test_crop_batching_cuts_each_group_to_its_shortest():
    samples = np.array([100, 160, 163, 90, 120, 30], np.int32)
    rows = np.array([[0, 1, 2], [3, 4, batch_layout.EMPTY], [2, 4, 0]])
    step = batch_layout.StepRows(rows, np.full((3, 3), 0.999999), np.array([2, 2, 1]))
    start, length = batch_layout.crops(layout(3, 1), step, samples, batching="crop")
    np.testing.assert_array_equal(length, [[100, 100, 100], [90, 90, 0], [80, 80, 80]])
    np.testing.assert_array_equal(start, [[0, 60, 63], [0, 30, 0], [83, 40, 20]])


@pytest.mark.parametrize("shape", [layout(), MIXED])
@pytest.mark.parametrize("last", [40, 120])
def test_validation_has_every_row_once_and_empty_rows_last(shape, last):
    samples, _ = corpus(123)
    rows = np.arange(3, last)
    fixed = batch_plan.ValidationPlan(shape, samples, rows)
    steps = [fixed.step(k) for k in range(fixed.steps_per_epoch)]
    np.testing.assert_array_equal(np.sort(np.concatenate([present(s) for s in steps])), rows)
    groups = [(b, g) for s in steps for b, g in zip(s.bucket.tolist(), s.rows)]
    assert [b for b, _ in groups] == sorted(b for b, _ in groups), "shortest bucket first"
    assert all(np.all(samples[g[g >= 0]] <= BUCKETS[b]) for b, g in groups if b < 2)
    places = np.concatenate([g[: shape.group_rows_of(b)] for b, g in groups])
    assert np.all(np.diff(places == batch_layout.EMPTY) >= 0), "no row comes behind an empty one"
    assert np.sum(places == batch_layout.EMPTY) < shape.groups * shape.group_rows
    assert all(np.all(s.start_u == 0) for s in steps)


def test_validation_of_nothing_has_no_step():
    samples, _ = corpus(10)
    assert batch_plan.ValidationPlan(layout(), samples, np.zeros(0, np.int64)).steps_per_epoch == 0


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_split_keeps_recordings_whole_and_takes_about_the_share_of_every_set(share):
    draw = np.random.default_rng(3)
    recording = np.sort(draw.integers(0, 400, 2000))
    set_index = np.searchsorted([150, 170], recording, side="right").astype(np.int32)
    train, valid = batch_plan.split_rows(recording, set_index, share, seed=5)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, valid])), np.arange(2000))
    assert not set(recording[train]) & set(recording[valid])
    assert abs(len(valid) / 2000 - share) < 0.005
    for number in range(3):
        of_set = np.mean(set_index[valid] == number) * len(valid) / np.sum(set_index == number)
        assert abs(of_set - share) < 0.06
    again = batch_plan.split_rows(recording, set_index, share, seed=5)
    np.testing.assert_array_equal(again[1], valid)
    assert not np.array_equal(batch_plan.split_rows(recording, set_index, share, seed=6)[1], valid)


def test_split_leaves_a_recording_on_each_side():
    recording, set_index = np.array([0] * 99 + [1]), np.zeros(100, np.int32)
    for share in (0.001, 0.5, 0.999):
        train, valid = batch_plan.split_rows(recording, set_index, share, seed=0)
        assert len(train) and len(valid)
    train, valid = batch_plan.split_rows(recording, set_index, 0.0, seed=0)
    assert len(train) == 100 and len(valid) == 0


@pytest.mark.parametrize("share, recordings", [(1.0, 4), (-0.1, 4), (0.1, 1)])
def test_split_refuses(share, recordings):
    recording = np.arange(12) % recordings
    with pytest.raises(errors.InputError, match="validation"):
        batch_plan.split_rows(recording, np.zeros(12, np.int32), share, seed=0)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(groups=0), "groups is 0"),
        (dict(group_rows=-1), "group_rows is -1"),
        (dict(bucket_samples=(80, 40, 160)), "must ascend"),
        (dict(bucket_samples=(40, 80)), "end in crop_samples 160"),
        (dict(bucket_samples=()), "end in crop_samples 160"),
        (dict(weights=(1, 1)), "2 mixing weights for 3 sets"),
        (dict(weights=(1, -1, 1)), "at least 0"),
        (dict(weights=(1, np.nan, 1)), "finite"),
        (dict(weights=(0, 0, 0)), "no example"),
        (dict(seed=-1), "seed -1"),
    ],
)
def test_bad_settings_are_named(change, message):
    fields = dict(groups=1, group_rows=1, crop_samples=160, bucket_samples=BUCKETS)
    shape = fields | {name: value for name, value in change.items() if name in fields}
    draw = dict(seed=0, weights=None) | {name: value for name, value in change.items() if name not in fields}
    with pytest.raises(errors.InputError, match=message):
        batch_plan.BatchPlan(batch_layout.BatchLayout(**shape), *corpus(100), np.arange(100), **draw)
