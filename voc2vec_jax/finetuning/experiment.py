"""One cross-validation: folds go through an engine's slots, epoch by epoch, each saved, scored and written when done.

RUN/fold_XX/fold.json, written last, makes a fold count; RUN/checkpoints/ holds the folds in progress. Of n processes
process i trains the folds k with k % n == i and keeps what is in progress in RUN/processes/<i>_of_<n>/.
"""

import dataclasses
import json
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jaxtyping import Float32, Int64

from voc2vec_jax import audio, errors
from voc2vec_jax.finetuning import capacity, folds, tasks
from voc2vec_jax.finetuning import engine as fold_engine
from voc2vec_jax.finetuning import results as fold_results
from voc2vec_jax.ops import metrics
from voc2vec_jax.runs import agreement, checkpoint, files, logs, memory, signals

MONITOR = "f1_macro"  # what selects the epoch, as in the official script
CPU_STEPS = 8  # of a compiled call on a CPU: a signal and the progress bar wait no longer than this


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a run computes: clips, folds, what is trained on them, and where the folds' results go."""

    workdir: pathlib.Path
    task: tasks.Task
    splits: Sequence[folds.Fold]
    learner: fold_engine.Learner
    recipe: fold_engine.Recipe
    data: Mapping[str, Any]  # arrays of all clips, on the host or the devices
    fold_arrays: Sequence[Mapping[str, np.ndarray]]  # what the learner needs of each fold
    initial: Any  # parameters to start from, None: fresh ones
    stratified: bool  # every batch holds one clip of every length stratum
    axis: str  # "map" | "vmap": how a device runs its slots
    slots: int  # folds at once; 0: as many as memory allows
    save_model: Callable[[pathlib.Path, Any], None] | None
    class_weights: Float32[np.ndarray, "k v"]
    checkpoint_every_epochs: int = 1


@dataclasses.dataclass
class Progress:
    """Where a fold in a slot stands."""

    fold: int
    epoch: int = 0  # completed
    best_epoch: int = 0
    best_score: float = -1.0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def ended(self, recipe: fold_engine.Recipe) -> bool:
        return self.epoch >= recipe.epochs or self.epoch - self.best_epoch >= recipe.patience


class Experiment:
    """Runs the folds of a `Setting` that are not done yet, of several processes those of this one."""

    def __init__(self, setting: Setting, saver: checkpoint.Checkpoints):
        self.setting, self.saver = setting, saver
        self.devices = jax.local_devices()
        self.own = range(agreement.index(), len(setting.splits), agreement.count())
        self.totals = [self._total_steps(split) for split in setting.splits]
        self.abstract = jax.eval_shape(lambda: fold_engine.start(setting.learner, setting.recipe, 0, setting.initial))
        self.slots: list[Progress | None] = []
        self.chunk, self.losses = 0, []
        self.saved = 0
        self.epochs_since_save = 0
        self.done = {k for k in self.own if fold_results.is_done(setting.workdir, k)}
        self.histories: dict[int, list] = {k: fold_results.read_fold(setting.workdir, k)["history"] for k in self.done}

    def _total_steps(self, split: folds.Fold) -> int:
        return self.setting.recipe.epochs * -(-len(split.train) // self.setting.recipe.batch_clips)

    # --- setting up -----------------------------------------------------------------------------------------------

    def run(self, stop: signals.StopSignal) -> bool:
        """All folds, or False when a signal stopped the run with everything saved."""
        pending = [k for k in self.own if k not in self.done]
        if not pending:
            return True
        self._build(self._choose_slots(len(pending)))
        restored = self._restore()
        pending = [k for k in pending if k not in restored]
        disable = None if logs.speaks() else True  # None: unless it is a terminal
        with tqdm.tqdm(total=len(self.own), initial=len(self.done), unit="fold", disable=disable) as self.bar:
            while True:
                if self.chunk == 0:
                    pending = self._fill(pending)
                    self._shrink(pending)
                if not any(self.slots):
                    break
                if not self._epoch(stop):
                    return False
        return True

    def _choose_slots(self, pending: int) -> int:
        """As many folds as were asked for, or as memory allows; a multiple of the devices."""
        device, state = self.devices[0], capacity.tree_bytes(self.abstract)
        if device.platform == "cpu":  # whose devices share the machine's memory
            fitting = self.setting.slots or capacity.fitting_on_cpu(memory.bytes_free(device), state)
            wanted = min(fitting, pending)
            self.devices = self.devices[:wanted]
        else:
            self.devices = self.devices[:pending]
            wanted = min(self.setting.slots or len(self.devices) * self._fitting(state), pending)
        return -(-wanted // len(self.devices)) * len(self.devices)

    def _fitting(self, state: int) -> int:
        """The folds that one accelerator holds beside the data."""
        setting, device = self.setting, self.devices[0]
        fold = {name: value[0] for name, value in self._of_folds([0]).items()}
        step = capacity.step_bytes(setting.learner, setting.recipe, self.abstract, fold, dict(setting.data), device)
        free = memory.bytes_free(device) - capacity.tree_bytes(dict(setting.data))
        return capacity.fitting(free, state, step, setting.axis)

    def _build(self, slots: int) -> None:
        setting = self.setting
        self.engine = fold_engine.Engine(setting.learner, setting.recipe, slots, setting.axis, self.devices)
        self.data = jax.device_put(dict(setting.data), self.engine.replicated)
        self.state = self.engine.empty(self.abstract)
        self.slots = [None] * slots
        start = lambda fold, initial: fold_engine.start(setting.learner, setting.recipe, fold, initial)  # noqa: E731
        self.start = jax.jit(start, out_shardings=self.engine.replicated)
        self.initial = None if setting.initial is None else jax.device_put(setting.initial, self.engine.replicated)
        steps = max(-(-len(split.train) // setting.recipe.batch_clips) for split in setting.splits)
        self.call_steps = min(steps, CPU_STEPS) if self.devices[0].platform == "cpu" else steps
        sizes = [len(split.validation) for split in setting.splits] + [len(split.test) for split in setting.splits]
        self.output_steps = -(-max(sizes) // setting.recipe.batch_clips)

    def _fill(self, pending: list[int]) -> list[int]:
        """Free slots take the next folds."""
        pending = list(pending)
        for slot, progress in enumerate(self.slots):
            if progress is None and pending:
                fold = pending.pop(0)
                self.slots[slot] = Progress(fold)
                self.state = self.engine.place(self.state, jnp.int32(slot), self.start(jnp.int32(fold), self.initial))
        self._fold_arrays()
        return pending

    def _fold_arrays(self) -> None:
        self.folds = self.engine.put(self._of_folds([progress.fold if progress else 0 for progress in self.slots]))

    def _of_folds(self, numbers: list[int]) -> dict[str, np.ndarray]:
        """What the programs need of some folds, stacked."""
        own = self.setting.fold_arrays
        return {
            **{name: np.stack([own[k][name] for k in numbers]) for name in own[0]},
            "number": np.array(numbers, np.int32),
            "total_steps": np.array([self.totals[k] for k in numbers], np.int32),
            "class_weights": self.setting.class_weights[np.array(numbers)],
        }

    def _shrink(self, pending: list[int]) -> None:
        """Where all slots of a device are computed together, ended ones are dropped as soon as half are."""
        active = [slot for slot, progress in enumerate(self.slots) if progress]
        each = -(-len(active) // len(self.devices)) if active else 0
        if self.setting.axis != "vmap" or pending or not active or 2 * each * len(self.devices) > len(self.slots):
            return
        states = [jax.device_get(self.engine.take(self.state, slot)) for slot in active]
        progress = [self.slots[slot] for slot in active]
        self._build(each * len(self.devices))
        for slot, (state, one) in enumerate(zip(states, progress)):
            self.slots[slot] = one
            self.state = self.engine.place(self.state, jnp.int32(slot), state)
        self._fold_arrays()

    # --- saving and resuming --------------------------------------------------------------------------------------

    def _restore(self) -> set[int]:
        """Folds in progress at the last save, back in slots; those that found none are begun again."""
        step = self.saver.latest_intact()
        if step is None:
            return set()
        metadata = json.loads((self.saver.folder / str(step) / "metadata.json").read_bytes())
        if metadata["task"] != self.setting.task.fingerprint:
            raise errors.InputError(
                f"the clips of {self.setting.task.name} are not those that {self.setting.workdir} was begun with: "
                "bring the old ones back or give another --workdir"
            )
        one = jax.sharding.SingleDeviceSharding(self.devices[0])
        target = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((metadata["slots"], *x.shape), x.dtype, sharding=one), self.abstract
        )
        restored = self.saver.restore(target)
        self.saved = step
        states = jax.device_get(restored[1])
        entries = [entry for entry in metadata["progress"] if entry["fold"] not in self.done]
        if len(entries) > len(self.slots):
            self._build(-(-len(entries) // len(self.devices)) * len(self.devices))
        for slot, entry in enumerate(entries):
            source = entry.pop("slot")
            self.slots[slot] = Progress(**entry)
            self.state = self.engine.place(self.state, jnp.int32(slot), jax.tree.map(lambda x, k=source: x[k], states))
        self._fold_arrays()
        if entries and metadata["chunk"]:
            self.chunk, self.call_steps = metadata["chunk"], metadata["call_steps"]
            self.losses = [metadata["losses"][str(one.fold)] if one else [] for one in self.slots]
        if entries:
            logs.say(f"resuming {self.setting.workdir}: {len(self.done)} folds done, {len(entries)} in progress")
        return {entry["fold"] for entry in entries}

    def _save(self) -> None:
        progress = [{**dataclasses.asdict(one), "slot": slot} for slot, one in enumerate(self.slots) if one]
        if not progress:
            return
        self.saved += 1
        metadata = {
            "task": self.setting.task.fingerprint,
            "slots": len(self.slots),
            "progress": progress,
            "chunk": self.chunk,
            "call_steps": self.call_steps,
            "losses": {one["fold"]: self.losses[one["slot"]] for one in progress} if self.chunk else {},
        }
        self.saver.save(self.saved, self.state, metadata)
        self.epochs_since_save = 0

    # --- an epoch -------------------------------------------------------------------------------------------------

    def _epoch(self, stop: signals.StopSignal) -> bool:
        """One epoch of every slot's fold; False when a signal stopped it, with everything saved."""
        began, setting = time.monotonic(), self.setting
        planned = [self._train_batches(progress) for progress in self.slots]
        calls = fold_engine.chunks(planned, self.call_steps)
        self.losses = self.losses or [[] for _ in self.slots]
        for number in range(self.chunk, len(calls)):
            self.state, losses = self.engine.train(self.state, self.folds, self.engine.put(calls[number]), self.data)
            self._note(np.asarray(losses), calls[number])
            self.chunk = number + 1
            self.saver.check()
            if stop.requested and self.chunk < len(calls):
                return self._stopped(stop)
        self.chunk = 0
        seconds = sum(float(setting.task.samples[rows[rows >= 0]].sum()) for rows in planned) / audio.RATE_HZ
        self._validate()
        self._show(seconds / (time.monotonic() - began))
        self.losses = []
        self.epochs_since_save += 1
        self._finish_ended()
        if self.epochs_since_save >= setting.checkpoint_every_epochs or stop.requested:
            self._save()
        return not stop.requested or self._stopped(stop, save=False)

    def _stopped(self, stop: signals.StopSignal, save: bool = True) -> bool:
        if save:
            self._save()
        self.saver.wait()
        logs.say(f"stopped by {stop.requested}; everything is saved")
        return False

    def _train_batches(self, progress: Progress | None):
        recipe = self.setting.recipe
        if progress is None:
            return np.full((0, recipe.batch_clips), fold_engine.EMPTY, np.int32)
        rows = self.setting.splits[progress.fold].train
        key = (recipe.seed, progress.fold, progress.epoch)
        return fold_engine.batches(
            rows, self.setting.task.samples, recipe.batch_clips, stratified=self.setting.stratified, key=key
        )

    def _note(self, losses: np.ndarray, rows: np.ndarray) -> None:
        """Keep the losses of the batches that held clips; a fold whose loss is not finite fails the run."""
        for slot, progress in enumerate(self.slots):
            if progress is None:
                continue
            real = losses[slot][(rows[slot] >= 0).any(1)]
            if not np.isfinite(real).all():
                raise errors.RunError(
                    f"the loss of fold {progress.fold} is not finite in epoch {progress.epoch + 1}: lower peak_lr or "
                    "compute in float32; the folds that are done stay in the run folder"
                )
            self.losses[slot] += real.tolist()

    def _outputs(self, params: Any, wanted: list[Int64[np.ndarray, "_"] | None]):
        """Logits and features of each slot's clips, in their order; None for slots without."""
        setting, batch = self.setting, self.setting.recipe.batch_clips
        rows = [
            fold_engine.batches(
                np.zeros(0, np.int64) if one is None else one,
                setting.task.samples,
                batch,
                stratified=setting.stratified,
                key=None,
            )
            for one in wanted
        ]
        filled = fold_engine.chunks(rows, self.output_steps)[0]
        logits, vectors = jax.device_get(self.engine.outputs(params, self.folds, self.engine.put(filled), self.data))
        return [
            None
            if one is None
            else (fold_engine.by_row(filled[k], logits[k], one), fold_engine.by_row(filled[k], vectors[k], one))
            for k, one in enumerate(wanted)
        ]

    def _validate(self) -> None:
        """Score every slot's fold on its validation clips; better ones keep their parameters."""
        splits, task = self.setting.splits, self.setting.task
        results = self._outputs(self.state.params, [p and splits[p.fold].validation for p in self.slots])
        better = np.zeros(len(self.slots), bool)
        for slot, (progress, found) in enumerate(zip(self.slots, results)):
            if progress is None:
                continue
            progress.epoch += 1
            true = task.label[splits[progress.fold].validation]
            row = {"loss": _loss(found[0], true, self.setting.class_weights[progress.fold])}
            scored = metrics.scores(true, found[0].argmax(1), len(task.labels))
            row |= {name: getattr(scored, name) for name in metrics.NAMES}
            train = {"fold": progress.fold, "epoch": progress.epoch, "split": "train"}
            train |= {"loss": float(np.mean(self.losses[slot])), "lr": self._rate(progress)}
            progress.history += [train, {**train, "split": "validation", **row}]
            progress.history[-1].pop("lr")
            if row[MONITOR] > progress.best_score:
                better[slot], progress.best_score, progress.best_epoch = True, row[MONITOR], progress.epoch
        self.state = self.engine.keep(self.state, self.engine.put(better))
        self._write_metrics()

    def _rate(self, progress: Progress) -> float:
        total = self.totals[progress.fold]
        steps = jnp.int32(progress.epoch * total // self.setting.recipe.epochs)
        return float(fold_engine.rate(self.setting.recipe, steps, jnp.int32(total)))

    def _write_metrics(self) -> None:
        rows = {**self.histories, **{p.fold: p.history for p in self.slots if p}}
        fold_results.write_metrics(fold_results.own_folder(self.setting.workdir), rows)

    def _tell(self, line: str) -> None:
        if logs.speaks():
            self.bar.write(line)

    def _show(self, speed: float) -> None:
        """A line on the epoch: the mean over the folds that are being trained."""
        active = [progress for progress in self.slots if progress]
        last = [progress.history[-1] for progress in active]
        train = np.mean([progress.history[-2]["loss"] for progress in active])
        names = {"uar": "UAR", "accuracy": "accuracy", "f1_macro": "F1"}
        scores = ", ".join(f"{text} {np.mean([row[name] for row in last]):.3f}" for name, text in names.items())
        self._tell(f"{_where(active)}: loss {train:.3f}, validation {scores}; {speed:.0f} audio-seconds per second")

    # --- the end of a fold ----------------------------------------------------------------------------------------

    def _finish_ended(self) -> None:
        ended = [p if p and p.ended(self.setting.recipe) else None for p in self.slots]
        if not any(ended):
            return
        splits = self.setting.splits
        results = self._outputs(self.state.best, [p and splits[p.fold].test for p in ended])
        for slot, (progress, found) in enumerate(zip(ended, results)):
            if progress:
                self._finish(slot, progress, *found)

    def _finish(self, slot: int, progress: Progress, logits: np.ndarray, vectors: np.ndarray) -> None:
        """Write a fold's results, `fold.json` last, and free its slot."""
        setting, task = self.setting, self.setting.task
        split, folder = setting.splits[progress.fold], fold_results.fold_folder(setting.workdir, progress.fold)
        folder.mkdir(parents=True, exist_ok=True)
        true = task.label[split.test]
        scored = metrics.scores(true, logits.argmax(1), len(task.labels))
        if setting.save_model:
            setting.save_model(folder / "model", jax.device_get(self.engine.take(self.state.best, slot)))
        fold_results.write_npz(
            folder / "embeddings.npz", ids=task.ids[split.test], labels=true, vectors=vectors.astype(np.float32)
        )
        fold_results.write_predictions(folder / "predictions.csv", task, progress.fold, split.test, logits)
        entry = {
            "fold": progress.fold,
            **{name: getattr(scored, name) for name in metrics.NAMES},
            "best_epoch": progress.best_epoch,
            "epochs": progress.epoch,
            **{name: task.ids[getattr(split, name)].tolist() for name in ("train", "validation", "test")},
            "confusion": scored.confusion.tolist(),
        }
        record = {**entry, "history": progress.history, "task": task.fingerprint}
        files.write_atomic(folder / "fold.json", (json.dumps(record) + "\n").encode())
        self.histories[progress.fold] = progress.history
        self.done.add(progress.fold)
        self.slots[slot] = None
        self.bar.update()
        self._tell(
            f"fold {progress.fold} done after {progress.epoch} epochs (best {progress.best_epoch}): UAR "
            f"{scored.uar:.3f}, accuracy {scored.accuracy:.3f}, F1 {scored.f1_macro:.3f} on {len(split.test)} clips"
        )


def _where(active: Sequence[Progress]) -> str:
    """Which folds are at which epoch: "epoch 3 of folds 0, 1, 2"."""
    epochs = sorted({one.epoch for one in active})
    at = [(epoch, [str(one.fold) for one in active if one.epoch == epoch]) for epoch in epochs]
    return "; ".join(f"epoch {epoch} of fold{'s' * (len(which) > 1)} {', '.join(which)}" for epoch, which in at)


def _loss(logits: np.ndarray, true: np.ndarray, class_weights: np.ndarray) -> float:
    """Class-weighted cross-entropy."""
    wide = logits.astype(np.float64)
    wide = wide - wide.max(1, keepdims=True)
    own = wide[np.arange(len(true)), true] - np.log(np.exp(wide).sum(1))
    weight = class_weights[true].astype(np.float64)
    return float(-(own * weight).sum() / max(weight.sum(), math.ulp(0.0)))
