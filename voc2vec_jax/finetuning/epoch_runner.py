"""The folds of a slot table on the devices: an epoch of training, and logits and features of their clips.

n = clips, d = width, v = classes, f = slots, k = batches, c = batches of a chunk, r = rows of a batch.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int32, Int64

from voc2vec_jax import errors
from voc2vec_jax.finetuning import batches, scoring, settings, slot_table
from voc2vec_jax.finetuning import engine as fold_engine

CPU_STEPS = 8  # of a compiled call on a CPU: no signal and no progress bar waits longer than this


@dataclasses.dataclass(frozen=True)
class EpochPosition:
    """How far an epoch of all slots has come: the chunks that are done, and the losses of each slot's batches."""

    chunk: int = 0
    losses: tuple[tuple[float, ...], ...] = ()
    over: bool = False  # no chunk is left


class FoldOutputs(NamedTuple):
    """What a fold's model says of some clips, in their order."""

    logits: Float32[np.ndarray, "n v"]
    vectors: Float32[np.ndarray, "n d"]


class EpochRunner:
    """Compiled programs for a fixed number of slots, and the states of the folds in them."""

    def __init__(
        self,
        setting: settings.CrossValidationSetting,
        abstract: fold_engine.FoldState,
        devices: Sequence[jax.Device],
        slots: int,
    ):
        """`abstract` is the shape of one fold's state; all slots are empty."""
        trained, recipe = setting.trained, setting.recipe
        self.setting = setting
        self.engine = fold_engine.Engine(trained.learner, recipe, slots, setting.axis, devices)
        self.data = jax.device_put(dict(trained.data), self.engine.replicated)
        self.state = self.engine.empty(abstract)
        self.fold_batch = self.engine.put(setting.fold_batch([0] * slots))
        self._initial = None if trained.initial is None else jax.device_put(trained.initial, self.engine.replicated)
        self._start = jax.jit(
            lambda fold, initial: fold_engine.start(trained.learner, recipe, fold, initial),
            out_shardings=self.engine.replicated,
        )
        steps = max(setting.epoch_steps(fold) for fold in range(len(setting.splits)))
        # An accelerator takes an epoch in one call: between calls it would wait for the host.
        self.call_steps = min(steps, CPU_STEPS) if devices[0].platform == "cpu" else steps
        # One size for validation and test of all folds, so that one compiled program serves them.
        scored = max(max(len(split.validation), len(split.test)) for split in setting.splits)
        self._output_steps = -(-scored // recipe.batch_clips)

    # --- states in and out ----------------------------------------------------------------------------------------

    def seat(self, table: slot_table.SlotTable) -> None:
        """Bring what the programs need of the table's folds to the devices; call after the table has changed."""
        self.fold_batch = self.engine.put(self.setting.fold_batch(table.folds))

    def begin(self, slot: int, fold: int) -> None:
        """Put a fold that has not begun into a slot."""
        self.place(slot, self._start(jnp.int32(fold), self._initial))

    def place(self, slot: int, state: fold_engine.FoldState) -> None:
        """Put the state of one fold into a slot."""
        self.state = self.engine.place(self.state, jnp.int32(slot), state)

    def take(self, slot: int) -> fold_engine.FoldState:
        """The state of the fold in a slot, on the host."""
        return jax.device_get(self.engine.take(self.state, slot))

    def best(self, slot: int) -> Any:
        """The best parameters of the fold in a slot, on the host."""
        return jax.device_get(self.engine.take(self.state.best, slot))

    # --- training -------------------------------------------------------------------------------------------------

    def planned(self, table: slot_table.SlotTable) -> list[Int32[np.ndarray, "_k r"]]:
        """The batches of the next epoch of every slot, none for free slots."""
        setting, recipe = self.setting, self.setting.recipe
        nothing = np.full((0, recipe.batch_clips), batches.EMPTY, np.int32)
        return [
            nothing
            if progress is None
            else batches.batches(
                setting.training_rows(progress.fold, progress.epoch),
                setting.task.samples,
                recipe.batch_clips,
                stratified=setting.trained.stratified,
                key=(recipe.seed, progress.fold, progress.epoch),
            )
            for progress in table.slots
        ]

    def train(
        self, table: slot_table.SlotTable, planned: Sequence[Int32[np.ndarray, "_k r"]], position: EpochPosition
    ) -> Iterator[EpochPosition]:
        """Train the rest of an epoch from `position`, chunk by chunk; RunError when a loss is not finite."""
        chunks = batches.chunks(planned, self.call_steps)
        losses = position.losses or ((),) * len(table.slots)
        for number in range(position.chunk, len(chunks)):
            rows = self.engine.put(chunks[number])
            self.state, found = self.engine.train(self.state, self.fold_batch, rows, self.data)
            losses = with_losses(table, losses, np.asarray(found), chunks[number])
            yield EpochPosition(number + 1, losses, over=number + 1 == len(chunks))

    def validate(self, table: slot_table.SlotTable, losses: Sequence[Sequence[float]]) -> slot_table.SlotTable:
        """Score the fold of every slot on its validation clips; where it is the best yet, keep the parameters."""
        splits = self.setting.splits
        wanted = [progress and splits[progress.fold].validation for progress in table.slots]
        found = self.outputs(self.state.params, wanted)
        monitor = scoring.KINDS[self.setting.task.kind].monitor
        slots = [
            progress and slot_table.after_epoch(progress, *self._rows(progress, loss, one.logits), monitor)
            for progress, loss, one in zip(table.slots, losses, found)
        ]
        # The best parameters stay on the device: copying a whole model to the host may take longer than an epoch.
        better = np.array([progress is not None and progress.best_epoch == progress.epoch for progress in slots])
        self.state = self.engine.keep(self.state, self.engine.put(better))
        return dataclasses.replace(table, slots=tuple(slots))

    def _rows(
        self, progress: slot_table.FoldProgress, losses: Sequence[float], logits: Float32[np.ndarray, "n v"]
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The rows of metrics.jsonl for the epoch that has just been trained: training, then validation."""
        setting, fold, epoch = self.setting, progress.fold, progress.epoch + 1
        kind, true = setting.task.kind, setting.task.targets[setting.splits[fold].validation]
        where = {"fold": fold, "epoch": epoch}
        loss = scoring.loss(kind, true, logits, setting.class_weights[fold])
        scores = scoring.scores(kind, true, logits, setting.averaged)
        return (
            {**where, "split": "train", "loss": float(np.mean(losses)), "lr": self._rate(fold, epoch)},
            {**where, "split": "validation", "loss": loss, **scores},
        )

    def _rate(self, fold: int, epoch: int) -> float:
        """The learning rate after `epoch` epochs."""
        recipe, total = self.setting.recipe, self.setting.total_steps(fold)
        # total is epochs times the fold's steps of an epoch, so that the division leaves no rest.
        return float(fold_engine.rate(recipe, jnp.int32(epoch * total // recipe.epochs), jnp.int32(total)))

    # --- outputs --------------------------------------------------------------------------------------------------

    def outputs(self, params: Any, wanted: Sequence[Int64[np.ndarray, "_"] | None]) -> list[FoldOutputs | None]:
        """What each slot's model says of the clips `wanted` of it; None for slots without."""
        setting = self.setting
        rows = [
            batches.batches(
                np.zeros(0, np.int64) if one is None else one,
                setting.task.samples,
                setting.recipe.batch_clips,
                stratified=setting.trained.stratified,
                key=None,
            )
            for one in wanted
        ]
        # `_output_steps` holds the largest part of all folds, so that there is one chunk.
        filled = batches.chunks(rows, self._output_steps)[0]
        found = self.engine.outputs(params, self.fold_batch, self.engine.put(filled), self.data)
        logits, vectors = jax.device_get(found)
        return [
            None
            if one is None
            else FoldOutputs(
                batches.by_row(filled[slot], logits[slot], one), batches.by_row(filled[slot], vectors[slot], one)
            )
            for slot, one in enumerate(wanted)
        ]

    def test_outputs(self, table: slot_table.SlotTable, slots: Sequence[int]) -> list[FoldOutputs | None]:
        """What the best parameters of some slots say of their folds' test clips; None for the other slots."""
        splits = self.setting.splits
        wanted = [
            splits[progress.fold].test if progress and slot in slots else None
            for slot, progress in enumerate(table.slots)
        ]
        return self.outputs(self.state.best, wanted)


def with_losses(
    table: slot_table.SlotTable,
    losses: Sequence[tuple[float, ...]],
    found: Float32[np.ndarray, "f c"],
    rows: Int32[np.ndarray, "f c r"],
) -> tuple[tuple[float, ...], ...]:
    """`losses` with those of one more chunk; RunError for a fold whose loss is not finite."""
    longer = list(losses)
    for slot, progress in enumerate(table.slots):
        if progress is None:
            continue
        real = found[slot][(rows[slot] >= 0).any(1)]  # batches without clips have no loss
        if not np.isfinite(real).all():
            raise errors.RunError(
                f"the loss of fold {progress.fold} is not finite in epoch {progress.epoch + 1}: lower peak_lr or "
                "compute in float32; the folds that are done stay in the run folder"
            )
        longer[slot] = (*longer[slot], *real.tolist())
    return tuple(longer)
