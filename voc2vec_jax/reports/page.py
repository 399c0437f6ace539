"""The report's page: one HTML file that needs no network, with script, style and, unless they are many, pictures."""

import base64
import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import markupsafe

from voc2vec_jax.ops import metrics
from voc2vec_jax.reports import cards, details, drawing, listening
from voc2vec_jax.reports import runs as report_runs
from voc2vec_jax.reports import tables as report_tables
from voc2vec_jax.reports import text as report_text
from voc2vec_jax.runs import pages

WIDE_TABLE = 12  # columns, above which a table is printed on a page of its own, across
SHOWN = {"png": ".png", "dark": "_dark.png"}  # the pictures of both themes, and how the names of their files end
_PIXELS = 84  # an inch of a wide picture, which then has letters of ten pixels and more


@functools.cache
def templates() -> jinja2.Environment:
    """The page's templates, which also clean every value they print."""
    environment = pages.environment("voc2vec_jax.reports", finalize=_finalize)
    environment.filters["base64"] = _base64
    environment.filters["spans"] = report_text.spans
    environment.globals |= {"wide_table": WIDE_TABLE, "pixels": _PIXELS, "shown": SHOWN}
    return environment


def _base64(data: bytes) -> markupsafe.Markup:
    return markupsafe.Markup(base64.b64encode(data).decode())


def _finalize(value: Any) -> Any:
    """Removes control characters from strings; Markup, which only macros and this module make, stays as it is."""
    return report_text.clean(value) if isinstance(value, str) and not isinstance(value, markupsafe.Markup) else value


class Section(NamedTuple):
    """One data set: its runs with their pictures, and the files of each beside the page."""

    runs: Sequence[report_runs.ReportedRun]
    pictures: Sequence[drawing.Figure]
    files: Mapping[report_runs.ReportedRun, Sequence[str]] = {}  # addresses relative to the page


class Links(NamedTuple):
    """Where the page finds tables and pictures: what stands before their names, and the endings that there are.

    Without `inside` the page shows the pictures' files.
    """

    tables: str
    pictures: str
    formats: Sequence[str]
    inside: bool = True


def page(
    tables: Sequence[report_text.Table],
    sections: Sequence[Section],
    warnings: Sequence[str],
    clips: listening.Clips,
    links: Links | None = None,
) -> str:
    """The whole document. `warnings` are listed at the top; `clips` cuts what is played as it is shown."""
    environment = templates()
    style, script = (environment.loader.get_source(environment, f"report.{kind}")[0] for kind in ("css", "js"))
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    heard_from = "data:" if clips.embedded else "'self' file:"
    seen_from = "data:" if not links or links.inside else "data: 'self' file:"
    policy = (
        f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; img-src {seen_from}; "
        f"media-src {heard_from}; base-uri 'none'; form-action 'none'"
    )
    return environment.get_template("report.html.j2").render(
        style=markupsafe.Markup(style),
        script=markupsafe.Markup(script),
        policy=policy,
        tables=tables,
        sections=sections,
        warnings=warnings,
        links=links,
        mark=report_tables.mark,
        card=cards.card,
        about_table=about_table,
        recall_table=recall_table,
        heard=functools.partial(heard, clips),
    )


def about_table(runs: Sequence[report_runs.ReportedRun]) -> report_text.Table:
    """A row for each run: its system, model and protocol, its folds, and the counts of its leak report."""
    rows = []
    for run in runs:
        leaks = "; ".join(f"{name} {value}" for name, value in _counts(run.leaks)) or "none recorded"
        words = (report_tables.mark(run), cards.model_name(run), run.protocol, run.progress, leaks)
        rows.append([report_text.Cell(text) for text in words])
    columns = [
        report_text.TableColumn(title, number=False)
        for title in ("system", "model", "protocol", "folds", "leak report")
    ]
    return report_text.Table("about", "Runs and leak reports", columns, [report_text.Group("", rows)])


def _counts(found: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """The values of a leak report with their names; nested names are joined, and the task's fingerprint is left out."""
    counts = []
    for name, value in found.items():
        if isinstance(value, Mapping):
            counts += _counts(value, f"{prefix}{name} ")
        elif isinstance(value, (int, float, str)) and (prefix, name) != ("", "task"):
            counts.append((f"{prefix}{name}".replace("_", " "), str(value)))
    return counts


def recall_table(runs: Sequence[report_runs.ReportedRun]) -> report_text.Table:
    """Recall of each class over the test clips of all folds, a column for each run of one data set."""
    runs = [run for run in runs if run.kind == "classes"]
    labels = list(dict.fromkeys(label for run in runs for label in run.labels))
    matrices = [(dict(zip(run.labels, metrics.recalls(run.confusion))), run) for run in runs]
    # With several seeds every clip is in the matrix once for each.
    clips = [dict(zip(run.labels, run.confusion.sum(1) // max(1, len(run.seeds)))) for run in runs]
    rows = []
    for label in labels:
        counts = max(int(found.get(label, 0)) for found in clips)
        values = [found.get(label) for found, _ in matrices]
        texts = [report_tables.number(None if value is None or value != value else float(value)) for value in values]
        rows.append([report_text.Cell(label), report_text.Cell(str(counts)), *map(report_text.Cell, texts)])
    columns = [report_text.TableColumn("class", number=False), report_text.TableColumn("clips")]
    columns += [report_text.TableColumn(report_tables.mark(run)) for run in runs]
    groups = [report_text.Group("", rows)]
    return report_text.Table("recall", f"{runs[0].title}: recall", columns, groups, alarms=report_tables.alarms(runs))


class Heard(NamedTuple):
    """What can be listened to of a run of `total` clips, each clip with its player."""

    total: int
    wrong: Sequence[tuple[details.ReportedPrediction, listening.Playback]]
    examples: Sequence[tuple[listening.Example, listening.Playback | None, listening.Playback | None]]


def heard(
    clips: listening.Clips, run: report_runs.ReportedRun, runs: Sequence[report_runs.ReportedRun]
) -> Heard | None:
    """Of one of the `runs` on a data set; None for one that has no predictions or no classes."""
    rows = details.predictions(run) if run.kind == "classes" else None
    if rows is None:
        return None
    found = listening.examples(run, rows) if run in listening.with_examples(runs) else []
    played = [(each, *(clips.player(run, row) if row else None for row in (each.right, each.wrong))) for each in found]
    return Heard(len(rows), [(row, clips.player(run, row)) for row in listening.wrong_clips(rows)], played)
