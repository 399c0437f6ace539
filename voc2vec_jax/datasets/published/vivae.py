"""VIVAE: non-speech emotion by eleven speakers, `S<speaker>_<emotion>_<intensity>_<number>.wav`.

The core set repeats a part of the full set and is left out.
"""

import pathlib
import re

from voc2vec_jax.datasets import downloads, layouts, listings

LABELS = ("achievement", "anger", "fear", "pain", "pleasure", "surprise")


def _describe(match: re.Match) -> tuple[str, str]:
    return match["speaker"].upper(), match["emotion"].lower()


LAYOUT = layouts.ArchiveLayout(
    archives=("vivae*",),
    path=rf"full_set/(?P<speaker>S[0-9]+)_(?P<emotion>{'|'.join(LABELS)})_(?:low|moderate|strong|peak)_[^/]+\.wav",
    labels=LABELS,
    describe=_describe,
)


def list_recordings(source: listings.Source, manual_dir: pathlib.Path | None) -> listings.Listing:
    """The clips of the full set by emotion, grouped by speaker."""
    return layouts.listing(source, LAYOUT, manual_dir)


SOURCE = listings.Source(
    name="vivae",
    title="VIVAE",
    url="https://zenodo.org/records/4066235",
    licence="CC BY-NC 4.0",
    holds="full_set/S<speaker>_<emotion>_<intensity>_<number>.wav",
    paper_hours=0.27,
    paper_samples=1085,
    paper_mean_seconds=0.9,
    paper_classes=6,
    list_recordings=list_recordings,
    difference="the full set has 1085 clips, the core set repeats 480 of them",
    remote=downloads.Remote(record=4066235, wanted=("vivae*.zip",)),
)
