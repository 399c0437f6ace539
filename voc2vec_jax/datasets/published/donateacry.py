"""Donate-a-Cry, cleaned: cries of babies recorded with a telephone app, five reasons given by the parents.

A file is `{instance}-{time}-{version}-{sex}-{age}-{reason}.wav`; the instance is the installed app, so the
clips of one are of one baby and make a group. The class is the folder.
"""

import pathlib
import re

from voc2vec_jax.datasets import layouts, listings

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
