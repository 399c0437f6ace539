"""Writes a report of fine-tuning runs: one page, with its tables, pictures and clips as files beside it."""

import json
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from voc2vec_jax import errors, opening
from voc2vec_jax.reports import comparisons, details, drawing, listening
from voc2vec_jax.reports import figures as report_figures
from voc2vec_jax.reports import page as report_page
from voc2vec_jax.reports import runs as report_runs
from voc2vec_jax.reports import tables as report_tables
from voc2vec_jax.reports import text as report_text
from voc2vec_jax.runs import files as run_files

_INSIDE = 20_000_000  # bytes of pictures that a page holds; those of a whole grid are a hundred million


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
    embed_audio: bool = False,
    formats: Sequence[str] = ("png", "pdf"),
    others: bool = False,
    say: Callable[[str], object] = lambda text: None,
) -> Written:
    """Reads the runs under `words`; writes the page `output` (an .html file), and tables and pictures beside it.

    Beside report.html go the tables that have rows as report_<name>.md and .tex, report_figures/, report_runs/ with
    predictions, configuration and summary of each run, and report_audio/ with the clips that the page plays, unless
    `embed_audio` puts these into the page. Pictures are in the page too, unless they are too many for a browser and
    `embed_audio` does not ask for a page that can be sent alone. `audio` is a folder to search for recordings before
    the runs' own. `others` adds columns with what other publications give to tables III and IV. `say` is called with
    each data set before its pictures are drawn. InputError for anything that cannot be read or written.
    """
    page = _checked(output, audio, formats)
    found = report_runs.find(words)
    runs, warnings, names = found.runs, _warnings(found), stems(found.runs)
    tables = _tables(found, others)
    sections, kept = [], {}
    for members in report_tables.by_dataset(runs).values():
        say(f"{members[0].title}: {', '.join(run.name for run in members)}")
        own = {run: _run_files(run, f"{page.stem}_runs/{names[run]}") for run in members}
        kept |= {page.parent / name: data for each in own.values() for name, data in each.items()}
        pictures = draw(members, formats, _places(runs), names)
        sections.append(report_page.Section(members, pictures, {run: tuple(each) for run, each in own.items()}))
    clips = listening.Clips(f"{page.stem}_audio", audio, embedded=embed_audio)
    inside = embed_audio or _picture_bytes(sections) <= _INSIDE
    links = report_page.Links(f"{page.stem}_", f"{page.stem}_figures/", formats, inside)
    text = report_page.page(tables, sections, warnings, clips, links)
    heard = {page.parent / clips.folder / name: data for name, data in clips.files.items()}
    texts, pictures = _table_files(page, tables, warnings), _picture_files(page, sections, formats, inside)
    _write_all(data := {page: text.encode("utf-8", "replace"), **texts, **pictures, **kept, **heard})
    return Written(page, tuple(data), tuple(runs), tuple(warnings))


def _checked(output: str | os.PathLike, audio: str | os.PathLike | None, formats: Sequence[str]) -> pathlib.Path:
    page = pathlib.Path(output).expanduser()
    if page.suffix.lower() not in (".html", ".htm") or page.is_dir():
        raise errors.InputError(f"{page} is not the name of an .html file; give one, such as report.html")
    run_files.check_folder(str(page), page.parent)
    if audio is not None and not pathlib.Path(audio).is_dir():
        raise errors.InputError(f"--audio={audio} is not a folder; give the one that holds the recordings")
    for kind in formats:
        if kind not in drawing.FORMATS:
            raise errors.InputError(f"the format {kind!r} is none of {', '.join(drawing.FORMATS)}")
    return page


def _tables(found: report_runs.Found, others: bool) -> list[report_text.Table]:
    """The tables that have something to say: those with rows, and the paired tests where a pair was refused."""
    systems, pairs = comparisons.systems(found.runs), comparisons.pairs(found.runs)
    averages = report_tables.table_iii(found.runs, found.faults, others)
    tables = [averages, *report_tables.scores(found.runs, found.faults, others), systems]
    return [table for table in tables if table.groups] + ([pairs] if pairs.groups or len(pairs.notes) > 1 else [])


def _warnings(found: report_runs.Found) -> list[str]:
    """A sentence for each run that is incomplete or failed."""
    unfinished = [
        f"{run.name} on {run.title}: {run.progress} folds are done." for run in found.runs if not run.complete
    ]
    begun = [
        f"{'/'.join(folder.parts[-2:])} has begun and has no summary yet; it is left out." for folder in found.waiting
    ]
    return [*unfinished, *map(report_tables.failed, found.faults), *begun]


def _places(runs: Sequence[report_runs.ReportedRun]) -> dict[str, int]:
    """A place in the palette for each system, the same in every picture."""
    return {name: place for place, name in enumerate(dict.fromkeys(run.name for run in runs))}


def stems(runs: Sequence[report_runs.ReportedRun]) -> dict[report_runs.ReportedRun | str, str]:
    """Names for the files of each data set and each run, such as clips_voc2vec_strict; equal ones get a number."""
    found: dict[report_runs.ReportedRun | str, str] = {}

    def give(owner: report_runs.ReportedRun | str, name: str) -> None:
        count, stem = 1, name
        while stem in found.values():
            count += 1
            stem = f"{name}-{count}"
        found[owner] = stem

    for dataset, members in report_tables.by_dataset(runs).items():
        give(dataset, slug(members[0].title))
        for run in members:
            give(run, f"{found[dataset]}_{slug(run.name)}_{slug(run.protocol)}")
    return found


def draw(
    runs: Sequence[report_runs.ReportedRun],
    formats: Sequence[str],
    places: dict[str, int] | None = None,
    names: dict[report_runs.ReportedRun | str, str] | None = None,
) -> list[drawing.Figure]:
    """The pictures of one data set's runs that there is something to draw for: those of all runs first."""
    places, names = places or _places(runs), names or stems(runs)
    of_classes = [run for run in runs if run.kind == "classes"]
    stem = names[runs[0].dataset]
    found = [(run, vectors) for run in runs if (vectors := details.embeddings(run)) is not None]
    pictures = [report_figures.tsne(found, f"tsne_{stem}", formats)] if found else []
    if of_classes:
        pictures.append(report_figures.recalls(of_classes, places, f"recall_{stem}", formats))
    pictures += [report_figures.confusion(run, f"confusion_{names[run]}", formats) for run in of_classes]
    recorded = [(run, rows) for run in runs if (rows := details.curves(run))]
    return pictures + [report_figures.curves(run, rows, f"curves_{names[run]}", formats) for run, rows in recorded]


def slug(name: str) -> str:
    """A file name of plain letters, never empty and never hidden."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:60] or "run"


def _run_files(run: report_runs.ReportedRun, folder: str) -> dict[str, bytes]:
    """Copies of what a reader asks for next, by their addresses; the configuration without folders of this machine."""
    sources = {"predictions.csv": run.details_folder, "summary.md": run.folder}
    found = {name: place / name for name, place in sources.items() if (place / name).is_file()}
    files = {f"{folder}/{name}": opening.read_bytes(path) for name, path in found.items()}
    if config := details.config(run):
        files[f"{folder}/config.json"] = (json.dumps(_without_folders(config), indent=1) + "\n").encode()
    return files


def _without_folders(value: Any) -> Any:
    """Values of JSON whose texts have no folders of this machine."""
    if isinstance(value, dict):
        return {name: _without_folders(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_without_folders(each) for each in value]
    return report_text.without_folders(value) if isinstance(value, str) else value


def _table_files(
    page: pathlib.Path, tables: Sequence[report_text.Table], warnings: Sequence[str]
) -> dict[pathlib.Path, bytes]:
    alarm = [f"Incomplete: {text}" for text in warnings]
    texts = {}
    for table in (table for table in tables if table.groups):
        path = page.with_name(f"{page.stem}_{table.name}")
        texts[path.with_suffix(".md")] = report_text.markdown([table], alarm)
        texts[path.with_suffix(".tex")] = report_text.latex(table, alarm)
    return {path: text.encode("utf-8", "replace") for path, text in texts.items()}


def _picture_bytes(sections: Sequence[report_page.Section]) -> int:
    """What the page's pictures would add to it."""
    pictures = [picture for section in sections for picture in section.pictures]
    return sum(len(each.images[theme.key]) for each in pictures for theme in drawing.THEMES)


def _picture_files(
    page: pathlib.Path, sections: Sequence[report_page.Section], formats: Sequence[str], inside: bool
) -> dict[pathlib.Path, bytes]:
    """Every picture in every format, and those that the page shows and does not hold."""
    folder = page.with_name(f"{page.stem}_figures")
    pictures = [picture for section in sections for picture in section.pictures]
    keys = {kind: f".{kind}" for kind in formats} | ({} if inside else report_page.SHOWN)
    return {folder / f"{each.name}{ending}": each.images[key] for each in pictures for key, ending in keys.items()}


def _write_all(data: dict[pathlib.Path, bytes]) -> None:
    for path, content in reversed(data.items()):  # the page last: if it exists, everything else does
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            run_files.write_atomic(path, content)
        except OSError as error:
            raise errors.InputError(f"{path} cannot be written: {error.strerror or error}") from error
