"""Writes a report of fine-tuning runs: one page, with its tables and pictures as files beside it."""

import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from voc2vec_jax import errors
from voc2vec_jax.reports import comparisons, details
from voc2vec_jax.reports import figures as report_figures
from voc2vec_jax.reports import page as report_page
from voc2vec_jax.reports import runs as report_runs
from voc2vec_jax.reports import tables as report_tables
from voc2vec_jax.reports import text as report_text
from voc2vec_jax.runs import files as run_files


class Written(NamedTuple):
    """The files of a report, and what it is of."""

    page: pathlib.Path
    files: tuple[pathlib.Path, ...]  # all of them, the page first
    runs: tuple[report_runs.ReportedRun, ...]
    warnings: tuple[str, ...]


def write(
    words: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    audio: str | os.PathLike | None = None,
    formats: Sequence[str] = ("png", "pdf"),
    say: Callable[[str], object] = lambda text: None,
) -> Written:
    """Reads the runs under `words`; writes the page `output` (an .html file), and tables and pictures beside it.

    Beside report.html go report_table3, report_table4 and report_pairs as .md and .tex, and report_figures/. `audio` is
    a folder to search for recordings before the runs' own. `say` is called with each data set before its pictures are
    drawn. InputError for anything that cannot be read or written.
    """
    page = _checked(output, audio, formats)
    found = report_runs.find(words)
    runs, warnings = found.runs, _warnings(found)
    tables = [report_tables.table_iii(runs, found.faults), *report_tables.tables_iv(runs, found.faults)]
    tables += [comparisons.systems(runs), comparisons.pairs(runs)]
    sections = []
    for members in report_tables.by_dataset(runs).values():
        say(f"{members[0].title}: {', '.join(run.name for run in members)}")
        sections.append(draw(members, formats, _places(runs)))
    texts = _table_files(page, tables, warnings)
    pictures = _picture_files(page, sections, formats)
    data = {page: report_page.page(tables, sections, warnings, audio).encode("utf-8", "replace"), **texts, **pictures}
    _write_all(data)
    return Written(page, tuple(data), tuple(runs), tuple(warnings))


def _checked(output: str | os.PathLike, audio: str | os.PathLike | None, formats: Sequence[str]) -> pathlib.Path:
    page = pathlib.Path(output).expanduser()
    if page.suffix.lower() not in (".html", ".htm") or page.is_dir():
        raise errors.InputError(f"{page} is not the name of an .html file; give one, such as report.html")
    if audio is not None and not pathlib.Path(audio).is_dir():
        raise errors.InputError(f"--audio={audio} is not a folder; give the one that holds the recordings")
    for kind in formats:
        if kind not in report_figures.FORMATS:
            raise errors.InputError(f"the format {kind!r} is none of {', '.join(report_figures.FORMATS)}")
    return page


def _warnings(found: report_runs.Found) -> list[str]:
    """A sentence for each run that is incomplete or failed."""
    unfinished = [
        f"{run.name} on {run.title}: {run.progress} folds are done." for run in found.runs if not run.complete
    ]
    begun = [f"{folder} has begun and has no summary yet; it is left out." for folder in found.waiting]
    return [*unfinished, *map(report_tables.failed, found.faults), *begun]


def _places(runs: Sequence[report_runs.ReportedRun]) -> dict[str, int]:
    """A place in the palette for each system, the same in every picture."""
    return {name: place for place, name in enumerate(dict.fromkeys(run.name for run in runs))}


def draw(
    runs: Sequence[report_runs.ReportedRun], formats: Sequence[str], places: dict[str, int] | None = None
) -> report_page.Section:
    """Draws the pictures of one data set's runs."""
    places = places or _places(runs)
    stem = slug(runs[0].dataset)
    names = [f"{stem}_{slug(run.name)}_{slug(run.protocol)}" for run in runs]
    of_classes = [run for run in runs if run.kind == "classes"]
    confusion = {
        run: report_figures.confusion(run, f"confusion_{name}", formats)
        for run, name in zip(runs, names)
        if run in of_classes
    }
    curves = {
        run: report_figures.curves(run, rows, f"curves_{name}", formats)
        for run, name in zip(runs, names)
        if (rows := details.curves(run))
    }
    recalls = report_figures.recalls(of_classes, places, f"recall_{stem}", formats) if of_classes else None
    return report_page.Section(runs, _tsne(runs, f"tsne_{stem}", formats), recalls, curves, confusion)


def _tsne(runs: Sequence[report_runs.ReportedRun], name: str, formats: Sequence[str]) -> report_figures.Figure | str:
    found = [(run, vectors) for run in runs if (vectors := details.embeddings(run)) is not None]
    if not found:
        return "None of the runs has embeddings of its first fold."
    return report_figures.tsne(found, name, formats)


def slug(name: str) -> str:
    """A file name of plain letters, never empty and never hidden."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:60] or "run"


def _table_files(
    page: pathlib.Path, tables: Sequence[report_text.Table], warnings: Sequence[str]
) -> dict[pathlib.Path, bytes]:
    alarm = [f"Incomplete: {text}" for text in warnings]
    texts = {}
    for table in tables:
        path = page.with_name(f"{page.stem}_{table.name}")
        texts[path.with_suffix(".md")] = report_text.markdown([table], alarm)
        texts[path.with_suffix(".tex")] = report_text.latex(table, alarm)
    return {path: text.encode("utf-8", "replace") for path, text in texts.items()}


def _picture_files(
    page: pathlib.Path, sections: Sequence[report_page.Section], formats: Sequence[str]
) -> dict[pathlib.Path, bytes]:
    """Every picture in every format; a name that occurs twice gets a number."""
    folder = page.with_name(f"{page.stem}_figures")
    found: dict[pathlib.Path, bytes] = {}
    for section in sections:
        drawn = [section.tsne, section.recalls, *section.confusion.values(), *section.curves.values()]
        for picture in (picture for picture in drawn if isinstance(picture, report_figures.Figure)):
            name, count = picture.name, 1
            while any(folder / f"{name}.{kind}" in found for kind in formats):
                count += 1
                name = f"{picture.name}_{count}"
            found |= {folder / f"{name}.{kind}": picture.images[kind] for kind in formats}
    return found


def _write_all(data: dict[pathlib.Path, bytes]) -> None:
    for path, content in reversed(data.items()):  # the page last: if it exists, everything else does
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            run_files.write_atomic(path, content)
        except OSError as error:
            raise errors.InputError(f"{path} cannot be written: {error.strerror or error}") from error
