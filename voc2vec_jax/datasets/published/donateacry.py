"""Donate-a-Cry, cleaned: cries of babies, recorded by their parents with a telephone app; five reasons.

A file is `{instance}-{time}-{version}-{sex}-{age}-{reason}.wav`. The instance is one installation of the app, most
likely one baby, and makes a group. The class is the folder.
"""

import pathlib
import re

from voc2vec_jax.datasets import downloads, layouts, listings

LABELS = ("belly_pain", "burping", "discomfort", "hungry", "tired")


def _describe(match: re.Match) -> tuple[str, str]:
    return (match["instance"] or "").lower(), match["reason"].lower()


LAYOUT = layouts.ArchiveLayout(
    archives=("donateacry*", "donate-a-cry*"),
    path=(
        rf"donateacry_corpus_cleaned_and_updated_data/(?P<reason>{'|'.join(LABELS)})/"
        r"(?:(?P<instance>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-)?[^/]*\.wav"
    ),
    labels=LABELS,
    describe=_describe,
)


def list_recordings(source: listings.Source, manual_dir: pathlib.Path | None) -> listings.Listing:
    """The cleaned clips by reason, grouped by app instance."""
    return layouts.listing(source, LAYOUT, manual_dir)


SOURCE = listings.Source(
    name="donateacry",
    title="Donate-a-Cry, cleaned",
    url="https://github.com/gveres/donateacry-corpus",
    licence="ODbL 1.0, contents DbCL 1.0",
    holds="donateacry_corpus_cleaned_and_updated_data/{belly_pain,burping,discomfort,hungry,tired}/*.wav",
    paper_hours=0.88,
    paper_samples=457,
    paper_mean_seconds=6.93,
    paper_classes=5,
    list_recordings=list_recordings,
    remote=downloads.Remote(
        file=downloads.File(
            "https://github.com/gveres/donateacry-corpus/archive/refs/heads/master.zip",
            "donateacry-corpus-master.zip",
        ),
        contents="ead7d81f98bfb330d28834361f790d15260b2b3b66c2c3553e1fd7150785c256",
        root="donateacry_corpus_cleaned_and_updated_data",
    ),
)
