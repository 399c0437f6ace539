"""VIVAE: non-speech emotion by eleven speakers, `S<speaker>_<emotion>_<intensity>_<number>.wav`.

The core set repeats part of the full set and is left out.
"""

import pathlib
import re

from voc2vec_jax.datasets import layouts, listings

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
