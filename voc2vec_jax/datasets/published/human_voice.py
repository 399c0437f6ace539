"""Human Voice Dataset: one singer's notes and vowels, exported to wav.

The 75 notes are there twice, in mono and in stereo, and the paper counts both: take one of the two for
splits without leaks. There are no usable labels.
"""

import pathlib
import re

from voc2vec_jax.datasets import layouts, listings


def _describe(match: re.Match) -> tuple[str, str]:
    return match["speaker"], ""


LAYOUT = layouts.ArchiveLayout(
    archives=("human-voice-dataset*", "human_voice*"),
    path=r"data/voices/(?P<speaker>[^/]+)/(?:notes|voyels)/exports/(?:mono|stereo)/[^/]+\.wav",
    labels=(),
    describe=_describe,
)


def list_recordings(source: listings.Source, manual_dir: pathlib.Path | None) -> listings.Listing:
    """Every exported wav file, grouped by speaker; the Audacity projects beside them are no exports."""
    return layouts.listing(source, LAYOUT, manual_dir)
