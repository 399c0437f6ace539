"""Tests between runs of a report: pairs of systems over the folds of a data set, and over data sets."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from voc2vec_jax.finetuning import scoring
from voc2vec_jax.ops import metrics
from voc2vec_jax.reports import paper as report_paper
from voc2vec_jax.reports import runs as report_runs
from voc2vec_jax.reports import tables as report_tables
from voc2vec_jax.reports import text as report_text


def refusal(a: report_runs.ReportedRun, b: report_runs.ReportedRun) -> str | None:
    """Why two runs of one data set cannot be paired; None if they have the same test clips in their common folds."""
    if a.protocol != b.protocol:
        return f"one ran under protocol {a.protocol}, the other under {b.protocol}"
    if (a.kind, a.averaged) != (b.kind, b.averaged):
        return f"one averages over the {a.averaged} classes, the other over the {b.averaged} ones"
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
    values = [[fold.scores[metric] for fold in side] for side in zip(*pairs)]
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
    for members in report_tables.by_dataset(runs).values():
        allowed = []
        for a, b in itertools.combinations(members, 2):
            why = refusal(a, b)
            if why is None:
                allowed.append((a, b))
            elif a.protocol == b.protocol:
                notes.append(f"On {a.title}, {a.name} and {b.name} are not paired: {why}.")
        titles = scoring.KINDS[members[0].kind].titles
        rows = [row for metric in titles for row in _pair_rows(allowed, metric, titles[metric])]
        groups += [report_text.Group(members[0].title, rows)] if rows else []
    if not groups:
        notes[:1] = ["No two runs share a data set, a protocol and at least two folds, so nothing can be paired."]
    elif not all(run.complete for run in runs):
        notes.append(f"{report_text.DAGGER} Incomplete: over the folds that both have.")
    alarms = report_tables.alarms(runs)
    return report_text.Table("pairs", "Paired tests across folds", _PAIR_COLUMNS, groups, notes, True, alarms)


def _pair_rows(
    allowed: Sequence[tuple[report_runs.ReportedRun, report_runs.ReportedRun]], metric: str, title: str
) -> list[list[report_text.Cell]]:
    tests = [compare(a, b, metric) for a, b in allowed]
    adjusted = holm([test.p_corrected for test in tests])
    rows = []
    for (a, b), test, p in zip(allowed, tests, adjusted):
        shared = {fold.fold for fold in a.folds} & {fold.fold for fold in b.folds}
        means = [np.mean([fold.scores[metric] for fold in run.folds if fold.fold in shared]) for run in (a, b)]
        words = [title, *map(report_tables.mark, (a, b)), str(test.folds)]
        words += [
            *(report_tables.number(float(mean)) for mean in means),
            report_tables.number(test.difference, signed=True),
        ]
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


# --- over data sets ---------------------------------------------------------------------------------------------------

_SYSTEM_COLUMNS = (
    *(report_text.TableColumn(title, number=False) for title in ("A", "B", "data sets", "A better, B better")),
    *(report_text.TableColumn(title, "mean") for title in ("A", "B", "A \N{MINUS SIGN} B")),
    *(report_text.TableColumn(title, "Wilcoxon") for title in ("p", "p, Holm")),
)
_SYSTEM_NOTE = (
    "The Wilcoxon signed-rank test over data sets (Dem\u0161ar 2006, JMLR 7), on the means over folds of the paper's "
    "tasks that both systems completed; ties are split, p is exact and two-sided, and Holm's adjustment is over all "
    "pairs of a protocol in one metric."
)
LEVEL = 0.05


def systems(runs: Sequence[report_runs.ReportedRun]) -> report_text.Table:
    """Tests of every two systems of table III over the data sets that both have; the notes say what n allows."""
    members: dict[str, dict[str, dict[str, report_runs.ReportedRun]]] = {}
    of_paper = [run for run in runs if run.dataset in report_paper.TASKS and run.kind == "classes"]
    for run in (run for run in of_paper if run.complete):
        members.setdefault(run.protocol, {}).setdefault(run.name, {})[run.dataset] = run
    left_out = [f"{report_tables.mark(run)} on {run.title}" for run in of_paper if not run.complete]
    groups, notes = [], [f"Left out, because they are incomplete: {', '.join(left_out)}."] if left_out else []
    for protocol, found in members.items():
        pairs = [(a, b, _common(found[a], found[b])) for a, b in itertools.combinations(found, 2)]
        pairs = [(a, b, tasks) for a, b, tasks in pairs if len(tasks) > 1]
        for metric, title in scoring.KINDS["classes"].titles.items():
            rows = _system_rows(found, pairs, metric)
            groups += [report_text.Group(f"protocol {protocol}, {title}", rows)] if rows else []
        notes += _what_n_allows(protocol, [len(tasks) for *_, tasks in pairs])
    if not groups:
        first = "No two systems completed two of the paper's tasks under one protocol: there is no test over data sets."
    else:
        first = _SYSTEM_NOTE
    title, alarms = "Table III: tests over data sets", report_tables.alarms(of_paper)
    return report_text.Table("systems", title, _SYSTEM_COLUMNS, groups, [first, *notes], True, alarms)


def _common(a: Mapping[str, report_runs.ReportedRun], b: Mapping[str, report_runs.ReportedRun]) -> list[str]:
    """The data sets on which two systems can be compared."""
    return [dataset for dataset in a if dataset in b and a[dataset].averaged == b[dataset].averaged]


def _what_n_allows(protocol: str, counts: Sequence[int]) -> list[str]:
    """A sentence where no p of the test can be small enough, whatever the scores are."""
    if not counts:
        return []
    most = max(counts)
    least = 2 / 2**most  # all differences of one sign
    if least >= LEVEL:
        return [
            f"Under protocol {protocol} systems share at most {most} data sets: no p of this test can be below "
            f"{least:.4g}, and it takes six data sets for one below {LEVEL}. It cannot tell these systems apart."
        ]
    if len(counts) * least >= LEVEL:
        return [
            f"Under protocol {protocol} the least p that {most} data sets allow is {least:.4g}; adjusted for "
            f"{len(counts)} pairs it is {min(1.0, len(counts) * least):.4g}, and none can be below {LEVEL}. "
            "Compare fewer systems, or read the tests across folds."
        ]
    return []


def _system_rows(
    found: Mapping[str, Mapping[str, report_runs.ReportedRun]],
    pairs: Sequence[tuple[str, str, Sequence[str]]],
    metric: str,
) -> list[list[report_text.Cell]]:
    values = [
        [np.array([found[name][task].summary.mean[metric] for task in tasks]) for name in (a, b)]
        for a, b, tasks in pairs
    ]
    chances = [metrics.signed_rank(a - b) for a, b in values]
    rows = []
    for (a, b, tasks), (mine, other), p, adjusted in zip(pairs, values, chances, holm(chances)):
        difference = np.round(mine - other, 12)
        words = [a, b, str(len(tasks)), f"{(difference > 0).sum()}, {(difference < 0).sum()}"]
        words += [report_tables.number(float(each.mean())) for each in (mine, other)]
        words += [report_tables.number(float(difference.mean()), signed=True)]
        last = _chance(adjusted)._replace(strong=adjusted is not None and adjusted < LEVEL)
        rows.append([*map(report_text.Cell, words), _chance(p), last])
    return rows
