"""NNIME: spontaneous dialogues in Chinese, available under a signed agreement; its layout is not public."""

import pathlib

from voc2vec_jax.datasets import layouts, listings

LAYOUT = layouts.ArchiveLayout(archives=("nnime*",), path=layouts.ANY_AUDIO, own_place=True)


def list_recordings(source: listings.Source, manual_dir: pathlib.Path | None) -> listings.Listing:
    """Every audio file, without labels and groups."""
    return layouts.listing(source, LAYOUT, manual_dir)


SOURCE = listings.Source(
    name="nnime",
    title="NNIME",
    url="https://nnime.ee.nthu.edu.tw",
    licence="academic use, under a signed agreement",
    holds="the wav files, in any folders",
    paper_hours=3.55,
    paper_samples=5596,
    paper_mean_seconds=2.28,
    list_recordings=list_recordings,
    difference="the corpus is about 11 h, which part the paper took is not published",
)
