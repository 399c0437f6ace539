"""TUT Rare Sound Events 2017, baby cries: quiet mixtures of 30 s, and the cries they were mixed from.

Half of the mixtures hold no cry; the event lists say which. The set comes in several archives, which are read
together. The hash in folder and file names differs each time the mixtures are generated.
"""

import pathlib
import re

from voc2vec_jax.datasets import downloads, layouts, listings, tables

CRY, NO_CRY = "babycry", "no event"
MIXTURE = r"mixture_data/(?P<part>[^/]+)/(?P<hash>[^/]+)/audio/(?P<mixture>[^/]*_babycry_[^/]+\.wav)"
EVENT = r"source_data/events/babycry/(?P<event>[^/]+)\.wav"
LAYOUT = layouts.ArchiveLayout(
    archives=("*tut-rare-sound-events-2017*", "401395"),
    path=rf"(?:data/)?(?:{MIXTURE}|{EVENT})",
    labels=(CRY, NO_CRY),
    parts=("*",),
)


def list_recordings(source: listings.Source, manual_dir: pathlib.Path | None) -> listings.Listing:
    """Mixtures, labelled by whether they hold a cry, and source cries, grouped by their Freesound number."""
    found = layouts.find(source, LAYOUT, manual_dir)
    layouts.refuse_mixed(source, found, "part", "hash")
    events, notes = _events(found)

    def describe(match: re.Match) -> tuple[str, str]:
        if match["event"]:
            return match["event"], CRY
        return "", events.get(match["mixture"].lower(), "")

    mixtures = [match["mixture"] for match, _ in found.matches if match["mixture"]]
    unlisted = [name for name in mixtures if name.lower() not in events]
    if unlisted:
        notes.append(f"{len(unlisted)} mixtures are in no event list and have no label: {listings.some(unlisted)}")
    return layouts.describe(found, LAYOUT, describe=describe, notes=notes)


def _events(found: layouts.Found) -> tuple[dict[str, str], list[str]]:
    """The label of each mixture in the event lists, and a note on mixtures that are not there."""
    labels: dict[str, str] = {}
    for name in found.named(r"event_list_[^/]*_babycry\.csv"):
        for row in tables.read(found.tree, name, ("file", "start", "end", "label"), delimiter="\t", header=False):
            labels[tables.key_of(row["file"])] = CRY if row.get("label") else NO_CRY
    there = {match["mixture"].lower() for match, _ in found.matches if match["mixture"]}
    missing = sorted(set(labels) - there)
    return labels, [f"{len(missing)} mixtures of the event lists are not there: {listings.some(missing)}"] * bool(
        missing
    )


SOURCE = listings.Source(
    name="tut_babies",
    title="TUT Rare Sound Events 2017, baby cries",
    url="https://zenodo.org/records/401395",
    licence="EULA.pdf of the record, source events Creative Commons per file",
    holds="data/mixture_data/{devtrain,devtest}/<hash>/ and data/source_data/",
    paper_hours=13.17,
    paper_samples=1540,
    paper_mean_seconds=30.79,
    list_recordings=list_recordings,
    difference="the paper's 1540 may be 1000 development and 500 evaluation mixtures and 40 cries, a guess",
    remote=downloads.Remote(record=401395, wanted=("*.zip",), folder="tut_babies"),
)
