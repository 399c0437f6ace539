"""FreeSound babies: clips of babies that you chose on freesound.org; the paper's archive was not published."""

import pathlib

from voc2vec_jax.datasets import layouts, listings

LAYOUT = layouts.ArchiveLayout(
    archives=("freesound*bab*",),
    path=layouts.ANY_AUDIO,
    own_place=True,
)


def list_recordings(source: listings.Source, manual_dir: pathlib.Path | None) -> listings.Listing:
    """Every audio file, without labels and groups."""
    return layouts.listing(source, LAYOUT, manual_dir)


SOURCE = listings.Source(
    name="freesound_babies",
    title="FreeSound babies",
    url="https://freesound.org",
    licence="Creative Commons, per clip",
    holds="the clips that you chose, in any folders (no archive was published)",
    paper_hours=23.42,
    paper_samples=1450,
    paper_mean_seconds=58.15,
    list_recordings=list_recordings,
    difference="the paper's choice of clips is not published",
)
