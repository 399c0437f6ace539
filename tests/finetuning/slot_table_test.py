"""Folds move through slots as pure functions say: none is lost, none is trained twice, none jumps the queue."""

import json

import numpy as np
import pytest
import tiny_learners

from voc2vec_jax.finetuning import slot_table

NAN = float("nan")


def table_of(folds, pending=()):
    """Slots that hold these folds; None is a free one."""
    return slot_table.SlotTable(
        tuple(None if fold is None else slot_table.FoldProgress(fold) for fold in folds), tuple(pending)
    )


def folds_of(table):
    return [progress and progress.fold for progress in table.slots]


@pytest.mark.parametrize(
    ("folds", "pending", "after", "left", "given"),
    [
        ([None, None, None], [4, 5], [4, 5, None], (), (0, 1)),
        ([7, None, 9], [4, 5], [7, 4, 9], (5,), (1,)),
        ([7, 8], [4], [7, 8], (4,), ()),
        ([None], [], [None], (), ()),
    ],
)
def test_free_slots_take_the_next_folds_in_order(folds, pending, after, left, given):
    table, places = slot_table.fill(table_of(folds, pending))
    assert (folds_of(table), table.pending, places) == (after, left, given)


@pytest.mark.parametrize(
    ("folds", "pending", "devices", "after", "sources"),
    [
        ([None, 1, None, 3], [], 1, [1, 3], (1, 3)),
        ([None, 1, None, None], [], 2, [1, None], (1,)),
        ([0, None, None, None, None, 5], [], 2, [0, 5], (0, 5)),
        ([None, 1, None, 3], [9], 1, None, None),  # a pending fold will need the slot
        ([0, 1, None, 3], [], 1, None, None),  # less than half of the slots are free
        ([None, None], [], 1, None, None),  # nothing is left to compute
        ([3], [], 1, None, None),
    ],
)
def test_slots_are_dropped_once_half_of_them_are_free(folds, pending, devices, after, sources):
    before = table_of(folds, pending)
    found = slot_table.shrink(before, devices)
    if after is None:
        assert found is None
    else:
        assert (folds_of(found[0]), found[1]) == (after, sources)
        assert len(found[0].slots) % devices == 0 and 2 * len(found[0].slots) <= len(folds)


def test_a_saved_table_resumes_as_it_was():
    history = ({"fold": 2, "epoch": 1, "split": "train", "loss": 0.1},)
    slots = (None, slot_table.FoldProgress(2, 4, 3, 0.5, history), slot_table.FoldProgress(0, 1))
    entries = json.loads(json.dumps(slot_table.entries(slot_table.SlotTable(slots))))
    assert [list(entry) for entry in entries] == [["fold", "epoch", "best_epoch", "best_score", "history", "slot"]] * 2
    table, sources = slot_table.resume(table_of([None] * 3, [0, 1, 2]), entries, set(), 1)
    assert table == slot_table.SlotTable((slots[1], slots[2], None), (1,)) and sources == (1, 2)


def test_a_fold_that_was_finished_after_the_save_is_left_out():
    entries = slot_table.entries(table_of([3, 1]))
    table, sources = slot_table.resume(table_of([None, None], [1]), entries, {3}, 1)
    assert (folds_of(table), table.pending, sources) == ([1, None], (), (1,))


def test_the_table_grows_when_more_folds_are_in_progress_than_it_has_slots():
    entries = slot_table.entries(table_of([0, 1, 2]))
    table, sources = slot_table.resume(table_of([None, None], [0, 1, 2, 3]), entries, set(), 2)
    assert (folds_of(table), table.pending, sources) == ([0, 1, 2, None], (3,), (0, 1, 2))


def test_without_a_checkpoint_all_folds_are_pending():
    before = table_of([None, None], [4, 5])
    assert slot_table.resume(before, [], {1}, 2) == (before, ())


def test_the_best_epoch_is_the_first_with_the_highest_score():
    progress = slot_table.FoldProgress(6)
    for epoch, score in enumerate([0.2, 0.5, 0.5, 0.4], 1):
        progress = slot_table.after_epoch(progress, {"loss": epoch}, {"f1_macro": score}, "f1_macro")
    assert (progress.fold, progress.epoch, progress.best_epoch, progress.best_score) == (6, 4, 2, 0.5)
    assert [row.get("loss") for row in progress.history] == [1, None, 2, None, 3, None, 4, None]
    same = slot_table.after_epoch(progress, {}, {"f1_macro": NAN}, "f1_macro")
    assert same.best_epoch == 2 and same.epoch == 5


@pytest.mark.parametrize(("epoch", "best", "ended"), [(4, 2, False), (5, 2, True), (9, 8, False), (10, 10, True)])
def test_a_fold_ends_after_its_epochs_or_its_patience(epoch, best, ended):
    recipe = tiny_learners.recipe(epochs=10, patience=3)
    assert slot_table.FoldProgress(0, epoch, best).ended(recipe) is ended


@pytest.mark.parametrize(
    ("epoch", "best", "ended"), [(6, 1, False), (7, 1, True), (4, 1, False), (8, 6, False), (9, 6, True), (10, 9, True)]
)
def test_patience_may_count_behind_the_warmup_only(epoch, best, ended):
    recipe = tiny_learners.recipe(epochs=10, patience=3)
    assert slot_table.FoldProgress(0, epoch, best).ended(recipe, warmup_epochs=4) is ended


def test_tables_are_never_changed_in_place():
    before = table_of([0, None, 2, None], [5])
    kept = table_of([0, None, 2, None], [5])
    slot_table.fill(before)
    after = slot_table.release(before, [2])
    assert before == kept and folds_of(after) == [0, None, None, None]
    assert after.folds == (0, 0, 0, 0) and [one.fold for one in after.active] == [0]


def test_every_fold_is_trained_once_whatever_ends_when():
    rng = np.random.default_rng(0)
    for _ in range(50):
        count, slots = int(rng.integers(1, 12)), int(rng.integers(1, 6))
        table, trained = table_of([None] * slots, range(count)), []
        while table.active or table.pending:
            table, given = slot_table.fill(table)
            trained += [table.slots[slot].fold for slot in given]
            table = (slot_table.shrink(table, 1) or (table,))[0]
            busy = [slot for slot, progress in enumerate(table.slots) if progress]
            ended = rng.choice(busy, int(rng.integers(1, len(busy) + 1)), replace=False)
            table = slot_table.release(table, ended.tolist())
        assert trained == list(range(count))


def test_a_line_names_the_folds_of_each_epoch():
    slots = [slot_table.FoldProgress(fold, epoch) for fold, epoch in ((0, 3), (2, 1), (1, 3))]
    assert slot_table.described(slot_table.SlotTable((*slots, None))) == "epoch 1 of fold 2; epoch 3 of folds 0, 1"
