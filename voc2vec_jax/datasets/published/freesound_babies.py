"""FreeSound babies: clips of the Freesound platform that a user chose; no archive of the paper's was published."""

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
