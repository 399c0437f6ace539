"""The report's page: one self-contained HTML file, which plays the reader's own recordings."""

import base64
import functools
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import markupsafe

from voc2vec_jax.ops import metrics
from voc2vec_jax.reports import details
from voc2vec_jax.reports import figures as report_figures
from voc2vec_jax.reports import runs as report_runs
from voc2vec_jax.reports import tables as report_tables
from voc2vec_jax.reports import text as report_text

WRONG_CLIPS = 10  # of each run


@functools.cache
def templates() -> jinja2.Environment:
    """The page's templates. They clean and escape every value they print, and refuse a name they were not given."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("voc2vec_jax.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["base64"] = _base64
    environment.filters["spans"] = report_text.spans
    return environment


def _base64(data: bytes) -> markupsafe.Markup:
    return markupsafe.Markup(base64.b64encode(data).decode())


def _finalize(value: Any) -> Any:
    """Removes control characters from strings; Markup, which only macros and this module make, stays as it is."""
    return report_text.clean(value) if isinstance(value, str) and not isinstance(value, markupsafe.Markup) else value


class Section(NamedTuple):
    """One data set: its runs with their pictures."""

    runs: Sequence[report_runs.ReportedRun]
    tsne: report_figures.Figure | str  # a sentence where it cannot be drawn
    recalls: report_figures.Figure | None  # None where the runs have no classes
    curves: Mapping[report_runs.ReportedRun, report_figures.Figure]  # of the runs that recorded any
    confusion: Mapping[report_runs.ReportedRun, report_figures.Figure]  # of the runs that have classes


def page(
    tables: Sequence[report_text.Table],
    sections: Sequence[Section],
    warnings: Sequence[str],
    audio: str | os.PathLike | None = None,
) -> str:
    """The whole document. `warnings` are listed at the top; `audio` is the first folder to search for recordings."""
    environment = templates()
    style, _, _ = environment.loader.get_source(environment, "report.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; media-src file:; base-uri 'none'; "
        "form-action 'none'"
    )
    return environment.get_template("report.html.j2").render(
        style=markupsafe.Markup(style),
        policy=policy,
        tables=tables,
        sections=sections,
        warnings=warnings,
        mark=report_tables.mark,
        about_table=about_table,
        recall_table=recall_table,
        mistakes=functools.partial(mistakes, audio=audio),
    )


def about_table(runs: Sequence[report_runs.ReportedRun]) -> report_text.Table:
    """A row for each run: its system, model and protocol, its folds, and the counts of its leak report."""
    rows = []
    for run in runs:
        leaks = "; ".join(f"{name} {value}" for name, value in _counts(run.leaks)) or "none recorded"
        clips = str(run.clips) if run.clips is not None else report_text.DASH
        name = report_tables.mark(run.name, complete=run.complete)
        rows.append([report_text.Cell(text) for text in (name, run.model, run.protocol, run.progress, leaks, clips)])
    columns = [
        report_text.TableColumn(title, number=False)
        for title in ("system", "model", "protocol", "folds", "leak report")
    ]
    return report_text.Table(
        "about", "Runs", [*columns, report_text.TableColumn("clips")], [report_text.Group("", rows)]
    )


def _counts(found: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """The values of a leak report with their names; nested names are joined."""
    counts = []
    for name, value in found.items():
        if isinstance(value, Mapping):
            counts += _counts(value, f"{prefix}{name} ")
        elif isinstance(value, (int, float, str)):
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
    names = [report_text.TableColumn(report_tables.mark(run.name, complete=run.complete)) for run in runs]
    columns = [report_text.TableColumn("class", number=False), report_text.TableColumn("clips"), *names]
    return report_text.Table("recall", f"{runs[0].title}: recall", columns, [report_text.Group("", rows)])


def wrong_clips(
    rows: Sequence[details.ReportedPrediction], count: int = WRONG_CLIPS
) -> list[details.ReportedPrediction]:
    """The wrong predictions with the highest probabilities, highest first."""
    wrong = [row for row in rows if row.predicted != row.label]
    return sorted(wrong, key=lambda row: (-row.probability, row.fold, row.id))[:count]


class Playback(NamedTuple):
    """What the page plays for a clip: the URL `source` of the reader's own file; `label` names it for screen readers.

    Without a `source`, either the path `missing` is not in `folder`, or `sentence` says why there is no file.
    """

    source: str = ""
    label: str = ""
    missing: str = ""
    folder: str = ""
    sentence: str = ""


class Mistakes(NamedTuple):
    """The most confidently wrong of a run's `total` clips, each with its recording."""

    total: int
    clips: Sequence[tuple[details.ReportedPrediction, Playback]]


def mistakes(run: report_runs.ReportedRun, audio: str | os.PathLike | None) -> Mistakes | None:
    """None for a run without predictions.csv; `audio` is the first folder to search for recordings."""
    rows = details.predictions(run)
    if rows is None:
        return None
    return Mistakes(len(rows), [(row, playback(run, row, audio)) for row in wrong_clips(rows)])


def playback(
    run: report_runs.ReportedRun, row: details.ReportedPrediction, audio: str | os.PathLike | None
) -> Playback:
    """The recording of one clip, from the clip's start to its end.

    The search tries <audio>/<data set>/<path>, <audio>/<path>, the folders up to two levels below <audio>, then <audio
    root of the run>/<path>. A path that leads out of its folder is not followed.
    """
    relative = pathlib.PurePosixPath(row.path)
    if not row.path:
        return Playback(sentence="This clip has no file of its own.")
    if relative.is_absolute() or ".." in relative.parts or "\0" in row.path:
        return Playback(sentence="The path of this clip leads out of its folder, so it is not opened.")
    roots = [pathlib.Path(audio) / run.dataset, pathlib.Path(audio), *_below(pathlib.Path(audio))] if audio else []
    roots += [pathlib.Path(run.audio_root)] if run.audio_root else []
    if not roots:
        return Playback(sentence="The run does not know where its recordings are; give --audio=FOLDER.")
    for root in roots:
        file = (root / relative).absolute()
        if file.is_file():
            source = f"{file.as_uri()}#t={row.start_seconds:.3f},{row.start_seconds + row.seconds:.3f}"
            return Playback(source, f"{row.id}, true {row.label}, predicted {row.predicted}")
    return Playback(missing=row.path, folder=str(audio or run.audio_root))


@functools.lru_cache
def _below(folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """The folders up to two levels below, where an unpacked archive keeps its files."""
    return tuple(sorted({*folder.glob("*/"), *folder.glob("*/*/")}))
