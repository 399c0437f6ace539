"""The folds of one cross-validation, epoch by epoch, saved, resumed and written.

    slot_table     which fold sits in which slot          pure
    epoch_runner   the folds on the devices               arrays
    fold_writer    what a finished fold leaves            files
    experiment     takes turns with the three, and saves

RUN/checkpoints/ holds the folds in progress. Of n processes process i trains the folds k with k % n == i and keeps
what is in progress in RUN/processes/<i>_of_<n>/.
"""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm

from voc2vec_jax import audio, errors, opening
from voc2vec_jax.finetuning import capacity, epoch_runner, fold_writer, kept_models, scoring, settings, slot_table
from voc2vec_jax.finetuning import engine as fold_engine
from voc2vec_jax.finetuning import results as fold_results
from voc2vec_jax.runs import agreement, checkpoint, logs, signals


def run(setting: settings.CrossValidationSetting, saver: checkpoint.Checkpoints, stop: signals.StopSignal) -> bool:
    """Run this process's folds that are not done; False when a signal stopped them, with everything saved."""
    finished = fold_results.status(setting.workdir, len(setting.splits)).done
    # Dealt by number, not by what is left: every process knows its folds without asking, also after a restart.
    own = range(agreement.process_index(), len(setting.splits), agreement.process_count())
    writer = fold_writer.FoldWriter(setting, [fold for fold in own if fold in finished])
    pending = tuple(fold for fold in own if fold not in finished)
    return not pending or Experiment(setting, saver, writer, pending).run(stop)


class SavedFolds(NamedTuple):
    """A checkpoint: its number, its metadata and the states of its slots, on the host."""

    number: int
    metadata: dict[str, Any]
    states: fold_engine.FoldState

    def state(self, slot: int) -> fold_engine.FoldState:
        return jax.tree.map(lambda x: x[slot], self.states)


class Experiment:
    """Brings the pending folds to their ends, as many at once as fit."""

    def __init__(
        self,
        setting: settings.CrossValidationSetting,
        saver: checkpoint.Checkpoints,
        writer: fold_writer.FoldWriter,
        pending: tuple[int, ...],
    ):
        """Resumes from the newest checkpoint of `saver`, if there is one."""
        self.setting, self.saver, self.writer = setting, saver, writer
        trained, recipe = setting.trained, setting.recipe
        self.abstract = jax.eval_shape(lambda: fold_engine.start(trained.learner, recipe, 0, trained.initial))
        self.devices, slots = capacity.choose_slots(setting, self.abstract, len(pending))
        # Read before the programs are built: it may hold more folds in progress than would be begun on this machine.
        saved = self._read_checkpoint()
        self.saved = saved.number if saved else 0
        self.epochs_since_save = 0
        self.table, sources = slot_table.resume(
            slot_table.SlotTable((None,) * slots, pending),
            saved.metadata["progress"] if saved else [],
            writer.histories.keys(),
            len(self.devices),
        )
        self._check_space(len(pending))
        self.runner = epoch_runner.EpochRunner(setting, self.abstract, self.devices, len(self.table.slots))
        for slot, source in enumerate(sources):
            self.runner.place(slot, saved.state(source))
        self.runner.seat(self.table)
        self.position = epoch_runner.EpochPosition()
        if sources and saved.metadata["chunk"]:
            self._resume_epoch(saved.metadata)
        if sources:
            logs.say(f"resuming {setting.workdir}: {len(writer.histories)} folds done, {len(sources)} in progress")
        done = len(writer.histories)
        self.bar = tqdm.tqdm(
            total=done + len(pending),
            initial=done,
            unit="fold",
            disable=None if logs.speaks() else True,  # None: unless stderr is a terminal
        )

    def run(self, stop: signals.StopSignal) -> bool:
        """All folds; False when a signal stopped the run with everything saved."""
        with self.bar:
            while True:
                # Slots change hands between epochs only: the chunks of an epoch are cut for the folds that began it.
                if self.position.chunk == 0:
                    self._fill()
                    self._shrink()
                if not self.table.active:
                    return True
                if not self._epoch(stop):
                    return False

    # --- slots ----------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Begin pending folds in free slots."""
        self.table, given = slot_table.fill(self.table)
        for slot in given:
            self.runner.begin(slot, self.table.folds[slot])
        self.runner.seat(self.table)

    def _shrink(self) -> None:
        """Go on with fewer slots once half of them are free.

        Only under "vmap", where a device computes its free slots too; "map" skips them.
        """
        if self.setting.axis != "vmap":
            return
        smaller = slot_table.shrink(self.table, len(self.devices))
        if smaller is None:
            return
        self.table, sources = smaller
        states = [self.runner.take(source) for source in sources]
        self.runner = epoch_runner.EpochRunner(self.setting, self.abstract, self.devices, len(self.table.slots))
        for slot, state in enumerate(states):
            self.runner.place(slot, state)
        self.runner.seat(self.table)

    def _check_space(self, folds: int) -> None:
        """InputError when the disk does not hold what `folds` more folds will leave on it."""
        model = capacity.tree_bytes(self.abstract.params)
        if self.setting.save_models != "lora":
            model += capacity.tree_bytes(self.setting.trained.data.get("frozen", {}))
        state = len(self.table.slots) * capacity.tree_bytes(self.abstract)
        sizes = {"model": model, "state": state, "saved": kept_models.bytes_of(self.saver.folder)}
        kept_models.check_space(self.setting.workdir, self.setting.save_models, folds, sizes)

    # --- saving and resuming --------------------------------------------------------------------------------------

    def _read_checkpoint(self) -> SavedFolds | None:
        """The newest intact checkpoint; InputError when it was made with other clips."""
        number = self.saver.latest_intact()
        if number is None:
            return None
        metadata = opening.read_json(self.saver.folder / str(number) / "metadata.json")
        if metadata["task"] != self.setting.task.fingerprint:
            raise errors.InputError(
                f"the clips of {self.setting.task.name} are not those that {self.setting.workdir} was begun with: "
                "bring the old ones back or give another --workdir"
            )
        # By way of one device to the host: the slots were perhaps saved from another number of devices.
        one = jax.sharding.SingleDeviceSharding(self.devices[0])
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((metadata["slots"], *x.shape), x.dtype, sharding=one), self.abstract
        )
        return SavedFolds(number, metadata, jax.device_get(self.saver.restore(target)[1]))

    def _resume_epoch(self, metadata: dict[str, Any]) -> None:
        """Go on in the middle of an epoch."""
        # The chunks that are done were cut at the saved size, which may not be what this machine would choose.
        self.runner.call_steps = metadata["call_steps"]
        losses = [metadata["losses"][str(one.fold)] if one else [] for one in self.table.slots]
        self.position = epoch_runner.EpochPosition(metadata["chunk"], tuple(map(tuple, losses)))

    def _save(self) -> None:
        """Save the folds in slots; those that have ended are in their folders."""
        progress = slot_table.entries(self.table)
        if not progress:
            return
        self.saved += 1  # counts saves, because folds in slots are at different epochs
        losses = {one["fold"]: self.position.losses[one["slot"]] for one in progress} if self.position.chunk else {}
        metadata = {
            "task": self.setting.task.fingerprint,
            "slots": len(self.table.slots),
            "progress": progress,
            "chunk": self.position.chunk,
            "call_steps": self.runner.call_steps,
            "losses": losses,
        }
        self.saver.save(self.saved, self.runner.state, metadata)
        self.epochs_since_save = 0

    def _stopped(self, stop: signals.StopSignal) -> bool:
        self.saver.wait()
        logs.say(f"stopped by {stop.requested}; everything is saved")
        return False

    # --- an epoch -------------------------------------------------------------------------------------------------

    def _epoch(self, stop: signals.StopSignal) -> bool:
        """One epoch of every slot's fold; False when a signal stopped it, with everything saved."""
        began = time.monotonic()
        planned = self.runner.planned(self.table)
        for position in self.runner.train(self.table, planned, self.position):
            self.position = position
            self.saver.check()
            if stop.requested and not position.over:  # after the last chunk the epoch is finished first
                self._save()
                return self._stopped(stop)
        self.table = self.runner.validate(self.table, self.position.losses)
        self.position = epoch_runner.EpochPosition()
        self.writer.write_metrics(self.table)
        samples = sum(float(self.setting.task.samples[rows[rows >= 0]].sum()) for rows in planned)
        self._show_epoch(samples / audio.RATE_HZ / (time.monotonic() - began))
        self._finish_ended()
        self.epochs_since_save += 1
        if self.epochs_since_save >= self.setting.checkpoint_every_epochs or stop.requested:
            self._save()
        return not stop.requested or self._stopped(stop)

    def _finish_ended(self) -> None:
        """Write the folds that have ended, and free their slots."""
        slots = self.table.slots
        ended = [slot for slot, progress in enumerate(slots) if progress and self.setting.ended(progress)]
        if not ended:
            return
        found = self.runner.test_outputs(self.table, ended)
        for slot in ended:
            params = self.runner.best(slot) if self.writer.keeps(slots[slot]) else None
            scores = self.writer.write(slots[slot], found[slot], params)
            self.bar.update()
            self._show_fold(slots[slot], scores)
        # The next save no longer holds these folds. A kill before it repeats their last epochs from the save before,
        # or drops them on resume if fold.json was written: either way the same bits.
        self.table = slot_table.release(self.table, ended)

    # --- lines for people -----------------------------------------------------------------------------------------

    def _show(self, line: str) -> None:
        if logs.speaks():
            self.bar.write(line)

    def _show_epoch(self, speed: float) -> None:
        """A line on the epoch: means over the folds in slots, and audio-seconds trained per second."""
        last = [progress.history[-1] for progress in self.table.active]
        train = np.mean([progress.history[-2]["loss"] for progress in self.table.active])
        kind = self.setting.task.kind
        means = {name: float(np.mean([row[name] for row in last])) for name in scoring.KINDS[kind].titles}
        where, scores = slot_table.described(self.table), scoring.described(means, kind)
        self._show(f"{where}: loss {train:.3f}, validation {scores}; {speed:.0f} audio-seconds per second")

    def _show_fold(self, progress: slot_table.FoldProgress, scores: Mapping[str, float]) -> None:
        clips = len(self.setting.splits[progress.fold].test)
        self._show(
            f"fold {progress.fold} done after {progress.epoch} epochs (best {progress.best_epoch}): "
            f"{scoring.described(scores, self.setting.task.kind)} on {clips} clips"
        )
