"""ASVP-ESD, babies: the folder Bonus of the same archive; named in the same way, with seven of its emotions.

The record tells of 1204 babies and documents no field of a name that tells them apart, so the three folders are the
only groups.
"""

import pathlib
import re

from voc2vec_jax.datasets import layouts, listings
from voc2vec_jax.datasets.published import asvp_esd

LABELS = ("boredom", "neutral", "happy", "sad", "fearful", "disgust", "pain")


def _describe(match: re.Match) -> tuple[str, str]:
    label = asvp_esd.label_of(match)
    if label not in LABELS:
        raise layouts.OddError(f"its emotion {label} is not one of the babies' seven")
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


SOURCE = listings.Source(
    name="asvp_esd_babies",
    title="ASVP-ESD, babies",
    url="https://zenodo.org/records/7132783",
    licence="as its record states",
    holds="Bonus/actor_<number>/*.wav",
    paper_hours=2.91,
    paper_samples=1339,
    paper_mean_seconds=8.22,
    paper_classes=7,
    list_recordings=list_recordings,
    difference="the release's text says 1204 babies; the paper's hours and mean give 1274 clips",
    remote=asvp_esd.SOURCE.remote,
)
