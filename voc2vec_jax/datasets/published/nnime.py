"""NNIME: spontaneous dyadic interactions in Chinese, under a signed agreement; its layout is not public."""

import pathlib

from voc2vec_jax.datasets import layouts, listings

LAYOUT = layouts.ArchiveLayout(archives=("nnime*",), path=layouts.ANY_AUDIO, own_place=True)


def list_recordings(source: listings.Source, manual_dir: pathlib.Path | None) -> listings.Listing:
    """Every audio file, without labels and groups."""
    return layouts.listing(source, LAYOUT, manual_dir)
