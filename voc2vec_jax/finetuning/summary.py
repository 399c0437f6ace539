"""The results of a cross-validation in one place: summary.json, summary.md, predictions.csv."""

import csv
import io
import json
import pathlib
from typing import Any

import ml_collections

from voc2vec_jax import audio, errors
from voc2vec_jax.finetuning import results as fold_results
from voc2vec_jax.finetuning import tasks
from voc2vec_jax.ops import metrics
from voc2vec_jax.runs import files

FILE = "summary.json"
_TITLES = {"uar": "UAR", "accuracy": "accuracy", "f1_macro": "macro F1"}


def read(workdir: pathlib.Path) -> dict[str, Any]:
    """The summary of a run; InputError when it is absent or damaged."""
    path = workdir / FILE
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as fault:
        raise errors.InputError(f"{path} cannot be read ({fault}): run the cross-validation again") from fault


def is_complete(workdir: pathlib.Path) -> bool:
    """Whether every fold of the run is done and summarised."""
    return (workdir / FILE).is_file() and bool(read(workdir).get("complete"))


def line(workdir: pathlib.Path) -> str:
    """The means and deviations over folds in one line."""
    found = read(workdir)
    values = ", ".join(
        f"{title} {found['mean'][name]:.3f} ± {found['std'][name]:.3f}" for name, title in _TITLES.items()
    )
    return f"{values} over {len(found['folds'])} folds"


def write(workdir: pathlib.Path, system: str, source: str, task: tasks.Task, config: ml_collections.ConfigDict) -> None:
    """Gather the folds that are done; a summary of fewer than all says so and is not `complete`."""
    done = [k for k in range(config.folds) if fold_results.is_done(workdir, k)]
    if not done:
        return
    records = [fold_results.read_fold(workdir, k) for k in done]
    for record in records:
        record.pop("history")
        if record.pop("task") != task.fingerprint:
            raise errors.InputError(
                f"fold {record['fold']} of {workdir} was computed on other clips of {task.name}: give another --workdir"
            )
    folds = [metrics.Scores(**{name: record[name] for name in metrics.Scores._fields}) for record in records]
    mean, std = metrics.summarise(folds)
    leaks = workdir / "leaks.json"
    found = {
        "dataset": task.name,
        "title": task.title,
        "model": source,
        "system": system,
        "protocol": config.protocol,
        "complete": len(done) == config.folds,
        "planned_folds": config.folds,
        "folds": records,
        "mean": mean,
        "std": std,
        "labels": list(task.labels),
        "clips": len(task),
        "hours": float(task.samples.sum()) / audio.RATE_HZ / 3600,
        "audio_root": task.audio_root and str(task.audio_root),
        "leaks": json.loads(leaks.read_bytes()) if leaks.is_file() else None,
    }
    _write_predictions(workdir, done)
    files.write_atomic(workdir / "summary.md", _markdown(found).encode())
    files.write_atomic(workdir / FILE, (json.dumps(found, indent=1) + "\n").encode())


def _write_predictions(workdir: pathlib.Path, done: list[int]) -> None:
    """The folds' predictions one after another."""
    text = io.StringIO()
    writer = files.csv_writer(text)
    for number, fold in enumerate(done):
        path = fold_results.fold_folder(workdir, fold) / "predictions.csv"
        rows = list(csv.reader(io.StringIO(path.read_bytes().decode())))
        writer.writerows(rows if number == 0 else rows[1:])
    files.write_atomic(workdir / "predictions.csv", text.getvalue().encode())


def _markdown(found: dict[str, Any]) -> str:
    lines = [f"# {found['system']} on {found['title']}, protocol {found['protocol']}", ""]
    if not found["complete"]:
        lines += [f"**Incomplete: {len(found['folds'])} of {found['planned_folds']} folds.**", ""]
    lines += ["| fold | " + " | ".join(_TITLES.values()) + " | best epoch | epochs |", "|---|---|---|---|---|---|"]
    for fold in found["folds"]:
        values = " | ".join(f"{fold[name]:.3f}" for name in _TITLES)
        lines.append(f"| {fold['fold']} | {values} | {fold['best_epoch']} | {fold['epochs']} |")
    values = " | ".join(f"{found['mean'][name]:.3f} ± {found['std'][name]:.3f}" for name in _TITLES)
    lines += [f"| mean ± std | {values} | | |", "", f"{found['clips']} clips, {found['hours']:.2f} h."]
    return "\n".join(lines) + "\n"
