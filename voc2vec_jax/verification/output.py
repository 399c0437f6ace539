"""verify.json, and the table for people."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from voc2vec_jax import errors, printable
from voc2vec_jax.convert import verify
from voc2vec_jax.runs import files, versions
from voc2vec_jax.verification import recordings, rows

NAME = "verify.json"
FORMAT = "voc2vec_jax verify 1"
_PACKAGES = ("jax", "numpy", "huggingface_hub", "transformers", "torch")
_HEADINGS = ("system", "revision", "parameters", "worst difference", "verdict", "compared with")


def write(folder: Path, found: Sequence[rows.Row], against: str) -> Path:
    """Replaces verify.json in `folder`: versions, tolerance, recordings, and every row with its files.

    Published numbers have a tolerance and recordings of their own, which their rows name.

    `--lock=` reads commits, sizes and hashes from it. InputError if it cannot be written.
    """
    how = {"tolerance": verify.TOLERANCE, "recordings": recordings.DIGESTS}
    report: dict[str, Any] = {
        "format": FORMAT,
        "against": against,
        **(how if against != "published" else {}),
        "versions": {"voc2vec_jax": versions.own()} | {name: versions.installed(name) for name in _PACKAGES},
        "systems": [dataclasses.asdict(row) for row in found],
    }
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write_atomic(path, f"{json.dumps(report, indent=2)}\n".encode())
    except OSError as fault:
        raise errors.InputError(f"{path} cannot be written: {fault.strerror}; choose another --output") from fault
    return path


def table(found: Sequence[rows.Row]) -> str:
    """A line for each row, then a sentence for each whose verdict is another than "equal"."""
    cells = [_HEADINGS, *(tuple(map(printable.line, _cells(row))) for row in found)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells]
    reasons = [printable.line(f"{row.system}: {row.why}") for row in found if row.why]
    return "\n".join([*lines, *([""] if reasons else []), *reasons])


def summary(found: Sequence[rows.Row]) -> str:
    """How many of each verdict: "3 equal, 10 not checked"."""
    verdicts = [row.verdict for row in found]
    counts = [(verdicts.count(kind), kind) for kind in (rows.EQUAL, rows.DIFFERS, rows.NOT_CHECKED)]
    return ", ".join(f"{count} {kind}" for count, kind in counts if count)


def status(found: Sequence[rows.Row]) -> int:
    """0 if something was checked and nothing differs or failed, else 1."""
    checked = any(row.verdict == rows.EQUAL for row in found)
    return errors.EXIT_DONE if checked and not any(row.is_fault for row in found) else errors.EXIT_FAULT


def _cells(row: rows.Row) -> tuple[str, ...]:
    difference = "" if row.difference is None else f"{row.difference:.1e} of {row.largest:.3g}"
    parameters = "" if row.parameters is None else f"{row.parameters:,}"
    return row.system, row.revision[:12], parameters, difference, row.verdict, row.compared
