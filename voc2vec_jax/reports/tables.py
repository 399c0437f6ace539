"""The paper's tables III and IV from runs, beside the paper's numbers, and paired tests between runs."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from voc2vec_jax.finetuning import paper_systems
from voc2vec_jax.ops import metrics
from voc2vec_jax.reports import paper as report_paper
from voc2vec_jax.reports import runs as report_runs
from voc2vec_jax.reports import text as report_text

TITLES = {"uar": "UAR", "accuracy": "accuracy", "f1_macro": "macro F1"}
_SCORES = tuple(
    report_text.TableColumn(title, over)
    for over in TITLES.values()
    for title in ("ours", "paper", "\N{GREEK CAPITAL LETTER DELTA}")
)
Row = list[report_text.Cell]
_DAGGER_NOTE = f"{report_text.DAGGER} Incomplete: fewer folds than planned are done; this is no result yet."
_OTHER_PROTOCOL = (
    "The paper's numbers come from protocol paper; a difference to them under protocol strict is also one between ways "
    "of testing."
)


def by_dataset(runs: Sequence[report_runs.ReportedRun]) -> dict[str, list[report_runs.ReportedRun]]:
    """The runs of each data set, by its name."""
    groups: dict[str, list[report_runs.ReportedRun]] = {}
    for run in runs:
        groups.setdefault(run.dataset, []).append(run)
    return groups


def mark(text: str, *, complete: bool) -> str:
    """`text`, followed by a dagger if it is incomplete."""
    return text if complete else f"{text} {report_text.DAGGER}"


def number(value: float | None, *, signed: bool = False) -> str:
    """Three decimals, or a dash for None; with `signed`, the sign is always written."""
    if value is None:
        return report_text.DASH
    text = f"{value:+.3f}" if signed else f"{value:.3f}"
    text = text.replace("-0.000", "+0.000" if signed else "0.000")
    return text.replace("-", report_text.MINUS)


def _spread(found: report_paper.Number | None, alone: bool) -> str:
    """Mean and deviation, or the mean `alone`."""
    if found is None:
        return report_text.DASH
    return number(found.mean) + ("" if alone else f"\N{PLUS-MINUS SIGN}{number(found.std)}")


def _scores(ours: report_paper.Row, paper: report_paper.Row, best: dict[str, float], alone: bool = False) -> Row:
    """Nine cells: for each metric the run's number, the paper's and the difference."""
    cells = []
    for metric in TITLES:
        mine, theirs = ours.get(metric), paper.get(metric)
        strong = mine is not None and mine.mean == best.get(metric)
        difference = number(mine.mean - theirs.mean, signed=True) if mine and theirs else report_text.DASH
        cells += [
            report_text.Cell(_spread(mine, alone), strong),
            *map(report_text.Cell, (_spread(theirs, alone), difference)),
        ]
    return cells


def own(run: report_runs.ReportedRun) -> report_paper.Row:
    """The run's mean and population deviation over its folds, by metric; empty without folds."""
    summary = run.summary
    return summary and {name: report_paper.Number(summary.mean[name], summary.std[name]) for name in TITLES} or {}


def _best(rows: Sequence[report_paper.Row]) -> dict[str, float]:
    """The highest mean of each metric; empty for a single row."""
    return {name: max(row[name].mean for row in rows if name in row) for name in TITLES} if len(rows) > 1 else {}


def table_iv(runs: Sequence[report_runs.ReportedRun]) -> report_text.Table:
    """A group for each data set, a row for each run; the best complete run of each protocol is bold."""
    groups = []
    for dataset, members in by_dataset(runs).items():
        rows = []
        for run in members:
            rivals = [own(other) for other in members if other.complete and other.protocol == run.protocol]
            paper = report_paper.TABLE_IV.get(run.system, {}).get(dataset, {})
            name = mark(run.name, complete=run.complete)
            words = map(report_text.Cell, (name, pretraining(run.system), run.protocol, run.progress))
            rows.append([*words, *_scores(own(run), paper, _best(rivals) if run.complete else {})])
        groups.append(report_text.Group(members[0].title, rows))
    columns = [
        report_text.TableColumn(title, number=False) for title in ("system", "pre-training", "protocol", "folds")
    ]
    return report_text.Table("table4", "Table IV: every data set", [*columns, *_SCORES], groups, _notes_iv(runs))


def _notes_iv(runs: Sequence[report_runs.ReportedRun]) -> list[str]:
    notes = ["Mean and population standard deviation over folds; the highest mean of a protocol is bold."]
    notes += [_OTHER_PROTOCOL] if any(run.protocol != "paper" for run in runs) else []
    misprints = [
        f"In the paper's row of {system} on {report_paper.TASKS[task]}, {reason}."
        for (system, task, _), reason in report_paper.MISPRINTS.items()
        if any((run.system, run.dataset) == (system, task) for run in runs)
    ]
    return notes + misprints + ([] if all(run.complete for run in runs) else [_DAGGER_NOTE])


def pretraining(system: str) -> str:
    """What the system was pre-trained on, or a dash if unknown."""
    return paper_systems.SYSTEMS[system].pretraining if system in paper_systems.SYSTEMS else report_text.DASH


class _Average(NamedTuple):
    """A row of table III: one system under one protocol."""

    runs: list[report_runs.ReportedRun]
    ours: report_paper.Row
    paper: report_paper.Row
    whole: bool  # six complete tasks


def _average(runs: list[report_runs.ReportedRun]) -> _Average:
    """Over the paper's tasks among `runs`, beside the paper's average over the same tasks if it gave them."""
    tasks = {run.dataset for run in runs}
    whole = tasks == set(report_paper.TASKS)
    system = runs[0].system
    printed = report_paper.TABLE_IV.get(system, {})
    paper = (
        report_paper.averages(system) if whole else report_paper.average({t: printed[t] for t in tasks & set(printed)})
    )
    ours = report_paper.average({run.dataset: own(run) for run in runs if run.folds})
    return _Average(runs, ours, paper, whole and all(run.complete for run in runs))


def table_iii(runs: Sequence[report_runs.ReportedRun]) -> report_text.Table:
    """A row for each system and protocol: the average over the paper's six tasks, or over those present."""
    members: dict[tuple[str, str], list[report_runs.ReportedRun]] = {}
    for run in runs:
        if run.dataset in report_paper.TASKS:
            members.setdefault((run.protocol, run.name), []).append(run)
    averages = {key: _average(found) for key, found in members.items()}
    rows = []
    for (protocol, name), row in averages.items():
        rivals = [other.ours for key, other in averages.items() if other.whole and key[0] == protocol]
        complete = all(run.complete for run in row.runs)
        words = (mark(name, complete=complete), pretraining(row.runs[0].system), protocol, _tasks(row))
        rows.append(
            [
                *map(report_text.Cell, words),
                *_scores(row.ours, row.paper, _best(rivals) if row.whole else {}, len(row.runs) == 1),
            ]
        )
    columns = [
        report_text.TableColumn(title, number=False) for title in ("system", "pre-training", "protocol", "tasks")
    ]
    groups = [report_text.Group("", rows)] if rows else []
    return report_text.Table(
        "table3", "Table III: averages over tasks", [*columns, *_SCORES], groups, _notes_iii(list(averages.values()))
    )


def _tasks(row: _Average) -> str:
    present = {run.dataset for run in row.runs}
    if present == set(report_paper.TASKS):
        return "all six"
    names = ", ".join(title for task, title in report_paper.TASKS.items() if task in present)
    return f"{len(present)} of 6: {names}"


def _notes_iii(rows: Sequence[_Average]) -> list[str]:
    if not rows:
        return ["None of the runs is on one of the paper's six tasks, so there is nothing to average."]
    notes = ["Mean and population standard deviation of the tasks' means."]
    if any(len(row.runs) < len(report_paper.TASKS) for row in rows):
        notes.append(
            "A row of fewer than six tasks averages over those that it names; the paper's number beside it is the "
            "average of its table IV over the same tasks, and is absent where table IV lacks the system."
        )
    runs = [run for row in rows for run in row.runs]
    notes += [_OTHER_PROTOCOL] if any(run.protocol != "paper" for run in runs) else []
    return notes + ([] if all(run.complete for run in runs) else [_DAGGER_NOTE])


def refusal(a: report_runs.ReportedRun, b: report_runs.ReportedRun) -> str | None:
    """Why two runs of one data set cannot be paired; None if they have the same test clips in their common folds."""
    if a.protocol != b.protocol:
        return f"one ran under protocol {a.protocol}, the other under {b.protocol}"
    theirs = {fold.fold: fold.test for fold in b.folds}
    shared = [fold for fold in a.folds if fold.fold in theirs]
    if len(shared) < 2:
        return f"they have {len(shared)} fold{'s' * (len(shared) != 1)} in common, and a test needs two"
    other = [str(fold.fold) for fold in shared if fold.test != theirs[fold.fold]]
    if other:
        return f"they were tested on different clips in fold{'s' * (len(other) > 1)} {', '.join(other)}"
    return None


def compare(a: report_runs.ReportedRun, b: report_runs.ReportedRun, metric: str) -> metrics.PairedTest:
    """The paired test of a - b over their common folds; `refusal` must have allowed the pair."""
    theirs = {fold.fold: fold for fold in b.folds}
    pairs = [(fold, theirs[fold.fold]) for fold in a.folds if fold.fold in theirs]
    values = [[getattr(fold.scores, metric) for fold in side] for side in zip(*pairs)]
    train = float(np.mean([(mine.train + other.train) / 2 for mine, other in pairs]))
    test = float(np.mean([len(mine.test) for mine, _ in pairs]))
    return metrics.paired(*values, train=train, test=test)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment of the p values that are not None; the order stays."""
    order = sorted((p, at) for at, p in enumerate(values) if p is not None)
    adjusted: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, at) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - rank)))
        adjusted[at] = highest
    return adjusted


_PAIR_COLUMNS = (
    *(report_text.TableColumn(title, number=False) for title in ("metric", "A", "B", "folds")),
    *(report_text.TableColumn(title, "mean") for title in ("A", "B", "A \N{MINUS SIGN} B")),
    *(report_text.TableColumn(title, "corrected t-test") for title in ("t", "p", "p, Holm")),
    report_text.TableColumn("p", "plain t-test"),
    report_text.TableColumn("p", "Wilcoxon"),
)
_PAIR_NOTES = (
    "The corrected resampled t-test (Nadeau and Bengio 2003) allows for the clips that folds share in training, which "
    "the plain t-test does not; Holm's adjustment is over all pairs of a data set in one metric. All p are two-sided; "
    "an adjusted p below 0.05 is bold.",
)


def pairs(runs: Sequence[report_runs.ReportedRun]) -> report_text.Table:
    """Tests of every two runs with the same data set, protocol and folds; the notes name the pairs refused."""
    groups, notes = [], list(_PAIR_NOTES)
    for members in by_dataset(runs).values():
        allowed = []
        for a, b in itertools.combinations(members, 2):
            why = refusal(a, b)
            if why is None:
                allowed.append((a, b))
            elif a.protocol == b.protocol:
                notes.append(f"On {a.title}, {a.name} and {b.name} are not paired: {why}.")
        rows = [row for metric in TITLES for row in _pair_rows(allowed, metric)]
        groups += [report_text.Group(members[0].title, rows)] if rows else []
    if not groups:
        notes[:1] = ["No two runs share a data set, a protocol and at least two folds, so nothing can be paired."]
    elif not all(run.complete for run in runs):
        notes.append(f"{report_text.DAGGER} Incomplete: over the folds that both have.")
    return report_text.Table("pairs", "Paired tests across folds", _PAIR_COLUMNS, groups, notes, folded=True)


def _pair_rows(allowed: Sequence[tuple[report_runs.ReportedRun, report_runs.ReportedRun]], metric: str) -> list[Row]:
    tests = [compare(a, b, metric) for a, b in allowed]
    adjusted = holm([test.p_corrected for test in tests])
    rows = []
    for (a, b), test, p in zip(allowed, tests, adjusted):
        shared = {fold.fold for fold in a.folds} & {fold.fold for fold in b.folds}
        means = [np.mean([getattr(fold.scores, metric) for fold in run.folds if fold.fold in shared]) for run in (a, b)]
        words = [TITLES[metric], *(mark(run.name, complete=run.complete) for run in (a, b)), str(test.folds)]
        words += [*(number(float(mean)) for mean in means), number(test.difference, signed=True)]
        words += [_t(test.t_corrected)]
        chances = [_chance(value) for value in (test.p_corrected, p, test.p_plain, test.p_wilcoxon)]
        chances[1] = chances[1]._replace(strong=p is not None and p < 0.05)
        rows.append([*map(report_text.Cell, words), *chances])
    return rows


def _t(value: float | None) -> str:
    return report_text.DASH if value is None else f"{value:.2f}".replace("-", report_text.MINUS)


def _chance(p: float | None) -> report_text.Cell:
    if p is None:
        return report_text.Cell(report_text.DASH)
    return report_text.Cell("<0.0001" if p < 1e-4 else f"{p:.4f}")
