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
    """The clips by sound, grouped by speaker; the two rates together are two copies, and refused."""
    return layouts.listing(source, LAYOUT, manual_dir)
