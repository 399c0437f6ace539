"""CNVVE: six non-verbal expressions for voice control, one folder each, `<class>_<speaker>_*.wav`."""

import pathlib
import re

from voc2vec_jax.datasets import layouts, listings

LABELS = ("confirm", "decline", "continuous", "hush", "psst", "ahem")


def _describe(match: re.Match) -> tuple[str, str]:
    return (match["speaker"] or "").lower(), match["label"].lower()


LAYOUT = layouts.ArchiveLayout(
    archives=("*cnvve*",),
    path=(
        rf"(?P<label>{'|'.join(LABELS)})/"
        rf"(?:(?:{'|'.join(LABELS)})_(?P<speaker>[^/_.]+)_[^/]*\.wav|[^/]+\.wav)"
    ),
    labels=LABELS,
    describe=_describe,
)


def list_recordings(source: listings.Source, manual_dir: pathlib.Path | None) -> listings.Listing:
    """The clips by expression, grouped by speaker where the name has one."""
    return layouts.listing(source, LAYOUT, manual_dir)


SOURCE = listings.Source(
    name="cnvve",
    title="CNVVE",
    url="https://doi.org/10.18419/darus-3898",
    licence="as its record states",
    holds="{confirm,decline,continuous,hush,psst,ahem}/*.wav",
    paper_hours=0.2,
    paper_samples=921,
    paper_mean_seconds=0.78,
    paper_classes=6,
    list_recordings=list_recordings,
    difference="950 clips were recorded, the cleaned release may be the paper's 921",
)
