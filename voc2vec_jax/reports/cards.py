"""The card of a data set, which a report begins with: what was tested, how well, and whether to believe it."""

import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from voc2vec_jax import errors
from voc2vec_jax.finetuning import leak_badges, scoring
from voc2vec_jax.reports import runs as report_runs
from voc2vec_jax.reports import tables as report_tables
from voc2vec_jax.reports import text as report_text

_NAMED = 8  # classes that a card names
_PROTOCOLS = {
    "strict": "strict: no known speaker on both sides, the epoch chosen on clips held out of training",
    "paper": "paper: as the official script, the epoch chosen on the tested clips",
}
_TITLES = {"chance": "chance", "majority": "majority", "constant": "constant"}


class Gauge(NamedTuple):
    """A score on a scale, all in percent of its length; without an interval `low` and `high` are the value."""

    value: float
    low: float
    high: float
    chance: float | None
    text: str  # for screen readers
    ends: tuple[str, str]


class Row(NamedTuple):
    """A score in words: that of all clips and its interval, the mean over folds, and what needs no listening scores."""

    title: str
    value: str
    interval: str
    mean: str
    baselines: tuple[str, ...]


class RunCard(NamedTuple):
    """One run: `rows` has every score, the first of which `gauge` shows; both are empty before any fold is done."""

    name: str
    about: str  # what of it is not told of the whole card
    rows: tuple[Row, ...]
    gauge: Gauge | None
    verdict: str
    badges: tuple[leak_badges.Badge, ...]  # those that not all runs of the card have


class Card(NamedTuple):
    """A data set: `facts` are pairs of a name and a text; `columns` head the baselines of each row."""

    title: str
    badges: tuple[leak_badges.Badge, ...]  # that all its runs have
    facts: tuple[tuple[str, str], ...]
    columns: tuple[str, ...]
    runs: tuple[RunCard, ...]
    legend: str  # of the gauges of several runs


def card(runs: Sequence[report_runs.ReportedRun]) -> Card:
    """The card of the runs on one data set."""
    shared = tuple(badge for badge in runs[0].badges if all(badge in run.badges for run in runs))
    columns = tuple(_TITLES[name] for name in runs[0].baselines)
    name, title = next(iter(scoring.KINDS[runs[0].kind].titles.items()))
    chance = _main_baseline(runs[0], name)
    dashed = "" if chance is None else f"; dashed: chance, {report_tables.number(chance)}"
    legend = f"{title} of all clips with its 95 % interval{dashed}"
    alone, protocols = len(runs) == 1, len({run.protocol for run in runs}) > 1
    each = tuple(_run_card(run, shared, _about(run, alone, protocols), alone) for run in runs)
    return Card(runs[0].title, shared, tuple(_facts(runs)), columns, each, legend)


def _about(run: report_runs.ReportedRun, alone: bool, protocols: bool) -> str:
    parts = [f"protocol {run.protocol}"] if protocols else []
    parts += [f"{run.progress} folds"] if alone or not run.complete else []
    return ", ".join(parts)


def _facts(runs: Sequence[report_runs.ReportedRun]) -> list[tuple[str, str]]:
    run = runs[0]
    length = "" if run.hours is None else f", {_length(run.hours)}"
    facts = [("clips", f"{run.clips}{length}")] if run.clips is not None else []
    what = {"classes": "classes", "multilabel": "tags", "regression": "numbers"}[run.kind]
    more = f" and {len(run.labels) - _NAMED} more" if len(run.labels) > _NAMED else ""
    facts.append((what, f"{len(run.labels)}: {', '.join(run.labels[:_NAMED])}{more}"))
    facts += _speakers(run)
    models = dict.fromkeys(model_name(run) for run in runs)
    facts.append(("model", ", ".join(models))) if len(models) == 1 else None
    protocols = dict.fromkeys(run.protocol for run in runs)
    facts += [("protocol", _PROTOCOLS.get(protocol, protocol)) for protocol in protocols]
    return facts


def _length(hours: float) -> str:
    return (
        f"{hours:.1f} hours"
        if hours >= 1
        else f"{60 * hours:.0f} minutes"
        if hours >= 0.05
        else f"{3600 * hours:.0f} s"
    )


def model_name(run: report_runs.ReportedRun) -> str:
    """What the run began from, without the folders of this machine."""
    path = run.model
    if re.match(r"[/~]|\.\.[/\\]|[A-Za-z]:[/\\]", path):
        return pathlib.PureWindowsPath(path).name or path
    return path or report_text.DASH


def _speakers(run: report_runs.ReportedRun) -> list[tuple[str, str]]:
    """How many groups the tested clips are of, and for how many it is not known; nothing of an earlier version."""
    tested = run.leaks.get("tested")
    unknown = tested.get("unknown_group") if isinstance(tested, dict) else None
    if run.groups is None or type(unknown) is not int:
        return []
    known = run.groups - unknown
    if known <= 0:
        return [("speakers", "not known")]
    rest = f"; not known for {errors.counted(unknown, 'clip')}" if unknown else ""
    return [("speakers", f"{known} speakers or groups{rest}")]


def _run_card(run: report_runs.ReportedRun, shared: Sequence[leak_badges.Badge], about: str, alone: bool) -> RunCard:
    own = tuple(badge for badge in run.badges if badge not in shared)
    if not run.pooled:
        return RunCard(report_tables.mark(run), about, (), None, "", own)
    titles = scoring.KINDS[run.kind].titles
    spread = report_tables.own(run)
    rows = tuple(_row(run, name, title, report_tables.spread(spread[name])) for name, title in titles.items())
    gauge = _gauge(run, *next(iter(titles.items())))
    return RunCard(report_tables.mark(run), about, rows, gauge, _verdict(run, alone), own)


def _row(run: report_runs.ReportedRun, name: str, title: str, mean: str) -> Row:
    found = run.pooled[name]
    numbers = [report_tables.number(found[key]) for key in ("low", "high")] if found["low"] is not None else []
    interval = f"{numbers[0]} to {numbers[1]}" if numbers else ""
    baselines = tuple(report_tables.number(scores[name]) for scores in run.baselines.values())
    return Row(title, report_tables.number(found["value"]), interval, mean, baselines)


def _main_baseline(run: report_runs.ReportedRun, name: str) -> float | None:
    """The best of the answers that do not listen, in one score."""
    return max((scores[name] for scores in run.baselines.values()), default=None)


def _gauge(run: report_runs.ReportedRun, name: str, title: str) -> Gauge:
    found, chance = run.pooled[name], _main_baseline(run, name)
    low, high = (found["value"] if found[key] is None else found[key] for key in ("low", "high"))
    bottom = -1.0 if min(low, found["value"]) < 0 else 0.0
    places = [100 * (min(1.0, max(bottom, value)) - bottom) / (1 - bottom) for value in (found["value"], low, high)]
    beside = "" if chance is None else f", chance {report_tables.number(chance)}"
    at = None if chance is None else 100 * (chance - bottom) / (1 - bottom)
    text = f"{title} {scoring.with_interval(found)}{beside}"
    return Gauge(*places, at, text, (report_tables.number(bottom)[:-2], "1.0"))


def _verdict(run: report_runs.ReportedRun, alone: bool) -> str:
    """Whether the interval of the first score lies above what needs no listening; "" where it is not known.

    Nothing good is said of a score that leaks, nor of one among several, whose gauges show it.
    """
    name, title = next(iter(scoring.KINDS[run.kind].titles.items()))
    found, chance = run.pooled[name], _main_baseline(run, name)
    if chance is None or found["low"] is None:
        return ""
    if found["low"] > chance:
        return "" if run.leaks_in_words or not alone else f"The 95 % interval of {title} lies above chance."
    return f"The 95 % interval of {title} includes chance: nothing shows that the sounds were told apart."
