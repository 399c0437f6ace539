"""Which fold sits in which slot, as pure functions: a table in, a new table out, no arrays of the device.

    slot     0    1    2    3
    fold     0    1    4    -      pending: none
    epoch    7    7    2

Folds 0 to 3 began in four slots. When folds 2 and 3 ended, fold 4 took slot 2, and slot 3 stayed free.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from voc2vec_jax.finetuning import engine as fold_engine


@dataclasses.dataclass(frozen=True)
class FoldProgress:
    """Where a fold in a slot stands. The fields are those that a checkpoint's metadata holds."""

    fold: int
    epoch: int = 0  # completed
    best_epoch: int = 0
    best_score: float = -1.0
    history: tuple[Mapping[str, Any], ...] = ()  # two rows an epoch: split "train", then split "validation"

    def ended(self, recipe: fold_engine.FineTuningRecipe, warmup_epochs: int = 0) -> bool:
        """Whether all epochs are done, or too many have passed since the best one.

        Of the first `warmup_epochs` none counts as passed.
        """
        # patience 2, the best is epoch 3:   epoch 4: 1 without improvement   epoch 5: 2, the fold ends
        # the same, warm-up of 4 epochs:     epoch 5: 1 behind the warm-up    epoch 6: 2, the fold ends
        return self.epoch >= recipe.epochs or self.epoch - max(self.best_epoch, warmup_epochs) >= recipe.patience


@dataclasses.dataclass(frozen=True)
class SlotTable:
    """The fold in each slot, None in a free one, and the folds that wait for a slot."""

    slots: tuple[FoldProgress | None, ...]
    pending: tuple[int, ...] = ()

    @property
    def active(self) -> tuple[FoldProgress, ...]:
        """The folds in slots, slot by slot."""
        return tuple(progress for progress in self.slots if progress)

    @property
    def folds(self) -> tuple[int, ...]:
        """The fold of each slot; a free slot repeats fold 0, since arrays of the device have no gaps."""
        return tuple(progress.fold if progress else 0 for progress in self.slots)


def fill(table: SlotTable) -> tuple[SlotTable, tuple[int, ...]]:
    """Give free slots to pending folds; also returns the slots that were given."""
    free = [slot for slot, progress in enumerate(table.slots) if progress is None]
    given = tuple(free[: len(table.pending)])
    slots = list(table.slots)
    for slot, fold in zip(given, table.pending):
        slots[slot] = FoldProgress(fold)
    return SlotTable(tuple(slots), table.pending[len(given) :]), given


def shrink(table: SlotTable, devices: int) -> tuple[SlotTable, tuple[int, ...]] | None:
    """Drop free slots once half of them are free; None while that is not so.

    Also returns the old slot of each fold that stays. The number of slots stays a multiple of `devices`.
    """
    # Half and not each: every new number of slots compiles all programs once more.
    active = [slot for slot, progress in enumerate(table.slots) if progress]
    # Slots 8, devices 2, active 3:   two slots a device hold them, and 2 * 2 * 2 <= 8, so go on with four.
    each = -(-len(active) // devices)
    if table.pending or not active or 2 * each * devices > len(table.slots):
        return None
    free = (None,) * (each * devices - len(active))
    return SlotTable((*(table.slots[slot] for slot in active), *free)), tuple(active)


def resume(
    table: SlotTable, entries: Sequence[Mapping[str, Any]], done: Collection[int], devices: int
) -> tuple[SlotTable, tuple[int, ...]]:
    """Put the folds of a checkpoint's `entries` back into slots; also returns where each was when it was saved.

    An entry is a `FoldProgress` and its "slot". Folds that were finished after the save are left out. The table grows
    to hold all entries, to a multiple of `devices`.
    """
    kept = [dict(entry) for entry in entries if entry["fold"] not in done]
    sources = tuple(entry.pop("slot") for entry in kept)
    back = [FoldProgress(**{**entry, "history": tuple(entry["history"])}) for entry in kept]
    count = len(table.slots) if len(back) <= len(table.slots) else -(-len(back) // devices) * devices
    folds = {progress.fold for progress in back}
    # A fold in progress is not done, so that it is among the pending ones of a new table too.
    pending = tuple(fold for fold in table.pending if fold not in folds)
    return SlotTable((*back, *(None,) * (count - len(back))), pending), sources


def entries(table: SlotTable) -> list[dict[str, Any]]:
    """The folds in slots, as a checkpoint's metadata holds them; `resume` undoes this."""
    return [{**dataclasses.asdict(one), "slot": slot} for slot, one in enumerate(table.slots) if one]


def after_epoch(
    progress: FoldProgress, train: Mapping[str, Any], validation: Mapping[str, Any], monitor: str
) -> FoldProgress:
    """A fold after one more epoch; it is the best so far when `validation[monitor]` exceeds every earlier one."""
    epoch, score = progress.epoch + 1, validation[monitor]
    history = (*progress.history, train, validation)
    if not score > progress.best_score:  # an equal score is no improvement, as in transformers' early stopping
        return dataclasses.replace(progress, epoch=epoch, history=history)
    return FoldProgress(progress.fold, epoch, best_epoch=epoch, best_score=score, history=history)


def release(table: SlotTable, slots: Iterable[int]) -> SlotTable:
    """Free some slots."""
    freed = set(slots)
    return dataclasses.replace(
        table, slots=tuple(None if slot in freed else progress for slot, progress in enumerate(table.slots))
    )


def described(table: SlotTable) -> str:
    """Which folds are at which epoch: "epoch 3 of folds 0, 1, 2"."""
    epochs = sorted({progress.epoch for progress in table.active})
    at = [(epoch, [str(one.fold) for one in table.active if one.epoch == epoch]) for epoch in epochs]
    return "; ".join(f"epoch {epoch} of fold{'s' * (len(which) > 1)} {', '.join(which)}" for epoch, which in at)
