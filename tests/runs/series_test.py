"""Curves are thinned to a bounded number of stretches, which keep every mean and every extreme."""

import numpy as np
import pytest

from voc2vec_jax.runs import series


def thinned(steps, values):
    found = series.Series()
    for step, value in zip(steps, values):
        found.add(step, value)
    return found.points()


@pytest.mark.parametrize("count", [1, series.CAPACITY, series.CAPACITY + 1, 5 * series.CAPACITY + 7])
def test_stretches_are_of_equal_width_and_say_what_the_values_in_them_say(count):
    steps = np.arange(1, count + 1)
    values = np.random.default_rng(0).normal(size=count)
    points = thinned(steps.tolist(), values.tolist())
    width = 1
    while count // width + 1 > series.CAPACITY + (width == 1):
        width *= 2
    starts = np.flatnonzero(np.diff(steps // width, prepend=-1))
    counts = np.diff(starts, append=count)
    assert len(points.steps) == len(starts) <= series.CAPACITY
    np.testing.assert_array_equal(points.counts, counts)
    np.testing.assert_allclose(points.steps, np.add.reduceat(steps, starts) / counts)
    np.testing.assert_allclose(points.values, np.add.reduceat(values, starts) / counts, atol=1e-12)
    np.testing.assert_array_equal(points.low, np.minimum.reduceat(values, starts))
    np.testing.assert_array_equal(points.high, np.maximum.reduceat(values, starts))


def test_values_far_apart_stay_exact_and_are_joined_when_they_are_too_many():
    steps = (1000 * np.arange(1, series.CAPACITY + 1)).tolist()
    points = thinned(steps, steps)
    assert points.steps.tolist() == points.values.tolist() == steps
    # The first width that joins any is 1024; one more value must not be lost.
    points = thinned([*steps, steps[-1] + 1000], [*steps, steps[-1] + 1000])
    assert len(points.steps) <= series.CAPACITY and points.counts.sum() == series.CAPACITY + 1
    assert points.high[-1] == steps[-1] + 1000


def test_a_recorder_tells_splits_apart_and_skips_what_is_no_number():
    rows = [
        {"step": 1, "loss": 3.0, "bad": True, "clips": ["a"], "note": "x", "lr": None},
        {"step": 1, "split": "validation", "loss": 4},
        {"step": 2, "loss": float("nan")},
    ]
    history = series.Recorder(rows).history()
    assert set(history.points) == {("train", "loss"), ("validation", "loss")}
    assert history.of("train", "loss").values.tolist() == [3.0]
    assert history.of("validation", "loss").values.tolist() == [4.0]
    assert history.of("train", "lr").values.tolist() == []
    assert (history.rows, history.last_step) == ({"train": 2, "validation": 1}, {"train": 2, "validation": 1})


def test_a_history_does_not_change_while_rows_go_on_coming():
    recorder = series.Recorder([{"step": 1, "loss": 3.0}])
    history = recorder.history()
    recorder.add({"step": 2, "loss": 5.0})
    assert history.of("train", "loss").values.tolist() == [3.0] and history.rows == {"train": 1}


def test_gaps_are_bounded_and_counted_to_the_last_step():
    recorder = series.Recorder({"step": step} for step in range(2, 1001, 2))
    recorder.add({"step": 1000, "split": "validation"})
    history = recorder.history()
    assert (history.lost, len(history.gaps)) == (500, series.MOST_GAPS)
    assert (history.gaps[0], history.gaps[-1]) == ((1, 1), (2 * series.MOST_GAPS - 1, 999))
