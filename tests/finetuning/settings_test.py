"""When a fold ends: by its epochs or its patience, to the epoch, with the warm-up that its own length gives."""

import numpy as np
import pytest
import tiny_learners

from voc2vec_jax.finetuning import folds, settings, slot_table, tasks
from voc2vec_jax.runs import configuration


def setting_of(clips, **recipe):
    """A setting with one fold for each number of training clips, of what the methods below look at."""
    made = object.__new__(settings.CrossValidationSetting)
    nothing = np.zeros(0, np.int64)
    object.__setattr__(made, "recipe", tiny_learners.recipe(batch_clips=4, **recipe))
    object.__setattr__(made, "splits", [folds.FoldSplit(np.arange(n), nothing, nothing) for n in clips])
    return made


def ends(setting, best, fold=0):
    """The epoch in which a fold ends whose epoch `best` was the best."""
    return next(e for e in range(best, 99) if setting.ended(slot_table.FoldProgress(fold, e, best)))


def test_an_epoch_ends_with_a_batch_that_is_not_full():
    setting = setting_of([16, 17], epochs=10)
    assert [setting.epoch_steps(fold) for fold in (0, 1)] == [4, 5]
    assert [setting.total_steps(fold) for fold in (0, 1)] == [40, 50]


@pytest.mark.parametrize("best, ended", [(1, 4), (5, 8), (17, 20), (18, 20), (20, 20)])
def test_a_fold_ends_when_its_patience_is_over(best, ended):
    assert ends(setting_of([16], epochs=20, patience=3, warmup_steps=9, short_warmup=False), best) == ended


@pytest.mark.parametrize("warmup, ended", [(0, 4), (4, 4), (5, 5), (8, 5), (9, 6), (12, 6)])
def test_patience_begins_behind_the_epoch_in_which_a_short_warmup_ends(warmup, ended):
    """Epochs of 4 updates: a warm-up of 5 of them lasts into the second."""
    setting = setting_of([16], epochs=40, patience=3, warmup_steps=warmup, short_warmup=True)
    assert ends(setting, 1) == ended


def test_a_short_warmup_is_of_the_folds_own_length():
    setting = setting_of([4, 400], epochs=40, patience=3, warmup_steps=300, short_warmup=True)
    assert [setting.warmup_steps(fold) for fold in (0, 1)] == [4, 300]
    assert [ends(setting, 1, fold) for fold in (0, 1)] == [4 + 3, 3 + 3]


@pytest.mark.parametrize("best, inside", [(1, True), (2, True), (3, False), (9, False)])
def test_a_best_epoch_that_ended_before_the_peak_is_told(best, inside):
    setting = setting_of([16], epochs=40, warmup_steps=12, short_warmup=True)
    assert setting.best_in_warmup(slot_table.FoldProgress(0, 20, best)) is inside


@pytest.mark.parametrize(
    ("asked", "sampling", "weighted"),
    [(True, "all", True), (True, "balanced", False), (False, "all", False), (False, "balanced", False)],
)
def test_balanced_epochs_are_not_weighted_besides(asked, sampling, weighted, monkeypatch):
    said = []
    monkeypatch.setattr(settings.logs, "say", said.append)
    config = configuration.load(f"{tiny_learners.CONFIG}:synthetic")
    config.class_weights, config.sampling = asked, sampling
    assert settings.weighs_classes(config) is weighted
    assert len(said) == (asked and not weighted)


@pytest.mark.parametrize(
    ("lengths", "protocol", "shapes", "stratified"),
    [
        ([4000] * 8, "strict", ((4, 4000),), False),
        (
            [1000, 1000, 1000, 2000, 2000, 3000, 4000, 4000],
            "strict",
            ((1, 4000), (1, 3000), (1, 2000), (1, 1000)),
            True,
        ),
        ([1000] * 4 + [4000] * 4, "strict", ((2, 4000), (2, 1000)), True),
        ([1000] * 4 + [4000] * 4, "paper", ((4, 16_000),), False),
    ],
)
def test_batches_cut_into_several_shapes_hold_a_clip_of_each_stratum(lengths, protocol, shapes, stratified):
    """Otherwise a long clip could come to lie in the row of a short one."""
    config = configuration.load(f"{tiny_learners.CONFIG}:synthetic")
    config.protocol, config.batch_clips, config.max_seconds = protocol, 4, 1.0
    task = object.__new__(tasks.Task)
    object.__setattr__(task, "samples", np.array(lengths, np.int32))
    split = folds.FoldSplit(*[np.arange(8)] * 3)
    assert settings.batch_shapes(config, task, [split], 1000) == (shapes, stratified)
