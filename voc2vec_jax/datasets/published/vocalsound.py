"""VocalSound: six vocal sounds, `<sex><speaker>_<session>_<class>.wav`, at 16 kHz or 44.1 kHz."""

import pathlib
import re

from voc2vec_jax.datasets import layouts, listings

LABELS = ("laughter", "sigh", "cough", "throatclearing", "sneeze", "sniff")


def _describe(match: re.Match) -> tuple[str, str]:
    return match["speaker"].lower(), match["sound"].lower()


LAYOUT = layouts.ArchiveLayout(
    archives=("vs_release_*", "vocalsound*"),
    path=rf"(?P<speaker>[fm][0-9]+)_[0-9]+_(?P<sound>{'|'.join(LABELS)})\.wav",
    labels=LABELS,
    describe=_describe,
)


def list_recordings(source: listings.Source, manual_dir: pathlib.Path | None) -> listings.Listing:
    """The clips by sound, grouped by speaker; both rates in one place are refused as two copies."""
    return layouts.listing(source, LAYOUT, manual_dir)


SOURCE = listings.Source(
    name="vocalsound",
    title="VocalSound",
    url="https://github.com/YuanGongND/vocalsound",
    licence="CC BY-SA 4.0",
    holds="audio_16k/*.wav or audio_44k/*.wav",
    paper_hours=24.37,
    paper_samples=20985,
    paper_mean_seconds=4.18,
    list_recordings=list_recordings,
    difference="the release has 21024 clips, which 39 the paper left out is not published",
)
