"""ReCANVo: vocalizations of eight minimally speaking people, labelled by their families.

All clips lie in the folder of `dataset_file_directory.csv`. Only this file tells participant and label; the names of
clips are times of recording, except for 45.
"""

import pathlib
import re

from voc2vec_jax.datasets import downloads, layouts, listings, tables

DIRECTORY = "dataset_file_directory.csv"
LAYOUT = layouts.ArchiveLayout(archives=("*recanvo*", "5786860"), path=re.escape(DIRECTORY), parts=("*",))
CLIPS = r"[^/]+\.wav"


def list_recordings(source: listings.Source, manual_dir: pathlib.Path | None) -> listings.Listing:
    """The clips that the csv lists, by label, grouped by participant."""
    found = layouts.find(source, LAYOUT, manual_dir)
    rows = tables.read(found.tree, f"{found.root}{DIRECTORY}", ("filename", "participant", "label"))
    by_file, notes = tables.by_file(rows, "filename")

    def describe(match: re.Match) -> tuple[str, str]:
        row = by_file.get(tables.key_of(match["path"]))
        if row is None:
            raise layouts.OddError(f"{DIRECTORY} has no row for it")
        return row.get("participant", ""), row.get("label", "")

    clips = found.select(CLIPS)
    notes += tables.compare(by_file, "filename", [match["path"] for match, _ in clips.matches])
    labels = sorted({row["label"] for row in by_file.values() if row.get("label")})
    return layouts.describe(clips, LAYOUT, describe=describe, labels=labels, notes=notes)


SOURCE = listings.Source(
    name="recanvo",
    title="ReCANVo",
    url="https://zenodo.org/records/5786860",
    licence="as its record states",
    holds="*.wav in one folder with dataset_file_directory.csv",
    paper_hours=2.46,
    paper_samples=7077,
    paper_mean_seconds=1.25,
    list_recordings=list_recordings,
    difference="the release lists 7077 clips",
    remote=downloads.Remote(record=5786860, wanted=("*.zip", "*.wav", "*.csv"), folder="recanvo"),
)
