"""ASVP-ESD: emotional speech and non-speech, `<modality>-<channel>-<emotion>-...wav` in one folder per actor.

Only the third field of a name is always there, so only that is read; code 17 also means disgust. The copy on the Hub
has the emotion first (`08_01_90_....wav`), in the folders Speech and NonSpeech.
"""

import pathlib
import re

from voc2vec_jax.datasets import downloads, layouts, listings

LABELS = (
    "boredom",
    "neutral",
    "happy",
    "sad",
    "angry",
    "fearful",
    "disgust",
    "surprised",
    "excited",
    "pleasure",
    "pain",
    "disappointment",
    "breath",
)
DISGUST_TOO = 17
NAME = r"(?P<actor>actor_[^/]+)/(?:[0-9]+-[0-9]+-(?P<code>[0-9]+)(?:-[^/]*)?|(?P<first>[0-9]+)_[^/]*|[^/]+)\.wav"


def label_of(match: re.Match) -> str:
    """The emotion in a match of `NAME`; `layouts.OddError` for a code that the set does not define."""
    code = match["code"] or match["first"]
    if code is None:
        raise layouts.OddError("its name has no emotion code")
    number = 7 if int(code) == DISGUST_TOO else int(code)
    if not 1 <= number <= len(LABELS):
        raise layouts.OddError(f"its code {code} is not one of the set's emotions (1 to {len(LABELS)}, and 17)")
    return LABELS[number - 1]


def _describe(match: re.Match) -> tuple[str, str]:
    return match["actor"].lower(), label_of(match)


LAYOUT = layouts.ArchiveLayout(
    archives=("asvp*esd*",),
    path=rf"(?:Audio|Speech|Non-?_?Speech)/{NAME}",
    labels=LABELS,
    describe=_describe,
)


def list_recordings(source: listings.Source, manual_dir: pathlib.Path | None) -> listings.Listing:
    """Speech and non-speech by emotion, grouped by actor."""
    return layouts.listing(source, LAYOUT, manual_dir)


SOURCE = listings.Source(
    name="asvp_esd",
    title="ASVP-ESD",
    url="https://zenodo.org/records/7132783",
    licence="as its record states",
    holds="Audio/actor_<number>/*.wav",
    paper_hours=15.07,
    paper_samples=12625,
    paper_mean_seconds=4.3,
    paper_classes=13,
    list_recordings=list_recordings,
    difference="earlier releases have 5146 and 7812 clips; the paper takes speech and non-speech",
    remote=downloads.Remote(record=7132783, wanted=("asvp-esd*.zip",)),
)
