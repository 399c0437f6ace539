"""VocalSketch: imitations of sounds with the voice, `<what is imitated> - <id>.wav`, in two collections.

Included and excluded imitations are taken, as in the paper; the imitated sounds (`sound_recordings`) are not voices.
"""

import pathlib
import re

from voc2vec_jax.datasets import downloads, layouts, listings, tables

LAYOUT = layouts.ArchiveLayout(
    archives=("*vocalsketch*", "1251982"),
    path=r"vocal_imitations(?P<second>_set2)?/(?:(?:included|excluded)/)?(?P<name>[^/]+)\.wav",
)
# The second is misspelt in the published data.
CSV = {"": r"vocal_imitations\.csv", "_set2": r"vocal_imita(?:it|ti)ons_set2\.csv"}


def list_recordings(source: listings.Source, manual_dir: pathlib.Path | None) -> listings.Listing:
    """The imitations by what is imitated, grouped by participant where the csv files are there."""
    found = layouts.find(source, LAYOUT, manual_dir)
    rows_by_set, notes = {}, []
    for which in CSV:
        rows_by_set[which], said = _rows(found, which)
        notes += said

    def describe(match: re.Match) -> tuple[str, str]:
        row = rows_by_set[_which(match)].get(tables.key_of(match["path"]), {})
        participant = row.get("participantid", "")
        return f"{'second' if match['second'] else 'first'}:{participant}" if participant else "", _label(match)

    labels = sorted({_label(match) for match, _ in found.matches} - {""})
    return layouts.describe(found, LAYOUT, describe=describe, labels=labels, notes=notes)


def _which(match: re.Match) -> str:
    return (match["second"] or "").lower()


def _label(match: re.Match) -> str:
    label, _, number = match["name"].rpartition(" - ")
    return label.strip() if number.strip().isdigit() else ""


def _rows(found: layouts.Found, which: str) -> tuple[dict[str, tables.Row], list[str]]:
    paths = [match["path"] for match, _ in found.matches if _which(match) == which]
    names = found.named(CSV[which])
    if not names:
        return {}, [f"vocal_imitations{which}: there is no csv, so its clips have no groups"] if paths else []
    rows, notes = tables.by_file(tables.read(found.tree, names[0], ("filename", "participantid")), "filename")
    notes += tables.compare(rows, "filename", paths)
    return rows, [f"vocal_imitations{which}: {note}" for note in notes]


SOURCE = listings.Source(
    name="vocalsketch",
    title="VocalSketch",
    url="https://zenodo.org/records/1251982",
    licence="as its record states",
    holds="vocal_imitations/{included,excluded}/ and vocal_imitations_set2/ with the wav files",
    paper_hours=10.53,
    paper_samples=10705,
    paper_mean_seconds=3.54,
    list_recordings=list_recordings,
    difference="all versions together hold 11189 clips; the paper took included and excluded ones",
    remote=downloads.Remote(record=1251982, wanted=("*.zip",), folder="vocalsketch"),
)
