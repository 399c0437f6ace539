"""Data sets: where to get each, how to prepare it, and how to read it once prepared."""

import difflib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from voc2vec_jax import errors, printable
from voc2vec_jax.datasets import catalog, downloads, listings, preparing, records

CATALOG = catalog.CATALOG


def prepare(
    name: str,
    /,
    *,
    data_dir: str | os.PathLike,
    manual_dir: str | os.PathLike | None = None,
    download: bool = False,
    **options: Any,
) -> records.PreparedSet | None:
    """Prepares a set of the catalogue and opens it; `options` are those of `preparing.prepare`.

    With `download`, a set that is not there and has a plain public link is fetched into `manual_dir`, or into
    `data_dir/downloads` without one.
    """
    data_dir = pathlib.Path(data_dir).expanduser()
    manual_dir = None if manual_dir is None else pathlib.Path(manual_dir).expanduser()
    entry = source(name)
    options["reserved"] = {other.name for other in CATALOG.values() if other.name != name}
    try:
        return preparing.prepare(entry, data_dir=data_dir, manual_dir=manual_dir, **options)
    except listings.MissingError:
        if not download or entry.remote is None or (manual_dir is not None and manual_dir.is_file()):
            raise
    place = manual_dir or data_dir / "downloads"
    try:
        downloads.fetch(entry.remote, place, options.get("progress", True))
    except errors.RunError as error:
        raise listings.missing(entry, place, str(error)) from error
    return preparing.prepare(entry, data_dir=data_dir, manual_dir=place, **options)


def source(name: str) -> listings.Source:
    """The catalogue's entry of a set; `errors.InputError` suggests the nearest name for an unknown one."""
    if name not in CATALOG:
        near = difflib.get_close_matches(name, CATALOG, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(CATALOG)}"
        raise errors.InputError(f"there is no data set {name!r}: {hint}")
    return CATALOG[name]


def missing_table(names: Sequence[str], data_dir: str | os.PathLike) -> str:
    """A table to print: for each set, whether it is prepared in `data_dir`, where to get it and what it must hold."""
    there = set(records.list_sets(data_dir))
    rows = [("set", "prepared", "get it from", "its folder or archive must hold")]
    for name in names:
        entry = CATALOG.get(name)
        about = (f"{entry.url} ({entry.licence})", entry.holds) if entry else ("", "")
        rows.append((name, "yes" if name in there else "no", *about))
    return format_table(rows)


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as aligned columns; the first row is the header."""
    rows = [list(map(printable.line, row)) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
