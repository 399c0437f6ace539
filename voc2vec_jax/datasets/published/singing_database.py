"""Singing Voice Dataset: whole pieces by Chinese and western singers, monophonic and polyphonic.

The folder below `monophonic/chinese` is the singer (`fem_01`). A piece outside such a folder has no group.
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


SOURCE = listings.Source(
    name="singing_database",
    title="Singing Voice Dataset",
    url="http://isophonics.net/SingingVoiceDataset",
    licence="as its page states",
    holds="monophonic/{chinese,western}/ and polyphonic/{chinese,western}/ with the wav files",
    paper_hours=3.97,
    paper_samples=113,
    paper_mean_seconds=126.48,
    list_recordings=list_recordings,
    difference="the paper does not say which pieces it took",
)
