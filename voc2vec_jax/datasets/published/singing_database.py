"""Singing Voice Dataset: Chinese and western singers, monophonic and polyphonic, whole pieces.

Below `monophonic/chinese` the folder is the singer (`fem_01`); a piece that lies in no such folder has no group.
"""

import pathlib
import re

from voc2vec_jax.datasets import layouts, listings


def _describe(match: re.Match) -> tuple[str, str]:
    singer = match["singer"]
    return f"{match['culture']}/{singer}".lower() if singer else "", ""


LAYOUT = layouts.ArchiveLayout(
    archives=("*singing*voice*dataset*", "*singing*database*", "monophonic*", "polyphonic*"),
    path=(
        r"(?:monophonic|polyphonic)/(?P<culture>chinese|western)/"
        r"(?:(?P<singer>[^/]+)/)?(?:[^/]+/)*[^/]+\.wav"
    ),
    describe=_describe,
    parts=("*",),
)


def list_recordings(source: listings.Source, manual_dir: pathlib.Path | None) -> listings.Listing:
    """Every piece, grouped by the singer's folder."""
    return layouts.listing(source, LAYOUT, manual_dir)
