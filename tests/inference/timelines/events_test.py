"""Where a class is heard, from the probabilities of windows."""

import numpy as np
import pytest

from voc2vec_jax import errors
from voc2vec_jax.inference.timelines import events

CLASSES = ("cry", "laugh")


def found(cry, **rules):
    """(start, end) of the events of `cry`, whose values hold for a second each."""
    at = np.arange(len(cry) + 1.0)
    chances = np.stack([np.array(cry), np.zeros(len(cry))], 1).astype(np.float32)
    return [(event.start, event.end) for event in events.find(at, chances, CLASSES, events.Rules(**rules))]


def test_a_window_holds_midway_to_the_centres_of_its_neighbours():
    starts, ends = np.array([0.0, 1.0, 2.0, 2.5]), np.array([2.0, 3.0, 4.0, 4.5])
    np.testing.assert_allclose(events.edges(starts, ends, 4.5), [0, 1.5, 2.5, 3.25, 4.5])
    np.testing.assert_allclose(events.edges(starts[:1], ends[:1], 2.0), [0, 2])


@pytest.mark.parametrize(
    ("cry", "rules", "spans"),
    [
        ([0.1, 0.6, 0.1], {}, [(1, 2)]),
        ([0.6, 0.4, 0.4, 0.3], {}, [(0, 3)]),  # it lasts while .35 is reached
        ([0.4, 0.6, 0.4], {"release": 0.5}, [(1, 2)]),
        ([0.4, 0.4, 0.4], {}, []),  # the threshold is never reached
        ([0.6, 0.1, 0.6], {}, [(0, 1), (2, 3)]),
        ([0.6, 0.1, 0.6], {"gap_seconds": 1.0}, [(0, 3)]),
        ([0.6, 0.1, 0.4, 0.1, 0.6], {"gap_seconds": 1.5}, [(0, 1), (4, 5)]),  # what is no event bridges no gap
        ([0.6, 0.1, 0.6], {"least_seconds": 1.5}, []),
        ([0.6, 0.1, 0.6], {"least_seconds": 1.5, "gap_seconds": 1.0}, [(0, 3)]),
        ([0.5, 0.499], {"release": 0.5}, [(0, 1)]),
        ([0.9, 0.9], {"background": ("cry",)}, []),
    ],
)
def test_threshold_hysteresis_gaps_and_least_duration(cry, rules, spans):
    assert found(cry, **rules) == spans


def test_an_event_has_its_highest_and_its_mean_probability_over_time():
    at = np.array([0.0, 1.0, 4.0, 5.0])
    chances = np.array([[0.5, 0.5], [1.0, 0], [0, 0]], np.float32)
    laugh, cry = events.find(at, chances, CLASSES, events.Rules())
    assert cry == events.Event(0.0, 4.0, "cry", 1.0, pytest.approx(3.5 / 4))
    assert laugh[:4] == (0.0, 1.0, "laugh", 0.5)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"threshold": 0.0}, "--threshold=0 is no probability"),
        ({"threshold": 1.5}, "--threshold=1.5 is no probability"),
        ({"release": 0.6}, "--release=0.6: an event ends at a probability above 0, at most --threshold=0.5"),
        ({"gap_seconds": -1.0}, "--gap_seconds=-1: give seconds, 0 or more"),
        ({"least_seconds": float("nan")}, "--least_seconds=nan: give seconds"),
        ({"background": ("noise",)}, r"--background=noise is none of the model's classes \(cry, laugh\)"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rules, said):
    with pytest.raises(errors.InputError, match=said):
        events.check(events.Rules(**rules), CLASSES)
    events.check(events.Rules(), CLASSES)
