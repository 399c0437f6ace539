"""What a finished fold leaves on disk: `fold_XX/`, with fold.json last, and its part of metrics.jsonl."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from voc2vec_jax.finetuning import epoch_runner, kept_models, learners, scoring, settings, slot_table
from voc2vec_jax.finetuning import results as fold_results


class FoldWriter:
    """Writes the folds of one process and keeps their histories."""

    def __init__(self, setting: settings.CrossValidationSetting, done: Iterable[int]):
        """`done` are the folds that were finished before."""
        self.setting = setting
        self.histories = {fold: fold_results.read_fold(setting.workdir, fold)["history"] for fold in done}

    def keeps(self, progress: slot_table.FoldProgress) -> bool:
        """Whether the model of a fold that has ended stays on disk."""
        where = self.setting.save_models, self.setting.workdir, self.histories.keys()
        return kept_models.is_kept(*where, progress.fold, progress.best_score)

    def write(
        self, progress: slot_table.FoldProgress, found: epoch_runner.FoldOutputs, params: Any
    ) -> dict[str, float]:
        """Write a fold that has ended; returns its scores on the test clips. `params` are saved unless None."""
        setting, task, fold = self.setting, self.setting.task, progress.fold
        split, folder = setting.splits[fold], fold_results.fold_folder(setting.workdir, fold)
        folder.mkdir(parents=True, exist_ok=True)
        true = task.targets[split.test]
        scored = scoring.scores(task.kind, true, found.logits, setting.averaged)
        if params is not None:
            params = learners.released(params, setting.trained.fold_arrays[fold])
            setting.trained.save_model(folder / "model", params)
        arrays = {"vectors": found.vectors.astype(np.float32), "logits": found.logits.astype(np.float32)}
        arrays |= {"ids": task.ids[split.test], "targets": true, "groups": task.group[split.test]}
        arrays |= {"labels": true} if task.kind == "classes" else {}
        fold_results.write_npz(folder / "embeddings.npz", **arrays)
        fold_results.write_predictions(folder / "predictions.csv", task, fold, split.test, found.logits)
        record = {
            "fold": fold,
            **scored,
            "best_epoch": progress.best_epoch,
            "best_score": progress.best_score,
            "epochs": progress.epoch,
            "best_in_warmup": setting.best_in_warmup(progress),
            **{name: task.ids[getattr(split, name)].tolist() for name in ("train", "validation", "test")},
            "confusion": scoring.confusion(task.kind, true, found.logits),
            "history": progress.history,
            "task": task.fingerprint,
        }
        # Last, because it makes the fold count as done; a kill before this line leaves files that are written again.
        fold_results.write_fold(setting.workdir, record)
        self.histories[fold] = progress.history
        kept_models.prune(setting.save_models, setting.workdir, self.histories.keys())
        return scored

    def write_metrics(self, table: slot_table.SlotTable) -> None:
        """metrics.jsonl of this process: its finished folds, and those in slots."""
        # The whole file each time: rows of a fold that a kill threw back must not stay, and folds stand in order.
        rows = {**self.histories, **{progress.fold: progress.history for progress in table.active}}
        fold_results.write_metrics(fold_results.own_folder(self.setting.workdir), rows)
