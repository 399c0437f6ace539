"""Human Voice Dataset: one singer's notes and vowels, exported to wav.

The 75 notes are there twice, in mono and in stereo, and the paper counts both; use only one of the two for splits
without leaks. There are no usable labels.
"""

import pathlib
import re

from voc2vec_jax.datasets import downloads, layouts, listings


def _describe(match: re.Match) -> tuple[str, str]:
    return match["speaker"], ""


LAYOUT = layouts.ArchiveLayout(
    archives=("human-voice-dataset*", "human_voice*"),
    path=r"data/voices/(?P<speaker>[^/]+)/(?:notes|voyels)/exports/(?:mono|stereo)/[^/]+\.wav",
    labels=(),
    describe=_describe,
)


def list_recordings(source: listings.Source, manual_dir: pathlib.Path | None) -> listings.Listing:
    """Every exported wav file, grouped by speaker, without the Audacity projects beside them."""
    return layouts.listing(source, LAYOUT, manual_dir)


SOURCE = listings.Source(
    name="human_voice",
    title="Human Voice Dataset",
    url="https://github.com/vocobox/human-voice-dataset",
    licence="MIT",
    holds="data/voices/<speaker>/{notes,voyels}/exports/{mono,stereo}/*.wav",
    paper_hours=0.06,
    paper_samples=179,
    paper_mean_seconds=1.21,
    list_recordings=list_recordings,
    difference="the paper counts the mono and the stereo export of 75 notes",
    remote=downloads.Remote(
        file=downloads.File(
            "https://github.com/vocobox/human-voice-dataset/archive/refs/heads/master.zip",
            "human-voice-dataset-master.zip",
        ),
        contents="6815ff60b98f8e3f6f43bdcb6548705aaf99d3af00f781b9233f2ec6d3448074",
        root="data/voices",
    ),
)
