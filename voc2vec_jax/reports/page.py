"""One page that needs nothing beside it but the listener's own recordings."""

import base64
import functools
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from voc2vec_jax.ops import metrics
from voc2vec_jax.reports import figures as report_figures
from voc2vec_jax.reports import runs as report_runs
from voc2vec_jax.reports import tables as report_tables
from voc2vec_jax.reports import text as report_text

WRONG_CLIPS = 10  # of each run

_STYLE = """
:root { color-scheme: light dark; --text: #1d2329; --soft: #5a6570; --page: #ffffff; --raised: #f3f6f9; --line: #d5dce3;
  --accent: #1f6fb4; --warn: #8a2734; --warn-page: #fdeef0; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ec; --soft: #a3adb8; --page: #15191d; --raised: #1f252b;
  --line: #38414a; --accent: #7db8ea; --warn: #ffb3bd; --warn-page: #3a1c22; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 88rem; padding: 1.5rem 1.25rem 4rem; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; } h2 { font-size: 1.3rem; margin: 2.75rem 0 .5rem; }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .4rem; } h4 { font-size: 1rem; margin: 1.5rem 0 .4rem; }
h2 { border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
a { color: var(--accent); } p { margin: .5rem 0; max-width: 60rem; }
.note, figcaption { color: var(--soft); font-size: .9rem; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; padding: 0; margin: 1rem 0; }
.warn { background: var(--warn-page); color: var(--warn); border-left: 4px solid; padding: .6rem .9rem;
  border-radius: 4px; }
.warn ul { margin: .25rem 0; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; }
.scroll:focus-visible, summary:focus-visible, a:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; font-size: .87rem; width: 100%; overflow-wrap: normal;
  min-width: 44rem; }
th, td { padding: .3rem .55rem; text-align: left; border-top: 1px solid var(--line); vertical-align: middle; }
thead th { background: var(--raised); border-top: 0; font-weight: 600; white-space: nowrap; }
thead th.over { text-align: center; border-left: 1px solid var(--line); border-right: 1px solid var(--line); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td:first-child { white-space: nowrap; }
tbody tr:hover { background: var(--raised); }
figure { margin: 1rem 0; } figure img { display: block; max-width: 100%; height: auto; background: #fff;
  border-radius: 6px; border: 1px solid var(--line); padding: .5rem; }
details { margin: .6rem 0; } summary { cursor: pointer; font-weight: 600; }
audio { height: 2.2rem; width: 17rem; display: block; } .player { min-width: 18rem; white-space: normal; }
"""


class Section(NamedTuple):
    """One data set: its runs with their pictures."""

    runs: Sequence[report_runs.ReportedRun]
    tsne: report_figures.Figure | str  # a sentence where it cannot be drawn
    recalls: report_figures.Figure
    curves: Mapping[report_runs.ReportedRun, report_figures.Figure]  # of the runs that recorded any
    confusion: Mapping[report_runs.ReportedRun, report_figures.Figure]


def page(
    tables: Sequence[report_text.Table],
    sections: Sequence[Section],
    warnings: Sequence[str],
    audio: str | os.PathLike | None = None,
) -> str:
    """The whole document; `warnings` stand at its top, `audio` is a folder to look for recordings in first."""
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; media-src file:; base-uri 'none'; "
        "form-action 'none'"
    )
    body = [_top(tables, sections, warnings)]
    body += [
        f'<section id="{table.name}"><h2>{_text(table.title)}</h2>{report_text.as_html(table)}</section>'
        for table in tables
    ]
    body += [_section(at, section, audio) for at, section in enumerate(sections)]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<link rel="icon" href="data:,">\n'
        f"<title>voc2vec_jax: report</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{chr(10).join(body)}\n</body>\n</html>\n"
    )


def _text(text: str) -> str:
    return report_text.to_html(text)


def _top(tables: Sequence[report_text.Table], sections: Sequence[Section], warnings: Sequence[str]) -> str:
    runs = sum(len(section.runs) for section in sections)
    links = [(table.name, table.title) for table in tables]
    links += [(f"set{at}", section.runs[0].title) for at, section in enumerate(sections)]
    items = "".join(f'<li><a href="#{anchor}"><bdi>{_text(title)}</bdi></a></li>' for anchor, title in links)
    listed = "".join(f"<li>{_text(text)}</li>" for text in warnings)
    alarm = f'<div class="warn" role="note"><strong>Incomplete.</strong><ul>{listed}</ul></div>' if warnings else ""
    words = f"{runs} run{'s' * (runs != 1)} on {len(sections)} data set{'s' * (len(sections) != 1)}"
    return (
        f"<header><h1>Cross-validated fine-tuning</h1><p>{words}.</p>{alarm}</header>"
        f'<nav aria-label="contents"><ul>{items}</ul></nav>'
    )


def _figure(found: report_figures.Figure) -> str:
    data = base64.b64encode(found.images["png"]).decode()
    return (
        f'<figure><img alt="{_text(found.text)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{_text(found.title)}</figcaption></figure>"
    )


def _section(place: int, section: Section, audio: str | os.PathLike | None) -> str:
    runs = section.runs
    tsne = section.tsne
    parts = [f'<section id="set{place}"><h2><bdi>{_text(runs[0].title)}</bdi></h2>', _about(runs)]
    parts += ["<h3>Map of embeddings</h3>", _figure(tsne) if not isinstance(tsne, str) else f"<p>{_text(tsne)}</p>"]
    parts += ["<h3>Recall of each class</h3>", _figure(section.recalls), report_text.as_html(recall_table(runs))]
    for run in runs:
        name = report_tables.mark(run.name, complete=run.complete)
        parts.append(f"<h3><bdi>{_text(name)}</bdi></h3>")
        if not run.complete:
            parts.append(f'<p class="warn">Incomplete: {_text(run.progress)} folds are done.</p>')
        parts.append(_figure(section.confusion[run]))
        parts.append(
            _figure(section.curves[run]) if run in section.curves else "<p>No learning curves are recorded.</p>"
        )
        parts += ["<h4>Most confidently wrong</h4>", _wrong(run, audio)]
    return "\n".join([*parts, "</section>"])


def _about(runs: Sequence[report_runs.ReportedRun]) -> str:
    """What the runs were of, and what their leak reports counted."""
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
    table = report_text.Table(
        "about", "Runs", [*columns, report_text.TableColumn("clips")], [report_text.Group("", rows)]
    )
    return report_text.as_html(table)


def _counts(found: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """The numbers of a leak report, wherever they stand in it."""
    counts = []
    for name, value in found.items():
        if isinstance(value, Mapping):
            counts += _counts(value, f"{prefix}{name} ")
        elif isinstance(value, (int, float, str)):
            counts.append((f"{prefix}{name}".replace("_", " "), str(value)))
    return counts


def recall_table(runs: Sequence[report_runs.ReportedRun]) -> report_text.Table:
    """Recall of each class over the test clips of all folds, a column for each run of one data set."""
    labels = list(dict.fromkeys(label for run in runs for label in run.labels))
    matrices = [(dict(zip(run.labels, metrics.recalls(run.confusion))), run) for run in runs]
    clips = [dict(zip(run.labels, run.confusion.sum(1))) for run in runs]
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
    rows: Sequence[report_runs.ReportedPrediction], count: int = WRONG_CLIPS
) -> list[report_runs.ReportedPrediction]:
    """The wrong predictions of highest probability, by falling probability."""
    wrong = [row for row in rows if row.predicted != row.label]
    return sorted(wrong, key=lambda row: (-row.probability, row.fold, row.id))[:count]


def _wrong(run: report_runs.ReportedRun, audio: str | os.PathLike | None) -> str:
    rows = report_runs.predictions(run)
    if rows is None:
        return "<p>The run folder has no predictions.csv.</p>"
    clips = wrong_clips(rows)
    if not clips:
        return f"<p>None of {len(rows)} clips is wrong.</p>"
    titles = "".join(f'<th scope="col">{title}</th>' for title in ("clip", "true", "predicted"))
    titles += "".join(f'<th scope="col" class="number">{title}</th>' for title in ("probability", "fold"))
    lines = "\n".join(_clip(run, row, audio) for row in clips)
    name = _text(f"most confidently wrong clips, {run.title}, {run.name}")
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{name}"><table><thead><tr>{titles}'
        f'<th scope="col">listen</th></tr></thead><tbody>{lines}</tbody></table></div>'
    )


def _clip(run: report_runs.ReportedRun, row: report_runs.ReportedPrediction, audio: str | os.PathLike | None) -> str:
    words = "".join(f"<td><bdi>{_text(text)}</bdi></td>" for text in (row.id, row.label, row.predicted))
    numbers = "".join(f'<td class="number">{text}</td>' for text in (f"{row.probability:.3f}", row.fold))
    return f'<tr>{words}{numbers}<td class="player">{player(run, row, audio)}</td></tr>'


def player(run: report_runs.ReportedRun, row: report_runs.ReportedPrediction, audio: str | os.PathLike | None) -> str:
    """An `<audio>` that opens the listener's own file at the clip, or a sentence where that file is not there.

    Looked for as <audio>/<data set>/<path>, <audio>/<path>, in the folders of the two levels below <audio>, and as <the
    run's audio root>/<path>; a path that leads out of its folder is not followed.
    """
    relative = pathlib.PurePosixPath(row.path)
    if not row.path:
        return "This clip has no file of its own."
    if relative.is_absolute() or ".." in relative.parts or "\0" in row.path:
        return "The path of this clip leads out of its folder, so it is not opened."
    roots = [pathlib.Path(audio) / run.dataset, pathlib.Path(audio), *_below(pathlib.Path(audio))] if audio else []
    roots += [pathlib.Path(run.audio_root)] if run.audio_root else []
    if not roots:
        return "The run does not know where its recordings are; give --audio=FOLDER."
    for root in roots:
        file = (root / relative).absolute()
        if file.is_file():
            source = f"{file.as_uri()}#t={row.start_seconds:.3f},{row.start_seconds + row.seconds:.3f}"
            label = _text(f"{row.id}, true {row.label}, predicted {row.predicted}")
            return f'<audio controls preload="none" aria-label="{label}" src="{_text(source)}"></audio>'
    given = audio or run.audio_root
    return f"The file <bdi>{_text(row.path)}</bdi> is not in <bdi>{_text(str(given))}</bdi>; give --audio=FOLDER."


@functools.lru_cache
def _below(folder: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """The folders of the two levels below, as an unpacked archive has them."""
    return tuple(sorted({*folder.glob("*/"), *folder.glob("*/*/")}))
