"""NonVerbal Vocalization (Deeply; OpenSLR 99): sixteen classes of human sounds, public sample.

A file is `{speaker}_{class}_{trial}_{sex}_{age}_{place}_{quality}_{noise}.wav`. Only one of the two published forms
has a folder per class, so the class is read from the name.
"""

import pathlib
import re

from voc2vec_jax.datasets import downloads, layouts, listings

# In the order of the class numbers in the file names.
LABELS = (
    "teeth-chattering",
    "teeth-grinding",
    "tongue-clicking",
    "nose-blowing",
    "coughing",
    "yawning",
    "throat-clearing",
    "sighing",
    "lip-popping",
    "lip-smacking",
    "panting",
    "crying",
    "laughing",
    "sneezing",
    "moaning",
    "screaming",
)


def _describe(match: re.Match) -> tuple[str, str]:
    return match["speaker"], LABELS[int(match["number"])]


LAYOUT = layouts.ArchiveLayout(
    archives=("nonverbal*vocalization*",),
    path=(
        rf"(?:(?:{'|'.join(LABELS)})/)?"
        r"(?P<speaker>[^/_]+)_(?P<number>1[0-5]|[0-9])_[0-9]+_[01]_[0-9]+_[0-9]+_[0-9]+_[0-9]+\.wav"
    ),
    labels=LABELS,
    describe=_describe,
)


def list_recordings(source: listings.Source, manual_dir: pathlib.Path | None) -> listings.Listing:
    """The clips by class, grouped by speaker."""
    return layouts.listing(source, LAYOUT, manual_dir)


SOURCE = listings.Source(
    name="nonverbal_vocalization",
    title="NonVerbal Vocalization, public sample",
    url="https://github.com/deeplyinc/Nonverbal-Vocalization-Dataset",
    licence="CC BY-NC-ND 4.0",
    holds="dataset/<class>/<speaker>_<class number>_*.wav",
    paper_hours=0.6,
    paper_samples=800,
    paper_mean_seconds=3.1,
    paper_classes=16,
    list_recordings=list_recordings,
    difference="the public sample has 727 files and 0.573 h; its README says 800 and 0.6 h, the paper's mean 697",
    remote=downloads.Remote(
        file=downloads.File(
            "https://github.com/deeplyinc/Nonverbal-Vocalization-Dataset/archive/refs/heads/main.zip",
            "Nonverbal-Vocalization-Dataset-main.zip",
        ),
        contents="56cdc5f730e2432933e05cde0d62a9e6f317246fb8efc9bcf9e571c638fed339",
        root="dataset",
    ),
)
