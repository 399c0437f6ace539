"""What a cross-validation leaves on disk, and what of it counts as done.

    RUN/fold_03/fold.json           the scores of a fold, its clips and its history; written last
    RUN/fold_03/predictions.csv     one line for each test clip
    RUN/fold_03/embeddings.npz      the features of the test clips, with logits, targets and groups
    RUN/fold_03/model/              the trained model (fold_03/model.npz for networks on features)
    RUN/metrics.jsonl               every epoch of every fold
    RUN/summary.json, summary.md, predictions.csv     all folds together

n = clips, v = classes.
"""

import dataclasses
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from voc2vec_jax import audio, errors, opening
from voc2vec_jax.finetuning import folds as fold_splits
from voc2vec_jax.finetuning import leak_badges, scoring, tasks
from voc2vec_jax.inference import answers
from voc2vec_jax.ops import metrics
from voc2vec_jax.runs import agreement, csv_files, files, logs

PREDICTION_COLUMNS = ("fold", "id", "path", "start_seconds", "seconds", "label", "predicted", "probability")
_FOLD, _SUMMARY = "fold.json", "summary.json"


# --- what is done -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """What of a run is done. Checkpoints have no say: they hold only folds in progress."""

    done: tuple[int, ...]  # folds whose fold.json is there
    complete: bool  # and the summary of all folds is


def status(workdir: pathlib.Path, folds: int) -> RunStatus:
    """The one place that decides what is done; InputError when summary.json is damaged."""
    # fold.json is the last file of a fold, and the complete summary the last file of a run: whatever a kill leaves
    # behind without them is computed again.
    done = tuple(fold for fold in range(folds) if (fold_folder(workdir, fold) / _FOLD).is_file())
    return RunStatus(done, (workdir / _SUMMARY).is_file() and bool(read_summary(workdir).get("complete")))


def fold_folder(workdir: pathlib.Path, fold: int) -> pathlib.Path:
    """RUN/fold_03."""
    return workdir / f"fold_{fold:02d}"


def read_fold(workdir: pathlib.Path, fold: int) -> dict[str, Any]:
    """The record of a finished fold; InputError when its file is damaged."""
    path = fold_folder(workdir, fold) / _FOLD
    try:
        return opening.read_json(path)
    except (OSError, ValueError) as fault:
        raise errors.InputError(f"{path} is damaged ({fault}): delete it and run again, the fold is redone") from fault


def read_summary(workdir: pathlib.Path) -> dict[str, Any]:
    """The summary of a run; InputError when it is absent or damaged."""
    path = workdir / _SUMMARY
    try:
        return opening.read_json(path)
    except (OSError, ValueError) as fault:
        raise errors.InputError(f"{path} cannot be read ({fault}): run the cross-validation again") from fault


# --- one fold ---------------------------------------------------------------------------------------------------------


def write_fold(workdir: pathlib.Path, record: Mapping[str, Any]) -> None:
    """fold.json, which makes the fold count as done: write every other file of the fold first."""
    path = fold_folder(workdir, record["fold"]) / _FOLD
    files.write_atomic(path, (json.dumps(record) + "\n").encode())


def write_npz(path: pathlib.Path, **arrays: np.ndarray) -> None:
    """Arrays without pickles; the file appears when it is complete."""
    content = io.BytesIO()
    np.savez(content, **arrays)
    files.write_atomic(path, content.getvalue())


def write_predictions(
    path: pathlib.Path, task: tasks.Task, fold: int, rows: Int64[np.ndarray, "n"], logits: Float32[np.ndarray, "n v"]
) -> None:
    """One line for each clip: where it is, its label, the prediction and its probability, and all probabilities.

    With tags the probability is that of the likeliest one. Numbers have none, and the prediction is all there is.
    """
    numbers = task.kind == "regression"
    shares = answers.probabilities(task.kind, logits.astype(np.float64))
    truth = np.eye(len(task.labels))[task.label] if task.kind == "classes" else task.targets
    text = io.StringIO()
    writer = csv_files.Writer(text)
    writer.writerow([*PREDICTION_COLUMNS, *(f"p:{label}" for label in task.labels if not numbers)])
    for row, share in zip(rows, shares):
        writer.writerow(
            [
                fold,
                task.ids[row],
                task.paths[row],
                f"{task.start_seconds[row]:.3f}",
                f"{task.samples[row] / audio.RATE_HZ:.3f}",
                answers.in_words(task.kind, task.labels, truth[row]),
                answers.in_words(task.kind, task.labels, share),
                "" if numbers else f"{share.max():.6f}",
                *(f"{value:.6f}" for value in share if not numbers),
            ]
        )
    files.write_atomic(path, text.getvalue().encode())


# --- metrics of every epoch -------------------------------------------------------------------------------------------


def own_folder(workdir: pathlib.Path) -> pathlib.Path:
    """Where this process keeps its folds in progress: the run folder itself when it is alone."""
    if agreement.process_count() == 1:
        return workdir
    return workdir / "processes" / f"{agreement.process_index():02d}_of_{agreement.process_count():02d}"


def write_metrics(folder: pathlib.Path, rows: Mapping[int, Sequence[Mapping[str, Any]]]) -> None:
    """metrics.jsonl, fold by fold."""
    text = "".join(json.dumps(row) + "\n" for fold in sorted(rows) for row in rows[fold])
    files.write_atomic(folder / "metrics.jsonl", text.encode())


def metrics_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """Rows of a metrics.jsonl that have a fold and an epoch; a line that is cut short or damaged is left out."""
    rows = []
    for line in opening.read_bytes(path).splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and type(row.get("fold")) is int and type(row.get("epoch")) is int:
            rows.append(row)
    return rows


def gather_metrics(workdir: pathlib.Path, folds: int) -> None:
    """metrics.jsonl of the run, from those of all processes and the records of finished folds."""
    alone = agreement.process_count() == 1
    parts = "metrics.jsonl" if alone else f"processes/*_of_{agreement.process_count():02d}/metrics.jsonl"
    rows: dict[int, list[dict[str, Any]]] = {}
    for path in sorted(workdir.glob(parts)):
        for row in metrics_rows(path):
            rows.setdefault(row["fold"], []).append(row)
    # The record of a fold has the last word: another number of processes may have finished it, and this file may have
    # been deleted or cut while the run was stopped.
    rows |= {fold: read_fold(workdir, fold)["history"] for fold in status(workdir, folds).done}
    write_metrics(workdir, rows)


def restore_metrics(workdir: pathlib.Path, folds: int) -> None:
    """The metrics.jsonl of a finished run, where it is gone."""
    if not (workdir / "metrics.jsonl").exists():
        gather_metrics(workdir, folds)
        logs.say(f"{workdir / 'metrics.jsonl'} was gone: written again from the folds' records")


# --- all folds together -----------------------------------------------------------------------------------------------


def write_summary(workdir: pathlib.Path, task: tasks.Task, planned_folds: int, about: Mapping[str, Any]) -> None:
    """Sum up the folds that are done; with fewer than `planned_folds` the summary says that it is not complete.

    `about` holds what the run was asked for: "system", "model", "protocol", "averaged_classes", "stopping",
    "asked_folds" and "fewer_folds", the reason why fewer are planned ("" where they are not).
    """
    done = status(workdir, planned_folds).done
    if not done:
        return
    records = [_scored(workdir, fold, task) for fold in done]
    tested = np.isin(task.ids, [name for record in records for name in record["test"]])
    titles = scoring.KINDS[task.kind].titles
    mean, std = metrics.summarise([{name: record[name] for name in titles} for record in records])
    leaks = workdir / "leaks.json"
    found = {
        "dataset": task.name,
        "title": task.title,
        "records": task.prepared.fingerprint,
        **about,
        "kind": task.kind,
        "complete": len(done) == planned_folds,
        "planned_folds": planned_folds,
        "folds": records,
        "mean": mean,
        "std": std,
        "groups": len(np.unique(fold_splits.own_groups(task.group)[tested])),
        "pooled": pooled(task.kind, [(workdir, records)], about["averaged_classes"]),
        "baselines": scoring.baselines(task.kind, task.targets[tested], len(task.labels), about["averaged_classes"]),
        "labels": list(task.labels),
        "clips": len(task),
        "hours": float(task.samples.sum()) / audio.RATE_HZ / 3600,
        "audio_root": task.audio_root and str(task.audio_root),
        "group_copies": task.merged and dict(task.merged),
        "leaks": opening.read_json(leaks) if leaks.is_file() else None,
        "warnings": _warnings(records, about["stopping"]),
    }
    # Before summary.json: the last file says that the others are there.
    _join_predictions(workdir, done)
    files.write_atomic(workdir / "summary.md", _markdown(found).encode())
    files.write_atomic(workdir / _SUMMARY, (json.dumps(found, indent=1) + "\n").encode())


def _warnings(records: Sequence[Mapping[str, Any]], stopping: str) -> list[str]:
    """What a reader of the scores must know of the folds, a sentence each."""
    early = [str(record["fold"]) for record in records if record.get("best_in_warmup")]
    if not early:
        return []
    wait = " or set --config.stopping=after_warmup" if stopping == "published" else ""
    return [
        f"{len(early)} of {len(records)} folds (fold {', '.join(early)}) have their best epoch in the warm-up, before "
        "the learning rate reached its peak: their scores say little of the recipe; lower peak_lr or warmup_steps, "
        f"raise patience{wait}"
    ]


def _scored(workdir: pathlib.Path, fold: int, task: tasks.Task) -> dict[str, Any]:
    """A fold's record as the summary shows it; InputError when the fold was computed on other clips."""
    check_task(workdir, fold, task)
    return {name: value for name, value in read_fold(workdir, fold).items() if name not in ("history", "task")}


def check_task(workdir: pathlib.Path, fold: int, task: tasks.Task) -> None:
    """InputError when the fold was computed on other clips."""
    if read_fold(workdir, fold)["task"] != task.fingerprint:
        raise errors.InputError(
            f"fold {fold} of {workdir} was computed on other clips of {task.name}: give another --workdir"
        )


def pooled(
    kind: str, runs: Sequence[tuple[pathlib.Path, Sequence[Mapping[str, Any]]]], averaged: str
) -> dict[str, dict[str, float | None]]:
    """`scoring.pooled` of the test clips of some folds (run folder, their records).

    Without intervals where a fold was written by a version that did not store what they need.
    """
    stored = []
    for path in (fold_folder(workdir, record["fold"]) for workdir, records in runs for record in records):
        with np.load(opening.checked(path / "embeddings.npz"), allow_pickle=False) as arrays:
            names = ("targets", "logits", "groups", "ids")
            stored.append([arrays[name] for name in names] if all(name in arrays for name in names) else None)
    if None in stored:
        matrix = sum(np.array(record["confusion"]) for _, records in runs for record in records)
        value = metrics.of_confusion(matrix, averaged)
        return {name: {"value": float(value[name]), "low": None, "high": None} for name in value}
    targets, logits, groups, ids = map(np.concatenate, zip(*stored))
    # A clip of an unknown group is one group however many of the runs tested it.
    clip = np.unique(ids, return_inverse=True)[1].reshape(-1)
    groups = np.where(groups < 0, groups.max(initial=-1) + 1 + clip, groups)
    return scoring.pooled(kind, targets, logits, groups, averaged)


def _join_predictions(workdir: pathlib.Path, done: Sequence[int]) -> None:
    text = io.StringIO()
    writer = csv_files.Writer(text)
    for number, fold in enumerate(done):
        path = fold_folder(workdir, fold) / "predictions.csv"
        rows = list(csv_files.Reader(io.StringIO(opening.read_bytes(path).decode())))
        writer.writerows(rows if number == 0 else rows[1:])
    files.write_atomic(workdir / "predictions.csv", text.getvalue().encode())


def _markdown(found: Mapping[str, Any]) -> str:
    lines = [f"# {found['system']} on {found['title']}, protocol {found['protocol']}", ""]
    if not found["complete"]:
        lines += [f"**Incomplete: {len(found['folds'])} of {found['planned_folds']} folds.**", ""]
    if found["fewer_folds"]:
        lines += [
            f"{errors.counted(found['planned_folds'], 'fold')} and not {found['asked_folds']}, "
            f"since {found['fewer_folds']}.",
            "",
        ]
    lines += leak_lines(found["leaks"])
    titles = scoring.KINDS[found["kind"]].titles
    lines += [f"| fold | {' | '.join(titles.values())} | best epoch | epochs |", "|---" * (len(titles) + 3) + "|"]
    for fold in found["folds"]:
        values = " | ".join(f"{fold[name]:.3f}" for name in titles)
        lines.append(f"| {fold['fold']} | {values} | {fold['best_epoch']} | {fold['epochs']} |")
    values = " | ".join(scoring.spread(found["mean"][name], found["std"][name], len(found["folds"])) for name in titles)
    lines.append(f"| mean ± std | {values} | | |")
    values = " | ".join(scoring.with_interval(found["pooled"][name]) for name in titles)
    lines.append(f"| all clips [95 % interval over {found['groups']} groups] | {values} | | |")
    lines += [f"{row} | | |" for row in baseline_rows(found)]
    lines.append("")
    lines.append(f"{found['clips']} clips, {found['hours']:.2f} h.")
    return "\n".join(lines) + "\n"


def leak_lines(leaks: Mapping[str, Any] | None) -> list[str]:
    """The badges of a leak report for the top of a Markdown file, a paragraph each; leaks are bold."""
    lines = []
    for badge in leak_badges.badges(leaks):
        bold = "**" * (badge.kind == leak_badges.LEAK)
        lines += [f"{bold}{badge.sentence}{bold}", ""]
    return lines


def baseline_rows(found: Mapping[str, Any]) -> list[str]:
    """Of a summary, the rows of a Markdown table with what answers without listening score, without the last bar."""
    return [
        f"| {scoring.BASELINES[name]} | {' | '.join(f'{scores[metric]:.3f}' for metric in scores)}"
        for name, scores in (found.get("baselines") or {}).items()
    ]


def summary_line(workdir: pathlib.Path) -> str:
    """The means and deviations over the folds, and the scores of all clips, in one line."""
    found = read_summary(workdir)
    kind = found.get("kind", "classes")
    titles = scoring.KINDS[kind].titles
    values = scoring.with_deviation(kind, found["mean"], found["std"], len(found["folds"]))
    line = f"{values} over {errors.counted(len(found['folds']), 'fold')}"
    if "pooled" not in found:  # of an earlier version
        return line
    values = ", ".join(f"{title} {scoring.with_interval(found['pooled'][name])}" for name, title in titles.items())
    return f"{line}; over all clips {values}"
