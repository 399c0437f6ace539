"""Nonspeech7k: seven human non-speech sounds, cut from YouTube and other sources, with a csv file for each split.

The two csv files spell their columns differently and have typos in class names, which are corrected. Some source
recordings occur in both splits, so a group is a source recording in both.
"""

import pathlib
import re

from voc2vec_jax.datasets import downloads, layouts, listings, tables

LABELS = ("breath", "cough", "crying", "laugh", "screaming", "sneeze", "yawn")
TYPOS = {"yawm": "yawn"}
CSV = r"metadata of (?P<split>train|test) set *\.csv"
LAYOUT = layouts.ArchiveLayout(
    archives=("nonspeech7k*", "6967442"),
    path=r"(?P<split>train|test)/(?:(?:train|test)/)?[^/]+\.wav",
    labels=LABELS,
    parts=("*",),
    own_place=True,
)


def list_recordings(source: listings.Source, manual_dir: pathlib.Path | None) -> listings.Listing:
    """The clips of both splits, with label and source recording where the csv files list them."""
    found = layouts.find(source, LAYOUT, manual_dir)
    tables_by_split, notes = {}, []
    for split in ("train", "test"):
        rows, said = _rows(found, split)
        tables_by_split[split] = rows
        notes += said

    def describe(match: re.Match) -> tuple[str, str]:
        row = tables_by_split[match["split"].lower()].get(tables.key_of(match["path"]), {})
        recording = row.get("fileid", "")
        return f"{row.get('source', '')}:{recording}" if recording else "", _label(row)

    return layouts.describe(found, LAYOUT, describe=describe, notes=notes)


def _rows(found: layouts.Found, split: str) -> tuple[dict[str, tables.Row], list[str]]:
    names = found.named(CSV.replace("train|test", split))
    paths = [match["path"] for match, _ in found.matches if match["split"].lower() == split]
    if not names:
        return {}, [f"there is no metadata of {split} set.csv: its clips have no labels and groups"] if paths else []
    rows, notes = tables.by_file(tables.read(found.tree, names[0], ("filename", "fileid", "classname")), "filename")
    unknown = sorted({row["classname"] for row in rows.values() if not _label(row)})
    if unknown:
        notes.append(f"{split}: clips of unknown classes have no label: {listings.some(unknown)}")
    return rows, [*notes, *(f"{split}: {note}" for note in tables.compare(rows, "filename", paths))]


def _label(row: tables.Row) -> str:
    name = row.get("classname", "").lower()
    name = TYPOS.get(name, name)
    return name if name in LABELS else ""


SOURCE = listings.Source(
    name="nonspeech7k",
    title="Nonspeech7k",
    url="https://zenodo.org/records/6967442",
    licence="CC BY 4.0 by its record, CC BY-NC-SA 4.0 by its text",
    holds="train/*.wav, test/*.wav and the two metadata csv files",
    paper_hours=6.72,
    paper_samples=6983,
    paper_mean_seconds=3.46,
    list_recordings=list_recordings,
    difference="the release has 7014 clips, which 31 the paper left out is not published",
    remote=downloads.Remote(record=6967442, wanted=("train*.zip", "test*.zip", "*.csv"), folder="nonspeech7k"),
)
