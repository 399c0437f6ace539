"""The paper's tables III and IV from runs, beside the paper's numbers."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from voc2vec_jax import errors
from voc2vec_jax.convert import paper_systems
from voc2vec_jax.finetuning import scoring
from voc2vec_jax.reports import others as report_others
from voc2vec_jax.reports import paper as report_paper
from voc2vec_jax.reports import runs as report_runs
from voc2vec_jax.reports import text as report_text

Row = list[report_text.Cell]
_DAGGER_NOTE = f"{report_text.DAGGER} Incomplete: fewer folds than planned are done; this is no result yet."
_ALL_CLIPS = (
    "All clips: the score of all tested clips at once, with a 95 % percentile interval from a bootstrap over groups "
    "(speakers or recordings); runs of an earlier version have none."
)
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


def marks(*runs: report_runs.ReportedRun) -> str:
    """What follows the name of these runs: a dagger where one is incomplete, a double dagger where one leaks."""
    dagger = "" if all(run.complete for run in runs) else report_text.DAGGER
    double = report_text.DOUBLE_DAGGER if any(run.leaks_in_words for run in runs) else ""
    return f" {dagger}{double}" if dagger + double else ""


def mark(run: report_runs.ReportedRun) -> str:
    """Its name with its `marks`."""
    return f"{run.name}{marks(run)}"


def alarms(runs: Sequence[report_runs.ReportedRun]) -> list[str]:
    """What leaks from training into the tested clips of each data set, a sentence each, with the mark of its runs."""
    found = []
    for members in by_dataset(runs).values():
        protocols = {run.protocol for run in members}
        for run in members:
            place = run.title if len(protocols) == 1 else f"{run.title}, protocol {run.protocol}"
            found += [f"{report_text.DOUBLE_DAGGER} {place}: {text}." for text in run.leaks_in_words]
    return list(dict.fromkeys(found))


def number(value: float | None, *, signed: bool = False) -> str:
    """Three decimals, or a dash for None; with `signed`, the sign is always written."""
    if value is None:
        return report_text.DASH
    text = f"{value:+.3f}" if signed else f"{value:.3f}"
    text = text.replace("-0.000", "+0.000" if signed else "0.000")
    return text.replace("-", report_text.MINUS)


def spread(found: report_paper.Number | None, alone: bool = False) -> str:
    """Mean and deviation, or the mean `alone`; a dash for None."""
    if found is None:
        return report_text.DASH
    return number(found.mean) + ("" if alone or found.std is None else f"\N{PLUS-MINUS SIGN}{number(found.std)}")


def _columns(first: Sequence[str], kind: str, beside_paper: bool) -> list[report_text.TableColumn]:
    """Columns of words, then those of `_scores`."""
    titles = ("ours", "all clips", "paper", "\N{GREEK CAPITAL LETTER DELTA}")
    titles = titles if beside_paper else ("mean", "all clips")
    scores = [report_text.TableColumn(title, over) for over in scoring.KINDS[kind].titles.values() for title in titles]
    return [*(report_text.TableColumn(title, number=False) for title in first), *scores]


def _scores(
    kind: str,
    ours: report_paper.Row,
    pooled: Mapping[str, str],
    paper: report_paper.Row | None,
    best: Mapping[str, float],
    alone: bool = False,
) -> Row:
    """For each metric the mean over folds and the score of all clips; with the `paper`'s row, it and the difference."""
    cells = []
    for metric in scoring.KINDS[kind].titles:
        mine = ours.get(metric)
        cells.append(report_text.Cell(spread(mine, alone), mine is not None and mine.mean == best.get(metric)))
        cells.append(report_text.Cell(pooled.get(metric, report_text.DASH)))
        if paper is not None:
            theirs = paper.get(metric)
            difference = number(mine.mean - theirs.mean, signed=True) if mine and theirs else report_text.DASH
            cells += [report_text.Cell(spread(theirs, alone)), report_text.Cell(difference)]
    return cells


def own(run: report_runs.ReportedRun) -> report_paper.Row:
    """The run's mean and population deviation over its folds, or over its seeds, by metric; empty without folds."""
    found, single = run.summary, len(run.seeds or run.folds) == 1
    if found is None:
        return {}
    return {name: report_paper.Number(found.mean[name], None if single else found.std[name]) for name in found.mean}


def _best(rows: Sequence[report_paper.Row], kind: str) -> dict[str, float]:
    """The best mean of each metric; empty for a single row."""
    if len(rows) < 2:
        return {}
    choose = {name: min if name in scoring.KINDS[kind].lower else max for name in scoring.KINDS[kind].titles}
    return {name: choose[name](row[name].mean for row in rows if name in row) for name in choose}


def _beside(sources: Sequence[report_others.Source], dataset: str = "", system: str = "") -> Row:
    """The cells of the columns of others."""
    return [report_text.Cell(spread(found)) for found in report_others.numbers(sources, dataset, system)]


def scores(
    runs: Sequence[report_runs.ReportedRun],
    faults: Sequence[report_runs.ReportedFault] = (),
    others: bool = False,
) -> list[report_text.Table]:
    """The scores of every run: table IV for the paper's tasks, and a table for each kind of other data."""
    of_paper = [run for run in runs if _is_of_paper(run.dataset, run.kind)]
    tables = [table_iv(of_paper, [fault for fault in faults if _is_of_paper(fault.dataset)], others)]
    others = [run for run in runs if run not in of_paper]
    for kind in scoring.KINDS:
        lost = [fault for fault in faults if kind == "classes" and not _is_of_paper(fault.dataset)]
        tables.append(own_scores([run for run in others if run.kind == kind], kind, lost))
    return [table for table in tables if table.groups]


def _is_of_paper(dataset: str, kind: str = "classes") -> bool:
    return dataset in report_paper.TASKS and kind == "classes"


def table_iv(
    runs: Sequence[report_runs.ReportedRun],
    faults: Sequence[report_runs.ReportedFault] = (),
    others: bool = False,
) -> report_text.Table:
    """A group for each of the paper's tasks, a row for each run; the best complete run of each protocol is bold.

    A job that failed without a score has a row of dashes, and its reason is among the notes. With `others`, columns at
    the end have what other publications give for the data set.
    """
    table = _score_table("table4", "Table IV: every data set", runs, "classes", faults, beside_paper=True)
    return _with_others(table, {job.title: job.dataset for job in (*runs, *faults)}) if others else table


def _with_others(table: report_text.Table, datasets: Mapping[str, str]) -> report_text.Table:
    """Table IV with the columns of others; `datasets` has the name of each group's. A source without any is noted."""
    sources = report_others.of_tasks(datasets.values())
    groups = [
        report_text.Group(group.heading, [[*row, *_beside(sources, datasets[group.heading])] for row in group.rows])
        for group in table.groups
    ]
    told = [*sources, *(source for source in report_others.SOURCES if not source.tasks and not source.systems)]
    columns = [*table.columns, *report_others.columns(sources)]
    return table._replace(columns=columns, groups=groups, notes=[*table.notes, *report_others.notes(told)])


def own_scores(
    runs: Sequence[report_runs.ReportedRun], kind: str, faults: Sequence[report_runs.ReportedFault] = ()
) -> report_text.Table:
    """As `table_iv` for data sets that the paper has not."""
    words = {"classes": "", "multilabel": " of tags", "regression": " of numbers"}[kind]
    name = "scores" if kind == "classes" else f"scores_{kind}"
    return _score_table(name, f"Scores{words}", runs, kind, faults, beside_paper=False)


def _score_table(
    name: str,
    title: str,
    runs: Sequence[report_runs.ReportedRun],
    kind: str,
    faults: Sequence[report_runs.ReportedFault],
    *,
    beside_paper: bool,
) -> report_text.Table:
    lost = [fault for fault in faults if fault.left_nothing(runs)]
    told = beside_paper or any(run.system in paper_systems.SYSTEMS for run in [*runs, *lost])
    first = ("system", *(["pre-training"] if told else []), "protocol", "folds")
    columns = _columns(first, kind, beside_paper)
    groups, members_of = [], by_dataset(runs)
    for dataset in dict.fromkeys([*members_of, *(fault.dataset for fault in lost)]):
        members = members_of.get(dataset, [])
        rows = []
        for run in members:
            rivals = [own(other) for other in members if other.complete and other.protocol == run.protocol]
            paper = report_paper.TABLE_IV.get(run.system, {}).get(dataset, {}) if beside_paper else None
            words = (mark(run), *([pretraining(run.system)] if told else []), run.protocol, run.progress)
            best = _best(rivals, kind) if run.complete else {}
            cells = _scores(kind, own(run), _pooled(run), paper, best)
            rows.append([*map(report_text.Cell, words), *cells])
        rows += [] if beside_paper or not members else _baseline_rows(members[0], len(first), kind)
        failed = [fault for fault in lost if fault.dataset == dataset]
        for fault in failed:
            words = (fault.name, *([pretraining(fault.system)] if told else []), fault.protocol, "failed")
            dashes = [report_text.DASH] * (len(columns) - len(words))
            rows.append([report_text.Cell(text) for text in (*words, *dashes)])
        groups.append(report_text.Group(members[0].title if members else failed[0].title, rows))
    return report_text.Table(name, title, columns, groups, _notes_iv(runs, faults, beside_paper), alarms=alarms(runs))


def _baseline_rows(run: report_runs.ReportedRun, words: int, kind: str) -> list[Row]:
    """What answers without listening score on a data set, each in the columns of all clips."""
    rows = []
    for name, found in run.baselines.items():
        dash = report_text.DASH
        texts = [scoring.BASELINES[name], *[dash] * (words - 1)]
        for metric in scoring.KINDS[kind].titles:
            texts += [dash, number(found[metric])]
        rows.append([report_text.Cell(text) for text in texts])
    return rows


def _pooled(run: report_runs.ReportedRun) -> dict[str, str]:
    """The scores of all clips with their intervals, by metric; empty without folds."""
    return {name: scoring.with_interval(found) for name, found in run.pooled.items()}


def failed(fault: report_runs.ReportedFault) -> str:
    """A sentence that says what failed and why."""
    return f"{fault.name} on {fault.title} failed: {report_text.without_folders(fault.reason).rstrip('.')}."


def _notes_iv(
    runs: Sequence[report_runs.ReportedRun], faults: Sequence[report_runs.ReportedFault], beside_paper: bool
) -> list[str]:
    notes = ["Mean and population standard deviation over folds; the best mean of a protocol is bold.", _ALL_CLIPS]
    if any(run.seeds for run in runs):
        notes.append("With several seeds the mean is over seeds and folds, and the deviation over the seeds' means.")
    notes += [failed(fault) for fault in faults]
    notes += dict.fromkeys(
        f"{run.title} has {errors.counted(run.planned_folds, 'fold')} and not the number asked for, since {run.fewer}."
        for run in runs
        if run.fewer
    )
    earlier = [run.name for run in runs if run.protocol == "strict" and run.averaged == "occurring" and run.folds]
    if earlier and len(earlier) < len([run for run in runs if run.protocol == "strict"]):
        notes.append(
            "Recall and F1 are averaged over the classes that are tested, but in the runs of an earlier version over "
            f"those that are only predicted too: {', '.join(dict.fromkeys(earlier))}."
        )
    notes += [_OTHER_PROTOCOL] if beside_paper and any(run.protocol != "paper" for run in runs) else []
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
    pooled: report_paper.Row  # of the scores of all clips
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
    pooled = {
        run.dataset: {name: report_paper.Number(found["value"], 0) for name, found in run.pooled.items()}
        for run in runs
        if run.folds
    }
    return _Average(runs, ours, report_paper.average(pooled), paper, whole and all(run.complete for run in runs))


def table_iii(
    runs: Sequence[report_runs.ReportedRun],
    faults: Sequence[report_runs.ReportedFault] = (),
    others: bool = False,
) -> report_text.Table:
    """A row for each system and protocol: the average over the paper's six tasks, or over those present.

    With `others`, columns at the end have what other publications give for the system.
    """
    members: dict[tuple[str, str], list[report_runs.ReportedRun]] = {}
    for run in runs:
        if run.dataset in report_paper.TASKS and run.kind == "classes":
            members.setdefault((run.protocol, run.name), []).append(run)
    averages = {key: _average(found) for key, found in members.items()}
    sources = report_others.of_systems(row.runs[0].system for row in averages.values()) if others else []
    rows = []
    for (protocol, name), row in averages.items():
        rivals = [other.ours for key, other in averages.items() if other.whole and key[0] == protocol]
        words = (f"{name}{marks(*row.runs)}", pretraining(row.runs[0].system), protocol, _tasks(row))
        rows.append(
            [
                *map(report_text.Cell, words),
                *_scores(
                    "classes",
                    row.ours,
                    {name: spread(found, len(row.runs) == 1) for name, found in row.pooled.items()},
                    row.paper,
                    _best(rivals, "classes") if row.whole else {},
                    len(row.runs) == 1,
                ),
                *_beside(sources, system=row.runs[0].system),
            ]
        )
    columns = _columns(("system", "pre-training", "protocol", "tasks"), "classes", beside_paper=True)
    columns += report_others.columns(sources)
    groups = [report_text.Group("", rows)] if rows else []
    notes = [*_notes_iii(list(averages.values()), faults), *report_others.notes(sources)]
    alarm = alarms([run for row in averages.values() for run in row.runs])
    return report_text.Table("table3", "Table III: averages over tasks", columns, groups, notes, alarms=alarm)


def _tasks(row: _Average) -> str:
    present = {run.dataset for run in row.runs}
    if present == set(report_paper.TASKS):
        return "all six"
    names = ", ".join(title for task, title in report_paper.TASKS.items() if task in present)
    return f"{len(present)} of 6: {names}"


def _notes_iii(rows: Sequence[_Average], faults: Sequence[report_runs.ReportedFault]) -> list[str]:
    if not rows:
        return ["None of the runs is on one of the paper's six tasks, so there is nothing to average."]
    notes = [
        "Mean and population standard deviation of the tasks' means; all clips: of the tasks' scores of all clips."
    ]
    notes += [f"{fault.name} failed on {fault.title}." for fault in faults if fault.dataset in report_paper.TASKS]
    if any(len(row.runs) < len(report_paper.TASKS) for row in rows):
        notes.append(
            "A row of fewer than six tasks averages over those that it names; the paper's number beside it is the "
            "average of its table IV over the same tasks, and is absent where table IV lacks the system."
        )
    runs = [run for row in rows for run in row.runs]
    notes += [_OTHER_PROTOCOL] if any(run.protocol != "paper" for run in runs) else []
    return notes + ([] if all(run.complete for run in runs) else [_DAGGER_NOTE])
