"""ASVP-ESD, babies: the folder Bonus of the same archive, named in the same way, with seven of its emotions."""

import pathlib
import re

from voc2vec_jax.datasets import layouts, listings
from voc2vec_jax.datasets.published import asvp_esd

LABELS = ("boredom", "neutral", "happy", "sad", "fearful", "disgust", "pain")


def _describe(match: re.Match) -> tuple[str, str]:
    label = asvp_esd.label_of(match)
    if label not in LABELS:
        raise layouts.OddError(f"its emotion {label} is none of the seven of the babies")
    return match["actor"].lower(), label


LAYOUT = layouts.ArchiveLayout(
    archives=asvp_esd.LAYOUT.archives,
    path=rf"Bonus/{asvp_esd.NAME}",
    labels=LABELS,
    describe=_describe,
    shared_with="asvp_esd",
)


def list_recordings(source: listings.Source, manual_dir: pathlib.Path | None) -> listings.Listing:
    """The babies' clips by emotion, grouped by actor."""
    return layouts.listing(source, LAYOUT, manual_dir)
