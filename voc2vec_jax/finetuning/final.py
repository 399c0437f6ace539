"""One model trained on all clips of a task, for use: RUN/final/.

    RUN/final/model/         the model (model.npz for networks on features)
    RUN/final/final.json     how it was trained, and the score to expect of it; written last

No clip is left to choose the epoch on, so it ends after the median of the folds' best epochs. Its learning rate goes
the way of the folds' rates: the schedule is that of all `epochs`, cut off there. Its score cannot be measured either.
What to expect are the folds' scores, of models that saw fewer clips.
"""

import dataclasses
import json
import pathlib
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from voc2vec_jax.convert import reader
from voc2vec_jax.finetuning import (
    capacity,
    epoch_runner,
    folds,
    jobs,
    kept_models,
    learners,
    settings,
    slot_table,
    tasks,
)
from voc2vec_jax.finetuning import engine as fold_engine
from voc2vec_jax.finetuning import results as fold_results
from voc2vec_jax.runs import checkpoint, files, logs, signals

FILE = "final.json"
_KEPT = ("dataset", "title", "model", "system", "protocol", "kind", "labels", "clips", "hours")


def place(workdir: pathlib.Path) -> pathlib.Path:
    """RUN/final."""
    return workdir / "final"


def done(workdir: pathlib.Path) -> bool:
    """Whether the model is there."""
    return (place(workdir) / FILE).is_file()


def run(
    job: jobs.CrossValidationJob,
    task: tasks.Task,
    source: reader.ModelWeights | None,
    platform: str,
    stop: signals.StopSignal,
) -> bool:
    """Train or resume the model, from the last epoch that was saved; False when a signal stopped it."""
    folder = place(job.workdir)
    folder.mkdir(parents=True, exist_ok=True)
    summary = fold_results.read_summary(job.workdir)
    best = [fold["best_epoch"] for fold in summary["folds"]]
    epochs = max(1, int(statistics.median(best) + 0.5))
    rows = np.arange(len(task))
    # All parts are all clips: the shapes of batches follow from the parts, and nothing is scored.
    setting = settings.build(job, task, [folds.FoldSplit(rows, rows, rows)], source, platform)
    with checkpoint.Checkpoints(folder, keep=1, alone=True) as saver:
        trained = Training(dataclasses.replace(setting, workdir=folder), saver).run(epochs, stop)
    if trained is None:
        logs.say(f"stopped by {stop.requested}; the model on all clips goes on from its last epoch")
        return False
    setting.trained.save_model(folder / "model", trained)
    record = {name: summary[name] for name in _KEPT if name in summary}
    expected = {name: summary.get(name) for name in ("mean", "std", "pooled")}
    record |= {"epochs": epochs, "best_epochs": best, "expected": expected}
    files.write_atomic(folder / FILE, (json.dumps(record, indent=1) + "\n").encode())
    kept_models.clear_checkpoints(folder)
    much = f"{len(task)} clips for {epochs} epoch{'s' * (epochs > 1)}, the median of the folds' best"
    reached = fold_results.summary_line(job.workdir)
    logs.say(f"{folder / 'model'}: trained on all {much}; expect what the folds reached: {reached}")
    return True


class Training:
    """A fold of all clips, epoch by epoch."""

    def __init__(self, setting: settings.CrossValidationSetting, saver: checkpoint.Checkpoints):
        """Resumes from the newest checkpoint of `saver`, if there is one."""
        self.setting, self.saver = setting, saver
        trained = setting.trained
        abstract = jax.eval_shape(lambda: fold_engine.start(trained.learner, setting.recipe, 0, trained.initial))
        devices, slots = capacity.choose_slots(setting, abstract, 1)
        saved = kept_models.bytes_of(saver.folder)
        sizes = {"model": capacity.tree_bytes((abstract.params, trained.data.get("frozen", {})))}
        sizes |= {"state": capacity.tree_bytes(abstract), "saved": saved}
        kept_models.check_space(setting.workdir, "final", 1, sizes)
        self.runner = epoch_runner.EpochRunner(setting, abstract, devices, slots)
        one = jax.sharding.SingleDeviceSharding(devices[0])
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct((slots, *x.shape), x.dtype, sharding=one), abstract)
        self.epoch = 0
        found = saver.restore(target) if saver.latest_intact() is not None else None
        if found is None:
            self.runner.begin(0, 0)
        else:
            self.epoch, state, _ = found
            self.runner.place(0, jax.tree.map(lambda x: x[0], jax.device_get(state)))

    def run(self, epochs: int, stop: signals.StopSignal) -> Any:
        """The trained parameters after so many epochs, on the host; None when a signal came before."""
        while self.epoch < epochs:
            table = slot_table.SlotTable((slot_table.FoldProgress(0, self.epoch),))
            self.runner.seat(table)
            losses: tuple[float, ...] = ()
            for position in self.runner.train(table, self.runner.planned(table), epoch_runner.EpochPosition()):
                losses = position.losses[0]
                if stop.requested and not position.over:
                    self.saver.wait()
                    return None
            self.epoch += 1
            logs.say(f"epoch {self.epoch} of {epochs} on all clips: loss {np.mean(losses):.3f}")
            self.saver.save(self.epoch, self.runner.state, {"epoch": self.epoch})
            if stop.requested and self.epoch < epochs:
                self.saver.wait()
                return None
        self.saver.wait()
        params = jax.device_get(self.runner.engine.take(self.runner.state.params, jnp.int32(0)))
        own = self.setting.trained.fold_arrays[0]
        params = learners.released(params, own)
        if isinstance(self.setting.trained.learner, learners.FeatureLearner):
            # The network sees (x - shift) * scale; a fold's clips decide both, and a file of weights alone lacks them.
            params = {**params, "input": {name: own[name] for name in ("shift", "scale")}}
        return params
